//! Every type that stands in a BPF map: `repr(C)`, free of padding, sizes asserted at compile time.
//!
//! Map names, as the program declares them and the controller opens them, are in [`map`]. Changing anything here (or
//! the meaning of a field) needs a new [`ABI_VERSION`]: pins live in a directory named by it, so that a controller
//! never reads entries of another layout.

mod address;
mod admission;
mod backend;
mod connection;
mod counters;
mod dropped;
mod few_routes;
mod flow;
mod fragment;
mod fullnat;
mod handshake;
mod nexthop;
mod observe;
mod pin;
mod ports;
mod presence;
mod quic;
mod reason;
mod service;
mod slot;
mod trace;
mod track;

pub use address::Address;
pub use admission::{
    CookieKeys, OpeningRules, OpeningState, SourceRate, SourceRates, VerifiedSources,
};
pub use backend::{BackendId, BackendRow, ReplyRow, backend_flag};
pub use connection::Connection;
pub use counters::BackendCounters;
pub use dropped::{DroppedSample, SAMPLE_BYTES};
pub use few_routes::{FEW, FewRoute, FewRoutes, FewTables};
pub use flow::{FlowKey, protocol};
pub use fragment::{FragmentEntry, FragmentKey, FragmentRow};
pub use fullnat::{POOL_ADDRESSES, PORTS_PER_ADDRESS, PortSlot, SourcePool};
pub use handshake::{HANDSHAKE_BUCKETS, HandshakeTimes};
pub use nexthop::{
    Clock, NEIGHBOUR_WANTED_ANY_INTERFACE, NeighbourKey, NeighbourRow, NeighbourWanted, NextHopRow,
    PrefixKey, RouteKey, nexthop_flag,
};
pub use observe::{
    ObservedCounters, ObservedFailure, Opening, OpeningBucket, ProvenSource, failure_kind,
};
pub use pin::{Pin, pin_flag};
pub use ports::{ListenRow, PORT_LIST_ENTRIES, PORT_LISTS, PortEntry, PortList, VIP_PREFIXES};
pub use presence::{PRESENCE_BITS, Presence};
pub use quic::QuicId;
pub use reason::{REASONS, Reason};
pub use service::{
    Forward, OnAllDown, Prefixes, SERVICE_BUCKET_ENTRIES, ServiceBucket, ServiceEntry, ServiceRow,
    address_value, key_kind, service_flag,
};
pub use slot::{MAX_PHASE_SECONDS, Phase, Slot, elapsed_seconds};
pub use trace::{
    CaptureHead, CaptureRecord, CaptureRule, CaptureState, MAX_SNAPLEN, Trace, mode, rule_flag,
    trace_flag,
};
pub use track::{
    BackendLoad, Policy, RememberedSource, ServiceLoad, SourceKey, algorithm, policy_flag,
};

/// Version of every layout in this module; part of the pin directory's name (`/sys/fs/bpf/lb/v7`).
pub const ABI_VERSION: u32 = 8;

