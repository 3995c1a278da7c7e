//! Maglev (Eisenbud et al., NSDI 2016, section 3.4) with weights and exact shares. For the controller.
//!
//! Each member of a ring has its own order of all slots ([`Walk`]); members take turns, and at its turn a member claims
//! the first slot of its order that is still free. What is ours: each member stops at its quota, the largest-remainder
//! share of its weight, so that shares are exact to one slot; and turns are spread by weight (a member of weight w has
//! its k-th turn in round k / w), so that a small weight has its early picks, too. A ring may also be filled further:
//! [`claim`] starts from what members hold.

use crate::{
    abi::Address,
    hash::{HashKeys, split_mix},
};

/// In [`Claims::member`]: the slot is free.
pub const FREE: u32 = u32::MAX;

/// A ring being filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// For each slot the member that holds it (index into the slices given to [`claim`]), or [`FREE`].
    pub member: Vec<u32>,
    /// For each slot that is held: how many slots its member had claimed before it.
    pub rank: Vec<u32>,
}

impl Claims {
    /// A ring of free slots.
    pub fn free(slots: u32) -> Self {
        Self { member: vec![FREE; slots as usize], rank: vec![0; slots as usize] }
    }
}

/// One member's order of the slots of a ring: every `skip`-th slot, beginning at `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    start: u32,
    skip: u32,
}

impl Walk {
    /// The order that a member's key (see [`member_key`]) gives in a ring of `slots` slots, at least one. The lengths in
    /// use are primes; for any other the skip is the next one that reaches every slot.
    pub fn new(key: u64, slots: u32) -> Self {
        let start = (split_mix(key) % slots as u64) as u32;
        let mut skip = 1 + (split_mix(!key) % (slots as u64 - 1).max(1)) as u32;
        while greatest_common_divisor(skip, slots) != 1 {
            skip = skip % slots + 1;
        }
        Self { start, skip }
    }

    /// The index of the slot among `free` (at least one) that this order reaches first.
    fn nearest(&self, free: &[u32], slots: &Division) -> usize {
        let inverse = inverse(self.skip, slots.divisor as u32) as u64;
        let steps = |slot: u32| {
            let distance = slot as u64 + slots.divisor - self.start as u64;
            slots.remainder(slots.remainder(distance) * inverse)
        };
        let mut best = (u64::MAX, 0);
        for (index, &slot) in free.iter().enumerate() {
            best = best.min((steps(slot), index));
        }
        best.1
    }
}

/// Remainders by one divisor, without a division each.
struct Division {
    divisor: u64,
    reciprocal: u64,
}

impl Division {
    fn by(divisor: u32) -> Self {
        Self { divisor: divisor as u64, reciprocal: u64::MAX / divisor as u64 }
    }

    /// The estimate of the quotient is at most one too small.
    fn remainder(&self, value: u64) -> u64 {
        let quotient = ((value as u128 * self.reciprocal as u128) >> 64) as u64;
        let rest = value - quotient * self.divisor;
        if rest >= self.divisor { rest - self.divisor } else { rest }
    }
}

/// What `value` has to be multiplied with to be 1 modulo `modulus`, with which it shares no divisor (extended Euclid).
fn inverse(value: u32, modulus: u32) -> u32 {
    let (mut old, mut new) = ((value as i64, 1i64), (modulus as i64, 0i64));
    while new.0 != 0 {
        let quotient = old.0 / new.0;
        (old, new) = (new, (old.0 - quotient * new.0, old.1 - quotient * new.1));
    }
    old.1.rem_euclid(modulus as i64) as u32
}

/// What a member's order and place in a round derive from: the cluster's seed, address and port; never its name, id or
/// place in a file, which may differ between nodes.
pub fn member_key(keys: &HashKeys, address: &Address, port: u16) -> u64 {
    let mut key = keys.iter().fold(0x6d61_676c_6576, |state, word| split_mix(state ^ word));
    for word in address.words {
        key = split_mix(key ^ word.to_host() as u64);
    }
    split_mix(key ^ port as u64)
}

