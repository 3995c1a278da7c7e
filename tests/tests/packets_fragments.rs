//! Packets in fragments: the first is balanced, the others follow it, in every mode and family, and nat's replies too.

use lb_common::abi::{BackendId, Forward, Phase, Reason, Slot, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, World, action,
    bytes::{fragment, pieces, with_extension},
    case::{Case, Expected, check},
    lab::{Lab, Stream},
    packet::{Packet, Transport, flag},
    world::{CLIENT, MODES, NIC, Service, ip},
};

const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";
const BACKENDS_V4: [&str; 3] = ["10.1.0.1@8001", "10.1.0.2@8002", "10.1.0.3@8003"];
const BACKENDS_V6: [&str; 3] = ["fd01::1@8001", "fd01::2@8002", "fd01::3@8003"];
/// Everything goes to this backend of each service, counted from 0.
const SECOND: usize = 1;
/// Bytes of data in each fragment but the last.
const PIECE: usize = 512;

/// TCP (service 1) and UDP (service 2) on port 80 of the VIP.
fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let backends = if backends_are_v4 { &BACKENDS_V4 } else { &BACKENDS_V6 };
    let mut service = Service::new(if vip_is_v4 { VIP_V4 } else { VIP_V6 }, forward, backends)
        .flags(service_flag::FRAGMENTS);
    service.ring = vec![SECOND as u32; 1021];
    World::of([service.clone(), service.udp()]).with_gateway(vip_is_v4)
}

fn worlds() -> Vec<(&'static str, World)> {
    vec![
        ("nat v4", world(Forward::Nat, true, true)),
        ("nat v6", world(Forward::Nat, false, false)),
        ("dsr v4", world(Forward::Dsr, true, true)),
        ("dsr v6", world(Forward::Dsr, false, false)),
        ("ipip v4 in v4", world(Forward::Ipip, true, true)),
        ("ipip v6 in v6", world(Forward::Ipip, false, false)),
        ("ipip v4 in v6", world(Forward::Ipip, true, false)),
        ("ipip v6 in v4", world(Forward::Ipip, false, true)),
    ]
}

fn is_v4(world: &World) -> bool {
    world.services[0].vip.is_ipv4()
}

/// From the client to the VIP: TCP for service 1, UDP for service 2; `id` tells packets apart.
fn request(world: &World, service: u32, id: u16) -> Packet {
    let (vip, client) = match is_v4(world) {
        true => (format!("{VIP_V4}@80"), "192.0.2.33@40001"),
        false => (format!("{VIP_V6}@80"), "2001:db8:c::33@40001"),
    };
    let packet = match service {
        1 => Packet::tcp(client, &vip, flag::ACK),
        _ => Packet::udp(client, &vip),
    };
    packet.filled(1300).ip(|ip| (ip.label, ip.dont_fragment) = (u32::from(id), false))
}

/// All fragments of a frame.
fn fragments(frame: &[u8], id: u16) -> Vec<Vec<u8>> {
    pieces(frame, id, PIECE)
}

/// The fragments of a request as they reach the backend.
fn forwarded(world: &World, service: u32, request: &Packet, id: u16) -> Vec<Vec<u8>> {
    let service = &world.services[service as usize - 1];
    let backend = &service.backends[SECOND];
    let packet = request.clone().hop(NIC, backend.mac);
    match service.forward {
        Forward::Nat => fragments(&packet.destined(backend.address, backend.port).bytes(), id),
        Forward::Dsr => fragments(&packet.bytes(), id),
        Forward::Ipip => {
            let source = backend.source.expect("a tunnel");
            let inside = if is_v4(world) { 4 } else { 41 };
            let wrap = |piece: &Vec<u8>| {
                let (source, to) = (source.to_string(), backend.address.to_string());
                let mut outer = Packet::new(&source, &to, Transport::Other(inside))
                    .payload(&piece[14..])
                    .ip(|ip| (ip.hop_limit, ip.label) = (64, 0));
                (outer.from, outer.to) = (NIC, backend.mac);
                outer.bytes()
            };
            fragments(&packet.bytes(), id).iter().map(wrap).collect()
        }
        Forward::Gue | Forward::FullNat => panic!("has a suite of its own"),
    }
}

