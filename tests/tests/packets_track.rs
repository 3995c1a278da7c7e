//! Services that remember every flow, in the real program: where flows stay, what confirms them, what a flood can take, and how
//! UDP fares.

use std::sync::MutexGuard;

use lb_common::abi::{
    BackendId, FlowKey, Forward, Pin, Reason, Slot, algorithm, backend_flag, map, pin_flag,
    protocol,
};
use lb_common::be::Be16;
use lb_tests::kernel::{
    Kernel, Options, World, action,
    lab::{Lab, Stream, Varied},
    packet::{Packet, flag},
    world::{CLIENT, Route, Service, ip},
};

const VIP: &str = "198.51.100.7";
const OTHER_VIP: &str = "198.51.100.8";
const BACKENDS: [&str; 3] = ["10.1.0.1", "10.1.0.2", "10.1.0.3"];
const A: BackendId = BackendId(1);
const B: BackendId = BackendId(2);
const C: BackendId = BackendId(3);
const CLIENT_ISN: u32 = 0x1000_0000;
const SERVER_ISN: u32 = 0x2000_0000;
const MODES: [Forward; 3] = [Forward::Nat, Forward::Dsr, Forward::Ipip];

fn options() -> Options {
    Options { flows: 4_096, sources: 1, ..Options::default() }
}

fn enter(services: impl IntoIterator<Item = Service>) -> MutexGuard<'static, Kernel> {
    let mut kernel = Kernel::shared_with(options());
    let mut world = World::of(services);
    let gateway = Some((ip("10.1.0.254"), Some(CLIENT)));
    world.routes = vec![Route { prefix: (ip("0.0.0.0"), 0), gateway, mtu: 1500 }];
    kernel.enter(world);
    kernel
}

/// A service that takes its backends in turn.
fn in_turn(forward: Forward) -> Service {
    Service::new(VIP, forward, &BACKENDS).tracked(algorithm::TURN, [0, 1, 2])
}

fn key(port: u16, protocol: u8) -> FlowKey {
    FlowKey {
        source: ip("192.0.2.33").into(),
        destination: ip(VIP).into(),
        source_port: Be16::from_host(port),
        destination_port: Be16::from_host(80),
        protocol,
        _pad: [0; 3],
    }
}

/// A packet of a client's TCP flow; the backend it reaches.
fn send(kernel: &Kernel, port: u16, flags: u8, numbers: (u32, u32), length: usize) -> BackendId {
    let packet = Packet::tcp(&format!("192.0.2.33@{port}"), &format!("{VIP}@80"), flags)
        .filled(length)
        .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = numbers);
    reached(kernel, &packet)
}

fn reached(kernel: &Kernel, packet: &Packet) -> BackendId {
    let outcome = kernel.run(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "{outcome:?}");
    // The next hop's MAC address ends with the backend's number from 0.
    BackendId(u32::from(outcome.frame[5]) + 1)
}

fn syn(kernel: &Kernel, port: u16) -> BackendId {
    send(kernel, port, flag::SYN, (CLIENT_ISN, 0), 0)
}

fn complete(kernel: &Kernel, port: u16) -> BackendId {
    send(kernel, port, flag::ACK, (CLIENT_ISN + 1, SERVER_ISN + 1), 0)
}

fn data(kernel: &Kernel, port: u16) -> BackendId {
    send(kernel, port, flag::ACK | flag::PSH, (CLIENT_ISN + 1, SERVER_ISN + 1), 100)
}

/// What a nat backend says to the client.
fn reply(kernel: &Kernel, backend: BackendId, port: u16, flags: u8, numbers: (u32, u32)) {
    let source = format!("10.1.0.{}@8080", backend.0);
    let packet = Packet::tcp(&source, &format!("192.0.2.33@{port}"), flags)
        .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = numbers);
    let outcome = kernel.run(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "{outcome:?}");
}

/// An open connection; its backend.
fn open(kernel: &Kernel, forward: Forward, port: u16) -> BackendId {
    let backend = syn(kernel, port);
    if forward == Forward::Nat {
        let syn_ack = flag::SYN | flag::ACK;
        reply(kernel, backend, port, syn_ack, (SERVER_ISN, CLIENT_ISN + 1));
    }
    assert_eq!(complete(kernel, port), backend, "{forward:?}: the handshake");
    backend
}

