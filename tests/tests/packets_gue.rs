//! Packets in GUE: every mix of families, with outer checksums by an independent builder over all the bytes.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, Options, World, action,
    answer::too_big,
    bytes::{IP, patched, patched_v4, with_extension},
    case::{Case, Expected, check, expected_frame},
    packet::{Packet, Transport, flag},
    world::{GUE_MODES, MODES, NIC, Service},
};

fn kernel() -> std::sync::MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { gue: true, ..Options::default() })
}

fn client(is_v4: bool) -> &'static str {
    if is_v4 { "192.0.2.33@40001" } else { "2001:db8:c::33@40001" }
}

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7" } else { "2001:db8:5::7" }
}

fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let backends = if backends_are_v4 {
        ["10.1.0.1@6080", "10.1.0.2@6081"]
    } else {
        ["fd01::1@6080", "fd01::2@6081"]
    };
    let mut service =
        Service::new(vip(vip_is_v4), forward, &backends).flags(service_flag::FRAGMENTS);
    service.ring = vec![1; 1021];
    World::of([service.clone(), service.udp()])
}

fn tcp(is_v4: bool, flags: u8) -> Packet {
    Packet::tcp(client(is_v4), &format!("{}@80", vip(is_v4)), flags)
}

fn udp(is_v4: bool) -> Packet {
    Packet::udp(client(is_v4), &format!("{}@80", vip(is_v4)))
}

/// The frame that leaves with `inner`, an IP packet, in the tunnel of `flow`'s packets.
fn wrapped(world: &World, flow: &Packet, inner: &[u8]) -> Vec<u8> {
    let backend = &world.services[0].backends[1];
    let source = backend.source.expect("a tunnel has one");
    let mut outer =
        flow.clone().hop(NIC, backend.mac).in_gue(source, backend.address, backend.port);
    outer.payload.truncate(4);
    outer.payload.extend(inner);
    outer.bytes()
}

/// A frame with one hop less.
fn hop(frame: &[u8], is_v4: bool) -> Vec<u8> {
    if is_v4 {
        return patched_v4(frame, 8, &[frame[IP + 8] - 1]);
    }
    patched(frame, IP + 7, &[frame[IP + 7] - 1])
}

