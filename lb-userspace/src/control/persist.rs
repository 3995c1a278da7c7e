//! When what the maps do not hold is written down: whole after each apply and at the end, else as lines of the journal.
//!
//! What somebody has set by hand is on the disk before the command is answered. What checks and agents find is written
//! when it is applied; a kill loses nothing of it, a power cut may, but that takes the maps, too.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};

use super::{
    Node,
    journal::{Entry, Journal},
    loaded::{Backend, Service},
    reload::identity,
    state::{BackendState, ServiceState, State},
};

/// After a whole state was written, this many times as long passes before another one is for what is no command.
const REST: u32 = 20;
/// Of a journal this long, bytes, and twice as long as the whole state, a new whole state is made: at once where a command
/// is what comes next, else after the [`REST`].
const LONGEST: u64 = 256 << 10;

/// What is written, and what is not yet.
#[derive(Debug)]
pub struct Persistence {
    /// `None` = a whole state has to be written first.
    journal: Option<Journal>,
    /// Length of the last whole state, bytes.
    whole: u64,
    /// Id of the last event that is written.
    events: u64,
    /// Services that have changed, by id.
    services: std::collections::BTreeSet<u32>,
    /// When a whole state may be written for a change of health.
    due: Instant,
    /// Why the last attempt has failed.
    error: Option<String>,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            journal: None,
            whole: 0,
            events: 0,
            services: Default::default(),
            due: Instant::now(),
            error: None,
        }
    }
}

impl Persistence {
    /// Why the state cannot be written, if it cannot.
    pub fn error(&self) -> Option<&String> {
        self.error.as_ref()
    }

    fn journal_is_long(&self) -> bool {
        let length = self.journal.as_ref().map_or(0, Journal::length);
        length > LONGEST && length > 2 * self.whole
    }

    /// A service has changed by itself.
    pub fn changed(&mut self, service: u32) {
        self.services.insert(service);
    }
}

impl Node {
    /// Writes everything down.
    pub(super) fn save_state(&mut self) {
        let began = Instant::now();
        // Whatever happens, the lines so far must not go on from what may be there afterwards.
        self.saved.journal = None;
        self.state.journal += 1;
        self.state.events = self.log.to_save();
        let result = match self.started {
            true => self.state.save_with(&self.options.run_dir, &Live(&self.services)),
            false => self.state.save(&self.options.run_dir),
        };
        self.saved.due = Instant::now() + began.elapsed().max(Duration::from_millis(1)) * REST;
        match result {
            Ok(length) => {
                self.saved.whole = length;
                self.saved.events = self.log.last();
                self.saved.services.clear();
                for service in &mut self.services {
                    service.backends.iter_mut().for_each(|backend| backend.unsaved = false);
                }
                // Without one, the next change is a whole state again.
                self.saved.journal = Journal::begin(&self.options.run_dir, self.state.journal).ok();
                self.saved.error = None;
            }
            Err(error) => {
                let text = format!(
                    "{} cannot be written: {error}; overrides and health would be lost by a restart",
                    self.options.run_dir.join(super::state::FILE).display()
                );
                if self.saved.error.as_ref() != Some(&text) {
                    tracing::error!("{text}");
                }
                self.saved.error = Some(text);
            }
        }
    }

    /// Writes changes down, and what has happened; `durable`: before anything else is done.
    pub(super) fn record(&mut self, mut entries: Vec<Entry>, durable: bool) {
        let too_long = self.saved.journal_is_long();
        let Some(journal) =
            self.saved.journal.as_mut().filter(|_| self.started && !(durable && too_long))
        else {
            return self.save_state();
        };
        let events = self.log.since(self.saved.events);
        entries.extend(events.cloned().map(Entry::Event));
        match journal.append(&entries, durable) {
            Ok(()) => self.saved.events = self.log.last(),
            // The whole state takes another place, and says what is wrong.
            Err(_) => self.save_state(),
        }
    }

    /// Writes down what a command has made of a backend.
    pub(super) fn record_backend(&mut self, index: usize, number: usize) {
        let service = &mut self.services[index];
        service.backends[number].unsaved = false;
        let entries = vec![service.entry(), service.backend_entry(&service.backends[number])];
        self.record(entries, true);
    }

    /// Writes down all but services: what is about to be made true.
    pub(super) fn record_head(&mut self) {
        let head = State { services: Default::default(), events: Vec::new(), ..self.state.clone() };
        self.record(vec![Entry::Head(Box::new(head))], true);
    }

    /// Writes down what checks, agents and clients have changed.
    pub(super) fn save_health(&mut self) {
        if self.saved.services.is_empty() {
            return;
        }
        let begin_anew = self.saved.journal.is_none() || self.saved.journal_is_long();
        if begin_anew && Instant::now() >= self.saved.due {
            return self.save_state();
        }
        if self.saved.journal.is_none() {
            return;
        }
        let changed = std::mem::take(&mut self.saved.services);
        let mut entries = Vec::new();
        for service in self.services.iter_mut().filter(|service| changed.contains(&service.id)) {
            entries.push(service.entry());
            for number in 0..service.backends.len() {
                if std::mem::take(&mut service.backends[number].unsaved) {
                    entries.push(service.backend_entry(&service.backends[number]));
                }
            }
        }
        self.record(entries, false);
    }
}

impl Service {
    /// What outlives the daemon, without its backends.
    fn kept(&self) -> ServiceState {
        ServiceState {
            name: self.spec.name.clone(),
            retired: self.retired,
            retired_ids: self.retired_ids.clone(),
            history: self.history,
            short: self.short,
            ..ServiceState::default()
        }
    }

    fn kept_whole(&self) -> ServiceState<LiveBackends<'_>> {
        let ServiceState { name, retired, retired_ids, history, short, backends: _ } = self.kept();
        let backends = LiveBackends(&self.backends);
        ServiceState { name, retired, retired_ids, history, short, backends }
    }

    /// The line of the journal.
    pub(super) fn entry(&self) -> Entry {
        Entry::Service { key: self.key.to_string(), state: self.kept() }
    }

    /// The line of one of its backends.
    pub(super) fn backend_entry(&self, backend: &Backend) -> Entry {
        Entry::Backend {
            service: self.key.to_string(),
            key: identity(backend),
            state: Some(Box::new(backend.kept())),
        }
    }

    /// The line that says that a backend is gone.
    pub(super) fn gone_entry(&self, backend: &Backend) -> Entry {
        Entry::Backend { service: self.key.to_string(), key: identity(backend), state: None }
    }
}

impl Backend {
    fn kept(&self) -> BackendState {
        BackendState {
            name: self.spec.name.clone(),
            admin: self.admin,
            leaving: self.leaving,
            weight: self.weight,
            health: self.health.clone(),
            agent: self.agent.clone(),
            slow_start: self.slow_start.since(),
            passive: self.passive.kept(),
        }
    }
}

/// Loaded services as a map of their states, one at a time: a copy of all would take as much memory again.
struct Live<'a>(&'a [Service]);

impl Serialize for Live<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|one| (one.key.to_string(), one.kept_whole())))
    }
}

/// Its backends, likewise.
struct LiveBackends<'a>(&'a [Backend]);

impl Serialize for LiveBackends<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|one| {
            let identity = SocketAddr::new(one.spec.address, one.spec.port);
            (identity, one.kept())
        }))
    }
}
