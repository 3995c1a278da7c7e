//! Slots whose owner changes, and pins: the table at the top of docs/architecture.md.
//!
//! A flow that was opened since the change has a pin, so a flow without one is older. Two tables hold pins: those of which only
//! a SYN was seen, and those whose handshake was completed by a packet that fits it, which nobody can make who does not
//! see the flow. The tables of a comparison never get full, and its packets follow each other within a moment.

use std::collections::HashMap;

use crate::{
    config::{Mode, Service},
    hash,
    ip::TCP,
    outcome::part,
    state::State,
    transport::Flow,
};

/// A slot of a ring; backends by their indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Who gets new flows.
    pub owner: Option<usize>,
    /// Who had it before.
    pub base: Option<usize>,
    /// What it goes through.
    pub phase: Phase,
}

/// What a slot goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: everything goes to the owner.
    Settled,
    /// New flows are pinned; those without a pin stay with the base.
    Window,
    /// As in the window, and whoever speaks without a pin gets one to the base.
    Harvest,
    /// There is no base any more: a pin, or the owner.
    Pinned,
}

/// Flows and their pins.
#[derive(Debug, Default)]
pub struct Pins {
    /// Only a SYN was seen.
    pub unconfirmed: HashMap<Flow, Pin>,
    /// The handshake is complete.
    pub confirmed: HashMap<Flow, Pin>,
}

/// Where a flow lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The backend's index.
    pub backend: usize,
    /// Sequence number of the client's SYN.
    pub client: u32,
    /// That of another SYN, which came while the first one was young.
    pub second: Option<u32>,
    /// That of the backend's SYN-ACK, if that was seen.
    pub server: Option<u32>,
    /// So long ago that the next SYN is another flow's.
    pub is_old: bool,
}

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// It opens it, with this sequence number.
    Opening(u32),
    /// It does not: sequence and acknowledgement number.
    Other(u32, u32),
}

impl Slot {
    /// A slot that has not changed.
    pub fn settled(owner: Option<usize>) -> Self {
        Self { owner, base: None, phase: Phase::Settled }
    }
}

impl Service {
    /// The slot of a flow.
    pub(crate) fn slot_of(&self, flow: &Flow) -> Slot {
        let hash = match self.by_source {
            Some(prefix) => hash::of_client(&self.keys, flow.source, prefix),
            None => hash::of_flow(&self.keys, flow),
        };
        self.ring[((u64::from(hash) * self.ring.len() as u64) >> 32) as usize]
    }

    /// The slot, if pins are asked: it has changed, and what opens a flow of the protocol can be seen.
    fn changed_slot_of(&self, flow: &Flow) -> Option<Slot> {
        let slot = self.slot_of(flow);
        let has_pins = flow.protocol == TCP || self.quic.is_some();
        (has_pins && slot.phase != Phase::Settled).then_some(slot)
    }

    fn is_usable(&self, backend: usize) -> bool {
        !self.backends[backend].is_down
    }

    /// The backend, or who stands in for it while it is down.
    fn or_owner(&self, backend: Option<usize>, slot: Slot) -> Option<usize> {
        backend.filter(|backend| self.is_usable(*backend)).or(slot.owner)
    }
}

/// The backend (its index) of a client's packet.
pub fn backend_of(
    state: &mut State,
    service: &Service,
    flow: &Flow,
    segment: Segment,
) -> Option<usize> {
    let Some(slot) = service.changed_slot_of(flow) else { return service.slot_of(flow).owner };
    state.met(part::CHANGED);
    match segment {
        Segment::Opening(sequence) => open(state, service, flow, slot, sequence),
        Segment::Other(sequence, acknowledgement) => {
            go_on(state, service, flow, slot, (sequence, acknowledgement))
        }
    }
}

/// Where a flow lives, for a packet that says nothing about it: pins are read, and nothing changes.
pub fn whereabouts(state: &mut State, service: &Service, flow: &Flow) -> Option<usize> {
    let Some(slot) = service.changed_slot_of(flow) else { return service.slot_of(flow).owner };
    state.met(part::CHANGED);
    state.met(part::CHANGED_READ);
    let pins = &state.pins;
    match pins.confirmed.get(flow).or_else(|| pins.unconfirmed.get(flow)) {
        Some(pin) => service.or_owner(Some(pin.backend), slot),
        None if slot.phase == Phase::Pinned => slot.owner,
        None => service.or_owner(slot.base, slot),
    }
}

