//! The sweep through the tables of tracked flows and remembered clients: some pages at each tick, so that a million entries hold
//! nobody up. Entries that are idle go, the others are counted, and numbers that have drifted are corrected.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use lb_common::abi::{BackendId, backend_flag};

use super::Node;
use crate::{
    api::types::{Connections, Tracking},
    dataplane::Walk,
    plan::{
        flows::{Found, Kind, drift, is_forgotten, judge},
        sweep::Clock,
    },
};

/// Time that one tick may take for it.
const TURN: Duration = Duration::from_millis(20);
/// From the beginning of one pass to that of the next, at least.
const EVERY: Duration = Duration::from_secs(1);
/// Passes that have to find nothing of a backend before its number is free: one may have begun before its last flow.
const PASSES: usize = 3;

/// What the controller knows of tracked flows.
#[derive(Default)]
pub struct Tracked {
    walk: Walk,
    stage: Stage,
    /// The pass that runs.
    pass: Pass,
    /// The last passes, the latest first.
    done: Vec<Pass>,
    due: Option<Instant>,
}

/// Which table a pass is in; a flow only ever moves from the first to the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    Unconfirmed,
    Confirmed,
    Sources,
}

/// A number that packets change as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Number {
    /// Connections of a backend (its id) and of its service.
    Connections(u32, u32),
    /// Entries of a service in `FLOWS_NEW`.
    Unconfirmed(u32),
    /// Entries of a service in `FLOWS`.
    Confirmed(u32),
}

/// What one pass has counted.
#[derive(Clone, Debug, Default)]
struct Pass {
    /// Flows by backend.
    backends: HashMap<u32, Connections>,
    /// Open connections by backend, whether confirmed or not, as `LOADS` counts them.
    open: HashMap<u32, u64>,
    /// Remembered clients by backend.
    sources: HashMap<u32, u64>,
    /// Entries by service: unconfirmed, confirmed, clients.
    services: HashMap<u32, [u64; 3]>,
    /// What packets have counted, at the beginning.
    numbers: HashMap<Number, u64>,
    /// What was wrong of that at the end.
    drift: HashMap<Number, i64>,
}

impl Tracked {
    /// Whether a flow or a remembered client names a backend, as far as the last passes tell.
    pub(super) fn names(&self, id: BackendId) -> bool {
        self.done.len() < PASSES || self.done.iter().any(|pass| pass.names(id))
    }

    /// Flows of a backend at the last pass.
    pub(super) fn flows_of(&self, id: BackendId) -> u64 {
        let found = self.done.first().and_then(|pass| pass.backends.get(&id.0));
        found.map_or(0, |found| found.active + found.inactive)
    }

    /// Entries of all services: unconfirmed, confirmed, clients.
    pub(super) fn entries(&self) -> [u64; 3] {
        let mut sum = [0; 3];
        for counts in self.done.first().into_iter().flat_map(|pass| pass.services.values()) {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sum
    }
}

impl Pass {
    fn names(&self, id: BackendId) -> bool {
        self.backends.contains_key(&id.0) || self.sources.contains_key(&id.0)
    }
}

impl Node {
    /// Goes on with the sweep, if there is one or it is time for one.
    pub(super) fn sweep_flows(&mut self) {
        let wanted = self.tracks_anything();
        if !wanted {
            return;
        }
        let began = Instant::now();
        if self.tracked.stage == Stage::Waiting {
            if self.tracked.due.is_some_and(|due| began < due) {
                return;
            }
            // What the other nodes do not know yet is lost with this one.
            let pause = if self.peers.has_listeners() { super::keeper::TICK } else { EVERY };
            self.tracked.due = Some(began + pause);
            self.begin_pass();
        }
        while self.tracked.stage != Stage::Waiting && began.elapsed() < TURN {
            if let Err(error) = self.sweep_page() {
                tracing::error!(%error, "the tables of flows could not be read; nothing in them ends");
                self.tracked.walk = Walk::default();
                self.tracked.stage = Stage::Waiting;
            }
        }
    }

