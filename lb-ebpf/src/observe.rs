//! Notes what clients' handshakes tell of backends, for services that say `observe` (the rules are
//! [`lb_common::observe`]). Where no service does, the verifier removes all of it; other services pay a comparison.

use aya_ebpf::helpers::generated;
use lb_common::{
    abi::{
        Address, BackendId, ObservedFailure, Opening, OpeningBucket, ReplyRow, backend_flag,
        failure_kind, protocol, service_flag,
    },
    frame::{Frame, Tcp, be32, tcp_flag},
    hash::{HashKeys, flow_hash},
    ip::IpHeader,
    observe::{Moment, Syn, moment, network, opening_bucket, source_entry},
    parse::{self, Family},
};

use crate::{
    atomic, config, limit,
    maps::{self, FAILURES, OBSERVED, OPENINGS, PROVEN_SOURCES},
    packet::Context,
};

/// Where clients' packets of a service go.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The service's id.
    pub service: u32,
    /// The backend.
    pub backend: BackendId,
    /// Its answers pass through lb (nat).
    pub sees_replies: bool,
}

/// Whether a service with these flags is observed.
#[inline(always)]
pub fn wanted(flags: u32) -> bool {
    config::OBSERVE.load() != 0 && flags & service_flag::OBSERVE != 0
}

/// Notes a client's packet, before it is rewritten. A function of its own, for the stack's sake.
#[inline(never)]
pub fn request<F: Family>(context: Context, way: &Way) -> u32 {
    if config::is_dry_run() {
        return 0;
    }
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return 0 };
    if outline.flow.protocol != protocol::TCP {
        return 0;
    }
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return 0 };
    let (flags, sequence) = (tcp.flags, be32(tcp.sequence).to_host());
    let acknowledgement = be32(tcp.acknowledgement).to_host();
    let keys = config::hash_keys(F::Header::IS_V6);
    let hash = flow_hash(&keys, &outline.flow);
    let Some(bucket) = OPENINGS.get_ptr_mut(opening_bucket(hash)) else { return 0 };
    let source = &outline.flow.source;
    if flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN {
        opened(
            bucket,
            Opening::name_of(hash, sequence),
            &Source::of(&keys, source, way.service),
            way,
        );
        return 1;
    }
    if flags & (tcp_flag::SYN | tcp_flag::RST) != 0 {
        return 0;
    }
    for number in 0..2 {
        let Some((place, opening)) = slot(bucket, number) else { return 0 };
        if !opening.is_followed_by(hash, sequence) {
            continue;
        }
        if opening.is_completed_by(acknowledgement, way.sees_replies) {
            free(place);
            Source::of(&keys, source, way.service).prove();
            if !way.sees_replies {
                count(opening.backend(), Field::Answered);
            }
        }
        return 1;
    }
    0
}

#[inline(always)]
fn opened(bucket: *mut OpeningBucket, name: u64, source: &Source, way: &Way) {
    // Only a backend that packets can reach as far as lb knows may fail.
    let reachable =
        maps::backend(way.backend).is_some_and(|row| row.flags & backend_flag::RESOLVED != 0);
    if !reachable {
        return;
    }
    let now = now();
    let is_proven = source.is_proven(now);
    let Some((place, opening)) = slot(bucket, is_proven as usize) else { return };
    let sent = Opening::sent_to(way.backend, now);
    match opening.meets(name, way.backend, now) {
        Syn::Again => {}
        Syn::Unanswered => {
            // SAFETY: the slot's word; everybody writes it whole.
            unsafe { (&raw mut (*place).sent).write_volatile(sent) };
            if is_proven {
                count(way.backend, Field::Unanswered);
                source.tell(failure_kind::UNANSWERED, way.backend, now);
            }
        }
        // SAFETY: as above. The name comes last: what is found under it is complete, but for two SYNs of one bucket that
        // come at the same moment, of which one is then forgotten.
        Syn::First => unsafe {
            (&raw mut (*place).name).write_volatile(0);
            (&raw mut (*place).answer).write_volatile(0);
            (&raw mut (*place).sent).write_volatile(sent);
            (&raw mut (*place).name).write_volatile(name);
        },
    }
}

/// Notes what a nat backend answers to a SYN, before it is rewritten: a SYN-ACK or a reset.
#[inline(never)]
pub fn reply<F: Family>(context: Context, reply: &ReplyRow, backend: u32) -> u32 {
    if config::is_dry_run() {
        return 0;
    }
    let Some(service) = maps::SERVICES.get(reply.row) else { return 0 };
    if service.flags & service_flag::OBSERVE == 0 {
        return 0;
    }
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return 0 };
    if outline.flow.protocol != protocol::TCP {
        return 0;
    }
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return 0 };
    let (flags, sequence) = (tcp.flags, be32(tcp.sequence).to_host());
    let acknowledgement = be32(tcp.acknowledgement).to_host();
    if flags & tcp_flag::ACK == 0 || flags & (tcp_flag::SYN | tcp_flag::RST) == 0 {
        return 0;
    }
    let flow = reply.client_flow(&outline.flow);
    let keys = config::hash_keys(F::Header::IS_V6);
    let hash = flow_hash(&keys, &flow);
    let Some(bucket) = OPENINGS.get_ptr_mut(opening_bucket(hash)) else { return 0 };
    for number in 0..2 {
        let Some((place, opening)) = slot(bucket, number) else { return 0 };
        let fits = opening.is_followed_by(hash, acknowledgement)
            && opening.backend().0 == backend
            && !opening.is_answered();
        if !fits {
            continue;
        }
        if flags & tcp_flag::RST == 0 {
            let answer = Opening::answered_with(sequence);
            // SAFETY: the slot's word; everybody writes it whole.
            unsafe { (&raw mut (*place).answer).write_volatile(answer) };
            count(BackendId(backend), Field::Answered);
            return 1;
        }
        free(place);
        if number == 1 {
            count(BackendId(backend), Field::Refused);
            let source = Source::of(&keys, &flow.source, service.id);
            source.tell(failure_kind::REFUSED, BackendId(backend), now());
        }
        return 1;
    }
    0
}

