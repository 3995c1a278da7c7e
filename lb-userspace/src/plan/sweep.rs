//! The sweep through the pin tables: which pins go, and which slots have none left.
//!
//! The packet path only ever adds pins; nobody but the sweep takes them away (except that a completed handshake replaces
//! the pin of an earlier flow).

use std::collections::{HashMap, HashSet};

use lb_common::{
    abi::{BackendId, Phase, Pin, Slot, elapsed_seconds, pin_flag},
    select::TOUCH_JIFFIES,
};

/// Age before which no pin goes, seconds: a handshake may be under way, or this sweep may have read the slot before the
/// window that the pin belongs to was opened.
pub const YOUNG_SECONDS: u64 = 5;

/// Life of a pin whose handshake does not complete, seconds: longer than a SYN-ACK is repeated (Linux: 63 s).
pub const HANDSHAKE_SECONDS: u64 = 75;

/// Fill of the unconfirmed table above which pins of [`YOUNG_SECONDS`] go: a SYN flood.
pub const CROWDED: f64 = 0.8;

/// The time and the service's idle times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Now, jiffies.
    pub now: u64,
    /// Now, seconds of CLOCK_MONOTONIC.
    pub now_seconds: u64,
    /// Jiffies in a second (HZ).
    pub jiffies_per_second: u64,
    /// Idle time of a flow, seconds.
    pub idle_seconds: u64,
    /// Idle time after FIN or RST, seconds.
    pub closing_idle_seconds: u64,
}

/// A pin as the sweep finds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<'a> {
    /// The pin.
    pub pin: &'a Pin,
    /// The slot of its flow now; `None` if the service is gone.
    pub slot: Option<Slot>,
    /// It stands in `PINS` (else in `PINS_NEW`).
    pub confirmed: bool,
    /// The same flow has a pin in the other table, too.
    pub partner: bool,
}

/// What becomes of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, and its slot has pins.
    Keep,
    /// It is removed from its table.
    Delete,
}

/// Decides on one pin. `crowding` is the fill of `PINS_NEW`, 0..=1.
pub fn judge(found: &Found<'_>, clock: &Clock, crowding: f64) -> Verdict {
    if goes(found, clock, crowding) { Verdict::Delete } else { Verdict::Keep }
}

fn goes(found: &Found<'_>, clock: &Clock, crowding: f64) -> bool {
    let pin = found.pin;
    let Some(slot) = found.slot else {
        return true;
    };
    let age = |since: u64| clock.now.saturating_sub(since);
    if age(pin.created) < YOUNG_SECONDS * clock.jiffies_per_second {
        return false;
    }
    let silent = age(pin.last_seen);
    // For a second at least: packets that read the slot before may still be looking for the pin.
    let since_pinned = elapsed_seconds(slot.since(), clock.now_seconds);
    let owned = slot.phase() == Phase::Pinned && since_pinned >= 2 && pin.backend == slot.owner();
    match slot.phase() {
        Phase::Settled => true,
        _ if found.confirmed || pin.flags & pin_flag::PROMOTED != 0 => {
            let idle = match pin.flags & pin_flag::CLOSING {
                0 => clock.idle_seconds,
                _ => clock.closing_idle_seconds,
            };
            // A pin whose flow is shaking hands again may be replaced between this look and the removal.
            let replaceable = found.confirmed && found.partner;
            !replaceable && (owned || silent > idle * clock.jiffies_per_second + TOUCH_JIFFIES)
        }
        _ => {
            let limit = if crowding > CROWDED { YOUNG_SECONDS } else { HANDSHAKE_SECONDS };
            // Without an earlier pin to replace, and with the owner for a backend, it changes nothing any more.
            let useless = owned && !found.partner;
            useless || silent > limit * clock.jiffies_per_second
        }
    }
}

/// A count of pins, taken by one sweep through both tables, `PINS_NEW` before `PINS` (a pin only ever moves that way).
///
/// A slot may settle if two sweeps in a row found it PINNED before they began, unchanged since, and without a pin. One
/// sweep is not enough: the kernel moves an entry that is replaced to the head of its hash chain, and a walk through the
/// table may then miss it.
#[derive(Clone, Debug, Default)]
pub struct Census {
    candidates: HashMap<u32, Slot>,
    occupied: HashSet<u32>,
    pins: HashMap<BackendId, u64>,
}

impl Census {
    /// Begins a count, before the first pin is looked at. `slots` are all slots with their places in the arena.
    pub fn begin(slots: impl IntoIterator<Item = (u32, Slot)>) -> Self {
        let pinned = |slot: &(u32, Slot)| slot.1.phase() == Phase::Pinned;
        Self { candidates: slots.into_iter().filter(pinned).collect(), ..Self::default() }
    }

    /// Counts a pin that stays. `slot` is the place of its flow's slot in the arena.
    pub fn note(&mut self, slot: u32, backend: BackendId) {
        self.occupied.insert(slot);
        *self.pins.entry(backend).or_default() += 1;
    }

    /// Number of pins that name a backend.
    pub fn pins_of(&self, backend: BackendId) -> u64 {
        self.pins.get(&backend).copied().unwrap_or(0)
    }

    /// Number of all pins.
    pub fn pins(&self) -> u64 {
        self.pins.values().sum()
    }

