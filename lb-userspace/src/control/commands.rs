//! What the control socket may ask for.

use std::time::Instant;

use super::{
    Node,
    change::refused,
    reload::ReloadError,
    state::{Admin, Leaving},
};
use crate::api::{
    Command,
    peer::Peer,
    types::{Done, Draft, Failure, FailureKind, Plan, SetBackend},
};
use crate::{
    config,
    events::{Happened, Kind},
};

impl Node {
    /// Answers one command; true if the node is detached and the daemon has to end.
    pub(super) async fn command(&mut self, command: Command) -> bool {
        // Sending fails when the client has gone: nobody is waiting for the answer.
        match command {
            Command::Status(answer) => {
                let _ = answer.send(Ok(self.status()));
            }
            Command::Stats(answer) => {
                let _ = answer.send(self.stats().map_err(failure));
            }
            Command::Measures(answer) => {
                let _ = answer.send(self.measured().map_err(failure));
            }
            Command::Lookup { question, reply } => self.answer_lookup(question, reply),
            Command::Replay { batch, reply } => self.answer_replay(batch, reply),
            Command::Capture { wanted, peer, reply } => self.start_capture(wanted, peer, reply),
            Command::Why { service, reply } => {
                let _ = reply.send(self.why(service.as_deref()));
            }
            Command::Events { after, limit, reply } => {
                let _ = reply.send(Ok(self.log.after(after, limit)));
            }
            Command::Log { level, peer, reply } => {
                let _ = reply.send(self.set_log(&level.filter, &peer));
            }
            Command::SetNode { set, peer, reply } => {
                let _ = reply.send(self.set_node(set, &peer));
            }
            Command::Plan { draft, reply } => {
                let _ = reply.send(self.plan(draft).map_err(refused));
            }
            Command::SetBackend { service, backend, set, peer, reply } => {
                let _ = reply.send(self.set_backend(&service, &backend, &set, &peer));
            }
            Command::Reload { peer, reply } => {
                let result = self.reload(&format!("lb reload by {peer}"));
                let _ = reply.send(result.map(|changes| Done { changes }).map_err(refused));
            }
            Command::Change(change) => self.answer_change(change),
            Command::Detach(answer) => {
                let result = self.detach().await;
                let done = result.is_ok();
                let _ = answer.send(result);
                return done;
            }
        }
        false
    }

    fn set_log(&mut self, filter: &str, peer: &Peer) -> Result<Done, Failure> {
        let before = crate::log::set(filter)
            .map_err(|error| Failure::new(FailureKind::Invalid, error.to_string()))?;
        let line = format!("log level: {before} -> {filter}");
        self.log.add(Happened::to_node(Kind::Log, line.clone(), format!("lb log by {peer}")));
        Ok(Done { changes: vec![line] })
    }

    fn plan(&self, draft: Draft) -> Result<Plan, ReloadError> {
        let source = config::Source { path: draft.path.into(), text: draft.text };
        self.forecast(&self.understand(&source)?)
    }

    pub(super) fn set_backend(
        &mut self,
        service: &str,
        backend: &str,
        set: &SetBackend,
        peer: &Peer,
    ) -> Result<Done, Failure> {
        let Some(index) = self.services.iter().position(|s| s.spec.name == service) else {
            let known = self.services.iter().map(|s| s.spec.name.as_str());
            return Err(Failure::unknown("service", service, known));
        };
        let Some(number) =
            self.services[index].backends.iter().position(|b| b.spec.name == backend)
        else {
            let known = self.services[index].backends.iter().map(|b| b.spec.name.as_str());
            return Err(Failure::unknown("backend", backend, known));
        };
        let admin = match set.admin.as_deref().map(|word| (word, Admin::parse(word))) {
            None => None,
            Some((_, Some(admin))) => Some(admin),
            Some((word, None)) => {
                let error = format!("`{word}` is not one of ready, drain, maint");
                return Err(Failure::new(FailureKind::Invalid, error));
            }
        };
        if set.weight.is_some_and(|weight| weight > 256) {
            return Err(Failure::new(FailureKind::Invalid, "a weight is 0..256"));
        }
        let target = &mut self.services[index].backends[number];
        if target.removed {
            let error =
                format!("{service}/{backend} is gone from the configuration and drains already");
            return Err(Failure::new(FailureKind::Conflict, error));
        }
        if let Some(admin) = admin {
            target.admin = admin;
            target.leaving = Leaving::default();
            // Whoever says that it is ready knows better.
            if admin == Admin::Ready {
                target.passive.forgive();
            }
        }
        if let Some(weight) = set.weight {
            target.weight = Some(weight);
        }
        let line =
            format!("{service}/{backend}: {} weight {}", target.admin_name(), target.weight());
        self.record_backend(index, number);
        let began = Instant::now();
        let moved = self.reconcile(index).map_err(failure)?;
        self.measures.publish.add(began.elapsed());
        let slots = self.services[index].ring.slots.max(1);
        let line = format!(
            "{line}; {moved} of {slots} slots change hands ({:.1}% of new flows)",
            100.0 * moved as f64 / slots as f64
        );
        let kind = if set.admin.is_some() { Kind::Admin } else { Kind::Weight };
        let happened = Happened::to_node(kind, line.clone(), format!("by {peer}"));
        self.log.add(happened.to_backend(service, backend));
        let service = &self.services[index];
        let entries = vec![service.entry(), service.backend_entry(&service.backends[number])];
        self.record(entries, false);
        self.note_backend_set(index, number, set);
        Ok(Done { changes: vec![line] })
    }

    async fn detach(&mut self) -> Result<Done, Failure> {
        let mut changes = Vec::new();
        for (name, address) in std::mem::take(&mut self.state.addresses) {
            match self.net.remove_address_now(&name, address).await {
                Ok(()) => changes.push(format!("{address} taken off {name}")),
                Err(error) => {
                    changes.push(format!("{address} could not be taken off {name}: {error}"))
                }
            }
        }
        crate::dataplane::detach_all(&self.options.pin_dir).map_err(failure)?;
        changes.push("program, links and maps removed".to_owned());
        let state = self.options.run_dir.join(super::state::FILE);
        if let Err(error) = std::fs::remove_file(&state) {
            changes.push(format!("{} could not be removed: {error}", state.display()));
        }
        if let Err(error) = super::journal::remove(&self.options.run_dir) {
            changes.push(format!("the journal beside it could not be removed: {error}"));
        }
        Ok(Done { changes })
    }
}

pub(super) fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Internal, format!("{error:#}"))
}
