//! Services that choose a backend for each flow and remember it: their policies, schedules, loads and sources.

use super::{Address, BackendId, Prefixes};

/// Values of [`Policy::algorithm`].
pub mod algorithm {
    /// The ring's owner; with a [`super::Policy::factor`], the next one on the ring that has room.
    pub const RING: u32 = 0;
    /// The schedule in turn (rr, wrr).
    pub const TURN: u32 = 1;
    /// The one with the fewest connections for its weight (leastconn, wlc).
    pub const LEAST: u32 = 2;
    /// The less loaded of two drawn from the schedule (random2).
    pub const TWO: u32 = 3;
}

/// Bits of [`Policy::flags`].
pub mod policy_flag {
    /// nat: answers pass through lb.
    pub const SEES_REPLIES: u32 = 1;
    /// Clients are remembered.
    pub const PERSIST: u32 = 2;
}

/// One entry of `POLICIES`, by service id. Each pair of fields is one word, changed by one aligned 8-byte store; every mixture of
/// old and new words is a valid policy.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// First entry of the schedule in the arena: [`super::Slot`]s whose owner is whose turn it is.
    pub schedule: u32,
    /// Its length; 0 = there is nobody to choose.
    pub schedule_length: u32,
    /// First entry of the list of members in the arena: each backend with a weight once.
    pub members: u32,
    /// Its length, at most [`crate::balance::MEMBERS`] for an algorithm that reads all of it.
    pub members_length: u32,
    /// One of [`algorithm`].
    pub algorithm: u32,
    /// `hash_balance_factor`, percent of the mean load; 0 = none. Only with [`algorithm::RING`].
    pub factor: u32,
    /// Sum of the members' weights.
    pub total_weight: u32,
    /// Bits of [`policy_flag`].
    pub flags: u32,
    /// Confirmed flows that the service may have; `u32::MAX` = as many as the table has room for.
    pub flows: u32,
    /// Unconfirmed flows that the service may have.
    pub flows_unconfirmed: u32,
    /// Idle time after which a remembered source is none any more, jiffies; 0 = sources are not remembered.
    pub source_idle: u64,
    /// How much of a client's address is remembered.
    pub prefix: Prefixes,
    /// Zero.
    pub _pad: [u8; 6],
}

const _: () = assert!(size_of::<Policy>() == 56);

/// One entry of `SERVICE_LOADS`, by service id. The program adds to each word by atomic operations, and so does the controller.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceLoad {
    /// Choices so far: whose turn it is.
    pub turn: u64,
    /// Open connections of all its backends.
    pub connections: u64,
    /// Its entries in `FLOWS_NEW`.
    pub unconfirmed: u64,
    /// Its entries in `FLOWS`.
    pub confirmed: u64,
}

const _: () = assert!(size_of::<ServiceLoad>() == 32);

/// One entry of `LOADS`, by backend id.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendLoad {
    /// Open connections: tracked flows that no side has closed. Added to by atomic operations on both sides.
    pub connections: u64,
    /// The weight in force (percent of slow start included); the controller's.
    pub weight: u64,
}

const _: () = assert!(size_of::<BackendLoad>() == 16);

/// Key of `SOURCES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// The client's address, its host part zero as the service's prefix length says.
    pub source: Address,
    /// The service's id.
    pub service: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<SourceKey>() == 24);

/// Value of `SOURCES`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RememberedSource {
    /// Where its flows go.
    pub backend: BackendId,
    /// Zero.
    pub _pad: u32,
    /// Time of its last packet, jiffies; written at most once every 256 jiffies.
    pub last_seen: u64,
}

const _: () = assert!(size_of::<RememberedSource>() == 16);
