//! Publishes how services choose that remember every flow: schedule or members in the arena, weights, the policy's row.

use lb_common::abi::{BackendId, Policy, Slot, policy_flag};

use super::{Node, alloc::Span, apply::ApplyError, retire::Retired};
use crate::{
    config::model::Forward,
    plan::{
        members::Decision,
        policy::{Choice, bounds},
    },
};

impl Node {
    /// Makes a service's policy what it should be.
    pub(super) fn publish_policy(
        &mut self,
        index: usize,
        decision: &Decision,
    ) -> Result<(), ApplyError> {
        let service = &self.services[index];
        if !service.spec.tracks() {
            let none = Policy::default();
            if self.dataplane.policies().get(service.id) != none {
                self.dataplane.policies().set(service.id, &none);
            }
            self.replace_choices(index, Span::default());
            return Ok(());
        }
        let choice = Choice::of(&service.spec, &service.ring_members(decision));
        for &(id, weight) in &choice.weights {
            self.dataplane.set_load_weight(id.0, weight.into());
        }
        let entries = choice.entries();
        let known = service.choices;
        let span = match self.choices_are(known, entries) {
            true => known,
            false => self.write_choices(entries)?,
        };
        let policy = self.policy(index, &choice, span);
        let service = &self.services[index];
        if self.dataplane.policies().get(service.id) != policy {
            self.dataplane.policies().set(service.id, &policy);
        }
        self.replace_choices(index, span);
        Ok(())
    }

    /// The parts of the tables follow the number of services that share them.
    pub(super) fn publish_bounds(&mut self) {
        for index in 0..self.services.len() {
            let service = &self.services[index];
            if service.spec.tracks() {
                let mut policy = self.dataplane.policies().get(service.id);
                self.bound(index, &mut policy);
                self.dataplane.policies().set(service.id, &policy);
            }
        }
    }

    fn policy(&self, index: usize, choice: &Choice, span: Span) -> Policy {
        let service = &self.services[index];
        let by_turn = !choice.schedule.is_empty();
        let part = |used: bool| if used { (span.offset, span.slots) } else { (0, 0) };
        let ((schedule, schedule_length), (members, members_length)) =
            (part(by_turn), part(!by_turn));
        let timeout = service.spec.persistence.and_then(|persistence| persistence.timeout);
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = flag(service.spec.forward == Forward::Nat, policy_flag::SEES_REPLIES)
            | flag(timeout.is_some(), policy_flag::PERSIST);
        let mut policy = Policy {
            schedule,
            schedule_length,
            members,
            members_length,
            algorithm: choice.algorithm,
            factor: service.spec.hash_balance_factor.map_or(0, u32::from),
            total_weight: choice.total_weight(),
            flags,
            prefix: service.spec.ring_prefix().unwrap_or_default(),
            source_idle: timeout.map_or(0, |timeout| timeout.as_secs() * self.hz),
            ..Policy::default()
        };
        self.bound(index, &mut policy);
        policy
    }

    fn bound(&self, index: usize, policy: &mut Policy) {
        let sharing = self.services.iter().filter(|service| service.spec.tracks()).count();
        let limits = self.dataplane.flow_limits();
        [policy.flows_unconfirmed, policy.flows] =
            bounds(&self.services[index].spec, limits, sharing as u32);
    }

    fn choices_are(&self, span: Span, entries: &[BackendId]) -> bool {
        let arena = self.dataplane.arena();
        span.slots as usize == entries.len()
            && (span.offset..)
                .zip(entries)
                .all(|(place, id)| arena.slot(place) == Slot::settled(*id))
    }

    fn write_choices(&mut self, entries: &[BackendId]) -> Result<Span, ApplyError> {
        if entries.is_empty() {
            return Ok(Span::default());
        }
        let span = self.spans.take(entries.len() as u32).ok_or(ApplyError::Limit {
            what: "ring slots",
            key: "ring_slots",
            needed: entries.len() as u64,
            left: self.spans.left() as u64,
        })?;
        for (place, id) in (span.offset..).zip(entries) {
            self.dataplane.arena().set_slot(place, Slot::settled(*id));
        }
        Ok(span)
    }

    /// From now on, the service's choices stand there; where they stood is free after a grace period.
    fn replace_choices(&mut self, index: usize, span: Span) {
        let old = std::mem::replace(&mut self.services[index].choices, span);
        if old.slots != 0 && old != span {
            self.retire(Retired::Span(old));
        }
    }
}