fn set_down(kernel: &mut Kernel, backend: BackendId, is_down: bool) {
    let mut rows = kernel.array::<lb_common::abi::BackendRow>(map::BACKENDS);
    let mut row = rows.get(&backend.0, 0).expect("within");
    row.flags = backend_flag::RESOLVED | if is_down { backend_flag::DOWN } else { 0 };
    rows.set(backend.0, row, 0).expect("within");
}

fn set_all(kernel: &mut Kernel, slot: Slot) {
    for index in 0..1021 {
        kernel.set_slot(1, index, slot);
    }
}

#[test]
fn flows_stay_where_they_were_opened_whatever_the_ring_says() {
    for forward in MODES {
        let mut kernel = enter([in_turn(forward)]);
        let backends: Vec<BackendId> =
            (2_000..2_030).map(|port| open(&kernel, forward, port)).collect();
        let expected = [A, B, C].repeat(10);
        assert_eq!(backends, expected, "{forward:?}: in turn");
        for owner in [A, B, C, BackendId::NONE] {
            set_all(&mut kernel, Slot::settled(owner));
            for (port, backend) in (2_000..2_030).zip(&backends) {
                assert_eq!(data(&kernel, port), *backend, "{forward:?}: owner {owner:?}");
                // The SYN once more.
                assert_eq!(syn(&kernel, port), *backend, "{forward:?}: owner {owner:?}");
            }
        }
        let load = kernel.service_load(1);
        assert_eq!(
            (load.confirmed, load.unconfirmed, load.connections),
            (30, 0, 30),
            "{forward:?}"
        );
        assert_eq!([1, 2, 3].map(|id| kernel.connections(id)), [10, 10, 10], "{forward:?}");
        assert_eq!(kernel.pin_counts(), (0, 0));
    }
}

#[test]
fn what_is_not_remembered_follows_the_ring() {
    for forward in MODES {
        let mut kernel = enter([in_turn(forward)]);
        set_all(&mut kernel, Slot::settled(C));
        assert_eq!(data(&kernel, 3_000), C, "{forward:?}: a flow from before");
        assert_eq!(kernel.flows(&key(3_000, protocol::TCP)), (None, None), "an ACK makes no entry");
        set_all(&mut kernel, Slot::new(A, B, lb_common::abi::Phase::Window, 0));
        assert_eq!(data(&kernel, 3_000), B, "{forward:?}: by the ring's own rule");
    }
}

#[test]
fn only_the_handshake_confirms() {
    for forward in MODES {
        let mut kernel = enter([in_turn(forward)]);
        assert_eq!(syn(&kernel, 4_000), A);
        if forward == Forward::Nat {
            assert_eq!(complete(&kernel, 4_000), A, "on its way, but no SYN-ACK was seen");
            assert_eq!(kernel.flows(&key(4_000, protocol::TCP)).0, None);
            reply(&kernel, A, 4_000, flag::SYN | flag::ACK, (SERVER_ISN, CLIENT_ISN + 1));
        }
        for sequence in [CLIENT_ISN, CLIENT_ISN + 65_536, 7] {
            assert_eq!(send(&kernel, 4_000, flag::ACK, (sequence, SERVER_ISN + 1), 10), A);
            assert_eq!(kernel.flows(&key(4_000, protocol::TCP)).0, None, "{forward:?}");
        }
        complete(&kernel, 4_000);
        let (confirmed, unconfirmed) = kernel.flows(&key(4_000, protocol::TCP));
        assert_eq!((confirmed.map(|flow| flow.backend), unconfirmed), (Some(A), None));
    }
}

#[test]
fn a_backend_that_is_down_keeps_nobody_and_gets_its_flows_back() {
    for forward in MODES {
        let mut kernel = enter([in_turn(forward)]);
        assert_eq!(open(&kernel, forward, 5_000), A);
        set_down(&mut kernel, A, true);
        set_all(&mut kernel, Slot::settled(B));
        assert_eq!(data(&kernel, 5_000), B, "{forward:?}: the ring's");
        set_down(&mut kernel, A, false);
        assert_eq!(data(&kernel, 5_000), A, "{forward:?}: it was away for a moment only");
    }
}

