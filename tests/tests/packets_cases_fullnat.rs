//! Full nat's part of the catalogue (docs/packet-cases.md): segments of no connection, blind resets, ports that run out, and packets that
//! answer nobody. packets_fullnat.rs is about how flows live and end.

use std::sync::MutexGuard;

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, Options, Shared, World, action,
    answer::{error, reset},
    case::{Case, Expected, check},
    packet::{Packet, flag},
    surroundings::{FROM, POOL, PORTS, SECOND, datagram, of, segment},
    world::{CLIENT, NIC, ip},
};

const SYN_ACK: u8 = flag::SYN | flag::ACK;

/// With as many ports of the pool.
fn enter(is_v4: bool, ports: u16) -> MutexGuard<'static, Kernel> {
    static KERNEL: Shared = Shared::new();
    let options = Options { fullnat: 2, ..Options::default() };
    let mut kernel = Kernel::shared_in(&KERNEL, options);
    let mut world = World::plain(("fullnat", Forward::FullNat, is_v4, is_v4)).with_pool(is_v4);
    world.services.iter_mut().for_each(|service| service.flags |= service_flag::FULLNAT);
    world.pool_ports = (PORTS.0, PORTS.0 + ports - 1);
    kernel.enter(world);
    kernel
}

/// From another port of the client.
fn from(packet: Packet, port: u16) -> Packet {
    let source = packet.ip.source;
    packet.sourced(source, port)
}

/// Runs a client's packet that has to leave, byte for byte as it should; its port of the pool.
fn forwards(kernel: &mut Kernel, packet: &Packet, service: u32) -> u16 {
    let (outcome, delta) = kernel.count(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "{packet:?}\n{delta:?}");
    let is_v4 = packet.ip.source.is_ipv4();
    let at = 14 + if is_v4 { 20 } else { 40 };
    let port = u16::from_be_bytes([outcome.frame[at], outcome.frame[at + 1]]);
    assert!((PORTS.0..=PORTS.1).contains(&port), "{port}");
    let backend = &kernel.world().services[service as usize - 1].backends[SECOND];
    let expected = packet
        .clone()
        .hop(NIC, backend.mac)
        .sourced(ip(of(&POOL, is_v4)), port)
        .destined(backend.address, backend.port);
    assert_eq!(outcome.frame, expected.bytes(), "{packet:?}");
    let id = kernel.world().first_backend(service as usize - 1) + SECOND as u32;
    assert_eq!(delta, Delta::request(id, packet.length(), packet.is_opening()));
    port
}

/// What the backend sends to this port of the pool.
fn answer(kernel: &Kernel, is_v4: bool, port: u16, flags: u8) -> Packet {
    let backend = &kernel.world().services[0].backends[SECOND];
    let to = format!("{}@{port}", of(&POOL, is_v4));
    let mut packet =
        Packet::tcp(&format!("{}@{}", backend.address, backend.port), &to, flags).filled(30);
    packet.from = backend.mac;
    packet
}

/// The backend's packet reaches the client.
fn returns(kernel: &mut Kernel, is_v4: bool, packet: &Packet, client_port: u16) {
    let vip = kernel.world().services[0].vip;
    let expected = packet
        .clone()
        .hop(NIC, CLIENT)
        .sourced(vip, 80)
        .destined(ip(of(&FROM, is_v4)), client_port)
        .bytes();
    let delta = Delta::reply(1 + SECOND as u32, packet.length(), false);
    check(kernel, &[Case::new("a reply", packet.bytes(), Expected::answered(expected, delta))]);
}

fn opened(kernel: &mut Kernel, is_v4: bool, client_port: u16) -> u16 {
    let port = forwards(kernel, &from(segment(is_v4, flag::SYN), client_port), 1);
    let syn_ack = answer(kernel, is_v4, port, SYN_ACK);
    returns(kernel, is_v4, &syn_ack, client_port);
    assert_eq!(forwards(kernel, &from(segment(is_v4, flag::ACK), client_port), 1), port);
    port
}

