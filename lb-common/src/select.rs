//! The central idea of docs/architecture.md for one packet of a slot that is not SETTLED: which backend, and what happens
//! to pins.
//!
//! Pure over [`Pins`], which the XDP program implements with the two pin maps and the property tests with hash maps.
//! Two sentences carry it. A flow opened since the window began has a pin, so a flow without one is older and lives at
//! the base. And every packet, the opening one included, goes where the flow's later packets will be sent: a flow that
//! cannot be pinned is opened where unpinned flows go.

use crate::abi::{BackendId, Phase, Pin, Slot, pin_flag};

/// Time from a SYN during which its unconfirmed pin is not displaced by another SYN, jiffies. The packet path does not know HZ: this
/// is 12.8 s at HZ=100, 5.1 s at 250, 4.3 s at 300 and 1.3 s at 1000.
pub const YOUNG_JIFFIES: u64 = 1_280;

/// Time between two writes of [`Pin::last_seen`], jiffies (2.6 s at HZ=100, 0.3 s at 1000).
pub const TOUCH_JIFFIES: u64 = 256;

/// How far behind a handshake's initial sequence number a packet may be to complete it (TCP's window without scaling,
/// which is what a SYN and its answer offer at most).
pub const HANDSHAKE_WINDOW: u32 = 65_535;

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A TCP SYN without ACK, or a QUIC Initial or 0-RTT packet: opens a flow.
    Opening {
        /// The client's initial sequence number, host order.
        isn: u32,
    },
    /// Any other packet of the client.
    Other {
        /// Sequence number, host order.
        sequence: u32,
        /// Acknowledgement number, host order.
        acknowledgement: u32,
        /// Sequence space used: payload bytes plus one for FIN.
        length: u32,
        /// FIN or RST is set.
        closing: bool,
    },
}

/// The two pin tables and the states of backends, for the flow of the packet in hand.
pub trait Pins {
    /// The flow's unconfirmed pin.
    fn unconfirmed(&self) -> Option<Pin>;
    /// The flow's confirmed pin.
    fn confirmed(&self) -> Option<Pin>;
    /// Stores the unconfirmed pin; false if the flow has none and the table is full. Replacing one always works.
    fn put_unconfirmed(&mut self, pin: &Pin) -> bool;
    /// Stores the confirmed pin; false if the flow has none and the table is full. Replacing one always works.
    fn put_confirmed(&mut self, pin: &Pin) -> bool;
    /// Removes the unconfirmed pin.
    fn remove_unconfirmed(&mut self);
    /// Removes the confirmed pin.
    fn remove_confirmed(&mut self);
    /// Whether a backend is DOWN.
    fn is_down(&self, backend: BackendId) -> bool;
    /// Now, jiffies.
    fn now(&self) -> u64;
    /// Counts a pin that could not be stored.
    fn refused(&mut self);
}

/// What is the same for every packet of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The slot of the flow.
    pub slot: Slot,
    /// The slot's base, already looked up in the old ring if it says [`BackendId::OLD_RING`].
    pub base: BackendId,
    /// The service's id, stored in pins.
    pub service: u32,
    /// nat: a pin is confirmed only if the acknowledgement fits the server's ISN, too.
    pub sees_replies: bool,
}

/// The backend of a packet; [`BackendId::NONE`] if the slot has no owner and the flow no backend of its own.
#[inline(always)]
pub fn select<P: Pins>(context: &Context, segment: &Segment, pins: &mut P) -> BackendId {
    if context.slot.phase() as u8 == Phase::Settled as u8 {
        return context.slot.owner();
    }
    match *segment {
        Segment::Opening { isn } => open(context, isn, pins),
        Segment::Other { sequence, acknowledgement, length, closing } => {
            let tail = Tail { end: sequence.wrapping_add(length), length, closing };
            proceed(context, sequence, acknowledgement, tail, pins)
        }
    }
}

/// Where the flow of a packet lives that says nothing about the flow's state (an ICMP error about it): where its next
/// packet would go that opens nothing. Pins are read, and none is made, touched or removed.
#[inline(always)]
pub fn whereabouts<P: Pins>(context: &Context, pins: &P) -> BackendId {
    let owner = context.slot.owner();
    let phase = context.slot.phase() as u8;
    if phase == Phase::Settled as u8 {
        return owner;
    }
    let unconfirmed = pins.unconfirmed();
    if let Some(pin) = unconfirmed
        && pin.flags & pin_flag::PROMOTED != 0
    {
        return resolve(pin.backend, owner, pins);
    }
    if let Some(pin) = pins.confirmed() {
        return resolve(pin.backend, owner, pins);
    }
    match unconfirmed {
        // A handshake under way: it was the pin's backend that answered the SYN.
        Some(pin) => resolve(pin.backend, owner, pins),
        None if phase == Phase::Pinned as u8 => owner,
        None => resolve(context.base, owner, pins),
    }
}

