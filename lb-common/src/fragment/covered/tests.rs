use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn units(run: u32) -> std::ops::Range<u32> {
    run >> 16..run & 0xffff
}

fn new(start: u32, end: u32) -> u32 {
    start << 16 | end
}

#[test]
fn a_packet_in_order_is_one_run() {
    let mut covered = Covered::first(new(0, 185));
    for piece in 1..43 {
        assert!(!covered.is_complete());
        assert_eq!(covered.add(new(piece * 185, piece * 185 + 185), false), Fit::New);
        assert_eq!(covered.runs.iter().filter(|run| **run != 0).count(), 1);
    }
    assert_eq!(covered.add(new(43 * 185, 8_192), true), Fit::New);
    assert!(covered.is_complete());
    assert_eq!(covered.add(new(8_191, 8_192), true), Fit::Overlap);
}

#[test]
fn a_gap_keeps_it_from_being_complete() {
    let mut covered = Covered::first(new(0, 10));
    assert_eq!(covered.add(new(20, 30), true), Fit::New);
    assert!(!covered.is_complete());
    for overlapping in [new(0, 10), new(9, 11), new(19, 21), new(29, 40), new(10, 21), new(0, 31)] {
        let before = covered;
        assert_eq!(covered.add(overlapping, false), Fit::Overlap, "{:?}", units(overlapping));
        assert_eq!(covered, before);
    }
    assert_eq!(covered.add(new(10, 20), false), Fit::New);
    assert!(covered.is_complete());
}

#[test]
fn more_runs_than_there_is_room_for_are_refused() {
    let mut covered = Covered::first(new(0, 1));
    for number in 1..RUNS as u32 {
        assert_eq!(covered.add(new(number * 10, number * 10 + 1), false), Fit::New);
    }
    let full = covered;
    assert_eq!(covered.add(new(100, 101), false), Fit::Scattered);
    assert_eq!(covered, full);
    // What closes a gap finds its place, and leaves one.
    assert_eq!(covered.add(new(1, 10), false), Fit::New);
    assert_eq!(covered.add(new(100, 101), true), Fit::New);
}

proptest! {
    /// As if each unit were remembered.
    #[test]
    fn as_a_set_of_units(first in 1u32..6, pieces in prop::collection::vec((1u32..40, 1u32..6, any::<bool>()), 0..40)) {
        let mut covered = Covered::first(new(0, first));
        let mut set: BTreeSet<u32> = (0..first).collect();
        let mut whole = None;
        for (start, length, is_last) in pieces {
            let run = new(start, start + length);
            let overlaps = units(run).any(|unit| set.contains(&unit));
            let mut then = set.clone();
            then.extend(units(run));
            let runs = then.iter().filter(|unit| !then.contains(&(*unit + 1))).count();
            let expected = match (overlaps, runs > RUNS) {
                (true, _) => Fit::Overlap,
                (false, true) => Fit::Scattered,
                (false, false) => Fit::New,
            };
            prop_assert_eq!(covered.add(run, is_last), expected);
            if expected == Fit::New {
                set = then;
                whole = if is_last { Some(start + length) } else { whole };
            }
            // What lies behind the end does not count.
            let run = set.iter().zip(0..).take_while(|(unit, place)| *unit == place).count() as u32;
            let complete = whole == Some(run);
            prop_assert_eq!(covered.is_complete(), complete);
        }
    }
}
