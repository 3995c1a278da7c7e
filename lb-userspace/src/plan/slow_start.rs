//! HAProxy's `slowstart`: how far a backend that comes back has come. Pure; times are milliseconds of CLOCK_MONOTONIC, which
//! outlives the daemon as the maps do.

use std::time::Duration;

use super::members::Candidate;

/// Percent that one step adds.
const STEP: u8 = 5;

/// One backend's way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowStart {
    /// It was found not to work, or taken out, and is not back yet.
    away: bool,
    /// When it came back, while it is on its way.
    since: Option<u64>,
}

impl SlowStart {
    /// As it was left.
    pub fn resume(since: Option<u64>) -> Self {
        Self { away: false, since }
    }

    /// When it came back, for whoever goes on after this daemon.
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// Takes in what is known now. `known`: its checks have answered, or it has none; before that it is neither away nor
    /// back, so that nobody who starts with lb starts slowly.
    pub fn look(&mut self, candidate: &Candidate, known: bool, length: Duration, now: u64) {
        if candidate.is_out() || candidate.removed || known && !candidate.works() {
            *self = Self { away: true, since: None };
        } else if known && self.away {
            self.away = false;
            self.since = (length > Duration::ZERO).then_some(now);
        }
        if self.percent(length, now) == 100 {
            self.since = None;
        }
    }

    /// How far it has come: steps of 5 %, from 5 to 100.
    pub fn percent(&self, length: Duration, now: u64) -> u8 {
        let Some(since) = self.since else { return 100 };
        let (passed, all) = (u128::from(now.saturating_sub(since)), length.as_millis());
        if passed >= all {
            return 100;
        }
        let percent = (100 * passed / all) as u8;
        (percent / STEP * STEP).max(STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn healthy(healthy: bool) -> Candidate {
        Candidate { healthy, ..Candidate::default() }
    }

    #[test]
    fn who_starts_with_the_daemon_is_there_at_once() {
        let mut start = SlowStart::default();
        start.look(&healthy(false), false, LENGTH, 0);
        start.look(&healthy(true), true, LENGTH, 100);
        assert_eq!(start.percent(LENGTH, 100), 100);
    }

    #[test]
    fn who_was_down_comes_back_in_steps() {
        let mut start = SlowStart::default();
        start.look(&healthy(true), true, LENGTH, 0);
        start.look(&healthy(false), true, LENGTH, 1_000);
        assert_eq!(start.percent(LENGTH, 1_000), 100, "nothing counts while it is away");
        start.look(&healthy(true), true, LENGTH, 2_000);
        let steps: Vec<u8> = [2_000, 2_600, 7_000, 7_499, 7_500, 11_999, 12_000]
            .map(|now| start.percent(LENGTH, now))
            .into();
        assert_eq!(steps, [5, 5, 50, 50, 55, 95, 100]);
        let mut again = SlowStart::resume(start.since());
        assert_eq!(again.percent(LENGTH, 7_000), 50, "another daemon goes on");
        again.look(&healthy(true), true, LENGTH, 7_000);
        assert_eq!(again.percent(LENGTH, 7_000), 50);
        again.look(&healthy(true), true, LENGTH, 12_000);
        assert_eq!(again.since(), None, "through");
        again.look(&healthy(false), true, LENGTH, 13_000);
        again.look(&healthy(true), true, Duration::ZERO, 14_000);
        assert_eq!(again.percent(Duration::ZERO, 14_000), 100, "it was taken out of the file");
    }

    #[test]
    fn down_again_on_its_way_begins_anew() {
        let mut start = SlowStart::default();
        for (up, now) in [(false, 0), (true, 1_000), (false, 5_000), (true, 6_000)] {
            start.look(&healthy(up), true, LENGTH, now);
        }
        assert_eq!(start.percent(LENGTH, 6_100), 5);
    }

    #[test]
    fn maintenance_counts_and_drain_does_not() {
        use crate::plan::members::Admin;
        for (admin, percent) in [(Admin::Maint, 5), (Admin::Drain, 100)] {
            let mut start = SlowStart::default();
            start.look(&Candidate { admin, ..healthy(true) }, true, LENGTH, 0);
            start.look(&healthy(true), true, LENGTH, 10);
            assert_eq!(start.percent(LENGTH, 10), percent, "{admin:?}");
        }
    }
}
