//! What the packet path notes of services that observe their backends: whose SYNs were answered, refused, or not answered,
//! and whom it tells of.

use std::{net::IpAddr, sync::MutexGuard, time::Duration};

use aya::maps::RingBuf;
use lb_common::{
    abi::{
        Address, BackendId, FlowKey, Forward, ObservedCounters, ObservedFailure, OpeningBucket,
        backend_flag, failure_kind, map, protocol, service_flag,
    },
    be::Be16,
    hash::flow_hash,
    observe::{REPEATED_AFTER, opening_bucket},
};
use lb_tests::kernel::{
    Kernel, Options, World, action, hash_keys,
    packet::{Packet, flag},
    world::{CLIENT, Route, Service, ip},
};

const SERVER_ISN: u32 = 0x5000_0000;

fn kernel() -> MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { observe: true, ..Options::default() })
}

/// One observed service and one that is not, of one backend each (ids 1 and 2), for IPv4 and (ids 3 and 4) IPv6.
fn enter(kernel: &mut Kernel, forward: Forward) {
    let gateway = |prefix: &str, gateway: &str| Route {
        prefix: (ip(prefix), 0),
        gateway: Some((ip(gateway), Some(CLIENT))),
        mtu: 1500,
    };
    let mut world = World::of([
        Service::new("198.51.100.7", forward, &["10.1.0.1"]).flags(service_flag::OBSERVE),
        Service::new("198.51.100.8", forward, &["10.1.0.2"]),
        Service::new("2001:db8:5::7", forward, &["fd01::1"]).flags(service_flag::OBSERVE),
        Service::new("2001:db8:5::8", forward, &["fd01::2"]),
    ]);
    world.routes = vec![gateway("0.0.0.0", "10.0.0.254"), gateway("::", "fd00::fe")];
    kernel.enter(world);
    failures(kernel);
}

/// A connection of a client to a service.
#[derive(Clone, Copy)]
struct Client<'a> {
    source: &'a str,
    port: u16,
    isn: u32,
    /// Number of the service, from 1.
    service: u32,
}

impl<'a> Client<'a> {
    fn new(source: &'a str, port: u16) -> Self {
        let service = if source.contains(':') { 3 } else { 1 };
        Self { source, port, isn: 0x1111_0000 + u32::from(port), service }
    }

    fn to(self, service: u32) -> Self {
        Self { service, ..self }
    }

    fn vip(self) -> &'static str {
        ["198.51.100.7", "198.51.100.8", "2001:db8:5::7", "2001:db8:5::8"]
            [self.service as usize - 1]
    }

    fn flow(self) -> FlowKey {
        FlowKey {
            source: Address::from(ip(self.source)),
            destination: Address::from(ip(self.vip())),
            source_port: Be16::from_host(self.port),
            destination_port: Be16::from_host(80),
            protocol: protocol::TCP,
            _pad: [0; 3],
        }
    }

    /// A packet of the client; it has to be forwarded.
    fn sends(self, kernel: &Kernel, flags: u8, sequence: u32, acknowledgement: u32) {
        let source = format!("{}@{}", self.source, self.port);
        let packet = Packet::tcp(&source, &format!("{}@80", self.vip()), flags)
            .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement));
        let outcome = kernel.run(&packet.bytes());
        assert_eq!(outcome.action, action::TX, "{outcome:?}");
    }

    fn syn(self, kernel: &Kernel) {
        self.sends(kernel, flag::SYN, self.isn, 0);
    }

    /// What completes the handshake in nat.
    fn ack(self, kernel: &Kernel) {
        self.sends(kernel, flag::ACK, self.isn + 1, SERVER_ISN + 1);
    }

    /// A nat backend's answer.
    fn gets(self, kernel: &Kernel, flags: u8, sequence: u32, acknowledgement: u32) {
        let backend = ["10.1.0.1", "10.1.0.2", "fd01::1", "fd01::2"][self.service as usize - 1];
        let client = format!("{}@{}", self.source, self.port);
        let packet = Packet::tcp(&format!("{backend}@8080"), &client, flags)
            .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement));
        let outcome = kernel.run(&packet.bytes());
        assert_eq!(outcome.action, action::TX, "{outcome:?}");
    }

    fn syn_ack(self, kernel: &Kernel) {
        self.gets(kernel, flag::SYN | flag::ACK, SERVER_ISN, self.isn + 1);
    }

    fn reset(self, kernel: &Kernel) {
        self.gets(kernel, flag::RST | flag::ACK, 0, self.isn + 1);
    }

    /// A whole handshake in nat.
    fn connects(self, kernel: &Kernel) {
        self.syn(kernel);
        self.syn_ack(kernel);
        self.ack(kernel);
    }

    /// As if the SYN had come `units` (1.05 ms) earlier.
    fn age(self, kernel: &mut Kernel, units: u32) {
        let index = opening_bucket(flow_hash(&hash_keys(), &self.flow()));
        let mut table = kernel.array::<OpeningBucket>(map::OPENINGS);
        let mut bucket = table.get(&index, 0).unwrap();
        for opening in &mut bucket.openings {
            let sent = (opening.sent >> 32) as u32;
            opening.sent = u64::from(sent.wrapping_sub(units)) << 32 | opening.sent as u32 as u64;
        }
        table.set(index, bucket, 0).unwrap();
    }

    /// The SYN once more, after what a client waits.
    fn repeats(self, kernel: &mut Kernel) {
        self.age(kernel, REPEATED_AFTER);
        self.syn(kernel);
    }
}

