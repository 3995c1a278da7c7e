//! Views: the rings of all nodes and what they are made of, compared; and the votes on health in them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::super::{
    Node,
    loaded::{Backend, Service, target},
};
use crate::{
    cluster::message::{BackendView, MOST_BACKENDS, Message, ServiceKey, View},
    events::{Happened, Kind},
    plan::{cluster, members::Admin},
};

/// What differs for less is on its way.
const PATIENCE: Duration = Duration::from_secs(5);

/// Slow starts and agents do not run in step: their shares differ for as long as they are on their way.
const PATIENCE_WITH_SHARES: Duration = Duration::from_secs(300);

fn patience(input: &str) -> Duration {
    if input.starts_with(cluster::SHARE) { PATIENCE_WITH_SHARES } else { PATIENCE }
}

/// A ring that is another one elsewhere.
pub struct Mismatch {
    pub since: Instant,
    /// The input that differs.
    pub input: String,
    pub is_told: bool,
}

/// A backend whose state is not what this node's checks say.
pub struct Vote {
    pub since: Instant,
    pub text: String,
    pub is_told: bool,
}

impl Node {
    fn view_of(&self, service: &Service) -> View {
        let is_known = service.starting_until.is_none() && service.row != 0;
        let staying = service.backends.iter().filter(|backend| !backend.removed);
        View {
            service: service.key.into(),
            ring: is_known.then(|| self.ring_digest(service)),
            slots: service.ring.slots,
            backends: staying
                .take(MOST_BACKENDS)
                .map(|backend| backend_view(service, backend))
                .collect(),
        }
    }