/// A slot of a bucket, and what it says now.
#[inline(always)]
fn slot(bucket: *mut OpeningBucket, number: usize) -> Option<(*mut Opening, Opening)> {
    if number > 1 {
        return None;
    }
    // SAFETY: the pointer is to a map's value, which has two slots; each word is read whole.
    unsafe {
        let place = (&raw mut (*bucket).openings).cast::<Opening>().add(number);
        let opening = Opening {
            name: (&raw const (*place).name).read_volatile(),
            sent: (&raw const (*place).sent).read_volatile(),
            answer: (&raw const (*place).answer).read_volatile(),
        };
        Some((place, opening))
    }
}

#[inline(always)]
fn free(place: *mut Opening) {
    // SAFETY: the slot's word; everybody writes it whole.
    unsafe { (&raw mut (*place).name).write_volatile(0) };
}

/// A client of a service.
struct Source {
    address: Address,
    network: u64,
    service: u32,
    entry: u32,
}

impl Source {
    #[inline(always)]
    fn of(keys: &HashKeys, address: &Address, service: u32) -> Self {
        let network = network(address);
        Self { address: *address, network, service, entry: source_entry(keys, network, service) }
    }

    #[inline(always)]
    fn is_proven(&self, now: Moment) -> bool {
        PROVEN_SOURCES
            .get(self.entry)
            .is_some_and(|entry| entry.proves(self.network, self.service, now))
    }

    #[inline(always)]
    fn prove(&self) {
        let Some(entry) = PROVEN_SOURCES.get_ptr_mut(self.entry) else { return };
        // SAFETY: the pointer is to a map's value; each field is written by one store. When two sources prove themselves in
        // one entry at the same moment, a mixture names neither of them, or one of them.
        unsafe {
            let other = (&raw const (*entry).network).read_volatile() != self.network
                || (&raw const (*entry).service).read_volatile() != self.service;
            if other {
                (&raw mut (*entry).proven).write_volatile(0);
                (&raw mut (*entry).network).write_volatile(self.network);
                (&raw mut (*entry).service).write_volatile(self.service);
                (&raw mut (*entry).told).write_volatile(0);
            }
            (&raw mut (*entry).proven).write_volatile(now());
        }
    }

    /// Tells the controller of a failure, unless this source or the backend have just had one told.
    #[inline(always)]
    fn tell(&self, kind: u32, backend: BackendId, now: Moment) {
        let Some(entry) = PROVEN_SOURCES.get_ptr_mut(self.entry) else { return };
        // SAFETY: as above.
        let state = unsafe { *entry };
        if !state.may_tell(now) || !limit::may_tell_failure(backend) {
            return;
        }
        // SAFETY: as above.
        unsafe { (&raw mut (*entry).told).write_volatile(now) };
        // A full ring means that the controller has enough to do.
        if let Some(mut record) = FAILURES.reserve::<ObservedFailure>(0) {
            let (source, time) = (self.address, clock());
            let answered = answered(backend);
            record.write(ObservedFailure { source, backend, kind, time, answered });
            record.submit(0);
        }
    }
}

/// A word of a backend's counters.
#[derive(Clone, Copy)]
enum Field {
    Answered,
    Unanswered,
    Refused,
}

#[inline(always)]
fn count(backend: BackendId, field: Field) {
    let Some(counters) = OBSERVED.get_ptr_mut(backend.0) else { return };
    // SAFETY: the pointer is to a map's value, and everybody else adds to these words by atomic operations, too.
    unsafe {
        let word = match field {
            Field::Answered => &raw mut (*counters).answered,
            Field::Unanswered => &raw mut (*counters).unanswered,
            Field::Refused => &raw mut (*counters).refused,
        };
        atomic::add(word, 1);
    }
}

#[inline(always)]
fn answered(backend: BackendId) -> u64 {
    // SAFETY: the pointer is to a map's value, one aligned word.
    OBSERVED
        .get_ptr(backend.0)
        .map_or(0, |counters| unsafe { (&raw const (*counters).answered).read_volatile() })
}

#[inline(always)]
fn now() -> Moment {
    moment(clock())
}

#[inline(always)]
fn clock() -> u64 {
    // SAFETY: a helper without arguments; the coarse clock has the resolution of a tick, and costs no more than a load.
    unsafe { generated::bpf_ktime_get_coarse_ns() }
}
