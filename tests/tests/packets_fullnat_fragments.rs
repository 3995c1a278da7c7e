//! Full nat of packets in fragments, both ways. Fragments are cut from etherparse's packets: what leaves is cut from what would have left.

use std::sync::MutexGuard;

use lb_common::abi::{Forward, Reason, map, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, Options, World, action,
    bytes::{IP, fragment, pieces, tagged},
    packet::{Packet, flag},
    surroundings::{POOL, of},
    world::{CLIENT, NIC, Service, ip},
};

const VIP: [&str; 2] = ["198.51.100.7", "2001:db8:5::7"];
const CLIENT_ADDRESS: [&str; 2] = ["192.0.2.33", "2001:db8:c::33"];
const SECOND: u64 = 1_000_000_000;

fn kernel() -> MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { fullnat: 2, vlan: true, ..Options::default() })
}

/// TCP (service 1) and UDP (service 2).
fn world(is_v4: bool) -> World {
    let backends = if is_v4 { ["10.1.0.1@8001"] } else { ["fd01::1@8001"] };
    let flags = service_flag::FULLNAT | service_flag::FRAGMENTS;
    let service = Service::new(of(&VIP, is_v4), Forward::FullNat, &backends).flags(flags);
    World::of([service.clone(), service.udp()]).with_pool(is_v4)
}

fn enter(is_v4: bool) -> MutexGuard<'static, Kernel> {
    let mut kernel = kernel();
    kernel.enter(world(is_v4));
    kernel
}

fn client(is_v4: bool, port: u16) -> String {
    format!("{}@{port}", of(&CLIENT_ADDRESS, is_v4))
}

/// A client's packet of TCP (service 1) or UDP (service 2).
fn request(is_v4: bool, service: u32, client_port: u16) -> Packet {
    let vip = format!("{}@80", of(&VIP, is_v4));
    let packet = match service {
        1 => Packet::tcp(&client(is_v4, client_port), &vip, flag::ACK | flag::PSH),
        _ => Packet::udp(&client(is_v4, client_port), &vip),
    };
    packet.filled(1_300).ip(|ip| ip.dont_fragment = false)
}

fn sent(world: &World, packet: &Packet, port: u16) -> Vec<u8> {
    let backend = &world.services[0].backends[0];
    let from = ip(of(&POOL, packet.ip.source.is_ipv4()));
    let packet = packet.clone().hop(NIC, backend.mac).sourced(from, port);
    packet.destined(backend.address, backend.port).bytes()
}

fn answer(world: &World, is_v4: bool, service: u32, port: u16) -> Packet {
    let backend = &world.services[0].backends[0];
    let from = format!("{}@{}", backend.address, backend.port);
    let to = format!("{}@{port}", of(&POOL, is_v4));
    let mut packet = match service {
        1 => Packet::tcp(&from, &to, flag::ACK | flag::PSH),
        _ => Packet::udp(&from, &to),
    };
    packet.from = backend.mac;
    packet.filled(1_301).ip(|ip| ip.dont_fragment = false)
}

fn returned(packet: &Packet, is_v4: bool, client_port: u16) -> Vec<u8> {
    let (vip, client) = (ip(of(&VIP, is_v4)), ip(of(&CLIENT_ADDRESS, is_v4)));
    packet.clone().hop(NIC, CLIENT).sourced(vip, 80).destined(client, client_port).bytes()
}

