//! Services that remember every flow (`track: always`, and all that `balance` by turn or by load): which backend a packet gets, and
//! what happens to the flow's entries.
//!
//! As with pins there are two bounded tables, so that a flood of SYNs or datagrams fills only that of unconfirmed flows.
//! A TCP flow is confirmed by the client's packet that fits its handshake (in nat, the server's half of it, too), a UDP
//! flow by the backend's answer in nat, else by going on for a moment. A flow that has no entry, because it is older
//! than the table or because there was no room, is the ring's, as if the service did not track: the answer is then
//! [`BackendId::NONE`].
//!
//! A flow counts as a connection of its backend from its entry on until one side closes it, or the entry goes.

use crate::{
    abi::{BackendId, Pin, pin_flag},
    select::{Pins, Segment, Tail, YOUNG_JIFFIES, completes, due, follows, opened_by, touch},
};

/// What a packet needs beside the two tables of its flow.
pub trait Flows: Pins {
    /// A backend for a new flow; `NONE` = there is nobody; [`ASK`] = the caller is to choose, and to come again.
    fn choose(&mut self) -> BackendId;
    /// A connection more, or one less, for a backend.
    fn count(&mut self, backend: BackendId, change: Change);
    /// The client of a confirmed flow is heard of: it is remembered, if the service remembers clients.
    fn heard_of(&mut self, backend: BackendId);
}

/// What comes instead of a backend where one is to be chosen; nothing has been changed then.
pub const ASK: BackendId = BackendId(u32::MAX);

/// What becomes of a backend's number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One more.
    Opened,
    /// One less.
    Closed,
}

/// What is the same for every packet of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The service's id, stored in entries.
    pub service: u32,
    /// nat: answers pass through lb.
    pub sees_replies: bool,
}

/// The backend of a TCP packet; `NONE` = what the ring says; [`ASK`] = as [`Flows::choose`] says.
#[inline(always)]
pub fn track<F: Flows>(about: &About, segment: &Segment, flows: &mut F) -> BackendId {
    match *segment {
        Segment::Opening { isn } => open(about, isn, flows),
        Segment::Other { sequence, acknowledgement, length, closing } => {
            let tail = Tail { end: sequence.wrapping_add(length), length, closing };
            proceed(about, sequence, acknowledgement, tail, flows)
        }
    }
}

/// Where the flow of a packet lives that says nothing about the flow's state; nothing is made, touched or removed.
#[inline(always)]
pub fn whereabouts<P: Pins>(pins: &P) -> BackendId {
    let unconfirmed = or_nothing(pins.unconfirmed());
    if unconfirmed.flags & pin_flag::PROMOTED != 0 {
        return usable(unconfirmed.backend, pins);
    }
    let confirmed = or_nothing(pins.confirmed());
    usable(if is_there(&confirmed) { confirmed.backend } else { unconfirmed.backend }, pins)
}

/// Whether an entry stands for an open connection.
#[inline(always)]
pub const fn is_open(entry: &Pin) -> bool {
    entry.flags & pin_flag::CLOSING == 0
}

#[inline(always)]
fn open<F: Flows>(about: &About, isn: u32, flows: &mut F) -> BackendId {
    let now = flows.now();
    let unconfirmed = or_nothing(flows.unconfirmed());
    if is_there(&unconfirmed) && !flows.is_down(unconfirmed.backend) {
        let mut entry = unconfirmed;
        if opened_by(&entry, isn) || entry.flags & pin_flag::PROMOTED != 0 {
            if touch(&mut entry, Tail::of_syn(isn), now) {
                flows.put_unconfirmed(&entry);
                recount(&unconfirmed, &entry, flows);
            }
            return entry.backend;
        }
        if now.wrapping_sub(entry.last_seen) < YOUNG_JIFFIES && is_open(&entry) {
            entry.flags |= pin_flag::SECOND_ISN;
            entry.closing_sequence = isn;
            entry.last_seen = now;
            flows.put_unconfirmed(&entry);
            return entry.backend;
        }
    }
    let confirmed = or_nothing(flows.confirmed());
    if is_there(&confirmed) && confirmed.client_isn == isn && !flows.is_down(confirmed.backend) {
        return confirmed.backend; // a late copy of the SYN whose handshake made this entry
    }
    let backend = flows.choose();
    if backend.0 == BackendId::NONE.0 || backend.0 == ASK.0 {
        return backend;
    }
    let entry = Pin { client_isn: isn, ..new(about, backend, now) };
    if flows.put_unconfirmed(&entry) {
        closed(&unconfirmed, flows);
        flows.count(backend, Change::Opened);
        return backend;
    }
    flows.refused();
    if !is_there(&confirmed) {
        return BackendId::NONE;
    }
    // The new flow lives by the earlier one's entry.
    let mut entry = confirmed;
    if touch(&mut entry, Tail::of_syn(isn), now) {
        flows.put_confirmed(&entry);
        recount(&confirmed, &entry, flows);
    }
    usable(entry.backend, flows)
}

