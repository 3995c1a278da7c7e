//! What the controller does to slots: a change of owner, and the way back to SETTLED. The packet path's half of the rule
//! is `lb_common::select`.
//!
//! Each function maps a slot to a slot, and each result may be stored at once and on its own: whatever other slots say,
//! a flow is right because its own slot is. So an apply that stops half-way, for good or until the next start, misdirects
//! nothing. Times are seconds of CLOCK_MONOTONIC.

use lb_common::abi::{BackendId, Phase, Slot, elapsed_seconds};

/// The slot once `new` owns it. `stateful`: the protocol has opening packets (TCP); otherwise flows follow the owner at
/// once.
pub fn change_owner(slot: Slot, new: BackendId, now: u64, stateful: bool) -> Slot {
    let old = slot.owner();
    if new == old {
        return slot;
    }
    if !stateful {
        return Slot::settled(new);
    }
    match slot.phase() {
        // Nobody's flows could open here: there are none to stay.
        Phase::Settled if old == BackendId::NONE => Slot::settled(new),
        Phase::Pinned if old == BackendId::NONE => {
            Slot::new(new, BackendId::NONE, Phase::Pinned, now)
        }
        Phase::Settled | Phase::Pinned => Slot::new(new, old, Phase::Window, now),
        // Flows without a pin are older than the window whoever owned the slot since: base and time stay.
        Phase::Window | Phase::Harvest => Slot::new(new, slot.base(), slot.phase(), slot.since()),
    }
}

/// A slot of a ring that replaces one of another length: its window's base is whatever the old ring says.
pub fn new_ring_slot(owner: BackendId, now: u64) -> Slot {
    Slot::new(owner, BackendId::OLD_RING, Phase::Window, now)
}

/// The slot after the time that has passed: WINDOW becomes HARVEST after `window_seconds`, HARVEST becomes PINNED after
/// `harvest_seconds`, but not while pins were refused within the last idle time (`refused_recently`): a flow that was
/// refused then has to be found in the base once more.
///
/// A phase lasts up to a second longer, never shorter: its beginning is known to the second only.
pub fn advance(
    slot: Slot,
    now: u64,
    window_seconds: u64,
    harvest_seconds: u64,
    refused_recently: bool,
) -> Slot {
    let elapsed = elapsed_seconds(slot.since(), now);
    match slot.phase() {
        Phase::Window if elapsed > window_seconds => {
            Slot::new(slot.owner(), slot.base(), Phase::Harvest, now)
        }
        Phase::Harvest if elapsed > harvest_seconds && !refused_recently => {
            Slot::new(slot.owner(), BackendId::NONE, Phase::Pinned, now)
        }
        _ => slot,
    }
}

/// The slot without the rest of its window: who is left on its base is looked for at once. A window only spares the pins of
/// flows that end within it, so it may end at any time.
pub fn harvest_at_once(slot: Slot, now: u64) -> Slot {
    match slot.phase() {
        Phase::Window => Slot::new(slot.owner(), slot.base(), Phase::Harvest, now),
        _ => slot,
    }
}

/// For how many seconds at most a slot may still have flows of its base that no pin names.
pub fn seconds_to_pinned(slot: Slot, now: u64, window_seconds: u64, harvest_seconds: u64) -> u64 {
    let elapsed = elapsed_seconds(slot.since(), now);
    // Each phase may last a second longer.
    match slot.phase() {
        Phase::Window => (window_seconds + 1).saturating_sub(elapsed) + harvest_seconds + 1,
        Phase::Harvest => (harvest_seconds + 1).saturating_sub(elapsed),
        Phase::Pinned | Phase::Settled => 0,
    }
}

/// The slot after its pins were counted: PINNED without pins is SETTLED. See [`super::sweep::Census`] for how a count can
/// be relied on.
pub fn settle(slot: Slot, has_pins: bool) -> Slot {
    match slot.phase() {
        Phase::Pinned if !has_pins => Slot::settled(slot.owner()),
        _ => slot,
    }
}

/// Whether the slot still asks the old ring. Once no slot of a ring does, the old ring may be dropped.
pub fn needs_old_ring(slot: Slot) -> bool {
    slot.base() == BackendId::OLD_RING && matches!(slot.phase(), Phase::Window | Phase::Harvest)
}

/// Which ring is the old one when a ring is to be replaced by one of another length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldRing {
    /// The ring being replaced.
    Current,
    /// The one that the ring being replaced still asks: all its slots are in the window of the earlier change, so flows
    /// without a pin are older than that.
    Previous,
    /// Neither: some slots have left the harvest of the earlier change and some have not. Try again once all have (at
    /// most the second or two for which phases of one change differ, or as long as pins are refused).
    NotYet,
}

