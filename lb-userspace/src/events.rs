//! The event log: every change of state with its cause, the last ones in memory and in the state file, all of them in
//! the daemon's log. Pure but for the clock.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime},
};

use crate::api::types::{Event, Events};

/// Events that are remembered.
pub const REMEMBERED: usize = 1_000;
/// Those of them that outlive the daemon.
pub const SAVED: usize = 200;
/// Events a second that are written to the daemon's log; more are only counted there.
const LOGGED_A_SECOND: u32 = 200;
/// Longest text or cause, characters.
const LONGEST: usize = 1_000;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The daemon has started.
    Started,
    /// The daemon is about to end.
    Stopped,
    /// A configuration is in force.
    ConfigApplied,
    /// A configuration is not.
    ConfigRefused,
    /// A configuration on trial is there to stay.
    ConfigConfirmed,
    /// A configuration on trial has been given up.
    ConfigRolledBack,
    /// A setting was set beside the file, or is the file's again.
    Set,
    /// A service has a usable backend again.
    ServiceUp,
    /// A service has no usable backend.
    ServiceDown,
    /// Other backends of a service do its work: those of another tier, or too few.
    ServiceMode,
    /// A backend's checks say UP.
    BackendUp,
    /// A backend's checks say DOWN.
    BackendDown,
    /// A backend's agent wants it up or down, ready, drained or out.
    Agent,
    /// A backend is out of the ring for a while, for what clients have met there.
    Ejected,
    /// A backend is no longer ejected.
    Returned,
    /// Clients did not get through to a backend, which is asked, or cannot be ejected.
    Suspected,
    /// A backend was told to be ready, to drain, or to be out.
    Admin,
    /// A backend's weight was set.
    Weight,
    /// A backend that was removed from the configuration has no flow left.
    Drained,
    /// The SYN-flood stage of a service was engaged or released.
    SynFlood,
    /// Every slot of a service is settled again.
    Settled,
    /// A backend's next hop is known, or no longer.
    NextHop,
    /// A NIC was attached, detached, lost or found.
    Nic,
    /// Another program was loaded, or the maps were removed.
    Program,
    /// Backends by DNS names or from files have changed.
    Discovered,
    /// A name cannot be resolved, a file is not valid, or what was found cannot be used.
    DiscoveryFailed,
    /// The daemon's log was set to another level.
    Log,
    /// Part of what the daemon has written down cannot be read.
    StateDamaged,
    /// Another host says that a VIP of this one is its own; or no longer.
    VipConflict,
    /// Another node has this one's name; or no longer.
    NodeName,
    /// Where the configuration is shared is away, or answers again.
    Shared,
    /// Another node of the cluster has come, gone, or been refused.
    Cluster,
    /// Another node has another ring for a service, or another seed; or no longer.
    RingMismatch,
    /// The nodes of the cluster find another state of a backend than this one does; or no longer.
    Outvoted,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 34] = [
        Self::Started,
        Self::Stopped,
        Self::ConfigApplied,
        Self::ConfigRefused,
        Self::ConfigConfirmed,
        Self::ConfigRolledBack,
        Self::Set,
        Self::ServiceUp,
        Self::ServiceDown,
        Self::ServiceMode,
        Self::BackendUp,
        Self::BackendDown,
        Self::Agent,
        Self::Ejected,
        Self::Returned,
        Self::Suspected,
        Self::Admin,
        Self::Weight,
        Self::Drained,
        Self::SynFlood,
        Self::Settled,
        Self::NextHop,
        Self::Nic,
        Self::Program,
        Self::Discovered,
        Self::DiscoveryFailed,
        Self::Log,
        Self::StateDamaged,
        Self::VipConflict,
        Self::NodeName,
        Self::Shared,
        Self::Cluster,
        Self::RingMismatch,
        Self::Outvoted,
    ];

    /// The word of API, CLI and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::ConfigApplied => "config_applied",
            Self::ConfigRefused => "config_refused",
            Self::ConfigConfirmed => "config_confirmed",
            Self::ConfigRolledBack => "config_rolled_back",
            Self::Set => "set",
            Self::ServiceUp => "service_up",
            Self::ServiceDown => "service_down",
            Self::ServiceMode => "service_mode",
            Self::BackendUp => "backend_up",
            Self::BackendDown => "backend_down",
            Self::Agent => "agent",
            Self::Ejected => "ejected",
            Self::Returned => "returned",
            Self::Suspected => "suspected",
            Self::Admin => "admin",
            Self::Weight => "weight",
            Self::Drained => "drained",
            Self::SynFlood => "syn_flood",
            Self::Settled => "settled",
            Self::NextHop => "next_hop",
            Self::Nic => "nic",
            Self::Program => "program",
            Self::Discovered => "discovered",
            Self::DiscoveryFailed => "discovery_failed",
            Self::Log => "log",
            Self::StateDamaged => "state_damaged",
            Self::VipConflict => "vip_conflict",
            Self::NodeName => "node_name",
            Self::Shared => "shared",
            Self::Cluster => "cluster",
            Self::RingMismatch => "ring_mismatch",
            Self::Outvoted => "outvoted",
        }
    }

    const fn level(self) -> tracing::Level {
        match self {
            Self::ConfigRefused | Self::ServiceDown => tracing::Level::ERROR,
            Self::BackendDown
            | Self::Ejected
            | Self::ServiceMode
            | Self::ConfigRolledBack
            | Self::SynFlood
            | Self::DiscoveryFailed
            | Self::StateDamaged
            | Self::RingMismatch
            | Self::VipConflict
            | Self::NodeName
            | Self::Outvoted => tracing::Level::WARN,
            _ => tracing::Level::INFO,
        }
    }
}

