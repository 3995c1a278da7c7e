//! A million broken packets: whatever comes in, the program ends well, and every packet is counted once.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Kernel, World, action,
    packet::{Packet, Transport, flag, hex},
    world::{CLIENT, Mac, NIC, Route, Service, ip},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const ROUNDS: u32 = 1_000_000;

fn world() -> World {
    let v4 = |vip, forward| Service::new(vip, forward, &["10.1.0.1", "10.1.0.2"]);
    let v6 = |vip, forward| Service::new(vip, forward, &["fd01::1", "fd01::2"]);
    let mut allowed = v4("198.51.100.4", Forward::Dsr);
    allowed.allow = vec![(ip("192.0.2.0"), 25)];
    let mut local = v6("2001:db8:5::4", Forward::Nat).port(81);
    local.is_local = true;
    let mixed = |vip, backend| Service::new(vip, Forward::Ipip, &[backend]).udp().port(5000);
    let mut world = World::of([
        v4("198.51.100.1", Forward::Nat),
        v4("198.51.100.2", Forward::Dsr),
        v4("198.51.100.3", Forward::Ipip),
        v6("2001:db8:5::1", Forward::Nat),
        v6("2001:db8:5::2", Forward::Dsr),
        v6("2001:db8:5::3", Forward::Ipip),
        mixed("198.51.100.3", "fd01::3"),
        mixed("2001:db8:5::3", "10.1.0.3"),
        allowed,
        local,
        v4("198.51.100.1", Forward::Nat).port(82).flags(service_flag::REJECT),
        v6("2001:db8:5::1", Forward::Nat).port(82).flags(service_flag::REJECT),
        v4("198.51.100.1", Forward::Nat).port(53).udp(),
        v6("2001:db8:5::1", Forward::Nat).port(53).udp(),
    ]);
    world.hosts = vec![ip("10.1.0.254"), ip("fd01::fe")];
    world.routes = vec![
        Route {
            prefix: (ip("0.0.0.0"), 0),
            gateway: Some((ip("10.1.0.253"), Some(CLIENT))),
            mtu: 1500,
        },
        Route { prefix: (ip("::"), 0), gateway: Some((ip("fd01::fd"), Some(CLIENT))), mtu: 1500 },
    ];
    world
}

/// Whole packets that lead everywhere in the program.
fn seeds() -> Vec<Vec<u8>> {
    let (client_v4, client_v6) = ("192.0.2.33", "2001:db8:c::33");
    let mut packets = Vec::new();
    let mut add = |packet: Packet| {
        for length in [0, 1, 64] {
            packets.push(packet.clone().filled(length).bytes());
        }
    };
    for flags in [flag::SYN, flag::ACK, flag::FIN | flag::ACK, flag::RST] {
        for vip in [
            "198.51.100.1@80",
            "198.51.100.2@80",
            "198.51.100.3@80",
            "198.51.100.4@80",
            "198.51.100.1@82",
            "198.51.100.1@99",
        ] {
            add(Packet::tcp(&format!("{client_v4}@40001"), vip, flags));
            add(Packet::tcp(&format!("{client_v4}@40001"), vip, flags).ip(|ip| ip.hop_limit = 1));
            add(Packet::tcp(&format!("{client_v4}@40001"), vip, flags)
                .ip(|ip| ip.options = vec![1; 8]));
        }
        for vip in [
            "2001:db8:5::1@80",
            "2001:db8:5::2@80",
            "2001:db8:5::3@80",
            "2001:db8:5::4@81",
            "2001:db8:5::1@82",
            "2001:db8:5::1@99",
        ] {
            add(Packet::tcp(&format!("{client_v6}@40001"), vip, flags));
            add(Packet::tcp(&format!("{client_v6}@40001"), vip, flags).ip(|ip| ip.hop_limit = 1));
        }
        add(Packet::tcp("10.1.0.1@8080", &format!("{client_v4}@40001"), flags | flag::ACK));
        add(Packet::tcp("fd01::1@8080", &format!("{client_v6}@40001"), flags | flag::ACK));
    }
    for vip in ["198.51.100.1@53", "198.51.100.3@5000"] {
        add(Packet::udp(&format!("{client_v4}@40001"), vip));
    }
    for vip in ["2001:db8:5::1@53", "2001:db8:5::3@5000"] {
        add(Packet::udp(&format!("{client_v6}@40001"), vip));
    }
    add(Packet::echo(client_v4, "198.51.100.1"));
    add(Packet::echo(client_v6, "2001:db8:5::1"));
    let quoted =
        Packet::tcp("198.51.100.1@80", &format!("{client_v4}@40001"), flag::ACK).ip_bytes();
    let error = Transport::Icmp { kind: 3, code: 4, rest: [0, 0, 5, 0] };
    packets.push(Packet::new(client_v4, "198.51.100.1", error).payload(&quoted).bytes());
    let mut no_checksum = Packet::udp(&format!("{client_v6}@40001"), "2001:db8:5::1@53").bytes();
    no_checksum[60..62].fill(0);
    packets.push(no_checksum);
    // Too big for the tunnel.
    let big = Packet::tcp(&format!("{client_v4}@40001"), "198.51.100.3@80", flag::ACK).filled(1450);
    packets.push(big.bytes());
    packets
}

