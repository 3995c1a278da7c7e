//! The MSS clamp: what a handshake offers, in every mode, with checksums by an independent builder.

use lb_common::abi::{Forward, OpeningRules, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, World, action,
    case::{expected_frame, expected_reply},
    packet::{Packet, flag},
    world::{CLIENT, MODES, Route, Service, ip},
};

const MOST: u16 = 1_360;

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7" } else { "2001:db8:5::7" }
}

fn client(is_v4: bool) -> &'static str {
    if is_v4 { "192.0.2.33@40001" } else { "2001:db8:c::33@40001" }
}

/// A service that clamps and one that does not, on another port.
fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let backend = if backends_are_v4 { "10.1.0.1@80" } else { "fd01::1@80" };
    let mut service = Service::new(vip(vip_is_v4), forward, &[backend]);
    let plain = service.clone().port(81);
    service.openings = OpeningRules { mss: MOST.into(), ..OpeningRules::default() };
    let mut world = World::of([service.flags(service_flag::CLAMP_MSS), plain]);
    let (gateway, all) = if vip_is_v4 { ("10.1.0.254", "0.0.0.0") } else { ("fd01::fe", "::") };
    let gateway = Some((ip(gateway), Some(CLIENT)));
    world.routes = vec![Route { prefix: (ip(all), 0), gateway, mtu: 1500 }];
    // nat's replies are known by address and port: those of the other service are another's.
    world.services[1].backends[0].port = 81;
    world
}

/// What stacks send: Linux, with padding in front, and the option last.
fn options(mss: u16) -> [Vec<u8>; 3] {
    let [high, low] = mss.to_be_bytes();
    [
        vec![2, 4, high, low, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
        vec![1, 2, 4, high, low, 1, 1, 0],
        vec![8, 10, 9, 8, 7, 6, 5, 4, 3, 2, 3, 3, 9, 4, 2, 2, 4, high, low, 0],
    ]
}

fn packet(is_v4: bool, port: u16, flags: u8, options: &[u8]) -> Packet {
    Packet::tcp(client(is_v4), &format!("{}@{port}", vip(is_v4)), flags)
        .with_tcp(|tcp| tcp.options = options.to_vec())
}

#[test]
fn syns_offer_no_more_in_any_mode_and_less_is_left() {
    let mut kernel = Kernel::shared();
    for (name, forward, vip_is_v4, backends_are_v4) in MODES {
        kernel.enter(world(forward, vip_is_v4, backends_are_v4));
        for (offered, left) in [(1_460, MOST), (MOST + 1, MOST), (MOST, MOST), (536, 536), (0, 0)] {
            for (came, goes) in options(offered).iter().zip(&options(left)) {
                let syn = packet(vip_is_v4, 80, flag::SYN, came);
                let clamped = packet(vip_is_v4, 80, flag::SYN, goes);
                let expected = expected_frame(kernel.world(), &clamped, 1, 0);
                let (outcome, delta) = kernel.count(&syn.bytes());
                assert_eq!(outcome.action, action::TX, "{name}, {offered}");
                assert_eq!(outcome.frame, expected, "{name}, {offered} by {came:?}");
                assert_eq!(delta, Delta::request(1, syn.length(), true), "{name}");
            }
        }
    }
}

#[test]
fn what_opens_nothing_and_services_that_do_not_clamp_are_left_alone() {
    let mut kernel = Kernel::shared();
    kernel.enter(world(Forward::Nat, true, true));
    for (port, service, flags) in [
        (80, 1, flag::ACK),
        (80, 1, flag::ACK | flag::PSH),
        (80, 1, flag::FIN | flag::ACK),
        (81, 2, flag::SYN),
    ] {
        for came in options(1_460) {
            let packet = packet(true, port, flags, &came);
            let expected = expected_frame(kernel.world(), &packet, service, 0);
            assert_eq!(
                kernel.run(&packet.bytes()).frame,
                expected,
                "port {port}, flags {flags:#x}"
            );
        }
    }
    for broken in [&[][..], &[0; 4], &[2, 3, 5, 0], &[3, 1, 2, 4, 5, 0xb4, 0, 0], &[1; 40]] {
        let packet = packet(true, 80, flag::SYN, broken);
        let expected = expected_frame(kernel.world(), &packet, 1, 0);
        assert_eq!(kernel.run(&packet.bytes()).frame, expected, "{broken:?}");
    }
}

#[test]
fn in_nat_a_backends_syn_ack_offers_no_more_either() {
    let mut kernel = Kernel::shared();
    for is_v4 in [true, false] {
        kernel.enter(world(Forward::Nat, is_v4, is_v4));
        let backend = if is_v4 { "10.1.0.1" } else { "fd01::1" };
        let reply = |port: u16, flags, options: &[u8]| {
            Packet::tcp(&format!("{backend}@{port}"), client(is_v4), flags)
                .with_tcp(|tcp| tcp.options = options.to_vec())
        };
        for (port, service, flags, left) in [
            (80, 1, flag::SYN | flag::ACK, MOST),
            (80, 1, flag::ACK, 1_460),
            (81, 2, flag::SYN | flag::ACK, 1_460),
        ] {
            for (came, goes) in options(1_460).iter().zip(&options(left)) {
                let expected = expected_reply(kernel.world(), &reply(port, flags, goes), service);
                let outcome = kernel.run(&reply(port, flags, came).bytes());
                assert_eq!(outcome.frame, expected, "port {port}, flags {flags:#x}, {came:?}");
            }
        }
    }
}
