//! What each pinned map must be. aya opens an existing pin without looking, and a map of another value size would have
//! the kernel write past our buffers: every pin is compared before it is used.

use std::path::Path;

use aya::maps::{MapInfo, MapType};
use lb_common::abi::{self, REASONS, map};

use super::{LoadError, Options, prefix_lists::GENERATIONS};

const MMAPABLE: u32 = 1024;
const NO_PREALLOC: u32 = 1;
/// The kernel adds it to every device map.
const RDONLY_PROG: u32 = 128;

/// Routes mirrored at most; rows are one more.
pub(super) const ROUTES: u32 = 1024;
/// On-link neighbours mirrored at most.
pub(super) const NEIGHBOURS: u32 = 16_384;

/// Copies of the balancer, by their modes.
const PROGRAMS: u32 = 4;

/// Packets in fragments remembered at most.
const FRAGMENTS: u32 = 16_384;

/// Tables of features: one entry while no service has the feature, and then no program that uses them, so that they can be
/// replaced by larger ones at any time.
pub(super) const OF_FEATURES: [&str; 5] =
    [map::FLOWS, map::FLOWS_NEW, map::SOURCES, map::PORT_SLOTS, map::PORT_FLOWS];

/// One map as the program wants it.
pub(super) struct Wanted {
    pub(super) name: &'static str,
    pub(super) kind: MapType,
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) flags: u32,
    pub(super) entries: u32,
    /// The key of `limits:` that sizes it; `None` = its size is fixed.
    pub(super) limit: Option<&'static str>,
}

/// All pinned maps: not the buffer of aya-log, nor `LIMITS`, `SOURCE_RATES`, `SCRATCH` and what tells of packets, which begin anew with each
/// program.
pub(super) fn wanted(options: &Options) -> Vec<Wanted> {
    let sizes = &options.sizes;
    let map = |name, kind, key, value, flags, entries, limit| Wanted {
        name,
        kind,
        key,
        value,
        flags,
        entries,
        limit,
    };
    let array =
        |name, value, entries, limit| map(name, MapType::Array, 4, value, MMAPABLE, entries, limit);
    let lpm = |name, key: usize, entries, limit| {
        map(name, MapType::LpmTrie, 4 + key, 4, NO_PREALLOC, entries, limit)
    };
    let hash =
        |name, key, value, entries, limit| map(name, MapType::Hash, key, value, 0, entries, limit);
    let flow = size_of::<abi::FlowKey>();
    let pin = size_of::<abi::Pin>();
    vec![
        array(
            map::SERVICE_TABLE,
            size_of::<abi::ServiceBucket>(),
            sizes.table_buckets,
            Some("services"),
        ),
        array(
            map::SERVICES,
            size_of::<abi::ServiceRow>(),
            sizes.services * 2 + 1,
            Some("services"),
        ),
        array(map::ARENA, 8, sizes.ring_slots, Some("ring_slots")),
        array(map::BACKENDS, size_of::<abi::BackendRow>(), sizes.backends, Some("backends")),
        array(map::REPLIES, size_of::<abi::ReplyRow>(), sizes.backends, Some("backends")),
        array(map::PORT_LISTS, size_of::<abi::PortList>(), abi::PORT_LISTS, None),
        array(map::LISTENS, size_of::<abi::ListenRow>(), sizes.services, Some("services")),
        lpm(map::VIP_PREFIXES, size_of::<abi::PrefixKey>(), abi::VIP_PREFIXES, None),
        array(map::PRESENCE, 8, abi::PRESENCE_BITS / 64, None),
        array(map::FEW_ROUTES, size_of::<abi::FewTables>(), 2, None),
        array(map::NEXTHOPS, size_of::<abi::NextHopRow>(), ROUTES + 1, None),
        hash(map::PINS, flow, pin, sizes.pins, Some("pins")),
        hash(map::PINS_NEW, flow, pin, sizes.pins_unconfirmed, Some("pins_unconfirmed")),
        hash(map::FLOWS, flow, pin, sizes.flows, Some("flows")),
        hash(map::FLOWS_NEW, flow, pin, sizes.flows_unconfirmed, Some("flows_unconfirmed")),
        hash(
            map::SOURCES,
            size_of::<abi::SourceKey>(),
            size_of::<abi::RememberedSource>(),
            sizes.sources,
            Some("sources"),
        ),
        array(map::SOURCE_POOL, size_of::<abi::SourcePool>(), 1, None),
        array(
            map::PORT_SLOTS,
            size_of::<abi::PortSlot>(),
            sizes.port_slots(),
            Some("source_addresses"),
        ),
        hash(map::PORT_FLOWS, flow, 4, sizes.port_slots(), Some("source_addresses")),
        map(map::PROGRAMS, MapType::ProgramArray, 4, 4, 0, PROGRAMS, None),
        array(map::POLICIES, size_of::<abi::Policy>(), sizes.services, Some("services")),
        array(map::SERVICE_LOADS, size_of::<abi::ServiceLoad>(), sizes.services, Some("services")),
        array(map::LOADS, size_of::<abi::BackendLoad>(), sizes.backends, Some("backends")),
        hash(
            map::NEIGHBOURS,
            size_of::<abi::NeighbourKey>(),
            size_of::<abi::NeighbourRow>(),
            NEIGHBOURS,
            None,
        ),
        hash(map::INTERFACES, 4, 4, 32, None),
        map(
            map::FRAGMENTS,
            MapType::LruHash,
            size_of::<abi::FragmentKey>(),
            size_of::<abi::FragmentEntry>(),
            0,
            FRAGMENTS,
            None,
        ),
        map(
            map::OPENINGS,
            MapType::Array,
            4,
            size_of::<abi::OpeningBucket>(),
            0,
            lb_common::observe::OPENING_BUCKETS,
            None,
        ),
        map(
            map::PROVEN_SOURCES,
            MapType::Array,
            4,
            size_of::<abi::ProvenSource>(),
            0,
            lb_common::observe::SOURCES,
            None,
        ),
        array(map::OBSERVED, size_of::<abi::ObservedCounters>(), sizes.backends, Some("backends")),
        array(map::OPENING_RULES, size_of::<abi::OpeningRules>(), sizes.services, Some("services")),
        array(
            map::OPENING_STATES,
            size_of::<abi::OpeningState>(),
            sizes.services,
            Some("services"),
        ),
        map(
            map::VERIFIED,
            MapType::Array,
            4,
            size_of::<abi::VerifiedSources>(),
            0,
            lb_common::syn_flood::VERIFIED_BUCKETS,
            None,
        ),
        array(map::COOKIE_KEYS, size_of::<abi::CookieKeys>(), 1, None),
        map(map::WAYS_BACK, MapType::Array, 4, 8, 0, lb_common::way_back::ENTRIES, None),
        map(map::HANDSHAKES, MapType::Array, 4, 8, 0, lb_common::handshake::ENTRIES, None),
        map(
            map::HANDSHAKE_TIMES,
            MapType::Array,
            4,
            size_of::<abi::HandshakeTimes>(),
            0,
            sizes.backends,
            Some("backends"),
        ),
        map(
            map::QUIC_IDS,
            MapType::Hash,
            size_of::<abi::QuicId>(),
            4,
            NO_PREALLOC,
            lb_common::quic::SERVERS,
            None,
        ),
        map(map::QUIC_FORMATS, MapType::Array, 4, 4, 0, sizes.services, Some("services")),
        map(
            map::CONNECTIONS,
            MapType::Hash,
            flow,
            size_of::<abi::Connection>(),
            NO_PREALLOC,
            sizes.connections,
            Some("connections"),
        ),
        map(
            map::COUNTERS,
            MapType::PerCpuArray,
            4,
            size_of::<abi::BackendCounters>(),
            0,
            sizes.backends,
            Some("backends"),
        ),
        map(
            map::REASON_COUNTS,
            MapType::PerCpuArray,
            4,
            8,
            0,
            sizes.services * REASONS,
            Some("services"),
        ),
        map(map::DEVICES, MapType::DevMapHash, 4, 8, RDONLY_PROG, 32, None),
        map(map::WANTED, MapType::RingBuf, 0, 0, 0, 65_536, None),
        map(map::SAMPLES, MapType::RingBuf, 0, 0, 0, 65_536, None),
        map(map::FAILURES, MapType::RingBuf, 0, 0, 0, 65_536, None),
        map(map::CLOCK, MapType::Array, 4, size_of::<abi::Clock>(), 0, 1, None),
        lpm(map::ROUTES, size_of::<abi::RouteKey>(), ROUTES, None),
        lpm(
            map::ALLOW,
            size_of::<abi::PrefixKey>(),
            sizes.allow_prefixes * GENERATIONS,
            Some("allow_prefixes"),
        ),
        lpm(
            map::DENY,
            size_of::<abi::PrefixKey>(),
            sizes.deny_prefixes * GENERATIONS,
            Some("deny_prefixes"),
        ),
    ]
}