/// Decides [`OldRing`] by the slots of the ring that is to be replaced.
pub fn old_ring(current: impl IntoIterator<Item = Slot>) -> OldRing {
    let (mut asking, mut slots) = (0usize, 0usize);
    for slot in current {
        slots += 1;
        asking += needs_old_ring(slot) as usize;
    }
    match asking {
        0 => OldRing::Current,
        _ if asking == slots => OldRing::Previous,
        _ => OldRing::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);
    const C: BackendId = BackendId(3);

    fn slot(owner: BackendId, base: BackendId, phase: Phase, since: u64) -> Slot {
        Slot::new(owner, base, phase, since)
    }

    #[test]
    fn a_window_may_end_at_once_and_nothing_else_does() {
        let window = slot(B, A, Phase::Window, 100);
        let harvest = slot(B, A, Phase::Harvest, 130);
        assert_eq!(harvest_at_once(window, 130), harvest);
        assert_eq!(harvest_at_once(harvest, 150), harvest);
        assert_eq!(harvest_at_once(Slot::settled(A), 150), Slot::settled(A));
        assert_eq!(seconds_to_pinned(window, 110, 30, 60), 21 + 61);
        assert_eq!(seconds_to_pinned(harvest, 150, 30, 60), 41);
        assert_eq!(seconds_to_pinned(harvest, 999, 30, 60), 0);
        assert_eq!(seconds_to_pinned(Slot::settled(A), 110, 30, 60), 0);
    }

    #[test]
    fn the_first_change_opens_a_window_and_later_ones_extend_nothing() {
        let window = change_owner(Slot::settled(A), B, 100, true);
        assert_eq!(window, slot(B, A, Phase::Window, 100));
        assert_eq!(change_owner(window, C, 200, true), slot(C, A, Phase::Window, 100));
        assert_eq!(change_owner(window, A, 200, true), slot(A, A, Phase::Window, 100));
        let harvest = slot(B, A, Phase::Harvest, 400);
        assert_eq!(change_owner(harvest, C, 500, true), slot(C, A, Phase::Harvest, 400));
        let pinned = slot(B, BackendId::NONE, Phase::Pinned, 900);
        assert_eq!(change_owner(pinned, C, 1000, true), slot(C, B, Phase::Window, 1000));
    }

    #[test]
    fn an_unchanged_owner_changes_nothing_in_any_phase() {
        for phase in [Phase::Settled, Phase::Window, Phase::Harvest, Phase::Pinned] {
            let before = slot(A, B, phase, 7);
            assert_eq!(change_owner(before, A, 99, true), before);
            assert_eq!(change_owner(before, A, 99, false), before);
        }
    }

    #[test]
    fn flows_without_opening_packets_follow_the_owner_at_once() {
        assert_eq!(change_owner(Slot::settled(A), B, 5, false), Slot::settled(B));
        assert_eq!(change_owner(slot(A, B, Phase::Window, 1), C, 5, false), Slot::settled(C));
    }

    #[test]
    fn a_slot_that_nobody_owned_has_no_flows_to_keep() {
        let none = BackendId::NONE;
        assert_eq!(change_owner(Slot::default(), A, 5, true), Slot::settled(A));
        assert_eq!(
            change_owner(slot(none, none, Phase::Pinned, 3), A, 5, true),
            slot(A, none, Phase::Pinned, 5)
        );
        // All drained, then one ready again: the flows from before are at the base all along.
        let drained = change_owner(Slot::settled(A), none, 5, true);
        assert_eq!(drained, slot(none, A, Phase::Window, 5));
        assert_eq!(change_owner(drained, B, 6, true), slot(B, A, Phase::Window, 5));
    }

    #[test]
    fn phases_last_at_least_their_time_and_wait_for_refused_pins() {
        let window = slot(B, A, Phase::Window, 100);
        assert_eq!(advance(window, 130, 30, 60, false), window);
        let harvest = advance(window, 131, 30, 60, true);
        assert_eq!(harvest, slot(B, A, Phase::Harvest, 131));
        assert_eq!(advance(harvest, 191, 30, 60, false), harvest);
        assert_eq!(advance(harvest, 500, 30, 60, true), harvest);
        let pinned = advance(harvest, 500, 30, 60, false);
        assert_eq!(pinned, slot(B, BackendId::NONE, Phase::Pinned, 500));
        assert_eq!(advance(pinned, 9999, 30, 60, false), pinned);
        assert_eq!(settle(pinned, true), pinned);
        assert_eq!(settle(pinned, false), Slot::settled(B));
        assert_eq!(settle(harvest, false), harvest);
    }

    #[test]
    fn the_seconds_of_a_slot_wrap_around() {
        let since = (1 << 14) - 5;
        let window = slot(B, A, Phase::Window, since);
        assert_eq!(advance(window, since + 30, 30, 60, false), window);
        assert_eq!(advance(window, since + 31, 30, 60, false).phase(), Phase::Harvest);
    }

    #[test]
    fn a_new_ring_keeps_the_old_one_through_window_and_harvest_whoever_owns_it() {
        let window = new_ring_slot(A, 10);
        assert!(needs_old_ring(window));
        let window = change_owner(window, B, 12, true);
        assert_eq!(window, slot(B, BackendId::OLD_RING, Phase::Window, 10));
        let harvest = advance(window, 50, 30, 60, false);
        assert!(needs_old_ring(harvest));
        assert!(!needs_old_ring(advance(harvest, 150, 30, 60, false)));
    }

    #[test]
    fn a_second_change_of_length_keeps_the_ring_that_knows_unpinned_flows() {
        let asking = new_ring_slot(A, 10);
        let done = slot(A, BackendId::NONE, Phase::Pinned, 10);
        assert_eq!(old_ring([done, Slot::settled(B)]), OldRing::Current);
        assert_eq!(old_ring([asking, change_owner(asking, B, 11, true)]), OldRing::Previous);
        assert_eq!(old_ring([asking, done]), OldRing::NotYet);
    }
}