/// Names of the maps, at most 15 characters (the kernel's limit). All but those that say so are pinned by the controller.
pub mod map {
    /// `Array<ServiceBucket>`, MMAPABLE: VIP entries, VIP addresses and nat reply entries.
    pub const SERVICE_TABLE: &str = "SERVICE_TABLE";
    /// `Array<ServiceRow>`, MMAPABLE, indexed by service row (not by service id). Row 0 is never used.
    pub const SERVICES: &str = "SERVICES";
    /// `Array<u64>`, MMAPABLE: the arena of [`super::Slot`]s in which every ring is a range.
    pub const ARENA: &str = "ARENA";
    /// `Array<BackendRow>`, MMAPABLE, indexed by backend id. Id 0 is "none".
    pub const BACKENDS: &str = "BACKENDS";
    /// `Array<ReplyRow>`, MMAPABLE, indexed by backend id (nat only).
    pub const REPLIES: &str = "REPLIES";
    /// `HashMap<FlowKey, Pin>`: confirmed pins.
    pub const PINS: &str = "PINS";
    /// `HashMap<FlowKey, Pin>`: unconfirmed pins (only a SYN was seen).
    pub const PINS_NEW: &str = "PINS_NEW";
    /// `HashMap<FlowKey, Pin>`: confirmed flows of services that track all, see [`crate::track`].
    pub const FLOWS: &str = "FLOWS";
    /// `HashMap<FlowKey, Pin>`: their unconfirmed flows.
    pub const FLOWS_NEW: &str = "FLOWS_NEW";
    /// `HashMap<SourceKey, RememberedSource>`: clients that services with `persistence` remember.
    pub const SOURCES: &str = "SOURCES";
    /// `Array<Policy>`, MMAPABLE, indexed by service id: how a service that tracks its flows chooses.
    pub const POLICIES: &str = "POLICIES";
    /// `Array<ServiceLoad>`, MMAPABLE, indexed by service id.
    pub const SERVICE_LOADS: &str = "SERVICE_LOADS";
    /// `Array<BackendLoad>`, MMAPABLE, indexed by backend id.
    pub const LOADS: &str = "LOADS";
    /// `Array<u64>`: SYNs that wait for their answer, see [`crate::handshake`].
    pub const HANDSHAKES: &str = "HANDSHAKES";
    /// `Array<HandshakeTimes>`, indexed by backend id (nat only).
    pub const HANDSHAKE_TIMES: &str = "HANDSHAKE_TIMES";
    /// `Array<OpeningBucket>`: SYNs of observed services that wait for their answer, see [`crate::observe`].
    pub const OPENINGS: &str = "OPENINGS";
    /// `Array<ProvenSource>`: who has lately completed a handshake.
    pub const PROVEN_SOURCES: &str = "PROVEN_SOURCES";
    /// `Array<ObservedCounters>`, MMAPABLE, indexed by backend id.
    pub const OBSERVED: &str = "OBSERVED";
    /// `RingBuf` of [`super::ObservedFailure`]s.
    pub const FAILURES: &str = "FAILURES";
    /// `Array<OpeningRules>`, MMAPABLE, indexed by service id: limits of rate, thresholds of the SYN-flood stage, the MSS clamp.
    pub const OPENING_RULES: &str = "OPENING_RULES";
    /// `Array<OpeningState>`, MMAPABLE, indexed by service id.
    pub const OPENING_STATES: &str = "OPENING_STATES";
    /// `Array<SourceRates>`: limits of rate by source, see [`crate::source_rate`]. Not pinned.
    pub const SOURCE_RATES: &str = "SOURCE_RATES";
    /// `Array<VerifiedSources>`: who has answered a challenge of the SYN-flood stage, see [`crate::syn_flood`].
    pub const VERIFIED: &str = "VERIFIED";
    /// `Array<CookieKeys>`, MMAPABLE, one entry.
    pub const COOKIE_KEYS: &str = "COOKIE_KEYS";
    /// `HashMap<QuicId, u32>`: the backend id of each server id, see [`crate::quic`].
    pub const QUIC_IDS: &str = "QUIC_IDS";
    /// `Array<Formats>`, indexed by service id: [`crate::quic::Formats`].
    pub const QUIC_FORMATS: &str = "QUIC_FORMATS";
    /// `HashMap<FlowKey, Connection>`: connections of services that count them.
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// `PerCpuArray<BackendCounters>`, indexed by backend id; id 0 counts what belongs to no backend.
    pub const COUNTERS: &str = "COUNTERS";
    /// `PerCpuArray<u64>`, indexed by `service id * REASONS + reason`; service id 0 is "no service".
    pub const REASON_COUNTS: &str = "REASON_COUNTS";
    /// `Array<PortList>`, MMAPABLE: port ranges by list; 0 is never used.
    pub const PORT_LISTS: &str = "PORT_LISTS";
    /// `LpmTrie<PrefixKey, u32>`: VIPs that are prefixes. Under a protocol's number the value is a list, under 0 one of
    /// [`super::address_value`].
    pub const VIP_PREFIXES: &str = "VIP_PREFIXES";
    /// `Array<ListenRow>`, MMAPABLE, indexed by service id.
    pub const LISTENS: &str = "LISTENS";
    /// `Array<u64>`, MMAPABLE: the bits of [`super::Presence`].
    pub const PRESENCE: &str = "PRESENCE";
    /// `Array<FewTables>`, MMAPABLE, one entry a family: the host's routes once more, if they are few.
    pub const FEW_ROUTES: &str = "FEW_ROUTES";
    /// `LpmTrie<RouteKey, u32>`: the host's routes, for nat replies; the value is an index into `NEXTHOPS`.
    pub const ROUTES: &str = "ROUTES";
    /// `Array<NextHopRow>`, MMAPABLE.
    pub const NEXTHOPS: &str = "NEXTHOPS";
    /// `HashMap<NeighbourKey, NeighbourRow>`: resolved on-link neighbours, for nat replies.
    pub const NEIGHBOURS: &str = "NEIGHBOURS";
    /// `LpmTrie<PrefixKey, u32>`: the `allow` prefixes of all services.
    pub const ALLOW: &str = "ALLOW";
    /// `LpmTrie<PrefixKey, u32>`: the `deny` prefixes of all services.
    pub const DENY: &str = "DENY";
    /// `HashMap<u32, u32>`: ifindex of an attached NIC to its number (0..31), the bit in `ServiceRow::interfaces`.
    pub const INTERFACES: &str = "INTERFACES";
    /// `DevMapHash`, keyed by ifindex, for egress on another NIC.
    pub const DEVICES: &str = "DEVICES";
    /// `RingBuf` of [`super::NeighbourWanted`]: neighbours that packets needed and nobody had resolved.
    pub const WANTED: &str = "WANTED";
    /// `RingBuf` of [`super::DroppedSample`]: some of the packets that were dropped.
    pub const SAMPLES: &str = "SAMPLES";
    /// `Array<Clock>`, one entry, written by the `clock` program: relates jiffies to nanoseconds.
    pub const CLOCK: &str = "CLOCK";
    /// `LruHashMap<FragmentKey, FragmentEntry>`: where the first fragments of packets went. A dry run has its own.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `Array<SourcePool>`, MMAPABLE, one entry: what full nat sends from.
    pub const SOURCE_POOL: &str = "SOURCE_POOL";
    /// `Array<PortSlot>`, MMAPABLE, indexed by [`super::PortSlot::index`]: the flows of full nat by their ports.
    pub const PORT_SLOTS: &str = "PORT_SLOTS";
    /// `HashMap<FlowKey, u32>`: the index of each flow's slot. An entry whose slot has another flow says nothing.
    pub const PORT_FLOWS: &str = "PORT_FLOWS";
    /// `ProgramArray`, indexed by [`super::mode`]: the program `fullnat` of each copy of the balancer that is in use; and by
    /// [`super::next_program`].
    pub const PROGRAMS: &str = "PROGRAMS";
    /// `Array<u64>`: by which MAC address clients' packets last came, see [`crate::way_back`].
    pub const WAYS_BACK: &str = "WAYS_BACK";
    /// `Array<Trace>`, MMAPABLE: one entry in a dry run; in a capture one for each CPU. Not pinned.
    pub const TRACE: &str = "TRACE";
    /// `Array<CaptureRule>`, MMAPABLE, one entry. Not pinned.
    pub const CAPTURE_RULE: &str = "CAPTURE_RULE";
    /// `PerCpuArray<CaptureState>`, one entry. Not pinned.
    pub const CAPTURE_STATE: &str = "CAPTURE_STATE";
    /// `PerCpuArray<CaptureRecord>`, one entry. Not pinned.
    pub const CAPTURE_BUFFER: &str = "CAPTURE_BUFFER";
    /// `RingBuf` of [`super::CaptureRecord`]s, as long as they are. Not pinned.
    pub const CAPTURES: &str = "CAPTURES";
}

