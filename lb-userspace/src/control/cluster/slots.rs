//! Slots that are on their way: told when they change, and taken over where this node knows less.

use std::{collections::HashMap, net::SocketAddr, ops::Range};

use lb_common::abi::{BackendId, Phase, elapsed_seconds};

use super::{
    super::{
        Node,
        apply::phase_mut,
        loaded::{Backend, Service},
        monotonic_seconds,
    },
    Outward,
};
use crate::{
    cluster::message::{MOST, Message, NO_BASE, OLD_RING, SlotEntry, Slots},
    plan::cluster::{Adopted, adopt_slot},
};

/// Slots looked at for one page.
pub const PAGE: u32 = 16_384;

/// How far telling a service's slots has come.
#[derive(Clone, Copy, Default)]
pub struct SlotsDue {
    from: u32,
    /// Some have changed since it began.
    again: bool,
}

/// Backends by their places in one message, which names only those that its entries do.
#[derive(Default)]
pub struct Names {
    places: HashMap<SocketAddr, u16>,
    addresses: Vec<SocketAddr>,
}

impl Names {
    /// The place of a backend.
    pub fn place(&mut self, address: SocketAddr) -> u16 {
        let addresses = &mut self.addresses;
        *self.places.entry(address).or_insert_with(|| {
            addresses.push(address);
            // A message has fewer entries.
            (addresses.len() - 1) as u16
        })
    }

    /// Those that have one.
    pub fn into_addresses(self) -> Vec<SocketAddr> {
        self.addresses
    }
}

fn message(service: &Service, names: Names, entries: Vec<SlotEntry>) -> Message {
    Message::Slots(Slots {
        service: service.key.into(),
        length: service.ring.slots,
        backends: names.into_addresses(),
        entries,
    })
}

impl Node {
    /// Those of a service's slots with these numbers that are not settled.
    pub(super) fn slots_of(&self, index: usize, numbers: Range<u32>) -> Vec<Message> {
        let service = &self.services[index];
        if !service.stateful() || !service.unsettled() {
            return Vec::new();
        }
        let now = monotonic_seconds();
        let arena = self.dataplane.arena();
        let addresses = self.addresses_of(index);
        let mut messages = Vec::new();
        let mut names = Names::default();
        let mut entries = Vec::new();
        for number in numbers {
            let slot = arena.slot(service.ring.offset + number);
            let base = match (slot.phase(), slot.base()) {
                (Phase::Settled, _) => continue,
                (Phase::Pinned, _) => NO_BASE,
                (_, BackendId::OLD_RING) => OLD_RING,
                (_, base) => match addresses.get(&base) {
                    Some(address) => names.place(*address),
                    None => NO_BASE,
                },
            };
            let age = elapsed_seconds(slot.since(), now) as u16;
            entries.push(SlotEntry { number, base, phase: slot.phase() as u8, age });
            if entries.len() == MOST {
                let full = (std::mem::take(&mut names), std::mem::take(&mut entries));
                messages.push(message(service, full.0, full.1));
            }
        }
        if !entries.is_empty() {
            messages.push(message(service, names, entries));
        }
        messages
    }

    /// Addresses of a service's backends, by which they go on the wire.
    pub(super) fn addresses_of(&self, index: usize) -> HashMap<BackendId, SocketAddr> {
        let address = |one: &Backend| SocketAddr::new(one.spec.address, one.spec.port);
        self.services[index].backends.iter().map(|one| (one.id, address(one))).collect()
    }

    /// A message's backends in this node's ids.
    pub(super) fn backend_ids_of(
        &self,
        index: usize,
        addresses: &[SocketAddr],
    ) -> Vec<Option<BackendId>> {
        let known: HashMap<SocketAddr, BackendId> = self.services[index]
            .backends
            .iter()
            .map(|one| (SocketAddr::new(one.spec.address, one.spec.port), one.id))
            .collect();
        addresses.iter().map(|address| known.get(address).copied()).collect()
    }

    /// Tells slots of services in which some have changed since they were told.
    pub(super) fn tell_slots(&mut self) {
        let seed = self.seed.fingerprint();
        for index in 0..self.services.len() {
            let service = &self.services[index];
            if !service.unsettled() {
                self.peers.slots_told.remove(&service.id);
                continue;
            }
            let (id, state) = (service.id, (service.phases, service.history.moved_slots));
            if self.peers.slots_told.get(&id) == Some(&state) || !self.peers.has_listeners() {
                continue;
            }
            self.peers.slots_told.insert(id, state);
            for out in self.peers.out.iter_mut().filter(|out| out.has_seed(&seed)) {
                // Those told already are told again when all have been.
                out.slots_due.entry(id).and_modify(|due| due.again = true).or_default();
            }
        }
    }

    /// Goes on with telling one peer slots that have changed, a page at a time.
    pub(super) fn next_slots(&mut self, peer: usize) -> Vec<Message> {
        let Outward { slots_due, .. } = &mut self.peers.out[peer];
        let Some(mut entry) = slots_due.first_entry() else { return Vec::new() };
        let (id, due) = (*entry.key(), *entry.get());
        let found = self.services.iter().position(|one| one.id == id);
        let Some((index, length)) = found.map(|index| (index, self.services[index].ring.slots))
        else {
            entry.remove();
            return Vec::new();
        };
        let end = due.from.saturating_add(PAGE).min(length);
        match (end < length, due.again) {
            (true, _) => entry.get_mut().from = end,
            (false, true) => *entry.get_mut() = SlotsDue::default(),
            (false, false) => drop(entry.remove()),
        }
        self.slots_of(index, due.from..end)
    }

    /// Another node's slots that are not settled.
    pub(super) fn take_slots(&mut self, slots: &Slots) {
        let found = self.services.iter().position(|one| slots.service == one.key.into());
        let all = slots.entries.len() as u64;
        let Some(index) = found.filter(|index| {
            let service = &self.services[*index];
            service.ring.slots == slots.length && service.stateful()
        }) else {
            self.peers.counts.unknown += all;
            return;
        };
        let ids = self.backend_ids_of(index, &slots.backends);
        let now = monotonic_seconds();
        let yields = self.is_joining() || !self.snapshot.is_local(self.services[index].key.address);
        let service = &mut self.services[index];
        let arena = self.dataplane.arena();
        let counts = &mut self.peers.counts;
        for entry in &slots.entries {
            let phase = match entry.phase {
                1 => Phase::Window,
                2 => Phase::Harvest,
                3 => Phase::Pinned,
                _ => Phase::Settled,
            };
            let base = match entry.base {
                _ if phase == Phase::Pinned => Some(BackendId::NONE),
                NO_BASE => None,
                OLD_RING => service.old_ring.map(|_| BackendId::OLD_RING),
                place => ids.get(usize::from(place)).copied().flatten(),
            };
            let Some(base) = base.filter(|_| entry.number < slots.length) else {
                counts.unknown += 1;
                continue;
            };
            let place = service.ring.offset + entry.number;
            let own = arena.slot(place);
            let since = now.wrapping_sub(u64::from(entry.age));
            match adopt_slot(own, phase, base, since, yields) {
                Adopted::Changed(new) => {
                    arena.set_slot(place, new);
                    *phase_mut(&mut service.phases, own.phase()) -= 1;
                    *phase_mut(&mut service.phases, new.phase()) += 1;
                    counts.taken += 1;
                }
                Adopted::Kept => counts.known += 1,
                Adopted::Conflict => counts.conflicts += 1,
            }
        }
    }
}
