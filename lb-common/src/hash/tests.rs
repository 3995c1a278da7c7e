//! How evenly flows spread, judged by chi-square over many seeds, beside SipHash-1-3 (the standard library's) and beside
//! the same hash without its last step.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{collections::hash_map::DefaultHasher, hash::Hasher};

use super::*;
use crate::{
    abi::protocol,
    be::{Be16, Be32},
};

type Flows = Vec<FlowKey>;

fn flow(source: IpAddr, port: u32) -> FlowKey {
    let vip: IpAddr = match source {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 10).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into(),
    };
    FlowKey {
        source: source.into(),
        destination: vip.into(),
        source_port: Be16::from_host(port as u16),
        destination_port: Be16::from_host(443),
        protocol: protocol::TCP,
        _pad: [0; 3],
    }
}

fn v4(address: u32, port: u32) -> FlowKey {
    flow(Ipv4Addr::from(address).into(), port)
}

fn v6(high: u64, low: u64, port: u32) -> FlowKey {
    flow(Ipv6Addr::from(((high as u128) << 64) | low as u128).into(), port)
}

/// What clients look like, and what somebody might send who does not know the seed.
fn patterns() -> Vec<(&'static str, Flows)> {
    const N: u32 = 1 << 14;
    const NET: u64 = 0x2001_0db8_0000_0000;
    let each = |make: &dyn Fn(u32) -> FlowKey| (0..N).map(make).collect::<Flows>();
    vec![
        ("one client, consecutive ports", each(&|i| v4(0xc0a8_0001, 32_768 + i))),
        ("one client, every other port", each(&|i| v4(0xc0a8_0001, 2 * i))),
        ("consecutive clients, one port", each(&|i| v4(0x0a01_0000 + i, 40_000))),
        ("128 clients, 128 ports", each(&|i| v4(0x0a01_0000 + i / 128, 32_768 + i % 128))),
        ("clients and ports in step", each(&|i| v4(0x0a01_0000 + i, 32_768 + i))),
        ("one client in each /24", each(&|i| v4(0x0a00_0005 + (i << 8), 50_000))),
        ("one client in each /16", each(&|i| v4((i << 16) | 7, 50_000))),
        ("addresses that mirror ports", each(&|i| v4((i << 16) | i, i))),
        ("octets in host order", each(&|i| v4(((i & 0xff) << 24) | (i >> 8), 1024))),
        ("16 KiB of consecutive IPv6 hosts", each(&|i| v6(NET, i as u64, 40_000))),
        ("one client in each /64", each(&|i| v6(NET + i as u64, 1, 40_000))),
        ("one client in each /48", each(&|i| v6(NET + ((i as u64) << 16), 1, 40_000))),
        ("one IPv6 client, consecutive ports", each(&|i| v6(NET, 1, 32_768 + i))),
        ("all words in step", each(&|i| v6(NET ^ ((i as u64) << 32 | i as u64), i as u64, i))),
    ]
}

/// Standard scores of chi-square (0 = as even as chance, with a standard deviation of 1), one for each seed.
fn scores(flows: &Flows, slots: u32, hash: impl Fn(&HashKeys, &FlowKey) -> u32) -> Vec<f64> {
    let score = |seed: u8| {
        let keys = expand_seed(&core::array::from_fn(|index| seed.wrapping_mul(31) ^ index as u8));
        let mut counts = vec![0u32; slots as usize];
        for flow in flows {
            counts[slot_of(hash(&keys, flow), slots) as usize] += 1;
        }
        let expected = flows.len() as f64 / slots as f64;
        let square = |count: &u32| (*count as f64 - expected).powi(2) / expected;
        let freedom = (slots - 1) as f64;
        (counts.iter().map(square).sum::<f64>() - freedom) / (2.0 * freedom).sqrt()
    };
    (0..64).map(score).collect()
}

/// Mean and worst of some scores; for 64 seeds the mean of chance has a standard deviation of 0.125.
fn summary(scores: &[f64]) -> (f64, f64) {
    let worst = scores.iter().copied().fold(f64::MIN, f64::max);
    (scores.iter().sum::<f64>() / scores.len() as f64, worst)
}

/// As good as chance: five standard deviations for each of the 42 means, and tails as long as chi-square's with two
/// degrees of freedom (the fewest in use) leaves once in ten thousand cases.
fn is_even((mean, worst): (f64, f64)) -> bool {
    mean.abs() < 0.625 && worst < 9.2
}