/// Names of the programs in the balancer's object.
pub mod program {
    /// What is attached to NICs: the common ways of a packet. It goes on to the balancer through [`super::map::PROGRAMS`].
    pub const FAST_PATH: &str = "fast_path";
    /// The balancer.
    pub const BALANCER: &str = "balancer";
    /// Full nat, which the balancer goes on to through [`super::map::PROGRAMS`].
    pub const FULLNAT: &str = "fullnat";
    /// Writes [`super::Clock`]; run by BPF_PROG_TEST_RUN, never attached.
    pub const CLOCK: &str = "clock";
    /// The backend's decapsulator (in the object `decap`).
    pub const DECAP: &str = "decap";
}

/// Indexes of [`map::PROGRAMS`] beside those of [`mode`].
pub mod next_program {
    /// The balancer, which the fast path goes on to.
    pub const BALANCER: u32 = 3;

    const _: () = assert!(BALANCER > super::mode::CAPTURE);
}

/// Names of the load-time globals (`.rodata`, frozen at load: unused features are removed by the verifier).
pub mod global {
    /// `[u64; 11]`: keys of the flow hash, see [`crate::hash`].
    pub const HASH_KEYS: &str = "HASH_KEYS";
    /// `u32`: number of buckets of `SERVICE_TABLE` minus one (the number is a power of two).
    pub const SERVICE_MASK: &str = "SERVICE_MASK";
    /// `u32`: 1 if exactly one NIC is attached: every packet leaves where it came in.
    pub const SINGLE_NIC: &str = "SINGLE_NIC";
    /// `u32`: 1 if any service uses nat (replies are looked for).
    pub const HAVE_NAT: &str = "HAVE_NAT";
    /// `u32`: 1 if IPv6 is to be parsed at all.
    pub const HAVE_V6: &str = "HAVE_V6";
    /// `u32`: 1 if any service observes its backends.
    pub const OBSERVE: &str = "OBSERVE";
    /// `u32`: 1 if any service limits openings or has a SYN-flood stage.
    pub const LIMIT_OPENINGS: &str = "LIMIT_OPENINGS";
    /// `u32`: 1 if any service tracks its flows.
    pub const TRACK: &str = "TRACK";
    /// `u32`: 1 if tagged frames are balanced ([`crate::vlan`]).
    pub const VLAN: &str = "VLAN";
    /// `u32`: flags of services whose packets have ways of their own ([`super::service_flag::QUIC`],
    /// [`super::service_flag::FULLNAT`], [`super::service_flag::TOA`]), if any service has them.
    pub const BESIDE: &str = "BESIDE";
    /// `u32`: 1 if any service has more than one port, 2 if any has a prefix of VIPs.
    pub const PORTS: &str = "PORTS";
    /// `u32`: by what outer headers of tunnels tell flows apart, if any do: bits of [`super::entropy`].
    pub const ENTROPY: &str = "ENTROPY";
    /// `u32`: one of [`super::mode`].
    pub const MODE: &str = "MODE";
}

