//! How many flows another ring moves, and from whom to whom: exactly, by the hashes that find each slot.
//!
//! A flow's hash is one of 2^32 equally likely numbers, and a ring of `n` slots gives slot `i` the hashes from
//! `ceil(i * 2^32 / n)` up to where the next slot begins. So the share of flows between two backends is a count of
//! hashes, for rings of one length as for rings of two; only where the flows are hashed anew (`balance`) is it a
//! product of shares.

use std::collections::BTreeMap;

use lb_common::abi::BackendId;

/// Number of hashes.
const HASHES: u64 = 1 << 32;

/// What the change from one ring to another does to new flows. Shares are of all flows of the service, 0..=1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    /// Flows that reach another backend than before.
    pub share: f64,
    /// Slots of the new ring that change their owner; of a ring of another length, or asked by another hash, as many as the
    /// share is worth.
    pub slots: u32,
    /// By backend; those whose flows stay as they are, too.
    pub backends: BTreeMap<BackendId, Share>,
}

/// One backend's part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Its share before.
    pub before: f64,
    /// Its share then.
    pub after: f64,
    /// What comes from others.
    pub gained: f64,
    /// What goes to others.
    pub lost: f64,
}

/// Compares the owners of a ring's slots with those of the ring that replaces it. `rehashed`: flows are found in the new
/// one by another hash.
pub fn moves(before: &[BackendId], after: &[BackendId], rehashed: bool) -> Moves {
    if before.is_empty() || after.is_empty() {
        return Moves::default();
    }
    let pairs = match rehashed {
        true => by_chance(before, after),
        false => overlaps(before, after),
    };
    let mut moves = Moves::default();
    for ((from, to), share) in pairs {
        moves.backends.entry(from).or_default().before += share;
        moves.backends.entry(to).or_default().after += share;
        if from != to {
            moves.share += share;
            moves.backends.entry(from).or_default().lost += share;
            moves.backends.entry(to).or_default().gained += share;
        }
    }
    moves.slots = match before.len() == after.len() && !rehashed {
        true => before.iter().zip(after).filter(|(before, after)| before != after).count() as u32,
        false => (moves.share * after.len() as f64).round() as u32,
    };
    moves
}

type Pairs = BTreeMap<(BackendId, BackendId), f64>;

/// The hashes that lead to each pair of owners.
fn overlaps(before: &[BackendId], after: &[BackendId]) -> Pairs {
    let mut counts = BTreeMap::<(BackendId, BackendId), u64>::new();
    let (mut old, mut new, mut place) = (0, 0, 0);
    // Runs of one pair are counted together: the map is asked seldom.
    let (mut pair, mut run) = ((before[0], after[0]), 0);
    while place < HASHES {
        let end = first_hash(old + 1, before.len()).min(first_hash(new + 1, after.len()));
        if pair != (before[old], after[new]) {
            *counts.entry(pair).or_default() += run;
            (pair, run) = ((before[old], after[new]), 0);
        }
        run += end - place;
        old += usize::from(first_hash(old + 1, before.len()) == end);
        new += usize::from(first_hash(new + 1, after.len()) == end);
        place = end;
    }
    *counts.entry(pair).or_default() += run;
    counts.into_iter().map(|(pair, count)| (pair, count as f64 / HASHES as f64)).collect()
}

/// Flows meet slots anew: whom they had says nothing about whom they get.
fn by_chance(before: &[BackendId], after: &[BackendId]) -> Pairs {
    let (before, after) = (shares(before), shares(after));
    let pair = |(from, had): (&BackendId, &f64)| {
        let (from, had) = (*from, *had);
        after.iter().map(move |(to, gets)| ((from, *to), had * gets)).collect::<Vec<_>>()
    };
    before.iter().flat_map(pair).collect()
}

