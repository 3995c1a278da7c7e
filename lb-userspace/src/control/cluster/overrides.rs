//! What is set by hand holds on all nodes: `lb drain`, `lb maint`, `lb ready`, `lb weight`, `lb set` and `lb unset`.
//!
//! Each value carries Lamport's clock (one more than the greatest that its node had heard of), so that every node picks the same
//! one of two, whatever their clocks of the wall say. A value for something that a node does not have waits until it has it, and one
//! of something that has gone is forgotten.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::super::{Node, state::Admin};
use crate::{
    api::{
        peer::Peer,
        types::{SetBackend, Setting, Unset},
    },
    cluster::message::{self, Message, ServiceKey, Target},
    plan::cluster::is_newer,
};

/// Values of settings beyond which no more are kept: more than `lb set` allows.
const MOST: usize = 20_000;

/// Longest texts of a value, bytes together: more than any key and its value need.
const LONGEST: usize = 8_192;

fn length(set: &message::Override) -> usize {
    let target = match &set.target {
        Target::Setting(target, key) => target.len() + key.len(),
        Target::Admin(..) | Target::Weight(..) => 0,
    };
    target + set.node.len() + set.value.as_ref().map_or(0, String::len)
}

/// A value, and whether it is in force here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// As it was told.
    pub set: message::Override,
    /// It has been put in force here, or was set here.
    pub in_force: bool,
}

impl Node {
    /// What was set before there was a cluster is older than everything that is set in it.
    pub(super) fn note_overrides_so_far(&mut self) {
        let mut found = Vec::new();
        for service in &self.services {
            for backend in service.backends.iter().filter(|backend| !backend.removed) {
                let place =
                    (service.key.into(), SocketAddr::new(backend.spec.address, backend.spec.port));
                if backend.admin != Admin::Ready {
                    let value = backend.admin.name().to_owned();
                    found.push((Target::Admin(place.0, place.1), value));
                }
                if let Some(weight) = backend.weight {
                    found.push((Target::Weight(place.0, place.1), weight.to_string()));
                }
            }
        }
        for Setting { target, key, value } in &self.state.settings {
            found.push((Target::Setting(target.clone(), key.clone()), value.clone()));
        }
        found.retain(|(target, _)| {
            !self.state.overrides.iter().any(|one| one.set.target == *target)
        });
        for (target, value) in found {
            let node = self.options.node.clone();
            let set = message::Override { target, value: Some(value), clock: 1, node };
            self.state.overrides.push(Override { set, in_force: true });
        }
    }

    /// A backend's administrative state or weight was set, here or by another node's word.
    pub(in crate::control) fn note_backend_set(
        &mut self,
        index: usize,
        number: usize,
        set: &SetBackend,
    ) {
        let (service, backend) = (&self.services[index], &self.services[index].backends[number]);
        let (key, address): (ServiceKey, _) =
            (service.key.into(), SocketAddr::new(backend.spec.address, backend.spec.port));
        let admin = set.admin.as_ref().map(|_| backend.admin.name().to_owned());
        let weight = set.weight.map(|weight| weight.to_string());
        if let Some(admin) = admin {
            self.note_set(Target::Admin(key, address), Some(admin));
        }
        if let Some(weight) = weight {
            self.note_set(Target::Weight(key, address), Some(weight));
        }
    }

    /// Something was set here: it is told to the others.
    pub(in crate::control) fn note_set(&mut self, target: Target, value: Option<String>) {
        if self.peers.running.is_none() || self.peers.is_follower {
            return;
        }
        let greatest = self.state.overrides.iter().map(|one| one.set.clock).max();
        let clock = greatest.unwrap_or(1).saturating_add(1);
        let set = message::Override { target, value, clock, node: self.options.node.clone() };
        self.peers.tell(&Message::Override(set.clone()));
        self.keep_override(Override { set, in_force: true });
        self.peers.overrides_unsaved = true;
    }

    /// Settings have changed here: what is new, other or gone is told to the others.
    pub(in crate::control) fn note_settings(&mut self, before: &[Setting]) {
        let now = self.state.settings.clone();
        let same =
            |one: &Setting, two: &Setting| (&one.target, &one.key) == (&two.target, &two.key);
        for one in before.iter().filter(|one| !now.iter().any(|two| same(one, two))) {
            self.note_set(Target::Setting(one.target.clone(), one.key.clone()), None);
        }
        for one in now.iter().filter(|one| !before.contains(one)) {
            let value = Some(one.value.clone());
            self.note_set(Target::Setting(one.target.clone(), one.key.clone()), value);
        }
    }

    fn keep_override(&mut self, one: Override) {
        self.state.overrides.retain(|known| known.set.target != one.set.target);
        self.state.overrides.push(one);
    }

