//! Full nat: both ends of a flow are translated, by a port of an address of lb's own that it keeps for as long as it lives. Packets
//! and expected packets are etherparse's.

use std::{collections::HashSet, net::IpAddr, sync::MutexGuard};

use lb_common::{
    abi::{BackendRow, FlowKey, Forward, PortSlot, Reason, backend_flag, map, service_flag},
    be::Be16,
};
use lb_tests::kernel::{
    Delta, Kernel, Options, Outcome, Shared, VERIFIER_LIMIT, World, action,
    answer::{time_exceeded, too_big},
    bytes::tagged,
    packet::{Packet, Transport, flag},
    surroundings::{POOL, PORTS},
    world::{CLIENT, NIC, Service, ip},
};

const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";
const CLIENT_V4: &str = "192.0.2.33";
const CLIENT_V6: &str = "2001:db8:c::33";
const BACKENDS_V4: [&str; 2] = ["10.1.0.1@8001", "10.1.0.2@8002"];
const BACKENDS_V6: [&str; 2] = ["fd01::1@8001", "fd01::2@8002"];
/// Addresses 0 and 1 of the pool.
const SECOND: u64 = 1_000_000_000;
const SYN_ACK: u8 = flag::SYN | flag::ACK;
const FIN: u8 = flag::FIN | flag::ACK;

fn kernel() -> MutexGuard<'static, Kernel> {
    static KERNEL: Shared = Shared::new();
    Kernel::shared_in(&KERNEL, Options { fullnat: 2, vlan: true, ..Options::default() })
}

/// TCP (service 1) and UDP (service 2) on port 80 of the VIP; everything goes to the second backend of each.
fn world(is_v4: bool) -> World {
    let (vip, backends) = if is_v4 { (VIP_V4, &BACKENDS_V4) } else { (VIP_V6, &BACKENDS_V6) };
    let mut service = Service::new(vip, Forward::FullNat, backends).flags(service_flag::FULLNAT);
    service.ring = vec![1; 1021];
    World::of([service.clone(), service.udp()]).with_pool(is_v4)
}

fn enter(is_v4: bool) -> MutexGuard<'static, Kernel> {
    let mut kernel = kernel();
    kernel.enter(world(is_v4));
    kernel
}

fn client(is_v4: bool, port: u16) -> String {
    format!("{}@{port}", if is_v4 { CLIENT_V4 } else { CLIENT_V6 })
}

fn vip(is_v4: bool) -> String {
    format!("{}@80", if is_v4 { VIP_V4 } else { VIP_V6 })
}

fn tcp(is_v4: bool, port: u16, flags: u8) -> Packet {
    Packet::tcp(&client(is_v4, port), &vip(is_v4), flags)
}

fn udp(is_v4: bool, port: u16) -> Packet {
    Packet::udp(&client(is_v4, port), &vip(is_v4))
}

/// The port of the pool that a client's packet was given, by the frame that has left.
fn given(is_v4: bool, outcome: &Outcome) -> u16 {
    let at = 14 + if is_v4 { 20 } else { 40 };
    u16::from_be_bytes([outcome.frame[at], outcome.frame[at + 1]])
}

fn address(is_v4: bool) -> u32 {
    if is_v4 { 0 } else { 1 }
}

fn backend(world: &World, service: u32, number: usize) -> (IpAddr, u16, [u8; 6]) {
    let backend = &world.services[service as usize - 1].backends[number];
    (backend.address, backend.port, backend.mac)
}

/// A client's packet on its way to a backend, by this port of the pool.
fn sent(world: &World, packet: &Packet, service: u32, number: usize, port: u16) -> Vec<u8> {
    let (to, to_port, mac) = backend(world, service, number);
    let from = ip(POOL[address(to.is_ipv4()) as usize]);
    packet.clone().hop(NIC, mac).sourced(from, port).destined(to, to_port).bytes()
}

/// What a backend sends to the pool.
fn answer(world: &World, service: u32, number: usize, port: u16, flags: u8) -> Packet {
    let (from, from_port, mac) = backend(world, service, number);
    let to = format!("{}@{port}", POOL[address(from.is_ipv4()) as usize]);
    let from = format!("{from}@{from_port}");
    let mut packet =
        if service == 1 { Packet::tcp(&from, &to, flags) } else { Packet::udp(&from, &to) };
    packet.from = mac;
    packet
}

