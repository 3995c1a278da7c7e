//! What the loaded program would do with packets that nobody has sent: `lb lookup` and `lb replay`.
//!
//! Copies for dry runs are loaded when the first question comes, aside from the controller; the questions wait for them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use lb_common::{
    abi::{Address, FlowKey, Trace},
    be::Be16,
};

use super::{Event, Node, commands::failure, loaded::Service};
use crate::{
    api::{
        Command,
        types::{Failure, Lookup, PacketVerdict},
    },
    config::model,
    dataplane::{DryRun, LARGEST_FRAME, Overlay, Recipe},
    explain::{
        frame::{Flow, Kind as Segment, frame},
        verdict::Names,
    },
};

/// Packets that one turn of a replay takes; lookups wait no longer than that for the copy.
const TURN: usize = 256;

/// A copy, and what is laid into it.
pub(super) struct Copy {
    program: DryRun,
    laid: Option<Arc<Overlay>>,
}

/// The copies there are.
#[derive(Default)]
pub(super) struct Copies {
    plain: Slot,
    what_if: Slot,
}

/// The place of one copy.
#[derive(Default)]
enum Slot {
    /// Nobody has asked yet, or the program has been loaded anew since.
    #[default]
    Empty,
    /// It is being loaded, and these wait for it.
    Loading(Vec<Command>),
    /// It is there.
    Loaded(Arc<Mutex<Copy>>),
}

impl Copies {
    fn slot(&mut self, what_if: bool) -> &mut Slot {
        if what_if { &mut self.what_if } else { &mut self.plain }
    }

    /// The program has been loaded anew: later questions get copies of that.
    pub(super) fn forget(&mut self) {
        for slot in [&mut self.plain, &mut self.what_if] {
            if matches!(slot, Slot::Loaded(_)) {
                *slot = Slot::Empty;
            }
        }
    }
}

impl Copy {
    fn load(recipe: &Recipe, what_if: bool) -> Result<Self, Failure> {
        let load = if what_if { DryRun::load_what_if } else { DryRun::load };
        let program = load(recipe).map_err(failure)?;
        Ok(Self { program, laid: None })
    }

    fn lay(&mut self, overlay: Option<&Arc<Overlay>>) {
        let Some(overlay) = overlay else { return };
        if !self.laid.as_ref().is_some_and(|laid| Arc::ptr_eq(laid, overlay)) {
            self.program.lay(overlay);
            self.laid = Some(overlay.clone());
        }
    }
}

/// What `lb lookup` asks.
#[derive(Clone, Debug)]
pub struct Question {
    /// The client's address and port.
    pub source: SocketAddr,
    /// The VIP and its port; of the same family as `source`.
    pub destination: SocketAddr,
    /// Transport protocol.
    pub protocol: model::Protocol,
    /// `SERVICE/BACKEND`s that are taken for DOWN; not known to exist.
    pub down: Vec<String>,
}

impl Node {
    /// The copy for a question, or `None` if the question will come back when there is one.
    fn copy_for(
        &mut self,
        what_if: bool,
        command: impl FnOnce() -> Command,
    ) -> Option<Arc<Mutex<Copy>>> {
        match self.copies.slot(what_if) {
            Slot::Loaded(copy) => return Some(copy.clone()),
            Slot::Loading(waiting) => {
                waiting.push(command());
                return None;
            }
            slot @ Slot::Empty => *slot = Slot::Loading(vec![command()]),
        }
        self.load_copy(what_if);
        None
    }

    fn load_copy(&self, what_if: bool) {
        let (recipe, events, of) =
            (self.dataplane.recipe(), self.events.clone(), self.program_loads);
        tokio::task::spawn_blocking(move || {
            let copy = Copy::load(&recipe, what_if).map(|copy| Arc::new(Mutex::new(copy)));
            // Sending fails when the daemon ends.
            let _ = events.send(Event::Copy { what_if, of, copy });
        });
    }

