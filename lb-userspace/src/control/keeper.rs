//! Carries slots through their phases and clears pins that are no longer needed. The decisions are `plan`'s.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use lb_common::{
    abi::{BackendId, FlowKey, Pin, Reason},
    hash::{ring_hash, slot_of},
};

use super::{
    Node,
    apply::count_phase,
    loaded::{Backend, Service},
    monotonic_seconds,
    retire::Retired,
    state::Leaving,
};
use crate::{
    api::types::PhaseCount,
    events::{Happened, Kind},
    plan::{
        phases,
        sweep::{Census, Clock, Found, Verdict, judge},
    },
};

/// How often phases are looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// How often the pin tables are read, while slots are on their way; longer if reading takes long.
const SWEEP: Duration = Duration::from_millis(1000);

impl Node {
    /// One look at everything that time moves.
    pub(super) fn keep(&mut self) {
        let now = monotonic_seconds();
        // Their clock has no more than seconds, and long rings have many slots.
        let due = std::mem::replace(&mut self.kept_at, now) != now;
        for index in (0..self.services.len()).filter(|_| due) {
            if self.services[index].unsettled() {
                self.note_refused(index);
                self.advance(index, now);
            }
        }
        let anything = self.pins_seen
            || !self.dying.is_empty()
            || self.services.iter().any(|service| {
                let leaves =
                    |backend: &Backend| backend.removed || backend.leaving == Leaving::AtOnce;
                service.unsettled() || service.backends.iter().any(leaves)
            });
        if anything && Instant::now() >= self.sweep_due {
            self.sweep();
        }
        self.start_grace();
    }

    fn note_refused(&mut self, index: usize) {
        let id = self.services[index].id;
        match self.dataplane.reasons(id) {
            Ok(reasons) => {
                let count = reasons[Reason::PinRefused as usize];
                let service = &mut self.services[index];
                if count > service.refused.0 {
                    service.refused = (count, Some(Instant::now()));
                }
            }
            Err(error) => tracing::warn!(%error, "counters could not be read"),
        }
    }

    pub(super) fn advance(&mut self, index: usize, now: u64) {
        let service = &self.services[index];
        let window = service.spec.window.as_secs();
        let harvest = service.idle_seconds();
        let leaving: Vec<BackendId> = service
            .backends
            .iter()
            .filter(|backend| backend.leaving == Leaving::AtOnce)
            .map(|backend| backend.id)
            .collect();
        let refused =
            service.refused.1.is_some_and(|at| at.elapsed() < Duration::from_secs(harvest));
        let mut count = PhaseCount::default();
        let mut asks_old_ring = false;
        let arena = self.dataplane.arena();
        for number in 0..service.ring.slots {
            let place = service.ring.offset + number;
            let old = arena.slot(place);
            let new = phases::advance(old, now, window, harvest, refused);
            let new = match leaving.contains(&new.base()) {
                true => phases::harvest_at_once(new, now),
                false => new,
            };
            if new != old {
                arena.set_slot(place, new);
            }
            asks_old_ring |= phases::needs_old_ring(new);
            count_phase(&mut count, new.phase());
        }
        let service = &mut self.services[index];
        if count != service.phases {
            tracing::debug!(service = service.spec.name, ?count, "slots by phase");
        }
        service.phases = count;
        let waited = service.resize_waits;
        let old = if asks_old_ring { None } else { service.old_ring.take() };
        if let Some(old) = old {
            self.retire(Retired::Span(old));
        }
        if (old.is_some() || waited)
            && let Err(error) = self.reconcile(index)
        {
            tracing::error!(%error, "a ring of another length could not be taken over");
        }
    }

    /// Reads both pin tables, removes what is idle or useless, settles slots without pins, and gives back ids that
    /// nothing names.
    pub(super) fn sweep(&mut self) {
        let began = Instant::now();
        if let Err(error) = self.try_sweep() {
            tracing::error!(%error, "the pin tables could not be read; slots stay in their phases");
        }
        // What the other nodes do not know yet is lost with this one.
        let pause = if self.peers.has_listeners() { TICK } else { SWEEP };
        self.sweep_due = Instant::now() + pause.max(began.elapsed() * 20);
    }

