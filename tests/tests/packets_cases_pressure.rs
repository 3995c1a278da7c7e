//! Packets in great numbers (docs/packet-cases.md, B31, B97, B100 to B104): what is limited stays within its limit, what is bounded within its
//! bound, and everybody else gets what he would get without.

use std::{net::Ipv4Addr, sync::MutexGuard, time::Instant};

use aya::{maps::HashMap, util::nr_cpus};
use lb_common::abi::{
    BackendId, Forward, FragmentEntry, FragmentKey, Phase, Reason, Slot, algorithm, map,
    service_flag,
};
use lb_tests::kernel::{
    Delta, Kernel, Options, World, action,
    bytes::pieces,
    case::{Case, Expected, check, expected_frame},
    lab::{Lab, Stream, Varied},
    packet::{Packet, flag},
    surroundings::{SECOND, datagram, segment},
    world::Service,
};

/// Entries of each table of pins and of flows.
const ENTRIES: u32 = 4096;
const VIP: &str = "198.51.100.7";
const BACKENDS: [&str; 4] = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"];

fn kernel() -> MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { pins: ENTRIES, flows: ENTRIES, ..Options::default() })
}

fn lab(kernel: &Kernel) -> Lab {
    let mut lab = Lab::load(1).expect("the lab's programs");
    lab.register(0, kernel.balancer()).expect("a program array");
    lab
}

fn fragments(kernel: &mut Kernel) -> usize {
    const KEY: usize = size_of::<FragmentKey>();
    const ROW: usize = size_of::<FragmentEntry>();
    let map = kernel.ebpf().map(map::FRAGMENTS).expect("declared");
    let fragments: HashMap<_, [u8; KEY], [u8; ROW]> = map.try_into().expect("its type");
    fragments.keys().count()
}

/// B31: first fragments without the rest, of one client, with all identifications there are and more: the table is full and no
/// fuller, whole packets are as they were, and so are the fragments of a packet that come together.
#[test]
fn b31_first_fragments_without_end_fill_a_bounded_table() {
    /// Of the table.
    const BOUND: usize = 16_384;
    let mut kernel = kernel();
    let mut world = World::plain(("dsr4", Forward::Dsr, true, true));
    world.services.iter_mut().for_each(|service| service.flags |= service_flag::FRAGMENTS);
    kernel.enter(world.clone());
    let mut table = 0;
    for round in 0..4u16 {
        for id in 0..15_000u16 {
            let from = format!("192.0.2.{}@{}", round + 1, 1024 + id);
            let packet = Packet::udp(&from, "198.51.100.7@80").filled(24);
            let id = id.wrapping_mul(40_503);
            let packet = packet.ip(|ip| (ip.label, ip.dont_fragment) = (id.into(), false));
            let first = &pieces(&packet.bytes(), id, 24)[0];
            assert_eq!(kernel.run(first).action, action::TX, "round {round}");
        }
        table = fragments(&mut kernel);
        assert!(table <= BOUND, "{table} fragments are remembered");
        let packet = segment(true, flag::ACK).filled(100);
        let mut cases = vec![Case::forwards("a whole packet", &world, &packet, 1, SECOND)];
        let packet = datagram(true).filled(1300);
        let packet = packet.ip(|ip| (ip.label, ip.dont_fragment) = (round.into(), false));
        let there = pieces(&expected_frame(&world, &packet, 2, SECOND), round, 512);
        for (sent, there) in pieces(&packet.bytes(), round, 512).into_iter().zip(there) {
            let delta = Delta::request(5, sent.len() - 14, false);
            cases.push(Case::new("a fragment", sent, Expected::answered(there, delta)));
        }
        check(&mut kernel, &cases);
    }
    assert!(table > BOUND / 2, "only {table} fragments are remembered: no pressure");
}

