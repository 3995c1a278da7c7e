//! `lb plan`: what a configuration would change, before anything is touched.

use lb_common::{abi::BackendId, hash::slot_of};

use super::{
    Node,
    apply::{fails_open, ring_members},
    loaded::{Backend, ListenKey, Service},
    reload::{ReloadError, same},
    state::Admin,
};
use crate::{
    api::types::{Plan, PlanService},
    config::{Parsed, model},
    plan::ring,
};

/// Ids of backends that are not loaded yet, counted down from here: no loaded one has them.
const UNBORN: u32 = BackendId::OLD_RING.0 - 1;

impl Node {
    /// Compares a checked configuration with what is loaded. Backends that are new, or back, count as UP.
    pub(super) fn forecast(&self, parsed: &Parsed) -> Result<Plan, ReloadError> {
        let config = self.with_interfaces(parsed.config.clone());
        self.check_host(parsed)?;
        self.check_capacity(&config)?;
        let mut plan = Plan { node: self.node_changes(&config), ..Plan::default() };
        let wanted: Vec<ListenKey> = config.services.iter().map(ListenKey::of).collect();
        for service in self.services.iter().filter(|service| !wanted.contains(&service.key)) {
            plan.services.push(PlanService {
                name: service.spec.name.clone(),
                listen: service.key.to_string(),
                change: "removed".to_owned(),
                lines: vec![
                    "removed: its packets are no longer balanced, its flows end".to_owned(),
                ],
                ..PlanService::default()
            });
        }
        for spec in &config.services {
            let key = ListenKey::of(spec);
            let loaded = self.services.iter().find(|service| service.key == key);
            plan.services.push(match loaded {
                None => added(spec, &key),
                Some(service) => self.changed(service, spec),
            });
        }
        Ok(plan)
    }

    fn node_changes(&self, config: &model::Config) -> Vec<String> {
        let mut lines = Vec::new();
        for name in self.interfaces.iter().filter(|name| !config.interfaces.contains(name)) {
            lines.push(format!(
                "NIC {name}: detached; packets that come in by it are no longer balanced"
            ));
        }
        for name in config.interfaces.iter().filter(|name| !self.interfaces.contains(name)) {
            lines.push(format!("NIC {name}: attached"));
        }
        let metrics = self.config.as_ref().and_then(|config| config.metrics);
        if metrics != config.metrics {
            let shown = |at: Option<std::net::SocketAddr>| {
                at.map_or("none".to_owned(), |at| at.to_string())
            };
            lines.push(format!("metrics: {} -> {}", shown(metrics), shown(config.metrics)));
        }
        let dashboard = self.config.as_ref().and_then(|config| config.dashboard.as_ref());
        if dashboard != config.dashboard.as_ref() {
            let shown = |dashboard: Option<&model::Dashboard>| match dashboard {
                None => "none".to_owned(),
                Some(at) => format!(
                    "{} ({}{})",
                    at.listen,
                    if at.token_file.is_some() { "with a token" } else { "without a token" },
                    if at.write { ", may change backends" } else { "" },
                ),
            };
            let (before, after) = (shown(dashboard), shown(config.dashboard.as_ref()));
            lines.push(match before == after {
                true => "dashboard: another token file or other host names".to_owned(),
                false => format!("dashboard: {before} -> {after}"),
            });
        }
        if self.xdp_mode != config.xdp_mode {
            let modes = format!("xdp_mode: {:?} -> {:?}", self.xdp_mode, config.xdp_mode);
            lines.push(format!(
                "{}; each NIC is without a program for a moment",
                modes.to_lowercase()
            ));
        }
        lines
    }

    fn changed(&self, service: &Service, spec: &model::Service) -> PlanService {
        let mut lines = Vec::new();
        let backends = backends(service, spec, &mut lines);
        let hypothetical = Service {
            spec: spec.clone(),
            key: service.key,
            backends,
            old_ring: None,
            base_ring: None,
            retired_ids: Vec::new(),
            ..*service
        };
        let slots = ring::ring_length(spec.backends.iter().map(|b| b.weight), spec.ring_size);
        let members = ring_members(&hypothetical);
        let nobody = members.iter().all(|member| member.effective == 0);
        let moved = match nobody && slots == service.ring.slots {
            true => 0,
            false => {
                let owners = ring::owners(slots, &self.keys, &members);
                match hypothetical.wants_by_source() == service.by_source {
                    true => self.moved(service, slots, &owners),
                    false => self.moved_by_chance(service, slots, &owners),
                }
            }
        };
        if hypothetical.wants_by_source() != service.by_source {
            lines.push("nearly all flows have other slots; one window of the whole service keeps open flows where they are".to_owned());
        }
        if service.ring.slots != slots {
            lines.push(format!(
                "ring length {} -> {slots}: nearly all slots are others; one window of the whole service keeps open flows where they are",
                service.ring.slots
            ));
        }
        if fails_open(&hypothetical) && !service.fail_open {
            lines.push(
                "no backend would be UP: all get traffic (on_all_down: fail_open)".to_owned(),
            );
        }
        let share = moved as f64 / slots as f64;
        if moved > 0 {
            let open = if hypothetical.stateful() {
                "open flows stay where they are"
            } else {
                "open flows move with them: UDP has no opening packet"
            };
            lines.push(format!(
                "{moved} of {slots} slots change hands ({:.1}% of new flows); {open}",
                share * 100.0
            ));
        }
        lines.extend(settings(&service.spec, spec));
        PlanService {
            name: spec.name.clone(),
            listen: service.key.to_string(),
            change: if lines.is_empty() { "none" } else { "changed" }.to_owned(),
            lines,
            slots,
            moved_slots: moved,
            moved_share: share,
            open_flows_move: moved > 0 && !hypothetical.stateful(),
        }
    }

