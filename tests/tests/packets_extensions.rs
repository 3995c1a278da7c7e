//! IPv6 packets with extension headers: balanced as they would be without them, in every mode, and otherwise unchanged.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, World, action,
    answer::{reset, time_exceeded},
    bytes::{IP, patched, with_extension, with_length},
    case::{Case, Expected, check, expected_frame, expected_reply},
    packet::{Packet, flag},
    world::{CLIENT, MODES, NIC, Route, Service, ip},
};

const FROM: &str = "2001:db8:c::33@40001";
const VIP: &str = "2001:db8:5::7";
const VIP_80: &str = "2001:db8:5::7@80";

/// Extension headers, the last one first: kind, and bytes from the third one on.
type Chain = Vec<(u8, Vec<u8>)>;

const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];

/// B78, B79: everything that is passed over.
fn chains() -> Vec<Chain> {
    let option = |kind| (kind, PADDING.to_vec());
    vec![
        vec![option(0)],
        vec![option(60)],
        vec![(0, vec![5, 2, 0, 0, 1, 0])], // router alert
        vec![(60, vec![1, 28].into_iter().chain([0; 28]).collect())],
        vec![(43, vec![2, 0, 0, 0, 0, 0])],
        vec![(43, vec![4, 0, 0, 0, 0, 0])],
        vec![(43, [&[4, 0, 0, 0, 0, 0][..], &[9; 16]].concat())],
        vec![option(60), (43, vec![2, 0, 0, 0, 0, 0]), option(60), option(0)],
        vec![option(60); 8],
        vec![(60, vec![0; 126])],
    ]
}

fn extended(frame: &[u8], chain: &Chain) -> Vec<u8> {
    chain.iter().fold(frame.to_vec(), |frame, (kind, body)| with_extension(&frame, *kind, body))
}

fn world(forward: Forward, backends_are_v4: bool) -> World {
    let backends = if backends_are_v4 {
        ["10.1.0.1@8001", "10.1.0.2@8002"]
    } else {
        ["fd01::1@8001", "fd01::2@8002"]
    };
    let service = Service::new(VIP, forward, &backends).flags(service_flag::FRAGMENTS);
    let mut world = World::of([service.clone(), service.udp()]);
    world.routes = vec![Route {
        prefix: (ip("::"), 0),
        gateway: Some((ip("fd01::fe"), Some(CLIENT))),
        mtu: 1500,
    }];
    world
}

/// Where a packet of this flow goes without extension headers: the number of the backend.
fn chosen(kernel: &mut Kernel, world: &World, packet: &Packet, service: u32) -> usize {
    let (outcome, delta) = kernel.count(&packet.bytes());
    let first = world.first_backend(service as usize - 1);
    let number =
        (0..2).find(|number| delta.packets(first + number) == 1).expect("a backend") as usize;
    assert_eq!(outcome.frame, expected_frame(world, packet, service, number));
    number
}

/// What the packet is expected to look like at its backend.
fn forwarded(
    world: &World,
    packet: &Packet,
    service: u32,
    number: usize,
    chain: &Chain,
) -> Vec<u8> {
    let row = &world.services[service as usize - 1];
    let backend = &row.backends[number];
    if row.forward != Forward::Ipip {
        return extended(&expected_frame(world, packet, service, number), chain);
    }
    let inner = packet.clone().hop(NIC, backend.mac);
    let mut outer = inner.clone().tunnelled(backend.source.expect("a tunnel's"), backend.address);
    outer.payload = extended(&inner.bytes(), chain)[IP..].to_vec();
    outer.bytes()
}