/// B97: packets that are too big for the tunnel, one after the other as fast as they come: few are answered, all are dropped.
#[test]
fn b97_answers_to_packets_that_are_too_big_are_limited() {
    const FLOOD: u64 = 200_000;
    /// Answers a second and CPU, and how many at once.
    const RATE: (f64, f64) = (100.0, 50.0);
    for (is_v4, mode) in [(true, "ipip4"), (false, "ipip6")] {
        let mut kernel = kernel();
        kernel.enter(World::plain((mode, Forward::Ipip, is_v4, is_v4)));
        let bare = segment(is_v4, flag::ACK).length();
        let frame = segment(is_v4, flag::ACK).filled(1500 - bare).bytes();
        let before = kernel.counts();
        let start = Instant::now();
        let mut answered = 0;
        for _ in 0..FLOOD {
            match kernel.run(&frame).action {
                action::TX => answered += 1,
                other => assert_eq!(other, action::DROP, "{mode}"),
            }
        }
        let delta = kernel.counts().since(&before);
        let cpus = nr_cpus().expect("the kernel says it") as f64;
        let most = cpus * (RATE.1 + 1.0 + RATE.0 * start.elapsed().as_secs_f64());
        assert!((1..=most as u64).contains(&answered), "{mode}: {answered}, at most {most}");
        let counts = [Reason::TooBig, Reason::TooBigSent, Reason::IcmpLimited]
            .map(|reason| delta.total(reason));
        assert_eq!(counts, [FLOOD, answered, FLOOD - answered], "{mode}: {delta:?}");
        assert_eq!((delta.reasons.len(), delta.forwarded()), (3, 0), "{mode}: {delta:?}");
    }
}

/// A client's segment from a port; the backend it reaches, counted from 1.
fn send(kernel: &Kernel, port: u16, flags: u8, sequence: u32) -> u32 {
    let packet = Packet::tcp(&format!("192.0.2.33@{port}"), &format!("{VIP}@80"), flags)
        .with_tcp(|tcp| tcp.sequence = sequence);
    let outcome = kernel.run(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "port {port}: {outcome:?}");
    u32::from(outcome.frame[5]) + 1
}

/// Opens a connection (dsr: the ACK confirms it); its backend.
fn open(kernel: &Kernel, port: u16) -> u32 {
    let backend = send(kernel, port, flag::SYN, 0x1000);
    assert_eq!(send(kernel, port, flag::ACK, 0x1001), backend, "port {port}: the handshake");
    backend
}

/// Sends SYNs of so many sources, each twice in a row, which a table of recently used entries takes for a sign of life.
fn double_tap(kernel: &Kernel, sources: u32) {
    let syn = Packet::tcp("10.64.0.0@1024", &format!("{VIP}@80"), flag::SYN);
    for number in 0..sources {
        let source = Ipv4Addr::from(0x0a40_0000 + number);
        let frame = syn.clone().sourced(source.into(), 1024 + number as u16 % 50_000).bytes();
        for _ in 0..2 {
            assert_eq!(kernel.run(&frame).action, action::TX, "{source}");
        }
    }
}

/// B100, B101: who is connected keeps his pin, while slots change their owners for the second time.
#[test]
fn b101_syns_in_pairs_displace_no_pin() {
    const SOURCES: u32 = 100_000;
    let mut kernel = kernel();
    kernel.enter(World::of([Service::new(VIP, Forward::Dsr, &BACKENDS)]));
    let every = |kernel: &mut Kernel, owner, base| {
        for index in 0..1021 {
            kernel.set_slot(1, index, Slot::new(BackendId(owner), base, Phase::Window, 0));
        }
    };
    every(&mut kernel, 2, BackendId(1));
    for port in 20_000..21_000 {
        assert_eq!(open(&kernel, port), 2, "a new connection");
    }
    every(&mut kernel, 3, BackendId(1));
    let before = kernel.counts();
    double_tap(&kernel, SOURCES);
    let delta = kernel.counts().since(&before);
    assert_eq!(delta.forwarded(), 2 * u64::from(SOURCES), "all are served: {delta:?}");
    assert!(delta.total(Reason::PinRefused) > u64::from(SOURCES), "no pressure: {delta:?}");
    for port in 20_000..21_000 {
        assert_eq!(send(&kernel, port, flag::ACK, 0x1001), 2, "port {port}: its pin");
    }
    let (confirmed, unconfirmed) = kernel.pin_counts();
    assert_eq!(confirmed, 1000, "two SYNs confirm nothing");
    assert!((1..=ENTRIES as usize).contains(&unconfirmed), "{unconfirmed} unconfirmed pins");
}