    /// Whether some service tracks, or the tables may have entries from when one did.
    fn tracks_anything(&self) -> bool {
        self.dataplane.flow_limits()[1] > 1
    }

    /// Whether a tracked flow or a remembered client names a backend.
    pub(super) fn is_tracked(&self, id: BackendId) -> bool {
        self.has_ports(id) || self.tracks_anything() && self.tracked.names(id)
    }

    fn begin_pass(&mut self) {
        self.tracked.pass = Pass { numbers: self.numbers(), ..Pass::default() };
        self.tracked.stage = Stage::Unconfirmed;
        self.peers.begin_flows();
    }

    /// What packets have counted of services that track.
    fn numbers(&self) -> HashMap<Number, u64> {
        let mut numbers = HashMap::new();
        for service in self.services.iter().filter(|service| service.spec.tracks()) {
            let load = self.dataplane.service_loads().get(service.id);
            numbers.insert(Number::Unconfirmed(service.id), load.unconfirmed);
            numbers.insert(Number::Confirmed(service.id), load.confirmed);
            for backend in &service.backends {
                let number = Number::Connections(backend.id.0, service.id);
                numbers.insert(number, self.dataplane.load_of(backend.id.0).connections);
            }
        }
        numbers
    }

    fn sweep_page(&mut self) -> anyhow::Result<()> {
        match self.tracked.stage {
            Stage::Waiting => return Ok(()),
            Stage::Unconfirmed => self.sweep_flow_page(false)?,
            Stage::Confirmed => self.sweep_flow_page(true)?,
            Stage::Sources => self.sweep_source_page()?,
        }
        if self.tracked.walk.is_at_beginning() {
            self.tracked.stage = match self.tracked.stage {
                Stage::Unconfirmed => Stage::Confirmed,
                Stage::Confirmed => Stage::Sources,
                Stage::Sources | Stage::Waiting => {
                    self.finish_pass();
                    Stage::Waiting
                }
            };
        }
        Ok(())
    }

    fn sweep_flow_page(&mut self, confirmed: bool) -> anyhow::Result<()> {
        let entries = self.dataplane.walk_flows(confirmed, &mut self.tracked.walk)?;
        let jiffies = self.dataplane.clock()?.jiffies;
        let clocks: HashMap<u32, (Clock, f64)> = self
            .services
            .iter()
            .enumerate()
            .filter(|(_, service)| service.spec.tracks())
            .map(|(index, service)| {
                let held = self.dataplane.service_loads().get(service.id).unconfirmed;
                let part = self.dataplane.policies().get(service.id).flows_unconfirmed;
                let crowding = held as f64 / f64::from(part.max(1));
                (service.id, (self.pin_clock(Some(index), jiffies), crowding))
            })
            .collect();
        if confirmed {
            self.tell_flows(&entries, jiffies);
        }
        let none = self.pin_clock(None, jiffies);
        for (key, entry) in &entries {
            let known = clocks.get(&entry.service);
            let (clock, crowding) = known.copied().unwrap_or((none, 0.0));
            let row = self.dataplane.backends().len() > entry.backend.0;
            let down = row
                && self.dataplane.backends().get(entry.backend.0).flags & backend_flag::DOWN != 0;
            let found = Found { entry, confirmed, tracked: known.is_some(), down };
            let kind = judge(&found, &clock, crowding);
            if kind == Kind::Gone {
                self.dataplane.delete_flow(confirmed, key, entry)?;
                continue;
            }
            let pass = &mut self.tracked.pass;
            let counted = pass.backends.entry(entry.backend.0).or_default();
            match kind {
                Kind::Active => counted.active += 1,
                Kind::Inactive | Kind::Gone => counted.inactive += 1,
            }
            if lb_common::track::is_open(entry) {
                *pass.open.entry(entry.backend.0).or_default() += 1;
            }
            pass.services.entry(entry.service).or_default()[usize::from(confirmed)] += 1;
        }
        Ok(())
    }

