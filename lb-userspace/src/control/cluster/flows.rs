//! Flows and clients that the tables remember: told when they are new, when they close, and now and then for as long as they
//! live; taken over unless this node knows of a later packet of theirs.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    abi::{Address, BackendId, FlowKey, Phase, Pin, RememberedSource, Slot, SourceKey, pin_flag},
    be::Be16,
    hash::{ring_hash, slot_of},
};

use super::super::{Node, apply::phase_mut, monotonic_seconds};
use super::{Peers, slots::Names};
use crate::cluster::message::{Clients, FlowEntry, Flows, MOST, Message};

/// Entries are told of again when so many parts of their idle time have passed in which they were heard of.
const PARTS: u64 = 4;

/// What was told of the entries of a table last, or was heard of them.
#[derive(Default)]
pub struct Sent {
    /// By a hash of the key: two of a million that fall together cost one of them its place on the other nodes, until
    /// the other has gone.
    known: HashMap<u64, Known>,
    hasher: RandomState,
    round: u32,
}

struct Known {
    last_seen: u64,
    is_closing: bool,
    round: u32,
}

impl Sent {
    /// A look at the whole table begins.
    fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// It ends: what was not in it is forgotten.
    fn end(&mut self) {
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
    }

    /// Nobody knows anything.
    fn forget(&mut self) {
        if !self.known.is_empty() {
            self.known = HashMap::new();
        }
    }

    /// Whether an entry has to be told; if so, it has been.
    fn is_due(&mut self, key: &impl Hash, last_seen: u64, is_closing: bool, part: u64) -> bool {
        let round = self.round;
        let new = Known { last_seen, is_closing, round };
        match self.known.get_mut(&self.hasher.hash_one(key)) {
            None => {
                self.known.insert(self.hasher.hash_one(key), new);
                true
            }
            Some(known) => {
                known.round = round;
                let is_due = known.is_closing != is_closing
                    || last_seen.saturating_sub(known.last_seen) >= part;
                if is_due {
                    *known = new;
                }
                is_due
            }
        }
    }

    /// An entry is known elsewhere.
    fn note(&mut self, key: &impl Hash, last_seen: u64, is_closing: bool) {
        let known = Known { last_seen, is_closing, round: self.round };
        self.known.insert(self.hasher.hash_one(key), known);
    }
}

impl Peers {
    /// A pass through the tables of tracked flows begins.
    pub(in crate::control) fn begin_flows(&mut self) {
        self.flows_sent.begin();
        self.clients_sent.begin();
    }

    /// It ends.
    pub(in crate::control) fn end_flows(&mut self) {
        self.flows_sent.end();
        self.clients_sent.end();
    }
}

fn is_closing(pin: &Pin) -> bool {
    pin.flags & pin_flag::CLOSING != 0
}

impl Node {
    /// Tells pins that are new or have news.
    pub(in crate::control) fn tell_pins(
        &mut self,
        unconfirmed: &[(FlowKey, Pin)],
        confirmed: &[(FlowKey, Pin)],
        jiffies: u64,
    ) {
        if !self.peers.has_listeners() {
            return self.peers.pins_sent.forget();
        }
        self.peers.pins_sent.begin();
        let promoted = |(_, pin): &&(FlowKey, Pin)| pin.flags & pin_flag::PROMOTED != 0;
        let due: Vec<_> = {
            let parts = self.idle_parts();
            let sent = &mut self.peers.pins_sent;
            let all = confirmed.iter().chain(unconfirmed.iter().filter(promoted));
            all.filter(|(key, pin)| {
                let part = parts.get(&pin.service).copied().unwrap_or(u64::MAX);
                sent.is_due(key, pin.last_seen, is_closing(pin), part)
            })
            .collect()
        };
        self.peers.pins_sent.end();
        self.tell_due(false, &due, jiffies);
    }