/// The number of slots due to each weight: largest remainders, ties to the lower index; at least one for every weight
/// above 0 if there are slots for all. All weights 0: all quotas 0.
pub fn quotas(slots: u32, weights: &[u32]) -> Vec<u32> {
    let total: u64 = weights.iter().map(|&weight| weight as u64).sum();
    if total == 0 {
        return vec![0; weights.len()];
    }
    let share = |weight: u32| weight as u64 * slots as u64;
    let mut quotas: Vec<u32> =
        weights.iter().map(|&weight| (share(weight) / total) as u32).collect();
    let mut order: Vec<usize> = (0..weights.len()).filter(|&index| weights[index] > 0).collect();
    order.sort_by_key(|&index| (core::cmp::Reverse(share(weights[index]) % total), index));
    let left = slots - quotas.iter().sum::<u32>();
    for &index in order.iter().take(left as usize) {
        quotas[index] += 1;
    }
    if order.len() <= slots as usize {
        for index in order.iter().copied().filter(|&index| quotas[index] == 0).collect::<Vec<_>>() {
            let largest =
                (0..quotas.len()).rev().max_by_key(|&other| quotas[other]).unwrap_or(index);
            quotas[largest] -= 1;
            quotas[index] += 1;
        }
    }
    quotas
}

/// Lets members claim free slots until none is free or everyone holds its quota. `held` is the number of slots that each
/// member holds; the four slices have one element a member, in the order of turns.
pub fn claim(claims: &mut Claims, walks: &[Walk], weights: &[u32], quotas: &[u32], held: &[u32]) {
    let slots = claims.member.len() as u32;
    let free = FreeSlots::of(&claims.member);
    let mut ranks = held.to_vec();
    claim_each(slots, free, walks, weights, quotas, held, |slot, member| {
        claims.member[slot as usize] = member;
        claims.rank[slot as usize] = ranks[member as usize];
        ranks[member as usize] += 1;
    });
}

/// The same where few slots are free and these are known: what is claimed is told as slot and member, in the order of
/// turns. It costs what is free, not what the ring is long.
pub fn claim_free(
    slots: u32,
    free: &[u32],
    walks: &[Walk],
    weights: &[u32],
    quotas: &[u32],
    held: &[u32],
) -> Vec<(u32, u32)> {
    let mut claimed = Vec::with_capacity(free.len());
    let free = FreeSlots::listed(slots, free);
    claim_each(slots, free, walks, weights, quotas, held, |slot, member| {
        claimed.push((slot, member));
    });
    claimed
}

fn claim_each(
    slots: u32,
    mut free: FreeSlots,
    walks: &[Walk],
    weights: &[u32],
    quotas: &[u32],
    held: &[u32],
    mut claimed: impl FnMut(u32, u32),
) {
    let division = Division::by(slots.max(1));
    let mut next: Vec<u32> = walks.iter().map(|walk| walk.start).collect();
    let mut last_ones: Option<Vec<u32>> = None;
    for turn in turns(weights, quotas, held) {
        if free.left == 0 {
            return;
        }
        let member = turn as u32;
        let walk = &walks[member as usize];
        let slot = if free.are_few(slots) {
            let last_ones = last_ones.get_or_insert_with(|| free.list());
            let nearest = walk.nearest(last_ones, &division);
            last_ones.swap_remove(nearest)
        } else {
            let mut slot = next[member as usize];
            while !free.has(slot) {
                slot = step(slot, walk.skip, slots);
            }
            next[member as usize] = step(slot, walk.skip, slots);
            slot
        };
        free.take(slot);
        claimed(slot, member);
    }
}

/// All turns in order, each the round in the upper half and the member in the lower.
fn turns(weights: &[u32], quotas: &[u32], held: &[u32]) -> Vec<u64> {
    let heaviest = weights.iter().copied().max().unwrap_or(0) as u64;
    if weights.iter().all(|&weight| weight == 0 || weight as u64 == heaviest) {
        return turns_of_equals(weights, quotas, held);
    }
    let mut turns = Vec::new();
    for (member, &weight) in weights.iter().enumerate() {
        if weight > 0 {
            let round = |claim: u32| claim as u64 * heaviest / weight as u64;
            turns.extend((held[member]..quotas[member]).map(|k| (round(k) << 32) | member as u64));
        }
    }
    turns.sort_unstable();
    turns
}

/// The same where weights are equal (or 0), as they mostly are: one after the other, nothing to sort.
fn turns_of_equals(weights: &[u32], quotas: &[u32], held: &[u32]) -> Vec<u64> {
    let members = || (0..weights.len()).filter(|&member| weights[member] > 0);
    let first = members().map(|member| held[member]).min().unwrap_or(0);
    let last = members().map(|member| quotas[member]).max().unwrap_or(0);
    let mut turns = Vec::new();
    for round in first..last {
        let their = members().filter(|&member| (held[member]..quotas[member]).contains(&round));
        turns.extend(their.map(|member| ((round as u64) << 32) | member as u64));
    }
    turns
}