/// Compares an existing pin with what is wanted. Returns its number of entries: at least as many as wanted.
pub(super) fn compare(path: &Path, wanted: &Wanted) -> Result<u32, LoadError> {
    let info = MapInfo::from_pin(path).map_err(|error| LoadError::map(wanted.name, error))?;
    let kind = info.map_type().ok();
    let layout = |found: String, wanted: String| {
        Err(LoadError::Layout { path: path.to_owned(), found, wanted })
    };
    let differs = kind != Some(wanted.kind)
        || info.key_size() as usize != wanted.key
        || info.value_size() as usize != wanted.value
        || info.map_flags() != wanted.flags;
    if differs {
        let shape = |kind: String, key: usize, value: usize, flags: u32| {
            format!("{kind} (key of {key} bytes, value of {value}, flags {flags:#x})")
        };
        return layout(
            shape(
                kind.map_or_else(|| "no map".to_owned(), |kind| format!("{kind:?}")),
                info.key_size() as usize,
                info.value_size() as usize,
                info.map_flags(),
            ),
            shape(format!("{:?}", wanted.kind), wanted.key, wanted.value, wanted.flags),
        );
    }
    let (found, entries) = (info.max_entries(), wanted.entries);
    if wanted.name == map::SERVICE_TABLE && !found.is_power_of_two() {
        return layout(format!("{found} buckets"), "a power of two".to_owned());
    }
    match wanted.limit {
        Some(limit) if found < entries => {
            Err(LoadError::TooSmall { name: wanted.name.to_owned(), found, wanted: entries, limit })
        }
        None if found != entries => layout(format!("{found} entries"), format!("{entries}")),
        _ => Ok(found),
    }
}