    /// Tells what has changed of services.
    pub(in crate::control) fn tell_views(&mut self) {
        if self.peers.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.peers.changed);
        let services: Vec<usize> = (0..self.services.len())
            .filter(|index| changed.contains(&self.services[*index].id))
            .collect();
        for index in services {
            let view = self.view_of(&self.services[index]);
            let key = view.service;
            if self.peers.views.get(&key) == Some(&view) {
                continue;
            }
            self.peers.tell(&Message::View(view.clone()));
            self.peers.views.insert(key, view);
            self.count_votes(index);
        }
        if self.peers.views.len() > self.services.len() {
            let services = &self.services;
            self.peers.views.retain(|key, _| services.iter().any(|one| *key == one.key.into()));
        }
    }

    pub(super) fn count_votes_of(&mut self, service: ServiceKey) {
        if let Some(index) = self.services.iter().position(|one| service == one.key.into()) {
            self.count_votes(index);
        }
    }

    pub(super) fn count_votes_of_all(&mut self) {
        (0..self.services.len()).for_each(|index| self.count_votes(index));
    }

    /// What all nodes find of a service's backends; applied like a change of health.
    fn count_votes(&mut self, index: usize) {
        let service = &mut self.services[index];
        let key: ServiceKey = service.key.into();
        let views: Vec<&View> =
            self.peers.into.values().filter_map(|one| one.views.get(&key)).collect();
        let mut changed = false;
        for number in 0..service.backends.len() {
            let own = backend_view(service, &service.backends[number]);
            let others = views
                .iter()
                .filter_map(|view| view.backends.iter().find(|one| one.address == own.address)?.up);
            let others: Vec<bool> = others.collect();
            let voted = match others.is_empty() {
                true => None,
                false => cluster::outcome(own.up.into_iter().chain(others)),
            };
            let backend = &mut service.backends[number];
            changed |= std::mem::replace(&mut backend.voted, voted) != voted;
        }
        if changed {
            self.dirty.insert(service.id);
        }
    }

    /// Rings that differ for longer than it takes until a change is everywhere.
    pub(super) fn judge_rings(&mut self, now: Instant) {
        let mut found = Vec::new();
        for inward in self.peers.into.values() {
            for (key, other) in &inward.views {
                let Some(own) = self.peers.views.get(key) else { continue };
                let Some(service) = self.services.iter().find(|one| *key == one.key.into()) else {
                    continue;
                };
                let name = |one: &BackendView| {
                    let found = service.backends.iter().find(|two| address(two) == one.address);
                    found.map_or_else(|| one.address.to_string(), |two| two.spec.name.clone())
                };
                if let Some(input) = cluster::difference(own, other, name) {
                    let place = (inward.hello.node.clone(), *key);
                    found.push((place, service.spec.name.clone(), input));
                }
            }
        }
        let before = std::mem::take(&mut self.peers.mismatches);
        for (place, service, input) in found {
            let known = before.get(&place);
            let since = known.map_or(now, |known| known.since);
            let was_told = known.is_some_and(|known| known.is_told);
            let is_told = now.duration_since(since) >= patience(&input);
            if is_told && !was_told {
                let text = format!("{service} has another ring on {}", place.0);
                let happened = Happened::to_node(Kind::RingMismatch, text, input.clone());
                self.log.add(happened.to_service(&service));
            }
            self.peers.mismatches.insert(place, Mismatch { since, input, is_told });
        }
        for ((node, key), known) in before {
            let stays = self.peers.mismatches.contains_key(&(node.clone(), key));
            let service = self.services.iter().find(|one| key == one.key.into());
            if let Some(service) = service.filter(|_| known.is_told && !stays) {
                let text = format!("{} has the same ring on {node} again", service.spec.name);
                let cause = format!("it was: {}", known.input);
                let happened = Happened::to_node(Kind::RingMismatch, text, cause);
                self.log.add(happened.to_service(&service.spec.name));
            }
        }
    }

    /// Backends that are not what this node's own checks say, for longer than checks of different nodes are apart.
    pub(super) fn judge_votes(&mut self, now: Instant) {
        let mut found = Vec::new();
        for service in &self.services {
            let key: ServiceKey = service.key.into();
            for backend in service.backends.iter().filter(|backend| !backend.removed) {
                let own = backend_view(service, backend).up;
                let (Some(own), Some(voted)) = (own, backend.voted) else { continue };
                if own == voted {
                    continue;
                }
                let word = |up| if up { "UP" } else { "DOWN" };
                let text = format!(
                    "{}/{}: {} by the checks of this node, {} by those of the cluster, which count",
                    service.spec.name,
                    backend.spec.name,
                    word(own),
                    word(voted)
                );
                let names = (service.spec.name.clone(), backend.spec.name.clone());
                found.push(((key, address(backend)), names, text));
            }
        }
        let before = std::mem::take(&mut self.peers.votes);
        for (place, (service, backend), text) in found {
            let known = before.get(&place);
            let since = known.map_or(now, |known| known.since);
            let is_told = now.duration_since(since) >= PATIENCE;
            if is_told && !known.is_some_and(|known| known.is_told) {
                let cause = "look at the way from this node to the backend";
                let happened = Happened::to_node(Kind::Outvoted, text.clone(), cause);
                self.log.add(happened.to_backend(&service, &backend));
            }
            self.peers.votes.insert(place, Vote { since, text, is_told });
        }
    }
}

fn address(backend: &Backend) -> SocketAddr {
    SocketAddr::new(backend.spec.address, backend.spec.port)
}

fn backend_view(service: &Service, backend: &Backend) -> BackendView {
    let is_checked = backend.health.is_some() && target(&service.spec, &backend.spec).is_some();
    let percent = backend.says().percent.unwrap_or(100);
    BackendView {
        address: address(backend),
        configured: backend.spec.weight,
        weight: backend.weight(),
        percent: (u32::from(percent) * u32::from(backend.ramp) / 100) as u16,
        admin: match backend.admin {
            Admin::Ready => 0,
            Admin::Drain => 1,
            Admin::Maint => 2,
        },
        up: is_checked.then(|| backend.healthy()),
    }
}