/// The port of the pool that a frame has left from.
fn given(is_v4: bool, frame: &[u8], extension: usize) -> u16 {
    let at = IP + if is_v4 { 20 } else { 40 + extension };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// A flow that exists: a datagram, or a handshake's first two packets; its port of the pool.
fn opened(kernel: &mut Kernel, is_v4: bool, service: u32, client_port: u16) -> u16 {
    let first = match service {
        1 => {
            let vip = format!("{}@80", of(&VIP, is_v4));
            Packet::tcp(&client(is_v4, client_port), &vip, flag::SYN)
        }
        _ => request(is_v4, 2, client_port),
    };
    let outcome = kernel.run(&first.bytes());
    assert_eq!(outcome.action, action::TX, "{outcome:?}");
    given(is_v4, &outcome.frame, 0)
}

#[track_caller]
fn goes(kernel: &mut Kernel, piece: &[u8], there: &[u8], delta: &Delta) {
    let (outcome, counted) = kernel.count(piece);
    assert_eq!((outcome.action, &counted), (action::TX, delta), "{outcome:?}");
    assert_eq!(outcome.frame, there);
}

#[track_caller]
fn drops(kernel: &mut Kernel, piece: &[u8], service: u32, reason: Reason) {
    let (outcome, counted) = kernel.count(piece);
    assert_eq!((outcome.action, counted), (action::DROP, Delta::reason(service, reason)));
}

#[test]
fn later_fragments_follow_the_first_both_ways() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        for service in [1, 2] {
            let client_port = 40_000 + service as u16;
            let port = opened(&mut kernel, is_v4, service, client_port);
            let id = 100 + service as u16;
            let packet = request(is_v4, service, client_port);
            let there = pieces(&sent(kernel.world(), &packet, port), id, 512);
            let here = pieces(&packet.bytes(), id, 512);
            assert!(here.len() > 2 && here.len() == there.len());
            drops(&mut kernel, &here[1], 0, Reason::FragmentMiss);
            // In any order, but each once.
            for index in [0, 2, 1] {
                let delta = Delta::request(service, here[index].len() - IP, false);
                goes(&mut kernel, &here[index], &there[index], &delta);
            }
            drops(&mut kernel, &here[1], service, Reason::FragmentOverlap);
            let reply = answer(kernel.world(), is_v4, service, port);
            let there = pieces(&returned(&reply, is_v4, client_port), id, 256);
            let here = pieces(&reply.bytes(), id, 256);
            drops(&mut kernel, &here[1], 0, Reason::FragmentMiss);
            for index in [0, 4, 1] {
                let delta = Delta::reply(service, here[index].len() - IP, false);
                goes(&mut kernel, &here[index], &there[index], &delta);
            }
            for index in [0, 1, 4] {
                drops(&mut kernel, &here[index], service, Reason::FragmentOverlap);
            }
        }
    }
}

#[test]
fn a_first_fragment_opens_a_flow_of_udp_and_none_of_tcp() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let packet = request(is_v4, 2, 40_001);
        let here = pieces(&packet.bytes(), 7, 512);
        let outcome = kernel.run(&here[0]);
        let port = given(is_v4, &outcome.frame, 8);
        let there = pieces(&sent(kernel.world(), &packet, port), 7, 512);
        assert_eq!(outcome.frame, there[0]);
        goes(&mut kernel, &here[1], &there[1], &Delta::request(2, here[1].len() - IP, false));
        // Whole datagrams of the flow have the same port, and answers come back.
        let whole = request(is_v4, 2, 40_001);
        assert_eq!(kernel.run(&whole.bytes()).frame, sent(kernel.world(), &whole, port));
        let reply = answer(kernel.world(), is_v4, 2, port);
        assert_eq!(kernel.run(&reply.bytes()).frame, returned(&reply, is_v4, 40_001));
        let stray = pieces(&request(is_v4, 1, 40_009).bytes(), 8, 512);
        drops(&mut kernel, &stray[0], 1, Reason::NoFlow);
        drops(&mut kernel, &stray[1], 0, Reason::FragmentMiss);
    }
}

#[test]
fn a_service_may_refuse_fragments() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let here = pieces(&request(is_v4, 2, 40_001).bytes(), 9, 512);
        let mut refuses = world(is_v4);
        refuses.services.iter_mut().for_each(|one| one.flags = service_flag::FULLNAT);
        kernel.enter(refuses);
        let port = opened(&mut kernel, is_v4, 2, 40_001);
        drops(&mut kernel, &here[0], 2, Reason::FragmentDropped);
        drops(&mut kernel, &here[1], 0, Reason::FragmentMiss);
        let reply = answer(kernel.world(), is_v4, 2, port);
        let refused = pieces(&reply.bytes(), 10, 512);
        drops(&mut kernel, &refused[0], 2, Reason::FragmentDropped);
        drops(&mut kernel, &refused[1], 0, Reason::FragmentMiss);
    }
}

#[test]
fn atomic_fragments_are_whole_packets() {
    let mut kernel = enter(false);
    let mut refuses = world(false);
    refuses.services.iter_mut().for_each(|one| one.flags = service_flag::FULLNAT);
    kernel.enter(refuses);
    let port = opened(&mut kernel, false, 2, 40_001);
    let atomic = |packet: &[u8]| fragment(packet, 5, 0, packet.len() - 54, false);
    let packet = request(false, 2, 40_001);
    let (here, there) = (atomic(&packet.bytes()), atomic(&sent(kernel.world(), &packet, port)));
    goes(&mut kernel, &here, &there, &Delta::request(2, here.len() - IP, false));
    let reply = answer(kernel.world(), false, 2, port);
    let (here, there) = (atomic(&reply.bytes()), atomic(&returned(&reply, false, 40_001)));
    goes(&mut kernel, &here, &there, &Delta::reply(2, here.len() - IP, false));
}