/// The same on its way to the client.
fn returned(packet: &Packet, is_v4: bool, client_port: u16) -> Vec<u8> {
    let (vip, client) = if is_v4 { (VIP_V4, CLIENT_V4) } else { (VIP_V6, CLIENT_V6) };
    packet.clone().hop(NIC, CLIENT).sourced(ip(vip), 80).destined(ip(client), client_port).bytes()
}

/// Runs a client's packet that has to leave; its port of the pool.
fn forwards(kernel: &mut Kernel, packet: &Packet, service: u32, number: usize) -> u16 {
    let is_v4 = packet.ip.source.is_ipv4();
    let (outcome, delta) = kernel.count(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "{packet:?}\n{outcome:?}\n{delta:?}");
    let port = given(is_v4, &outcome);
    let expected = sent(kernel.world(), packet, service, number, port);
    assert_eq!(outcome.frame, expected, "{packet:?}");
    let id = kernel.world().first_backend(service as usize - 1) + number as u32;
    assert_eq!(delta, Delta::request(id, packet.length(), packet.is_opening()));
    port
}

/// Runs a backend's packet that has to reach the client.
fn returns(kernel: &mut Kernel, packet: &Packet, service: u32, client_port: u16) {
    let is_v4 = packet.ip.source.is_ipv4();
    let (outcome, delta) = kernel.count(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "{packet:?}\n{outcome:?}\n{delta:?}");
    assert_eq!(outcome.frame, returned(packet, is_v4, client_port), "{packet:?}");
    let id = kernel.world().first_backend(service as usize - 1) + 1;
    let reset = matches!(&packet.transport, Transport::Tcp(tcp) if tcp.flags & flag::RST != 0);
    assert_eq!(delta, Delta::reply(id, packet.length(), reset), "{packet:?}");
}

/// Opens a connection; its port of the pool.
fn opened(kernel: &mut Kernel, is_v4: bool, client_port: u16) -> u16 {
    let port = forwards(kernel, &tcp(is_v4, client_port, flag::SYN), 1, 1);
    let reply = answer(kernel.world(), 1, 1, port, SYN_ACK);
    returns(kernel, &reply, 1, client_port);
    assert_eq!(forwards(kernel, &tcp(is_v4, client_port, flag::ACK), 1, 1), port);
    port
}

fn slot(kernel: &mut Kernel, is_v4: bool, port: u16) -> PortSlot {
    kernel.port_slot(address(is_v4), port)
}

/// Makes a flow look as if nobody had used it for so long.
fn grow_old(kernel: &mut Kernel, is_v4: bool, port: u16, seconds: u64) {
    let mut old = slot(kernel, is_v4, port);
    old.last_seen = old.last_seen.wrapping_sub(seconds * SECOND);
    kernel.set_port_slot(address(is_v4), port, old);
}

/// As many ports as this, and no more.
fn narrow(kernel: &mut Kernel, ports: u16) {
    let mut narrowed = kernel.world().clone();
    narrowed.pool_ports = (PORTS.0, PORTS.0 + ports - 1);
    kernel.enter(narrowed);
}

#[test]
fn its_program_is_within_the_verifiers_limit() {
    let kernel = kernel();
    for (name, program) in [("fullnat", kernel.fullnat()), ("before-fullnat", kernel.slow_path())] {
        let info = program.info().expect("the kernel tells");
        let verified = info.verified_instruction_count().expect("since Linux 5.16");
        println!("verified {name} {verified} of {VERIFIER_LIMIT}");
        assert!(verified < VERIFIER_LIMIT / 10 * 9, "{name}: too near the limit");
    }
}

#[test]
fn connections_go_both_ways_by_one_port() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        for client_port in [40_001, 40_002, 1_025] {
            let port = opened(&mut kernel, is_v4, client_port);
            assert!((PORTS.0..=PORTS.1).contains(&port), "{port}");
            for length in [0, 1, 3, 1_000, 1_400] {
                let data = tcp(is_v4, client_port, flag::ACK | flag::PSH).filled(length);
                assert_eq!(forwards(&mut kernel, &data, 1, 1), port);
                let reply = answer(kernel.world(), 1, 1, port, flag::ACK).filled(length);
                returns(&mut kernel, &reply, 1, client_port);
            }
            let slot = slot(&mut kernel, is_v4, port);
            let flow = (slot.client_port.to_host(), slot.vip_port.to_host(), slot.service);
            assert_eq!(flow, (client_port, 80, 1));
        }
    }
}