fn siphash(keys: &HashKeys, flow: &FlowKey) -> u32 {
    let mut hasher = DefaultHasher::new();
    keys[..2].iter().for_each(|key| hasher.write_u64(*key));
    for word in flow.source.words.iter().chain(&flow.destination.words) {
        hasher.write_u32(word.raw());
    }
    hasher.write_u16(flow.source_port.raw());
    hasher.write_u16(flow.destination_port.raw());
    hasher.finish() as u32
}

#[test]
fn flows_spread_as_evenly_as_by_siphash() {
    for (name, flows) in patterns() {
        for slots in [3, 100, 1021] {
            let ours = summary(&scores(&flows, slots, flow_hash));
            let reference = summary(&scores(&flows, slots, siphash));
            println!("{name}, {slots} slots: mean, worst {ours:.2?}; SipHash {reference:.2?}");
            assert!(is_even(ours), "{name}, {slots} slots: {ours:?}");
            assert!(is_even(reference), "{name}, {slots} slots: SipHash {reference:?}");
        }
    }
}

/// The test has teeth: multilinear hashing alone leaves arithmetic progressions what they are.
#[test]
fn without_the_last_step_patterns_show() {
    let uneven = |(_, flows): &(&str, Flows)| {
        let plain = |keys: &HashKeys, flow: &FlowKey| (sum(keys, flow) >> 32) as u32;
        !is_even(summary(&scores(flows, 1021, plain)))
    };
    let caught = patterns().iter().filter(|pattern| uneven(pattern)).count();
    assert!(caught >= 10, "only {caught} patterns are uneven");
}

/// A single changed bit anywhere moves the flow as a coin decides, in each bit of the hash.
#[test]
fn every_bit_of_a_flow_counts_in_every_bit_of_the_hash() {
    const TRIALS: u32 = 2_000;
    let base = v6(0x2001_0db8_0102_0304, 0x0506_0708_090a_0b0c, 51_234);
    for bit in 0..288u32 {
        let mut flips = [0u32; 32];
        for trial in 0..TRIALS {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&trial.to_le_bytes());
            let keys = expand_seed(&seed);
            let changed = flow_hash(&keys, &base) ^ flow_hash(&keys, &flipped(base, bit));
            for (output, flips) in flips.iter_mut().enumerate() {
                *flips += changed >> output & 1;
            }
        }
        for (output, flips) in flips.iter().enumerate() {
            let share = *flips as f64 / TRIALS as f64;
            assert!((share - 0.5).abs() < 0.07, "input {bit}, output {output}: {share}");
        }
    }
}

/// Bits 0..256 are the addresses', 256..288 the ports'.
fn flipped(mut flow: FlowKey, bit: u32) -> FlowKey {
    let (word, mask) = ((bit / 32) as usize, 1u32 << (bit % 32));
    match word {
        0..4 => flow.source.words[word] = Be32::from_raw(flow.source.words[word].raw() ^ mask),
        4..8 => {
            let words = &mut flow.destination.words;
            words[word - 4] = Be32::from_raw(words[word - 4].raw() ^ mask);
        }
        _ if mask >> 16 == 0 => {
            flow.source_port = Be16::from_raw(flow.source_port.raw() ^ mask as u16);
        }
        _ => {
            let port = flow.destination_port.raw() ^ (mask >> 16) as u16;
            flow.destination_port = Be16::from_raw(port);
        }
    }
    flow
}

#[test]
fn protocol_and_seed_count_and_a_mapped_address_is_its_ipv4_address() {
    let keys = expand_seed(&[1; 32]);
    let tcp = v4(0x0102_0304, 5);
    let udp = FlowKey { protocol: protocol::UDP, ..tcp };
    assert_ne!(flow_hash(&keys, &tcp), flow_hash(&keys, &udp));
    assert_ne!(flow_hash(&keys, &tcp), flow_hash(&expand_seed(&[2; 32]), &tcp));
    let mapped: IpAddr = "::ffff:1.2.3.4".parse().expect("an address");
    let mut six = flow(mapped, 5);
    six.destination = tcp.destination;
    assert_eq!(flow_hash(&keys, &tcp), flow_hash(&keys, &six));
}

