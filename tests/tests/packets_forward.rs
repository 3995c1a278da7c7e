//! Packets that are forwarded: every mode, family and protocol, requests and replies, byte for byte.

use lb_common::abi::{Forward, Reason, backend_flag};
use lb_tests::kernel::{
    Delta, INGRESS, Kernel, World, action,
    case::{Case, Expected, check, expected_frame, expected_reply},
    packet::{Packet, flag},
    world::{CLIENT, Route, Service, ip},
};

const CLIENT_V4: &str = "192.0.2.33@40001";
const CLIENT_V6: &str = "2001:db8:c::33@40001";
const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";
const BACKENDS_V4: [&str; 3] = ["10.1.0.1@8001", "10.1.0.2@8002", "10.1.0.3@8003"];
const BACKENDS_V6: [&str; 3] = ["fd01::1@8001", "fd01::2@8002", "fd01::3@8003"];

/// Every packet of these services goes to the second of three backends.
fn service(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> Service {
    let backends = if backends_are_v4 { &BACKENDS_V4 } else { &BACKENDS_V6 };
    let mut service = Service::new(if vip_is_v4 { VIP_V4 } else { VIP_V6 }, forward, backends);
    service.ring = vec![1; 1021];
    service
}

/// All modes in all families, each with TCP and UDP on port 80.
fn worlds() -> Vec<(&'static str, World)> {
    let both = |service: Service| World::of([service.clone(), service.udp()]);
    vec![
        ("nat v4", both(service(Forward::Nat, true, true))),
        ("nat v6", both(service(Forward::Nat, false, false))),
        ("dsr v4", both(service(Forward::Dsr, true, true))),
        ("dsr v6", both(service(Forward::Dsr, false, false))),
        ("ipip v4 in v4", both(service(Forward::Ipip, true, true))),
        ("ipip v6 in v6", both(service(Forward::Ipip, false, false))),
        ("ipip v4 in v6", both(service(Forward::Ipip, true, false))),
        ("ipip v6 in v4", both(service(Forward::Ipip, false, true))),
    ]
}

fn is_v4(world: &World) -> bool {
    world.services[0].vip.is_ipv4()
}

fn tcp(world: &World, flags: u8) -> Packet {
    match is_v4(world) {
        true => Packet::tcp(CLIENT_V4, &format!("{VIP_V4}@80"), flags),
        false => Packet::tcp(CLIENT_V6, &format!("{VIP_V6}@80"), flags),
    }
}

fn udp(world: &World) -> Packet {
    match is_v4(world) {
        true => Packet::udp(CLIENT_V4, &format!("{VIP_V4}@80")),
        false => Packet::udp(CLIENT_V6, &format!("{VIP_V6}@80")),
    }
}

/// A backend's packet to the client: what the nat backend number 1 sends.
fn reply(world: &World, packet: &Packet) -> Packet {
    let backend = &world.services[0].backends[1];
    let client = (packet.ip.source, 40001);
    let mut reply = packet.clone();
    reply.from = backend.mac;
    reply.ip.source = backend.address;
    reply.sourced(backend.address, backend.port).destined(client.0, client.1)
}

fn with_routes(mut world: World) -> World {
    let all = if is_v4(&world) { ip("0.0.0.0") } else { ip("::") };
    let gateway = if is_v4(&world) { ip("10.1.0.254") } else { ip("fd01::fe") };
    world.routes =
        vec![Route { prefix: (all, 0), gateway: Some((gateway, Some(CLIENT))), mtu: 1500 }];
    world
}

#[test]
fn tcp_and_udp_reach_the_backend_in_every_mode() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        let segments = [
            ("SYN", flag::SYN, 0),
            ("ACK", flag::ACK, 0),
            ("data", flag::ACK | flag::PSH, 100),
            ("odd length", flag::ACK, 33),
            ("one byte", flag::ACK, 1),
            ("FIN", flag::FIN | flag::ACK, 0),
            ("RST", flag::RST, 0),
            ("SYN-ACK of a client", flag::SYN | flag::ACK, 0),
            ("ECN set-up", flag::SYN | 0xc0, 0),
            ("URG", flag::ACK | 0x20, 10),
            ("1400 bytes", flag::ACK, 1400),
        ];
        for (name, flags, length) in segments {
            let packet = tcp(&world, flags).filled(length);
            cases.push(Case::forwards(format!("{mode}: {name}"), &world, &packet, 1, 1));
        }
        for length in [0, 1, 2, 7, 8, 512, 1401] {
            let packet = udp(&world).filled(length);
            let name = format!("{mode}: datagram of {length}");
            cases.push(Case::forwards(name, &world, &packet, 2, 1));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn header_fields_that_no_mode_may_touch_are_kept() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for class in 0..=255u8 {
            // B22: every DSCP and ECN value; tunnels copy them to the outer header.
            let packet = tcp(&world, flag::ACK).ip(|ip| ip.class = class);
            cases.push(Case::forwards(format!("{mode}: class {class:#x}"), &world, &packet, 1, 1));
        }
        for label in [0, 1, 0x7fff, 0xffff] {
            let packet = udp(&world).ip(|ip| ip.label = label);
            cases.push(Case::forwards(format!("{mode}: label {label}"), &world, &packet, 2, 1));
        }
        if is_v4(&world) {
            for label in [0, 0xffff] {
                // B23
                let packet = udp(&world).ip(|ip| (ip.label, ip.dont_fragment) = (label, false));
                cases.push(Case::forwards(format!("{mode}: id {label}"), &world, &packet, 2, 1));
            }
        }
        for hop_limit in [2, 3, 64, 128, 254, 255] {
            let packet = tcp(&world, flag::ACK).ip(|ip| ip.hop_limit = hop_limit);
            let name = format!("{mode}: hop limit {hop_limit}");
            cases.push(Case::forwards(name, &world, &packet, 1, 1));
        }
        let options = [
            // B40: MSS, SACK, timestamps, window scale; TCP MD5; 40 bytes of NOPs; Fast Open with data.
            vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
            [vec![19, 18], vec![0xaa; 16], vec![1, 1]].concat(),
            vec![1; 40],
            vec![34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1],
        ];
        for options in options {
            let name = format!("{mode}: options {options:?}");
            let packet = tcp(&world, flag::SYN).with_tcp(|tcp| tcp.options = options).filled(60);
            cases.push(Case::forwards(name, &world, &packet, 1, 1));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn ethernet_trailers_are_no_part_of_the_packet() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for trailer in [vec![0; 6], vec![0xff; 6], vec![0x5a; 46]] {
            // B06: lengths come from the IP header.
            for (packet, service) in [(tcp(&world, flag::ACK), 1), (udp(&world).filled(1), 2)] {
                let packet = packet.trailer(&trailer);
                cases.push(Case::forwards(
                    format!("{mode}: {trailer:?}"),
                    &world,
                    &packet,
                    service,
                    1,
                ));
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn ipv4_options_do_not_change_the_way() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(_, world)| is_v4(world)) {
        // All three backends are on the ring: the same flow must find the same one.
        let mut world = world;
        for service in &mut world.services {
            service.ring.clear();
        }
        kernel.enter(world.clone());
        let bare = tcp(&world, flag::ACK);
        let (_, delta) = kernel.count(&bare.bytes());
        let number = *delta.backends.keys().next().expect("forwarded") as usize - 1;
        let options = [
            vec![1, 1, 1, 0],
            vec![1; 8],
            vec![0x94, 4, 0, 0],                             // router alert
            [vec![7, 39, 4], vec![0; 36], vec![0]].concat(), // record route
            [vec![68, 12, 5, 0], vec![0; 8]].concat(),       // timestamp
            vec![0x9e, 4, 1, 2],                             // unknown
            vec![1; 40],
        ];
        let mut cases = Vec::new();
        for options in options {
            // B17
            let name = format!("{mode}: options {options:?}");
            let packet = bare.clone().ip(|ip| ip.options = options).filled(30);
            cases.push(Case::forwards(name, &world, &packet, 1, number));
        }
        for kind in [131, 137] {
            // B18
            let route = vec![kind, 7, 4, 10, 0, 0, 1, 0];
            let packet = bare.clone().ip(|ip| ip.options = route);
            let name = format!("{mode}: source route {kind}");
            cases.push(Case::drops(name, packet.bytes(), 1, Reason::SourceRoute));
            let later = vec![1, 1, 1, 1, kind, 3, 4, 0];
            let packet = bare.clone().ip(|ip| ip.options = later);
            let name = format!("{mode}: source route {kind} behind others");
            cases.push(Case::drops(name, packet.bytes(), 1, Reason::SourceRoute));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn nat_replies_get_the_vip_back() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(mode, _)| mode.starts_with("nat")) {
        let world = with_routes(world);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        let segments = [
            ("SYN-ACK", flag::SYN | flag::ACK, 0, false),
            ("data", flag::ACK | flag::PSH, 77, false),
            ("FIN", flag::FIN | flag::ACK, 0, false),
            ("RST", flag::RST | flag::ACK, 0, true),
        ];
        for (name, flags, length, is_reset) in segments {
            let packet = reply(&world, &tcp(&world, flags).filled(length));
            let frame = expected_reply(&world, &packet, 1);
            let delta = Delta::reply(2, packet.length(), is_reset);
            let expected = Expected::answered(frame, delta);
            cases.push(Case::new(format!("{mode}: {name}"), packet.bytes(), expected));
        }
        for length in [0, 1, 900] {
            let packet = reply(&world, &udp(&world).filled(length));
            let frame = expected_reply(&world, &packet, 2);
            // The UDP service's backends come after the TCP service's three.
            let delta = Delta::reply(5, packet.length(), false);
            let expected = Expected::answered(frame, delta);
            cases.push(Case::new(format!("{mode}: datagram {length}"), packet.bytes(), expected));
        }
        let other_port = reply(&world, &tcp(&world, flag::ACK))
            .sourced(world.services[0].backends[1].address, 22);
        cases
            .push(Case::passes(format!("{mode}: another port of the backend"), other_port.bytes()));
        let other_host = reply(&world, &tcp(&world, flag::ACK))
            .sourced(if is_v4(&world) { ip("10.1.0.9") } else { ip("fd01::9") }, 8002);
        cases.push(Case::passes(format!("{mode}: another host, same port"), other_host.bytes()));
        check(&mut kernel, &cases);
    }
}

#[test]
fn a_probe_answer_to_this_host_is_no_reply() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(mode, _)| mode.starts_with("nat")) {
        let mut world = with_routes(world);
        let client = tcp(&world, 0).ip.source;
        world.hosts = vec![client];
        kernel.enter(world.clone());
        let packet = reply(&world, &tcp(&world, flag::SYN | flag::ACK));
        check(&mut kernel, &[Case::passes(mode, packet.bytes())]);
    }
}

#[test]
fn a_mapped_source_is_no_ipv4_backend() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(mode, _)| *mode == "nat v4") {
        kernel.enter(with_routes(world));
        let frame = Packet::tcp("::ffff:10.1.0.2@8002", "2001:db8:c::33@40001", flag::ACK).bytes();
        check(&mut kernel, &[Case::passes(mode, frame)]);
    }
}