#[test]
fn connections_end_with_a_fin_or_a_reset_of_either_side() {
    for forward in MODES {
        let mut kernel = enter([in_turn(forward)]);
        for (port, flags) in [(6_000, flag::FIN | flag::ACK), (6_001, flag::RST)] {
            let backend = open(&kernel, forward, port);
            assert_eq!(kernel.connections(backend.0), 1, "{forward:?}");
            send(&kernel, port, flags, (CLIENT_ISN + 1, SERVER_ISN + 1), 0);
            send(&kernel, port, flags, (CLIENT_ISN + 1, SERVER_ISN + 1), 0);
            assert_eq!(kernel.connections(backend.0), 0, "{forward:?} {flags:#x}");
            let flow = kernel.flows(&key(port, protocol::TCP)).0.expect("the entry stays a while");
            assert_ne!(flow.flags & pin_flag::CLOSING, 0);
        }
        if forward != Forward::Nat {
            continue;
        }
        for (port, flags) in [(6_002, flag::FIN | flag::ACK), (6_003, flag::RST | flag::ACK)] {
            let backend = open(&kernel, forward, port);
            let before = kernel.connections(backend.0);
            reply(&kernel, backend, port, flags, (SERVER_ISN + 1, CLIENT_ISN + 1));
            assert_eq!(kernel.connections(backend.0), before - 1, "{flags:#x} of the backend");
            // The client's acknowledgement of it opens nothing again.
            send(&kernel, port, flag::ACK, (CLIENT_ISN + 1, SERVER_ISN + 2), 0);
            assert_eq!(kernel.connections(backend.0), before - 1);
        }
        let refusing = syn(&kernel, 6_004);
        reply(&kernel, refusing, 6_004, flag::RST | flag::ACK, (0, CLIENT_ISN + 1));
        assert_eq!(kernel.service_load(1).connections, 0, "a refused one is none");
    }
}

#[test]
fn the_same_ports_again_are_another_flow() {
    for forward in MODES {
        let mut kernel = enter([in_turn(forward)]);
        assert_eq!(open(&kernel, forward, 7_000), A);
        let later = CLIENT_ISN + 0x0100_0000;
        assert_eq!(send(&kernel, 7_000, flag::SYN, (later, 0), 0), B, "{forward:?}");
        // The old flow is still there: its packets go on.
        assert_eq!(data(&kernel, 7_000), A, "{forward:?}");
        if forward == Forward::Nat {
            reply(&kernel, B, 7_000, flag::SYN | flag::ACK, (SERVER_ISN, later + 1));
        }
        assert_eq!(send(&kernel, 7_000, flag::ACK, (later + 1, SERVER_ISN + 1), 0), B);
        assert_eq!(data(&kernel, 7_000), B, "{forward:?}: the new one has taken its place");
        assert_eq!([1, 2].map(|id| kernel.connections(id)), [0, 1], "{forward:?}");
    }
}

fn datagram(kernel: &Kernel, port: u16) -> BackendId {
    reached(kernel, &Packet::udp(&format!("192.0.2.33@{port}"), &format!("{VIP}@80")).filled(20))
}

/// Makes an entry look as old as that.
fn age(kernel: &mut Kernel, port: u16, jiffies: u64) {
    let mut table = kernel.hash_map::<FlowKey, Pin>(map::FLOWS_NEW);
    let mut entry = table.get(&key(port, protocol::UDP), 0).expect("an entry");
    entry.last_seen -= jiffies;
    table.insert(key(port, protocol::UDP), entry, 0).expect("it is there");
}