#[test]
fn whole_packets_of_every_length_and_class() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in GUE_MODES {
        let world = world(forward, is_v4, backends_are_v4);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for length in (0..130).chain([1000, 1387, 1388]) {
            let packet = tcp(is_v4, flag::ACK).filled(length);
            cases.push(Case::forwards(format!("{mode}: {length}"), &world, &packet, 1, 1));
            let packet = udp(is_v4).filled(length);
            cases.push(Case::forwards(format!("{mode}: {length}"), &world, &packet, 2, 1));
        }
        cases.push(Case::forwards(format!("{mode}: SYN"), &world, &tcp(is_v4, flag::SYN), 1, 1));
        // B22: DSCP and ECN are copied (RFC 6040).
        for class in 0..=255 {
            let packet = tcp(is_v4, flag::ACK).ip(|ip| ip.class = class);
            cases.push(Case::forwards(format!("{mode}: class {class}"), &world, &packet, 1, 1));
        }
        for number in 0..64u16 {
            let packet = tcp(is_v4, flag::ACK).with_tcp(|tcp| tcp.source = 1024 + number * 997);
            cases.push(Case::forwards(format!("{mode}: flow {number}"), &world, &packet, 1, 1));
        }
        let packet = tcp(is_v4, flag::ACK).with_tcp(|tcp| tcp.options = vec![1; 40]);
        cases.push(Case::forwards(format!("{mode}: options"), &world, &packet, 1, 1));
        if is_v4 {
            for options in [4, 20, 40] {
                let packet = tcp(true, flag::ACK).ip(|ip| ip.options = vec![1; options]);
                let name = format!("{mode}: {options} bytes of IP options");
                cases.push(Case::forwards(name, &world, &packet, 1, 1));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// Where the transport checksum does not tell the sum of the packet: it is added up.
#[test]
fn packets_without_a_checksum_over_everything() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in GUE_MODES {
        let world = world(forward, is_v4, backends_are_v4);
        kernel.enter(world.clone());
        // The other mode with these addresses has had the same fragments.
        kernel.forget_fragments();
        let backend = world.first_backend(1) + 1;
        let header = if is_v4 { 20 } else { 40 };
        let mut cases = Vec::new();
        let mut add = |name: &str, flow: &Packet, frame: Vec<u8>| {
            // All fragments of a datagram go the same way: by the addresses, which each of them has.
            let mut spread = flow.clone();
            if name == "first fragment" {
                spread.transport = Transport::Other(17);
            }
            let leaves = wrapped(&world, &spread, &hop(&frame, is_v4)[IP..]);
            let delta = Delta::request(backend, frame.len() - IP, false);
            let expected = Expected::forwarded(flow, backend, false, leaves).counted(delta);
            cases.push(Case::new(format!("{mode}: {name}"), frame, expected));
        };
        for length in [0, 1, 7, 100, 1001] {
            let packet = udp(is_v4).filled(length);
            if is_v4 {
                let none = patched(&packet.bytes(), IP + header + 6, &[0, 0]);
                add("no checksum", &packet, none);
            } else {
                let extended = with_extension(&packet.bytes(), 60, &[1, 4, 0, 0, 0, 0]);
                add("extension header", &packet, extended);
            }
            // B44: bytes behind the datagram, but within the packet.
            let mut longer = packet.clone();
            longer.transport = Transport::Other(17);
            longer.payload = [&packet.bytes()[IP + header..], &[0xaa; 5]].concat();
            add("bytes behind the datagram", &packet, longer.bytes());
            if is_v4 && length > 7 {
                let first = patched_v4(&packet.bytes()[..IP + 20 + 16], 2, &36u16.to_be_bytes());
                let first = patched_v4(&first, 6, &[0x20, 0]);
                // An identification of its own.
                let first = patched_v4(&first, 4, &(length as u16).to_be_bytes());
                add("first fragment", &packet, first);
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn errors_about_the_flow_follow_it() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in GUE_MODES {
        let world = world(forward, is_v4, backends_are_v4);
        kernel.enter(world.clone());
        let about = Packet::tcp(&format!("{}@80", vip(is_v4)), client(is_v4), flag::ACK);
        let (router, kind, code) =
            if is_v4 { ("203.0.113.9", 3, 4) } else { ("2001:db8:e::9", 2, 0) };
        let icmp = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
        let error = Packet::new(router, vip(is_v4), icmp).payload(&about.ip_bytes()).bytes();
        let (outcome, delta) = kernel.count(&error);
        assert_eq!(outcome.action, action::TX, "{mode}: {delta:?}");
        let flow = tcp(is_v4, flag::ACK);
        assert_eq!(outcome.frame, wrapped(&world, &flow, &hop(&error, is_v4)[IP..]), "{mode}");
    }
}

/// R6: a checksum that arrives wrong is not repaired; here it makes the outer one wrong by as much.
#[test]
fn a_wrong_checksum_leaves_wrong() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in GUE_MODES {
        let world = world(forward, is_v4, backends_are_v4);
        kernel.enter(world.clone());
        let header = if is_v4 { 20 } else { 40 };
        let packet = tcp(is_v4, flag::ACK).filled(64);
        let right = expected_frame(&world, &packet, 1, 1);
        for bit in 0..16 {
            let at = IP + header + 16 + bit / 8;
            let frame = packet.bytes();
            let broken = patched(&frame, at, &[frame[at] ^ 1 << (bit % 8)]);
            let leaves = kernel.run(&broken).frame;
            let inner = right.len() - (frame.len() - IP);
            assert_eq!(leaves[inner..], hop(&broken, is_v4)[IP..], "{mode}: bit {bit}");
            // The outer header has what it would have for the right packet, which this one is not.
            assert_eq!(leaves[..inner], right[..inner], "{mode}: bit {bit}");
        }
    }
}

/// B93 to B96: 32 or 52 bytes less than the link has.
#[test]
fn what_does_not_fit_is_answered_with_what_would() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in GUE_MODES {
        let world = world(forward, is_v4, backends_are_v4);
        let mtu = world.services[0].backends[1].mtu;
        kernel.enter(world.clone());
        let fits = mtu - if backends_are_v4 { 32 } else { 52 };
        let headers = if is_v4 { 40 } else { 60 };
        let packet = |length: u16| tcp(is_v4, flag::ACK).filled(usize::from(length - headers));
        let largest = Case::forwards(mode, &world, &packet(fits), 1, 1);
        check(&mut kernel, &[largest]);
        let packet = packet(fits + 1);
        let delta = Delta::reason(1, Reason::TooBig).and(1, Reason::TooBigSent);
        let told = Expected::answered(too_big(&packet, fits).bytes(), delta);
        check(&mut kernel, &[Case::new(mode, packet.bytes(), told)]);
    }
}

#[test]
fn other_modes_are_as_they_were() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in MODES {
        let world = world(forward, is_v4, backends_are_v4);
        kernel.enter(world.clone());
        let cases = [
            Case::forwards(mode, &world, &tcp(is_v4, flag::SYN), 1, 1),
            Case::forwards(mode, &world, &udp(is_v4), 2, 1),
        ];
        check(&mut kernel, &cases);
    }
}
