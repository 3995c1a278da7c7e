//! Clients that are remembered, in the real program: what makes one, where its flows go while backends come and go, and a million.

use std::sync::MutexGuard;

use lb_common::abi::{
    BackendRow, Forward, Prefixes, Reason, RememberedSource, Slot, SourceKey, algorithm,
    backend_flag, map, policy_flag, service_flag,
};
use lb_tests::kernel::{
    Kernel, Options, World, action,
    lab::{Lab, Stream, Varied},
    packet::{Packet, flag},
    world::{Service, ip},
};

const VIP: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";
const ISN: u32 = 0x1000_0000;

fn enter(service: Service) -> MutexGuard<'static, Kernel> {
    let options = Options { flows: 1 << 20, sources: 1 << 20, ..Options::default() };
    let mut kernel = Kernel::shared_with(options);
    kernel.enter(World::of([service]));
    kernel
}

/// Remembers clients for 1,000 jiffies; new ones are taken in turn, so that staying is no accident.
fn service(vip: &str, prefix: Prefixes) -> Service {
    let backends: &[&str] = match vip {
        VIP => &["10.1.0.1", "10.1.0.2", "10.1.0.3"],
        _ => &["fd01::1", "fd01::2", "fd01::3"],
    };
    let mut service = Service::new(vip, Forward::Dsr, backends)
        .tracked(algorithm::TURN, [0, 1, 2])
        .policy(|policy| (policy.source_idle, policy.flags) = (1_000, policy_flag::PERSIST));
    service.flags |= service_flag::BY_SOURCE;
    service.prefix = prefix;
    service
}

fn send(kernel: &Kernel, client: &str, port: u16, flags: u8, sequence: u32) -> u32 {
    let vip = if client.contains(':') { VIP_V6 } else { VIP };
    let packet = Packet::tcp(&format!("{client}@{port}"), &format!("{vip}@80"), flags)
        .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, 1));
    let outcome = kernel.run(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "{outcome:?}");
    u32::from(outcome.frame[5]) + 1
}

fn syn(kernel: &Kernel, client: &str, port: u16) -> u32 {
    send(kernel, client, port, flag::SYN, ISN)
}

fn open(kernel: &Kernel, client: &str, port: u16) -> u32 {
    let backend = syn(kernel, client, port);
    assert_eq!(send(kernel, client, port, flag::ACK, ISN + 1), backend);
    backend
}

fn key(client: &str, prefix: Prefixes) -> SourceKey {
    SourceKey { source: prefix.masked(&ip(client).into()), service: 1, _pad: 0 }
}

fn remembered(kernel: &mut Kernel, client: &str) -> Option<RememberedSource> {
    kernel.hash_map(map::SOURCES).get(&key(client, Prefixes::default()), 0).ok()
}

fn set_flags(kernel: &mut Kernel, backend: u32, flags: u32) {
    let mut rows = kernel.array::<BackendRow>(map::BACKENDS);
    let mut row = rows.get(&backend, 0).expect("within");
    row.flags = backend_flag::RESOLVED | flags;
    rows.set(backend, row, 0).expect("within");
}

const CLIENT: &str = "192.0.2.33";

#[test]
fn a_client_stays_whatever_becomes_of_ring_and_turns() {
    let mut kernel = enter(service(VIP, Prefixes::default()));
    let backend = open(&kernel, CLIENT, 1_000);
    for owner in 1..=3 {
        for index in 0..1021 {
            kernel.set_slot(1, index, Slot::settled(lb_common::abi::BackendId(owner)));
        }
        for port in 0..10 {
            assert_eq!(open(&kernel, CLIENT, 2_000 + 100 * owner as u16 + port), backend);
        }
    }
    // Others are balanced.
    let others: Vec<u32> =
        (1..=3).map(|host| open(&kernel, &format!("192.0.2.{host}"), 1_000)).collect();
    assert_eq!(others, [backend % 3 + 1, (backend + 1) % 3 + 1, backend], "in turn");
}