/// All that was told since the last call: kind, backend, source.
fn failures(kernel: &mut Kernel) -> Vec<(u32, u32, IpAddr, u64)> {
    let ring = kernel.ebpf().map_mut(map::FAILURES).unwrap();
    let mut ring = RingBuf::try_from(ring).unwrap();
    let mut all = Vec::new();
    while let Some(item) = ring.next() {
        assert_eq!(item.len(), size_of::<ObservedFailure>());
        // SAFETY: the record is as long as the type, which takes every bit pattern.
        let failure = unsafe { item.as_ptr().cast::<ObservedFailure>().read_unaligned() };
        assert!(failure.time > 0);
        all.push((failure.kind, failure.backend.0, failure.source.into(), failure.answered));
    }
    all
}

/// Answered, unanswered and refused SYNs of a backend since the last call with the same `before`.
fn counted(kernel: &mut Kernel, backend: u32, before: &mut ObservedCounters) -> [u64; 3] {
    let table = kernel.array::<ObservedCounters>(map::OBSERVED);
    let now = table.get(&backend, 0).unwrap();
    let then = std::mem::replace(before, now);
    [now.answered - then.answered, now.unanswered - then.unanswered, now.refused - then.refused]
}

fn before(kernel: &mut Kernel, backend: u32) -> ObservedCounters {
    kernel.array::<ObservedCounters>(map::OBSERVED).get(&backend, 0).unwrap()
}

/// A client's second connection that fails, told to the controller: more than 21 ms after the last one.
fn rest() {
    std::thread::sleep(Duration::from_millis(25));
}

#[test]
fn nat_tells_of_repeated_syns_and_resets_of_proven_sources() {
    let mut kernel = kernel();
    enter(&mut kernel, Forward::Nat);
    for (backend, source) in [(1, "192.0.2.10"), (3, "2001:db8:c:10::1")] {
        let mut was = before(&mut kernel, backend);
        let first = Client::new(source, 1_000);
        first.connects(&kernel);
        assert_eq!(counted(&mut kernel, backend, &mut was), [1, 0, 0], "{source}");
        assert_eq!(failures(&mut kernel), [], "{source}");

        let second = Client::new(source, 1_001);
        second.syn(&kernel);
        second.syn(&kernel);
        assert_eq!(counted(&mut kernel, backend, &mut was), [0, 0, 0], "{source}: too early");
        second.repeats(&mut kernel);
        second.repeats(&mut kernel);
        assert_eq!(counted(&mut kernel, backend, &mut was), [0, 2, 0], "{source}");
        let told = failures(&mut kernel);
        let answered = was.answered;
        let expected = (failure_kind::UNANSWERED, backend, ip(source), answered);
        assert_eq!(told, [expected], "{source}: once in 21 ms");

        rest();
        let third = Client::new(source, 1_002);
        third.syn(&kernel);
        third.reset(&kernel);
        assert_eq!(counted(&mut kernel, backend, &mut was), [0, 0, 1], "{source}");
        let expected = (failure_kind::REFUSED, backend, ip(source), answered);
        assert_eq!(failures(&mut kernel), [expected], "{source}");
        third.reset(&kernel);
        assert_eq!(
            counted(&mut kernel, backend, &mut was),
            [0, 0, 0],
            "{source}: the same once more"
        );
    }
}

