//! What the packet path notes of services that observe their backends, see [`crate::observe`].

use super::{Address, BackendId};

/// An opening packet (SYN) that waits for its answer, one slot of an [`OpeningBucket`]. Each word is written by one store.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Hash of the flow in the upper half, the client's initial sequence number in the lower. 0 = free.
    pub name: u64,
    /// Where it went (a backend's id) in the lower half, when in the upper ([`crate::observe::Moment`]).
    pub sent: u64,
    /// Lower half: the server's initial sequence number. Upper half: 1 = it is known, the backend has answered.
    pub answer: u64,
}

const _: () = assert!(size_of::<Opening>() == 24);

/// An entry of `OPENINGS`, one cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpeningBucket {
    /// From sources of which nothing is known; then from proven ones, which no flood of made-up sources pushes out.
    pub openings: [Opening; 2],
    /// Zero.
    pub _reserved: [u64; 2],
}

const _: () = assert!(size_of::<OpeningBucket>() == 64);

/// An entry of `PROVEN_SOURCES`: a source that has lately completed a handshake with a service.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProvenSource {
    /// [`crate::observe::network`] of the source.
    pub network: u64,
    /// The service's id.
    pub service: u32,
    /// When it last did; 0 = never.
    pub proven: u32,
    /// When the controller was last told of a failure that it met.
    pub told: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<ProvenSource>() == 24);

/// Value of `OBSERVED`, indexed by backend id. Host order, never reset; added to by atomic operations.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservedCounters {
    /// SYNs that the backend answered with a SYN-ACK (nat), or whose handshake was completed (dsr, tunnel).
    pub answered: u64,
    /// SYNs of proven sources that were repeated because no answer came; each repetition counts.
    pub unanswered: u64,
    /// SYNs of proven sources that the backend answered with a reset (nat).
    pub refused: u64,
    /// Zero.
    pub _reserved: u64,
}

const _: () = assert!(size_of::<ObservedCounters>() == 32);

/// Values of [`ObservedFailure::kind`].
pub mod failure_kind {
    /// No answer came to a SYN, which was repeated.
    pub const UNANSWERED: u32 = 1;
    /// A reset came.
    pub const REFUSED: u32 = 2;
}

/// A record of `FAILURES`: a proven source did not get through to a backend.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservedFailure {
    /// The client.
    pub source: Address,
    /// The backend.
    pub backend: BackendId,
    /// One of [`failure_kind`].
    pub kind: u32,
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// [`ObservedCounters::answered`] of the backend at that time: what came between two failures.
    pub answered: u64,
}

const _: () = assert!(size_of::<ObservedFailure>() == 40);