/// B35: nothing is made up for a segment of no connection; its sender is told.
#[test]
fn b35_segments_of_no_connection_get_the_reset_of_rfc_9293() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4, 100);
        let mut cases = Vec::new();
        for (flags, length) in [
            (flag::ACK, 0),
            (flag::ACK | flag::PSH, 700),
            (flag::FIN | flag::ACK, 0),
            (flag::FIN, 3),
            (SYN_ACK, 0),
        ] {
            let stray = segment(is_v4, flags).filled(length).ip(|ip| ip.class = 0x2a);
            let delta = Delta::reason(1, Reason::NoFlow);
            let expected = Expected::answered(reset(&stray).bytes(), delta);
            cases.push(Case::new(format!("flags {flags:#x}"), stray.bytes(), expected));
        }
        let stray = segment(is_v4, flag::RST).bytes();
        cases.push(Case::drops("a reset is not answered", stray, 1, Reason::NoFlow));
        check(&mut kernel, &cases);
    }
}

/// B36: a reset or FIN with any sequence number goes to the backend, who judges it (RFC 5961); the flow keeps backend and port.
#[test]
fn b36_blind_resets_and_fins_end_nothing() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4, 100);
        for (number, flags) in
            (0..).zip([flag::RST, flag::RST | flag::ACK, flag::FIN | flag::ACK, flag::FIN])
        {
            let client_port = 41_000 + number;
            let port = opened(&mut kernel, is_v4, client_port);
            for sequence in [0, 0x7fff_ffff, 0xffff_ffff] {
                let blind = segment(is_v4, flags).with_tcp(|tcp| tcp.sequence = sequence);
                assert_eq!(forwards(&mut kernel, &from(blind, client_port), 1), port);
            }
            let data = segment(is_v4, flag::ACK | flag::PSH).filled(300);
            assert_eq!(forwards(&mut kernel, &from(data, client_port), 1), port, "{flags:#x}");
            let reply = answer(&kernel, is_v4, port, flag::ACK);
            returns(&mut kernel, is_v4, &reply, client_port);
        }
    }
}

/// B58: what comes to the pool and answers no flow is dropped as it is, and named by no VIP.
#[test]
fn b58_what_answers_no_flow_is_dropped() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4, 100);
        let mut cases = Vec::new();
        for flags in [flag::SYN, SYN_ACK, flag::ACK, flag::RST, flag::FIN | flag::ACK] {
            let stray = answer(&kernel, is_v4, PORTS.0 + 7, flags).bytes();
            cases.push(Case::drops(format!("flags {flags:#x}"), stray, 0, Reason::NoFlow));
        }
        let backend = &kernel.world().services[0].backends[SECOND];
        let pool = format!("{}@{}", of(&POOL, is_v4), PORTS.0 + 7);
        let stray = Packet::udp(&format!("{}@8002", backend.address), &pool).bytes();
        cases.push(Case::drops("UDP", stray, 0, Reason::NoFlow));
        check(&mut kernel, &cases);
    }
}

/// B105: with no port left, new flows of both protocols are told so (ICMP 3/13, ICMPv6 1/1), and those that have one go on.
#[test]
fn b105_new_flows_without_a_port_are_told_and_others_go_on() {
    const FREE: u16 = 64;
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4, FREE);
        let ports: Vec<u16> =
            (0..FREE).map(|number| opened(&mut kernel, is_v4, 10_000 + number)).collect();
        let prohibited = if is_v4 { (3, 13) } else { (1, 1) };
        let mut cases = Vec::new();
        for number in 0..10 {
            for (packet, service) in [(segment(is_v4, flag::SYN), 1), (datagram(is_v4), 2)] {
                let packet = from(packet, 50_000 + number);
                let told = error(&packet, prohibited, [0; 4]).bytes();
                let delta = Delta::reason(service, Reason::NoPort);
                let expected = Expected::answered(told, delta);
                cases.push(Case::new(format!("flow {number}"), packet.bytes(), expected));
            }
        }
        check(&mut kernel, &cases);
        for (number, port) in (0..FREE).zip(ports) {
            let data = from(segment(is_v4, flag::ACK).filled(40), 10_000 + number);
            assert_eq!(forwards(&mut kernel, &data, 1), port);
            let reply = answer(&kernel, is_v4, port, flag::ACK);
            returns(&mut kernel, is_v4, &reply, 10_000 + number);
        }
    }
}
