//! What is remembered of a packet in fragments.

use super::{Address, BackendId};
use crate::fragment::covered::Covered;

/// Key of `FRAGMENTS`: what the fragments of one packet have in common.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification (raw memory word): 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// IP protocol of the whole packet; a whole word, so that the key has no padding.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// Where the first fragment of a packet went.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentRow {
    /// The backend that it went to or, in a reply, came from.
    pub backend: BackendId,
    /// The service's id.
    pub service: u32,
    /// [`super::Forward`] as a number.
    pub forward: u16,
    /// Full nat: [`crate::fullnat::State::generation`] of the flow's slot.
    pub generation: u16,
    /// Full nat: the index of that slot.
    pub slot: u32,
    /// When it came, nanoseconds of CLOCK_MONOTONIC.
    pub seen: u64,
}

const _: () = assert!(size_of::<FragmentRow>() == 24);

/// Value of `FRAGMENTS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentEntry {
    /// Where the first fragment went.
    pub row: FragmentRow,
    /// What is there of the packet.
    pub covered: Covered,
}

const _: () = assert!(size_of::<FragmentEntry>() == 48);