/// Where the flows of a slot live that have no pin. This is what a slot of an old ring says to a slot whose base is
/// [`BackendId::OLD_RING`].
#[inline(always)]
pub const fn home(slot: Slot) -> BackendId {
    match slot.phase() {
        Phase::Settled | Phase::Pinned => slot.owner(),
        Phase::Window | Phase::Harvest => slot.base(),
    }
}

/// Notes the SYN-ACK of the pin's backend (nat) in its unconfirmed pin. `sequence` and `acknowledgement` are the
/// SYN-ACK's, host order. True if the pin has changed and has to be stored.
#[inline(always)]
pub fn note_syn_ack(pin: &mut Pin, sequence: u32, acknowledgement: u32) -> bool {
    let known = pin.flags & pin_flag::SERVER_ISN != 0 && pin.server_isn == sequence;
    if known
        || pin.flags & pin_flag::PROMOTED != 0
        || !opened_by(pin, acknowledgement.wrapping_sub(1))
    {
        return false;
    }
    pin.flags |= pin_flag::SERVER_ISN;
    pin.server_isn = sequence;
    true
}

/// A packet's end in sequence space, and whether it ends the flow.
#[derive(Clone, Copy)]
pub(crate) struct Tail {
    /// The sequence number after the packet's last.
    pub(crate) end: u32,
    pub(crate) length: u32,
    pub(crate) closing: bool,
}

impl Tail {
    #[inline(always)]
    pub(crate) fn of_syn(isn: u32) -> Self {
        Self { end: isn.wrapping_add(1), length: 1, closing: false }
    }
}

#[inline(always)]
fn open<P: Pins>(context: &Context, isn: u32, pins: &mut P) -> BackendId {
    let owner = context.slot.owner();
    let now = pins.now();
    let unconfirmed = pins.unconfirmed();
    if let Some(mut pin) = unconfirmed
        && !pins.is_down(pin.backend)
    {
        if opened_by(&pin, isn) || pin.flags & pin_flag::PROMOTED != 0 {
            if touch(&mut pin, Tail::of_syn(isn), now) {
                pins.put_unconfirmed(&pin);
            }
            return pin.backend;
        }
        if now.wrapping_sub(pin.last_seen) < YOUNG_JIFFIES {
            pin.flags |= pin_flag::SECOND_ISN;
            pin.closing_sequence = isn;
            pin.last_seen = now;
            pins.put_unconfirmed(&pin);
            return pin.backend;
        }
    }
    let confirmed = pins.confirmed();
    if let Some(pin) = confirmed
        && pin.client_isn == isn
        && !pins.is_down(pin.backend)
    {
        return pin.backend; // a late copy of the SYN whose handshake made this pin
    }
    let pinned_phase = context.slot.phase() as u8 == Phase::Pinned as u8;
    if owner.0 == BackendId::NONE.0
        || (pinned_phase && unconfirmed.is_none() && confirmed.is_none())
    {
        return owner;
    }
    // Even if the owner is DOWN (all are: fail open), since that is where the packet goes.
    if pins.put_unconfirmed(&Pin {
        backend: owner,
        flags: 0,
        last_seen: now,
        created: now,
        client_isn: isn,
        server_isn: 0,
        closing_sequence: 0,
        service: context.service,
    }) {
        return owner;
    }
    pins.refused();
    // Read once more: kept until here, it would be fetched from the stack before it is known to be there, which the verifier of
    // kernels before 6.3 refuses.
    match pins.confirmed() {
        Some(mut pin) => {
            // The new flow lives by the earlier one's pin, which may be about to go.
            if touch(&mut pin, Tail::of_syn(isn), now) {
                pins.put_confirmed(&pin);
            }
            resolve(pin.backend, owner, pins)
        }
        None => resolve(context.base, owner, pins),
    }
}

