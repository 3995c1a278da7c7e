//! Frames with VLAN tags, by a program that was loaded for them: what leaves has the tags of what came, in every mode, byte for
//! byte; and nothing else is different from a frame without.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Kernel, Options, World, action,
    bytes::{patched, patched_v4, tagged},
    case::{Case, Expected, check, expected_reply},
    packet::{Packet, Transport, flag},
    world::{CLIENT, MODES, Route, Service, ip},
};

const DOT1Q: [u8; 4] = [0x81, 0, 0, 5];
/// Every bit of the tag control information.
const FULL: [u8; 4] = [0x81, 0, 0xff, 0xff];
/// VLAN 0: only a priority.
const PRIORITY: [u8; 4] = [0x81, 0, 0xe0, 0];
const DOT1AD: [u8; 4] = [0x88, 0xa8, 0, 7];

/// B07: one tag and two.
fn all_tags() -> Vec<Vec<[u8; 4]>> {
    vec![
        vec![DOT1Q],
        vec![FULL],
        vec![PRIORITY],
        vec![DOT1AD],
        vec![DOT1AD, DOT1Q],
        vec![DOT1Q, FULL],
        vec![PRIORITY, PRIORITY],
    ]
}

fn kernel() -> std::sync::MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { vlan: true, ..Options::default() })
}

fn client(is_v4: bool) -> &'static str {
    if is_v4 { "192.0.2.33" } else { "2001:db8:c::33" }
}

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7" } else { "2001:db8:5::7" }
}

fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let backends = if backends_are_v4 {
        ["10.1.0.1@8001", "10.1.0.2@8002"]
    } else {
        ["fd01::1@8001", "fd01::2@8002"]
    };
    let mut service =
        Service::new(vip(vip_is_v4), forward, &backends).flags(service_flag::FRAGMENTS);
    service.ring = vec![1; 1021];
    let mut world = World::of([service.clone(), service.udp()]);
    let (all, gateway) =
        if vip_is_v4 { (ip("0.0.0.0"), ip("10.1.0.254")) } else { (ip("::"), ip("fd01::fe")) };
    world.routes =
        vec![Route { prefix: (all, 0), gateway: Some((gateway, Some(CLIENT))), mtu: 1500 }];
    world
}

fn tcp(is_v4: bool, flags: u8) -> Packet {
    Packet::tcp(&format!("{}@40001", client(is_v4)), &format!("{}@80", vip(is_v4)), flags)
}

fn udp(is_v4: bool) -> Packet {
    Packet::udp(&format!("{}@40001", client(is_v4)), &format!("{}@80", vip(is_v4)))
}

#[test]
fn requests_and_replies_keep_their_tags_in_every_mode() {
    let mut kernel = kernel();
    for (mode, forward, vip_is_v4, backends_are_v4) in MODES {
        let world = world(forward, vip_is_v4, backends_are_v4);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for tags in all_tags() {
            for (name, packet, service) in [
                ("SYN", tcp(vip_is_v4, flag::SYN), 1),
                ("data", tcp(vip_is_v4, flag::ACK | flag::PSH).filled(1400), 1),
                ("trailer", tcp(vip_is_v4, flag::ACK).trailer(&[0xee; 6]), 1),
                ("datagram", udp(vip_is_v4), 2),
            ] {
                if forward == Forward::Ipip && name == "trailer" {
                    continue;
                }
                let name = format!("{mode}: {name}");
                cases.push(Case::forwards(name, &world, &packet, service, 1).tagged(&tags));
            }
            // Frames without tags are balanced as ever.
            cases.push(Case::forwards(mode, &world, &tcp(vip_is_v4, flag::ACK), 1, 1));
            if forward == Forward::Nat {
                let backend = &world.services[0].backends[1];
                let mut reply = tcp(vip_is_v4, flag::SYN | flag::ACK)
                    .sourced(backend.address, backend.port)
                    .destined(ip(client(vip_is_v4)), 40001);
                reply.from = backend.mac;
                let (outcome, delta) = kernel.count(&reply.bytes());
                assert_eq!(
                    outcome.frame,
                    expected_reply(&world, &reply, 1),
                    "{mode}: untagged reply"
                );
                let expected = Expected::answered(outcome.frame, delta);
                cases.push(
                    Case::new(format!("{mode}: reply"), reply.bytes(), expected).tagged(&tags),
                );
            }
        }
        check(&mut kernel, &cases);
    }
}

