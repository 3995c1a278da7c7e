//! How even rings and the flow hash are, and how little a change moves: figures without a clock.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, Ipv4Addr},
};

use lb_common::{
    abi::{BackendId, FlowKey, protocol},
    be::Be16,
    hash::{HashKeys, expand_seed, flow_hash, slot_of},
};
use lb_userspace::plan::ring::{Member, owners};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::row::{Row, median};

/// Slots and backends. The paper's tables have 65,537 and 655,373 entries for up to 1,000 backends (Eisenbud et al., "Maglev",
/// NSDI 2016, section 5.3).
const RINGS: [(u32, usize); 4] = [(1_021, 10), (16_381, 100), (65_537, 1_000), (655_373, 1_000)];
/// Seeds that figures are taken with.
const SEEDS: u8 = 5;
/// The fullest backend may have this many per cent more slots than the mean, where the paper's tables differ by 1 %.
const EVENNESS: f64 = 2.0;
/// Slots that hashes are spread over.
const SLOTS: u32 = 1_021;
/// Flows of each input.
const FLOWS: u32 = 1 << 18;
/// Of the chi-square statistic over its degrees of freedom: 1 is chance, and 1,020 degrees leave it within 0.2 of that.
const CHI_SQUARE: f64 = 1.2;

/// All rows.
pub fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for (slots, backends) in RINGS {
        rows.extend(ring_rows(slots, backends));
    }
    rows.extend(inputs().into_iter().map(|(name, flows)| hash_row(name, &flows)));
    rows
}

fn keys(seed: u8) -> HashKeys {
    expand_seed(&[seed; 32])
}

fn members(count: usize) -> Vec<Member> {
    let member = |number: usize| Member {
        id: BackendId(number as u32 + 1),
        address: IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + number as u32)),
        port: 8_080,
        configured: 100,
        effective: 100,
        percent: 100,
        ramp: 100,
    };
    (0..count).map(member).collect()
}

/// Evenness; and what one backend moves beside its own, when it goes DOWN and when it is taken out of the file.
fn ring_rows(slots: u32, count: usize) -> [Row; 3] {
    let (mut uneven, mut down, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 1..=SEEDS {
        let keys = keys(seed);
        let mut members = members(count);
        let full = owners(slots, &keys, &members);
        let mut shares = HashMap::<BackendId, u32>::new();
        full.iter().for_each(|owner| *shares.entry(*owner).or_default() += 1);
        let most = shares.values().copied().max().unwrap_or(0);
        let mean = f64::from(slots) / count as f64;
        // Part of a slot is nobody's to give.
        uneven.push((f64::from(most) - mean.ceil()).max(0.0) / mean * 100.0);
        let gone = members[count / 2].id;
        let moved = |after: &[BackendId]| {
            let pairs = full.iter().zip(after);
            let others = pairs.filter(|(before, after)| **before != gone && before != after);
            others.count() as f64 / f64::from(slots) * 100.0
        };
        members[count / 2].effective = 0;
        down.push(moved(&owners(slots, &keys, &members)));
        members.remove(count / 2);
        removed.push(moved(&owners(slots, &keys, &members)));
    }
    let row = |what: &str, values: &[f64], limit| {
        Row::new("quality", format!("quality/{what}/{slots}x{count}"), "%", values, limit)
    };
    [
        row("ring-evenness", &uneven, Some(EVENNESS)),
        row("ring-moved-by-one-down", &down, Some(0.0)),
        row("ring-moved-by-one-removed", &removed, None),
    ]
}

/// How far from chance slots are hit; SipHash is the floor.
fn hash_row(name: &str, flows: &[FlowKey]) -> Row {
    let mut ours = Vec::new();
    let mut siphash = Vec::new();
    for seed in 1..=SEEDS {
        let keys = keys(seed);
        ours.push(chi_square(flows.iter().map(|flow| slot_of(flow_hash(&keys, flow), SLOTS))));
        siphash.push(chi_square(flows.iter().map(|flow| slot_of(sip(seed, flow), SLOTS))));
    }
    let row =
        Row::new("quality", format!("quality/hash/{name}"), "chi² / df", &ours, Some(CHI_SQUARE));
    row.beside(median(&siphash))
}

fn sip(seed: u8, flow: &FlowKey) -> u32 {
    let mut hasher = DefaultHasher::new();
    let words = flow.source.words.iter().chain(&flow.destination.words);
    (seed, words.map(|word| word.raw()).collect::<Vec<_>>()).hash(&mut hasher);
    (flow.source_port.raw(), flow.destination_port.raw(), flow.protocol).hash(&mut hasher);
    (hasher.finish() >> 32) as u32
}

/// Chi-square statistic of slots that should be hit alike, over its degrees of freedom.
fn chi_square(slots: impl Iterator<Item = u32>) -> f64 {
    let mut counts = vec![0_u32; SLOTS as usize];
    slots.for_each(|slot| counts[slot as usize] += 1);
    let mean = counts.iter().sum::<u32>() as f64 / f64::from(SLOTS);
    let sum: f64 = counts.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum();
    sum / f64::from(SLOTS - 1)
}

fn flow(source: u32, source_port: u16) -> FlowKey {
    FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(source)).into(),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)).into(),
        source_port: Be16::from_host(source_port),
        destination_port: Be16::from_host(443),
        protocol: protocol::TCP,
        _pad: [0; 3],
    }
}

/// What clients look like, and what somebody would send who knows the hash but not the seed.
fn inputs() -> BTreeMap<&'static str, Vec<FlowKey>> {
    let mut random = StdRng::seed_from_u64(1);
    let many = |make: &mut dyn FnMut(u32) -> FlowKey| (0..FLOWS).map(make).collect::<Vec<_>>();
    BTreeMap::from([
        (
            "random-clients",
            many(&mut |_| flow(random.random(), random.random_range(1_024..=u16::MAX))),
        ),
        ("clients-in-a-row", many(&mut |n| flow(0x0a00_0000 + n, 40_000))),
        // A carrier's gateway: few addresses, ports in a row, every second one.
        (
            "gateways-even-ports",
            many(&mut |n| flow(0xc633_6400 + n / 32_768, (n % 32_768 * 2) as u16)),
        ),
        // Nothing but multiples of powers of two, where a weak hash loses bits.
        ("powers-of-two", many(&mut |n| flow((n & 0x3ff) << 22, ((n >> 10) << 8) as u16))),
        // The words' differences cancel in a sum without keys.
        ("cancelling", many(&mut |n| flow(0x0a00_0000 + n, (40_000 - n % 16_384) as u16))),
    ])
}