#[test]
fn datagrams_go_both_ways_by_one_port() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let port = forwards(&mut kernel, &udp(is_v4, 40_001), 2, 1);
        for length in [0, 1, 512, 1_401] {
            let datagram = udp(is_v4, 40_001).filled(length);
            assert_eq!(forwards(&mut kernel, &datagram, 2, 1), port);
            let reply = answer(kernel.world(), 2, 1, port, 0).filled(length);
            returns(&mut kernel, &reply, 2, 40_001);
        }
        // TCP by the same client port is another flow.
        assert_ne!(forwards(&mut kernel, &tcp(is_v4, 40_001, flag::SYN), 1, 1), port);
    }
}

#[test]
fn datagrams_without_a_checksum_stay_without_one() {
    let kernel = enter(true);
    let mut frame = udp(true, 40_001).bytes();
    frame[40..42].fill(0);
    let outcome = kernel.run(&frame);
    assert_eq!((outcome.action, &outcome.frame[40..42]), (action::TX, &[0, 0][..]));
}

#[test]
fn no_two_flows_share_a_port() {
    let mut kernel = enter(true);
    let mut seen = HashSet::new();
    for client_port in 1_024..3_024 {
        assert!(seen.insert(forwards(&mut kernel, &tcp(true, client_port, flag::SYN), 1, 1)));
    }
    for client_port in 1_024..2_024 {
        assert!(seen.insert(forwards(&mut kernel, &udp(true, client_port), 2, 1)));
    }
    assert_eq!(seen.len(), 3_000);
    let spread = seen.iter().filter(|port| **port < PORTS.0 + 5_000).count();
    assert!((1_200..1_800).contains(&spread), "{spread} of 3000 in the lower half");
}

#[test]
fn segments_of_no_connection_are_answered_by_a_reset() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let stray = tcp(is_v4, 40_001, flag::ACK).filled(100);
        let (outcome, delta) = kernel.count(&stray.bytes());
        assert_eq!((outcome.action, delta), (action::TX, Delta::reason(1, Reason::NoFlow)));
        let at = 14 + if is_v4 { 20 } else { 40 };
        assert_eq!(outcome.frame[at + 13] & flag::RST, flag::RST, "{outcome:?}");
        assert_eq!(outcome.frame[at + 2..at + 4], 40_001_u16.to_be_bytes());
        // Nobody answers a reset.
        let (outcome, delta) = kernel.count(&tcp(is_v4, 40_001, flag::RST).bytes());
        assert_eq!((outcome.action, delta), (action::DROP, Delta::reason(1, Reason::NoFlow)));
    }
}

#[test]
fn what_answers_nobody_is_dropped_or_the_hosts() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let port = opened(&mut kernel, is_v4, 40_001);
        let good = answer(kernel.world(), 1, 1, port, flag::ACK);
        let others = [
            ("another port", good.clone().destined(good.ip.destination, port ^ 1)),
            ("another backend", answer(kernel.world(), 1, 0, port, flag::ACK)),
            ("another port of the backend", good.clone().sourced(good.ip.source, 9_999)),
            ("another protocol", answer(kernel.world(), 2, 1, port, 0)),
        ];
        for (what, packet) in &others {
            let (outcome, delta) = kernel.count(&packet.bytes());
            let expected = (action::DROP, Delta::reason(0, Reason::NoFlow));
            assert_eq!((outcome.action, delta), expected, "{what}");
        }
        let mut local = world(is_v4);
        local.pool.iter_mut().for_each(|(_, is_local)| *is_local = true);
        kernel.enter(local);
        for (what, packet) in &others {
            let (outcome, delta) = kernel.count(&packet.bytes());
            let expected = (action::PASS, Delta::reason(0, Reason::Passed));
            assert_eq!((outcome.action, delta), expected, "{what}");
            assert_eq!(outcome.frame, packet.bytes(), "{what}");
        }
    }
}

