//! Services that remember every flow (`track: always`, and all that `balance` by turn or by load).
//!
//! Two tables, as for pins: flows of which only the beginning was seen, and those that are confirmed, by a packet that fits the handshake,
//! or by an answer to a datagram. A service may have so many of each. What has no entry is the ring's, as if nothing was
//! remembered. A flow counts as a connection of its backend from its entry on until one side closes it. The packets of a
//! comparison follow each other within a moment, in which nothing grows old.

mod choice;
mod entry;

use std::collections::HashMap;

use crate::{
    config::{Mode, Service},
    ip::TCP,
    outcome::{part, reason},
    slots::Tail,
    state::State,
    transport::{Flow, Sound},
};

pub use choice::{Choice, Clients};
pub use entry::Entry;

/// What a service remembers of its flows.
#[derive(Clone, Debug)]
pub struct Track {
    /// How it chooses a backend for a new flow.
    pub choice: Choice,
    /// Weights of its backends; 0 = no new flows.
    pub weights: Vec<u64>,
    /// Confirmed flows that it may have.
    pub most: u64,
    /// Unconfirmed ones.
    pub most_unconfirmed: u64,
    /// Clients are remembered by so many bits of their addresses (IPv4, IPv6).
    pub clients: Option<(u32, u32)>,
    /// So many clients have room in the table of all services.
    pub most_clients: usize,
}

/// Everything that is remembered of tracked flows.
#[derive(Debug, Default)]
pub struct Tracked {
    unconfirmed: HashMap<Flow, Entry>,
    confirmed: HashMap<Flow, Entry>,
    loads: HashMap<u32, Load>,
    connections: HashMap<u32, u64>,
    clients: Clients,
}

/// What a service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Choices so far.
    pub turn: u64,
    /// Open connections.
    pub connections: u64,
    /// Entries of unconfirmed flows.
    pub unconfirmed: u64,
    /// Entries of confirmed ones.
    pub confirmed: u64,
}

impl Tracked {
    /// What a service has, by its number.
    pub fn load(&self, service: u32) -> Load {
        self.loads.get(&service).copied().unwrap_or_default()
    }

    /// Open connections of a backend, by its number.
    pub fn connections(&self, backend: u32) -> u64 {
        self.connections.get(&backend).copied().unwrap_or_default()
    }
}

/// A flow of a service that tracks, and what is remembered.
struct Subject<'a> {
    state: &'a mut State,
    service: &'a Service,
    track: &'a Track,
    flow: &'a Flow,
}

/// The index of the backend of a client's packet; none = what the ring says.
pub fn backend_of(
    state: &mut State,
    service: &Service,
    flow: &Flow,
    sound: &Sound,
) -> Option<usize> {
    let track = service.track.as_ref()?;
    state.met(part::TRACKED);
    let mut subject = Subject { state, service, track, flow };
    let (sequence, acknowledgement) = sound.numbers;
    match (flow.protocol == TCP, sound.is_opening) {
        (false, _) => subject.datagram(),
        (true, true) => subject.open(sequence),
        (true, false) => subject.go_on(sequence, acknowledgement, sound.tail()),
    }
}

/// Where a flow lives, for a packet that says nothing about it; none = where the ring says.
pub fn whereabouts(state: &mut State, service: &Service, flow: &Flow) -> Option<usize> {
    let track = service.track.as_ref()?;
    state.met(part::TRACKED_READ);
    let subject = Subject { state, service, track, flow };
    let unconfirmed = subject.unconfirmed();
    let promoted = unconfirmed.filter(|entry| entry.promoted);
    let entry = promoted.or(subject.confirmed()).or(unconfirmed)?;
    subject.usable(entry.backend)
}