/// Each owner's share of the hashes.
fn shares(ring: &[BackendId]) -> BTreeMap<BackendId, f64> {
    let mut counts = BTreeMap::<BackendId, u64>::new();
    for (slot, owner) in ring.iter().enumerate() {
        let hashes = first_hash(slot + 1, ring.len()) - first_hash(slot, ring.len());
        *counts.entry(*owner).or_default() += hashes;
    }
    counts.into_iter().map(|(owner, count)| (owner, count as f64 / HASHES as f64)).collect()
}

/// The first hash of a slot: the smallest `hash` with `hash * slots / 2^32 >= slot`.
fn first_hash(slot: usize, slots: usize) -> u64 {
    ((slot as u64) << 32).div_ceil(slots as u64)
}

#[cfg(test)]
mod tests {
    use lb_common::hash::slot_of;
    use proptest::prelude::*;

    use super::*;

    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);

    #[test]
    fn slots_begin_where_the_packet_path_finds_them() {
        for slots in [1, 3, 1_021, 4_093, 65_537, 655_373] {
            for slot in (0..slots).step_by(1 + slots / 1_000) {
                let first = first_hash(slot, slots);
                assert_eq!(slot_of(first as u32, slots as u32), slot as u32);
                if first > 0 {
                    assert_eq!(slot_of((first - 1) as u32, slots as u32), slot as u32 - 1);
                }
            }
        }
    }

    #[test]
    fn a_slot_is_worth_its_hashes() {
        let moved = moves(&[A, A, A, A], &[A, B, A, A], false);
        assert_eq!((moved.share, moved.slots), (0.25, 1));
        assert_eq!(moved.backends[&A], Share { before: 1.0, after: 0.75, gained: 0.0, lost: 0.25 });
        assert_eq!(moved.backends[&B], Share { before: 0.0, after: 0.25, gained: 0.25, lost: 0.0 });
        // Halves against quarters: only the third quarter changes hands.
        let moved = moves(&[A, B], &[A, A, A, B], false);
        assert_eq!((moved.share, moved.slots), (0.25, 1));
        assert_eq!(moves(&[A, B], &[A, A, B, B], false).share, 0.0);
        // By another hash, half of each half finds its backend again.
        assert_eq!(moves(&[A, B], &[A, B], true).share, 0.5);
        assert_eq!(moves(&[], &[A], false), Moves::default());
    }

    fn ring(most: usize) -> impl Strategy<Value = Vec<BackendId>> {
        prop::collection::vec((1u32..6).prop_map(BackendId), 1..most)
    }

    proptest! {
        #[test]
        fn the_share_is_that_of_all_hashes(before in ring(60), after in ring(60)) {
            let moved = moves(&before, &after, false);
            // One hash in a million stands for its neighbours: off by at most one for each border between slots.
            let (mut seen, mut other) = (0u64, 0u64);
            for hash in (0..u32::MAX).step_by(1_000_003) {
                let owner = |ring: &[BackendId]| ring[slot_of(hash, ring.len() as u32) as usize];
                seen += 1;
                other += u64::from(owner(&before) != owner(&after));
            }
            let measured = other as f64 / seen as f64;
            let borders = (before.len() + after.len()) as f64;
            prop_assert!((moved.share - measured).abs() <= borders / seen as f64, "{moved:?} {measured}");
        }

        #[test]
        fn what_some_lose_others_gain(before in ring(60), after in ring(60), rehashed: bool) {
            let moved = moves(&before, &after, rehashed);
            let sum = |part: fn(&Share) -> f64| moved.backends.values().map(part).sum::<f64>();
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            prop_assert!(near(sum(|share| share.before), 1.0) && near(sum(|share| share.after), 1.0));
            prop_assert!(near(sum(|share| share.gained), moved.share));
            prop_assert!(near(sum(|share| share.lost), moved.share));
            for share in moved.backends.values() {
                prop_assert!(near(share.before - share.lost + share.gained, share.after));
            }
            prop_assert_eq!(moves(&before, &before, false).share, 0.0);
        }
    }
}