#[test]
fn f50_exhausted_ports_are_told_and_come_back() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        narrow(&mut kernel, 100);
        let mut ports = HashSet::new();
        for client_port in 1_000..1_100 {
            assert!(ports.insert(opened(&mut kernel, is_v4, client_port)));
        }
        assert_eq!(ports.len(), 100, "all of them");
        let mut refused = 0;
        for client_port in 1_100..1_200 {
            let syn = tcp(is_v4, client_port, flag::SYN);
            let (outcome, delta) = kernel.count(&syn.bytes());
            assert_eq!(delta.total(Reason::NoPort), 1, "{delta:?}");
            if outcome.action == action::TX {
                let (kind, code) = if is_v4 { (3, 13) } else { (1, 1) };
                let at = 14 + if is_v4 { 20 } else { 40 };
                assert_eq!(outcome.frame[at..at + 2], [kind, code], "{outcome:?}");
                refused += 1;
            } else {
                assert_eq!(delta.total(Reason::IcmpLimited), 1, "{delta:?}");
            }
        }
        assert!((20..=100).contains(&refused), "{refused} were told");
        // Those that have their ports keep them.
        let first = forwards(&mut kernel, &tcp(is_v4, 1_000, flag::ACK), 1, 1);
        assert!(ports.contains(&first));
        // Fifty close; their ports are quarantined, and then somebody else's.
        let mut closed = HashSet::new();
        for client_port in 1_000..1_050 {
            let port = forwards(&mut kernel, &tcp(is_v4, client_port, FIN), 1, 1);
            let fin = answer(kernel.world(), 1, 1, port, FIN);
            returns(&mut kernel, &fin, 1, client_port);
            closed.insert(port);
            grow_old(&mut kernel, is_v4, port, 90);
        }
        let (_, delta) = kernel.count(&tcp(is_v4, 1_200, flag::SYN).bytes());
        assert_eq!(delta.total(Reason::NoPort), 1, "two minutes are not over: {delta:?}");
        for port in &closed {
            grow_old(&mut kernel, is_v4, *port, 31);
        }
        let mut again = HashSet::new();
        for client_port in 1_200..1_250 {
            again.insert(opened(&mut kernel, is_v4, client_port));
        }
        assert_eq!(again, closed);
        let (_, delta) = kernel.count(&tcp(is_v4, 1_250, flag::SYN).bytes());
        assert_eq!(delta.total(Reason::NoPort), 1, "{delta:?}");
        // The flow that had a port before it was somebody else's does not find it any more.
        let (outcome, delta) = kernel.count(&tcp(is_v4, 1_000, flag::ACK).bytes());
        assert_eq!((outcome.action, delta), (action::TX, Delta::reason(1, Reason::NoFlow)));
    }
}

#[test]
fn handshakes_that_nobody_answers_give_way_but_not_at_once() {
    let mut kernel = enter(true);
    narrow(&mut kernel, 16);
    for client_port in 1_000..1_016 {
        forwards(&mut kernel, &tcp(true, client_port, flag::SYN), 1, 1);
    }
    let (_, delta) = kernel.count(&tcp(true, 2_000, flag::SYN).bytes());
    assert_eq!(delta.total(Reason::NoPort), 1, "nothing younger than 5 s goes");
    let victim = forwards(&mut kernel, &tcp(true, 1_007, flag::SYN), 1, 1);
    grow_old(&mut kernel, true, victim, 6);
    let (outcome, delta) = kernel.count(&tcp(true, 2_000, flag::SYN).bytes());
    assert_eq!((outcome.action, given(true, &outcome)), (action::TX, victim));
    assert_eq!(delta.total(Reason::PortReclaimed), 1, "{delta:?}");
    // One that was answered does not, however old.
    let other = forwards(&mut kernel, &tcp(true, 1_003, flag::SYN), 1, 1);
    let reply = answer(kernel.world(), 1, 1, other, SYN_ACK);
    returns(&mut kernel, &reply, 1, 1_003);
    grow_old(&mut kernel, true, other, 200);
    let (_, delta) = kernel.count(&tcp(true, 2_001, flag::SYN).bytes());
    assert_eq!(delta.total(Reason::NoPort), 1, "{delta:?}");
}