#[inline(always)]
fn proceed<F: Flows>(
    about: &About,
    sequence: u32,
    acknowledgement: u32,
    tail: Tail,
    flows: &mut F,
) -> BackendId {
    let now = flows.now();
    let unconfirmed = or_nothing(flows.unconfirmed());
    if is_there(&unconfirmed)
        && (unconfirmed.flags & pin_flag::PROMOTED != 0
            || completes(&unconfirmed, sequence, acknowledgement, about.sees_replies))
    {
        confirm(&unconfirmed, sequence, tail, now, flows);
        return usable(unconfirmed.backend, flows);
    }
    let confirmed = or_nothing(flows.confirmed());
    if is_there(&confirmed) {
        let mut entry = confirmed;
        if touch(&mut entry, tail, now) {
            flows.put_confirmed(&entry);
            recount(&confirmed, &entry, flows);
            flows.heard_of(entry.backend);
        }
        return usable(entry.backend, flows);
    }
    if !is_there(&unconfirmed) {
        return BackendId::NONE;
    }
    // A handshake that its client gives up: a reset has no acknowledgement.
    let mut entry = unconfirmed;
    if tail.closing
        && entry.flags & pin_flag::SECOND_ISN == 0
        && follows(sequence, entry.client_isn)
        && touch(&mut entry, tail, now)
    {
        flows.put_unconfirmed(&entry);
        recount(&unconfirmed, &entry, flows);
    }
    usable(entry.backend, flows)
}

/// The backend of a datagram; `NONE` = what the ring says; [`ASK`] = as [`Flows::choose`] says.
#[inline(always)]
pub fn datagram<F: Flows>(about: &About, flows: &mut F) -> BackendId {
    let now = flows.now();
    let confirmed = or_nothing(flows.confirmed());
    if is_there(&confirmed) && !flows.is_down(confirmed.backend) {
        if due(&confirmed, now) {
            flows.put_confirmed(&Pin { last_seen: now, ..confirmed });
            flows.heard_of(confirmed.backend);
        }
        return confirmed.backend;
    }
    let unconfirmed = or_nothing(flows.unconfirmed());
    if is_there(&unconfirmed) && !is_there(&confirmed) && !flows.is_down(unconfirmed.backend) {
        if due(&unconfirmed, now) {
            let promoted = unconfirmed.flags & pin_flag::PROMOTED != 0;
            if promoted || !about.sees_replies {
                settle(unconfirmed, now, flows);
            } else {
                flows.put_unconfirmed(&Pin { last_seen: now, ..unconfirmed });
            }
        }
        return unconfirmed.backend;
    }
    let backend = flows.choose();
    if backend.0 == BackendId::NONE.0 || backend.0 == ASK.0 {
        return backend;
    }
    let entry = new(about, backend, now);
    if is_there(&confirmed) {
        // Its backend is DOWN: it moves for good.
        flows.put_confirmed(&entry);
        closed(&confirmed, flows);
    } else {
        if !flows.put_unconfirmed(&entry) {
            flows.refused();
            return BackendId::NONE;
        }
        closed(&unconfirmed, flows);
    }
    flows.count(backend, Change::Opened);
    backend
}

/// The backend has answered a datagram (nat): the flow is confirmed.
#[inline(always)]
pub fn answered<F: Flows>(backend: BackendId, flows: &mut F) {
    let entry = or_nothing(flows.unconfirmed());
    if is_there(&entry) && entry.flags & pin_flag::PROMOTED == 0 && entry.backend.0 == backend.0 {
        settle(entry, flows.now(), flows);
    }
}

