//! What services listen on: several VIPs, ranges of ports, all ports, prefixes of VIPs, in every mode byte for byte, and which of
//! several services that match a packet gets it.

use std::net::IpAddr;

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, Options, World,
    case::{Case, Expected, check, expected_frame},
    packet::{Packet, Transport, flag},
    world::{CLIENT, List, MODES, NIC, Route, Service, ip},
};

fn kernel() -> std::sync::MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { ports: 2, ..Options::default() })
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7" } else { "2001:db8:5::7" }
}

fn client(is_v4: bool) -> &'static str {
    if is_v4 { "192.0.2.33@40001" } else { "2001:db8:c::33@40001" }
}

/// Every packet of it goes to the second of two backends, on the port that it was sent to.
fn service(forward: Forward, vip: &str, backends_are_v4: bool) -> Service {
    let backends =
        if backends_are_v4 { ["10.1.0.1@0", "10.1.0.2@0"] } else { ["fd01::1@0", "fd01::2@0"] };
    let mut service = Service::new(vip, forward, &backends);
    service.ring = vec![1; 1021];
    service
}

fn with_route(mut world: World, is_v4: bool) -> World {
    let (all, gateway) = match is_v4 {
        true => (ip("0.0.0.0"), ip("10.1.0.254")),
        false => (ip("::"), ip("fd01::fe")),
    };
    let gateway = Some((gateway, Some(CLIENT)));
    world.routes.push(Route { prefix: (all, 0), gateway, mtu: 1500 });
    world
}

fn list(address: IpAddr, prefix: Option<u32>, protocol: u8, ports: &[(u16, u16, u32)]) -> List {
    List { address, prefix, protocol, answers: false, ports: ports.to_vec() }
}

fn tcp(to: &str, port: u16) -> Packet {
    Packet::tcp(client(!to.contains(':')), &format!("{to}@{port}"), flag::ACK).filled(33)
}

fn udp(to: &str, port: u16) -> Packet {
    Packet::udp(client(!to.contains(':')), &format!("{to}@{port}")).filled(20)
}

/// Packets to a service that leave as its mode says.
fn forwards(world: &World, name: &str, packet: Packet, service: u32) -> Case {
    Case::forwards(format!("{name}: {packet:?}"), world, &packet, service, 1)
}

#[test]
fn several_vips_of_both_families_are_one_service() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in MODES {
        if forward == Forward::Nat {
            continue;
        }
        let mut one = service(forward, vip(is_v4), backends_are_v4);
        one.more = ["198.51.100.8", "2001:db8:5::8"].map(ip).to_vec();
        let world = World::of([one.clone(), one.udp()]);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for to in [vip(is_v4), "198.51.100.8", "2001:db8:5::8"] {
            cases.push(forwards(&world, mode, tcp(to, 80), 1));
            cases.push(forwards(&world, mode, udp(to, 80), 2));
            cases.push(Case::drops("another port", tcp(to, 81).bytes(), 0, Reason::NoService));
        }
        check(&mut kernel, &cases);
    }
}

/// A range (1 TCP, 2 UDP), all ports (3 TCP), and one port of its own (4 TCP), of one VIP.
fn ports(forward: Forward, is_v4: bool, backends_are_v4: bool) -> World {
    let range = service(forward, vip(is_v4), backends_are_v4).port(0);
    let mut one = service(forward, vip(is_v4), backends_are_v4).port(8080);
    let others = if backends_are_v4 { ["10.1.0.3", "10.1.0.4"] } else { ["fd01::3", "fd01::4"] };
    for (backend, other) in one.backends.iter_mut().zip(others) {
        (backend.address, backend.port) = (ip(other), 8080);
    }
    let mut world = World::of([range.clone(), range.clone().udp(), range.clone(), one.clone()]);
    let vip = ip(vip(is_v4));
    world.lists = vec![
        list(vip, None, TCP, &[(8000, 8999, 1), (1, 65_535, 3)]),
        list(vip, None, UDP, &[(5060, 5061, 2)]),
    ];
    if forward == Forward::Nat {
        for (number, backend) in range.backends.iter().enumerate() {
            let number = number as u32;
            let answers = |protocol, ports: &[(u16, u16, u32)]| List {
                answers: true,
                ..list(backend.address, None, protocol, ports)
            };
            world.lists.push(answers(TCP, &[(8000, 8999, 1 + number), (1, 65_535, 5 + number)]));
            world.lists.push(answers(UDP, &[(5060, 5061, 3 + number)]));
        }
    }
    with_route(world, is_v4)
}

