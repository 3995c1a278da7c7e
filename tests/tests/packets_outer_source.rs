//! IP in IP from the addresses of a prefix: each flow has one of its own. Expected packets are etherparse's, the flow's place in
//! the prefix is the test's own reckoning.

use std::{collections::BTreeSet, net::IpAddr, sync::MutexGuard};

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, Options, World, action,
    answer::too_big,
    bytes::{IP, is_v4, patched, patched_v4, pieces},
    case::{Case, Expected, check},
    packet::{Packet, Transport, flag},
    world::{GUE_MODES, MODES, NIC, Service, ip},
};

fn kernel() -> MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { outer_source: true, ..Options::default() })
}

fn client(is_v4: bool, port: u16) -> String {
    format!("{}@{port}", if is_v4 { "192.0.2.33" } else { "2001:db8:c::33" })
}

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7" } else { "2001:db8:5::7" }
}

/// TCP (service 1) and UDP (service 2); everything goes to the second backend of each.
fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool, bits: u32) -> World {
    let (backends, first) = if backends_are_v4 {
        (["10.1.0.1@6080", "10.1.0.2@6080"], "10.9.128.0")
    } else {
        (["fd01::1@6080", "fd01::2@6080"], "fd09:1:2:3::")
    };
    let mut service =
        Service::new(vip(vip_is_v4), forward, &backends).flags(service_flag::FRAGMENTS);
    service.ring = vec![1; 1021];
    for backend in &mut service.backends {
        (backend.source, backend.source_bits) = (Some(ip(first)), bits);
    }
    World::of([service.clone(), service.udp()])
}

fn tunnels() -> impl Iterator<Item = (&'static str, bool, bool)> {
    let ipip = MODES.into_iter().filter(|(_, forward, ..)| *forward == Forward::Ipip);
    ipip.map(|(mode, _, vip_is_v4, backends_are_v4)| (mode, vip_is_v4, backends_are_v4))
}

fn tcp(is_v4: bool, port: u16, flags: u8) -> Packet {
    Packet::tcp(&client(is_v4, port), &format!("{}@80", vip(is_v4)), flags)
}

fn udp(is_v4: bool, port: u16) -> Packet {
    Packet::udp(&client(is_v4, port), &format!("{}@80", vip(is_v4)))
}

/// The outer source of a frame that has left.
fn outer_source(frame: &[u8]) -> IpAddr {
    match is_v4(frame) {
        true => <[u8; 4]>::try_from(&frame[IP + 12..IP + 16]).unwrap().into(),
        false => <[u8; 16]>::try_from(&frame[IP + 8..IP + 24]).unwrap().into(),
    }
}

#[test]
fn every_flow_has_an_address_and_all_its_packets_have_it() {
    let mut kernel = kernel();
    for (mode, vip_is_v4, backends_are_v4) in tunnels() {
        for bits in [0, 1, 8, 15] {
            let world = world(Forward::Ipip, vip_is_v4, backends_are_v4, bits);
            kernel.enter(world.clone());
            let mut cases = Vec::new();
            for port in (1_024..1_280).chain([40_001, 65_535]) {
                let name = format!("{mode}, {bits} bits, port {port}");
                for packet in [
                    tcp(vip_is_v4, port, flag::SYN),
                    tcp(vip_is_v4, port, flag::ACK).filled(usize::from(port) % 900),
                    tcp(vip_is_v4, port, flag::ACK).ip(|ip| ip.class = port as u8),
                ] {
                    cases.push(Case::forwards(&name, &world, &packet, 1, 1));
                }
                cases.push(Case::forwards(&name, &world, &udp(vip_is_v4, port).filled(33), 2, 1));
            }
            check(&mut kernel, &cases);
        }
    }
}

