//! ICMP errors of the catalogue (docs/packet-cases.md) beside those of packets_errors.rs: extended ones, strange MTUs, and errors about
//! flows of which nothing is known.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, World, action,
    bytes::{IP, fragment, pieces},
    case::{Case, Expected, check},
    packet::{Packet, Transport, checksum, flag},
    surroundings::{FROM, SECOND, VIP, of, segment},
    world::{MODES, NIC, ip},
};

/// What the VIP has sent to the client.
fn answer(is_v4: bool) -> Packet {
    let vip = format!("{}@80", of(&VIP, is_v4));
    Packet::tcp(&vip, &format!("{}@40001", of(&FROM, is_v4)), flag::ACK).filled(1300)
}

/// A router's error to the VIP that quotes these bytes.
fn error((kind, code): (u8, u8), rest: [u8; 4], is_v4: bool, quote: &[u8]) -> Packet {
    let router = if is_v4 { "203.0.113.1" } else { "2001:db8:e::1" };
    Packet::new(router, of(&VIP, is_v4), Transport::Icmp { kind, code, rest }).payload(quote)
}

const fn too_big(is_v4: bool) -> (u8, u8) {
    if is_v4 { (3, 4) } else { (2, 0) }
}

/// An error that reaches the backend: in nat it is to the backend, and quotes what the backend has sent, which is `inner`.
fn forwards(name: String, world: &World, error: &Packet, inner: &[u8]) -> Case {
    let service = &world.services[0];
    let backend = &service.backends[SECOND];
    let mut frame = error.clone().hop(NIC, backend.mac);
    match service.forward {
        Forward::Nat => {
            frame.ip.destination = backend.address;
            frame.payload = inner.to_vec();
        }
        Forward::Dsr => {}
        _ => frame = frame.tunnelled(backend.source.expect("a tunnel"), backend.address),
    }
    let delta =
        Delta::request(1 + SECOND as u32, error.length(), false).and(1, Reason::IcmpErrorForwarded);
    Case::new(name, error.bytes(), Expected::answered(frame.bytes(), delta))
}

/// The quoted packet as the backend has sent it: in nat not from the VIP.
fn sent(world: &World, quoted: &Packet) -> Packet {
    let backend = &world.services[0].backends[SECOND];
    if world.services[0].forward != Forward::Nat {
        return quoted.clone();
    }
    quoted.clone().sourced(backend.address, backend.port)
}