#[test]
fn an_answered_syn_is_not_unanswered_when_its_client_repeats_it() {
    let mut kernel = kernel();
    enter(&mut kernel, Forward::Nat);
    let mut was = before(&mut kernel, 1);
    Client::new("192.0.2.20", 1_000).connects(&kernel);
    let lost = Client::new("192.0.2.20", 1_001);
    lost.syn(&kernel);
    lost.syn_ack(&kernel);
    lost.repeats(&mut kernel);
    lost.syn_ack(&kernel);
    lost.reset(&kernel);
    assert_eq!(
        counted(&mut kernel, 1, &mut was),
        [2, 0, 0],
        "a reset after the answer is none to the SYN"
    );
    assert_eq!(failures(&mut kernel), []);
}

#[test]
fn a_source_that_has_proven_nothing_says_nothing() {
    let mut kernel = kernel();
    enter(&mut kernel, Forward::Nat);
    let mut was = before(&mut kernel, 1);
    let silent = Client::new("192.0.2.30", 1_000);
    silent.syn(&kernel);
    silent.repeats(&mut kernel);
    let refused = Client::new("192.0.2.30", 1_001);
    refused.syn(&kernel);
    refused.reset(&kernel);
    assert_eq!(counted(&mut kernel, 1, &mut was), [0, 0, 0]);
    // Whoever does not see the answer cannot complete the handshake: neither without one, nor with a guess.
    let blind = Client::new("192.0.2.31", 1_000);
    blind.syn(&kernel);
    blind.ack(&kernel);
    blind.syn_ack(&kernel);
    for guess in [0, SERVER_ISN, SERVER_ISN + 2, SERVER_ISN + 65_000, u32::MAX] {
        blind.sends(&kernel, flag::ACK, blind.isn + 1, guess);
    }
    blind.sends(&kernel, flag::ACK, blind.isn, SERVER_ISN + 1);
    let again = Client::new("192.0.2.31", 1_001);
    again.syn(&kernel);
    again.repeats(&mut kernel);
    assert_eq!(counted(&mut kernel, 1, &mut was), [1, 0, 0], "the answer is the backend's");
    assert_eq!(failures(&mut kernel), []);
    // A handshake proves a source for its own service, not for others.
    let elsewhere = Client::new("192.0.2.32", 1_000);
    elsewhere.to(2).connects(&kernel);
    elsewhere.syn(&kernel);
    elsewhere.repeats(&mut kernel);
    assert_eq!(counted(&mut kernel, 1, &mut was), [0, 0, 0]);
    assert_eq!(failures(&mut kernel), []);
    let other = before(&mut kernel, 2);
    assert_eq!(other, ObservedCounters::default(), "that service is not observed");
}

#[test]
fn a_flood_of_made_up_sources_neither_tells_nor_hides_anything() {
    let mut kernel = kernel();
    enter(&mut kernel, Forward::Nat);
    let proven = Client::new("192.0.2.40", 1_000);
    proven.connects(&kernel);
    let waiting = Client::new("192.0.2.40", 1_001);
    waiting.syn(&kernel);
    let mut was = before(&mut kernel, 1);
    // More than there are places, each of them twice.
    for number in 0..40_000u32 {
        let source = std::net::Ipv4Addr::from(0xac10_0000 + number).to_string();
        let made_up = Client::new(&source, 2_000);
        made_up.syn(&kernel);
    }
    for number in 0..200u32 {
        let source = std::net::Ipv4Addr::from(0xac10_0000 + 39_800 + number).to_string();
        let made_up = Client::new(&source, 2_000);
        made_up.repeats(&mut kernel);
    }
    assert_eq!(counted(&mut kernel, 1, &mut was), [0, 0, 0]);
    assert_eq!(failures(&mut kernel), []);
    waiting.repeats(&mut kernel);
    assert_eq!(counted(&mut kernel, 1, &mut was), [0, 1, 0], "its place is still its own");
    assert_eq!(failures(&mut kernel).len(), 1);
}