    fn sweep_source_page(&mut self) -> anyhow::Result<()> {
        let entries = self.dataplane.walk_sources(&mut self.tracked.walk)?;
        let jiffies = self.dataplane.clock()?.jiffies;
        let idle: HashMap<u32, u64> = self
            .services
            .iter()
            .filter(|service| service.spec.remembers_sources())
            .map(|service| (service.id, self.dataplane.policies().get(service.id).source_idle))
            .collect();
        self.tell_clients(&entries, jiffies);
        let usable: HashMap<BackendId, u32> = self
            .services
            .iter()
            .flat_map(|service| {
                let staying = service.backends.iter().filter(|backend| !backend.removed);
                staying.map(|backend| (backend.id, service.id))
            })
            .collect();
        for (key, source) in &entries {
            let time = idle.get(&key.service).copied();
            let is_usable = time.is_some() && usable.get(&source.backend) == Some(&key.service);
            if is_forgotten(source, is_usable, time.unwrap_or(0), jiffies) {
                self.dataplane.delete_source(key, source)?;
                continue;
            }
            let pass = &mut self.tracked.pass;
            *pass.sources.entry(source.backend.0).or_default() += 1;
            pass.services.entry(key.service).or_default()[2] += 1;
        }
        Ok(())
    }

    /// Keeps what was counted, and corrects what two passes in a row have found wrong.
    fn finish_pass(&mut self) {
        let mut pass = std::mem::take(&mut self.tracked.pass);
        let last = self.tracked.done.first();
        let mut wrong = HashMap::new();
        for (number, after) in self.numbers() {
            let entries = |service, table: usize| {
                pass.services.get(&service).map_or(0, |counts: &[u64; 3]| counts[table])
            };
            let counted = match number {
                Number::Connections(backend, _) => pass.open.get(&backend).copied().unwrap_or(0),
                Number::Unconfirmed(service) => entries(service, 0),
                Number::Confirmed(service) => entries(service, 1),
            };
            let Some(before) = pass.numbers.get(&number) else { continue };
            let Some(drift) = drift(*before, after, counted) else { continue };
            if last.is_none_or(|last| last.drift.get(&number) != Some(&drift)) {
                wrong.insert(number, drift);
                continue;
            }
            tracing::debug!(?number, drift, "a number of flows corrected");
            match number {
                Number::Connections(backend, service) => {
                    self.dataplane.add_connections(service, backend, drift);
                }
                Number::Unconfirmed(service) => self.dataplane.add_entries(service, [drift, 0]),
                Number::Confirmed(service) => self.dataplane.add_entries(service, [0, drift]),
            }
        }
        self.peers.end_flows();
        pass.drift = wrong;
        self.tracked.done.insert(0, pass);
        self.tracked.done.truncate(PASSES);
    }

    /// Connections of one backend of a service that tracks its flows.
    pub(super) fn tracked_connections_of(
        &self,
        service: usize,
        backend: u32,
    ) -> Option<Connections> {
        let service = &self.services[service];
        if !service.spec.tracks() {
            return None;
        }
        let last = self.tracked.done.first()?;
        Some(last.backends.get(&backend).copied().unwrap_or_default())
    }

    /// What a service that tracks its flows has in the tables.
    pub(super) fn tracking(&self, index: usize) -> Option<Tracking> {
        let service = &self.services[index];
        if !service.spec.tracks() {
            return None;
        }
        let load = self.dataplane.service_loads().get(service.id);
        let policy = self.dataplane.policies().get(service.id);
        let [_, limit] = self.dataplane.flow_limits();
        let last = self.tracked.done.first();
        let sources =
            last.and_then(|last| last.services.get(&service.id)).map_or(0, |held| held[2]);
        Some(Tracking {
            confirmed: load.confirmed,
            confirmed_limit: policy.flows.min(limit).into(),
            unconfirmed: load.unconfirmed,
            unconfirmed_limit: policy.flows_unconfirmed.into(),
            sources: service.spec.remembers_sources().then_some(sources),
        })
    }
}