/// B66, B86: what a packet may have at most is between the router and the endpoint.
#[test]
fn any_mtu_is_brought_to_the_backend() {
    let mut kernel = Kernel::shared();
    for mode in MODES {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let quoted = answer(mode.2);
        let mut cases = Vec::new();
        for mtu in [0, 1, 67, 68, 552, 575, 576, 1279, 1280, 1499, 9000, 0xffff_u16] {
            for length in [if mode.2 { 28 } else { 48 }, 200] {
                let [a, b] = mtu.to_be_bytes();
                let quote = &quoted.ip_bytes()[..length];
                let error = error(too_big(mode.2), [0, 0, a, b], mode.2, quote);
                let inner = sent(&world, &quoted).ip_bytes();
                let name = format!("{}: MTU {mtu}, {length} bytes", mode.0);
                cases.push(forwards(name, &world, &error, &inner[..length]));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// An MPLS label stack behind 128 bytes of the packet (RFC 4884 and 4950).
fn extension() -> Vec<u8> {
    let object = [0, 8, 1, 1, 0x3e, 0x81, 0x01, 0x40];
    let mut extension = [&[0x20, 0, 0, 0][..], &object].concat();
    let sum = checksum(&extension);
    extension[2..4].copy_from_slice(&sum.to_be_bytes());
    extension
}

/// B65: an error that says more than the quoted packet is translated in the quoted packet only.
#[test]
fn extended_errors_keep_their_extensions() {
    const QUOTED: usize = 128;
    let mut kernel = Kernel::shared();
    for mode in MODES {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let quoted = answer(mode.2);
        let with = |packet: &Packet| [&packet.ip_bytes()[..QUOTED], &extension()].concat();
        // The length of the quote: in words of four bytes, or of eight (RFC 4884 4.1, 4.2).
        let (kind, rest) = match mode.2 {
            true => ((11, 0), [0, QUOTED as u8 / 4, 0, 0]),
            false => ((3, 0), [QUOTED as u8 / 8, 0, 0, 0]),
        };
        let error = error(kind, rest, mode.2, &with(&quoted));
        let inner = with(&sent(&world, &quoted));
        check(&mut kernel, &[forwards(mode.0.into(), &world, &error, &inner)]);
    }
}

/// B71: nothing but the hash is known of a flow; the error goes where the flow's packets go, as it would after a change of the node.
#[test]
fn errors_about_flows_that_were_never_seen_go_where_their_packets_would() {
    let mut kernel = Kernel::shared();
    for mode in MODES {
        let mut world = World::plain(mode);
        // Three backends in turn.
        world.services[0].ring.clear();
        kernel.enter(world);
        let mut reached = [0; 3];
        for port in 20_000..20_060 {
            let client = format!("{}@{port}", of(&FROM, mode.2));
            let vip = format!("{}@80", of(&VIP, mode.2));
            let quote = Packet::tcp(&vip, &client, flag::ACK).filled(60).ip_bytes();
            let error = error(too_big(mode.2), [0, 0, 5, 120], mode.2, &quote);
            let (outcome, delta) = kernel.count(&error.bytes());
            assert_eq!(outcome.action, action::TX, "{}: {outcome:?}", mode.0);
            let backend = u32::from(outcome.frame[5]) + 1;
            let expected = Delta::request(backend, error.length(), false);
            assert_eq!(delta, expected.and(1, Reason::IcmpErrorForwarded), "{}", mode.0);
            let packet = Packet::tcp(&client, &vip, flag::ACK);
            let outcome = kernel.run(&packet.bytes());
            assert_eq!(u32::from(outcome.frame[5]) + 1, backend, "{}: port {port}", mode.0);
            reached[backend as usize - 1] += 1;
        }
        assert!(reached.iter().all(|count| *count > 0), "{}: {reached:?}", mode.0);
        assert_eq!(kernel.pin_counts(), (0, 0), "{}", mode.0);
    }
}

/// B87: a quoted first fragment has ports behind its fragment header, a quoted later one has none.
#[test]
fn quoted_first_fragments_are_translated() {
    let mut kernel = Kernel::shared();
    for mode in MODES.into_iter().filter(|mode| !mode.2) {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let quoted = answer(false);
        let mut cases = Vec::new();
        // The last one ends before TCP's checksum, with which the first fragment's does not agree anyway.
        for length in [100, 400, 40 + 8 + 8] {
            let quote = |packet: &Packet| {
                fragment(&packet.bytes(), 7, 0, 512, true)[IP..IP + length].to_vec()
            };
            let error = error(too_big(false), [0, 0, 5, 120], false, &quote(&quoted));
            let inner = quote(&sent(&world, &quoted));
            cases.push(forwards(format!("{}: {length}", mode.0), &world, &error, &inner));
        }
        check(&mut kernel, &cases);
    }
}

/// B69, B32: errors about later fragments, and fragments of errors, have no ports that could be read.
#[test]
fn errors_in_fragments_and_about_later_ones_are_dropped() {
    let mut kernel = Kernel::shared();
    for mode in MODES {
        let mut world = World::plain(mode);
        world.services.iter_mut().for_each(|service| service.flags |= service_flag::FRAGMENTS);
        kernel.enter(world);
        let quoted = answer(mode.2).ip(|ip| ip.dont_fragment = false);
        let mut cases = Vec::new();
        for piece in &pieces(&quoted.bytes(), 77, 512)[1..] {
            let error = error(too_big(mode.2), [0, 0, 5, 120], mode.2, &piece[IP..]);
            let name = format!("{}: about a later fragment", mode.0);
            cases.push(Case::drops(name, error.bytes(), 0, Reason::IcmpErrorBad));
        }
        let quote = &quoted.ip_bytes()[..500];
        let error = error(too_big(mode.2), [0, 0, 5, 120], mode.2, quote);
        let error = error.ip(|ip| ip.dont_fragment = false).bytes();
        let name = format!("{}: an error's first fragment", mode.0);
        let first = pieces(&error, 78, 256)[0].clone();
        cases.push(Case::drops(name, first, 0, Reason::FragmentDropped));
        check(&mut kernel, &cases);
    }
}

/// B58 in nat: what a backend sends from a port or of a protocol that no service has is its own, and never gets the VIP's address.
#[test]
fn what_backends_send_beside_their_services_is_their_own() {
    let mut kernel = Kernel::shared();
    for is_v4 in [true, false] {
        let world = World::plain(("nat", Forward::Nat, is_v4, is_v4));
        kernel.enter(world.clone());
        let backend = &world.services[0].backends[SECOND];
        let from = |port| {
            let packet = segment(is_v4, flag::ACK).filled(9).sourced(backend.address, port);
            let mut packet = packet.destined(ip(of(&FROM, is_v4)), 40_001);
            packet.from = backend.mac;
            packet
        };
        let mut other = from(backend.port);
        other.transport = Transport::Other(132);
        let echo = Packet::echo(&backend.address.to_string(), of(&FROM, is_v4));
        let cases: Vec<Case> = [from(22), from(80), from(backend.port + 1), other, echo]
            .iter()
            .map(|packet| Case::passes(format!("{:?}", packet.transport), packet.bytes()))
            .collect();
        check(&mut kernel, &cases);
    }
}
