//! Shares of weighted backends, and a flood that leaves no trace: many packets, composed in the kernel.

use std::collections::HashMap;

use lb_common::abi::{BackendId, Forward, Phase, Reason, Slot};
use lb_tests::kernel::{
    Kernel, Options, World, action,
    lab::{Lab, Stream, Varied},
    packet::{Packet, flag},
    world::{Backend, Service, ip},
};
use lb_userspace::plan::ring::{Member, owners, ring_length};

const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";

/// A service whose ring is the one that lb would make of these weights.
fn weighted(mut service: Service, weights: &[u16]) -> Service {
    let backend = |number: usize| match service.vip.is_ipv4() {
        true => Backend::new(&format!("10.1.{}.{}", number / 250, number % 250 + 1), number as u8),
        false => Backend::new(&format!("fd01::{:x}", number + 1), number as u8),
    };
    service.backends = (0..weights.len()).map(backend).collect();
    let members: Vec<Member> = service
        .backends
        .iter()
        .zip(weights)
        .enumerate()
        .map(|(index, (backend, weight))| Member {
            id: BackendId(index as u32 + 1),
            address: backend.address,
            port: backend.port,
            configured: *weight,
            effective: *weight,
            percent: 100,
            ramp: 100,
        })
        .collect();
    let slots = ring_length(weights.iter().copied(), None);
    let keys = lb_tests::kernel::hash_keys();
    service.ring = owners(slots, &keys, &members).iter().map(|owner| owner.0 - 1).collect();
    service
}

fn syn(is_v4: bool) -> Packet {
    match is_v4 {
        true => Packet::tcp("10.77.0.0@1024", &format!("{VIP_V4}@80"), flag::SYN),
        false => Packet::tcp("2001:db8:c::@1024", &format!("{VIP_V6}@80"), flag::SYN),
    }
}

#[test]
fn each_backends_share_of_the_flows_is_its_share_of_the_weights() {
    const FLOWS: u32 = 100_000;
    let mut lab = Lab::load(1).expect("the lab's programs");
    let mut kernel = Kernel::shared();
    lab.register(0, kernel.balancer()).expect("a program array");
    let sets: [&[u16]; 5] =
        [&[100, 100, 100], &[1, 2, 3, 4], &[256, 64, 16], &[100, 50, 50, 10, 10], &[100; 20]];
    for weights in sets {
        for (forward, is_v4) in [
            (Forward::Nat, true),
            (Forward::Nat, false),
            (Forward::Dsr, true),
            (Forward::Ipip, true),
            (Forward::Ipip, false),
        ] {
            let vip = if is_v4 { VIP_V4 } else { VIP_V6 };
            kernel.enter(World::of([weighted(Service::new(vip, forward, &[]), weights)]));
            let before = kernel.counts();
            // 2^17 flows are more than are sent: each packet is a flow of its own.
            let mut stream = Stream::new(&syn(is_v4), Varied::Source, 1 << 17);
            let moved = match forward {
                Forward::Ipip if is_v4 => 20,
                Forward::Ipip => 40,
                Forward::Gue | Forward::FullNat => panic!("the program was loaded without"),
                Forward::Nat | Forward::Dsr => 0,
            };
            lab.stream(&mut stream, 0, moved, FLOWS, action::TX).expect("a stream");
            let delta = kernel.counts().since(&before);
            assert_eq!(delta.forwarded(), u64::from(FLOWS), "{delta:?}");
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (index, weight) in weights.iter().enumerate() {
                let counters = delta.backends.get(&(index as u32 + 1)).copied().unwrap_or_default();
                assert_eq!(counters.packets, counters.flows, "every packet opens a flow");
                let share = 100.0 * counters.flows as f64 / f64::from(FLOWS);
                let due = 100.0 * f64::from(*weight) / total;
                assert!(
                    (share - due).abs() < 1.0,
                    "{forward:?}, v4 {is_v4}, weights {weights:?}: backend {index} has {share:.2} % instead of {due:.2} %"
                );
            }
        }
    }
}

/// 500 established flows: the packet of each, and the backend it reaches.
fn established(kernel: &Kernel) -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..500)
        .map(|number| {
            let source = format!("192.0.2.{}@{}", number % 200 + 1, 20_000 + number * 7);
            let frame = Packet::tcp(&source, &format!("{VIP_V4}@80"), flag::ACK).filled(10).bytes();
            let outcome = kernel.run(&frame);
            assert_eq!(outcome.action, action::TX);
            (frame, outcome.frame)
        })
        .collect()
}

fn assert_unmoved(kernel: &Kernel, flows: &[(Vec<u8>, Vec<u8>)], when: &str) {
    let moved = flows.iter().filter(|(frame, before)| kernel.run(frame).frame != *before).count();
    assert_eq!(moved, 0, "{when}: {moved} of {} flows moved", flows.len());
}

