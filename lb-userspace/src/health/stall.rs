//! Whether this process itself was asleep: stopped (SIGSTOP), starved of CPU, or its machine suspended.
//!
//! A time-out in such a moment says nothing about a backend. A task that ought to run every [`BEAT`] notices when it
//! did not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

/// How often the heart beats.
const BEAT: Duration = Duration::from_millis(50);
/// A pause between beats that counts as sleep.
pub(super) const ASLEEP: Duration = Duration::from_millis(250);

/// The heartbeat; clones share it.
#[derive(Clone)]
pub(super) struct Heartbeat(Arc<Beats>);

struct Beats {
    epoch: Instant,
    /// Milliseconds since `epoch`.
    last: AtomicU64,
    /// The end of the last sleep that was noticed; 0 = never.
    woke: AtomicU64,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        let beats =
            Beats { epoch: Instant::now(), last: AtomicU64::new(0), woke: AtomicU64::new(0) };
        Self(Arc::new(beats))
    }

    /// Keeps it beating until the task is aborted.
    pub(super) fn spawn(&self) -> JoinHandle<()> {
        let heart = self.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(BEAT);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                heart.beat(Instant::now());
            }
        })
    }

    /// Whether the process was asleep at any time since `began`.
    pub(super) fn slept_since(&self, began: Instant, now: Instant) -> bool {
        let woke = self.0.woke.load(Ordering::Relaxed);
        // The heart itself may not have had its turn yet after waking up.
        self.asleep(now) || (woke != 0 && woke >= self.milliseconds(began))
    }

    fn beat(&self, now: Instant) {
        if self.asleep(now) {
            self.0.woke.store(self.milliseconds(now).max(1), Ordering::Relaxed);
        }
        self.0.last.store(self.milliseconds(now), Ordering::Relaxed);
    }

    fn asleep(&self, now: Instant) -> bool {
        let since = self.milliseconds(now).saturating_sub(self.0.last.load(Ordering::Relaxed));
        since > ASLEEP.as_millis() as u64
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_beat_is_noticed_before_and_after_the_heart_wakes_up() {
        let heart = Heartbeat::new();
        let at = |milliseconds| heart.0.epoch + Duration::from_millis(milliseconds);
        heart.beat(at(50));
        heart.beat(at(100));
        assert!(!heart.slept_since(at(60), at(120)));
        assert!(heart.slept_since(at(60), at(1000)), "before the heart has its turn");
        heart.beat(at(1001));
        assert!(heart.slept_since(at(60), at(1002)));
        assert!(heart.slept_since(at(1001), at(1010)), "began while waking up");
        assert!(!heart.slept_since(at(1002), at(1010)));
        heart.beat(at(1050));
        assert!(!heart.slept_since(at(1020), at(1060)));
    }
}