#[test]
fn a_syn_alone_is_no_client() {
    let mut kernel = enter(service(VIP, Prefixes::default()));
    let first = syn(&kernel, CLIENT, 1_000);
    assert_eq!(remembered(&mut kernel, CLIENT), None);
    assert_ne!(syn(&kernel, CLIENT, 1_001), first, "in turn");
    // Somebody who guesses.
    send(&kernel, CLIENT, 1_000, flag::ACK, ISN + 70_000);
    assert_eq!(remembered(&mut kernel, CLIENT), None);
    send(&kernel, CLIENT, 1_000, flag::ACK, ISN + 1);
    assert_eq!(remembered(&mut kernel, CLIENT).map(|source| source.backend.0), Some(first));
    // The other flow goes on where it is, and takes its client nowhere.
    send(&kernel, CLIENT, 1_001, flag::ACK, ISN + 1);
    assert_eq!(remembered(&mut kernel, CLIENT).map(|source| source.backend.0), Some(first));
}

#[test]
fn a_backend_that_is_down_or_gone_is_replaced_for_good_and_a_drained_one_is_not() {
    for (flags, stays) in [(0, true), (backend_flag::DOWN, false), (backend_flag::REMOVED, false)] {
        let mut kernel = enter(service(VIP, Prefixes::default()));
        let backend = open(&kernel, CLIENT, 1_000);
        // Drained: it has no turn any more.
        let others: Vec<u32> = (1..=3).filter(|id| *id != backend).collect();
        let mut policy =
            kernel.array::<lb_common::abi::Policy>(map::POLICIES).get(&1, 0).expect("within");
        for (place, other) in (policy.schedule..).zip(&others) {
            kernel.array::<u64>(map::ARENA).set(place, u64::from(*other), 0).expect("within");
        }
        policy.schedule_length = 2;
        kernel.array(map::POLICIES).set(1, policy, 0).expect("within");
        set_flags(&mut kernel, backend, flags);
        let next = open(&kernel, CLIENT, 1_001);
        assert_eq!(next == backend, stays, "flags {flags}");
        set_flags(&mut kernel, backend, 0);
        assert_eq!(open(&kernel, CLIENT, 1_002), next, "flags {flags}: for good");
    }
}

#[test]
fn who_is_silent_for_long_is_a_new_client() {
    let mut kernel = enter(service(VIP, Prefixes::default()));
    let backend = open(&kernel, CLIENT, 1_000);
    let age = |kernel: &mut Kernel, jiffies: u64| {
        let entry = remembered(kernel, CLIENT).expect("an entry");
        let old = RememberedSource { last_seen: entry.last_seen - jiffies, ..entry };
        let key = key(CLIENT, Prefixes::default());
        kernel.hash_map(map::SOURCES).insert(key, old, 0).expect("it is there");
    };
    age(&mut kernel, 700);
    assert_eq!(open(&kernel, CLIENT, 1_001), backend, "it was heard of in time");
    age(&mut kernel, 700);
    assert_eq!(open(&kernel, CLIENT, 1_002), backend, "and so it was again");
    age(&mut kernel, 2_000);
    assert_ne!(open(&kernel, CLIENT, 1_003), backend);
}

#[test]
fn a_prefix_is_one_client() {
    for (prefix, one, same, other) in [
        (Prefixes { v4: 24, v6: 64 }, "192.0.2.1", "192.0.2.254", "192.0.3.1"),
        (Prefixes { v4: 32, v6: 56 }, "2001:db8:9:1::1", "2001:db8:9:ff::2", "2001:db8:9:100::1"),
        (Prefixes { v4: 32, v6: 128 }, "2001:db8:9::1", "2001:db8:9::1", "2001:db8:9::2"),
    ] {
        let vip = if one.contains(':') { VIP_V6 } else { VIP };
        let kernel = enter(service(vip, prefix));
        let backend = open(&kernel, one, 1_000);
        assert_eq!(open(&kernel, same, 1_001), backend, "{one} and {same} by {prefix:?}");
        assert_ne!(open(&kernel, other, 1_002), backend, "{one} and {other} by {prefix:?}");
        assert_eq!(open(&kernel, same, 1_003), backend);
    }
}

