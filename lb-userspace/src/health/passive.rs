//! What clients' failures mean for a backend (`observe:`): pure, with time and failures as arguments.
//!
//! Failures count that come in a row, with no connection accepted in between, within `interval`, and from `min_sources`
//! clients at least: each client counts for its share of `error_limit` at most. A backend that is too busy for some of
//! its clients is not ejected: its load would break the others.
//!
//! An ejection takes `base_ejection`, doubled with each further one up to `max_ejection`; each `base_ejection` in the ring
//! takes one doubling back. Afterwards the backend is half open: until it has accepted `error_limit` connections, one failure
//! of each of `min_sources` clients ejects it again.
//!
//! Time is CLOCK_MONOTONIC since boot: it never jumps, and goes on across a restart of the daemon.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::model::Observe;

/// A client's failure, as the packet path tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub time: Duration,
    /// The client.
    pub source: IpAddr,
    /// Connections that the backend had accepted by then.
    pub answered: u64,
}

/// What is known of one backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passive {
    /// Failures in a row that count: network and time. At most `error_limit`.
    row: Vec<(IpAddr, Duration)>,
    /// [`Failure::answered`] of the last of them.
    answered: u64,
    /// What outlives the daemon.
    kept: Kept,
    /// Failures before this time are not looked at any more.
    deaf_until: Duration,
}

/// The part of [`Passive`] that outlives the daemon. Times are milliseconds since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// End of the ejection; `None` = it is not ejected.
    pub ejected_until: Option<u64>,
    /// Ejections that make the next one longer.
    pub doublings: u32,
    /// End of the last ejection.
    pub returned: u64,
    /// Half open: how many connections the backend had accepted when it returned.
    pub half_open: Option<u64>,
    /// All ejections so far.
    pub ejections: u64,
    /// Why it was last ejected, in words.
    pub cause: String,
}

impl Passive {
    /// As an earlier daemon left it.
    pub fn restored(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// To be kept.
    pub fn kept(&self) -> Kept {
        self.kept.clone()
    }

    /// Whether it is out of the ring.
    pub fn is_ejected(&self) -> bool {
        self.kept.ejected_until.is_some()
    }

    /// Whether it is back on trial.
    pub fn is_half_open(&self) -> bool {
        self.kept.half_open.is_some()
    }

    /// Time left of the ejection.
    pub fn ejected_for(&self, now: Duration) -> Option<Duration> {
        Some(Duration::from_millis(self.kept.ejected_until?).saturating_sub(now))
    }

    /// Takes a failure; true if the limit is reached. `answered` is how many connections the backend has accepted by now: if
    /// there were some since the failure, that is over.
    pub fn failed(&mut self, rules: &Observe, failure: &Failure, answered: u64) -> bool {
        self.hear(rules, failure.answered);
        if self.is_ejected() || failure.time < self.deaf_until || failure.answered != answered {
            return false;
        }
        self.row.retain(|(_, time)| *time + rules.interval > failure.time);
        let (sources, limit) = (usize::from(rules.min_sources).max(1), self.limit(rules));
        let source = network(failure.source);
        let share = limit.div_ceil(sources);
        // A client's last word counts, not its first.
        if self.of(source) >= share {
            self.forget_first(|known| known == source);
        }
        self.row.push((source, failure.time));
        if self.row.len() < limit {
            return false;
        }
        let clients: HashSet<IpAddr> = self.row.iter().map(|(known, _)| *known).collect();
        if clients.len() < sources {
            // Fewer clients than failures: one has several.
            let several: HashSet<IpAddr> =
                clients.into_iter().filter(|known| self.of(*known) > 1).collect();
            self.forget_first(|known| several.contains(&known));
            return false;
        }
        self.row.clear();
        true
    }

    /// Failures in a row that are too many now.
    pub fn limit(&self, rules: &Observe) -> usize {
        let sources = usize::from(rules.min_sources).max(1);
        match self.is_half_open() {
            true => sources,
            false => usize::from(rules.error_limit).max(sources),
        }
    }

    fn of(&self, source: IpAddr) -> usize {
        self.row.iter().filter(|(known, _)| *known == source).count()
    }

    fn forget_first(&mut self, is_meant: impl Fn(IpAddr) -> bool) {
        if let Some(first) = self.row.iter().position(|(known, _)| is_meant(*known)) {
            self.row.remove(first);
        }
    }

    /// Takes notice of how many connections the backend has accepted.
    pub fn hear(&mut self, rules: &Observe, answered: u64) {
        if answered != self.answered {
            self.answered = answered;
            self.row.clear();
        }
        let enough = u64::from(rules.error_limit);
        if self.kept.half_open.is_some_and(|before| answered.wrapping_sub(before) >= enough) {
            self.kept.half_open = None;
        }
    }

    /// Ejects it; returns for how long.
    pub fn eject(&mut self, rules: &Observe, now: Duration, cause: &str) -> Duration {
        let base = rules.base_ejection.max(Duration::from_millis(1));
        let good = now.saturating_sub(Duration::from_millis(self.kept.returned));
        let back = u32::try_from(good.as_millis() / base.as_millis()).unwrap_or(u32::MAX);
        let doublings = self.kept.doublings.saturating_sub(back).min(31);
        let time = base.saturating_mul(1 << doublings).min(rules.max_ejection);
        self.kept = Kept {
            ejected_until: Some((now + time).as_millis() as u64),
            doublings: doublings + 1,
            returned: self.kept.returned,
            half_open: None,
            ejections: self.kept.ejections + 1,
            cause: cause.to_owned(),
        };
        self.row.clear();
        time
    }

    /// Brings it back if its time is over; true if it was. `answered` is how many connections it has accepted.
    pub fn end(&mut self, now: Duration, answered: u64) -> bool {
        if self.ejected_for(now).is_none_or(|left| left > Duration::ZERO) {
            return false;
        }
        self.kept.ejected_until = None;
        self.kept.returned = now.as_millis() as u64;
        self.kept.half_open = Some(answered);
        self.row.clear();
        true
    }

    /// Forgets everything that speaks against it; true if it was ejected.
    pub fn forgive(&mut self) -> bool {
        let was = self.is_ejected();
        let Kept { ejections, cause, .. } = std::mem::take(&mut self.kept);
        *self = Self::restored(Kept { ejections, cause, ..Kept::default() });
        was
    }

    /// Looks at no failure for a while.
    pub fn be_deaf(&mut self, until: Duration) {
        self.deaf_until = until;
    }
}

/// A service's backends, as far as an ejection depends on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Wanted for new flows by the file and the operator.
    pub wanted: usize,
    /// Of these, ejected.
    pub ejected: usize,
    /// Of these, usable: healthy and not ejected. The one in question is among them.
    pub usable: usize,
}

/// Whether one more usable backend may be ejected, or why not. (Quorum and panic threshold are `plan::members`' to judge.)
pub fn may_eject(census: Census, rules: &Observe) -> Result<(), String> {
    let left = census.usable.saturating_sub(1);
    if left == 0 {
        return Err("it is the last one that is usable".to_owned());
    }
    let percent = rules.max_ejection_percent;
    if census.ejected > 0 && (census.ejected + 1) * 100 > census.wanted * usize::from(percent) {
        return Err(format!(
            "{} of {} are ejected, and no more than {percent} % may be",
            census.ejected, census.wanted
        ));
    }
    Ok(())
}

/// What counts as one client: an IPv4 address, an IPv6 /64.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests;