#[test]
fn a_syn_flood_of_ten_million_sources_leaves_no_trace() {
    const FLOOD: u32 = 10_000_000;
    let mut lab = Lab::load(1).expect("the lab's programs");
    let mut kernel = Kernel::shared();
    lab.register(0, kernel.balancer()).expect("a program array");
    kernel.enter(World::of([weighted(Service::new(VIP_V4, Forward::Nat, &[]), &[100; 10])]));
    let flows = established(&kernel);
    let before = kernel.counts();
    // 2^24 sources; ten million of them, each once.
    let mut stream = Stream::new(&syn(true), Varied::Source, 1 << 24);
    for part in 1..=10 {
        lab.stream(&mut stream, 0, 0, FLOOD / 10, action::TX).expect("a stream");
        assert_unmoved(&kernel, &flows, &format!("after {part} million SYNs"));
    }
    let delta = kernel.counts().since(&before);
    let opened: u64 = delta.backends.values().map(|counters| counters.flows).sum();
    assert_eq!(opened, u64::from(FLOOD), "{delta:?}");
    assert!(delta.reasons.is_empty(), "nothing but forwarding is counted: {delta:?}");
    assert_eq!(kernel.pin_counts(), (0, 0), "pins (confirmed, unconfirmed)");
}

#[test]
fn a_syn_flood_in_a_window_is_bounded_and_moves_nobody() {
    let mut lab = Lab::load(1).expect("the lab's programs");
    let options = Options { pins: 4096, ..Options::default() };
    let _shared = Kernel::shared(); // this test's thread gets its network namespace
    let mut kernel = Kernel::load(options).expect("the balancer");
    lab.register(0, kernel.balancer()).expect("a program array");
    let service = weighted(Service::new(VIP_V4, Forward::Ipip, &[]), &[100, 100]);
    let ring = service.ring.clone();
    kernel.enter(World::of([service]));
    let flows = established(&kernel);
    // Every slot changes its owner: old flows must stay with the base.
    for (index, owner) in ring.iter().enumerate() {
        let (base, owner) = (BackendId(owner + 1), BackendId(2 - owner));
        kernel.set_slot(1, index as u32, Slot::new(owner, base, Phase::Window, 0));
    }
    assert_unmoved(&kernel, &flows, "when the window opens");
    let before = kernel.counts();
    let mut stream = Stream::new(&syn(true), Varied::Source, 1 << 22);
    lab.stream(&mut stream, 0, 20, 1_000_000, action::TX).expect("a stream");
    let delta = kernel.counts().since(&before);
    let (confirmed, unconfirmed) = kernel.pin_counts();
    assert_eq!(confirmed, 0, "no SYN alone confirms");
    assert!((1..=4096).contains(&unconfirmed), "{unconfirmed} unconfirmed pins");
    assert!(delta.total(Reason::PinRefused) > 900_000, "{delta:?}");
    assert_unmoved(&kernel, &flows, "after a million SYNs");
}

#[test]
fn the_stream_is_what_it_says() {
    // The harness itself: right checksums, distinct flows, the same again after 2^n.
    let mut lab = Lab::load(1).expect("the lab's programs");
    let _shared = Kernel::shared();
    let udp = Packet::udp("2001:db8:c::@5000", &format!("{VIP_V6}@53")).filled(40);
    let reply = Packet::tcp("10.1.0.1@8080", "10.77.0.0@1024", flag::ACK).filled(30);
    let reply6 = Packet::tcp("fd01::1@8080", "fd09::1@1024", flag::ACK).filled(30);
    for (packet, varied) in [
        (syn(true).filled(30), Varied::Source),
        (syn(false).filled(30), Varied::Source),
        (syn(false).filled(30), Varied::Network),
        (udp, Varied::Source),
        (reply.clone(), Varied::Destination),
        (reply.clone(), Varied::Pool),
        (reply6, Varied::Pool),
    ] {
        let mut stream = Stream::new(&packet, varied, 64);
        let mut seen = HashMap::new();
        for number in 0..128u32 {
            let frame = lab.next(&mut stream).expect("a frame");
            let port = (packet_port(&packet, varied) + number % 64) as u16;
            let add = |address: std::net::IpAddr| match address {
                std::net::IpAddr::V4(v4) => {
                    ip(&format!("{}", std::net::Ipv4Addr::from(u32::from(v4) + number % 64)))
                }
                std::net::IpAddr::V6(v6) if varied == Varied::Network => ip(&format!(
                    "{}",
                    std::net::Ipv6Addr::from(u128::from(v6) + (u128::from(number % 64) << 64))
                )),
                std::net::IpAddr::V6(v6) => ip(&format!(
                    "{}",
                    std::net::Ipv6Addr::from(u128::from(v6) + u128::from(number % 64))
                )),
            };
            let expected = match varied {
                Varied::Source | Varied::Network => {
                    packet.clone().sourced(add(packet.ip.source), port)
                }
                Varied::Destination => packet.clone().destined(add(packet.ip.destination), port),
                Varied::Pool => packet.clone().destined(packet.ip.destination, port),
            };
            assert_eq!(frame, expected.bytes(), "frame {number} of {packet:?}");
            *seen.entry(frame).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 64);
        assert!(seen.values().all(|count| *count == 2));
    }
    let mut stream = Stream::new(&reply, Varied::Pool, 1 << 15);
    let frames = (0..=1 << 14).map(|_| lab.next(&mut stream).expect("a frame"));
    let next = reply.destined(ip("10.77.0.1"), 1024).bytes();
    assert_eq!(frames.last(), Some(next), "the pool's next address, after 16,384 ports");
}

fn packet_port(packet: &Packet, varied: Varied) -> u32 {
    let bytes = packet.bytes();
    let transport = if packet.ip.source.is_ipv4() { 34 } else { 54 };
    let at = transport + if matches!(varied, Varied::Destination | Varied::Pool) { 2 } else { 0 };
    u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}