/// A fragment reaches a backend like this.
fn follows(name: String, backend: u32, piece: &[u8], there: &[u8]) -> Case {
    let delta = Delta::request(backend, piece.len() - 14, false);
    Case::new(name, piece.to_vec(), Expected::answered(there.to_vec(), delta))
}

#[test]
fn later_fragments_follow_the_first_in_every_mode() {
    let mut kernel = Kernel::shared();
    for (number, (mode, world)) in worlds().into_iter().enumerate() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for service in [1, 2] {
            let id = 100 + number as u16;
            let request = request(&world, service, id);
            let pieces = fragments(&request.bytes(), id);
            let backend = world.first_backend(service as usize - 1) + SECOND as u32;
            // B26: before the first there is nowhere to go.
            cases.push(Case::drops(
                format!("{mode}: early"),
                pieces[1].clone(),
                0,
                Reason::FragmentMiss,
            ));
            let there = forwarded(&world, service, &request, id);
            assert!(pieces.len() > 2 && pieces.len() == there.len());
            // The first, then the others in any order.
            for index in [0, 2, 1] {
                let name = format!("{mode}: B24, B25, B82: service {service}, fragment {index}");
                cases.push(follows(name, backend, &pieces[index], &there[index]));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// RFC 5722: what would let two readers of a packet see different data. B29.
#[test]
fn overlapping_fragments_are_dropped() {
    let mut kernel = Kernel::shared();
    for (number, (mode, world)) in worlds().into_iter().enumerate() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for service in [1, 2] {
            let id = 120 + number as u16;
            let request = request(&world, service, id);
            let backend = world.first_backend(service as usize - 1) + SECOND as u32;
            let (whole, there) = (request.bytes(), forwarded(&world, service, &request, id));
            let pieces = fragments(&whole, id);
            let name = |what: &str| format!("{mode}: B29: service {service}: {what}");
            let goes = |what: &str, index: usize| {
                follows(name(what), backend, &pieces[index], &there[index])
            };
            cases.extend([goes("first", 0), goes("last", 2)]);
            let mut drops = |what: &str, offset, length, more| {
                let piece = fragment(&whole, id, offset, length, more);
                cases.push(Case::drops(name(what), piece, service, Reason::FragmentOverlap));
            };
            drops("the first again", 0, PIECE, true);
            drops("a longer first", 0, PIECE + 8, true);
            drops("the end of the first", PIECE - 8, 16, true);
            drops("within the first", 64, 8, true);
            drops("over the gap and both ends", PIECE - 8, PIECE + 16, true);
            drops("the first unit of the last", PIECE + 8, PIECE, true);
            let headers = if is_v4(&world) { 34 } else { 54 };
            drops("the last again", 2 * PIECE, whole.len() - headers - 2 * PIECE, false);
            // With it all has come: the identification is free for the next packet.
            cases.extend([goes("what was missing", 1), goes("the next packet", 0)]);
        }
        check(&mut kernel, &cases);
    }
}

/// Of a packet with that many gaps lb could not tell what overlaps.
#[test]
fn a_packet_in_too_many_runs_is_dropped() {
    let mut kernel = Kernel::shared();
    let world = world(Forward::Dsr, true, true);
    kernel.enter(world.clone());
    let whole = request(&world, 2, 130).bytes();
    let mut run = |offset, more| {
        let (outcome, delta) = kernel.count(&fragment(&whole, 130, offset, 8, more));
        (outcome.action, delta.total(Reason::FragmentDropped))
    };
    for number in 0..5 {
        assert_eq!(run(number * 24, true), (action::TX, 0), "run {number}");
    }
    assert_eq!(run(200, true), (action::DROP, 1), "a sixth run");
    assert_eq!(run(8, true), (action::TX, 0), "at the end of one");
    assert_eq!(run(16, true), (action::TX, 0), "between two");
    assert_eq!(run(200, true), (action::TX, 0), "there are four now");
}

/// As the benchmark makes them: an identification is free again when its packet is complete, and whoever has gone round may use it.
#[test]
fn complete_packets_follow_one_another_with_the_same_identification() {
    const PACKETS: u32 = 10_000;
    let mut lab = Lab::load(1).expect("the lab's programs");
    let mut kernel = Kernel::shared();
    lab.register(0, kernel.balancer()).expect("a program array");
    for (is_v4, flows) in [(true, 1), (true, 1 << 10), (false, 1), (false, 1 << 10)] {
        let world = world(Forward::Nat, is_v4, is_v4);
        kernel.enter(world.clone());
        let datagram = request(&world, 2, 135).filled(64);
        let mut stream = Stream::of_fragments(&datagram, flows);
        let before = kernel.counts();
        lab.stream(&mut stream, 0, 0, PACKETS, action::TX).expect("a stream");
        let delta = kernel.counts().since(&before);
        let counted = (delta.forwarded(), delta.drops());
        assert_eq!(counted, (u64::from(PACKETS), 0), "v4 {is_v4}, {flows} flows: {delta:?}");
    }
}

#[test]
fn replies_in_fragments_go_back_to_the_client() {
    let mut kernel = Kernel::shared();
    for world in [world(Forward::Nat, true, true), world(Forward::Nat, false, false)] {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for service in [1, 2] {
            let id = 300;
            let request = request(&world, service, id);
            let backend = &world.services[service as usize - 1].backends[SECOND];
            let (client, vip) = (request.ip.source, request.ip.destination);
            let mut reply = request.sourced(backend.address, backend.port).destined(client, 40001);
            reply.from = backend.mac;
            let pieces = fragments(&reply.bytes(), id);
            let there = fragments(&reply.clone().hop(NIC, CLIENT).sourced(vip, 80).bytes(), id);
            // Nobody knows whose a later fragment is.
            cases.push(Case::passes("early", pieces[1].clone()));
            for index in [0, 1, 2] {
                let (piece, there) = (pieces[index].clone(), there[index].clone());
                let number = world.first_backend(service as usize - 1) + SECOND as u32;
                let delta = Delta::reply(number, piece.len() - 14, false);
                let name = format!("service {service}, fragment {index}");
                cases.push(Case::new(name, piece, Expected::answered(there, delta)));
            }
            let other = fragments(&reply.sourced(backend.address, 9).bytes(), id + 1);
            cases.push(Case::passes("another port's", other[0].clone()));
        }
        check(&mut kernel, &cases);
    }
}

/// As IPv6 would write the IPv4 backend's address: nothing that a backend has sent.
#[test]
fn a_fragment_from_a_mapped_address_is_nobodys_reply() {
    let mut kernel = Kernel::shared();
    let world = world(Forward::Nat, true, true);
    kernel.enter(world.clone());
    let backend = &world.services[0].backends[0];
    let from = format!("::ffff:{}@{}", backend.address, backend.port);
    let reply = Packet::tcp(&from, "2001:db8:c::33@40001", flag::ACK).filled(60).bytes();
    // First fragment, identification 1.
    let first = with_extension(&reply, 44, &[0, 1, 0, 0, 0, 1]);
    check(&mut kernel, &[Case::passes("a first fragment", first)]);
}

#[test]
fn atomic_fragments_are_whole_packets() {
    let mut kernel = Kernel::shared();
    for (mode, mut world) in worlds().into_iter().filter(|(_, world)| !is_v4(world)) {
        // Even where fragments are not taken.
        world.services.iter_mut().for_each(|service| service.flags = 0);
        kernel.enter(world.clone());
        let request = request(&world, 2, 500);
        let backend = &world.services[1].backends[SECOND];
        let atomic = |packet: &Packet| {
            let frame = packet.bytes();
            fragment(&frame, 500, 0, frame.len() - 54, false)
        };
        let packet = request.clone().hop(NIC, backend.mac);
        let there = match world.services[1].forward {
            Forward::Nat => atomic(&packet.destined(backend.address, backend.port)),
            Forward::Dsr => atomic(&packet),
            Forward::Ipip | Forward::Gue | Forward::FullNat => continue,
        };
        let frame = atomic(&request);
        let number = world.first_backend(1) + SECOND as u32;
        let delta = Delta::request(number, frame.len() - 14, false);
        let expected = Expected::answered(there, delta);
        check(&mut kernel, &[Case::new(format!("{mode}: B81"), frame, expected)]);
    }
}

#[test]
fn fragments_that_make_no_sense_are_dropped() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        let (tcp, udp) = (request(&world, 1, 700).bytes(), request(&world, 2, 701).bytes());
        let mut drops = |name: &str, frame: Vec<u8>, reason| {
            cases.push(Case::drops_somewhere(format!("{mode}: {name}"), frame, reason));
        };
        drops("B27: UDP ports only", fragment(&udp, 1, 0, 0, true), Reason::FragmentDropped);
        drops("B27: TCP without flags", fragment(&tcp, 1, 0, 8, true), Reason::FragmentTiny);
        drops("B27: 16 bytes of TCP", fragment(&tcp, 1, 0, 16, true), Reason::FragmentTiny);
        drops("B28: TCP offset 1", fragment(&tcp, 1, 8, 64, true), Reason::FragmentTiny);
        drops("not a multiple of 8", fragment(&udp, 1, 0, 100, true), Reason::FragmentDropped);
        let mut far = fragment(&udp, 1, 8, 64, false);
        let at = if is_v4(&world) { 20 } else { 56 };
        let [high, low] = if is_v4(&world) { [0x1f, 0xff] } else { [0xff, 0xf8] };
        (far[at], far[at + 1]) = (high, low);
        drops("B30: beyond 64 KiB", far, Reason::FragmentDropped);
        let (source, vip) = match is_v4(&world) {
            true => ("192.0.2.33", VIP_V4),
            false => ("2001:db8:c::33", VIP_V6),
        };
        let echo = Packet::echo(source, vip).filled(64).ip(|ip| ip.dont_fragment = false).bytes();
        drops("B32: an echo request", fragment(&echo, 1, 0, 32, true), Reason::FragmentDropped);
        let port = request(&world, 2, 702).destined(ip(vip), 81).bytes();
        drops("no service", fragment(&port, 1, 0, 64, true), Reason::FragmentDropped);
        let old = request(&world, 2, 703).ip(|ip| ip.hop_limit = 1).bytes();
        drops("hops", fragment(&old, 1, 0, 64, true), Reason::Ttl);
        check(&mut kernel, &cases);
    }
}