#[test]
fn keys_are_all_different_and_never_zero() {
    for seed in 0..=255u8 {
        let keys = expand_seed(&[seed; 32]);
        let distinct: std::collections::HashSet<u64> = keys.iter().copied().collect();
        assert_eq!(distinct.len(), KEYS);
        assert!(!distinct.contains(&0));
    }
}

#[test]
fn slots_are_in_range_and_all_reached() {
    for slots in [1, 3, 1021, 655_373] {
        assert_eq!(slot_of(0, slots), 0);
        assert_eq!(slot_of(u32::MAX, slots), slots - 1);
        for slot in [0, slots / 2, slots - 1] {
            let first = ((slot as u64) << 32).div_ceil(slots as u64) as u32;
            assert_eq!(slot_of(first, slots), slot);
        }
    }
}

/// Nodes of a cluster, whatever they run on and whenever they were built, must agree: these values never change.
#[test]
fn hashes_are_the_same_in_every_build() {
    let keys = expand_seed(&core::array::from_fn(|index| index as u8));
    assert_eq!(keys[0], 0x79c0_5243_4b61_acff);
    assert_eq!(flow_hash(&keys, &v4(0xc0a8_0001, 40_000)), 0x4315_a6b6);
    assert_eq!(flow_hash(&keys, &v6(0x2001_0db8_0000_0000, 1, 40_000)), 0x7013_1143);
}

#[test]
fn a_client_has_one_source_hash_whatever_its_ports() {
    let keys = expand_seed(&[3; 32]);
    let flow = |source: &str, port: u16| FlowKey {
        source: source.parse::<core::net::IpAddr>().unwrap().into(),
        destination: "192.0.2.10".parse::<core::net::IpAddr>().unwrap().into(),
        source_port: crate::be::Be16::from_host(port),
        destination_port: crate::be::Be16::from_host(443),
        protocol: 6,
        _pad: [0; 3],
    };
    for (a, b, same) in [
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("2001:db8::1", "2001:db8::ffff:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
    ] {
        let host = Prefixes::default();
        let hash = |address, port| source_hash(&keys, &flow(address, port).source, host);
        assert_eq!(hash(a, 1024) == hash(b, 50_000), same, "{a} and {b}");
        assert_eq!(ring_hash(&keys, &flow(a, 7), Some(host)), hash(a, 8));
        assert_eq!(ring_hash(&keys, &flow(a, 7), None), flow_hash(&keys, &flow(a, 7)));
    }
}

#[test]
fn consecutive_clients_are_spread_evenly() {
    let keys = expand_seed(&[5; 32]);
    let mut slots = [0u32; 16];
    for number in 0..64_000u32 {
        let [_, _, c, d] = number.to_be_bytes();
        let flow =
            FlowKey { source: core::net::IpAddr::from([10, 9, c, d]).into(), ..FlowKey::default() };
        slots[slot_of(source_hash(&keys, &flow.source, Prefixes::default()), 16) as usize] += 1;
    }
    let (least, most) = (slots.iter().min().unwrap(), slots.iter().max().unwrap());
    assert!(*least > 3_600 && *most < 4_400, "{slots:?}");
}

#[test]
fn a_prefix_has_one_source_hash() {
    let keys = expand_seed(&[4; 32]);
    let hash = |address: &str, v4: u8, v6: u8| {
        let address = address.parse::<IpAddr>().unwrap().into();
        source_hash(&keys, &address, Prefixes { v4, v6 })
    };
    for (a, b, v4, v6, same) in [
        ("10.0.0.1", "10.0.0.254", 24, 64, true),
        ("10.0.0.1", "10.0.1.1", 24, 64, false),
        ("10.0.0.1", "10.0.1.1", 23, 64, true),
        ("10.0.0.1", "203.0.113.9", 0, 64, true),
        ("2001:db8::1", "2001:db8::2", 32, 128, false),
        ("2001:db8::1", "2001:db8::2", 32, 126, true),
        ("2001:db8:0:0:1::", "2001:db8:0:0:2::", 32, 80, false),
        ("2001:db8:0:0:1::", "2001:db8:0:0:1:ffff::", 32, 80, true),
        ("2001:db8::1", "2001:db8:1::1", 32, 32, true),
        ("2001:db8::1", "fd00::1", 32, 0, true),
    ] {
        assert_eq!(hash(a, v4, v6) == hash(b, v4, v6), same, "{a} and {b} by /{v4} and /{v6}");
    }
}