    fn try_sweep(&mut self) -> anyhow::Result<()> {
        let arena = self.dataplane.arena();
        // No other slot is a candidate.
        let pinned = self.services.iter().filter(|service| service.phases.pinned > 0);
        let rings = pinned.map(|service| service.ring);
        let places = rings.flat_map(|ring| (0..ring.slots).map(move |number| ring.offset + number));
        let mut census = Census::begin(places.map(|place| (place, arena.slot(place))));
        // A pin only ever moves from the unconfirmed table to the other: read in this order, none is missed.
        let unconfirmed = self.dataplane.dump_pins(false)?;
        let confirmed = self.dataplane.dump_pins(true)?;
        let jiffies = self.dataplane.clock()?.jiffies;
        self.tell_pins(&unconfirmed, &confirmed, jiffies);
        let crowding = unconfirmed.len() as f64 / self.dataplane.pin_limit(false).max(1) as f64;
        let keys =
            |pins: &[(FlowKey, Pin)]| pins.iter().map(|(key, _)| *key).collect::<HashSet<_>>();
        let partners = [keys(&confirmed), keys(&unconfirmed)];
        let by_id: HashMap<u32, usize> =
            self.services.iter().enumerate().map(|(index, service)| (service.id, index)).collect();
        let mut left = [0u64; 2];
        for (table, pins) in [(false, &unconfirmed), (true, &confirmed)] {
            for (key, pin) in pins {
                let service = by_id.get(&pin.service).copied();
                let place = service.map(|index| self.slot_place(index, key));
                let found = Found {
                    pin,
                    slot: place.map(|place| self.dataplane.arena().slot(place)),
                    confirmed: table,
                    partner: partners[table as usize].contains(key),
                };
                let verdict = judge(&found, &self.pin_clock(service, jiffies), crowding);
                match (verdict, place) {
                    (Verdict::Keep, Some(place)) => {
                        census.note(place, pin.backend);
                        left[table as usize] += 1;
                    }
                    // A packet may have made another pin of it since the table was read.
                    _ if self.dataplane.pin(table, key)? != Some(*pin) => {}
                    _ => self.dataplane.delete_pin(table, key)?,
                }
            }
        }
        self.pin_counts = left;
        self.pins_seen = census.pins() > 0;
        for service in &mut self.services {
            for backend in &mut service.backends {
                backend.pins = census.pins_of(backend.id) + self.tracked.flows_of(backend.id);
            }
        }
        self.settle(&census);
        let ids = self.services.iter().flat_map(|service| service.backends.iter().map(|b| b.id));
        let dying = self.dying.iter().flat_map(|dying| dying.backends.iter().copied());
        let tracked: HashSet<BackendId> =
            ids.chain(dying).filter(|id| self.is_tracked(*id)).collect();
        let is_named = |id| census.pins_of(id) > 0 || tracked.contains(&id);
        self.drop_drained(is_named);
        self.note_emptied(is_named);
        self.bury(is_named);
        self.census = census;
        Ok(())
    }

    pub(super) fn pin_clock(&self, service: Option<usize>, now: u64) -> Clock {
        let service = service.map(|index| &self.services[index]);
        Clock {
            now,
            now_seconds: monotonic_seconds(),
            jiffies_per_second: self.hz,
            idle_seconds: service.map_or(0, Service::idle_seconds),
            closing_idle_seconds: service.map_or(0, |s| s.spec.timeouts.tcpfin.as_secs()),
        }
    }

    /// The place of a flow's slot in the arena.
    fn slot_place(&self, index: usize, key: &FlowKey) -> u32 {
        let service = &self.services[index];
        let hash = ring_hash(&self.keys, key, service.by_source);
        service.ring.offset + slot_of(hash, service.ring.slots)
    }

    fn settle(&mut self, census: &Census) {
        let arena = self.dataplane.arena();
        for (place, slot) in census.settleable(&self.census) {
            if arena.slot(place) == slot {
                arena.set_slot(place, phases::settle(slot, false));
            }
        }
        for service in self.services.iter_mut().filter(|service| service.phases.pinned > 0) {
            let mut count = PhaseCount::default();
            for number in 0..service.ring.slots {
                count_phase(&mut count, arena.slot(service.ring.offset + number).phase());
            }
            if count.settled == service.ring.slots {
                let text = format!("{}: every slot is settled", service.spec.name);
                let happened = Happened::to_node(Kind::Settled, text, "no pin is left");
                self.log.add(happened.to_service(&service.spec.name));
            }
            service.phases = count;
        }
    }
}
