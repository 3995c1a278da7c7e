//! What packets tell of backends that are observed (`observe: layer4`): who has answered, and who has not.
//!
//! A SYN that is repeated after [`REPEATED_AFTER`] without having been answered, and one that is answered with a reset,
//! are failures of the backend. Only those of *proven* sources count: sources that have lately completed a handshake with
//! the same service. In nat that takes an acknowledgement of the number that the backend chose, which nobody can send who
//! does not see the backend's answers: a flood of made-up sources proves nothing and so says nothing. In dsr and tunnel
//! the answers are not seen, and a completed handshake is a client's packet that follows its SYN: somebody who makes up
//! SYNs can make up that, too, which is why the controller asks the backend itself before it believes it.
//!
//! Everything is kept in tables of fixed size that forget by being overwritten. SYNs of proven sources have places of
//! their own, so that a flood of others cannot push them out.

use crate::{
    abi::{Address, BackendId, Opening, ProvenSource},
    hash::HashKeys,
};

/// Entries of `OPENINGS`.
pub const OPENING_BUCKETS: u32 = 16_384;
/// Entries of `PROVEN_SOURCES`.
pub const SOURCES: u32 = 32_768;

/// A moment in units of 2^20 ns (1.05 ms) of CLOCK_MONOTONIC, wrapping after 52 days.
pub type Moment = u32;

/// A SYN that comes again after so long (half a second) is a repetition: RFC 6298 2 has clients wait one second, and
/// repetitions that are quicker than half of that were sent by no client.
pub const REPEATED_AFTER: u32 = 477;
/// A SYN that has waited for so long (a minute) is another connection's.
const FORGOTTEN_AFTER: u32 = 57_220;
/// So long after a handshake a source counts as proven: ten minutes.
pub const PROVEN_FOR: u32 = 572_205;
/// Between two failures of one source that the controller is told of: 21 ms.
const TOLD_EVERY: u32 = 20;
/// How far a client's first packet may lie behind its SYN: what TCP Fast Open may have sent with it.
const FIRST_WINDOW: u32 = 65_535;

/// Nanoseconds as a [`Moment`]; never 0, which means never.
#[inline(always)]
pub const fn moment(nanoseconds: u64) -> Moment {
    (nanoseconds >> 20) as u32 | 1
}

/// What tells one source from another: an IPv4 address, or the first 64 bits of an IPv6 one (a host changes the others
/// at will, RFC 8981).
#[inline(always)]
pub const fn network(source: &Address) -> u64 {
    if source.is_v4() { source.low() } else { source.high() }
}

/// The entry of `PROVEN_SOURCES` for a source of a service; keyed, so that nobody makes others collide.
#[inline(always)]
pub const fn source_entry(keys: &HashKeys, network: u64, service: u32) -> u32 {
    let sum = keys[0]
        .wrapping_add(keys[1].wrapping_mul(network & 0xffff_ffff))
        .wrapping_add(keys[2].wrapping_mul(network >> 32))
        .wrapping_add(keys[3].wrapping_mul(service as u64));
    (sum >> 32) as u32 & (SOURCES - 1)
}

/// The entry of `OPENINGS` for a flow, by its hash.
#[inline(always)]
pub const fn opening_bucket(flow_hash: u32) -> u32 {
    flow_hash & (OPENING_BUCKETS - 1)
}

impl ProvenSource {
    /// Whether this is the entry of a source, and it is proven.
    #[inline(always)]
    pub const fn proves(&self, network: u64, service: u32, now: Moment) -> bool {
        self.network == network
            && self.service == service
            && self.proven != 0
            && now.wrapping_sub(self.proven) < PROVEN_FOR
    }

    /// Whether the controller is to be told of another failure.
    #[inline(always)]
    pub const fn may_tell(&self, now: Moment) -> bool {
        now.wrapping_sub(self.told) >= TOLD_EVERY
    }
}

/// What a SYN is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syn {
    /// The first of its connection, or the first that went to this backend.
    First,
    /// A repetition that says nothing: too early, or the backend has answered already.
    Again,
    /// A repetition, since the backend has not answered.
    Unanswered,
}

impl Opening {
    /// The name of a SYN: the hash of its flow and its sequence number.
    #[inline(always)]
    pub const fn name_of(flow_hash: u32, isn: u32) -> u64 {
        (flow_hash as u64) << 32 | isn as u64
    }

    /// The word of where and when.
    #[inline(always)]
    pub const fn sent_to(backend: BackendId, now: Moment) -> u64 {
        (now as u64) << 32 | backend.0 as u64
    }

    /// The word of a backend's answer.
    #[inline(always)]
    pub const fn answered_with(server_isn: u32) -> u64 {
        1 << 32 | server_isn as u64
    }

    /// The backend that it went to.
    #[inline(always)]
    pub const fn backend(&self) -> BackendId {
        BackendId(self.sent as u32)
    }

    /// Whether the backend has answered (seen in nat only).
    #[inline(always)]
    pub const fn is_answered(&self) -> bool {
        self.answer >> 32 != 0
    }

