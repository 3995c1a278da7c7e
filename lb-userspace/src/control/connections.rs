//! Open connections of services that count them: read from the data plane once a second, and cleared of those that have
//! ended.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use lb_common::abi::Reason;

use super::{Node, state::Leaving};
use crate::{
    api::types::Connections,
    plan::connections::{Kind, judge},
};

/// How often they are read; longer if reading takes long.
const EVERY: Duration = Duration::from_secs(1);
/// A drained backend without a connection for this long has none: what clients had begun is open by then, or goes elsewhere.
const BEGINNING: Duration = Duration::from_secs(3);

/// What the controller knows of counted connections.
#[derive(Debug, Default)]
pub struct Counted {
    /// By backend id.
    backends: HashMap<u32, Connections>,
    /// By service id: `uncounted` at the last look, and when it last rose.
    refused: HashMap<u32, (u64, Option<Instant>)>,
    /// By service id: since when this daemon has counted.
    since: HashMap<u32, Instant>,
    /// By backend id: since when one that drains has had no connection.
    closed: HashMap<u32, Instant>,
    due: Option<Instant>,
    /// The table may have entries.
    any: bool,
}

impl Node {
    /// Reads them if it is time.
    pub(super) fn count_connections(&mut self) {
        let wanted = self.services.iter().any(|service| service.spec.count_connections);
        let now = Instant::now();
        if !(wanted || self.counted.any) || self.counted.due.is_some_and(|due| now < due) {
            return;
        }
        if let Err(error) = self.read_connections() {
            tracing::error!(%error, "the table of connections could not be read");
        }
        self.counted.due = Some(Instant::now() + EVERY.max(now.elapsed() * 20));
    }

    fn read_connections(&mut self) -> anyhow::Result<()> {
        let entries = self.dataplane.dump_connections()?;
        let jiffies = self.dataplane.clock()?.jiffies;
        let mut backends = HashMap::<u32, Connections>::new();
        let services: HashMap<u32, usize> = self
            .services
            .iter()
            .enumerate()
            .filter(|(_, service)| service.spec.count_connections)
            .map(|(index, service)| (service.id, index))
            .collect();
        self.counted.any = !entries.is_empty();
        for (key, connection) in &entries {
            let index = services.get(&connection.service).copied();
            let clock = self.pin_clock(index, jiffies);
            let kind = index.map_or(Kind::Gone, |_| judge(connection, &clock));
            let count = backends.entry(connection.backend.0).or_default();
            match kind {
                Kind::Active => count.active += 1,
                Kind::Inactive => count.inactive += 1,
                Kind::Gone => self.dataplane.delete_connection(key, connection)?,
            }
        }
        self.counted.backends = backends;
        let now = Instant::now();
        self.counted.since.retain(|id, _| services.contains_key(id));
        for id in services.keys() {
            self.counted.since.entry(*id).or_insert(now);
        }
        self.note_uncounted(services.into_keys())?;
        self.note_closed();
        Ok(())
    }

    fn note_uncounted(&mut self, services: impl Iterator<Item = u32>) -> anyhow::Result<()> {
        let mut refused = HashMap::new();
        for id in services {
            let count = self.dataplane.reasons(id)?[Reason::Uncounted as usize];
            let (before, at) = self.counted.refused.get(&id).copied().unwrap_or((0, None));
            let at = if count > before { Some(Instant::now()) } else { at };
            refused.insert(id, (count, at));
        }
        self.counted.refused = refused;
        Ok(())
    }

    /// Backends of TCP services that drain and have had their last connection: nobody needs to look for silent ones.
    fn note_closed(&mut self) {
        let mut closed = HashMap::new();
        let mut emptied = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            for (number, backend) in service.backends.iter().enumerate() {
                if backend.leaving != Leaving::AtOnce || !self.has_none(index, backend.id.0) {
                    continue;
                }
                let known = self.counted.closed.get(&backend.id.0).copied();
                let since = known.unwrap_or_else(Instant::now);
                closed.insert(backend.id.0, since);
                if since.elapsed() >= BEGINNING && backend.slots == 0 && backend.pins == 0 {
                    emptied.push((index, number));
                }
            }
        }
        self.counted.closed = closed;
        self.tell_emptied(&emptied, "its last connection has ended");
    }

    /// Whether a backend certainly has no connection: all that may still be open have been counted.
    fn has_none(&self, service: usize, backend: u32) -> bool {
        let idle = Duration::from_secs(self.services[service].idle_seconds());
        let since = self.counted.since.get(&self.services[service].id);
        since.is_some_and(|since| since.elapsed() >= idle)
            && self
                .connections_of(service, backend)
                .is_some_and(|open| open.active == 0 && open.inactive == 0)
    }

    /// Connections of one backend; `None` if they are not counted, or if some could not be and may still be open.
    pub(super) fn connections_of(&self, service: usize, backend: u32) -> Option<Connections> {
        if let Some(tracked) = self.tracked_connections_of(service, backend) {
            return Some(tracked);
        }
        if let Some(translated) = self.translated_connections_of(service, backend) {
            return Some(translated);
        }
        let service = &self.services[service];
        let (_, refused) = self.counted.refused.get(&service.id)?;
        let idle = Duration::from_secs(service.idle_seconds());
        if !service.spec.count_connections || refused.is_some_and(|at| at.elapsed() < idle) {
            return None;
        }
        Some(self.counted.backends.get(&backend).copied().unwrap_or_default())
    }
}