/// The backend closes the connection or resets it (nat). `next` is the sequence number that it expects of the client.
#[inline(always)]
pub fn closed_by_backend<F: Flows>(backend: BackendId, next: u32, reset: bool, flows: &mut F) {
    let now = flows.now();
    let tail = Tail { end: next, length: 1, closing: true };
    let confirmed = or_nothing(flows.confirmed());
    if is_there(&confirmed) {
        let mut entry = confirmed;
        if entry.backend.0 == backend.0 && touch(&mut entry, tail, now) {
            flows.put_confirmed(&entry);
            recount(&confirmed, &entry, flows);
        }
        return;
    }
    let unconfirmed = or_nothing(flows.unconfirmed());
    let mut entry = unconfirmed;
    // The port is refused. (A second SYN may still be answered.)
    if is_there(&unconfirmed)
        && reset
        && entry.backend.0 == backend.0
        && entry.flags & pin_flag::SECOND_ISN == 0
        && opened_by(&entry, next.wrapping_sub(1))
        && touch(&mut entry, tail, now)
    {
        flows.put_unconfirmed(&entry);
        recount(&unconfirmed, &entry, flows);
    }
}

/// Moves an entry whose handshake has completed to the confirmed table; if that is full it counts as confirmed where it is, and
/// the move is tried again with each touch.
#[inline(always)]
fn confirm<F: Flows>(before: &Pin, sequence: u32, tail: Tail, now: u64, flows: &mut F) {
    let mut entry = *before;
    let first = entry.flags & pin_flag::PROMOTED == 0;
    if first {
        if entry.flags & pin_flag::SECOND_ISN != 0 && !follows(sequence, entry.client_isn) {
            entry.client_isn = entry.closing_sequence;
        }
        if entry.flags & pin_flag::CLOSING == 0 {
            entry.closing_sequence = 0;
        }
        entry.flags &= pin_flag::SERVER_ISN | pin_flag::CLOSING;
    }
    if !touch(&mut entry, tail, now) && !first {
        return;
    }
    let earlier = if first { or_nothing(flows.confirmed()) } else { NOTHING };
    recount(before, &entry, flows);
    settle(entry, now, flows);
    closed(&earlier, flows);
}

/// Into the confirmed table, as far as there is room.
#[inline(always)]
fn settle<F: Flows>(mut entry: Pin, now: u64, flows: &mut F) {
    let first = entry.flags & pin_flag::PROMOTED == 0;
    entry.last_seen = now;
    entry.flags &= !pin_flag::PROMOTED;
    if flows.put_confirmed(&entry) {
        flows.remove_unconfirmed();
    } else {
        entry.flags |= pin_flag::PROMOTED;
        flows.put_unconfirmed(&entry);
        if first {
            flows.refused();
        }
    }
    flows.heard_of(entry.backend);
}

#[inline(always)]
fn new(about: &About, backend: BackendId, now: u64) -> Pin {
    Pin {
        backend,
        flags: 0,
        last_seen: now,
        created: now,
        client_isn: 0,
        server_isn: 0,
        closing_sequence: 0,
        service: about.service,
    }
}

#[inline(always)]
fn recount<F: Flows>(before: &Pin, after: &Pin, flows: &mut F) {
    match (is_open(before), is_open(after)) {
        (true, false) => flows.count(before.backend, Change::Closed),
        (false, true) => flows.count(before.backend, Change::Opened),
        _ => {}
    }
}

/// An entry has gone, if there was one.
#[inline(always)]
fn closed<F: Flows>(entry: &Pin, flows: &mut F) {
    if is_there(entry) && is_open(entry) {
        flows.count(entry.backend, Change::Closed);
    }
}

/// Stands for "no entry". (An `Option` would leave the fields of a missing entry undefined, which the compiler then carries about,
/// and the verifier refuses.)
const NOTHING: Pin = Pin {
    backend: BackendId::NONE,
    flags: 0,
    last_seen: 0,
    created: 0,
    client_isn: 0,
    server_isn: 0,
    closing_sequence: 0,
    service: 0,
};

#[inline(always)]
fn or_nothing(entry: Option<Pin>) -> Pin {
    match entry {
        Some(entry) => entry,
        None => NOTHING,
    }
}

#[inline(always)]
const fn is_there(entry: &Pin) -> bool {
    entry.backend.0 != BackendId::NONE.0
}

/// The backend, unless it is DOWN: then the ring decides.
#[inline(always)]
fn usable<P: Pins>(backend: BackendId, pins: &P) -> BackendId {
    if backend.0 == BackendId::NONE.0 || pins.is_down(backend) { BackendId::NONE } else { backend }
}

#[cfg(test)]
mod tests;
