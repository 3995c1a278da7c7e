//! `lb plan`: what a configuration would change, before anything is touched.

use std::sync::Arc;

use lb_common::abi::BackendId;

use super::{
    Node,
    loaded::{Backend, ListenKey, Service},
    reload::{ReloadError, outer_source_change, roles, same},
    state::Admin,
};
use crate::{
    api::types::{Plan, PlanBackend, PlanService},
    config::{Parsed, model},
    plan::{
        members::{Decision, Mode},
        moves::{Moves, Share, moves},
        ring,
        slow_start::SlowStart,
    },
};

/// Ids of backends that are not loaded yet, counted down from here: no loaded one has them.
const UNBORN: u32 = BackendId::OLD_RING.0 - 1;

impl Node {
    /// Compares a checked configuration with what is loaded. Backends that are new, or back, count as UP.
    pub(super) fn forecast(&self, parsed: &Parsed) -> Result<Plan, ReloadError> {
        let config = self.with_interfaces(self.expanded(&parsed.config).config);
        self.check_host(parsed)?;
        self.check_capacity(&config)?;
        let mut plan = Plan { node: self.node_changes(&config), ..Plan::default() };
        plan.node.extend(self.unforeseen(&parsed.config));
        let wanted: Vec<ListenKey> = config.services.iter().map(ListenKey::of).collect();
        for service in self.services.iter().filter(|service| !wanted.contains(&service.key)) {
            plan.services.push(PlanService {
                name: service.spec.name.clone(),
                listen: service.spec.listen.to_string(),
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
                None => added(spec),
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
        let vlan = self.config.as_ref().is_some_and(|old| old.vlan);
        if vlan != config.vlan {
            lines.push(format!("vlan: {vlan} -> {}", config.vlan));
        }
        if self.outer_source != config.outer_source {
            lines.push(outer_source_change(&self.outer_source, &config.outer_source));
        }
        lines
    }

    fn changed(&self, service: &Service, spec: &model::Service) -> PlanService {
        let mut changes = Vec::new();
        let backends = backends(service, spec, &mut changes);
        let hypothetical = Service {
            spec: spec.clone(),
            key: service.key,
            backends,
            old_ring: None,
            base_ring: None,
            owners: None,
            ring_digest: Default::default(),
            mode_reason: String::new(),
            retired_ids: Vec::new(),
            entries: service.entries.clone(),
            fragment_vips: Vec::new(),
            ..*service
        };
        let decision = hypothetical.decide();
        let (moves, slots) = self.moves(service, &hypothetical, &decision);
        let share_of = |id| moves.backends.get(&id).copied().unwrap_or_default();
        let mut lines: Vec<String> =
            changes.iter().map(|change| change.line(&share_of(change.id))).collect();
        if hypothetical.wants_by_source() != service.by_source {
            lines.push("nearly all flows have other slots; one window of the whole service keeps open flows where they are".to_owned());
        }
        if service.ring.slots != slots {
            lines.push(format!(
                "ring length {} -> {slots}: nearly all slots are others; one window of the whole service keeps open flows where they are",
                service.ring.slots
            ));
        }
        if decision.mode != service.mode && decision.mode != Mode::Normal {
            lines.push(format!("would be {}: {}", decision.mode.name(), decision.reason));
        }
        if moves.slots > 0 {
            let open = if hypothetical.keeps_flows() {
                "open flows stay where they are"
            } else {
                "open flows move with them: UDP has no opening packet"
            };
            lines.push(format!(
                "{} of {slots} slots change hands ({} of new flows); {open}",
                moves.slots,
                percent(moves.share)
            ));
        }
        lines.extend(tracking(&service.spec, spec));
        lines.extend(settings(&service.spec, spec));
        PlanService {
            name: spec.name.clone(),
            listen: service.spec.listen.to_string(),
            change: if lines.is_empty() { "none" } else { "changed" }.to_owned(),
            lines,
            slots,
            moved_slots: moves.slots,
            moved_share: moves.share,
            open_flows_move: moves.slots > 0 && !hypothetical.keeps_flows(),
            backends: hypothetical
                .backends
                .iter()
                .map(|backend| {
                    let share = share_of(backend.id);
                    let change = changes.iter().find(|change| change.id == backend.id);
                    PlanBackend {
                        name: backend.spec.name.clone(),
                        change: change.map_or("none", |change| change.kind).to_owned(),
                        share_before: share.before,
                        share_after: share.after,
                        gained: share.gained,
                        lost: share.lost,
                    }
                })
                .collect(),
        }
    }

    /// What the change does to the ring, and the length of the ring then.
    fn moves(
        &self,
        service: &Service,
        hypothetical: &Service,
        decision: &Decision,
    ) -> (Moves, u32) {
        let arena = self.dataplane.arena();
        let current: Vec<BackendId> = (0..service.ring.slots)
            .map(|number| arena.slot(service.ring.offset + number).owner())
            .collect();
        let slots = hypothetical.wanted_slots();
        let rehashed = hypothetical.wants_by_source() != service.by_source;
        let members = hypothetical.ring_members(decision);
        // Nobody to move to: the slots stay as they are.
        let keep = members.iter().all(|member| member.effective == 0)
            && slots == service.ring.slots
            && !rehashed;
        let owners = match keep {
            true => current.clone(),
            false => ring::owners(slots, &self.keys, &members),
        };
        (moves(&current, &owners, rehashed), slots)
    }
}

/// A change of one backend.
struct Change {
    id: BackendId,
    /// As in [`PlanBackend::change`].
    kind: &'static str,
    /// In words.
    text: String,
}

impl Change {
    /// With the share of new flows that it moves.
    fn line(&self, share: &Share) -> String {
        let parts: Vec<String> = [("gets", share.gained), ("gives up", share.lost)]
            .into_iter()
            .filter(|(_, share)| *share > 0.0)
            .map(|(verb, share)| format!("{verb} {}", percent(share)))
            .collect();
        match parts.is_empty() {
            true => self.text.clone(),
            false => format!("{}; it {} of new flows", self.text, parts.join(" and ")),
        }
    }
}

/// `33.3%`; what is there, but less, is not said to be nothing.
fn percent(share: f64) -> String {
    match share * 100.0 {
        little if little > 0.0 && little < 0.05 => "<0.1%".to_owned(),
        percent => format!("{percent:.1}%"),
    }
}

fn added(spec: &model::Service) -> PlanService {
    let slots = ring::ring_length(spec.backends.iter().map(|b| b.weight), spec.ring_size);
    PlanService {
        name: spec.name.clone(),
        listen: spec.listen.to_string(),
        change: "added".to_owned(),
        lines: vec![match spec.backends.len() {
            1 => format!("added with 1 backend and {slots} slots"),
            count => format!("added with {count} backends and {slots} slots"),
        }],
        slots,
        ..PlanService::default()
    }
}

/// The service's backends as they would be, and what that changes.
fn backends(service: &Service, spec: &model::Service, changes: &mut Vec<Change>) -> Vec<Backend> {
    let mut backends: Vec<Backend> = service.backends.clone();
    let mut unborn = UNBORN;
    let mut note = |id, kind, text| changes.push(Change { id, kind, text });
    for wanted in &spec.backends {
        let name = &wanted.name;
        let Some(known) = backends.iter_mut().find(|backend| same(backend, wanted)) else {
            let id = BackendId(unborn);
            note(id, "added", format!("backend {name} ({}) added", wanted.place()));
            backends.push(new_backend(id, wanted));
            unborn -= 1;
            continue;
        };
        if known.removed {
            known.removed = false;
            known.checked = true;
            known.health = None;
            note(known.id, "back", format!("backend {name} is back"));
        } else if known.spec.weight != wanted.weight {
            let kept = match known.weight {
                Some(weight) => format!(", but {weight} stays in force, set by `lb weight`"),
                None => String::new(),
            };
            let text =
                format!("backend {name}: weight {} -> {}{kept}", known.spec.weight, wanted.weight);
            note(known.id, "weight", text);
        }
        for text in roles(&known.spec, wanted) {
            note(known.id, "role", text);
        }
        if known.spec.name != *name {
            note(known.id, "renamed", format!("backend {} is called {name}", known.spec.name));
        }
        known.spec = wanted.clone();
    }
    for backend in backends.iter_mut().filter(|backend| !backend.removed) {
        if !spec.backends.iter().any(|wanted| same(backend, wanted)) {
            backend.removed = true;
            let text = format!("backend {} removed: it drains", backend.spec.name);
            note(backend.id, "removed", text);
        }
    }
    backends
}

fn new_backend(id: BackendId, spec: &Arc<model::Backend>) -> Backend {
    Backend {
        id,
        spec: spec.clone(),
        removed: false,
        admin: Admin::Ready,
        leaving: Default::default(),
        weight: None,
        checked: true,
        health: None,
        agent: Default::default(),
        slow_start: SlowStart::default(),
        ramp: 100,
        passive: Default::default(),
        pins: 0,
        slots: 0,
        waits: false,
        unsaved: false,
        voted: None,
    }
}

/// What becomes of open flows when they are remembered no longer, or from now on.
pub(super) fn tracking(before: &model::Service, after: &model::Service) -> Option<String> {
    let text = match (before.tracks(), after.tracks()) {
        (true, false) => {
            "flows are no longer remembered: open ones that are not where the ring has them move"
        }
        (false, true) => {
            "flows are remembered from now on; those that are open follow the ring until they end"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// `settings: window, timeouts`: the service's keys that differ, apart from which backends it has and their weights.
pub(super) fn settings(before: &model::Service, after: &model::Service) -> Option<String> {
    if before == after {
        return None;
    }
    let fields = |service: &model::Service| match serde_json::to_value(service) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (old, new) = (fields(before), fields(after));
    let differs = |key: &&String| old.get(*key) != new.get(*key);
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