    /// Another node tells of a value.
    pub(super) fn take_override(&mut self, set: message::Override) {
        let known = self.state.overrides.iter().find(|known| known.set.target == set.target);
        if known.is_some_and(|known| !is_newer(&set, &known.set)) {
            self.peers.counts.known += 1;
            return;
        }
        if (known.is_none() && self.state.overrides.len() >= MOST) || length(&set) > LONGEST {
            self.peers.counts.refused += 1;
            return;
        }
        self.peers.counts.taken += 1;
        // Who hears of it from here only, hears of it from here; who knows it, does not tell it again.
        self.peers.tell(&Message::Override(set.clone()));
        self.keep_override(Override { set: set.clone(), in_force: false });
        self.peers.overrides_unsaved = true;
        self.put_override_in_force(&set);
    }

    /// What was waiting for its service or backend, and what has lost it.
    pub(super) fn mind_overrides(&mut self) {
        let waiting: Vec<message::Override> = self
            .state
            .overrides
            .iter()
            .filter(|one| !one.in_force)
            .map(|one| one.set.clone())
            .collect();
        waiting.iter().for_each(|set| self.put_override_in_force(set));
        let before = self.state.overrides.len();
        let mut overrides = std::mem::take(&mut self.state.overrides);
        overrides.retain(|one| match &one.set.target {
            Target::Admin(service, backend) | Target::Weight(service, backend) => {
                !one.in_force || self.place_of_key(*service, *backend).is_some()
            }
            Target::Setting(..) => true,
        });
        self.state.overrides = overrides;
        self.peers.overrides_unsaved |= self.state.overrides.len() != before;
        if std::mem::take(&mut self.peers.overrides_unsaved) {
            self.record_head();
        }
    }

    fn place_of_key(&self, service: ServiceKey, backend: SocketAddr) -> Option<(usize, usize)> {
        let index = self.services.iter().position(|one| service == one.key.into())?;
        let fits = |one: &super::super::loaded::Backend| {
            !one.removed && SocketAddr::new(one.spec.address, one.spec.port) == backend
        };
        Some((index, self.services[index].backends.iter().position(fits)?))
    }

    fn put_override_in_force(&mut self, set: &message::Override) {
        let peer = Peer::Node(set.node.clone());
        self.peers.is_follower = true;
        let result = match &set.target {
            Target::Admin(service, backend) | Target::Weight(service, backend) => {
                match self.place_of_key(*service, *backend) {
                    Some(place) => self.set_as_told(place, set, &peer),
                    None => Err(None),
                }
            }
            Target::Setting(target, key) => self.setting_as_told(target, key, set, &peer),
        };
        self.peers.is_follower = false;
        match result {
            // It waits for what it is about.
            Err(None) => return,
            Err(Some(error)) => {
                tracing::warn!(%error, from = set.node, "what was set on another node cannot be so here");
            }
            Ok(()) => {}
        }
        if let Some(one) = self.state.overrides.iter_mut().find(|one| one.set == *set) {
            one.in_force = true;
        }
        self.peers.overrides_unsaved = true;
    }

    fn set_as_told(
        &mut self,
        (index, number): (usize, usize),
        set: &message::Override,
        peer: &Peer,
    ) -> Result<(), Option<String>> {
        let service = &self.services[index];
        let backend = &service.backends[number];
        let names = (service.spec.name.clone(), backend.spec.name.clone());
        let wanted = match (&set.target, &set.value) {
            (Target::Admin(..), value) => {
                let word = value.as_deref().unwrap_or(Admin::Ready.name());
                if backend.admin.name() == word {
                    return Ok(());
                }
                SetBackend { admin: Some(word.to_owned()), weight: None }
            }
            (_, Some(weight)) => {
                let weight = weight.parse().map_err(|_| Some(format!("weight {weight}")))?;
                if backend.weight == Some(weight) {
                    return Ok(());
                }
                SetBackend { admin: None, weight: Some(weight) }
            }
            (_, None) => {
                let target = format!("{}/{}", names.0, names.1);
                let cause = format!("lb unset by {peer}");
                let done = self.unset_weight(&target, &cause);
                return done.map(drop).map_err(|failure| Some(failure.error));
            }
        };
        let done = self.set_backend(&names.0, &names.1, &wanted, peer);
        done.map(drop).map_err(|failure| Some(failure.error))
    }

    fn setting_as_told(
        &mut self,
        target: &str,
        key: &str,
        set: &message::Override,
        peer: &Peer,
    ) -> Result<(), Option<String>> {
        let is_it = |one: &&Setting| one.target == target && one.key == key;
        let current = self.state.settings.iter().find(is_it).map(|one| one.value.clone());
        if current == set.value {
            return Ok(());
        }
        let service = target.split('/').next().unwrap_or_default();
        let is_there = service == super::super::settings::GLOBAL
            || self.services.iter().any(|one| one.spec.name == service);
        if !is_there {
            return Err(None);
        }
        let (target, key) = (target.to_owned(), key.to_owned());
        let done = match &set.value {
            Some(value) => self.set(Setting { target, key, value: value.clone() }, peer),
            None => self.unset(&Unset { target, key: Some(key) }, peer),
        };
        done.map(drop).map_err(|failure| Some(failure.error))
    }
}
