//! A drain with an end: what is left on a backend is looked for at once, not after the window, and the sweep that finds
//! nothing says so. Slots and pins decide, as for a backend that was removed.

use lb_common::abi::{BackendId, Phase};

use super::{Node, loaded::Backend, monotonic_seconds, state::Leaving};
use crate::{
    api::{
        peer::Peer,
        types::{Drain, Failure, SetBackend},
    },
    events::{Happened, Kind},
    plan::phases,
};

impl Node {
    /// Drains a backend; its slots' harvest begins now.
    pub(super) fn drain(
        &mut self,
        service: &str,
        backend: &str,
        peer: &Peer,
    ) -> Result<Drain, Failure> {
        let (index, number) = self.place_of(service, backend)?;
        let known = &self.services[index].backends[number];
        // Said again (by a command that was interrupted), it goes on.
        if known.admin != super::state::Admin::Drain || known.removed {
            let set = SetBackend { admin: Some("drain".to_owned()), weight: None };
            self.set_backend(service, backend, &set, peer)?;
        }
        let backend = &mut self.services[index].backends[number];
        backend.leaving = Leaving::AtOnce;
        self.advance(index, monotonic_seconds());
        self.sweep_due = std::time::Instant::now();
        self.record_backend(index, number);
        self.left(index, number)
    }

    /// What is left on a backend.
    pub(super) fn drained(&self, service: &str, backend: &str) -> Result<Drain, Failure> {
        let (index, number) = self.place_of(service, backend)?;
        self.left(index, number)
    }

    fn place_of(&self, service: &str, backend: &str) -> Result<(usize, usize), Failure> {
        let Some(index) = self.services.iter().position(|s| s.spec.name == service) else {
            let known = self.services.iter().map(|s| s.spec.name.as_str());
            return Err(Failure::unknown("service", service, known));
        };
        let backends = &self.services[index].backends;
        // One that has the name now comes before one that had it.
        let here = |removed: bool| {
            let named = |one: &Backend| one.spec.name == backend && one.removed == removed;
            backends.iter().position(named)
        };
        match here(false).or_else(|| here(true)) {
            Some(number) => Ok((index, number)),
            None => {
                let known = backends.iter().map(|one| one.spec.name.as_str());
                Err(Failure::unknown("backend", backend, known))
            }
        }
    }

    fn left(&self, index: usize, number: usize) -> Result<Drain, Failure> {
        let service = &self.services[index];
        let backend = &service.backends[number];
        let (now, arena) = (monotonic_seconds(), self.dataplane.arena());
        let (window, idle) = (service.spec.window.as_secs(), service.idle_seconds());
        let (mut older_slots, mut older_seconds) = (0, 0);
        for place in service.ring.offset..service.ring.offset + service.ring.slots {
            let slot = arena.slot(place);
            let moving = matches!(slot.phase(), Phase::Window | Phase::Harvest);
            // What an old ring says may be this backend as well.
            if moving && [backend.id, BackendId::OLD_RING].contains(&slot.base()) {
                older_slots += 1;
                older_seconds =
                    older_seconds.max(phases::seconds_to_pinned(slot, now, window, idle));
            }
        }
        Ok(Drain {
            name: backend.spec.name.clone(),
            admin: backend.admin_name().to_owned(),
            empty: backend.leaving == Leaving::Empty,
            slots: backend.slots,
            older_slots,
            older_seconds,
            pins: backend.pins,
            connections: self.connections_of(index, backend.id.0),
        })
    }

    /// After a sweep: backends that nothing names any more. `named` tells whether a pin does.
    pub(super) fn note_emptied(&mut self, named: impl Fn(BackendId) -> bool) {
        let mut emptied = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            for (number, backend) in service.backends.iter().enumerate() {
                if backend.leaving == Leaving::AtOnce
                    && !named(backend.id)
                    && !self.slot_names(index, backend.id)
                {
                    emptied.push((index, number));
                }
            }
        }
        self.tell_emptied(&emptied, "no slot and no pin names it");
    }

    /// Nothing is left on these backends, by the places of their services and their own.
    pub(super) fn tell_emptied(&mut self, emptied: &[(usize, usize)], cause: &str) {
        for (index, number) in emptied {
            let service = &mut self.services[*index];
            let backend = &mut service.backends[*number];
            backend.leaving = Leaving::Empty;
            let name = &service.spec.name;
            let text = format!("{name}/{}: nothing is left on it", backend.spec.name);
            let happened = Happened::to_node(Kind::Drained, text, cause);
            self.log.add(happened.to_backend(name, &backend.spec.name));
        }
        if !emptied.is_empty() {
            let entry = |&(index, number): &(usize, usize)| {
                let service = &self.services[index];
                service.backend_entry(&service.backends[number])
            };
            let entries = emptied.iter().map(entry).collect();
            self.record(entries, true);
        }
    }
}