/// Offsets where damage does most: headers.
fn mutate(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    const VALUES: [u8; 12] = [0, 1, 2, 4, 6, 17, 41, 0x45, 0x46, 0x60, 0x7f, 0xff];
    let mut frame = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let length = frame.len();
        let reach = if random.random_bool(0.9) { length.min(90) } else { length };
        let at = random.random_range(0..reach);
        match random.random_range(0..7) {
            0 => frame[at] ^= 1 << random.random_range(0..8),
            1 => frame[at] = random.random(),
            2 => frame[at] = VALUES[random.random_range(0..VALUES.len())],
            3 => frame.truncate(at.max(14)),
            4 => frame.extend((0..random.random_range(1..40)).map(|_| random.random::<u8>())),
            5 => frame.insert(at, random.random()),
            _ => {
                let end = (at + random.random_range(1..20)).min(length);
                random.fill(&mut frame[at..end]);
            }
        }
        if frame.len() < 14 {
            frame.resize(14, 0);
        }
    }
    frame
}

#[test]
fn a_million_mutated_packets() {
    let seed: u64 = match std::env::var("LB_TEST_SEED") {
        Ok(text) => text.parse().expect("LB_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("LB_TEST_SEED={seed} repeats this run");
    let mut random = StdRng::seed_from_u64(seed);
    let seeds = seeds();
    let mut kernel = Kernel::shared();
    let world = world();
    kernel.enter(world.clone());
    let next_hops: Vec<Mac> = world
        .services
        .iter()
        .flat_map(|s| &s.backends)
        .map(|backend| backend.mac)
        .chain([CLIENT])
        .collect();
    let before = kernel.counts();
    let (mut passed, mut dropped, mut sent) = (0u64, 0u64, 0u64);
    for round in 0..ROUNDS {
        let frame = mutate(&mut random, &seeds);
        let outcome = kernel.run(&frame);
        let told = || format!("seed {seed}, round {round}: {}\n  -> {outcome:?}", hex(&frame));
        match outcome.action {
            action::PASS => {
                assert!(outcome.frame == frame, "passed, but changed: {}", told());
                passed += 1;
            }
            action::DROP => dropped += 1,
            action::TX => {
                sent += 1;
                assert_sound(&frame, &outcome.frame, &next_hops, &told);
            }
            _ => panic!("{}", told()),
        }
    }
    let delta = kernel.counts().since(&before);
    println!("{passed} passed, {dropped} dropped, {sent} sent: {delta:?}");
    // Each packet in exactly one counter.
    let passes = delta.total(Reason::Passed) + delta.total(Reason::NoServicePassed);
    assert_eq!(passes, passed, "seed {seed}: {delta:?}");
    // A drop that is answered is counted as the drop and as the answer.
    let told = delta.total(Reason::TimeExceededSent) + delta.total(Reason::TooBigSent);
    assert_eq!(delta.drops() - told, dropped, "seed {seed}: {delta:?}");
    let answered = delta.total(Reason::Echo) + delta.total(Reason::Reject) + told;
    assert_eq!(delta.forwarded() + answered, sent, "seed {seed}: {delta:?}");
    assert_eq!(passed + dropped + sent, u64::from(ROUNDS));
    // The packets went everywhere: a mutation that never hits would prove nothing.
    for reason in [
        Reason::L3Truncated,
        Reason::L3Length,
        Reason::L4Truncated,
        Reason::IpVersion,
        Reason::IpHeaderLength,
        Reason::Ttl,
        Reason::Martian,
        Reason::FragmentDropped,
        Reason::ExtensionHeader,
        Reason::TcpFlags,
        Reason::TcpOffset,
        Reason::UdpLength,
        Reason::UdpNoChecksum,
        Reason::NoService,
        Reason::NotAllowed,
        Reason::IcmpErrorBad,
        Reason::IcmpChecksum,
        Reason::TooBig,
        Reason::Echo,
        Reason::Reject,
        Reason::NoServicePassed,
    ] {
        assert!(delta.total(reason) > 0, "seed {seed}: no packet met {}: {delta:?}", reason.name());
    }
    assert_eq!(delta.total(Reason::BadSlot) + delta.total(Reason::EncapFailed), 0, "{delta:?}");
}

/// What left is a packet: known addresses, lengths that fit, a hop left, a right header checksum if it came with one.
fn assert_sound(before: &[u8], frame: &[u8], next_hops: &[Mac], told: &dyn Fn() -> String) {
    let is_answer = frame[..6] == before[6..12] && frame[6..12] == before[..6];
    let is_forwarded = next_hops.iter().any(|mac| frame[..6] == *mac) && frame[6..12] == NIC;
    assert!(is_answer || is_forwarded, "to a stranger: {}", told());
    match frame[12..14] {
        [0x08, 0x00] => {
            let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            assert!((20..=frame.len() - 14).contains(&length), "length: {}", told());
            assert!(frame[22] >= 1, "hops: {}", told());
            let header = |frame: &[u8]| {
                let end = 14 + usize::from(frame[14] & 15) * 4;
                lb_tests::kernel::packet::checksum(&frame[14..end.min(frame.len())])
            };
            let came_right = before[12..14] != [0x08, 0x00] || header(before) == 0;
            assert!(!came_right || header(frame) == 0, "header checksum: {}", told());
        }
        [0x86, 0xdd] => {
            let length = usize::from(u16::from_be_bytes([frame[18], frame[19]])) + 40;
            assert!(length <= frame.len() - 14, "length: {}", told());
            assert!(frame[21] >= 1, "hops: {}", told());
        }
        _ => panic!("no IP: {}", told()),
    }
}
