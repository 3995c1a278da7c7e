//! Packets in fragments: the first is balanced, the others follow it, in every mode and family, and nat's replies too.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, World,
    bytes::{fragment, pieces, with_extension},
    case::{Case, Expected, check},
    packet::{Packet, Transport, flag},
    world::{CLIENT, NIC, Service, ip},
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
            // The first, then the others in any order, one of them twice.
            for index in [0, 2, 1, 1] {
                let (piece, there) = (pieces[index].clone(), there[index].clone());
                let delta = Delta::request(backend, piece.len() - 14, false);
                let name = format!("{mode}: B24, B25, B82: service {service}, fragment {index}");
                cases.push(Case::new(name, piece, Expected::answered(there, delta)));
            }
        }
        check(&mut kernel, &cases);
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