/// Whatever becomes of a frame, and whatever is counted: tags make no difference, and are on what leaves. What the frames without
/// tags come to is what the other suites are about.
#[test]
fn tags_make_no_difference() {
    let mut kernel = kernel();
    for (mode, forward, is_v4, backends_are_v4) in MODES {
        let mut world = world(forward, is_v4, backends_are_v4);
        for service in &mut world.services {
            service.is_local = false;
        }
        let mut rejecting =
            Service::new(vip(is_v4), Forward::Dsr, &[if is_v4 { "10.1.0.9" } else { "fd01::9" }]);
        rejecting.port = 81;
        rejecting.flags |= service_flag::REJECT;
        world.services.push(rejecting);
        kernel.enter(world.clone());
        let to_81 = |packet: Packet| packet.destined(ip(vip(is_v4)), 81);
        let about = Packet::tcp(
            &format!("{}@80", vip(is_v4)),
            &format!("{}@40001", client(is_v4)),
            flag::ACK,
        );
        let (router, kind, code) =
            if is_v4 { ("203.0.113.9", 3, 4) } else { ("2001:db8:e::9", 2, 0) };
        let error = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
        let stranger = if is_v4 { "198.51.100.99" } else { "2001:db8:5::99" };
        let mut frames = vec![
            ("echo", Packet::echo(client(is_v4), vip(is_v4)).bytes()),
            ("echo to another", Packet::echo(client(is_v4), stranger).bytes()),
            ("time exceeded", tcp(is_v4, flag::ACK).ip(|ip| ip.hop_limit = 1).bytes()),
            ("refused", to_81(tcp(is_v4, flag::SYN)).bytes()),
            ("no service", udp(is_v4).destined(ip(vip(is_v4)), 79).bytes()),
            ("too big", tcp(is_v4, flag::ACK).filled(1470).bytes()),
            (
                "ICMP error",
                Packet::new(router, vip(is_v4), error).payload(&about.ip_bytes()).bytes(),
            ),
            ("martian", tcp(is_v4, flag::ACK).sourced(ip(vip(is_v4)), 5).bytes()),
            ("cut", tcp(is_v4, flag::ACK).bytes()[..40].to_vec()),
            ("version", patched(&tcp(is_v4, flag::ACK).bytes(), 14, &[0x15])),
        ];
        if is_v4 {
            let fragment = udp(true).filled(512).bytes();
            frames.push(("fragment", patched_v4(&fragment, 6, &[0x20, 0])));
            frames.push(("options", tcp(true, flag::ACK).ip(|ip| ip.options = vec![1; 8]).bytes()));
        }
        for (name, frame) in frames {
            for tags in all_tags() {
                let (plain, counted) = kernel.count(&frame);
                assert!(name != "echo" || counted.total(Reason::Echo) == 1, "{counted:?}");
                // The same first fragment once more would be one too many.
                kernel.forget_fragments();
                let (outcome, delta) = kernel.count(&tagged(&frame, &tags));
                kernel.forget_fragments();
                let name = format!("{mode}: {name} under {tags:x?}");
                assert_eq!(outcome.action, plain.action, "{name}");
                assert_eq!(outcome.frame, tagged(&plain.frame, &tags), "{name}");
                assert_eq!(delta, counted, "{name}");
            }
        }
    }
}

#[test]
fn what_is_not_ip_under_one_or_two_tags_passes_untouched() {
    let mut kernel = kernel();
    kernel.enter(world(Forward::Nat, true, true));
    let frame = tcp(true, flag::ACK).bytes();
    let mut cases = Vec::new();
    let other = [0x91, 0, 0, 5];
    for tags in [vec![DOT1Q; 3], vec![DOT1AD, DOT1Q, DOT1Q], vec![other], vec![DOT1Q, other]] {
        cases.push(Case::passes(format!("{tags:x?}"), tagged(&frame, &tags)));
    }
    for kind in [[0x08, 0x06], [0x88, 0xcc], [0x12, 0x34]] {
        let frame = tagged(&patched(&frame, 12, &kind), &[DOT1Q]);
        cases.push(Case::passes(format!("{kind:x?} under a tag"), frame));
    }
    for to in [[0xff; 6], [0x01, 0, 0x5e, 1, 2, 3], [0x33, 0x33, 0, 0, 0, 1]] {
        let frame = tagged(&patched(&frame, 0, &to), &[DOT1Q]);
        cases.push(Case::passes(format!("B09: to {to:x?} under a tag"), frame));
    }
    for tags in all_tags() {
        let whole = tagged(&frame, &tags);
        let headers = 14 + 4 * tags.len();
        for length in 14..headers {
            cases.push(Case::passes(format!("cut to {length}"), whole[..length].to_vec()));
        }
        // Behind the tags begins what any IPv4 packet is judged by; the frame leaves with its tags or not at all.
        for length in headers..headers + 20 {
            assert_ne!(kernel.run(&whole[..length]).action, action::ABORTED);
        }
    }
    check(&mut kernel, &cases);
}