#[test]
fn udp_flows_stay_too() {
    for forward in MODES {
        let mut kernel = enter([in_turn(forward).udp()]);
        let backends: Vec<BackendId> = (8_000..8_009).map(|port| datagram(&kernel, port)).collect();
        assert_eq!(backends, [A, B, C].repeat(3), "{forward:?}");
        set_all(&mut kernel, Slot::settled(C));
        for (port, backend) in (8_000..8_009).zip(&backends) {
            assert_eq!(datagram(&kernel, port), *backend, "{forward:?}");
        }
        assert_eq!(kernel.flows(&key(8_000, protocol::UDP)).0, None);
        if forward == Forward::Nat {
            let answer = Packet::udp("10.1.0.1@8080", "192.0.2.33@8000").filled(20);
            assert_eq!(kernel.run(&answer.bytes()).action, action::TX);
        } else {
            age(&mut kernel, 8_000, 300);
            datagram(&kernel, 8_000);
        }
        let (confirmed, unconfirmed) = kernel.flows(&key(8_000, protocol::UDP));
        assert_eq!(
            (confirmed.map(|flow| flow.backend), unconfirmed),
            (Some(A), None),
            "{forward:?}"
        );
        // The next turn would be A's.
        datagram(&kernel, 8_100);
        set_down(&mut kernel, A, true);
        let elsewhere = datagram(&kernel, 8_000);
        assert_ne!(elsewhere, A, "{forward:?}");
        set_down(&mut kernel, A, false);
        assert_eq!(datagram(&kernel, 8_000), elsewhere, "{forward:?}: it has moved for good");
    }
}

#[test]
fn a_flood_takes_nothing_from_confirmed_flows_nor_from_another_service() {
    const FLOOD: u32 = 200_000;
    let mut lab = Lab::load(1).expect("the lab's programs");
    for forward in [Forward::Nat, Forward::Dsr] {
        let bounded = |service: Service| {
            service.policy(|policy| (policy.flows, policy.flows_unconfirmed) = (2_048, 2_048))
        };
        let other = Service::new(OTHER_VIP, forward, &["10.1.0.4", "10.1.0.5"])
            .tracked(algorithm::TURN, [0, 1]);
        let mut kernel = enter([bounded(in_turn(forward)), bounded(other)]);
        lab.register(0, kernel.balancer()).expect("a program array");
        set_all(&mut kernel, Slot::settled(C));
        let backends: Vec<BackendId> =
            (9_000..9_100).map(|port| open(&kernel, forward, port)).collect();
        let before = kernel.counts();
        let flood = Packet::tcp("10.77.0.0@1024", &format!("{VIP}@80"), flag::SYN);
        let mut stream = Stream::new(&flood, Varied::Source, 1 << 20);
        lab.stream(&mut stream, 0, 0, FLOOD, action::TX).expect("a stream");
        let delta = kernel.counts().since(&before);
        assert!(delta.total(Reason::FlowRefused) > u64::from(FLOOD) - 4_096, "{delta:?}");
        let load = kernel.service_load(1);
        assert_eq!((load.confirmed, load.unconfirmed), (100, 2_048), "{forward:?}");
        for (port, backend) in (9_000..9_100).zip(&backends) {
            assert_eq!(data(&kernel, port), *backend, "{forward:?}");
        }
        // A client of the service under attack is balanced by the ring, and served.
        assert_eq!(syn(&kernel, 9_500), C, "{forward:?}");
        assert_eq!(complete(&kernel, 9_500), C, "{forward:?}");
        // The other service remembers as ever.
        for (number, expected) in [(0, A), (1, B), (2, A)] {
            let source = format!("192.0.2.99@{}", 1_000 + number);
            let packet = Packet::tcp(&source, &format!("{OTHER_VIP}@80"), flag::SYN);
            // Its own first, its own second.
            assert_eq!(reached(&kernel, &packet), expected, "{forward:?}");
        }
        assert_eq!(kernel.service_load(2).unconfirmed, 3, "{forward:?}");
        // An ACK flood makes no entries at all.
        let before = kernel.service_load(1).confirmed;
        let flood = Packet::tcp("10.99.0.0@1024", &format!("{VIP}@80"), flag::ACK);
        let mut stream = Stream::new(&flood, Varied::Source, 1 << 20);
        lab.stream(&mut stream, 0, 0, 20_000, action::TX).expect("a stream");
        assert_eq!(kernel.service_load(1).confirmed, before, "{forward:?}");
    }
}

#[test]
fn in_dsr_a_service_has_its_part_of_the_confirmed_flows() {
    let service = in_turn(Forward::Dsr).policy(|policy| policy.flows = 5);
    let mut kernel = enter([service]);
    for port in 1_000..1_010 {
        open(&kernel, Forward::Dsr, port);
    }
    let load = kernel.service_load(1);
    assert_eq!((load.confirmed, load.unconfirmed), (5, 5), "the others are kept where they are");
    assert_eq!(load.connections, 10);
}
