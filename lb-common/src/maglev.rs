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
    let mut free = FreeSlots::of(&claims.member);
    let mut held = held.to_vec();
    let mut next: Vec<u32> = walks.iter().map(|walk| walk.start).collect();
    for turn in turns(weights, quotas, &held) {
        if free.left == 0 {
            return;
        }
        let member = turn as u32 as usize;
        let (mut slot, skip) = (next[member], walks[member].skip);
        while !free.has(slot) {
            slot = step(slot, skip, slots);
        }
        free.take(slot);
        claims.member[slot as usize] = member as u32;
        claims.rank[slot as usize] = held[member];
        held[member] += 1;
        next[member] = step(slot, skip, slots);
    }
}

/// All turns in order, each the round in the upper half and the member in the lower.
fn turns(weights: &[u32], quotas: &[u32], held: &[u32]) -> Vec<u64> {
    let heaviest = weights.iter().copied().max().unwrap_or(0) as u64;
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