#[test]
fn a_service_may_refuse_fragments() {
    let mut kernel = Kernel::shared();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        let mut world = world(forward, true, true);
        world.services[0].flags = 0;
        kernel.enter(world.clone());
        let request = request(&world, 1, 900).bytes();
        let pieces = fragments(&request, 900);
        check(
            &mut kernel,
            &[
                Case::drops("first", pieces[0].clone(), 1, Reason::FragmentDropped),
                Case::drops("later", pieces[1].clone(), 0, Reason::FragmentMiss),
            ],
        );
    }
}

#[test]
fn a_vip_that_is_the_hosts_too_leaves_it_its_own_fragments() {
    let mut kernel = Kernel::shared();
    for (mode, mut world) in worlds() {
        world.services.iter_mut().for_each(|service| service.is_local = true);
        // To a port that no service has, and what follows a first fragment that lb has not kept.
        let (client, vip) = match is_v4(&world) {
            true => ("192.0.2.33@40001", format!("{VIP_V4}@53")),
            false => ("2001:db8:c::33@40001", format!("{VIP_V6}@53")),
        };
        let packet = Packet::udp(client, &vip).filled(1300);
        let frame = packet.ip(|ip| (ip.label, ip.dont_fragment) = (901, false)).bytes();
        kernel.enter(world);
        let left = |name: &str, frame: Vec<u8>| {
            let expected = Expected::passed_as(&frame, Reason::NoServicePassed);
            Case::new(format!("{mode}: {name}"), frame, expected)
        };
        let cases = [
            left("first", fragment(&frame, 901, 0, PIECE, true)),
            left("later", fragment(&frame, 901, PIECE, PIECE, true)),
        ];
        check(&mut kernel, &cases);
    }
}