    /// What a SYN is for which this slot is.
    #[inline(always)]
    pub const fn meets(&self, name: u64, backend: BackendId, now: Moment) -> Syn {
        let waited = now.wrapping_sub((self.sent >> 32) as u32);
        if self.name != name || self.backend().0 != backend.0 || waited >= FORGOTTEN_AFTER {
            return Syn::First;
        }
        if self.is_answered() || waited < REPEATED_AFTER { Syn::Again } else { Syn::Unanswered }
    }

    /// Whether a packet's number (a client's sequence, a backend's acknowledgement) follows this SYN of the flow.
    #[inline(always)]
    pub const fn is_followed_by(&self, flow_hash: u32, number: u32) -> bool {
        self.name != 0
            && (self.name >> 32) as u32 == flow_hash
            && number.wrapping_sub(self.name as u32).wrapping_sub(1) < FIRST_WINDOW
    }

    /// Whether a client's packet with this acknowledgement completes the handshake: in nat only the number that the
    /// backend has chosen does.
    #[inline(always)]
    pub const fn is_completed_by(&self, acknowledgement: u32, sees_replies: bool) -> bool {
        !sees_replies
            || (self.is_answered() && acknowledgement == (self.answer as u32).wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{hash::expand_seed, sample::address};

    const BACKEND: BackendId = BackendId(7);

    fn opening(at: Moment) -> Opening {
        Opening { name: Opening::name_of(3, 100), sent: Opening::sent_to(BACKEND, at), answer: 0 }
    }

    #[test]
    fn only_a_late_repetition_to_the_same_backend_is_unanswered() {
        let waiting = opening(1_000);
        let name = waiting.name;
        let cases = [
            (name, BACKEND, 1_000 + REPEATED_AFTER - 1, Syn::Again),
            (name, BACKEND, 1_000 + REPEATED_AFTER, Syn::Unanswered),
            (name, BACKEND, 1_000 + FORGOTTEN_AFTER - 1, Syn::Unanswered),
            (name, BACKEND, 1_000 + FORGOTTEN_AFTER, Syn::First),
            (name, BackendId(8), 1_000 + REPEATED_AFTER, Syn::First),
            (Opening::name_of(3, 101), BACKEND, 1_000 + REPEATED_AFTER, Syn::First),
            (Opening::name_of(4, 100), BACKEND, 1_000 + REPEATED_AFTER, Syn::First),
        ];
        for (name, backend, now, expected) in cases {
            assert_eq!(waiting.meets(name, backend, now), expected, "{name:x} {backend:?} {now}");
        }
        let answered = Opening { answer: Opening::answered_with(0), ..waiting };
        assert_eq!(answered.meets(name, BACKEND, 1_000 + REPEATED_AFTER), Syn::Again);
        // The clock wraps.
        let late = opening(u32::MAX - 3);
        assert_eq!(late.meets(name, BACKEND, REPEATED_AFTER), Syn::Unanswered);
    }

    #[test]
    fn what_follows_a_syn_completes_it_in_nat_only_with_the_servers_number() {
        let waiting = opening(5);
        assert!(waiting.is_followed_by(3, 101) && waiting.is_followed_by(3, 100 + FIRST_WINDOW));
        assert!(!waiting.is_followed_by(3, 100) && !waiting.is_followed_by(3, 101 + FIRST_WINDOW));
        assert!(!waiting.is_followed_by(4, 101));
        assert!(!Opening::default().is_followed_by(0, 1), "a free slot");
        assert!(waiting.is_completed_by(9, false), "dsr does not see the server's");
        assert!(!waiting.is_completed_by(1, true), "the server has not answered");
        let answered = Opening { answer: Opening::answered_with(u32::MAX), ..waiting };
        assert!(answered.is_completed_by(0, true) && !answered.is_completed_by(1, true));
    }

    #[test]
    fn a_source_is_proven_for_its_service_and_a_while() {
        let source = ProvenSource { network: 9, service: 2, proven: 77, ..ProvenSource::default() };
        assert!(source.proves(9, 2, 77) && source.proves(9, 2, 76 + PROVEN_FOR));
        assert!(!source.proves(9, 2, 77 + PROVEN_FOR));
        assert!(!source.proves(9, 3, 77) && !source.proves(8, 2, 77));
        assert!(!ProvenSource::default().proves(0, 0, 5), "never proven");
        assert_ne!(moment(0), 0);
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_source_and_sources_are_spread() {
        assert_eq!(network(&address("2001:db8::1")), network(&address("2001:db8::2:1")));
        assert_ne!(network(&address("2001:db8::1")), network(&address("2001:db8:0:1::1")));
        assert_ne!(network(&address("192.0.2.1")), network(&address("192.0.2.2")));
        let keys = expand_seed(&[5; 32]);
        let v4 = |number: u32| network(&std::net::IpAddr::from(number.to_be_bytes()).into());
        let entries: HashSet<u32> =
            (0..SOURCES).map(|number| source_entry(&keys, v4(0x0a00_0000 + number), 1)).collect();
        assert!(entries.len() > SOURCES as usize / 2, "{}", entries.len());
        assert_ne!(source_entry(&keys, v4(1), 1), source_entry(&keys, v4(1), 2));
    }
}
