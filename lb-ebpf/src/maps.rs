//! Every map of the balancer. The controller gives the sizes when it loads the object; those here are only enough for
//! tests.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, DevMapHash, HashMap, LpmTrie, PerCpuArray, RingBuf},
};
use lb_common::abi::{
    AllowKey, BackendCounters, BackendRow, Clock, FlowKey, NeighbourKey, NeighbourRow, NextHopRow,
    Pin, REASONS, ReplyRow, RouteKey, ServiceBucket, ServiceRow,
};

/// VIP entries, VIP addresses and nat reply entries.
#[map]
pub static SERVICE_TABLE: Array<ServiceBucket> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// Services by row.
#[map]
pub static SERVICES: Array<ServiceRow> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// The slots of all rings.
#[map]
pub static ARENA: Array<u64> = Array::with_max_entries(65_536, BPF_F_MMAPABLE);
/// Backends by id.
#[map]
pub static BACKENDS: Array<BackendRow> = Array::with_max_entries(1_024, BPF_F_MMAPABLE);
/// What a nat reply is rewritten to, by backend id.
#[map]
pub static REPLIES: Array<ReplyRow> = Array::with_max_entries(1_024, BPF_F_MMAPABLE);
/// Confirmed pins.
#[map]
pub static PINS: HashMap<FlowKey, Pin> = HashMap::with_max_entries(65_536, 0);
/// Unconfirmed pins.
#[map]
pub static PINS_NEW: HashMap<FlowKey, Pin> = HashMap::with_max_entries(65_536, 0);
/// Counters by backend id.
#[map]
pub static COUNTERS: PerCpuArray<BackendCounters> = PerCpuArray::with_max_entries(1_024, 0);
/// Counted reasons, by service id * `REASONS` + reason.
#[map]
pub static REASON_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(64 * REASONS, 0);
/// The host's routes.
#[map]
pub static ROUTES: LpmTrie<RouteKey, u32> = LpmTrie::with_max_entries(1_024, 0);
/// Next hops of `ROUTES`.
#[map]
pub static NEXTHOPS: Array<NextHopRow> = Array::with_max_entries(256, BPF_F_MMAPABLE);
/// Resolved on-link neighbours.
#[map]
pub static NEIGHBOURS: HashMap<NeighbourKey, NeighbourRow> = HashMap::with_max_entries(4_096, 0);
/// `allow` prefixes of all services.
#[map]
pub static ALLOW: LpmTrie<AllowKey, u32> = LpmTrie::with_max_entries(1_024, 0);
/// Number of an attached NIC by its ifindex.
#[map]
pub static INTERFACES: HashMap<u32, u32> = HashMap::with_max_entries(32, 0);
/// NICs to send by.
#[map]
pub static DEVICES: DevMapHash = DevMapHash::with_max_entries(32, 0);
/// Neighbours that packets needed and nobody had resolved.
#[map]
pub static WANTED: RingBuf = RingBuf::with_byte_size(65_536, 0);
/// Relates jiffies to nanoseconds.
#[map]
pub static CLOCK: Array<Clock> = Array::with_max_entries(1, 0);