#[test]
fn requests_reach_the_backend_that_they_would_reach_without() {
    let mut kernel = Kernel::shared();
    for (mode, forward, _, backends_are_v4) in MODES.into_iter().filter(|(_, _, is_v4, _)| !is_v4) {
        let world = world(forward, backends_are_v4);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for port in 40_001..40_009 {
            let from = format!("2001:db8:c::33@{port}");
            for (packet, service) in [
                (Packet::tcp(&from, VIP_80, flag::SYN), 1),
                (Packet::tcp(&from, VIP_80, flag::ACK | flag::PSH).filled(100), 1),
                (Packet::udp(&from, VIP_80), 2),
            ] {
                let number = chosen(&mut kernel, &world, &packet, service);
                let backend = world.first_backend(service as usize - 1) + number as u32;
                for chain in chains() {
                    let frame = extended(&packet.bytes(), &chain);
                    let leaves = forwarded(&world, &packet, service, number, &chain);
                    let delta = Delta::request(backend, frame.len() - IP, packet.is_opening());
                    let expected =
                        Expected::forwarded(&packet, backend, false, leaves).counted(delta);
                    cases.push(Case::new(format!("{mode}: {chain:?}"), frame, expected));
                }
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn replies_of_nat_backends_are_translated() {
    let mut kernel = Kernel::shared();
    let world = world(Forward::Nat, false);
    kernel.enter(world.clone());
    let backend = &world.services[0].backends[1];
    let mut cases = Vec::new();
    for chain in chains() {
        let mut reply =
            Packet::tcp(FROM, FROM, flag::ACK).filled(60).sourced(backend.address, backend.port);
        reply.from = backend.mac;
        let frame = extended(&reply.bytes(), &chain);
        let leaves = extended(&expected_reply(&world, &reply, 1), &chain);
        let delta = Delta::reply(world.first_backend(0) + 1, frame.len() - IP, false);
        cases.push(Case::new(format!("{chain:?}"), frame, Expected::answered(leaves, delta)));
    }
    check(&mut kernel, &cases);
}

#[test]
fn fragments_behind_extension_headers_follow_the_first_one() {
    let mut kernel = Kernel::shared();
    let world = world(Forward::Dsr, false);
    kernel.enter(world.clone());
    let whole = Packet::udp(FROM, VIP_80).filled(600).bytes();
    let number = chosen(&mut kernel, &world, &Packet::udp(FROM, VIP_80).filled(600), 2);
    let backend = &world.services[1].backends[number];
    for chain in [vec![(0, PADDING.to_vec())], vec![(60, PADDING.to_vec()), (0, PADDING.to_vec())]]
    {
        for (what, offset, more, data) in [("first", 0u16, 1, 0..304), ("last", 304, 0, 304..608)] {
            let body = [&(offset | more).to_be_bytes()[..], &[1, 2, 3, 4]].concat();
            let packet = [&whole[..IP + 40], &whole[IP + 40..][data]].concat();
            let length = packet.len() - IP;
            let frame = extended(&with_extension(&with_length(&packet, length), 44, &body), &chain);
            let leaves = patched(&frame, 0, &[backend.mac, NIC].concat());
            let leaves = patched(&leaves, IP + 7, &[frame[IP + 7] - 1]);
            let outcome = kernel.run(&frame);
            assert_eq!((outcome.action, outcome.frame), (action::TX, leaves), "{what} {chain:?}");
        }
    }
}

/// What lb itself has to say to such packets is said as ever.
#[test]
fn packets_with_extension_headers_are_answered() {
    let mut kernel = Kernel::shared();
    let mut world = world(Forward::Dsr, false);
    let mut rejecting = Service::new(VIP, Forward::Dsr, &["fd01::9"]);
    rejecting.port = 81;
    rejecting.flags |= service_flag::REJECT;
    world.services.push(rejecting);
    kernel.enter(world);
    let echo = Packet::echo("2001:db8:c::33", VIP);
    let answer = echo.echo_reply().bytes();
    for chain in chains() {
        let (outcome, delta) = kernel.count(&extended(&echo.bytes(), &chain));
        assert_eq!(
            (outcome.action, delta),
            (action::TX, Delta::reason(0, Reason::Echo)),
            "{chain:?}"
        );
        // The answer has the chain of what was asked, and another payload length for it.
        assert_eq!(outcome.frame, extended(&answer, &chain), "{chain:?}");
        let late = Packet::tcp(FROM, VIP_80, flag::ACK).ip(|ip| ip.hop_limit = 1);
        let sent = extended(&late.bytes(), &chain);
        let told = time_exceeded(&late).payload(&sent[IP..]).bytes();
        let (outcome, delta) = kernel.count(&sent);
        assert_eq!((outcome.action, outcome.frame), (action::TX, told), "{chain:?}");
        let counted = Delta::reason(1, Reason::Ttl).and(1, Reason::TimeExceededSent);
        assert_eq!(delta, counted, "{chain:?}");
        let refused = Packet::tcp(FROM, "2001:db8:5::7@81", flag::SYN);
        let (outcome, delta) = kernel.count(&extended(&refused.bytes(), &chain));
        // Without the chain.
        let told = reset(&refused).bytes();
        assert_eq!((outcome.action, outcome.frame), (action::TX, told), "{chain:?}");
        assert_eq!(delta, Delta::reason(3, Reason::Reject), "{chain:?}");
    }
}
