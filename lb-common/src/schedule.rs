//! The order of turns of `rr` and `wrr`: each member as often as its weight says, and as evenly spread as that can be. For the
//! controller.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::maglev::quotas;

/// Longest schedule of members whose weights have no common divisor, unless there are more members than a sixteenth of it.
const LONGEST: u32 = 4_096;

/// Members (indexes into `weights`) in the order of their turns. In every stretch from the beginning each member has had its exact
/// share of turns, to less than one: turn k of a member with q of N turns falls between `k N / q` and `(k + 1) N / q`
/// (the windows of P-fair scheduling, for which the earliest deadline first finds a place for every turn).
pub fn schedule(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
    if divisor == 0 {
        return Vec::new();
    }
    let members = weights.iter().filter(|weight| **weight > 0).count() as u32;
    let exact: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let longest = LONGEST.max(members.saturating_mul(16));
    let turns = match exact <= u64::from(longest) {
        true => weights.iter().map(|weight| weight / divisor).collect(),
        false => quotas(longest, weights),
    };
    order(&turns)
}

fn order(turns: &[u32]) -> Vec<u32> {
    let length: u64 = turns.iter().copied().map(u64::from).sum();
    // (first place of the turn's window, member, number of the turn)
    let mut waiting: BinaryHeap<Reverse<(u64, u32, u64)>> = BinaryHeap::new();
    // (end of the window, member, number of the turn)
    let mut ready: BinaryHeap<Reverse<(u64, u32, u64)>> = BinaryHeap::new();
    for (member, _) in (0..).zip(turns).filter(|(_, turns)| **turns > 0) {
        waiting.push(Reverse((0, member, 0)));
    }
    let mut order = Vec::with_capacity(length as usize);
    for place in 0..length {
        while let Some(&Reverse((first, member, turn))) = waiting.peek()
            && first <= place
        {
            waiting.pop();
            let end = ((turn + 1) * length).div_ceil(u64::from(turns[member as usize]));
            ready.push(Reverse((end, member, turn)));
        }
        let Some(Reverse((_, member, turn))) = ready.pop() else { break };
        order.push(member);
        let of_member = u64::from(turns[member as usize]);
        if turn + 1 < of_member {
            waiting.push(Reverse(((turn + 1) * length / of_member, member, turn + 1)));
        }
    }
    order
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In every prefix each member has had its share, to less than one turn (wrr's definition).
    fn assert_smooth(schedule: &[u32], shares: &[u32]) {
        let length: u64 = shares.iter().copied().map(u64::from).sum();
        assert_eq!(schedule.len() as u64, length, "{shares:?}");
        let mut had = vec![0u64; shares.len()];
        for (place, member) in schedule.iter().enumerate() {
            had[*member as usize] += 1;
            for (member, share) in shares.iter().enumerate() {
                let due = (place as u64 + 1) * u64::from(*share);
                let error = (had[member] * length).abs_diff(due);
                assert!(error < length, "member {member} at {place} of {shares:?}: {schedule:?}");
            }
        }
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(schedule(&[100, 100, 100]), [0, 1, 2]);
        assert_eq!(schedule(&[7]), [0]);
        assert_eq!(schedule(&[0, 5, 0, 5]), [1, 3]);
        assert!(schedule(&[]).is_empty() && schedule(&[0, 0]).is_empty());
    }

    #[test]
    fn weights_with_a_common_divisor_make_a_short_schedule() {
        assert_smooth(&schedule(&[50, 10, 10]), &[5, 1, 1]);
        assert_smooth(&schedule(&[256, 64, 16]), &[16, 4, 1]);
    }

    #[test]
    fn many_uneven_weights_are_rounded_to_a_bounded_length() {
        let weights: Vec<u32> = (1..=256).collect();
        let turns = schedule(&weights);
        assert_eq!(turns.len(), 4_096);
        let total: u32 = weights.iter().sum();
        for (member, weight) in (0..).zip(&weights) {
            let had = turns.iter().filter(|turn| **turn == member).count() as f64;
            let due = 4_096.0 * f64::from(*weight) / f64::from(total);
            assert!((had - due).abs() <= 1.0, "weight {weight}: {had} of {due:.2}");
        }
    }

    proptest! {
        #[test]
        fn every_stretch_is_fair(weights in proptest::collection::vec(0u32..=256, 1..12)) {
            let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
            prop_assume!(divisor > 0);
            let shares: Vec<u32> = weights.iter().map(|weight| weight / divisor).collect();
            assert_smooth(&schedule(&weights), &shares);
        }
    }
}