#[test]
fn one_port_wins_over_a_range_and_that_over_any() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in MODES {
        let world = ports(forward, is_v4, backends_are_v4);
        kernel.enter(world.clone());
        let to = vip(is_v4);
        let mut cases = Vec::new();
        for (port, service) in [
            (1, 3),
            (80, 3),
            (7999, 3),
            (8000, 1),
            (8079, 1),
            (8080, 4),
            (8081, 1),
            (8999, 1),
            (9000, 3),
            (65_535, 3),
        ] {
            cases.push(forwards(&world, mode, tcp(to, port), service));
        }
        for port in [5060, 5061] {
            cases.push(forwards(&world, mode, udp(to, port), 2));
        }
        for packet in [tcp(to, 0), udp(to, 5059), udp(to, 5062), udp(to, 8080)] {
            let name = format!("{mode}: {packet:?}");
            cases.push(Case::drops(name, packet.bytes(), 0, Reason::NoService));
        }
        let packet = tcp(if is_v4 { "198.51.100.9" } else { "2001:db8:5::9" }, 8080);
        cases.push(Case::passes(format!("{mode}: {packet:?}"), packet.bytes()));
        check(&mut kernel, &cases);
    }
}

#[test]
fn answers_get_the_vip_and_keep_the_port_that_they_are_from() {
    let mut kernel = kernel();
    for is_v4 in [true, false] {
        let world = ports(Forward::Nat, is_v4, is_v4);
        kernel.enter(world.clone());
        let (vip, to) = (ip(vip(is_v4)), client(is_v4));
        let mut cases = Vec::new();
        for (number, port, is_udp, backend) in [
            (0, 8000, false, 1),
            (1, 8999, false, 2),
            (1, 8080, false, 2),
            (0, 80, false, 5),
            (1, 1, false, 6),
            (1, 65_535, false, 6),
            (0, 5060, true, 3),
            (1, 5061, true, 4),
        ] {
            let from = &world.services[0].backends[number];
            let source = format!("{}@{port}", from.address);
            let mut answer = match is_udp {
                false => Packet::tcp(&source, to, flag::SYN | flag::ACK).filled(7),
                true => Packet::udp(&source, to).filled(8),
            };
            answer.from = from.mac;
            let frame = answer.clone().hop(NIC, CLIENT).sourced(vip, port).bytes();
            let delta = Delta::reply(backend, answer.length(), false);
            let expected = Expected::answered(frame, delta);
            cases.push(Case::new(source, answer.bytes(), expected));
        }
        // Not from one of the service's ports, or from somebody else: the host's.
        let backend = world.services[0].backends[0].address;
        for source in [format!("{backend}@5062"), format!("{backend}@0")] {
            cases.push(Case::passes(source.clone(), Packet::udp(&source, to).bytes()));
        }
        let stranger = if is_v4 { "10.1.0.9@8000" } else { "fd01::9@8000" };
        cases.push(Case::passes(stranger, Packet::tcp(stranger, to, flag::ACK).bytes()));
        check(&mut kernel, &cases);
    }
}