    /// A copy has been loaded, or not: those who wait for it ask again, or are told.
    pub(super) fn copy_loaded(
        &mut self,
        what_if: bool,
        of: u64,
        copy: Result<Arc<Mutex<Copy>>, Failure>,
    ) {
        if of != self.program_loads {
            // Of a program that has been replaced meanwhile.
            self.load_copy(what_if);
            return;
        }
        let slot = self.copies.slot(what_if);
        let Slot::Loading(waiting) = std::mem::take(slot) else { return };
        match copy {
            Ok(copy) => {
                *slot = Slot::Loaded(copy);
                let commands = self.commands.clone();
                tokio::spawn(async move {
                    for command in waiting {
                        // Sending fails when the daemon ends.
                        let _ = commands.send(command).await;
                    }
                });
            }
            Err(failure) => {
                tracing::error!(error = %failure, "the copy of the program for dry runs could not be loaded");
                for command in waiting {
                    refuse(command, failure.clone());
                }
            }
        }
    }

    /// `lb lookup`
    pub(super) fn answer_lookup(&mut self, question: Question, reply: crate::api::Answer<Lookup>) {
        let what_if = !question.down.is_empty();
        let explained = self.lookup(question.source, question.destination, question.protocol);
        let mut found = match explained {
            Ok(found) => found,
            Err(failure) => {
                let _ = reply.send(Err(failure));
                return;
            }
        };
        let mut reply = Some(reply);
        let copy = self.copy_for(what_if, || Command::Lookup {
            question: question.clone(),
            reply: reply.take().expect("asked once"),
        });
        let (Some(copy), Some(reply)) = (copy, reply) else { return };
        let mut answer = self.ask_program(&question, &copy, &mut found);
        if answer.is_ok() && found.disagreement.is_some() {
            // A pin may have come or gone between the two: once more.
            if let Ok(again) = self.lookup(question.source, question.destination, question.protocol)
            {
                found = again;
                answer = self.ask_program(&question, &copy, &mut found);
            }
        }
        if let Some(disagreement) = &found.disagreement {
            self.disagreements += 1;
            tracing::error!(
                times = self.disagreements,
                "lb lookup of {} > {}: {disagreement}",
                question.source,
                question.destination
            );
        }
        let _ = reply.send(answer.map(|()| found));
    }

    /// Has the program decide about the flow's next packet and about one that opens it, and puts that into the answer.
    fn ask_program(
        &self,
        question: &Question,
        copy: &Mutex<Copy>,
        found: &mut Lookup,
    ) -> Result<(), Failure> {
        let overlay = match question.down.is_empty() {
            true => None,
            false => Some(Arc::new(self.overlay(&question.down)?)),
        };
        let service = found
            .service
            .as_ref()
            .and_then(|name| self.services.iter().find(|service| service.spec.name == *name));
        let ingress = self.ingress(service);
        let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
        copy.lay(overlay.as_ref());
        let mut run = |segment| {
            let flow = Flow { source: question.source, destination: question.destination, segment };
            copy.program.run(&frame(&flow), ingress).map_err(failure)
        };
        let (next, new) = match question.protocol {
            model::Protocol::Udp | model::Protocol::Quic => {
                let trace = run(Segment::Udp)?;
                (trace, trace)
            }
            model::Protocol::Tcp => {
                (run(self.next_segment(question).map_err(failure)?)?, run(Segment::Syn)?)
            }
        };
        drop(copy);
        self.put(found, service, overlay.as_deref(), &next, &new);
        Ok(())
    }

    /// The packet that a flow is likely to send next: the one that completes its handshake, if that is under way.
    fn next_segment(&self, question: &Question) -> anyhow::Result<Segment> {
        let flow = FlowKey {
            source: Address::from(question.source.ip()),
            destination: Address::from(question.destination.ip()),
            source_port: Be16::from_host(question.source.port()),
            destination_port: Be16::from_host(question.destination.port()),
            protocol: question.protocol.number(),
            _pad: [0; 3],
        };
        let tracked = self.dataplane.flow(false, &flow)?;
        Ok(match tracked.or(self.dataplane.pin(false, &flow)?) {
            Some(pin) => Segment::Ack {
                sequence: pin.client_isn.wrapping_add(1),
                acknowledgement: pin.server_isn.wrapping_add(1),
            },
            None => Segment::Ack { sequence: 1, acknowledgement: 1 },
        })
    }