/// Notes what a nat backend says of a flow: a SYN-ACK, an end, or any datagram.
pub fn note_reply(
    state: &mut State,
    service: &Service,
    (flow, backend): (&Flow, usize),
    sound: &Sound,
) {
    let Some(track) = service.track.as_ref() else { return };
    let mut subject = Subject { state, service, track, flow };
    let (sequence, acknowledgement) = sound.numbers;
    if flow.protocol != TCP {
        subject.answered(backend);
    } else if sound.is_closing || sound.is_reset {
        // A reset without an acknowledgement answers one of the client's: that has closed already.
        if sound.acknowledges {
            subject.closed_by_backend(backend, acknowledgement, sound.is_reset);
        }
    } else if sound.is_syn_ack
        && let Some(mut entry) = subject.unconfirmed()
        && entry.backend == backend
        && !entry.promoted
        && entry.was_opened_by(acknowledgement.wrapping_sub(1))
    {
        entry.server = Some(sequence);
        subject.put_unconfirmed(entry);
    }
}

impl Subject<'_> {
    fn unconfirmed(&self) -> Option<Entry> {
        self.state.tracked.unconfirmed.get(self.flow).copied()
    }

    fn confirmed(&self) -> Option<Entry> {
        self.state.tracked.confirmed.get(self.flow).copied()
    }

    fn usable(&self, backend: usize) -> Option<usize> {
        (!self.service.backends[backend].is_down).then_some(backend)
    }

    fn load(&mut self) -> &mut Load {
        self.state.tracked.loads.entry(self.service.id).or_default()
    }

    fn put_unconfirmed(&mut self, entry: Entry) -> bool {
        let is_new = self.unconfirmed().is_none();
        if is_new && self.load().unconfirmed >= self.track.most_unconfirmed {
            return false;
        }
        self.load().unconfirmed += u64::from(is_new);
        self.state.tracked.unconfirmed.insert(*self.flow, entry);
        true
    }

    fn put_confirmed(&mut self, entry: Entry) -> bool {
        let is_new = self.confirmed().is_none();
        if is_new && self.load().confirmed >= self.track.most {
            return false;
        }
        self.load().confirmed += u64::from(is_new);
        self.state.tracked.confirmed.insert(*self.flow, entry);
        true
    }

    fn remove_unconfirmed(&mut self) {
        if self.state.tracked.unconfirmed.remove(self.flow).is_some() {
            self.load().unconfirmed -= 1;
        }
    }

    /// A connection more, or one less.
    fn count(&mut self, backend: usize, more: bool) {
        let id = self.service.backends[backend].id;
        let connections = self.state.tracked.connections.entry(id).or_default();
        *connections = if more { *connections + 1 } else { *connections - 1 };
        let load = self.load();
        load.connections = if more { load.connections + 1 } else { load.connections - 1 };
    }

    /// An entry has become another one, or has gone.
    fn recount(&mut self, before: Option<Entry>, after: Option<Entry>) {
        let open = |entry: Option<Entry>| entry.filter(|entry| entry.is_open());
        match (open(before), open(after)) {
            (Some(before), None) => self.count(before.backend, false),
            (None, Some(after)) => self.count(after.backend, true),
            _ => {}
        }
    }

    fn refused(&mut self) {
        self.state.count(self.service.id, reason::FLOW_REFUSED);
    }

    fn open(&mut self, sequence: u32) -> Option<usize> {
        let unconfirmed = self.unconfirmed();
        if let Some(mut entry) = unconfirmed
            && self.usable(entry.backend).is_some()
        {
            if entry.promoted || entry.was_opened_by(sequence) {
                if entry.touch(Tail::of_syn(sequence)) {
                    self.put_unconfirmed(entry);
                    self.recount(unconfirmed, Some(entry));
                }
                return Some(entry.backend);
            }
            // It is young: two SYNs at once, of which either may be answered.
            if entry.is_open() {
                entry.second = Some(sequence);
                self.put_unconfirmed(entry);
                return Some(entry.backend);
            }
        }
        let confirmed = self.confirmed();
        // A late copy of the SYN that has made the entry.
        let made = confirmed.filter(|entry| entry.client == sequence);
        if let Some(backend) = made.and_then(|entry| self.usable(entry.backend)) {
            return Some(backend);
        }
        let backend = self.choose()?;
        let entry = Entry::new(backend, sequence);
        if self.put_unconfirmed(entry) {
            self.state.met(part::TRACK_NEW);
            self.recount(unconfirmed, None);
            self.count(backend, true);
            return Some(backend);
        }
        self.refused();
        // The new flow lives by the earlier one's entry.
        let mut entry = confirmed?;
        if entry.touch(Tail::of_syn(sequence)) {
            self.put_confirmed(entry);
            self.recount(confirmed, Some(entry));
        }
        self.usable(entry.backend)
    }

    fn go_on(&mut self, sequence: u32, acknowledgement: u32, tail: Tail) -> Option<usize> {
        let sees_replies = self.service.mode == Mode::Nat;
        let unconfirmed = self.unconfirmed();
        let completed = unconfirmed.filter(|entry| {
            entry.promoted || entry.completed_by((sequence, acknowledgement), sees_replies)
        });
        if let Some(entry) = completed {
            self.confirm(entry, sequence, tail);
            return self.usable(entry.backend);
        }
        if let Some(before) = self.confirmed() {
            let mut entry = before;
            if entry.touch(tail) {
                self.put_confirmed(entry);
                self.recount(Some(before), Some(entry));
                self.heard_of(entry.backend);
            }
            return self.usable(entry.backend);
        }
        // A handshake that its client gives up: a reset has no acknowledgement.
        let mut entry = unconfirmed?;
        if tail.closing && entry.second.is_none() && entry.follows(sequence) && entry.touch(tail) {
            self.put_unconfirmed(entry);
            self.recount(unconfirmed, Some(entry));
        }
        self.usable(entry.backend)
    }

    /// The handshake is complete, or was before, when there was no room.
    fn confirm(&mut self, before: Entry, sequence: u32, tail: Tail) {
        let mut entry = before;
        if let Some(second) = entry.second.take()
            && !before.promoted
            && !entry.follows(sequence)
        {
            entry.client = second;
        }
        let has_changed = entry.touch(tail);
        if before.promoted && !has_changed {
            return;
        }
        let earlier = if before.promoted { None } else { self.confirmed() };
        self.recount(Some(before), Some(entry));
        self.settle(entry);
        self.recount(earlier, None);
    }

    /// Into the table of confirmed flows; if that is full, the entry counts as a confirmed one where it is.
    fn settle(&mut self, mut entry: Entry) {
        let is_first = !entry.promoted;
        entry.promoted = false;
        if self.put_confirmed(entry) {
            self.state.met(part::TRACK_CONFIRMED);
            self.remove_unconfirmed();
        } else {
            entry.promoted = true;
            self.put_unconfirmed(entry);
            if is_first {
                self.refused();
            }
        }
        self.heard_of(entry.backend);
    }

    fn datagram(&mut self) -> Option<usize> {
        let (confirmed, unconfirmed) = (self.confirmed(), self.unconfirmed());
        if let Some(entry) = confirmed.or(unconfirmed)
            && let Some(backend) = self.usable(entry.backend)
        {
            return Some(backend);
        }
        let backend = self.choose()?;
        let entry = Entry::new(backend, 0);
        if confirmed.is_some() {
            self.put_confirmed(entry);
            self.recount(confirmed, None);
        } else if self.put_unconfirmed(entry) {
            self.recount(unconfirmed, None);
        } else {
            self.refused();
            return None;
        }
        self.state.met(part::TRACK_NEW);
        self.count(backend, true);
        Some(backend)
    }

    fn answered(&mut self, backend: usize) {
        let entry = self.unconfirmed().filter(|entry| !entry.promoted && entry.backend == backend);
        if let Some(entry) = entry {
            self.settle(entry);
        }
    }

    /// `next`: what it expects of the client.
    fn closed_by_backend(&mut self, backend: usize, next: u32, is_reset: bool) {
        let tail = Tail { end: next, length: 1, closing: true };
        if let Some(before) = self.confirmed() {
            let mut entry = before;
            if entry.backend == backend && entry.touch(tail) {
                self.put_confirmed(entry);
                self.recount(Some(before), Some(entry));
            }
            return;
        }
        // The port is refused; a second SYN may still be answered.
        let Some(before) = self.unconfirmed() else { return };
        let mut entry = before;
        let is_refusal = is_reset && entry.backend == backend && entry.second.is_none();
        if is_refusal && entry.was_opened_by(next.wrapping_sub(1)) && entry.touch(tail) {
            self.put_unconfirmed(entry);
            self.recount(Some(before), Some(entry));
        }
    }
}