#[test]
fn without_a_time_out_the_ring_decides_by_the_prefix() {
    let mut service = Service::new(VIP, Forward::Dsr, &["10.1.0.1", "10.1.0.2", "10.1.0.3"])
        .flags(service_flag::BY_SOURCE);
    service.prefix = Prefixes { v4: 24, v6: 64 };
    let mut kernel = enter(service);
    let mut seen = std::collections::HashSet::new();
    for net in 0..30 {
        let backend = syn(&kernel, &format!("192.0.{net}.1"), 1_000);
        for host in 2..20 {
            assert_eq!(syn(&kernel, &format!("192.0.{net}.{host}"), 1_000 + host), backend);
        }
        seen.insert(backend);
    }
    assert_eq!(seen.len(), 3, "the ring spreads prefixes");
    assert_eq!(kernel.hash_map::<SourceKey, RememberedSource>(map::SOURCES).keys().count(), 0);
}

#[test]
fn a_million_clients_are_remembered_and_a_flood_adds_none() {
    const CLIENTS: u32 = 1_000_000;
    let mut lab = Lab::load(1).expect("the lab's programs");
    let mut kernel =
        enter(service(VIP, Prefixes::default()).policy(|policy| policy.source_idle = 1 << 40));
    lab.register(0, kernel.balancer()).expect("a program array");
    let packet = |flags, sequence| {
        Packet::tcp("10.64.0.0@1024", &format!("{VIP}@80"), flags)
            .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, 1))
    };
    let mut syns = Stream::new(&packet(flag::SYN, ISN), Varied::Source, 1 << 20);
    let mut acks = Stream::new(&packet(flag::ACK, ISN + 1), Varied::Source, 1 << 20);
    let before = kernel.counts();
    lab.stream(&mut syns, 0, 0, CLIENTS, action::TX).expect("a stream");
    lab.stream(&mut acks, 0, 0, CLIENTS, action::TX).expect("a stream");
    let delta = kernel.counts().since(&before);
    assert_eq!(delta.total(Reason::FlowRefused), 0, "{delta:?}");
    assert_eq!(delta.total(Reason::SourceRefused), 0, "{delta:?}");
    let mut count = [0u32; 4];
    let sources = kernel.hash_map::<SourceKey, RememberedSource>(map::SOURCES);
    for entry in sources.iter() {
        let (_, source) = entry.expect("nobody changes it");
        count[source.backend.0 as usize] += 1;
    }
    assert_eq!(count.iter().sum::<u32>(), CLIENTS);
    assert!(count[1..].iter().all(|count| count.abs_diff(CLIENTS / 3) <= 1), "{count:?}");
    // Wherever the ring and the turns are by now, a sample of them goes where it went.
    for number in (0..CLIENTS).step_by(9_973) {
        let [_, b, c, d] = number.to_be_bytes();
        let client = format!("10.{}.{c}.{d}", 64 + b);
        let known = remembered(&mut kernel, &client).expect(&client).backend.0;
        assert_eq!(syn(&kernel, &client, 60_000), known, "{client}");
    }
    let flood = Packet::tcp("172.16.0.0@1024", &format!("{VIP}@80"), flag::SYN);
    let mut stream = Stream::new(&flood, Varied::Source, 1 << 20);
    lab.stream(&mut stream, 0, 0, 100_000, action::TX).expect("a stream");
    let spoofed = key("172.16.0.7", Prefixes::default());
    assert!(kernel.hash_map::<SourceKey, RememberedSource>(map::SOURCES).get(&spoofed, 0).is_err());
}
