//! Every map of the balancer. The controller gives the sizes when it loads the object; those here are only enough for
//! tests.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use lb_common::abi::{
    Address, BackendCounters, BackendId, BackendLoad, BackendRow, CaptureRecord, CaptureRule,
    CaptureState, Clock, Connection, CookieKeys, FewTables, FlowKey, FragmentEntry, FragmentKey,
    HandshakeTimes, ListenRow, NeighbourKey, NeighbourRow, NextHopRow, ObservedCounters,
    OpeningBucket, OpeningRules, OpeningState, PORT_LIST_ENTRIES, PRESENCE_BITS, Pin, Policy,
    PortEntry, PortList, PortSlot, PrefixKey, Presence, ProvenSource, QuicId, REASONS,
    RememberedSource, ReplyRow, RouteKey, SERVICE_BUCKET_ENTRIES, ServiceBucket, ServiceLoad,
    ServiceRow, Slot, SourceKey, SourcePool, SourceRates, Trace, VerifiedSources,
};

use lb_common::quic::Formats;

use crate::{fragment::memory::InHand, lpm::longest_match, scratch::Scratch};

/// VIP entries, VIP addresses and nat reply entries.
#[map]
pub static SERVICE_TABLE: Array<ServiceBucket> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// Addresses that `SERVICE_TABLE` may know.
#[map]
pub static PRESENCE: Array<u64> = Array::with_max_entries(PRESENCE_BITS / 64, BPF_F_MMAPABLE);
/// Port ranges by list.
#[map]
pub static PORT_LISTS: Array<PortList> =
    Array::with_max_entries(lb_common::abi::PORT_LISTS, BPF_F_MMAPABLE);
/// VIPs that are prefixes.
#[map]
pub static VIP_PREFIXES: LpmTrie<PrefixKey, u32> =
    LpmTrie::with_max_entries(lb_common::abi::VIP_PREFIXES, 0);
/// What services listen on, by service id; for the controller alone.
#[map]
pub static LISTENS: Array<ListenRow> = Array::with_max_entries(64, BPF_F_MMAPABLE);
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
/// Confirmed flows of services that track all.
#[map]
pub static FLOWS: HashMap<FlowKey, Pin> = HashMap::with_max_entries(1, 0);
/// Their unconfirmed flows.
#[map]
pub static FLOWS_NEW: HashMap<FlowKey, Pin> = HashMap::with_max_entries(1, 0);
/// Clients that services remember.
#[map]
pub static SOURCES: HashMap<SourceKey, RememberedSource> = HashMap::with_max_entries(1, 0);
/// Room beside the stack.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
/// How services choose, by service id.
#[map]
pub static POLICIES: Array<Policy> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// Loads of services by id.
#[map]
pub static SERVICE_LOADS: Array<ServiceLoad> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// Loads of backends by id.
#[map]
pub static LOADS: Array<BackendLoad> = Array::with_max_entries(1_024, BPF_F_MMAPABLE);
/// Counters by backend id.
#[map]
pub static COUNTERS: PerCpuArray<BackendCounters> = PerCpuArray::with_max_entries(1_024, 0);
/// Counted reasons, by service id * `REASONS` + reason.
#[map]
pub static REASON_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(64 * REASONS, 0);
/// The host's routes.
#[map]
pub static ROUTES: LpmTrie<RouteKey, u32> = LpmTrie::with_max_entries(1_024, 0);
/// The same where they are few, by family.
#[map]
pub static FEW_ROUTES: Array<FewTables> = Array::with_max_entries(2, BPF_F_MMAPABLE);
/// Next hops of `ROUTES`.
#[map]
pub static NEXTHOPS: Array<NextHopRow> = Array::with_max_entries(256, BPF_F_MMAPABLE);
/// Resolved on-link neighbours.
#[map]
pub static NEIGHBOURS: HashMap<NeighbourKey, NeighbourRow> = HashMap::with_max_entries(4_096, 0);
/// `allow` prefixes of all services.
#[map]
pub static ALLOW: LpmTrie<PrefixKey, u32> = LpmTrie::with_max_entries(1_024, 0);
/// `deny` prefixes of all services.
#[map]
pub static DENY: LpmTrie<PrefixKey, u32> = LpmTrie::with_max_entries(1_024, 0);
/// Number of an attached NIC by its ifindex.
#[map]
pub static INTERFACES: HashMap<u32, u32> = HashMap::with_max_entries(32, 0);
/// NICs to send by.
#[map]
pub static DEVICES: DevMapHash = DevMapHash::with_max_entries(32, 0);
/// Neighbours that packets needed and nobody had resolved.
#[map]
pub static WANTED: RingBuf = RingBuf::with_byte_size(65_536, 0);
/// Some of the packets that were dropped.
#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(65_536, 0);
/// SYNs that wait for their answer.
#[map]
pub static HANDSHAKES: Array<u64> = Array::with_max_entries(lb_common::handshake::ENTRIES, 0);
/// Times of handshakes by backend id.
#[map]
pub static HANDSHAKE_TIMES: Array<HandshakeTimes> = Array::with_max_entries(1_024, 0);
/// Backends by the server ids in connection ids.
#[map]
pub static QUIC_IDS: HashMap<QuicId, u32> =
    HashMap::with_max_entries(lb_common::quic::SERVERS, BPF_F_NO_PREALLOC);