#[test]
fn dsr_and_tunnel_take_a_packet_that_follows_the_syn_for_an_answer() {
    let mut kernel = kernel();
    for forward in [Forward::Dsr, Forward::Ipip] {
        enter(&mut kernel, forward);
        for (backend, source) in [(1, "192.0.2.50"), (3, "2001:db8:c:50::1")] {
            rest();
            let mut was = before(&mut kernel, backend);
            let first = Client::new(source, 1_000 + forward as u16 * 100);
            first.syn(&kernel);
            first.sends(&kernel, flag::ACK, first.isn + 70_000, 1);
            assert_eq!(counted(&mut kernel, backend, &mut was), [0, 0, 0], "another connection's");
            first.sends(&kernel, flag::ACK, first.isn + 1, 1);
            first.sends(&kernel, flag::ACK, first.isn + 1, 1);
            assert_eq!(counted(&mut kernel, backend, &mut was), [1, 0, 0], "{forward:?} {source}");
            let second = Client::new(source, 1_001 + forward as u16 * 100);
            second.syn(&kernel);
            second.repeats(&mut kernel);
            assert_eq!(counted(&mut kernel, backend, &mut was), [0, 1, 0], "{forward:?} {source}");
            let expected = (failure_kind::UNANSWERED, backend, ip(source), was.answered);
            assert_eq!(failures(&mut kernel), [expected], "{forward:?} {source}");
        }
    }
}

#[test]
fn what_lb_itself_cannot_reach_is_not_the_backends_failure() {
    let mut kernel = kernel();
    enter(&mut kernel, Forward::Nat);
    let mut was = before(&mut kernel, 1);
    let client = Client::new("192.0.2.60", 1_000);
    client.connects(&kernel);
    let mut world = kernel.world().clone();
    world.services[0].backends[0].flags &= !backend_flag::RESOLVED;
    kernel.enter(world);
    let second = Client::new("192.0.2.60", 1_001);
    let packet = Packet::tcp("192.0.2.60@1001", "198.51.100.7@80", flag::SYN)
        .with_tcp(|tcp| tcp.sequence = second.isn);
    for _ in 0..2 {
        assert_eq!(kernel.run(&packet.bytes()).action, action::DROP, "no next hop");
        second.age(&mut kernel, REPEATED_AFTER);
    }
    assert_eq!(counted(&mut kernel, 1, &mut was), [1, 0, 0]);
    assert_eq!(failures(&mut kernel), []);
}

#[test]
fn one_client_is_told_of_a_few_times_a_second_and_one_backend_a_hundred() {
    let mut kernel = kernel();
    enter(&mut kernel, Forward::Nat);
    let sources: Vec<String> = (0..200u32).map(|number| format!("203.0.113.{number}")).collect();
    for source in &sources {
        Client::new(source, 1_000).connects(&kernel);
    }
    failures(&mut kernel);
    let began = std::time::Instant::now();
    for port in 2_000..2_050 {
        let client = Client::new(&sources[0], port);
        client.syn(&kernel);
        client.reset(&kernel);
    }
    let most = 2 + began.elapsed().as_millis() as usize / 20;
    let told = failures(&mut kernel);
    assert!((1..=most).contains(&told.len()), "{} of one client, {most} allowed", told.len());
    rest();
    let began = std::time::Instant::now();
    for source in &sources {
        let client = Client::new(source, 3_000);
        client.syn(&kernel);
        client.reset(&kernel);
    }
    let most = 51 + began.elapsed().as_millis() as usize / 10;
    let told = failures(&mut kernel);
    // The burst is each CPU's own.
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert!(
        (40..=most * cpus).contains(&told.len()),
        "{} of 200 clients of one backend, {most} allowed",
        told.len()
    );
    assert!(
        told.iter().all(|(kind, backend, ..)| (*kind, BackendId(*backend))
            == (failure_kind::REFUSED, BackendId(1)))
    );
}
