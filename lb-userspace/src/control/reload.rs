//! A configuration's way into the maps: checked as a whole, then applied service by service; invalid ones change nothing.

use std::{collections::HashMap, thread, time::Instant};

use ipnet::IpNet;

use super::{
    Node, Place,
    apply::ApplyError,
    host,
    loaded::{Backend, ListenKey, target},
    rings_ahead::RingsAhead,
    state::Leaving,
};
use crate::{
    config::{self, Parsed, model},
    discovery::Expanded,
    events::{Happened, Kind},
    health::{Target, passive::Passive},
    plan::{ring, slow_start::SlowStart},
};

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read or is invalid; all errors with their places.
    #[error("{0}")]
    Config(#[from] config::Errors),
    /// It does not fit this host.
    #[error("{0}")]
    Host(String),
    /// It does not fit what is loaded, or applying it failed half-way (what is done stays done and is right).
    #[error("{0}")]
    Apply(#[from] ApplyError),
}

impl Node {
    /// Reads the file again and makes it true. Returns one line per change.
    pub(super) fn reload(&mut self, cause: &str) -> Result<Vec<String>, ReloadError> {
        if cause == super::watch::CHANGED
            && let Ok((source, _)) = config::read_own(&self.options.config)
            && self.is_own_text(&source.text)
        {
            // Understood before it was written: a large one takes most of a second.
            self.config_error = None;
            return Ok(Vec::new());
        }
        self.ask_shared_again();
        let file = config::load(&self.options.config);
        if let Ok(file) = &file
            && cause == super::watch::CHANGED
            && self.file_is_no_news(&file.source().text)
        {
            self.config_error = None;
            return Ok(Vec::new());
        }
        let result = file.map_err(ReloadError::from).and_then(|parsed| {
            for warning in &parsed.warnings {
                tracing::warn!("{warning}");
            }
            let text = parsed.source().text.clone();
            let parsed = super::settings::overlay(parsed, &self.state.settings)?;
            self.check_host(&parsed)?;
            self.apply_config(parsed.config, text, cause)
        });
        match &result {
            Ok(changes) if changes.is_empty() => self.measures.unchanged += 1,
            Ok(_) => self.measures.applied += 1,
            Err(_) => self.measures.refused += 1,
        }
        match &result {
            Ok(changes) => {
                self.config_error = None;
                self.own_file = None;
                self.file_decides(cause);
                self.note_applied(changes, cause);
            }
            Err(error) => {
                let text = format!(
                    "the configuration is not in force, the last good one still is:\n{error}"
                );
                self.log.add(Happened::to_node(Kind::ConfigRefused, text, cause));
                self.config_error = Some(error.to_string());
                self.save_state();
            }
        }
        result
    }

    pub(super) fn note_applied(&mut self, changes: &[String], cause: &str) {
        /// Changes that are listed.
        const SHOWN: usize = 10;
        let mut text = match changes {
            [] => "configuration read: nothing to change".to_owned(),
            _ => format!("revision {} is in force", self.state.revision),
        };
        for change in changes.iter().take(SHOWN) {
            text.push_str("; ");
            text.push_str(change);
        }
        if changes.len() > SHOWN {
            text.push_str(&format!("; and {} more changes", changes.len() - SHOWN));
        }
        self.log.add(Happened::to_node(Kind::ConfigApplied, text, cause));
        for change in changes {
            tracing::debug!("{change}");
        }
        self.save_state();
    }

    /// What only this host can tell: own addresses, listening sockets.
    pub(super) fn check_host(&self, parsed: &Parsed) -> Result<(), ReloadError> {
        self.check_dashboard(parsed)?;
        self.check_cluster(parsed)?;
        let listeners = host::listeners().unwrap_or_default();
        let fresh = |conflict: &host::Conflict| {
            let key = ListenKey::of(&parsed.config.services[conflict.service]);
            // A listener that came after the service does not make a running service invalid.
            !self.services.iter().any(|service| service.key == key)
        };
        let text: Vec<String> =
            host::conflicts(&parsed.config, &self.snapshot, &listeners, &self.state.addresses)
                .into_iter()
                .filter(fresh)
                .map(|conflict| {
                    let listen = format!("services[{}].listen.address", conflict.service);
                    let path = match parsed.config.services[conflict.service].listen.vips.len() {
                        1 => listen,
                        _ => format!("{listen}[{}]", conflict.vip),
                    };
                    let (line, column) = parsed.locate(&path);
                    let file = parsed.source().path.display();
                    format!("{file}:{line}:{column}: {}", conflict.message)
                })
                .collect();
        if text.is_empty() { Ok(()) } else { Err(ReloadError::Host(text.join("\n"))) }
    }

    /// With the NICs of the command line, if it names any.
    pub(super) fn with_interfaces(&self, config: model::Config) -> model::Config {
        match self.options.interfaces.is_empty() {
            true => config,
            false => model::Config { interfaces: self.options.interfaces.clone(), ..config },
        }
    }

    /// Makes the configuration of the start true. What it was read from takes as much memory again, and is not kept.
    pub(super) fn apply_first(&mut self, parsed: Parsed, text: String) -> Result<(), ReloadError> {
        self.check_host(&parsed)?;
        self.apply_config(parsed.config, text, "start").map(drop)
    }

    /// Makes a checked configuration true; its templates with what was last found.
    pub(super) fn apply_config(
        &mut self,
        config: model::Config,
        text: String,
        cause: &str,
    ) -> Result<Vec<String>, ReloadError> {
        let began = Instant::now();
        let templates = config;
        self.read_directories(&templates);
        let Expanded { config, problems } = self.expanded(&templates);
        let config = self.with_interfaces(config);
        self.check_capacity(&config)?;
        self.state.revision = self.same_revision(&text).unwrap_or_else(|| self.next_revision());
        self.state.config_text.clone_from(&text);
        self.record_head();
        let mut changes = self.change_interfaces(&config);
        self.load_features(&config)?;
        let sources = self.change_outer_source(&config, &mut changes);
        self.apply_pool(&config)?;
        let places: HashMap<ListenKey, usize> = config
            .services
            .iter()
            .enumerate()
            .map(|(place, service)| (ListenKey::of(service), place))
            .collect();
        for index in (0..self.services.len()).rev() {
            let service = &self.services[index];
            if !places.contains_key(&service.key) {
                changes.push(format!("service {} ({}): removed", service.spec.name, service.key));
                self.remove_service(index);
            }
        }
        let mut known: HashMap<ListenKey, usize> =
            self.services.iter().enumerate().map(|(index, service)| (service.key, index)).collect();
        thread::scope(|scope| {
            let fresh =
                config.services.iter().filter(|one| !known.contains_key(&ListenKey::of(one)));
            let mut ahead = RingsAhead::begin(scope, fresh.collect(), self.keys);
            config
                .services
                .iter()
                .try_for_each(|spec| self.apply_service(spec, &mut known, &mut ahead, &mut changes))
        })?;
        self.services.sort_by_key(|service| places.get(&service.key).copied());
        self.publish_bounds();
        self.socket_level.set(config.socket_level == model::SocketLevel::Admin);
        self.follow_discovery(templates, &config, problems);
        self.config = Some(config);
        self.follow_metrics();
        self.follow_dashboard();
        self.follow_cluster();
        self.change_addresses(&mut changes);
        self.publish_addresses()?;
        self.publish_ports()?;
        if sources {
            self.publish_rows(|_| true);
            (0..self.services.len()).try_for_each(|index| self.publish_service(index))?;
        }
        self.publish_network();
        self.set_targets();
        self.remember_applied(&text, &changes, cause);
        self.sweep_due = Instant::now();
        self.measures.apply.add(began.elapsed());
        Ok(changes)
    }

    fn change_interfaces(&mut self, config: &model::Config) -> Vec<String> {
        let mut changes = Vec::new();
        for name in self.interfaces.clone() {
            if !config.interfaces.contains(&name) {
                self.attached_to.remove(&name);
                match self.dataplane.detach(&name) {
                    Ok(()) => changes.push(format!("NIC {name}: detached")),
                    Err(error) => tracing::error!(interface = name, %error, "could not detach"),
                }
            }
        }
        for name in &config.interfaces {
            if !self.interfaces.contains(name) {
                changes.push(format!("NIC {name}: added"));
            }
        }
        self.interfaces = config.interfaces.clone();
        if self.xdp_mode != config.xdp_mode {
            let modes = format!("xdp_mode: {:?} -> {:?}", self.xdp_mode, config.xdp_mode);
            changes.push(modes.to_lowercase());
            self.refit = true;
        }
        self.xdp_mode = config.xdp_mode;
        let vlan = self.config.as_ref().is_some_and(|old| old.vlan);
        if vlan != config.vlan {
            changes.push(format!("vlan: {vlan} -> {}", config.vlan));
        }
        changes
    }

    /// Takes over what tunnels send from; whether that is something else than before.
    fn change_outer_source(&mut self, config: &model::Config, changes: &mut Vec<String>) -> bool {
        if self.outer_source == config.outer_source {
            return false;
        }
        changes.push(outer_source_change(&self.outer_source, &config.outer_source));
        self.outer_source.clone_from(&config.outer_source);
        true
    }

    fn apply_service(
        &mut self,
        spec: &model::Service,
        known: &mut HashMap<ListenKey, usize>,
        ahead: &mut RingsAhead,
        changes: &mut Vec<String>,
    ) -> Result<(), ReloadError> {
        let key = ListenKey::of(spec);
        let index = match known.get(&key) {
            Some(index) => *index,
            None => {
                let mut service = self.new_service(spec)?;
                service.base_ring = ahead.take(&key);
                self.services.push(service);
                known.insert(key, self.services.len() - 1);
                self.services.len() - 1
            }
        };
        let fresh = self.services[index].row == 0;
        if fresh {
            changes.push(format!(
                "service {} ({key}): added with {} backends",
                spec.name,
                spec.backends.len()
            ));
        }
        let listed = self.change_lists(index, spec)?;
        let before = std::mem::replace(&mut self.services[index].spec, spec.clone());
        let mut lines = self.change_backends(index, spec)?;
        lines.extend(listed);
        lines.extend(super::forecast::tracking(&before, spec));
        lines.extend(super::forecast::settings(&before, spec));
        let (length, by_source) = (self.services[index].ring.slots, self.services[index].by_source);
        let moved = self.reconcile(index)?;
        let service = &self.services[index];
        if !fresh && service.resize_waits {
            lines.push("the ring's length has to change, and will once its last change of length is through".to_owned());
        }
        if !fresh && service.ring.slots != length {
            lines.push(format!(
                "ring length {length} -> {}: nearly all slots are others now; open flows keep their backends through one window of the whole service",
                service.ring.slots
            ));
        } else if !fresh && service.by_source != by_source {
            lines.push(
                "nearly all flows have other slots now; open flows keep their backends through one window of the whole service"
                    .to_owned(),
            );
        } else if !fresh && moved > 0 {
            let share = 100.0 * moved as f64 / service.ring.slots as f64;
            lines.push(format!(
                "{moved} of {} slots change hands ({share:.1}% of new flows)",
                service.ring.slots
            ));
        }
        if !fresh {
            changes.extend(lines.into_iter().map(|line| format!("service {}: {line}", spec.name)));
        }
        Ok(())
    }

    fn change_backends(
        &mut self,
        index: usize,
        spec: &model::Service,
    ) -> Result<Vec<String>, ReloadError> {
        let mut lines = Vec::new();
        let mut added = Vec::new();
        let fresh = self.services[index].row == 0;
        // Not half as many again: they are what takes most of the memory.
        let more = spec.backends.len().saturating_sub(self.services[index].backends.len());
        self.services[index].backends.reserve_exact(more);
        for wanted in &spec.backends {
            let service = &mut self.services[index];
            let known = service.backends.iter_mut().find(|backend| same(backend, wanted));
            match known {
                Some(backend) => {
                    if backend.removed {
                        backend.removed = false;
                        lines.push(format!("backend {} is back", wanted.name));
                    } else if backend.spec.weight != wanted.weight {
                        lines.push(format!(
                            "backend {}: weight {} -> {}",
                            wanted.name, backend.spec.weight, wanted.weight
                        ));
                    }
                    lines.extend(roles(&backend.spec, wanted));
                    backend.spec = wanted.clone();
                    // One that has served without a check goes on until the check has its first answer: to take it for DOWN
                    // would move its flows for nothing.
                    if target(spec, wanted).is_none() {
                        backend.health = None;
                        backend.checked = true;
                    }
                }
                None => {
                    let mut backend = self.new_backend(spec, wanted)?;
                    added.push(backend.id.0);
                    self.restore(index, &mut backend);
                    if !fresh {
                        lines.push(format!("backend {} ({}) added", wanted.name, wanted.place()));
                    }
                    self.services[index].backends.push(backend);
                }
            }
        }
        // Nothing names them yet.
        self.dataplane
            .clear_backends(&added)
            .map_err(|error| ApplyError::Dataplane(error.into()))?;
        for backend in &mut self.services[index].backends {
            if !backend.removed && !spec.backends.iter().any(|wanted| same(backend, wanted)) {
                backend.removed = true;
                lines.push(format!("backend {} removed: it drains", backend.spec.name));
            }
        }
        self.services[index].backends.sort_by_cached_key(|backend| {
            spec.backends.iter().position(|wanted| same(backend, wanted)).unwrap_or(usize::MAX)
        });
        Ok(lines)
    }

    /// Everything that has a limit, before anything is touched.
    pub(super) fn check_capacity(&self, config: &model::Config) -> Result<(), ApplyError> {
        let known: HashMap<ListenKey, usize> =
            self.services.iter().enumerate().map(|(index, service)| (service.key, index)).collect();
        let (mut services, mut backends, mut slots) = (0u64, 0u64, 0u64);
        for spec in &config.services {
            let length =
                ring::ring_length(spec.backends.iter().map(|b| b.weight), spec.ring_size) as u64;
            match known.get(&ListenKey::of(spec)) {
                None => {
                    services += 1;
                    backends += spec.backends.len() as u64;
                    slots += length;
                }
                Some(index) => {
                    let service = &self.services[*index];
                    backends += spec
                        .backends
                        .iter()
                        .filter(|wanted| !service.backends.iter().any(|known| same(known, wanted)))
                        .count() as u64;
                    let by_source = spec.ring_prefix();
                    if length != service.ring.slots as u64 || by_source != service.by_source {
                        slots += length;
                    }
                }
            }
        }
        let limits = [
            ("services", "services", services, self.service_ids.left() as u64),
            ("backends", "backends", backends, self.backend_ids.left() as u64),
            ("ring slots", "ring_slots", slots, self.spans.left() as u64),
        ];
        for (what, key, needed, left) in limits {
            if needed > left {
                return Err(ApplyError::Limit { what, key, needed, left });
            }
        }
        self.check_lists(config)
    }

    pub(super) fn restore(&self, index: usize, backend: &mut Backend) {
        if self.state.services.is_empty() {
            return;
        }
        let key = self.services[index].key.to_string();
        let Some(known) =
            self.state.services.get(&key).and_then(|s| s.backends.get(&identity(backend)))
        else {
            return;
        };
        backend.admin = known.admin;
        // Whether it is still empty is looked at once more.
        backend.leaving = match known.leaving {
            Leaving::Empty => Leaving::AtOnce,
            leaving => leaving,
        };
        backend.weight = known.weight;
        backend.slow_start = SlowStart::resume(known.slow_start);
        backend.passive = Passive::restored(known.passive.clone());
        if target(&self.services[index].spec, &backend.spec).is_some() {
            backend.health = known.health.clone();
            backend.checked = known.health.is_some();
        }
        if self.services[index].spec.agent_check.is_some() {
            backend.agent = known.agent.clone();
        }
    }

    /// Tells the prober what to probe.
    pub(super) fn set_targets(&mut self) {
        let mut targets: HashMap<_, Target> = HashMap::new();
        let mut probed = HashMap::new();
        for (place, service) in self.services.iter().enumerate() {
            for (number, backend) in service.backends.iter().enumerate() {
                if backend.removed {
                    continue;
                }
                if let Some(key) = target(&service.spec, &backend.spec) {
                    let users: &mut Vec<_> = probed.entry(key.clone()).or_default();
                    let service = (place, service.id);
                    users.push(Place { service, backend: (number, backend.id) });
                    let entry = targets
                        .entry(key.clone())
                        .or_insert_with(|| Target { key, restored: None });
                    if backend.checked && entry.restored.is_none() {
                        entry.restored = backend.health.clone();
                    }
                }
            }
        }
        self.probed = probed;
        self.checker.set_targets(targets.into_values().collect());
        self.set_agents();
    }
}

/// What changes of a backend beside its weight and its checks' times.
pub(super) fn roles(before: &model::Backend, after: &model::Backend) -> Vec<String> {
    let role = |backend: &model::Backend| match (backend.sorry, backend.tier) {
        (true, _) => "sorry".to_owned(),
        (false, tier) => format!("tier {tier}"),
    };
    let tracked = |backend: &model::Backend| match &backend.track {
        None => "none".to_owned(),
        Some(tracked) => tracked.name.clone(),
    };
    let slowstart = |backend: &model::Backend| format!("{:?}", backend.slowstart);
    let name = &after.name;
    [
        ("role", role(before), role(after)),
        ("track", tracked(before), tracked(after)),
        ("slowstart", slowstart(before), slowstart(after)),
    ]
    .into_iter()
    .filter(|(_, before, after)| before != after)
    .map(|(key, before, after)| format!("backend {name}: {key} {before} -> {after}"))
    .collect()
}

/// `address:port`, what makes a backend the same one across reloads.
pub(super) fn identity(backend: &Backend) -> String {
    std::net::SocketAddr::new(backend.spec.address, backend.spec.port).to_string()
}

pub(super) fn same(known: &Backend, wanted: &model::Backend) -> bool {
    known.spec.address == wanted.address && known.spec.port == wanted.port
}
/// What tunnels send from, before and after.
pub(super) fn outer_source_change(before: &[IpNet], after: &[IpNet]) -> String {
    let text = |prefixes: &[IpNet]| match prefixes {
        [] => "the node's own address".to_owned(),
        some => some.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", "),
    };
    format!("outer_source: {} -> {}", text(before), text(after))
}