/// A service of one backend a client, by the client's address.
fn by_address(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let mut world = world(forward, vip_is_v4, backends_are_v4);
    for service in &mut world.services {
        service.flags |= service_flag::BY_SOURCE;
        service.stateless_fragments = true;
    }
    world
}

#[test]
fn a_clients_address_leads_fragments_that_come_before_their_first() {
    let mut kernel = Kernel::shared();
    for (number, (mode, forward, vip_is_v4, backends_are_v4)) in MODES.into_iter().enumerate() {
        let world = by_address(forward, vip_is_v4, backends_are_v4);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for service in [1, 2] {
            let id = 140 + number as u16;
            let request = request(&world, service, id);
            let backend = world.first_backend(service as usize - 1) + SECOND as u32;
            let pieces = fragments(&request.bytes(), id);
            let there = forwarded(&world, service, &request, id);
            for index in [2, 1, 0, 1] {
                let name = format!("{mode}: B26: service {service}, fragment {index}");
                cases.push(follows(name, backend, &pieces[index], &there[index]));
            }
            cases.push(Case::drops(
                format!("{mode}: service {service}, again"),
                pieces[1].clone(),
                service,
                Reason::FragmentOverlap,
            ));
        }
        check(&mut kernel, &cases);
    }
}

/// All backends have slots: whole packets of any ports and later fragments of a client go to the same one.
#[test]
fn later_fragments_and_whole_packets_of_a_client_meet() {
    let mut kernel = Kernel::shared();
    for is_v4 in [true, false] {
        let mut world = by_address(Forward::Dsr, is_v4, is_v4);
        world.services.iter_mut().for_each(|service| service.ring = Vec::new());
        kernel.enter(world.clone());
        let mut met = std::collections::HashSet::new();
        for number in 0..64 {
            let client = match is_v4 {
                true => format!("192.0.2.{number}"),
                false => format!("2001:db8:c:{number}::1"),
            };
            let packet = request(&world, 2, 150).sourced(ip(&client), 40_000 + number);
            let whole = kernel.run(&packet.clone().filled(8).bytes());
            let later = kernel.run(&fragments(&packet.bytes(), 150)[1]);
            assert_eq!((whole.action, later.action), (action::TX, action::TX), "{client}");
            assert_eq!(whole.frame[..6], later.frame[..6], "{client}");
            met.insert(whole.frame[..6].to_vec());
        }
        assert_eq!(met.len(), 3, "backends");
    }
}

