//! Which backend a new flow gets, and which client is remembered where.

use std::{collections::HashMap, net::IpAddr};

use super::Subject;
use crate::{
    address::network,
    outcome::{part, reason},
};

/// How a service chooses.
#[derive(Clone, Debug)]
pub enum Choice {
    /// The owner of the flow's slot; with a factor (percent of the share that it would have), the first from there on that has room.
    Ring(Option<u64>),
    /// These in turn, by their indexes.
    Turn(Vec<usize>),
    /// The one with the fewest connections for its weight.
    Least(Vec<usize>),
}

/// Slots that are looked at for one that has room.
const STEPS: usize = 16;

/// Clients whose flows all go to one backend.
#[derive(Debug, Default)]
pub struct Clients {
    /// By service's number and what is remembered of the address: the backend's index.
    by_name: HashMap<(u32, IpAddr), usize>,
}

impl Subject<'_> {
    pub(super) fn choose(&mut self) -> Option<usize> {
        if let Some(name) = self.client()
            && let Some(backend) = self.state.tracked.clients.by_name.get(&name).copied()
            && let Some(backend) = self.usable(backend)
        {
            self.state.met(part::CLIENT_FOLLOWED);
            return Some(backend);
        }
        match &self.track.choice {
            Choice::Ring(None) => self.service.slot_of(self.flow).owner,
            Choice::Ring(Some(factor)) => self.bounded(*factor),
            Choice::Turn(schedule) => {
                let turn = self.take_turn();
                Some(*schedule.get((turn % schedule.len().max(1) as u64) as usize)?)
            }
            Choice::Least(members) => {
                let turn = self.take_turn();
                self.least(members, turn, 1)
            }
        }
    }

    fn take_turn(&mut self) -> u64 {
        let load = self.load();
        load.turn += 1;
        load.turn - 1
    }

    fn connections(&self, backend: usize) -> u64 {
        self.state.tracked.connections(self.service.backends[backend].id)
    }

    /// The first on the ring that one more connection leaves within its bound, ceil(factor * (all + 1) * weight / sum of weights);
    /// if none of the first few is, the one that has least for its weight.
    fn bounded(&mut self, factor: u64) -> Option<usize> {
        let all = self.load().connections;
        let weights = &self.track.weights;
        let total: u64 = weights.iter().sum();
        let ring = &self.service.ring;
        let first = self.service.slot_number(self.flow);
        let owners = (0..STEPS).filter_map(|step| ring[(first + step) % ring.len()].owner);
        let mut owners = owners.filter(|owner| weights[*owner] > 0);
        let has_room = |owner: &usize| {
            let bound = (factor * (all + 1) * weights[*owner]).div_ceil(100 * total);
            self.connections(*owner) < bound
        };
        if let Some(owner) = owners.find(has_room) {
            return Some(owner);
        }
        let members: Vec<usize> = (0..weights.len()).collect();
        self.least(&members, 0, 0)
    }

    /// The one with the fewest connections for its weight, once it gets `coming` more; among equals the first from the turn on.
    fn least(&self, members: &[usize], turn: u64, coming: u64) -> Option<usize> {
        let weights = &self.track.weights;
        let first = (turn % members.len().max(1) as u64) as usize;
        let row = members[first..].iter().chain(&members[..first]);
        let mut best: Option<usize> = None;
        for member in row.copied().filter(|member| weights[*member] > 0) {
            let has_less = |best: usize| {
                (self.connections(member) + coming) * weights[best]
                    < (self.connections(best) + coming) * weights[member]
            };
            if best.is_none_or(has_less) {
                best = Some(member);
            }
        }
        best
    }

    /// What the flow's client is remembered by, if the service remembers clients.
    fn client(&self) -> Option<(u32, IpAddr)> {
        let network = network(self.flow.source, self.track.clients?);
        Some((self.service.id, network))
    }

    /// The client of a confirmed flow is heard of: it is remembered, as far as there is room. Who is remembered where it can be served
    /// stays there.
    pub(super) fn heard_of(&mut self, backend: usize) {
        let Some(name) = self.client() else { return };
        let most = self.track.most_clients;
        let clients = &self.state.tracked.clients.by_name;
        if let Some(known) = clients.get(&name).copied() {
            if known != backend && self.usable(known).is_none() {
                self.remember(name, backend);
            }
            return;
        }
        if clients.len() >= most {
            self.state.count(self.service.id, reason::SOURCE_REFUSED);
            return;
        }
        self.remember(name, backend);
    }

    fn remember(&mut self, name: (u32, IpAddr), backend: usize) {
        self.state.met(part::CLIENT_REMEMBERED);
        self.state.tracked.clients.by_name.insert(name, backend);
    }
}