/// B100, B101: the same where every flow is remembered.
#[test]
fn b101_syns_in_pairs_displace_no_remembered_flow() {
    const SOURCES: u32 = 100_000;
    const MOST: u32 = 2048;
    let mut kernel = kernel();
    let service = Service::new(VIP, Forward::Dsr, &BACKENDS).tracked(algorithm::TURN, 0..4);
    let service = service.policy(|policy| (policy.flows, policy.flows_unconfirmed) = (MOST, MOST));
    kernel.enter(World::of([service]));
    let homes: Vec<u32> = (20_000..21_000).map(|port| open(&kernel, port)).collect();
    let before = kernel.counts();
    double_tap(&kernel, SOURCES);
    let delta = kernel.counts().since(&before);
    assert_eq!(delta.forwarded(), 2 * u64::from(SOURCES), "all are served: {delta:?}");
    assert!(delta.total(Reason::FlowRefused) > u64::from(SOURCES), "no pressure: {delta:?}");
    for (port, home) in (20_000..21_000).zip(homes) {
        assert_eq!(send(&kernel, port, flag::ACK, 0x1001), home, "port {port}");
    }
    let load = kernel.service_load(1);
    assert_eq!((load.confirmed, load.unconfirmed), (1000, MOST.into()));
}

/// Five standard deviations of one backend's part of so many flows.
fn is_fair(count: u64, flows: u64) -> bool {
    let (flows, share) = (flows as f64, 1.0 / BACKENDS.len() as f64);
    (count as f64 - flows * share).abs() < 5.0 * (flows * share * (1.0 - share)).sqrt()
}

/// B103: a client with all its ports, and a million clients with one packet each: an equal part for every backend, nothing remembered.
#[test]
fn b103_one_client_with_all_ports_and_a_million_with_one() {
    const CLIENTS: u64 = 1 << 20;
    let mut kernel = kernel();
    let mut lab = lab(&kernel);
    kernel.enter(World::of([Service::new(VIP, Forward::Dsr, &BACKENDS)]));
    let before = kernel.counts();
    let flows = 1024..=u16::MAX;
    let count = flows.clone().count() as u64;
    for port in flows {
        send(&kernel, port, flag::SYN, 1);
    }
    let middle = kernel.counts();
    let ack = Packet::tcp("10.64.0.0@1024", &format!("{VIP}@80"), flag::ACK);
    let mut stream = Stream::new(&ack, Varied::Source, CLIENTS as u32);
    lab.stream(&mut stream, 0, 0, CLIENTS as u32, action::TX).expect("ACKs");
    for (flows, delta) in
        [(count, middle.since(&before)), (CLIENTS, kernel.counts().since(&middle))]
    {
        assert_eq!((delta.forwarded(), delta.reasons.len()), (flows, 0), "{delta:?}");
        for backend in 1..=BACKENDS.len() as u32 {
            assert!(is_fair(delta.packets(backend), flows), "{flows} flows: {delta:?}");
        }
    }
    assert_eq!(kernel.pin_counts(), (0, 0));
}

/// B104: datagrams that are flows of their own leave nothing behind, in any phase of the ring.
#[test]
fn b104_flows_of_one_datagram_are_not_remembered() {
    const FLOWS: u64 = 1 << 20;
    let mut kernel = kernel();
    let mut lab = lab(&kernel);
    for phase in [Phase::Settled, Phase::Window, Phase::Harvest] {
        kernel.enter(World::of([Service::new(VIP, Forward::Dsr, &BACKENDS).udp()]));
        if phase != Phase::Settled {
            for index in 0..1021 {
                let owner = BackendId(1 + index % 4);
                kernel.set_slot(1, index, Slot::new(owner, BackendId(1), phase, 0));
            }
        }
        let before = kernel.counts();
        let query = Packet::udp("10.64.0.0@1024", &format!("{VIP}@80")).filled(40);
        let mut stream = Stream::new(&query, Varied::Source, FLOWS as u32);
        lab.stream(&mut stream, 0, 0, FLOWS as u32, action::TX).expect("datagrams");
        let delta = kernel.counts().since(&before);
        assert_eq!((delta.forwarded(), delta.reasons.len()), (FLOWS, 0), "{phase:?}: {delta:?}");
        assert_eq!(kernel.pin_counts(), (0, 0), "{phase:?}");
    }
}
