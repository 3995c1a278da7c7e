//! What packets would meet if backends were DOWN: what the controller would publish, laid into a dry run's own maps.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::abi::{BackendId, Slot, backend_flag, service_flag};

use super::{
    Node, apply::service_flags, loaded::Service, monotonic_seconds, network::takes_flows_away,
};
use crate::{
    api::types::Failure,
    dataplane::Overlay,
    health::Health,
    plan::{phases, policy::Choice, ring},
};

/// How long one overlay serves the batches of one replay.
const KEPT: Duration = Duration::from_secs(1);

/// An overlay that was made lately.
pub(super) struct Kept {
    down: Vec<String>,
    made: Instant,
    overlay: Arc<Overlay>,
}

impl Node {
    /// The overlay of a replay, made anew once a second.
    pub(super) fn overlay_kept(&mut self, down: &[String]) -> Result<Arc<Overlay>, Failure> {
        if let Some(kept) = &self.overlay
            && kept.down == down
            && kept.made.elapsed() < KEPT
        {
            return Ok(kept.overlay.clone());
        }
        let overlay = Arc::new(self.overlay(down)?);
        let (down, made) = (down.to_vec(), Instant::now());
        self.overlay = Some(Kept { down, made, overlay: overlay.clone() });
        Ok(overlay)
    }

    /// What would be published if these backends (`SERVICE/BACKEND`) went DOWN now.
    pub(super) fn overlay(&self, down: &[String]) -> Result<Overlay, Failure> {
        let targets = self.targets(down)?;
        let mut overlay = Overlay::default();
        for (index, service) in self.services.iter().enumerate() {
            let lost: Vec<usize> =
                targets.iter().filter(|target| target.0 == index).map(|target| target.1).collect();
            if let Some(ring) = service.old_ring {
                overlay.slots.push((ring.offset, self.slots(ring.offset, ring.slots)));
            }
            let mut row = self.dataplane.services().get(service.row);
            let slots = self.slots(service.ring.offset, service.ring.slots);
            if lost.is_empty() {
                if service.choices.slots != 0 {
                    let choices = self.slots(service.choices.offset, service.choices.slots);
                    overlay.slots.push((service.choices.offset, choices));
                }
                overlay.slots.push((service.ring.offset, slots));
                let backends = service.backends.iter();
                overlay.backends.extend(
                    backends
                        .map(|backend| (backend.id, self.dataplane.backends().get(backend.id.0))),
                );
            } else {
                let without = without(service, &lost);
                overlay.slots.extend(choices(&without));
                overlay.slots.push((service.ring.offset, self.change(&without, slots)));
                row.flags = row.flags & !service_flag::RUN_TIME
                    | service_flags(&without) & service_flag::RUN_TIME;
                for backend in &without.backends {
                    let mut row = self.dataplane.backends().get(backend.id.0);
                    let is_down = takes_flows_away(&without, backend);
                    row.flags &= !backend_flag::DOWN;
                    row.flags |= if is_down { backend_flag::DOWN } else { 0 };
                    overlay.backends.push((backend.id, row));
                }
            }
            overlay.services.push((service.row, row));
        }
        Ok(overlay)
    }

    /// Places of `SERVICE/BACKEND`s.
    fn targets(&self, down: &[String]) -> Result<Vec<(usize, usize)>, Failure> {
        let find = |target: &String| {
            let (service, backend) = target.split_once('/').ok_or_else(|| {
                let known = self.services.iter().map(|s| s.spec.name.as_str());
                Failure::unknown("SERVICE/BACKEND", target, known)
            })?;
            let index = self.services.iter().position(|s| s.spec.name == service);
            let index = index.ok_or_else(|| {
                let known = self.services.iter().map(|s| s.spec.name.as_str());
                Failure::unknown("service", service, known)
            })?;
            let backends = &self.services[index].backends;
            let number = backends.iter().position(|b| b.spec.name == backend);
            let number = number.ok_or_else(|| {
                Failure::unknown("backend", backend, backends.iter().map(|b| b.spec.name.as_str()))
            })?;
            Ok((index, number))
        };
        down.iter().map(find).collect()
    }

    fn slots(&self, start: u32, count: u32) -> Vec<Slot> {
        let arena = self.dataplane.arena();
        (start..start + count).map(|place| arena.slot(place)).collect()
    }

    /// The slots after the change of health, by the same rule as an apply.
    fn change(&self, service: &Service, slots: Vec<Slot>) -> Vec<Slot> {
        let members = service.ring_members(&service.decide());
        if members.iter().all(|member| member.effective == 0) {
            return slots;
        }
        let owners: Vec<BackendId> = match &service.base_ring {
            Some(base) if base.fits(service.ring.slots, &members) => base.owners(&members),
            _ => ring::owners(service.ring.slots, &self.keys, &members),
        };
        let (now, stateful) = (monotonic_seconds(), service.stateful());
        let changed = slots.iter().zip(owners);
        changed.map(|(slot, owner)| phases::change_owner(*slot, owner, now, stateful)).collect()
    }
}

/// The service's choices as they would be, in the place and length of those that are: policies are not a copy's own.
fn choices(service: &Service) -> Option<(u32, Vec<Slot>)> {
    let span = service.choices;
    let choice = Choice::of(&service.spec, &service.ring_members(&service.decide()));
    let entries = choice.entries();
    if span.slots == 0 || entries.is_empty() {
        return None;
    }
    let slots = entries.iter().cycle().take(span.slots as usize);
    Some((span.offset, slots.map(|id| Slot::settled(*id)).collect()))
}

/// The service as it would be.
fn without(service: &Service, lost: &[usize]) -> Service {
    let mut backends = service.backends.clone();
    for &number in lost {
        let backend = &mut backends[number];
        let health = backend.health.take().unwrap_or_default();
        backend.health = Some(Health { up: false, ..health });
    }
    let mut without = Service {
        spec: service.spec.clone(),
        backends,
        base_ring: service.base_ring.clone(),
        owners: None,
        ring_digest: Default::default(),
        mode_reason: String::new(),
        retired_ids: Vec::new(),
        entries: service.entries.clone(),
        fragment_vips: Vec::new(),
        ..*service
    };
    let decision = without.decide();
    without.take(&decision);
    without
}
