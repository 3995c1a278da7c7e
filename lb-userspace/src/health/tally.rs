//! What all probes of a target have found so far: for histograms, and for HAProxy's columns `chkfail`, `chkdown` and
//! `downtime`. Kept with the target's health, so that a restart of the daemon does not begin it anew.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{CheckCode, Outcome};
use crate::durations::Durations;

/// Counts; they never go back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Failed probes while the target was UP.
    pub failed: u64,
    /// Times it went from UP to DOWN.
    pub downs: u64,
    /// Seconds it was DOWN, up to when it last came UP.
    pub down_seconds: u64,
    /// Probes by what they found.
    pub codes: Codes,
    /// How long they took.
    pub durations: Durations,
}

/// Probes by [`CheckCode`], in the order of [`CheckCode::ALL`].
///
/// Written by their names, so that another version of lb, which knows more codes or fewer, can read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, u64>", into = "BTreeMap<String, u64>")]
pub struct Codes([u64; CheckCode::ALL.len()]);

impl Codes {
    fn count(&mut self, code: CheckCode) {
        self.0[code as usize] += 1;
    }

    /// By HAProxy's names; those that never occurred, too, since a counter that only appears with its first event hides
    /// that event from `rate()`.
    pub fn named(&self) -> BTreeMap<String, u64> {
        CheckCode::ALL.iter().map(|code| (code.name().to_owned(), self.0[*code as usize])).collect()
    }
}

impl From<BTreeMap<String, u64>> for Codes {
    fn from(named: BTreeMap<String, u64>) -> Self {
        Self(CheckCode::ALL.map(|code| named.get(code.name()).copied().unwrap_or(0)))
    }
}

impl From<Codes> for BTreeMap<String, u64> {
    fn from(codes: Codes) -> Self {
        codes.named()
    }
}

impl Tally {
    /// Counts a probe of a target that was `up` before it.
    pub(super) fn probe(&mut self, outcome: &Outcome, up: bool) {
        self.codes.count(outcome.code);
        self.failed += u64::from(up && outcome.good == Some(false));
        self.durations.add(outcome.duration);
    }

    /// Counts what clients' failures have done to a target that was `up` before it.
    pub(super) fn suspected(&mut self, up: bool) {
        self.codes.count(CheckCode::Hana);
        self.failed += u64::from(up);
    }

    /// The target has gone DOWN.
    pub(super) fn went_down(&mut self) {
        self.downs += 1;
    }

    /// The target is UP again.
    pub(super) fn came_up(&mut self, after: Duration) {
        self.down_seconds += after.as_secs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: CheckCode, milliseconds: u64) -> Outcome {
        Outcome::new(code, "", Duration::from_millis(milliseconds))
    }

    #[test]
    fn only_failures_of_an_up_target_count_as_failed() {
        let mut tally = Tally::default();
        tally.probe(&outcome(CheckCode::L4Con, 1), true);
        tally.probe(&outcome(CheckCode::L4Con, 1), false);
        tally.probe(&outcome(CheckCode::SockErr, 1), true);
        assert_eq!(tally.failed, 1);
        let named = tally.codes.named();
        assert_eq!((named["L4CON"], named["SOCKERR"], named["L7OK"]), (2, 1, 0));
        assert_eq!(named.len(), CheckCode::ALL.len());
    }

    #[test]
    fn a_state_of_before_counts_begins_at_none() {
        let old: crate::health::Health = serde_json::from_str(
            r#"{"up":true,"display":"UP","code":"L4OK","output":"","milliseconds":1.0,"changed_unix":7,"streak":0}"#,
        )
        .unwrap();
        assert_eq!(old.tally, Tally::default());
        let text = serde_json::to_string(&old).unwrap();
        assert_eq!(serde_json::from_str::<crate::health::Health>(&text).unwrap(), old);
    }
}
