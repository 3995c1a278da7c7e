//! What clients meet at backends (`observe:`): failures come in from the packet path, ejections and hurried checks go out.
//! The decisions are those of [`crate::health::passive`].

use std::time::Duration;

use lb_common::abi::{BackendId, ObservedFailure, failure_kind};

use super::{
    Node,
    loaded::{Backend, Service},
};
use crate::{
    config::model::{Observe, OnError},
    events::{Happened, Kind},
    health::{
        Suspicion,
        passive::{Census, Failure, may_eject},
    },
    plan::members::Mode,
};

/// Between two hurried checks of one backend.
const HURRY: Duration = Duration::from_secs(1);

impl Node {
    /// A client did not get through to a backend.
    pub(super) fn backend_failed(&mut self, failure: &ObservedFailure) {
        let Some((index, number)) = self.find_backend(failure.backend) else { return };
        let answered = self.dataplane.observed(failure.backend.0).answered;
        let service = &mut self.services[index];
        let Some(rules) = service.spec.observe else { return };
        let backend = &mut service.backends[number];
        if !backend.candidate().usable() {
            return;
        }
        let seen = Failure {
            time: Duration::from_nanos(failure.time),
            source: failure.source.into(),
            answered: failure.answered,
        };
        let limit = backend.passive.limit(&rules);
        if !backend.passive.failed(&rules, &seen, answered) {
            return;
        }
        let what = match failure.kind {
            failure_kind::REFUSED => "connections were refused",
            _ => "SYNs were not answered",
        };
        let cause = format!(
            "{limit} {what} in a row, from at least {} clients, lastly {}",
            rules.min_sources, seen.source
        );
        match rules.on_error {
            OnError::MarkDown => self.eject(index, number, &rules, cause),
            OnError::FailCheck => self.hurry(index, number, Suspicion::Failed, cause),
            OnError::SuddenDeath => self.hurry(index, number, Suspicion::Fatal, cause),
            OnError::Fastinter => self.hurry(index, number, Suspicion::Hurry, cause),
        }
    }

    fn find_backend(&self, id: BackendId) -> Option<(usize, usize)> {
        if id.0 >= self.dataplane.backends().len() {
            return None;
        }
        let row = self.dataplane.backends().get(id.0);
        let index = self.services.iter().position(|service| service.id == row.service)?;
        let number = self.services[index].backends.iter().position(|b| b.id == id)?;
        Some((index, number))
    }

    fn eject(&mut self, index: usize, number: usize, rules: &Observe, cause: String) {
        let now = monotonic();
        let service = &mut self.services[index];
        let allowed =
            may_eject(census(service), rules).and_then(|()| keeps_serving(service, number));
        let backend = &mut service.backends[number];
        let name = format!("{}/{}", service.spec.name, backend.spec.name);
        let text = match &allowed {
            Ok(()) => {
                let time = backend.passive.eject(rules, now, &cause);
                backend.unsaved = true;
                format!("{name} is ejected for {time:?}")
            }
            Err(why) => {
                backend.passive.be_deaf(now + rules.interval);
                format!("{name} is not ejected: {why}")
            }
        };
        let kind = if allowed.is_ok() { Kind::Ejected } else { Kind::Suspected };
        let happened = Happened::to_node(kind, text, cause);
        self.log.add(happened.to_backend(&service.spec.name, &backend.spec.name));
        if allowed.is_ok() {
            self.dirty.insert(service.id);
        }
    }

    fn hurry(&mut self, index: usize, number: usize, suspicion: Suspicion, cause: String) {
        let service = &mut self.services[index];
        let backend = &mut service.backends[number];
        backend.passive.be_deaf(monotonic() + HURRY);
        // The rules of the configuration want a check.
        let Some(target) = super::loaded::target(&service.spec, &backend.spec) else { return };
        self.checker.suspect(&target, suspicion);
        let text = format!("{}/{} is asked now", service.spec.name, backend.spec.name);
        let happened = Happened::to_node(Kind::Suspected, text, cause);
        self.log.add(happened.to_backend(&service.spec.name, &backend.spec.name));
    }

    /// Ends ejections whose time is over, or that nothing wants any more.
    pub(super) fn end_ejections(&mut self) {
        let now = monotonic();
        for service in &mut self.services {
            let ejects = service.spec.observe.filter(|rules| rules.on_error == OnError::MarkDown);
            for backend in service.backends.iter_mut().filter(|b| b.passive.is_ejected()) {
                let cause = if ejects.is_none() {
                    backend.passive.forgive();
                    "the configuration ejects nobody any more"
                } else if backend.passive.end(now, self.dataplane.observed(backend.id.0).answered) {
                    "its time is over; until it has accepted some connections, fewer failures eject it again"
                } else {
                    continue;
                };
                backend.unsaved = true;
                let text =
                    format!("{}/{} is no longer ejected", service.spec.name, backend.spec.name);
                let happened = Happened::to_node(Kind::Returned, text, cause);
                self.log.add(happened.to_backend(&service.spec.name, &backend.spec.name));
                self.dirty.insert(service.id);
            }
        }
    }
}

fn census(service: &Service) -> Census {
    let all = service.backends.iter().map(Backend::candidate).filter(|one| !one.sorry);
    all.fold(Census::default(), |census, one| Census {
        wanted: census.wanted + usize::from(one.wanted()),
        ejected: census.ejected + usize::from(one.wanted() && one.ejected),
        usable: census.usable + usize::from(one.usable()),
    })
}

/// Whether usable backends still do the work, quorum and panic threshold included, when this one is ejected.
fn keeps_serving(service: &Service, ejected: usize) -> Result<(), String> {
    let after = service.decide_without(ejected);
    let fewer = after.mode == Mode::UnderQuorum && service.mode != Mode::UnderQuorum;
    if after.mode.is_up() && !fewer {
        return Ok(());
    }
    Err(format!("{} would be {}: {}", service.spec.name, after.mode.name(), after.reason))
}

/// CLOCK_MONOTONIC since boot.
pub(super) fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Into::into)
}