    /// The same where flows meet slots anew: all but those that find their backend again by chance.
    fn moved_by_chance(&self, service: &Service, slots: u32, owners: &[BackendId]) -> u32 {
        let arena = self.dataplane.arena();
        let mut counts = std::collections::HashMap::<BackendId, [u64; 2]>::new();
        for number in 0..service.ring.slots {
            counts.entry(arena.slot(service.ring.offset + number).owner()).or_default()[0] += 1;
        }
        for owner in owners {
            counts.entry(*owner).or_default()[1] += 1;
        }
        let same: u64 = counts.values().map(|[before, after]| before * after).sum();
        slots - (same / u64::from(service.ring.slots.max(1))) as u32
    }

    /// Slots of the new ring whose flows have another owner now. A slot of a ring of another length is looked for by its
    /// middle.
    fn moved(&self, service: &Service, slots: u32, owners: &[BackendId]) -> u32 {
        let arena = self.dataplane.arena();
        let now = |number: u32| {
            let number = match service.ring.slots == slots {
                true => number,
                false => {
                    let middle = ((2 * number as u64 + 1) << 31) / slots as u64;
                    slot_of(middle as u32, service.ring.slots)
                }
            };
            arena.slot(service.ring.offset + number).owner()
        };
        (0..slots).filter(|number| owners.get(*number as usize) != Some(&now(*number))).count()
            as u32
    }
}

fn added(spec: &model::Service, key: &ListenKey) -> PlanService {
    let slots = ring::ring_length(spec.backends.iter().map(|b| b.weight), spec.ring_size);
    PlanService {
        name: spec.name.clone(),
        listen: key.to_string(),
        change: "added".to_owned(),
        lines: vec![match spec.backends.len() {
            1 => format!("added with 1 backend and {slots} slots"),
            count => format!("added with {count} backends and {slots} slots"),
        }],
        slots,
        ..PlanService::default()
    }
}

/// The service's backends as they would be, and what that changes in words.
fn backends(service: &Service, spec: &model::Service, lines: &mut Vec<String>) -> Vec<Backend> {
    let mut backends: Vec<Backend> = service.backends.clone();
    let mut unborn = UNBORN;
    for wanted in &spec.backends {
        let name = &wanted.name;
        let Some(known) = backends.iter_mut().find(|backend| same(backend, wanted)) else {
            lines.push(format!("backend {name} ({}:{}) added", wanted.address, wanted.port));
            backends.push(new_backend(BackendId(unborn), wanted));
            unborn -= 1;
            continue;
        };
        if known.removed {
            known.removed = false;
            known.checked = true;
            known.health = None;
            lines.push(format!("backend {name} is back"));
        } else if known.spec.weight != wanted.weight {
            let kept = match known.weight {
                Some(weight) => format!("; {weight} stays in force, set by `lb weight`"),
                None => String::new(),
            };
            lines.push(format!(
                "backend {name}: weight {} -> {}{kept}",
                known.spec.weight, wanted.weight
            ));
        }
        if known.spec.name != *name {
            lines.push(format!("backend {} is called {name}", known.spec.name));
        }
        known.spec = wanted.clone();
    }
    for backend in backends.iter_mut().filter(|backend| !backend.removed) {
        if !spec.backends.iter().any(|wanted| same(backend, wanted)) {
            backend.removed = true;
            lines.push(format!("backend {} removed: it drains", backend.spec.name));
        }
    }
    backends
}

fn new_backend(id: BackendId, spec: &model::Backend) -> Backend {
    Backend {
        id,
        spec: spec.clone(),
        removed: false,
        admin: Admin::Ready,
        weight: None,
        checked: true,
        health: None,
        pins: 0,
        slots: 0,
    }
}

/// `settings: window, timeouts`: the service's keys that differ, apart from which backends it has and their weights.
pub(super) fn settings(before: &model::Service, after: &model::Service) -> Option<String> {
    let fields = |service: &model::Service| match serde_json::to_value(service) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (old, new) = (fields(before), fields(after));
    let differs = |key: &&String| *key != "backends" && old.get(*key) != new.get(*key);
    let mut keys: Vec<&str> = new.keys().filter(differs).map(String::as_str).collect();
    let retimed = after.backends.iter().any(|backend| {
        let known = before
            .backends
            .iter()
            .find(|known| known.address == backend.address && known.port == backend.port);
        known.is_some_and(|known| known.timing != backend.timing)
    });
    if retimed {
        keys.push("timing of checks");
    }
    (!keys.is_empty()).then(|| format!("settings: {}", keys.join(", ")))
}