    fn put(
        &self,
        found: &mut Lookup,
        service: Option<&Service>,
        overlay: Option<&Overlay>,
        next: &Trace,
        new: &Trace,
    ) {
        let names = self.names();
        let (said, opening) = (names.verdict(next), names.verdict(new));
        let chooses = service.is_some_and(|service| service.spec.tracks());
        if overlay.is_none()
            && chooses
            && said.backend.is_some()
            && found.pin == "none"
            && said.backend == opening.backend
        {
            // Who is chosen for a datagram of a new flow only the program knows.
            found.backend.clone_from(&said.backend);
        } else if overlay.is_none() {
            found.disagreement = disagreement(found, &said);
        } else {
            found.why = format!("by the rings as they would be then; now: {}", found.why);
            if let (Some(service), Some(overlay)) = (service, overlay) {
                let place = service.ring.offset + found.slot;
                let slots = overlay
                    .slots
                    .iter()
                    .find(|(start, slots)| (*start..*start + slots.len() as u32).contains(&place));
                if let Some((start, slots)) = slots {
                    let slot = slots[(place - start) as usize];
                    found.phase = format!("{:?}", slot.phase()).to_uppercase();
                    found.base = matches!(
                        slot.phase(),
                        lb_common::abi::Phase::Window | lb_common::abi::Phase::Harvest
                    )
                    .then(|| service.backend_name(slot.base()));
                }
            }
            // Of a packet that is dropped nobody has it.
            found.backend = found.service.is_some().then(|| "none".to_owned());
            found.backend_for_new_flow = found.backend.clone();
        }
        if said.backend.is_some() {
            found.backend = said.backend;
        }
        if opening.backend.is_some() {
            found.backend_for_new_flow = opening.backend;
        }
        found.verdict = said.verdict;
        found.reason = said.reason;
        found.verdict_for_new_flow = opening.verdict;
        found.reason_for_new_flow = opening.reason;
    }

    /// The NIC by which a service's packets come, as far as the configuration tells; 0 = none is attached.
    fn ingress(&self, service: Option<&Service>) -> u32 {
        let named = service.map_or(&[][..], |service| &service.spec.listen.interfaces[..]);
        let names = if named.is_empty() { &self.interfaces[..] } else { named };
        let indexes = names.iter().filter_map(|name| self.snapshot.link_by_name(name));
        indexes.map(|link| link.ifindex).next().unwrap_or(0)
    }

    /// Names of everything there is.
    pub(super) fn names(&self) -> Names {
        let mut names = Names::default();
        for service in &self.services {
            names.services.insert(service.id, service.spec.name.clone());
            for backend in &service.backends {
                let both = (service.spec.name.clone(), backend.spec.name.clone());
                names.backends.insert(backend.id, both);
            }
        }
        let links = self.snapshot.links.iter();
        names.interfaces = links.map(|(index, link)| (*index, link.name.clone())).collect();
        names
    }

    /// `lb replay`
    pub(super) fn answer_replay(
        &mut self,
        batch: Batch,
        reply: crate::api::Answer<Vec<PacketVerdict>>,
    ) {
        let prepared = self.prepare(&batch);
        let (ingress, overlay) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                let _ = reply.send(Err(failure));
                return;
            }
        };
        let mut question = Some((batch, reply));
        let copy = self.copy_for(overlay.is_some(), || {
            let (batch, reply) = question.take().expect("asked once");
            Command::Replay { batch, reply }
        });
        let (Some(copy), Some((batch, reply))) = (copy, question) else { return };
        let names = self.names();
        tokio::task::spawn_blocking(move || {
            let _ = reply.send(replay(&batch, &copy, ingress, overlay.as_ref(), &names));
        });
    }

    fn prepare(&mut self, batch: &Batch) -> Result<(u32, Option<Arc<Overlay>>), Failure> {
        let ingress = match &batch.interface {
            None => self.ingress(None),
            Some(name) if self.interfaces.contains(name) => {
                self.snapshot.link_by_name(name).map_or(0, |link| link.ifindex)
            }
            Some(name) => {
                let known = self.interfaces.iter().map(String::as_str);
                return Err(Failure::unknown("NIC of lb", name, known));
            }
        };
        let overlay = match batch.down.is_empty() {
            true => None,
            false => Some(self.overlay_kept(&batch.down)?),
        };
        Ok((ingress, overlay))
    }
}