/// Bits of [`global::ENTROPY`].
pub mod entropy {
    /// Some service uses gue.
    pub const SOURCE_PORT: u32 = 1;
    /// Some service's ipip sends from a prefix ([`super::BackendRow::source_bits`]).
    pub const SOURCE_ADDRESS: u32 = 2;
}

#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($name:ty),*) => { $(
            // SAFETY: repr(C) or repr(transparent) over integers, size asserted to be the sum of the fields (no
            // padding), and every bit pattern is a valid value.
            unsafe impl aya::Pod for $name {}
        )* };
    }

    pod!(
        Address,
        PrefixKey,
        BackendCounters,
        BackendLoad,
        BackendRow,
        CaptureRule,
        CaptureState,
        Clock,
        Connection,
        CookieKeys,
        FewTables,
        crate::quic::Formats,
        FlowKey,
        HandshakeTimes,
        ListenRow,
        NeighbourKey,
        NeighbourRow,
        NeighbourWanted,
        NextHopRow,
        ObservedCounters,
        OpeningBucket,
        OpeningRules,
        OpeningState,
        Pin,
        Policy,
        PortList,
        PortSlot,
        ProvenSource,
        QuicId,
        RememberedSource,
        ReplyRow,
        RouteKey,
        ServiceBucket,
        ServiceEntry,
        ServiceLoad,
        ServiceRow,
        Slot,
        SourcePool,
        SourceRates,
        Trace,
        VerifiedSources,
        SourceKey
    );
}