/// What happened, to what, and why.
#[derive(Clone, Debug)]
pub struct Happened<'a> {
    /// What it is about.
    pub kind: Kind,
    /// The service, if it is one's.
    pub service: Option<&'a str>,
    /// The backend, if it is one's.
    pub backend: Option<&'a str>,
    /// What happened, in words.
    pub text: String,
    /// Why: what was seen, or who wanted it.
    pub cause: String,
}

impl<'a> Happened<'a> {
    /// To the node.
    pub fn to_node(kind: Kind, text: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { kind, service: None, backend: None, text: text.into(), cause: cause.into() }
    }

    /// To a service.
    pub fn to_service(self, service: &'a str) -> Self {
        Self { service: Some(service), ..self }
    }

    /// To a backend of a service.
    pub fn to_backend(self, service: &'a str, backend: &'a str) -> Self {
        Self { service: Some(service), backend: Some(backend), ..self }
    }
}

/// The log.
#[derive(Debug)]
pub struct EventLog {
    events: VecDeque<Event>,
    last: u64,
    counts: BTreeMap<Kind, u64>,
    /// The second that is counted, and how many events it has had.
    second: (Instant, u32),
}

impl EventLog {
    /// Goes on after the events of the daemon before.
    pub fn resume(events: Vec<Event>) -> Self {
        let last = events.last().map_or(0, |event| event.id);
        let counts = Kind::ALL.iter().map(|kind| (*kind, 0)).collect();
        Self { events: events.into(), last, counts, second: (Instant::now(), 0) }
    }

    /// Remembers an event, and writes it to the daemon's log.
    pub fn add(&mut self, happened: Happened<'_>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (kind, log) = (happened.kind, self.may_log());
        let event = self.remember(happened, now);
        if log {
            write(kind, event);
        }
    }

    fn remember(&mut self, happened: Happened<'_>, now: Duration) -> &Event {
        let Happened { kind, service, backend, text, cause } = happened;
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        self.last += 1;
        *self.counts.entry(kind).or_default() += 1;
        self.events.push_back(Event {
            id: self.last,
            unix_milliseconds: now.as_millis() as u64,
            kind: kind.name().to_owned(),
            service: service.map(str::to_owned),
            backend: backend.map(str::to_owned),
            text: shortened(text),
            cause: shortened(cause),
        });
        self.events.back().expect("an event was added")
    }

    fn may_log(&mut self) -> bool {
        if self.second.0.elapsed() >= Duration::from_secs(1) {
            let more = self.second.1.saturating_sub(LOGGED_A_SECOND);
            if more > 0 {
                tracing::warn!("{more} more events in one second: see `lb events`");
            }
            self.second = (Instant::now(), 0);
        }
        self.second.1 += 1;
        self.second.1 <= LOGGED_A_SECOND
    }

