//! Slots whose owner changes, and pins: the table at the top of docs/architecture.md.
//!
//! A flow that was opened since the change has a pin, so a flow without one is older. Two tables hold pins: those of which only
//! a SYN was seen, and those whose handshake was completed by a packet that fits it, which nobody can make who does not
//! see the flow. Each table has room for so many. The packets of a comparison follow each other within a moment.

use std::collections::HashMap;

use crate::{
    config::{Config, Mode, Service},
    hash,
    ip::TCP,
    outcome::{part, reason},
    state::State,
    track,
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
    /// Somebody closes the connection: the sequence number that follows.
    pub closing: Option<u32>,
    /// Confirmed, but there was no room in the table of those.
    pub promoted: bool,
}

/// A segment's end in sequence space.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    /// The number that follows it.
    pub end: u32,
    /// What it takes of the space.
    pub length: u32,
    /// FIN or RST.
    pub closing: bool,
}

impl Tail {
    /// That of a SYN.
    pub fn of_syn(sequence: u32) -> Self {
        Self { end: sequence.wrapping_add(1), length: 1, closing: false }
    }
}

/// Notes whether a connection is being closed. One that is goes on being so for copies of its last segment, and for
/// acknowledgements of it; anything else opens it again. True if something has changed.
pub fn touch(closing: &mut Option<u32>, tail: Tail) -> bool {
    if let Some(closing) = *closing
        && tail.end == closing
        && (tail.closing || tail.length == 0)
    {
        return false;
    }
    if !tail.closing && closing.is_none() {
        return false;
    }
    *closing = tail.closing.then_some(tail.end);
    true
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
        self.ring[self.slot_number(flow)]
    }

    /// Its index.
    pub(crate) fn slot_number(&self, flow: &Flow) -> usize {
        let hash = match self.by_source {
            Some(prefix) => hash::of_client(&self.keys, flow.source, prefix),
            None => hash::of_flow(&self.keys, flow),
        };
        ((u64::from(hash) * self.ring.len() as u64) >> 32) as usize
    }

    /// The slot, if pins are asked: it has changed, and what opens a flow of the protocol can be seen.
    pub(crate) fn changed_slot_of(&self, flow: &Flow) -> Option<Slot> {
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
    config: &Config,
    state: &mut State,
    service: &Service,
    flow: &Flow,
    (segment, tail): (Segment, Tail),
) -> Option<usize> {
    let Some(slot) = service.changed_slot_of(flow) else { return service.slot_of(flow).owner };
    state.met(part::CHANGED);
    match segment {
        Segment::Opening(sequence) => open(config, state, service, flow, slot, sequence),
        Segment::Other(sequence, acknowledgement) => {
            go_on(config, state, service, flow, slot, ((sequence, acknowledgement), tail))
        }
    }
}

/// Where a flow lives, for a packet that says nothing about it: pins are read, and nothing changes.
pub fn whereabouts(state: &mut State, service: &Service, flow: &Flow) -> Option<usize> {
    if let Some(backend) = track::whereabouts(state, service, flow) {
        return Some(backend);
    }
    let Some(slot) = service.changed_slot_of(flow) else { return service.slot_of(flow).owner };
    state.met(part::CHANGED);
    state.met(part::CHANGED_READ);
    let pins = &state.pins;
    let unconfirmed = pins.unconfirmed.get(flow);
    let promoted = unconfirmed.filter(|pin| pin.promoted);
    match promoted.or_else(|| pins.confirmed.get(flow)).or(unconfirmed) {
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
    if pin.backend == backend && !pin.promoted && pin.was_opened_by(acknowledgement.wrapping_sub(1))
    {
        pin.server = Some(sequence);
        state.met(part::ANSWERED);
    }
}

fn open(
    config: &Config,
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
        let is_copy = pin.promoted || pin.was_opened_by(sequence);
        if is_copy || !pin.is_old {
            if is_copy {
                touch(&mut pin.closing, Tail::of_syn(sequence));
            } else {
                pin.second = Some(sequence);
            }
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
    if put(&mut state.pins.unconfirmed, flow, Pin::new(owner, sequence), config) {
        state.met(part::PINNED);
        return Some(owner);
    }
    // Who cannot be pinned is opened where his packets will go.
    state.count(service.id, reason::PIN_REFUSED);
    let earlier = confirmed.map(|pin| pin.backend);
    service.or_owner(earlier.or(slot.base), slot)
}

/// Stores a pin; false if the flow has none and the table is full.
fn put(pins: &mut HashMap<Flow, Pin>, flow: &Flow, pin: Pin, config: &Config) -> bool {
    let has_room = pins.contains_key(flow) || pins.len() < config.most_pins;
    if has_room {
        pins.insert(*flow, pin);
    }
    has_room
}

fn go_on(
    config: &Config,
    state: &mut State,
    service: &Service,
    flow: &Flow,
    slot: Slot,
    (numbers, tail): ((u32, u32), Tail),
) -> Option<usize> {
    // Of datagrams no half of a handshake is the backend's.
    let sees_replies = service.mode == Mode::Nat && flow.protocol == TCP;
    let pins = &mut state.pins;
    let completed = pins.unconfirmed.get(flow).copied();
    let completed = completed.filter(|pin| pin.promoted || pin.completed_by(numbers, sees_replies));
    if let Some(mut pin) = completed {
        if slot.phase == Phase::Pinned && slot.owner == Some(pin.backend) {
            // It lives where it would without a pin.
            pins.unconfirmed.remove(flow);
            pins.confirmed.remove(flow);
            state.met(part::FOLLOWED);
            return slot.owner;
        }
        if let Some(second) = pin.second.take()
            && !follows(numbers.0, pin.client)
        {
            pin.client = second;
        }
        let (is_first, has_changed) = (!pin.promoted, touch(&mut pin.closing, tail));
        // Who has found no room is moved when something changes.
        if is_first || has_changed {
            pin = Pin { promoted: false, is_old: false, ..pin };
            if put(&mut pins.confirmed, flow, pin, config) {
                pins.unconfirmed.remove(flow);
                state.met(part::CONFIRMED);
            } else {
                pins.unconfirmed.insert(*flow, Pin { promoted: true, ..pin });
                state.met(part::PROMOTED);
                if is_first {
                    state.count(service.id, reason::PIN_REFUSED);
                }
            }
        }
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
        if put(&mut state.pins.confirmed, flow, Pin::new(base, 0), config) {
            state.met(part::PINNED);
        } else {
            state.count(service.id, reason::PIN_REFUSED);
        }
    }
    service.or_owner(slot.base, slot)
}

impl Pin {
    fn new(backend: usize, client: u32) -> Self {
        let (second, server, closing) = (None, None, None);
        Self { backend, client, second, server, is_old: false, closing, promoted: false }
    }

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
pub fn follows(number: u32, initial: u32) -> bool {
    (1..=65_535).contains(&number.wrapping_sub(initial))
}