    /// The same for a page of tracked flows.
    pub(in crate::control) fn tell_flows(&mut self, page: &[(FlowKey, Pin)], jiffies: u64) {
        if !self.peers.has_listeners() {
            return self.peers.flows_sent.forget();
        }
        let parts = self.idle_parts();
        let sent = &mut self.peers.flows_sent;
        let due: Vec<_> = page
            .iter()
            .filter(|(key, entry)| {
                let part = parts.get(&entry.service).copied().unwrap_or(u64::MAX);
                sent.is_due(key, entry.last_seen, is_closing(entry), part)
            })
            .collect();
        self.tell_due(true, &due, jiffies);
    }

    /// The same for a page of remembered clients.
    pub(in crate::control) fn tell_clients(
        &mut self,
        page: &[(SourceKey, RememberedSource)],
        jiffies: u64,
    ) {
        if !self.peers.has_listeners() {
            return self.peers.clients_sent.forget();
        }
        let policies = self.dataplane.policies();
        let sent = &mut self.peers.clients_sent;
        let due: Vec<_> = page
            .iter()
            .filter(|(key, source)| {
                let known = key.service < policies.len();
                let idle = if known { policies.get(key.service).source_idle } else { u64::MAX };
                sent.is_due(key, source.last_seen, false, idle / PARTS)
            })
            .collect();
        let seed = self.seed.fingerprint();
        for message in self.clients_at(due.into_iter(), jiffies) {
            self.peers.tell_same_seed(&message, &seed);
        }
    }

    fn tell_due(&mut self, tracked: bool, due: &[&(FlowKey, Pin)], jiffies: u64) {
        let seed = self.seed.fingerprint();
        for message in self.flows_at(tracked, due.iter().copied(), jiffies) {
            self.peers.tell_same_seed(&message, &seed);
        }
    }

    /// A part of the idle time of each service, jiffies.
    fn idle_parts(&self) -> HashMap<u32, u64> {
        let part = |seconds: u64| seconds * self.hz / PARTS;
        self.services.iter().map(|one| (one.id, part(one.idle_seconds()))).collect()
    }