/// A bit for each slot: small enough for the first-level cache, where most of the time goes.
struct FreeSlots {
    bits: Vec<u64>,
    left: u32,
}

impl FreeSlots {
    fn of(member: &[u32]) -> Self {
        let mut free = Self { bits: vec![0; member.len().div_ceil(64)], left: 0 };
        for (slot, _) in member.iter().enumerate().filter(|(_, member)| **member == FREE) {
            free.bits[slot / 64] |= 1 << (slot % 64);
            free.left += 1;
        }
        free
    }

    fn listed(slots: u32, list: &[u32]) -> Self {
        let mut free = Self { bits: vec![0; slots.div_ceil(64) as usize], left: list.len() as u32 };
        for slot in list {
            free.bits[*slot as usize / 64] |= 1 << (slot % 64);
        }
        free
    }

    fn list(&self) -> Vec<u32> {
        let mut list = Vec::with_capacity(self.left as usize);
        for (word, &bits) in self.bits.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                list.push(word as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        list
    }

    /// Whether looking at each free slot is less work than walking to the next one.
    fn are_few(&self, slots: u32) -> bool {
        /// A look at a free slot costs so many steps.
        const LOOK: u64 = 2;
        LOOK * self.left as u64 * self.left as u64 <= slots as u64
    }

    fn has(&self, slot: u32) -> bool {
        self.bits[slot as usize / 64] >> (slot % 64) & 1 != 0
    }

    fn take(&mut self, slot: u32) {
        self.bits[slot as usize / 64] &= !(1 << (slot % 64));
        self.left -= 1;
    }
}

fn step(slot: u32, skip: u32, slots: u32) -> u32 {
    let next = slot + skip;
    if next >= slots { next - slots } else { next }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KEYS;

    fn filled(slots: u32, weights: &[u32]) -> Claims {
        let walks: Vec<Walk> =
            (0..weights.len()).map(|index| Walk::new(split_mix(index as u64), slots)).collect();
        let mut claims = Claims::free(slots);
        let quotas = quotas(slots, weights);
        claim(&mut claims, &walks, weights, &quotas, &vec![0; weights.len()]);
        claims
    }

    fn counts(claims: &Claims, members: usize) -> Vec<u32> {
        let mut counts = vec![0; members];
        for &member in claims.member.iter().filter(|&&member| member != FREE) {
            counts[member as usize] += 1;
        }
        counts
    }

    #[test]
    fn every_slot_is_claimed_and_shares_are_the_quotas() {
        for (slots, weights) in [
            (1, vec![1]),
            (2, vec![1, 1]),
            (6, vec![3, 2, 1]),
            (1021, vec![1, 10]),
            (1000, vec![7; 9]),
            (4093, (1..=40).collect()),
            (16381, vec![256, 1, 1, 1]),
            (65537, vec![100; 100]),
        ] {
            let claims = filled(slots, &weights);
            assert_eq!(
                counts(&claims, weights.len()),
                quotas(slots, &weights),
                "{slots} {weights:?}"
            );
        }
    }

    #[test]
    fn turns_of_equals_are_those_of_others() {
        let sorted = |weights: &[u32], quotas: &[u32], held: &[u32]| {
            let mut turns: Vec<u64> = (0..weights.len())
                .filter(|&member| weights[member] > 0)
                .flat_map(|member| {
                    (held[member]..quotas[member]).map(move |k| ((k as u64) << 32) | member as u64)
                })
                .collect();
            turns.sort_unstable();
            turns
        };
        for (weights, quotas, held) in [
            (vec![7; 5], vec![3, 4, 5, 4, 3], vec![0; 5]),
            (vec![1, 0, 1], vec![9, 9, 9], vec![2, 0, 9]),
            (vec![2, 2], vec![1, 1], vec![4, 0]),
            (vec![0, 0], vec![1, 1], vec![0, 0]),
            (vec![], vec![], vec![]),
        ] {
            let expected = sorted(&weights, &quotas, &held);
            assert_eq!(
                turns(&weights, &quotas, &held),
                expected,
                "{weights:?} {quotas:?} {held:?}"
            );
        }
    }

    #[test]
    fn quotas_are_exact_to_one_slot_and_leave_nobody_out() {
        for (slots, weights) in
            [(1021u32, vec![1u32, 10]), (4093, vec![256, 1, 1]), (65537, (0..300).collect())]
        {
            let quotas = quotas(slots, &weights);
            let total: u32 = weights.iter().sum();
            assert_eq!(quotas.iter().sum::<u32>(), slots);
            for (quota, weight) in quotas.iter().zip(&weights) {
                let ideal = slots as f64 * *weight as f64 / total as f64;
                assert!((*quota as f64 - ideal).abs() < 1.0, "{quota} for {ideal}");
            }
        }
        assert_eq!(quotas(10, &[1000, 1, 0, 1]), [8, 1, 0, 1]);
        assert_eq!(quotas(10, &[0, 0]), [0, 0]);
        assert_eq!(quotas(2, &[1, 1, 1]), [1, 1, 0]);
    }

    /// The rule in its plainest form: each walks until it finds a free slot.
    fn walked(slots: u32, free: &[u32], walks: &[Walk], turns: &[u64]) -> Vec<(u32, u32)> {
        let mut free: std::collections::BTreeSet<u32> = free.iter().copied().collect();
        let mut claimed = Vec::new();
        for turn in turns {
            let walk = &walks[*turn as u32 as usize];
            let mut slot = walk.start;
            if free.is_empty() {
                break;
            }
            while !free.remove(&slot) {
                slot = step(slot, walk.skip, slots);
            }
            claimed.push((slot, *turn as u32));
        }
        claimed
    }

    #[test]
    fn looking_for_the_nearest_free_slot_finds_what_walking_finds() {
        for (slots, free) in
            [(1u32, 1u32), (2, 1), (12, 3), (1000, 30), (1021, 700), (4093, 41), (65537, 170)]
        {
            for seed in 0..20u64 {
                let members = 7usize;
                let walks: Vec<Walk> = (0..members as u64)
                    .map(|index| Walk::new(split_mix(seed * 100 + index), slots))
                    .collect();
                let mut list: Vec<u32> = (0..slots).collect();
                list.sort_by_key(|slot| split_mix(u64::from(*slot) ^ seed << 32));
                list.truncate(free as usize);
                let weights: Vec<u32> = (0..members as u32).map(|index| index % 3 + 1).collect();
                let quotas = quotas(free, &weights);
                let held = vec![0; members];
                assert_eq!(
                    claim_free(slots, &list, &walks, &weights, &quotas, &held),
                    walked(slots, &list, &walks, &turns(&weights, &quotas, &held)),
                    "{slots} slots, {free} free, seed {seed}"
                );
            }
        }
    }

    #[test]
    fn remainders_and_inverses_are_exact() {
        for modulus in [1u32, 2, 3, 1021, 4093, 65_537, 655_373, u32::MAX] {
            let division = Division::by(modulus);
            for seed in 0..1000u64 {
                let value = split_mix(seed) % (u64::from(modulus) * u64::from(modulus)).max(1);
                assert_eq!(division.remainder(value), value % u64::from(modulus), "{modulus}");
                let factor = (split_mix(!seed) % u64::from(modulus)) as u32;
                if modulus > 1 && greatest_common_divisor(factor, modulus) == 1 {
                    let product = u64::from(factor) * u64::from(inverse(factor, modulus));
                    assert_eq!(product % u64::from(modulus), 1, "{factor} modulo {modulus}");
                }
            }
        }
    }

    #[test]
    fn ranks_count_each_members_claims_in_its_own_order() {
        let claims = filled(1021, &[3, 2, 2]);
        for member in 0..3 {
            let mut ranks: Vec<u32> = (0..1021)
                .filter(|&slot| claims.member[slot] == member)
                .map(|slot| claims.rank[slot])
                .collect();
            ranks.sort_unstable();
            assert_eq!(ranks, (0..ranks.len() as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_walk_reaches_every_slot_whatever_the_length() {
        for slots in [1, 2, 3, 4, 6, 12, 1000, 1021, 1024] {
            for key in 0..50 {
                let walk = Walk::new(key, slots);
                let mut slot = walk.start;
                let mut seen = vec![false; slots as usize];
                for _ in 0..slots {
                    seen[slot as usize] = true;
                    slot = step(slot, walk.skip, slots);
                }
                assert!(seen.iter().all(|seen| *seen), "{slots} slots, key {key}: {walk:?}");
            }
        }
    }

    #[test]
    fn keys_of_members_depend_on_seed_address_and_port() {
        let address = |last: u8| Address::from(core::net::IpAddr::from([10, 0, 0, last]));
        let keys = [1u64; KEYS];
        let mut other = keys;
        other[KEYS - 1] = 2;
        let key = member_key(&keys, &address(1), 80);
        assert_eq!(key, member_key(&keys, &address(1), 80));
        assert_ne!(key, member_key(&keys, &address(2), 80));
        assert_ne!(key, member_key(&keys, &address(1), 81));
        assert_ne!(key, member_key(&other, &address(1), 80));
    }
}