/// Formats of connection ids, by service id.
#[map]
pub static QUIC_FORMATS: Array<Formats> = Array::with_max_entries(64, 0);
/// Connections of services that count them. Memory is taken with each.
#[map]
pub static CONNECTIONS: HashMap<FlowKey, Connection> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// What handshakes may do, by service id: limits of rate, thresholds of the SYN-flood stage, the MSS clamp.
#[map]
pub static OPENING_RULES: Array<OpeningRules> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// What has come of late, by service id.
#[map]
pub static OPENING_STATES: Array<OpeningState> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// Limits of rate by source. The controller gives the one entry that no service needs where none has such a limit.
#[map]
pub static SOURCE_RATES: Array<SourceRates> =
    Array::with_max_entries(lb_common::source_rate::BUCKETS, 0);
/// Who has answered a challenge of the SYN-flood stage.
#[map]
pub static VERIFIED: Array<VerifiedSources> =
    Array::with_max_entries(lb_common::syn_flood::VERIFIED_BUCKETS, 0);
/// Keys of cookies.
#[map]
pub static COOKIE_KEYS: Array<CookieKeys> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// SYNs of observed services that wait for their answer.
#[map]
pub static OPENINGS: Array<OpeningBucket> =
    Array::with_max_entries(lb_common::observe::OPENING_BUCKETS, 0);
/// Who has lately completed a handshake with an observed service.
#[map]
pub static PROVEN_SOURCES: Array<ProvenSource> =
    Array::with_max_entries(lb_common::observe::SOURCES, 0);
/// What was observed of backends, by id.
#[map]
pub static OBSERVED: Array<ObservedCounters> = Array::with_max_entries(1_024, BPF_F_MMAPABLE);
/// Failures that proven sources have met.
#[map]
pub static FAILURES: RingBuf = RingBuf::with_byte_size(65_536, 0);
/// Relates jiffies to nanoseconds.
#[map]
pub static CLOCK: Array<Clock> = Array::with_max_entries(1, 0);

/// By which MAC address clients' packets last came, see [`lb_common::way_back`].
#[map]
pub static WAYS_BACK: Array<u64> = Array::with_max_entries(lb_common::way_back::ENTRIES, 0);
/// Where the first fragments of packets went. Full, it forgets the packets that have waited longest.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> =
    LruHashMap::with_max_entries(16_384, 0);
/// The one in hand, beside the stack.
#[map]
pub static FRAGMENT_IN_HAND: PerCpuArray<InHand> = PerCpuArray::with_max_entries(1, 0);
/// What full nat sends from.
#[map]
pub static SOURCE_POOL: Array<SourcePool> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Who has which of its ports.
#[map]
pub static PORT_SLOTS: Array<PortSlot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Where in `PORT_SLOTS` a client's flow is.
#[map]
pub static PORT_FLOWS: HashMap<FlowKey, u32> = HashMap::with_max_entries(1, 0);
/// The program of full nat, by the mode of the balancer that goes on to it.
#[map]
pub static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(4, 0);
/// When the limits of [`crate::limit`] were last used, by their numbers.
#[map]
pub static LIMITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(crate::limit::LIMITS, 0);

/// What has become of the last packet, in the modes that tell.
#[map]
pub static TRACE: Array<Trace> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// What is to be captured.
#[map]
pub static CAPTURE_RULE: Array<CaptureRule> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// How the capture goes.
#[map]
pub static CAPTURE_STATE: PerCpuArray<CaptureState> = PerCpuArray::with_max_entries(1, 0);
/// The record in the making.
#[map]
pub static CAPTURE_BUFFER: PerCpuArray<CaptureRecord> = PerCpuArray::with_max_entries(1, 0);
/// What was captured.
#[map]
pub static CAPTURES: RingBuf = RingBuf::with_byte_size(4_096, 0);

