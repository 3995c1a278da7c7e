//! The sweep through the tables of tracked flows and remembered clients: what goes, and what is counted. Pure.

use lb_common::{
    abi::{Pin, RememberedSource, pin_flag},
    select::TOUCH_JIFFIES,
    track::is_open,
};

use super::sweep::{CROWDED, Clock, HANDSHAKE_SECONDS, YOUNG_SECONDS};

/// A flow's entry as the sweep finds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<'a> {
    /// The entry.
    pub entry: &'a Pin,
    /// It stands in `FLOWS` (else in `FLOWS_NEW`).
    pub confirmed: bool,
    /// Its service tracks its flows.
    pub tracked: bool,
    /// Its backend is DOWN.
    pub down: bool,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An open connection (of UDP: a flow that goes on).
    Active,
    /// Not confirmed yet, or closed by one side.
    Inactive,
    /// It is removed.
    Gone,
}

/// Decides on one flow. `crowding`: how full the service's part of `FLOWS_NEW` is, 0..=1.
pub fn judge(found: &Found<'_>, clock: &Clock, crowding: f64) -> Kind {
    let entry = found.entry;
    let age = |since: u64| clock.now.saturating_sub(since);
    if age(entry.created) < YOUNG_SECONDS * clock.jiffies_per_second {
        return kind(found);
    }
    if !found.tracked {
        return Kind::Gone;
    }
    let is_confirmed = found.confirmed || entry.flags & pin_flag::PROMOTED != 0;
    let patience = match (is_confirmed, is_open(entry)) {
        // A backend that is DOWN for so long has lost its connections.
        (true, true) if found.down => clock.closing_idle_seconds.min(clock.idle_seconds),
        (true, true) => clock.idle_seconds,
        (true, false) => clock.closing_idle_seconds,
        (false, true) if crowding <= CROWDED => HANDSHAKE_SECONDS.min(clock.idle_seconds),
        (false, _) => YOUNG_SECONDS,
    };
    match age(entry.last_seen) > patience * clock.jiffies_per_second + TOUCH_JIFFIES {
        true => Kind::Gone,
        false => kind(found),
    }
}

fn kind(found: &Found<'_>) -> Kind {
    let is_confirmed = found.confirmed || found.entry.flags & pin_flag::PROMOTED != 0;
    if is_confirmed && is_open(found.entry) { Kind::Active } else { Kind::Inactive }
}

/// Whether a client is to be forgotten: its service does not remember any more, its backend is gone, or it has been silent for longer
/// than `idle` jiffies.
pub fn is_forgotten(source: &RememberedSource, usable: bool, idle: u64, now: u64) -> bool {
    !usable || now.saturating_sub(source.last_seen) > idle + TOUCH_JIFFIES
}

/// By how much a number is wrong that packets change as they come, if that can be told: it was the same before and after the count.
pub const fn drift(before: u64, after: u64, counted: u64) -> Option<i64> {
    if before != after || counted == after {
        return None;
    }
    Some(counted.wrapping_sub(after) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock {
        now: 1_000_000,
        now_seconds: 10_000,
        jiffies_per_second: 250,
        idle_seconds: 900,
        closing_idle_seconds: 120,
    };

    fn entry(silent_seconds: u64, flags: u32) -> Pin {
        let last_seen = CLOCK.now - silent_seconds * CLOCK.jiffies_per_second;
        Pin { flags, last_seen, created: 0, ..Pin::default() }
    }

    #[test]
    fn each_state_has_its_patience() {
        let closing = pin_flag::CLOSING;
        for (confirmed, flags, down, crowding, patience, kind) in [
            (true, 0, false, 1.0, 900, Kind::Active),
            (true, 0, true, 0.0, 120, Kind::Active),
            (true, closing, false, 0.0, 120, Kind::Inactive),
            (false, pin_flag::PROMOTED, false, 1.0, 900, Kind::Active),
            (false, 0, false, 0.5, HANDSHAKE_SECONDS, Kind::Inactive),
            (false, 0, false, 0.9, YOUNG_SECONDS, Kind::Inactive),
            (false, closing, false, 0.0, YOUNG_SECONDS, Kind::Inactive),
        ] {
            let at = |seconds| {
                let entry = entry(seconds, flags);
                let found = Found { entry: &entry, confirmed, tracked: true, down };
                judge(&found, &CLOCK, crowding)
            };
            // An entry is written so seldom that it is up to 256 jiffies younger than it says.
            assert_eq!(at(patience + 1), kind, "{confirmed} {flags:#x} {down} {crowding}");
            assert_eq!(at(patience + 2), Kind::Gone, "{confirmed} {flags:#x} {down} {crowding}");
        }
    }

    #[test]
    fn flows_of_services_that_do_not_track_go_unless_they_are_young() {
        let old = entry(0, 0);
        let young = Pin { created: CLOCK.now - 4 * CLOCK.jiffies_per_second, ..old };
        for (entry, kind) in [(old, Kind::Gone), (young, Kind::Active)] {
            let found = Found { entry: &entry, confirmed: true, tracked: false, down: false };
            assert_eq!(judge(&found, &CLOCK, 0.0), kind);
        }
    }

    #[test]
    fn clients_are_forgotten_after_their_time_or_with_their_backend() {
        let source = RememberedSource { last_seen: 10_000, ..RememberedSource::default() };
        assert!(!is_forgotten(&source, true, 500, 10_756));
        assert!(is_forgotten(&source, true, 500, 10_757));
        assert!(is_forgotten(&source, false, 500, 10_000));
        assert!(!is_forgotten(&source, true, 500, 9_999), "from the next jiffy");
    }

    #[test]
    fn only_what_stands_still_is_corrected() {
        assert_eq!(drift(5, 5, 7), Some(2));
        assert_eq!(drift(5, 5, 4), Some(-1));
        assert_eq!((drift(5, 5, 5), drift(5, 6, 7)), (None, None));
    }
}