    /// Places and values of the slots that may settle, by this finished count and the one before it. Each is to be
    /// settled only if the arena still holds that value.
    pub fn settleable<'a>(&'a self, before: &'a Census) -> impl Iterator<Item = (u32, Slot)> + 'a {
        self.candidates.iter().map(|(&place, &slot)| (place, slot)).filter(|&(place, slot)| {
            before.candidates.get(&place) == Some(&slot)
                && !self.occupied.contains(&place)
                && !before.occupied.contains(&place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 250;
    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);

    fn clock() -> Clock {
        Clock {
            now: 10_000_000,
            now_seconds: 1_000,
            jiffies_per_second: HZ,
            idle_seconds: 900,
            closing_idle_seconds: 120,
        }
    }

    /// A pin made and last used so many seconds ago.
    fn pin(backend: BackendId, created: u64, seen: u64, flags: u32) -> Pin {
        let at = |seconds: u64| clock().now - seconds * HZ;
        Pin { backend, flags, created: at(created), last_seen: at(seen), ..Pin::default() }
    }

    fn slot(owner: BackendId, phase: Phase) -> Option<Slot> {
        Some(Slot::new(owner, B, phase, 100))
    }

    #[track_caller]
    fn check(pin: Pin, slot: Option<Slot>, confirmed: bool, partner: bool, fill: f64, gone: bool) {
        let found = Found { pin: &pin, slot, confirmed, partner };
        let expected = if gone { Verdict::Delete } else { Verdict::Keep };
        assert_eq!(judge(&found, &clock(), fill), expected, "{found:?}");
    }

    #[test]
    fn confirmed_pins_go_when_idle_and_sooner_when_closing() {
        for phase in [Phase::Window, Phase::Harvest, Phase::Pinned] {
            let slot = slot(A, phase);
            check(pin(B, 5000, 899, 0), slot, true, false, 1.0, false);
            check(pin(B, 5000, 902, 0), slot, true, false, 0.0, true);
            check(pin(B, 5000, 119, pin_flag::CLOSING), slot, true, false, 1.0, false);
            check(pin(B, 5000, 122, pin_flag::CLOSING), slot, true, false, 0.0, true);
            check(pin(B, 5000, 899, pin_flag::PROMOTED), slot, false, false, 1.0, false);
            check(pin(B, 5000, 902, pin_flag::PROMOTED), slot, false, false, 0.0, true);
        }
    }

    #[test]
    fn a_pin_is_written_so_seldom_that_it_outlives_the_idle_time_by_that() {
        let mut late = pin(B, 5000, 900, 0);
        late.last_seen -= TOUCH_JIFFIES;
        check(late, slot(A, Phase::Window), true, false, 0.0, false);
        late.last_seen -= 1;
        check(late, slot(A, Phase::Window), true, false, 0.0, true);
    }

    #[test]
    fn once_pinned_a_pin_to_the_owner_is_useless_unless_a_handshake_may_replace_it() {
        let owned = pin(A, 100, 0, 0);
        check(owned, slot(A, Phase::Window), true, false, 0.0, false);
        check(owned, slot(A, Phase::Harvest), true, false, 0.0, false);
        check(owned, slot(A, Phase::Pinned), true, false, 0.0, true);
        let just = Some(Slot::new(A, B, Phase::Pinned, clock().now_seconds - 1));
        check(owned, just, true, false, 0.0, false);
        check(owned, slot(A, Phase::Pinned), true, true, 0.0, false);
        check(owned, slot(A, Phase::Pinned), false, false, 0.0, true);
        check(owned, slot(A, Phase::Pinned), false, true, 0.0, false);
    }

    #[test]
    fn unconfirmed_pins_live_as_long_as_a_handshake_or_five_seconds_in_a_crowd() {
        let slot = slot(A, Phase::Window);
        check(pin(B, 100, 74, 0), slot, false, false, 0.8, false);
        check(pin(B, 100, 76, 0), slot, false, false, 0.0, true);
        check(pin(B, 100, 6, 0), slot, false, false, 0.81, true);
        check(pin(B, 100, 4, 0), slot, false, false, 1.0, false);
        check(pin(B, 4, 4, 0), slot, false, false, 1.0, false);
    }

    #[test]
    fn settled_slots_have_no_use_for_pins_but_a_young_one_may_know_better() {
        for confirmed in [false, true] {
            check(pin(B, 6, 0, 0), slot(A, Phase::Settled), confirmed, false, 0.0, true);
            check(pin(B, 4, 0, 0), slot(A, Phase::Settled), confirmed, false, 1.0, false);
            check(pin(B, 0, 0, 0), None, confirmed, false, 0.0, true);
        }
    }

    #[test]
    fn a_pin_from_the_next_jiffy_is_young() {
        let mut pin = pin(B, 0, 0, 0);
        pin.created = clock().now + 1;
        pin.last_seen = clock().now + 1;
        check(pin, slot(A, Phase::Settled), true, false, 1.0, false);
    }

    #[test]
    fn a_slot_settles_after_two_counts_without_a_pin() {
        let pinned = Slot::new(A, BackendId::NONE, Phase::Pinned, 5);
        let slots = [(0, pinned), (1, pinned), (2, pinned), (3, Slot::settled(A)), (4, pinned)];
        let mut first = Census::begin(slots);
        first.note(1, B);
        first.note(3, B);
        let mut changed = slots;
        changed[4].1 = Slot::new(A, BackendId::NONE, Phase::Pinned, 6);
        let mut second = Census::begin(changed);
        second.note(2, B);
        assert_eq!(second.settleable(&first).collect::<Vec<_>>(), [(0, pinned)]);
        assert_eq!(second.settleable(&Census::default()).count(), 0);
        assert_eq!((first.pins_of(B), first.pins_of(A), first.pins()), (2, 0, 2));
    }
}