#[test]
fn idle_flows_end_when_their_time_is_over_and_not_before() {
    // (what happens, the state's time, seconds)
    type Prepare = fn(&mut Kernel, u16);
    let close = |kernel: &mut Kernel, port: u16| {
        forwards(kernel, &tcp(true, 40_001, FIN), 1, 1);
        let fin = answer(kernel.world(), 1, 1, port, FIN);
        returns(kernel, &fin, 1, 40_001);
    };
    let cases: [(&str, Prepare, u64); 4] = [
        ("established", |_, _| {}, 900),
        ("half closed", |kernel, _| _ = forwards(kernel, &tcp(true, 40_001, FIN), 1, 1), 240),
        ("closed", close, 120),
        (
            "reset",
            |kernel, port| {
                let reset = answer(kernel.world(), 1, 1, port, flag::RST);
                returns(kernel, &reset, 1, 40_001);
            },
            120,
        ),
    ];
    for (name, prepare, seconds) in cases {
        let mut kernel = enter(true);
        let port = opened(&mut kernel, true, 40_001);
        prepare(&mut kernel, port);
        grow_old(&mut kernel, true, port, seconds - 20);
        let late = answer(kernel.world(), 1, 1, port, flag::ACK);
        returns(&mut kernel, &late, 1, 40_001);
        grow_old(&mut kernel, true, port, seconds + 1);
        let (_, delta) = kernel.count(&late.bytes());
        assert_eq!(delta, Delta::reason(0, Reason::NoFlow), "{name}");
    }
    let mut kernel = enter(true);
    let port = forwards(&mut kernel, &tcp(true, 40_001, flag::SYN), 1, 1);
    grow_old(&mut kernel, true, port, 220);
    assert_eq!(forwards(&mut kernel, &tcp(true, 40_001, flag::SYN), 1, 1), port, "half open");
    grow_old(&mut kernel, true, port, 241);
    let (_, delta) = kernel.count(&tcp(true, 40_001, flag::ACK).bytes());
    assert_eq!(delta, Delta::reason(1, Reason::NoFlow));
    // UDP: a client's packets keep it, and so do the backend's.
    let port = forwards(&mut kernel, &udp(true, 40_001), 2, 1);
    for _ in 0..3 {
        grow_old(&mut kernel, true, port, 880);
        assert_eq!(forwards(&mut kernel, &udp(true, 40_001), 2, 1), port);
        grow_old(&mut kernel, true, port, 880);
        let reply = answer(kernel.world(), 2, 1, port, 0);
        returns(&mut kernel, &reply, 2, 40_001);
    }
}

#[test]
fn a_client_that_connects_anew_keeps_its_port() {
    let mut kernel = enter(true);
    let port = opened(&mut kernel, true, 40_001);
    let before = slot(&mut kernel, true, port).state;
    forwards(&mut kernel, &tcp(true, 40_001, FIN), 1, 1);
    let fin = answer(kernel.world(), 1, 1, port, FIN);
    returns(&mut kernel, &fin, 1, 40_001);
    assert_eq!(opened(&mut kernel, true, 40_001), port);
    let after = slot(&mut kernel, true, port).state;
    assert_eq!(after >> 32, (before >> 32) + 1, "another flow");
    // A SYN within a connection changes nothing: the backend answers it.
    assert_eq!(forwards(&mut kernel, &tcp(true, 40_001, flag::SYN), 1, 1), port);
    assert_eq!(slot(&mut kernel, true, port).state, after);
}

#[test]
fn flows_stay_with_their_backend_when_the_ring_changes() {
    let mut kernel = enter(true);
    let port = opened(&mut kernel, true, 40_001);
    let datagrams = forwards(&mut kernel, &udp(true, 40_001), 2, 1);
    for index in 0..1021 {
        let settled = lb_common::abi::Slot::settled(lb_common::abi::BackendId(1));
        kernel.set_slot(1, index, settled);
        let settled = lb_common::abi::Slot::settled(lb_common::abi::BackendId(3));
        kernel.set_slot(2, index, settled);
    }
    assert_eq!(forwards(&mut kernel, &tcp(true, 40_001, flag::ACK), 1, 1), port);
    assert_eq!(forwards(&mut kernel, &udp(true, 40_001), 2, 1), datagrams);
    assert_ne!(forwards(&mut kernel, &tcp(true, 40_002, flag::SYN), 1, 0), port);
    // Flows of a backend that is down go at once: a connection is reset, a datagram goes elsewhere by the same port.
    for id in [2, 4] {
        let mut rows = kernel.array::<BackendRow>(map::BACKENDS);
        let mut row = rows.get(&id, 0).expect("within");
        row.flags |= backend_flag::DOWN;
        rows.set(id, row, 0).expect("within");
    }
    let (outcome, delta) = kernel.count(&tcp(true, 40_001, flag::ACK).bytes());
    assert_eq!((outcome.action, delta), (action::TX, Delta::reason(1, Reason::NoFlow)));
    assert_eq!(forwards(&mut kernel, &tcp(true, 40_001, flag::SYN), 1, 0), port);
    assert_eq!(forwards(&mut kernel, &udp(true, 40_001), 2, 0), datagrams);
}