#[test]
fn what_keeps_a_packet_out_keeps_its_later_fragments_out() {
    let mut kernel = Kernel::shared();
    for is_v4 in [true, false] {
        let good = by_address(Forward::Dsr, is_v4, is_v4);
        let client = request(&good, 2, 160).ip.source;
        let with = |change: &dyn Fn(&mut Service)| {
            let mut world = good.clone();
            world.services.iter_mut().for_each(change);
            world
        };
        let length = if is_v4 { 32 } else { 128 };
        let worlds = [
            (Reason::Denied, with(&|service| service.deny = vec![(client, length)])),
            (Reason::NotAllowed, with(&|service| service.allow = vec![(ip("203.0.113.1"), 32)])),
            (Reason::NoBackend, with(&|service| service.flags |= service_flag::DROP)),
        ];
        for (reason, world) in worlds {
            kernel.enter(world.clone());
            let later = fragments(&request(&world, 2, 160).bytes(), 160)[1].clone();
            check(&mut kernel, &[Case::drops(format!("{reason:?}"), later, 2, reason)]);
        }
        // A slot on its way: of TCP, whose flows may be pinned, nothing is said; datagrams go to the slot's owner.
        kernel.enter(good.clone());
        for service in [1, 2] {
            for index in 0..1021 {
                let first = good.first_backend(service as usize - 1);
                let slot = Slot::new(BackendId(first), BackendId(first + 1), Phase::Window, 0);
                kernel.set_slot(service, index, slot);
            }
        }
        let later = |service| fragments(&request(&good, service, 170).bytes(), 170)[1].clone();
        check(&mut kernel, &[Case::drops("tcp", later(1), 1, Reason::FragmentMiss)]);
        let outcome = kernel.run(&later(2));
        assert_eq!(outcome.action, action::TX);
        assert_eq!(outcome.frame[..6], good.services[1].backends[0].mac);
        let source = if is_v4 { "127.0.0.1" } else { "::1" };
        let odd = request(&good, 2, 180).sourced(ip(source), 40_001).bytes();
        let odd = fragments(&odd, 180)[1].clone();
        check(&mut kernel, &[Case::drops("martian", odd, 2, Reason::Martian)]);
    }
}
