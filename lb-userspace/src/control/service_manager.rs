//! What systemd wants to hear (sd_notify(3)): readiness, life, the end. Nothing happens without `NOTIFY_SOCKET`.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The service manager, if there is one.
pub(super) struct ServiceManager {
    /// How often it wants a sign of life, halved.
    interval: Option<Duration>,
    fed: Instant,
}

impl ServiceManager {
    /// By what the environment says.
    pub(super) fn new() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|timeout| timeout / 2);
        Self { interval, fed: Instant::now() }
    }

    /// The first configuration is in force.
    pub(super) fn ready(&self, services: usize) {
        let text = format!("{services} services");
        tell(&[NotifyState::Ready, NotifyState::Status(&text)]);
    }

    /// A sign of life. To be called by the loop that does the work, so that it stops when that hangs.
    pub(super) fn feed(&mut self) {
        if self.interval.is_some_and(|interval| self.fed.elapsed() >= interval) {
            self.fed = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// The daemon ends; forwarding does not.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