#[test]
fn a_wrong_entry_of_the_flow_table_harms_nobody() {
    let mut kernel = enter(true);
    let port = opened(&mut kernel, true, 40_001);
    let other = opened(&mut kernel, true, 40_002);
    let key = FlowKey {
        source: ip(CLIENT_V4).into(),
        destination: ip(VIP_V4).into(),
        source_port: Be16::from_host(40_001),
        destination_port: Be16::from_host(80),
        protocol: 6,
        _pad: [0; 3],
    };
    let mut flows = kernel.hash_map::<FlowKey, u32>(map::PORT_FLOWS);
    assert_eq!(flows.get(&key, 0).expect("known"), PortSlot::index(0, port));
    flows.insert(key, PortSlot::index(0, other), 0).expect("room");
    let (outcome, delta) = kernel.count(&tcp(true, 40_001, flag::ACK).bytes());
    assert_eq!((outcome.action, delta), (action::TX, Delta::reason(1, Reason::NoFlow)));
    // Its replies still find their way, and its next SYN a port.
    let reply = answer(kernel.world(), 1, 1, port, flag::ACK);
    returns(&mut kernel, &reply, 1, 40_001);
    let new = forwards(&mut kernel, &tcp(true, 40_001, flag::SYN), 1, 1);
    assert!(new != port && new != other);
}

/// An error by a router about a packet, to the packet's sender.
fn error_about(quoted: &Packet, kind: u8, code: u8, length: usize) -> Packet {
    let router = if quoted.ip.source.is_ipv4() { "203.0.113.9" } else { "2001:db8:e::9" };
    let transport = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
    let bytes = quoted.ip_bytes();
    let length = length.min(bytes.len());
    Packet::new(router, &quoted.ip.source.to_string(), transport).payload(&bytes[..length])
}

#[test]
fn errors_are_translated_both_ways() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let tcp_port = opened(&mut kernel, is_v4, 40_001);
        let udp_port = forwards(&mut kernel, &udp(is_v4, 40_001), 2, 1);
        let (client, vip) = if is_v4 { (CLIENT_V4, VIP_V4) } else { (CLIENT_V6, VIP_V6) };
        let kinds: &[(u8, u8)] = if is_v4 {
            &[(3, 4), (3, 3), (11, 0), (12, 0)]
        } else {
            &[(2, 0), (1, 4), (3, 0), (4, 1)]
        };
        let shortest = if is_v4 { 28 } else { 48 };
        for (service, port) in [(1, tcp_port), (2, udp_port)] {
            let (to, to_port, mac) = backend(kernel.world(), service, 1);
            let pool = ip(POOL[address(is_v4) as usize]);
            let id = kernel.world().first_backend(service as usize - 1) + 1;
            for &(kind, code) in kinds {
                for length in [shortest, shortest + 8, shortest + 10, 1_000] {
                    let packet = match service {
                        1 => tcp(is_v4, 40_001, flag::ACK).filled(1_300),
                        _ => udp(is_v4, 40_001).filled(1_300),
                    };
                    let what = format!("{kind}/{code}, service {service}, {length} bytes");
                    // About what went to the backend: for the client, who sent it to the VIP.
                    let on_the_way = packet.clone().sourced(pool, port).destined(to, to_port);
                    let error = error_about(&on_the_way, kind, code, length);
                    let mut expected = error.clone().hop(NIC, CLIENT);
                    (expected.ip.source, expected.ip.destination) = (ip(vip), ip(client));
                    let bytes = packet.ip_bytes();
                    expected.payload = bytes[..length.min(bytes.len())].to_vec();
                    let (outcome, delta) = kernel.count(&error.bytes());
                    assert_eq!(outcome.action, action::TX, "{what}: {delta:?}");
                    assert_eq!(outcome.frame, expected.bytes(), "to the client: {what}");
                    let counted = Delta::reply(id, error.length(), false);
                    assert_eq!(delta, counted.and(service, Reason::IcmpErrorForwarded), "{what}");
                    // About what went to the client: for the backend, who sent it to the pool.
                    let reply = answer(kernel.world(), service, 1, port, flag::ACK).filled(1_300);
                    let on_the_way =
                        reply.clone().sourced(ip(vip), 80).destined(ip(client), 40_001);
                    let error = error_about(&on_the_way, kind, code, length);
                    let mut expected = error.clone().hop(NIC, mac);
                    (expected.ip.source, expected.ip.destination) = (pool, to);
                    let bytes = reply.ip_bytes();
                    expected.payload = bytes[..length.min(bytes.len())].to_vec();
                    let (outcome, delta) = kernel.count(&error.bytes());
                    assert_eq!(outcome.action, action::TX, "{what}: {delta:?}");
                    assert_eq!(outcome.frame, expected.bytes(), "to the backend: {what}");
                    let counted = Delta::request(id, error.length(), false);
                    assert_eq!(delta, counted.and(service, Reason::IcmpErrorForwarded), "{what}");
                }
            }
        }
    }
}