#[inline(always)]
fn proceed<P: Pins>(
    context: &Context,
    sequence: u32,
    acknowledgement: u32,
    tail: Tail,
    pins: &mut P,
) -> BackendId {
    let owner = context.slot.owner();
    let phase = context.slot.phase() as u8;
    let now = pins.now();
    if let Some(pin) = pins.unconfirmed()
        && (pin.flags & pin_flag::PROMOTED != 0
            || completes(&pin, sequence, acknowledgement, context.sees_replies))
    {
        if phase == Phase::Pinned as u8 && pin.backend.0 == owner.0 {
            pins.remove_confirmed();
            pins.remove_unconfirmed();
            return owner;
        }
        confirm(pin, sequence, tail, now, pins);
        return resolve(pin.backend, owner, pins);
    }
    if let Some(mut pin) = pins.confirmed() {
        if touch(&mut pin, tail, now) {
            pins.put_confirmed(&pin);
        }
        return resolve(pin.backend, owner, pins);
    }
    if phase == Phase::Pinned as u8 {
        return owner;
    }
    let backend = resolve(context.base, owner, pins);
    if phase == Phase::Harvest as u8 && usable(context.base, pins) {
        let mut pin = Pin {
            backend: context.base,
            flags: 0,
            last_seen: now,
            created: now,
            client_isn: 0,
            server_isn: 0,
            closing_sequence: 0,
            service: context.service,
        };
        touch(&mut pin, tail, now);
        if !pins.put_confirmed(&pin) {
            pins.refused();
        }
    }
    backend
}

/// Moves a pin whose handshake has completed to the confirmed table; if that is full it counts as confirmed where it
/// is, and the move is tried again with each touch.
#[inline(always)]
fn confirm<P: Pins>(mut pin: Pin, sequence: u32, tail: Tail, now: u64, pins: &mut P) {
    let first = pin.flags & pin_flag::PROMOTED == 0;
    if first {
        if pin.flags & pin_flag::SECOND_ISN != 0 && !follows(sequence, pin.client_isn) {
            pin.client_isn = pin.closing_sequence;
        }
        pin.closing_sequence = 0;
        pin.flags &= pin_flag::SERVER_ISN;
    }
    if !touch(&mut pin, tail, now) && !first {
        return;
    }
    pin.last_seen = now;
    pin.flags &= !pin_flag::PROMOTED;
    if pins.put_confirmed(&pin) {
        pins.remove_unconfirmed();
        return;
    }
    pin.flags |= pin_flag::PROMOTED;
    pins.put_unconfirmed(&pin);
    if first {
        pins.refused();
    }
}

/// Brings a confirmed pin up to date; true if it has to be stored: when a write is due, or CLOSING changes.
#[inline(always)]
pub(crate) fn touch(pin: &mut Pin, tail: Tail, now: u64) -> bool {
    let was_closing = pin.flags & pin_flag::CLOSING != 0;
    let explained =
        was_closing && tail.end == pin.closing_sequence && (tail.closing || tail.length == 0);
    let changed = !explained && (tail.closing || was_closing);
    if changed {
        if tail.closing {
            pin.flags |= pin_flag::CLOSING;
            pin.closing_sequence = tail.end;
        } else {
            pin.flags &= !pin_flag::CLOSING;
            pin.closing_sequence = 0;
        }
    }
    if changed || due(pin, now) {
        pin.last_seen = now;
        return true;
    }
    false
}

#[inline(always)]
pub(crate) fn due(pin: &Pin, now: u64) -> bool {
    now.wrapping_sub(pin.last_seen) >= TOUCH_JIFFIES
}

/// Whether a SYN with this initial sequence number is one that the unconfirmed pin stands for.
#[inline(always)]
pub(crate) fn opened_by(pin: &Pin, isn: u32) -> bool {
    pin.client_isn == isn || (pin.flags & pin_flag::SECOND_ISN != 0 && pin.closing_sequence == isn)
}

/// Whether a packet fits the handshake of an unconfirmed pin, so that it cannot be another flow's (nor made up by
/// somebody who does not see the flow).
#[inline(always)]
pub(crate) fn completes(
    pin: &Pin,
    sequence: u32,
    acknowledgement: u32,
    sees_replies: bool,
) -> bool {
    let client = follows(sequence, pin.client_isn)
        || (pin.flags & pin_flag::SECOND_ISN != 0 && follows(sequence, pin.closing_sequence));
    let server = !sees_replies
        || (pin.flags & pin_flag::SERVER_ISN != 0 && follows(acknowledgement, pin.server_isn));
    client && server
}

/// Whether a sequence number lies 1..=65535 behind an initial one (modulo 2^32, RFC 9293 3.4).
#[inline(always)]
pub(crate) fn follows(sequence: u32, isn: u32) -> bool {
    sequence.wrapping_sub(isn).wrapping_sub(1) < HANDSHAKE_WINDOW
}

#[inline(always)]
fn resolve<P: Pins>(backend: BackendId, owner: BackendId, pins: &P) -> BackendId {
    if usable(backend, pins) { backend } else { owner }
}

#[inline(always)]
fn usable<P: Pins>(backend: BackendId, pins: &P) -> bool {
    backend.0 != BackendId::NONE.0 && !pins.is_down(backend)
}

#[cfg(test)]
mod tests;