/// The value of a key in a bucket of `SERVICE_TABLE`: nothing follows a word that is 0.
#[inline(always)]
pub fn find_entry(bucket: u32, address: &Address, selector: u32) -> Option<u32> {
    let bucket = SERVICE_TABLE.get_ptr(bucket)?;
    for index in 0..SERVICE_BUCKET_ENTRIES {
        // SAFETY: the pointer is into a map's value, which is as long as the bucket and outlives the program; the
        // controller stores each word whole, so a volatile read sees it whole.
        let entry = unsafe { &raw const (*bucket).entries[index] };
        // SAFETY: as above.
        let word = unsafe { (&raw const (*entry).word).read_volatile() };
        if word as u32 != selector {
            if word == 0 {
                return None;
            }
            continue;
        }
        // SAFETY: as above.
        let (high, low) = unsafe {
            ((&raw const (*entry).high).read_volatile(), (&raw const (*entry).low).read_volatile())
        };
        if high == address.high() && low == address.low() {
            return Some((word >> 32) as u32);
        }
    }
    None
}

/// The value of the first range in a list of `PORT_LISTS` that has a port (host order).
#[inline(always)]
pub fn find_port(list: u32, port: u16) -> Option<u32> {
    let list = PORT_LISTS.get_ptr(list)?;
    for index in 0..PORT_LIST_ENTRIES {
        // SAFETY: the pointer is into a map's value, which is as long as the list and outlives the program; the controller
        // stores each word whole, so a volatile read sees it whole.
        let entry = PortEntry(unsafe { (&raw const (*list).entries[index].0).read_volatile() });
        if entry.0 == 0 {
            return None;
        }
        if entry.has(port) {
            return Some(entry.value());
        }
    }
    None
}

/// What `VIP_PREFIXES` says of an address under a protocol's number, or under 0.
#[inline(always)]
pub fn find_prefix(address: &Address, protocol: u32) -> Option<u32> {
    let [a, b, c, d] = address.words.map(|word| word.raw());
    longest_match(&VIP_PREFIXES, [u32::BITS + 128, protocol, a, b, c, d])
}

/// The slot at an index of the arena.
#[inline(always)]
pub fn slot(index: u32) -> Option<Slot> {
    // SAFETY: the pointer is to a map's value; the controller stores slots whole.
    ARENA.get_ptr(index).map(|slot| Slot(unsafe { slot.read_volatile() }))
}

/// A backend's row. The controller changes it while packets are under way, in whole words; every mixture of old and new
/// words is a valid row, and the fields that must fit one another stand in one word.
#[inline(always)]
pub fn backend(id: BackendId) -> Option<&'static BackendRow> {
    BACKENDS.get(id.0)
}

/// The number of a NIC.
#[inline(always)]
pub fn interface_number(ifindex: u32) -> Option<u32> {
    // SAFETY: the pointer is to a map's value, copied at once; a value reused for another key is one word still.
    INTERFACES.get_ptr(&ifindex).map(|number| unsafe { *number })
}

/// The MAC address of a neighbour.
#[inline(always)]
pub fn neighbour(key: &NeighbourKey) -> Option<NeighbourRow> {
    // SAFETY: as above; the value is one aligned word.
    NEIGHBOURS.get_ptr(key).map(|row| unsafe { *row })
}

/// Whether `SERVICE_TABLE` may have an entry of this address; false is sure.
#[inline(always)]
pub fn may_know(address: &Address) -> bool {
    let place = Presence::of(address);
    // SAFETY: the pointer is to a map's value, one word, which the controller stores whole.
    PRESENCE
        .get_ptr(place.word)
        .is_some_and(|word| unsafe { word.read_volatile() } & place.mask != 0)
}

/// The row in `NEXTHOPS` of the route to a client.
#[inline(always)]
pub fn route(client: &Address) -> Option<u32> {
    // The controller fills the table that is not active, so the active one does not change under a packet's eyes.
    let few = FEW_ROUTES.get(u32::from(!client.is_v4()))?;
    // SAFETY: a word of a map's value, which the controller stores whole.
    let active = unsafe { (&raw const few.active).read_volatile() };
    if active != 0 {
        return match few.tables[(active as usize - 1) & 1].find(client) {
            0 => None,
            row => Some(row),
        };
    }
    let [a, b, c, d] = client.words.map(|word| word.raw());
    longest_match(&ROUTES, [128, a, b, c, d])
}

/// Whether a client is in a list of `allow` prefixes.
#[inline(always)]
pub fn is_allowed(list: u32, client: &Address) -> bool {
    is_listed(&ALLOW, list, client)
}

/// Whether a client is in a list of `deny` prefixes.
#[inline(always)]
pub fn is_denied(list: u32, client: &Address) -> bool {
    is_listed(&DENY, list, client)
}

#[inline(always)]
fn is_listed(map: &LpmTrie<PrefixKey, u32>, list: u32, client: &Address) -> bool {
    let [a, b, c, d] = client.words.map(|word| word.raw());
    longest_match(map, [u32::BITS + 128, list, a, b, c, d]).is_some()
}
