//! What has happened to a service so far, for HAProxy's columns `lastchg`, `chkdown` and `downtime`, and how much its ring
//! has changed. Outlives the daemon.

use serde::{Deserialize, Serialize};

/// One service's past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Whether it has a usable backend; `None` = its first probes have not all answered.
    up: Option<bool>,
    /// When `up` last changed, or was first known, seconds of Unix time.
    changed_unix: u64,
    /// Times it went DOWN.
    pub downs: u64,
    /// Seconds it was DOWN, up to when it last came up.
    down_seconds: u64,
    /// Slots that have changed their owner.
    pub moved_slots: u64,
}

impl History {
    /// The service's state now.
    pub fn note(&mut self, unix: u64, up: bool) {
        if self.up == Some(up) {
            return;
        }
        match self.up {
            Some(true) => self.downs += 1,
            Some(false) => self.down_seconds += unix.saturating_sub(self.changed_unix),
            None => {}
        }
        self.up = Some(up);
        self.changed_unix = unix;
    }

    /// Seconds since the last change.
    pub fn last_change_seconds(&self, unix: u64) -> u64 {
        if self.up.is_none() { 0 } else { unix.saturating_sub(self.changed_unix) }
    }

    /// Seconds it has been DOWN in all.
    pub fn down_seconds(&self, unix: u64) -> u64 {
        let now = if self.up == Some(false) { self.last_change_seconds(unix) } else { 0 };
        self.down_seconds + now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downtime_goes_on_while_it_is_down() {
        let mut history = History::default();
        assert_eq!((history.last_change_seconds(50), history.down_seconds(50)), (0, 0));
        history.note(100, true);
        history.note(110, true);
        assert_eq!((history.last_change_seconds(120), history.downs), (20, 0));
        history.note(130, false);
        assert_eq!((history.down_seconds(135), history.downs), (5, 1));
        history.note(140, true);
        assert_eq!((history.down_seconds(200), history.last_change_seconds(200)), (10, 60));
    }

    #[test]
    fn a_service_that_begins_down_has_not_gone_down() {
        let mut history = History::default();
        history.note(100, false);
        assert_eq!((history.downs, history.down_seconds(103)), (0, 3));
    }
}