#[test]
fn what_is_nobodys_is_dropped_or_the_hosts() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let port = opened(&mut kernel, is_v4, 2, 40_001);
        let other = pieces(&answer(kernel.world(), is_v4, 2, port ^ 1).bytes(), 11, 512);
        drops(&mut kernel, &other[0], 0, Reason::NoFlow);
        drops(&mut kernel, &other[1], 0, Reason::FragmentMiss);
        let old = answer(kernel.world(), is_v4, 2, port).ip(|ip| ip.hop_limit = 1);
        drops(&mut kernel, &pieces(&old.bytes(), 12, 512)[0], 2, Reason::Ttl);
        let tiny = answer(kernel.world(), is_v4, 1, port).bytes();
        drops(&mut kernel, &fragment(&tiny, 13, 8, 64, true), 0, Reason::FragmentTiny);
        let mut local = world(is_v4);
        local.pool.iter_mut().for_each(|(_, is_local)| *is_local = true);
        kernel.enter(local);
        for piece in &other[..2] {
            let (outcome, delta) = kernel.count(piece);
            let expected = (action::PASS, Delta::reason(0, Reason::Passed));
            assert_eq!((outcome.action, delta), expected);
            assert_eq!(outcome.frame, *piece);
        }
    }
}

/// The slot's flow has ended, and another client has its port: what is left of the first one's answer is nobody's.
#[test]
fn a_port_that_has_changed_hands_gets_nothing_of_the_flow_before() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let mut narrow = world(is_v4);
        narrow.pool_ports = (20_000, 20_000);
        kernel.enter(narrow);
        let port = opened(&mut kernel, is_v4, 2, 40_001);
        let reply = pieces(&answer(kernel.world(), is_v4, 2, port).bytes(), 14, 512);
        assert_eq!(kernel.run(&reply[0]).action, action::TX);
        let address = u32::from(!is_v4);
        let mut old = kernel.port_slot(address, port);
        old.last_seen = old.last_seen.wrapping_sub(100_000 * SECOND);
        kernel.set_port_slot(address, port, old);
        assert_eq!(opened(&mut kernel, is_v4, 2, 40_002), port);
        drops(&mut kernel, &reply[1], 0, Reason::NoFlow);
    }
}

#[test]
fn fragments_are_remembered_for_fifteen_seconds() {
    let mut kernel = enter(true);
    opened(&mut kernel, true, 2, 40_001);
    let here = pieces(&request(true, 2, 40_001).bytes(), 15, 512);
    assert_eq!(kernel.run(&here[0]).action, action::TX);
    // Both addresses (mapped), the identification as it stands in the packet, the protocol; and when it came.
    let mut key = [0; 40];
    for (at, address) in [(12, [192, 0, 2, 33]), (28, [198, 51, 100, 7])] {
        key[at - 2..at].fill(0xff);
        key[at..at + 4].copy_from_slice(&address);
    }
    key[36..].copy_from_slice(&17_u32.to_ne_bytes());
    // A number in the order of this machine.
    key[32..36].copy_from_slice(&u32::from(u16::from_ne_bytes([0, 15])).to_ne_bytes());
    let mut map = kernel.hash_map::<[u8; 40], [u8; 48]>(map::FRAGMENTS);
    let mut entry = map.get(&key, 0).expect("remembered");
    let seen = u64::from_ne_bytes(entry[16..24].try_into().unwrap());
    assert!(seen > 0, "{entry:?}");
    entry[16..24].copy_from_slice(&seen.wrapping_sub(16 * SECOND).to_ne_bytes());
    map.insert(key, entry, 0).expect("its type");
    drops(&mut kernel, &here[1], 0, Reason::FragmentMiss);
}

#[test]
fn tagged_fragments_follow_as_well() {
    let mut kernel = enter(true);
    let port = opened(&mut kernel, true, 2, 40_001);
    let packet = request(true, 2, 40_001);
    let (here, there) =
        (pieces(&packet.bytes(), 16, 512), pieces(&sent(kernel.world(), &packet, port), 16, 512));
    for (here, there) in here.iter().zip(&there) {
        let tags = &[[0x81, 0, 0, 5]];
        assert_eq!(kernel.run(&tagged(here, tags)).frame, tagged(there, tags));
    }
}
