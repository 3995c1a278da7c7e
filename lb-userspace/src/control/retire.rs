//! The way out: numbers, rows and ranges that packets, slots or pins may still name.

use std::time::Instant;

use lb_common::abi::{BackendId, BackendRow};

use super::{Event, Node, alloc::Span};
use crate::{
    api::types::Counters,
    dataplane::List,
    events::{Happened, Kind},
};

/// Something to give back after a grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// A row of `SERVICES`.
    Row(u32),
    /// A ring.
    Span(Span),
    /// A list of prefixes.
    List(List, u32),
}

/// Ids to give back once a grace period has passed and, after it, a sweep has found no pin that names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dying {
    /// The service, if all of it goes.
    pub service: Option<u32>,
    /// Backends.
    pub backends: Vec<BackendId>,
    /// The grace period has passed.
    pub graced: bool,
}

impl Node {
    /// Notes something for reuse after the next grace period.
    pub(super) fn retire(&mut self, retired: Retired) {
        self.retired.push(retired);
        self.grace_wanted = true;
    }

    /// Starts a grace period if something waits for one and none is running. Publication never waits for it.
    pub(super) fn start_grace(&mut self) {
        // What it waits for is not to be found any more when it begins.
        self.publish_due_ports();
        if !self.grace_wanted || self.grace_running.is_some() {
            return;
        }
        self.grace_wanted = false;
        self.grace_running = Some((self.retired.len(), self.dying.len()));
        self.dataplane.grace_begins();
        let events = self.events.clone();
        tokio::spawn(async move {
            crate::dataplane::grace().await;
            // The controller is gone when this fails, and with it the need.
            let _ = events.send(Event::Grace);
        });
    }

    /// A grace period has passed.
    pub(super) fn finish_grace(&mut self) {
        let Some((retired, dying)) = self.grace_running.take() else { return };
        for retired in self.retired.drain(..retired) {
            match retired {
                Retired::Row(row) => self.rows.free(row),
                Retired::Span(span) => self.spans.free(span),
                Retired::List(kind, list) => {
                    if let Err(error) = self.dataplane.remove_list(kind, list) {
                        tracing::warn!(%error, list, ?kind, "a list could not be removed");
                    }
                    self.list_numbers.free(list);
                }
            }
        }
        self.dataplane.grace_passed();
        for dying in &mut self.dying[..dying] {
            dying.graced = true;
        }
        if !self.dying.is_empty() {
            self.sweep_due = Instant::now();
        }
    }

    /// After a sweep: gives back the ids that no pin names any more. `named` tells whether one does.
    pub(super) fn bury(&mut self, named: impl Fn(BackendId) -> bool) {
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.dying)
            .into_iter()
            .partition(|dying| dying.graced && !dying.backends.iter().any(|id| named(*id)));
        self.dying = stay;
        for dying in gone {
            for id in dying.backends {
                self.dataplane.backends().set(id.0, &BackendRow::default());
                self.backend_ids.free(id.0);
            }
            if let Some(id) = dying.service {
                self.service_ids.free(id);
            }
        }
    }

    /// Takes removed backends that no slot and no pin names out of their services, their counters into the service's.
    pub(super) fn drop_drained(&mut self, named: impl Fn(BackendId) -> bool) {
        let mut drained = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            for backend in service.backends.iter().filter(|backend| backend.removed) {
                if !named(backend.id) && !self.slot_names(index, backend.id) {
                    drained.push((index, backend.id));
                }
            }
        }
        let mut gone = Vec::new();
        let mut entries = Vec::new();
        for (index, id) in drained {
            let counters = self.counters_of(id);
            let service = &mut self.services[index];
            let Some(at) = service.backends.iter().position(|backend| backend.id == id) else {
                continue;
            };
            add(&mut service.retired, &counters);
            service.retired_ids.push(id.0);
            let backend = service.backends.remove(at);
            let (name, cause) = (&service.spec.name, "no slot and no pin names it");
            let text = format!("{name}/{} has drained and is gone", backend.spec.name);
            let happened = Happened::to_node(Kind::Drained, text, cause);
            self.log.add(happened.to_backend(name, &backend.spec.name));
            entries.push(service.gone_entry(&backend));
            entries.push(service.entry());
            gone.push((index, backend));
        }
        if gone.is_empty() {
            return;
        }
        // First the note that these counters are in the sum, then the end of the rows that say they are not.
        self.record(entries, true);
        for (index, backend) in gone {
            let service = &self.services[index];
            let (forward, protocol) = (service.spec.forward, service.key.protocol);
            self.withdraw_reply(forward, protocol, &backend);
            self.dataplane.backends().set(backend.id.0, &BackendRow::default());
            self.dying.push(Dying { service: None, backends: vec![backend.id], graced: false });
            self.grace_wanted = true;
            self.services[index].retired_ids.retain(|retired| *retired != backend.id.0);
        }
    }

    pub(super) fn slot_names(&self, index: usize, id: BackendId) -> bool {
        let service = &self.services[index];
        [Some(service.ring), service.old_ring].into_iter().flatten().any(|ring| {
            (0..ring.slots).any(|number| {
                let slot = self.dataplane.arena().slot(ring.offset + number);
                slot.owner() == id
                    || (slot.base() == id && slot.phase() != lb_common::abi::Phase::Settled)
            })
        })
    }
}

/// Adds counters.
pub(super) fn add(sum: &mut Counters, more: &Counters) {
    sum.packets_in += more.packets_in;
    sum.bytes_in += more.bytes_in;
    sum.packets_out += more.packets_out;
    sum.bytes_out += more.bytes_out;
    sum.flows += more.flows;
    sum.resets += more.resets;
}