/// A backend's SYN-ACK passes (nat): from now on, only who has seen it completes the handshake.
pub fn note_syn_ack(
    state: &mut State,
    service: &Service,
    flow: &Flow,
    backend: usize,
    (sequence, acknowledgement): (u32, u32),
) {
    if service.changed_slot_of(flow).is_none() {
        return;
    }
    let Some(pin) = state.pins.unconfirmed.get_mut(flow) else { return };
    if pin.backend == backend && pin.was_opened_by(acknowledgement.wrapping_sub(1)) {
        pin.server = Some(sequence);
        state.met(part::ANSWERED);
    }
}

fn open(
    state: &mut State,
    service: &Service,
    flow: &Flow,
    slot: Slot,
    sequence: u32,
) -> Option<usize> {
    let confirmed = state.pins.confirmed.get(flow).copied();
    let unconfirmed = state.pins.unconfirmed.get_mut(flow);
    let has_pin = confirmed.is_some() || unconfirmed.is_some();
    if let Some(pin) = unconfirmed.filter(|pin| service.is_usable(pin.backend)) {
        let backend = pin.backend;
        let is_copy = pin.was_opened_by(sequence);
        if is_copy || !pin.is_old {
            pin.second = if is_copy { pin.second } else { Some(sequence) };
            pin.is_old = false;
            state.met(part::FOLLOWED);
            return Some(backend);
        }
    }
    // A late copy of the SYN that has made the pin.
    let made = confirmed.filter(|pin| pin.client == sequence && service.is_usable(pin.backend));
    if let Some(pin) = made {
        state.met(part::FOLLOWED);
        return Some(pin.backend);
    }
    let owner = slot.owner?;
    // What has no pin is the owner's from now on, anyhow.
    if slot.phase == Phase::Pinned && !has_pin {
        state.met(part::UNPINNED);
        return Some(owner);
    }
    state.met(part::PINNED);
    let pin = Pin { backend: owner, client: sequence, second: None, server: None, is_old: false };
    state.pins.unconfirmed.insert(*flow, pin);
    Some(owner)
}

fn go_on(
    state: &mut State,
    service: &Service,
    flow: &Flow,
    slot: Slot,
    numbers: (u32, u32),
) -> Option<usize> {
    // Of datagrams no half of a handshake is the backend's.
    let sees_replies = service.mode == Mode::Nat && flow.protocol == TCP;
    let pins = &mut state.pins;
    let completed =
        pins.unconfirmed.get(flow).copied().filter(|pin| pin.completed_by(numbers, sees_replies));
    if let Some(mut pin) = completed {
        pins.unconfirmed.remove(flow);
        if slot.phase == Phase::Pinned && slot.owner == Some(pin.backend) {
            // It lives where it would without a pin.
            pins.confirmed.remove(flow);
            state.met(part::FOLLOWED);
            return slot.owner;
        }
        if let Some(second) = pin.second.take()
            && !follows(numbers.0, pin.client)
        {
            pin.client = second;
        }
        pins.confirmed.insert(*flow, pin);
        state.met(part::CONFIRMED);
        return service.or_owner(Some(pin.backend), slot);
    }
    if let Some(pin) = pins.confirmed.get(flow).copied() {
        state.met(part::FOLLOWED);
        return service.or_owner(Some(pin.backend), slot);
    }
    state.met(part::UNPINNED);
    if slot.phase == Phase::Pinned {
        return slot.owner;
    }
    if let Some(base) = slot.base.filter(|base| service.is_usable(*base))
        && slot.phase == Phase::Harvest
    {
        let pin = Pin { backend: base, client: 0, second: None, server: None, is_old: false };
        state.pins.confirmed.insert(*flow, pin);
        state.met(part::PINNED);
    }
    service.or_owner(slot.base, slot)
}

impl Pin {
    fn was_opened_by(&self, sequence: u32) -> bool {
        self.client == sequence || self.second == Some(sequence)
    }

    fn completed_by(&self, (sequence, acknowledgement): (u32, u32), sees_replies: bool) -> bool {
        let is_clients = follows(sequence, self.client)
            || self.second.is_some_and(|second| follows(sequence, second));
        let is_servers = self.server.is_some_and(|server| follows(acknowledgement, server));
        is_clients && (is_servers || !sees_replies)
    }
}

/// Whether a number lies within TCP's largest unscaled window behind an initial one.
fn follows(number: u32, initial: u32) -> bool {
    (1..=65_535).contains(&number.wrapping_sub(initial))
}