#[test]
fn errors_about_no_flow_are_dropped_and_end_none() {
    let mut kernel = enter(true);
    let port = opened(&mut kernel, true, 40_001);
    let before = slot(&mut kernel, true, port);
    let (to, to_port, _) = backend(kernel.world(), 1, 1);
    let packet = tcp(true, 40_001, flag::ACK);
    let good = packet.clone().sourced(ip(POOL[0]), port).destined(to, to_port);
    for (what, quoted) in [
        ("another port", good.clone().sourced(ip(POOL[0]), port ^ 1)),
        ("another backend", good.clone().destined(ip("10.1.0.1"), 8_001)),
        ("another backend's port", good.clone().destined(to, 8_009)),
    ] {
        let (outcome, delta) = kernel.count(&error_about(&quoted, 3, 1, 100).bytes());
        let expected = (action::DROP, Delta::reason(0, Reason::NoFlow));
        assert_eq!((outcome.action, delta), expected, "{what}");
    }
    let stranger = Packet::tcp(&vip(true), &client(true, 40_009), flag::ACK);
    let (outcome, delta) = kernel.count(&error_about(&stranger, 3, 1, 100).bytes());
    assert_eq!((outcome.action, delta), (action::DROP, Delta::reason(1, Reason::IcmpErrorBad)));
    // Errors of a kind that nobody should send, and no errors at all.
    let (outcome, delta) = kernel.count(&error_about(&good, 5, 1, 100).bytes());
    assert_eq!((outcome.action, delta), (action::DROP, Delta::reason(0, Reason::NoFlow)));
    kernel.run(&error_about(&good, 3, 1, 100).bytes());
    let after = slot(&mut kernel, true, port);
    assert_eq!((after.state, after.last_seen), (before.state, before.last_seen), "REQ-12");
}

#[test]
fn the_last_hop_and_the_link_are_told() {
    let told = |kernel: &mut Kernel, packet: &Packet, error: Packet, reasons: [Reason; 2]| {
        let delta = Delta::reason(1, reasons[0]).and(1, reasons[1]);
        let (outcome, counted) = kernel.count(&packet.bytes());
        // A backend is told from the address that it knows.
        assert_eq!((outcome.action, outcome.frame), (action::TX, error.bytes()), "{packet:?}");
        assert_eq!(counted, delta, "{packet:?}");
    };
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let port = opened(&mut kernel, is_v4, 40_001);
        for packet in [tcp(is_v4, 40_001, flag::ACK), answer(kernel.world(), 1, 1, port, flag::ACK)]
        {
            let last = packet.ip(|ip| ip.hop_limit = 1);
            let error = time_exceeded(&last);
            told(&mut kernel, &last, error, [Reason::Ttl, Reason::TimeExceededSent]);
        }
        let mut narrow = world(is_v4);
        narrow.routes[0].mtu = 1_300;
        for service in &mut narrow.services {
            service.backends.iter_mut().for_each(|backend| backend.mtu = 1_300);
        }
        kernel.enter(narrow);
        let port = opened(&mut kernel, is_v4, 40_001);
        for packet in [
            tcp(is_v4, 40_001, flag::ACK).filled(1_300),
            answer(kernel.world(), 1, 1, port, flag::ACK).filled(1_300),
        ] {
            let error = too_big(&packet, 1_300);
            told(&mut kernel, &packet, error, [Reason::TooBig, Reason::TooBigSent]);
        }
    }
}