#[test]
fn replies_find_on_link_clients() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(mode, _)| mode.starts_with("nat")) {
        let mut world = world;
        let client = tcp(&world, 0).ip.source;
        let bits = if is_v4(&world) { 24 } else { 64 };
        world.routes = vec![Route { prefix: (client, bits), gateway: None, mtu: 1500 }];
        world.neighbours = vec![(client, CLIENT)];
        kernel.enter(world.clone());
        let packet = reply(&world, &tcp(&world, flag::ACK).filled(9));
        let delta = Delta::reply(2, packet.length(), false);
        let expected = Expected::answered(expected_reply(&world, &packet, 1), delta);
        check(&mut kernel, &[Case::new(format!("{mode}: known"), packet.bytes(), expected)]);
        world.neighbours.clear();
        kernel.enter(world.clone());
        // Nor have packets of this client been seen, which would tell the way back.
        let mut packet = packet;
        packet.ip.destination = ip(if is_v4(&world) { "192.0.2.249" } else { "2001:db8:c::249" });
        let case = Case::drops(format!("{mode}: unknown"), packet.bytes(), 1, Reason::NoNextHop);
        check(&mut kernel, &[case]);
    }
}

#[test]
fn wrong_checksums_stay_wrong() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        for (packet, service) in [(tcp(&world, flag::ACK).filled(5), 1), (udp(&world).filled(5), 2)]
        {
            // B39: both the frame in and the frame expected have the same bit of their checksum flipped.
            let transport = if is_v4(&world) { 34 } else { 54 };
            let checksum = transport + if service == 1 { 16 } else { 6 };
            let mut frame = packet.bytes();
            let outcome = kernel.run(&frame);
            assert_eq!(outcome.action, action::TX, "{mode}");
            frame[checksum + 1] ^= 0x10;
            let broken = kernel.run(&frame);
            assert_eq!(broken.action, action::TX, "{mode}");
            let expected = expected_frame(&world, &packet, service, 1);
            let moved = expected.len() - frame.len() + checksum;
            let difference = |frame: &[u8]| {
                let sent = u16::from_be_bytes([frame[moved], frame[moved + 1]]);
                let right = u16::from_be_bytes([expected[moved], expected[moved + 1]]);
                // One's complement: how far the checksum is from the right one.
                (u32::from(sent) + 0xffff - u32::from(right)) % 0xffff
            };
            assert_eq!(difference(&outcome.frame), 0, "{mode}");
            let wrong_by = difference(&broken.frame);
            assert!(
                wrong_by == 0x10 || wrong_by == 0xffff - 0x10,
                "{mode}: wrong by {wrong_by:#x}"
            );
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_zero_and_none_becomes_zero() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(_, world)| is_v4(world)) {
        kernel.enter(world.clone());
        let packet = udp(&world);
        let without = |mut frame: Vec<u8>| {
            let at = frame.len() - packet.payload.len() - 2;
            frame[at..at + 2].fill(0);
            frame
        };
        // B41
        let expected = without(expected_frame(&world, &packet, 2, 1));
        let expected = Expected::forwarded(&packet, 5, false, expected);
        check(&mut kernel, &[Case::new(mode, without(packet.bytes()), expected)]);
    }
    // B43: payloads chosen so that the translated checksum passes through every value, zero included.
    for (mode, world) in worlds().into_iter().filter(|(mode, _)| mode.starts_with("nat")) {
        kernel.enter(world.clone());
        for value in 0..=u16::MAX {
            let packet = udp(&world).payload(&value.to_be_bytes());
            let outcome = kernel.run(&packet.bytes());
            let expected = expected_frame(&world, &packet, 2, 1);
            assert!(outcome.frame == expected, "{mode}: payload {value:#06x}: {outcome:?}");
        }
    }
}

#[test]
fn another_nic_gets_the_frame_by_redirect() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        let mut world = world;
        for service in &mut world.services {
            *service = service.clone().each(|backend| backend.ifindex = INGRESS + 1000);
        }
        kernel.enter(world.clone());
        let packet = tcp(&world, flag::ACK);
        let case =
            Case::drops(format!("{mode}: no such NIC"), packet.bytes(), 1, Reason::EgressFailed);
        check(&mut kernel, &[case]);
    }
}

#[test]
fn backends_that_are_down_still_get_what_their_slots_say() {
    // on_all_down: fail_open keeps the ring pointing at them.
    let mut kernel = Kernel::shared();
    for (mode, mut world) in worlds() {
        for service in &mut world.services {
            *service = service.clone().each(|backend| backend.flags |= backend_flag::DOWN);
        }
        kernel.enter(world.clone());
        let packet = tcp(&world, flag::SYN);
        check(&mut kernel, &[Case::forwards(mode, &world, &packet, 1, 1)]);
    }
}