    /// Flows as they are now.
    pub(super) fn flow_messages<'a>(
        &self,
        tracked: bool,
        flows: impl Iterator<Item = &'a (FlowKey, Pin)>,
    ) -> anyhow::Result<Vec<Message>> {
        Ok(self.flows_at(tracked, flows, self.dataplane.clock()?.jiffies))
    }

    /// Clients as they are now.
    pub(super) fn client_messages<'a>(
        &self,
        clients: impl Iterator<Item = &'a (SourceKey, RememberedSource)>,
    ) -> anyhow::Result<Vec<Message>> {
        Ok(self.clients_at(clients, self.dataplane.clock()?.jiffies))
    }

    fn flows_at<'a>(
        &self,
        tracked: bool,
        flows: impl Iterator<Item = &'a (FlowKey, Pin)>,
        jiffies: u64,
    ) -> Vec<Message> {
        let mut by_service: HashMap<u32, Vec<&(FlowKey, Pin)>> = HashMap::new();
        for flow in flows {
            by_service.entry(flow.1.service).or_default().push(flow);
        }
        let mut messages = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            let Some(flows) = by_service.get(&service.id) else { continue };
            let addresses = self.addresses_of(index);
            messages.extend(flows.chunks(MOST).map(|flows| {
                let mut names = Names::default();
                let entry = |(key, pin): &&(FlowKey, Pin)| {
                    Some(FlowEntry {
                        client: SocketAddr::new(key.source.into(), key.source_port.to_host()),
                        backend: names.place(*addresses.get(&pin.backend)?),
                        silent: self.milliseconds(jiffies.saturating_sub(pin.last_seen)),
                        age: self.milliseconds(jiffies.saturating_sub(pin.created)),
                        closing: is_closing(pin).then_some(pin.closing_sequence),
                    })
                };
                let entries = flows.iter().filter_map(entry).collect();
                Message::Flows(Flows {
                    service: service.key.into(),
                    tracked,
                    backends: names.into_addresses(),
                    entries,
                })
            }));
        }
        messages
    }

    fn clients_at<'a>(
        &self,
        clients: impl Iterator<Item = &'a (SourceKey, RememberedSource)>,
        jiffies: u64,
    ) -> Vec<Message> {
        let mut by_service: HashMap<u32, Vec<&(SourceKey, RememberedSource)>> = HashMap::new();
        for client in clients {
            by_service.entry(client.0.service).or_default().push(client);
        }
        let mut messages = Vec::new();
        for (index, service) in self.services.iter().enumerate() {
            let Some(clients) = by_service.get(&service.id) else { continue };
            let addresses = self.addresses_of(index);
            messages.extend(clients.chunks(MOST).map(|clients| {
                let mut names = Names::default();
                let entry = |(key, source): &&(SourceKey, RememberedSource)| {
                    let place = names.place(*addresses.get(&source.backend)?);
                    let silent = self.milliseconds(jiffies.saturating_sub(source.last_seen));
                    Some((IpAddr::from(key.source), place, silent))
                };
                let entries = clients.iter().filter_map(entry).collect();
                Message::Clients(Clients {
                    service: service.key.into(),
                    backends: names.into_addresses(),
                    entries,
                })
            }));
        }
        messages
    }

    fn milliseconds(&self, jiffies: u64) -> u32 {
        u32::try_from(jiffies.saturating_mul(1_000) / self.hz.max(1)).unwrap_or(u32::MAX)
    }

    /// When something was that was so many milliseconds ago, jiffies.
    fn ago(&self, now: u64, milliseconds: u32) -> u64 {
        now.saturating_sub(u64::from(milliseconds) * self.hz / 1_000)
    }

    /// Another node's flows.
    pub(super) fn take_flows(&mut self, flows: &Flows) {
        let found = self.services.iter().position(|one| flows.service == one.key.into());
        let fits = |index: &usize| {
            let service = &self.services[*index];
            if flows.tracked { service.spec.tracks() } else { service.stateful() }
        };
        let (Some(index), Ok(clock)) = (found.filter(fits), self.dataplane.clock()) else {
            self.peers.counts.unknown += flows.entries.len() as u64;
            return;
        };
        let ids = self.backend_ids_of(index, &flows.backends);
        for entry in &flows.entries {
            let Some(backend) = ids.get(usize::from(entry.backend)).copied().flatten() else {
                self.peers.counts.unknown += 1;
                continue;
            };
            let (key, pin) = self.flow_here(index, backend, entry, clock.jiffies);
            let taken = match flows.tracked {
                true => self.take_tracked(index, &key, &pin),
                false => self.take_pin(index, &key, &pin),
            };
            let counts = &mut self.peers.counts;
            match taken {
                Ok(Some(true)) => counts.taken += 1,
                Ok(Some(false)) => counts.refused += 1,
                Ok(None) => counts.known += 1,
                Err(error) => {
                    tracing::warn!(%error, "another node's flow could not be written");
                    counts.refused += 1;
                }
            }
        }
    }

    fn flow_here(
        &self,
        index: usize,
        backend: BackendId,
        entry: &FlowEntry,
        jiffies: u64,
    ) -> (FlowKey, Pin) {
        let service = &self.services[index];
        let key = FlowKey {
            source: Address::from(entry.client.ip()),
            destination: Address::from(service.key.address),
            source_port: Be16::from_host(entry.client.port()),
            destination_port: Be16::from_host(service.key.port),
            protocol: service.key.protocol,
            _pad: [0; 3],
        };
        let pin = Pin {
            backend,
            flags: if entry.closing.is_some() { pin_flag::CLOSING } else { 0 },
            last_seen: self.ago(jiffies, entry.silent),
            created: self.ago(jiffies, entry.age),
            closing_sequence: entry.closing.unwrap_or(0),
            service: service.id,
            ..Pin::default()
        };
        (key, pin)
    }

    /// Whether a pin was written, or the table is full; `None` = it says nothing new.
    fn take_pin(&mut self, index: usize, key: &FlowKey, pin: &Pin) -> anyhow::Result<Option<bool>> {
        if self.dataplane.pin(true, key)?.is_some_and(|known| known.last_seen >= pin.last_seen) {
            return Ok(None);
        }
        let service = &mut self.services[index];
        let hash = ring_hash(&self.keys, key, service.by_source);
        let place = service.ring.offset + slot_of(hash, service.ring.slots);
        let slot = self.dataplane.arena().slot(place);
        if slot.phase() == Phase::Settled {
            if slot.owner() == pin.backend {
                return Ok(None);
            }
            // This node has not heard of the change yet, or finds the ring another way. Flows without a pin stay where they are.
            let new = Slot::new(slot.owner(), BackendId::NONE, Phase::Pinned, monotonic_seconds());
            self.dataplane.arena().set_slot(place, new);
            *phase_mut(&mut service.phases, Phase::Settled) -= 1;
            *phase_mut(&mut service.phases, Phase::Pinned) += 1;
        }
        let written = self.dataplane.put_pin(key, pin)?;
        self.pins_seen = true;
        self.peers.pins_sent.note(key, pin.last_seen, is_closing(pin));
        Ok(Some(written))
    }

    /// The same for a tracked flow.
    fn take_tracked(
        &mut self,
        index: usize,
        key: &FlowKey,
        entry: &Pin,
    ) -> anyhow::Result<Option<bool>> {
        let known = self.dataplane.flow(true, key)?;
        if known.is_some_and(|known| known.last_seen >= entry.last_seen) {
            return Ok(None);
        }
        let id = self.services[index].id;
        let limit = self.dataplane.policies().get(id).flows;
        if known.is_none() && self.dataplane.service_loads().get(id).confirmed >= limit.into() {
            return Ok(Some(false));
        }
        let written = self.dataplane.put_flow(key, entry, known.as_ref())?;
        self.peers.flows_sent.note(key, entry.last_seen, is_closing(entry));
        Ok(Some(written))
    }

    /// Another node's clients.
    pub(super) fn take_clients(&mut self, clients: &Clients) {
        let found = self.services.iter().position(|one| clients.service == one.key.into());
        let fits = |index: &usize| self.services[*index].spec.remembers_sources();
        let (Some(index), Ok(clock)) = (found.filter(fits), self.dataplane.clock()) else {
            self.peers.counts.unknown += clients.entries.len() as u64;
            return;
        };
        let ids = self.backend_ids_of(index, &clients.backends);
        let service = self.services[index].id;
        for (client, place, silent) in &clients.entries {
            let Some(backend) = ids.get(usize::from(*place)).copied().flatten() else {
                self.peers.counts.unknown += 1;
                continue;
            };
            let key = SourceKey { source: Address::from(*client), service, _pad: 0 };
            let last_seen = self.ago(clock.jiffies, *silent);
            let source = RememberedSource { backend, last_seen, _pad: 0 };
            let taken = match self.dataplane.source(&key) {
                Ok(Some(known)) if known.last_seen >= last_seen => None,
                Ok(_) => Some(self.dataplane.put_source(&key, &source)),
                Err(error) => Some(Err(error)),
            };
            let counts = &mut self.peers.counts;
            match taken {
                None => counts.known += 1,
                Some(Ok(true)) => {
                    counts.taken += 1;
                    self.peers.clients_sent.note(&key, last_seen, false);
                }
                Some(Ok(false)) => counts.refused += 1,
                Some(Err(error)) => {
                    tracing::warn!(%error, "another node's client could not be remembered");
                    counts.refused += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_when_new_when_they_close_and_now_and_then() {
        let mut sent = Sent::default();
        let mut look = |last_seen, closing| {
            sent.begin();
            let due = sent.is_due(&1, last_seen, closing, 100);
            sent.end();
            due
        };
        assert!(look(1_000, false));
        assert!(!look(1_000, false) && !look(1_099, false));
        assert!(look(1_100, false) && !look(1_150, false));
        assert!(look(1_150, true) && !look(1_151, true));
        assert!(look(1_151, false));
    }

    #[test]
    fn what_is_heard_is_not_told_back_and_what_has_gone_is_new_again() {
        let mut sent = Sent::default();
        sent.begin();
        sent.note(&1, 1_000, false);
        assert!(!sent.is_due(&1, 1_000, false, 100));
        assert!(sent.is_due(&1, 1_200, false, 100), "it passes here now");
        sent.end();
        sent.begin();
        sent.end();
        sent.begin();
        assert!(sent.is_due(&1, 1_200, false, 100));
    }
}