    /// The first `limit` events after the one with the id `after`. An id of the future asks for all there are: it is of
    /// a log that has been lost.
    pub fn after(&self, after: u64, limit: usize) -> Events {
        let after = if after > self.last { 0 } else { after };
        let first = self.events.front().map_or(self.last + 1, |event| event.id);
        let lost = if after == 0 { 0 } else { first.saturating_sub(after + 1) };
        let events =
            self.events.iter().filter(|event| event.id > after).take(limit).cloned().collect();
        Events { events, last: self.last, lost }
    }

    /// The events after the one with the id `after`, as far as they are remembered.
    pub fn since(&self, after: u64) -> impl Iterator<Item = &Event> {
        let known = self.last.saturating_sub(after).min(self.events.len() as u64) as usize;
        self.events.iter().skip(self.events.len() - known)
    }

    /// Id of the last event; 0 = there was none yet.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What the next daemon goes on from.
    pub fn to_save(&self) -> Vec<Event> {
        let skip = self.events.len().saturating_sub(SAVED);
        self.events.iter().skip(skip).cloned().collect()
    }

    /// How many events there were by kind, since the daemon's start.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.iter().map(|(kind, count)| (kind.name(), *count)).collect()
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// One structured line of the daemon's log.
fn write(kind: Kind, event: &Event) {
    let Event { id, kind: name, service, backend, text, cause, .. } = event;
    let name = name.as_str();
    let service = service.as_deref();
    let backend = backend.as_deref();
    let cause = Some(cause.as_str()).filter(|cause| !cause.is_empty());
    match kind.level() {
        tracing::Level::ERROR => {
            tracing::error!(event = name, id, service, backend, cause, "{text}");
        }
        tracing::Level::WARN => {
            tracing::warn!(event = name, id, service, backend, cause, "{text}");
        }
        _ => tracing::info!(event = name, id, service, backend, cause, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(text: &str) -> Happened<'static> {
        Happened::to_node(Kind::BackendDown, text, "L4CON").to_backend("web", "web1")
    }

    fn ids(events: &Events) -> Vec<u64> {
        events.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn readers_go_on_where_they_were_and_are_told_what_they_missed() {
        let mut log = EventLog::resume(Vec::new());
        assert_eq!(log.after(0, 10), Events::default());
        for number in 1..=3 {
            log.remember(happened(&number.to_string()), Duration::from_millis(number));
        }
        assert_eq!(ids(&log.after(0, 2)), [1, 2]);
        assert_eq!(ids(&log.after(2, 2)), [3]);
        assert_eq!(log.after(3, 2), Events { events: vec![], last: 3, lost: 0 });
        assert_eq!(ids(&log.after(99, 9)), [1, 2, 3], "an id of another log");
        for _ in 0..REMEMBERED {
            log.remember(happened("more"), Duration::ZERO);
        }
        let page = log.after(1, 1);
        assert_eq!((ids(&page), page.last, page.lost), (vec![4], 1003, 2));
        assert_eq!(log.counts()["backend_down"], 1003);
        assert_eq!(log.counts()["started"], 0);
    }

    #[test]
    fn the_log_goes_on_after_a_restart() {
        let mut log = EventLog::resume(Vec::new());
        for number in 0..SAVED + 5 {
            log.remember(happened(&number.to_string()), Duration::ZERO);
        }
        let saved = log.to_save();
        assert_eq!((saved.len(), saved[0].id), (SAVED, 6));
        let mut next = EventLog::resume(saved);
        assert_eq!(next.remember(happened("next"), Duration::ZERO).id, SAVED as u64 + 6);
    }

    #[test]
    fn texts_have_a_limit() {
        let mut log = EventLog::resume(Vec::new());
        let event = log.remember(happened(&"ä".repeat(5_000)), Duration::ZERO);
        assert_eq!(event.text.chars().count(), LONGEST + 3);
    }

    #[test]
    fn a_flood_of_events_does_not_flood_the_log() {
        let mut log = EventLog::resume(Vec::new());
        let logged = (0..LOGGED_A_SECOND + 50).filter(|_| log.may_log()).count() as u32;
        // A slow machine may have seen the next second begin.
        assert!((LOGGED_A_SECOND..LOGGED_A_SECOND + 50).contains(&logged), "{logged}");
    }

    #[test]
    fn kinds_are_named_once() {
        let names: std::collections::HashSet<&str> = Kind::ALL.map(Kind::name).into();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