#[test]
fn flows_are_spread_over_the_prefix() {
    let mut kernel = kernel();
    for (mode, vip_is_v4, backends_are_v4) in tunnels() {
        let bits = if backends_are_v4 { 8 } else { 32 };
        kernel.enter(world(Forward::Ipip, vip_is_v4, backends_are_v4, bits));
        let sources: BTreeSet<IpAddr> = (0..256u16)
            .map(|flow| tcp(vip_is_v4, 1_024 + flow * 251, flag::ACK).bytes())
            .map(|frame| outer_source(&kernel.run(&frame).frame))
            .collect();
        println!("{mode}: 256 flows have {} outer sources", sources.len());
        assert!(sources.len() > 100, "{mode}: {sources:?}");
        let prefix = if backends_are_v4 { "10.9.128.0/24" } else { "fd09:1:2:3::/96" };
        let prefix: ipnet::IpNet = prefix.parse().unwrap();
        assert!(sources.iter().all(|source| prefix.contains(source)), "{mode}: {sources:?}");
    }
}

#[test]
fn options_of_either_header_change_nothing() {
    let mut kernel = kernel();
    for (mode, vip_is_v4, backends_are_v4) in tunnels() {
        let world = world(Forward::Ipip, vip_is_v4, backends_are_v4, 8);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        let packet = tcp(vip_is_v4, 40_001, flag::ACK).with_tcp(|tcp| tcp.options = vec![1; 40]);
        cases.push(Case::forwards(mode, &world, &packet, 1, 1));
        if vip_is_v4 {
            for options in [4, 20, 40] {
                let packet = tcp(true, 40_001, flag::ACK).ip(|ip| ip.options = vec![1; options]);
                cases.push(Case::forwards(mode, &world, &packet, 1, 1));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// A hop less.
fn hop(frame: &[u8]) -> Vec<u8> {
    match is_v4(frame) {
        true => patched_v4(frame, 8, &[frame[IP + 8] - 1]),
        false => patched(frame, IP + 7, &[frame[IP + 7] - 1]),
    }
}

/// The frame that leaves with `frame`'s packet inside, as the tunnel of `flow`'s.
fn wrapped(world: &World, flow: &Packet, frame: &[u8]) -> Vec<u8> {
    let backend = &world.services[0].backends[1];
    let source = flow.source_of_flow(backend.source.unwrap(), backend.source_bits);
    let mut outer = flow.clone().hop(NIC, backend.mac).tunnelled(source, backend.address);
    outer.payload = hop(frame)[IP..].to_vec();
    outer.bytes()
}

#[test]
fn errors_about_a_flow_have_its_address() {
    let mut kernel = kernel();
    for (mode, vip_is_v4, backends_are_v4) in tunnels() {
        let world = world(Forward::Ipip, vip_is_v4, backends_are_v4, 8);
        kernel.enter(world.clone());
        let about =
            Packet::tcp(&format!("{}@80", vip(vip_is_v4)), &client(vip_is_v4, 40_001), flag::ACK);
        let (router, kind, code) =
            if vip_is_v4 { ("203.0.113.9", 3, 4) } else { ("2001:db8:e::9", 2, 0) };
        let icmp = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
        let error = Packet::new(router, vip(vip_is_v4), icmp).payload(&about.ip_bytes()).bytes();
        let (outcome, delta) = kernel.count(&error);
        assert_eq!(outcome.action, action::TX, "{mode}: {delta:?}");
        let flow = tcp(vip_is_v4, 40_001, flag::ACK);
        assert_eq!(outcome.frame, wrapped(&world, &flow, &error), "{mode}");
    }
}

#[test]
fn all_fragments_of_a_datagram_have_one_address() {
    for (options, gue) in [
        (Options { outer_source: true, ..Options::default() }, false),
        (Options { gue: true, ..Options::default() }, true),
    ] {
        let mut kernel = Kernel::load(options).unwrap();
        let modes: Vec<(&str, bool, bool)> = match gue {
            false => tunnels().collect(),
            true => {
                GUE_MODES.iter().map(|(mode, _, vip, backends)| (*mode, *vip, *backends)).collect()
            }
        };
        for (mode, vip_is_v4, backends_are_v4) in modes {
            let (forward, bits) = if gue { (Forward::Gue, 0) } else { (Forward::Ipip, 8) };
            let world = world(forward, vip_is_v4, backends_are_v4, bits);
            kernel.enter(world.clone());
            let datagram = udp(vip_is_v4, 40_001).filled(200).ip(|ip| ip.dont_fragment = false);
            // By the addresses, which each of them has.
            let mut spread = datagram.clone();
            spread.transport = Transport::Other(17);
            for (number, frame) in pieces(&datagram.bytes(), 0x707, 64).into_iter().enumerate() {
                let (outcome, delta) = kernel.count(&frame);
                assert_eq!(outcome.action, action::TX, "{mode}, fragment {number}: {delta:?}");
                if gue {
                    let at = IP + if backends_are_v4 { 20 } else { 40 };
                    let backend = &world.services[0].backends[1];
                    let source = backend.source.unwrap();
                    let expected = spread.clone().hop(NIC, backend.mac).in_gue(
                        source,
                        backend.address,
                        backend.port,
                    );
                    assert_eq!(
                        outcome.frame[at..at + 2],
                        expected.bytes()[at..at + 2],
                        "{mode}, fragment {number}: the source port"
                    );
                } else {
                    assert_eq!(
                        outcome.frame,
                        wrapped(&world, &spread, &frame),
                        "{mode}, fragment {number}"
                    );
                }
            }
        }
    }
}

/// B93 to B96: what does not fit is answered with what would, as without a prefix.
#[test]
fn what_does_not_fit_is_answered_with_what_would() {
    let mut kernel = kernel();
    for (mode, vip_is_v4, backends_are_v4) in tunnels() {
        let world = world(Forward::Ipip, vip_is_v4, backends_are_v4, 8);
        let fits = world.services[0].backends[1].mtu - if backends_are_v4 { 20 } else { 40 };
        kernel.enter(world.clone());
        let headers = if vip_is_v4 { 40 } else { 60 };
        let packet =
            |length: u16| tcp(vip_is_v4, 40_001, flag::ACK).filled(usize::from(length - headers));
        check(&mut kernel, &[Case::forwards(mode, &world, &packet(fits), 1, 1)]);
        let packet = packet(fits + 1);
        let delta = Delta::reason(1, Reason::TooBig).and(1, Reason::TooBigSent);
        let told = Expected::answered(too_big(&packet, fits).bytes(), delta);
        check(&mut kernel, &[Case::new(mode, packet.bytes(), told)]);
    }
}

/// What routers say about the tunnel comes to its source, which is nobody's of lb's: the host gets it, as it gets what comes to its
/// own addresses.
#[test]
fn errors_about_the_tunnel_are_the_hosts() {
    let mut kernel = kernel();
    for backends_are_v4 in [true, false] {
        let world = world(Forward::Ipip, backends_are_v4, backends_are_v4, 8);
        kernel.enter(world.clone());
        let frame = tcp(backends_are_v4, 40_001, flag::ACK).filled(600).bytes();
        let sent = kernel.run(&frame).frame;
        let (router, kind, code) =
            if backends_are_v4 { ("203.0.113.9", 3, 4) } else { ("2001:db8:e::9", 2, 0) };
        let icmp = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
        let to = outer_source(&sent).to_string();
        let error = Packet::new(router, &to, icmp).payload(&sent[IP..IP + 128]).bytes();
        let case = Case::new("about the tunnel", error.clone(), Expected::passed(&error));
        check(&mut kernel, &[case]);
    }
}

/// A program that knows nothing of prefixes sends from the first address: what a change of the file does in between is right, too.
#[test]
fn without_the_feature_it_is_the_first_address() {
    let mut kernel = Kernel::load(Options::default()).unwrap();
    for (mode, vip_is_v4, backends_are_v4) in tunnels() {
        let mut world = world(Forward::Ipip, vip_is_v4, backends_are_v4, 8);
        kernel.enter(world.clone());
        for service in &mut world.services {
            service.backends.iter_mut().for_each(|backend| backend.source_bits = 0);
        }
        let packet = tcp(vip_is_v4, 40_001, flag::ACK).filled(100);
        check(&mut kernel, &[Case::forwards(mode, &world, &packet, 1, 1)]);
    }
}

#[test]
fn its_program_is_within_the_verifiers_limit() {
    let kernel = kernel();
    for program in [kernel.balancer(), kernel.slow_path()] {
        let info = program.info().expect("the kernel tells");
        let verified = info.verified_instruction_count().expect("since Linux 5.16");
        println!("verified {verified}");
        assert!(verified < 855_000, "{verified}");
    }
}