/// TCP on all ports of a short prefix (1) and on port 80 of a long one (2), UDP on a range of the long one (3), and port 80 of one
/// address (4).
fn prefixes(forward: Forward, is_v4: bool, backends_are_v4: bool) -> World {
    let [short, long, one, own] = match is_v4 {
        true => ["10.16.0.0", "10.17.1.0", "10.17.1.9", "10.17.1.10"],
        false => {
            ["2001:db8:1000::", "2001:db8:1000:1::", "2001:db8:1000:1::9", "2001:db8:1000:1::a"]
        }
    };
    let (short_bits, long_bits) = if is_v4 { (12, 24) } else { (36, 64) };
    let wide = |vip: &str| {
        let mut service = service(forward, vip, backends_are_v4).port(0);
        service.is_prefix = true;
        service
    };
    let mut world = World::of([
        wide(short),
        wide(long),
        wide(long).udp(),
        service(forward, one, backends_are_v4),
    ]);
    world.lists = vec![
        list(ip(short), Some(short_bits), TCP, &[(1, 65_535, 1)]),
        list(ip(long), Some(long_bits), TCP, &[(80, 80, 2), (1, 65_535, 1)]),
        list(ip(long), Some(long_bits), UDP, &[(5000, 5009, 3)]),
    ];
    world.prefixes = vec![(ip(short), short_bits), (ip(long), long_bits)];
    world.hosts = vec![ip(own)];
    world
}

#[test]
fn the_longest_prefix_wins_and_all_its_addresses_are_vips() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in MODES {
        if forward == Forward::Nat {
            continue;
        }
        let world = prefixes(forward, is_v4, backends_are_v4);
        kernel.enter(world.clone());
        // First and last address of both, the exact VIP, this host's own, and outside.
        let [low, high, first, last, one, own, before, after] = match is_v4 {
            true => [
                "10.16.0.0",
                "10.31.255.255",
                "10.17.1.0",
                "10.17.1.255",
                "10.17.1.9",
                "10.17.1.10",
                "10.15.255.255",
                "10.32.0.0",
            ],
            false => [
                "2001:db8:1000::",
                "2001:db8:1fff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8:1000:1::",
                "2001:db8:1000:1:ffff:ffff:ffff:ffff",
                "2001:db8:1000:1::9",
                "2001:db8:1000:1::a",
                "2001:db8:fff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8:2000::",
            ],
        };
        let mut cases = Vec::new();
        for (to, port, service) in [
            (low, 80, 1),
            (high, 65_535, 1),
            (first, 80, 2),
            (last, 80, 2),
            (first, 81, 1),
            (last, 1, 1),
            (one, 80, 4),
            (one, 443, 1),
        ] {
            cases.push(forwards(&world, mode, tcp(to, port), service));
        }
        for (to, port) in [(first, 5000), (last, 5009), (one, 5004)] {
            cases.push(forwards(&world, mode, udp(to, port), 3));
        }
        for packet in [udp(low, 5000), udp(first, 4999), udp(last, 5010), udp(one, 80)] {
            let name = format!("{mode}: {packet:?}");
            cases.push(Case::drops(name, packet.bytes(), 0, Reason::NoService));
        }
        for to in [own, before, after] {
            for packet in [tcp(to, 80), tcp(to, 22), udp(to, 5000)] {
                cases.push(Case::passes(format!("{mode}: {packet:?}"), packet.bytes()));
            }
            let source = client(is_v4).split('@').next().expect("an address");
            cases.push(Case::passes(format!("echo to {to}"), Packet::echo(source, to).bytes()));
        }
        for to in [low, high, first, last, one] {
            let source = client(is_v4).split('@').next().expect("an address");
            let request = Packet::echo(source, to);
            let frame = request.echo_reply().bytes();
            let expected = Expected::answered(frame, Delta::reason(0, Reason::Echo));
            cases.push(Case::new(format!("{mode}: echo to {to}"), request.bytes(), expected));
        }
        check(&mut kernel, &cases);
    }
}