#[test]
fn options_and_extension_headers_are_passed_over() {
    let mut kernel = enter(true);
    let syn = tcp(true, 40_001, flag::SYN).ip(|ip| ip.options = vec![1; 8]);
    let (outcome, _) = kernel.count(&syn.bytes());
    assert_eq!(outcome.action, action::TX);
    let port = u16::from_be_bytes([outcome.frame[42], outcome.frame[43]]);
    assert_eq!(outcome.frame, sent(kernel.world(), &syn, 1, 1, port));
    let reply = answer(kernel.world(), 1, 1, port, SYN_ACK).ip(|ip| ip.options = vec![1; 4]);
    returns(&mut kernel, &reply, 1, 40_001);
    let routed = tcp(true, 40_001, flag::ACK).ip(|ip| ip.options = vec![131, 7, 4, 1, 2, 3, 4, 0]);
    let (outcome, delta) = kernel.count(&routed.bytes());
    assert_eq!((outcome.action, delta), (action::DROP, Delta::reason(1, Reason::SourceRoute)));
}

#[test]
fn tags_are_kept_on_the_way_and_back() {
    for is_v4 in [true, false] {
        for tags in [&[[0x81, 0, 0x20, 5]][..], &[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 9]]] {
            let mut kernel = enter(is_v4);
            let syn = tcp(is_v4, 40_001, flag::SYN);
            let (outcome, delta) = kernel.count(&tagged(&syn.bytes(), tags));
            assert_eq!(outcome.action, action::TX, "{delta:?}");
            let untagged = kernel.run(&syn.bytes());
            let port = given(is_v4, &untagged);
            assert_eq!(outcome.frame, tagged(&sent(kernel.world(), &syn, 1, 1, port), tags));
            let reply = answer(kernel.world(), 1, 1, port, SYN_ACK);
            let (outcome, _) = kernel.count(&tagged(&reply.bytes(), tags));
            assert_eq!(outcome.frame, tagged(&returned(&reply, is_v4, 40_001), tags));
            // What is dropped or passed there is as it came.
            let stray = answer(kernel.world(), 1, 1, port ^ 1, SYN_ACK);
            let (outcome, delta) = kernel.count(&tagged(&stray.bytes(), tags));
            let expected = (action::DROP, Delta::reason(0, Reason::NoFlow));
            assert_eq!((outcome.action, delta), expected);
        }
    }
}

#[test]
fn clients_are_let_in_as_in_every_mode() {
    let mut kernel = enter(true);
    let mut closed = world(true);
    closed.services[0].deny = vec![(ip("192.0.2.0"), 24)];
    kernel.enter(closed);
    let (outcome, delta) = kernel.count(&tcp(true, 40_001, flag::SYN).bytes());
    assert_eq!((outcome.action, delta), (action::DROP, Delta::reason(1, Reason::Denied)));
    let mut out = world(true);
    out.services[0].flags |= service_flag::REJECT;
    kernel.enter(out);
    let (outcome, delta) = kernel.count(&tcp(true, 40_001, flag::SYN).bytes());
    assert_eq!((outcome.action, delta), (action::TX, Delta::reason(1, Reason::Reject)));
    let spoofed = Packet::tcp("127.0.0.1@40001", &vip(true), flag::SYN);
    let (_, delta) = kernel.count(&spoofed.bytes());
    assert_eq!(delta, Delta::reason(1, Reason::Martian));
}

#[test]
fn without_its_program_full_nat_is_a_counted_drop() {
    let mut kernel = enter(true);
    kernel.set_fullnat(false);
    let (outcome, delta) = kernel.count(&tcp(true, 40_001, flag::SYN).bytes());
    kernel.set_fullnat(true);
    assert_eq!((outcome.action, delta), (action::DROP, Delta::reason(0, Reason::NoProgram)));
    opened(&mut kernel, true, 40_001);
}