/// Some packets of a replay.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// NIC they are taken to come by; `None` = the first of the configuration.
    pub interface: Option<String>,
    /// `SERVICE/BACKEND`s that are taken for DOWN; not known to exist.
    pub down: Vec<String>,
    /// Ethernet frames.
    pub frames: Vec<bytes::Bytes>,
}

/// Frames that cannot be tried have the verdict `skipped`, and why as the reason.
fn replay(
    batch: &Batch,
    copy: &Mutex<Copy>,
    ingress: u32,
    overlay: Option<&Arc<Overlay>>,
    names: &Names,
) -> Result<Vec<PacketVerdict>, Failure> {
    let mut verdicts = Vec::with_capacity(batch.frames.len());
    for turn in batch.frames.chunks(TURN) {
        let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
        copy.lay(overlay);
        for frame in turn {
            verdicts.push(match frame.len() {
                length if length > LARGEST_FRAME => skipped("longer_than_a_page"),
                length if length < 14 => skipped("shorter_than_ethernet"),
                _ => names.verdict(&copy.program.run(frame, ingress).map_err(failure)?),
            });
        }
    }
    Ok(verdicts)
}

fn skipped(why: &str) -> PacketVerdict {
    PacketVerdict {
        verdict: "skipped".to_owned(),
        reason: why.to_owned(),
        ..PacketVerdict::default()
    }
}

/// How the explanation, which is worked out from the same maps, differs from what the program says.
fn disagreement(found: &Lookup, said: &PacketVerdict) -> Option<String> {
    let program = said.backend.as_deref().or(said.service.as_deref());
    let differs = match (&said.backend, &said.service) {
        (Some(backend), _) => found.backend.as_deref() != Some(backend),
        (None, service) => found.service.is_some() && *service != found.service,
    };
    let known = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
    differs.then(|| {
        format!(
            "the explanation says {} of {}, the program {} ({}, {}): a bug of lb, please report it",
            known(&found.backend),
            known(&found.service),
            program.unwrap_or("nobody"),
            said.verdict,
            said.reason
        )
    })
}

fn refuse(command: Command, failure: Failure) {
    // Sending fails when the client has gone.
    match command {
        Command::Lookup { reply, .. } => {
            let _ = reply.send(Err(failure));
        }
        Command::Replay { reply, .. } => {
            let _ = reply.send(Err(failure));
        }
        // Nothing else waits for a copy.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(backend: &str) -> Lookup {
        Lookup {
            service: Some("web".to_owned()),
            backend: Some(backend.to_owned()),
            ..Lookup::default()
        }
    }

    #[test]
    fn a_difference_between_explanation_and_program_is_said() {
        let said = |service: Option<&str>, backend: Option<&str>| PacketVerdict {
            service: service.map(str::to_owned),
            backend: backend.map(str::to_owned),
            ..PacketVerdict::default()
        };
        let found = lookup("web1");
        assert_eq!(disagreement(&found, &said(Some("web"), Some("web1"))), None);
        assert_eq!(disagreement(&found, &said(Some("web"), None)), None, "dropped");
        for wrong in [said(Some("web"), Some("web2")), said(None, None), said(Some("db"), None)] {
            assert!(disagreement(&found, &wrong).is_some(), "{wrong:?}");
        }
        assert_eq!(disagreement(&Lookup::default(), &said(None, None)), None);
        assert!(disagreement(&Lookup::default(), &said(Some("web"), Some("web1"))).is_some());
    }

    #[test]
    fn an_empty_trace_is_of_nobody() {
        let said = Names::default().verdict(&Trace::default());
        assert_eq!((said.service, said.backend, said.phase), (None, None, None));
    }
}