/// Errors go where the flow's packets go; in nat, the quoted port is kept, too.
#[test]
fn errors_and_fragments_find_such_services() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in MODES {
        let (world, to, port, service) = match forward {
            Forward::Nat => (ports(forward, is_v4, backends_are_v4), vip(is_v4), 8001, 1),
            _ if is_v4 => (prefixes(forward, is_v4, backends_are_v4), "10.17.1.200", 80, 2),
            _ => (prefixes(forward, is_v4, backends_are_v4), "2001:db8:1000:1::200", 80, 2),
        };
        let mut world = world;
        world.services.iter_mut().for_each(|service| service.flags |= service_flag::FRAGMENTS);
        kernel.enter(world.clone());
        // The other mode with these addresses has had the same fragments.
        kernel.forget_fragments();
        let quoted = Packet::tcp(&format!("{to}@{port}"), client(is_v4), flag::ACK).filled(400);
        let length = quoted.ip_bytes().len();
        let (kind, code) = if is_v4 { (3, 4) } else { (2, 0) };
        let router = if is_v4 { "203.0.113.1" } else { "2001:db8:e::1" };
        let error = Packet::new(router, to, Transport::Icmp { kind, code, rest: [0, 0, 5, 120] })
            .payload(&quoted.ip_bytes());
        let delta =
            Delta::request(world.first_backend(service as usize - 1) + 1, error.length(), false)
                .and(service, Reason::IcmpErrorForwarded);
        let backend = &world.services[service as usize - 1].backends[1];
        let mut frame = error.clone().hop(NIC, backend.mac);
        match forward {
            Forward::Nat => {
                let inner = quoted.clone().sourced(backend.address, port);
                frame.ip.destination = backend.address;
                frame.payload = inner.ip_bytes()[..length].to_vec();
            }
            Forward::Dsr => {}
            _ => frame = frame.tunnelled(backend.source.expect("a tunnel"), backend.address),
        }
        let error = Case::new(
            format!("{mode}: error"),
            error.bytes(),
            Expected::answered(frame.bytes(), delta),
        );
        check(&mut kernel, &[error]);
        if !is_v4 {
            continue;
        }
        // A first fragment has the ports; it leaves as any packet does but for its flag.
        let packet = tcp(to, port).ip(|ip| ip.dont_fragment = false).filled(60);
        let first = |frame: &[u8], at: usize| {
            let mut frame = frame.to_vec();
            frame[at + 6] |= 0x20;
            frame[at + 10..at + 12].fill(0);
            let sum = lb_tests::kernel::packet::checksum(&frame[at..at + 20]).to_be_bytes();
            frame[at + 10..at + 12].copy_from_slice(&sum);
            frame
        };
        let leaves = expected_frame(&world, &packet, service, 1);
        let at = leaves.len() - packet.length();
        let expected = Expected::forwarded(
            &packet,
            world.first_backend(service as usize - 1) + 1,
            false,
            first(&leaves, at),
        );
        let fragment =
            Case::new(format!("{mode}: first fragment"), first(&packet.bytes(), 14), expected);
        check(&mut kernel, &[fragment]);
    }
}

/// A router's complaint about a packet that lb has translated is the client's, and names the VIP and the port again.
#[test]
fn errors_about_translated_packets_keep_the_port() {
    let mut kernel = kernel();
    for is_v4 in [true, false] {
        let world = ports(Forward::Nat, is_v4, is_v4);
        kernel.enter(world.clone());
        let backend = world.services[0].backends[1].clone();
        let sent = tcp(vip(is_v4), 8500);
        let translated = sent.clone().destined(backend.address, 8500);
        let (kind, code) = if is_v4 { (3, 1) } else { (1, 0) };
        let transport = Transport::Icmp { kind, code, rest: [0; 4] };
        let source = client(is_v4).split('@').next().expect("an address");
        let router = if is_v4 { "10.1.0.250" } else { "fd01::fa" };
        let error = Packet::new(router, source, transport).payload(&translated.ip_bytes());
        let mut frame = error.clone().hop(NIC, CLIENT);
        frame.payload = sent.ip_bytes();
        let delta = Delta::reply(2, error.length(), false).and(1, Reason::IcmpErrorForwarded);
        check(
            &mut kernel,
            &[Case::new("an error", error.bytes(), Expected::answered(frame.bytes(), delta))],
        );
    }
}
