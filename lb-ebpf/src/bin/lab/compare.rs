//! What XDP balancers with a flow table do for each packet, written as tightly as ours: service in a hash map, the flow in an
//! LRU table with per-CPU lists, a ring lookup and an insertion if it is not there, counters, an IPv4-in-IPv4 header.
//! It serves IPv4 TCP and UDP only (its keys would do for both families, as the peers' do) and checks less than the balancer does, so
//! the comparison favours it. It has no guard against floods, as Katran has one, which stops remembering flows for the rest of a second.

use aya_ebpf::{
    bindings::{BPF_F_NO_COMMON_LRU, xdp_action, xdp_md},
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};

use crate::{
    abi::{CompareBackend, CompareCounters, CompareFlow, ComparePin, CompareVip},
    frame,
};

/// Slots of the ring.
const RING: u32 = 65_537;

/// VIP to the number of its first backend (always 0 here: one service, but a lookup like any).
#[map]
static COMPARE_VIPS: HashMap<CompareVip, u32> = HashMap::with_max_entries(512, 0);
/// The ring; one entry more than slots, see the verifier's view of `>> 32`.
#[map]
static COMPARE_RING: Array<u32> = Array::with_max_entries(RING + 1, 0);
/// The flow table; the benchmark sets its size.
#[map]
static COMPARE_FLOWS: LruHashMap<CompareFlow, ComparePin> =
    LruHashMap::with_max_entries(1024, BPF_F_NO_COMMON_LRU);
/// Backends.
#[map]
static COMPARE_BACKENDS: Array<CompareBackend> = Array::with_max_entries(4096, 0);
/// Counters by backend.
#[map]
static COMPARE_COUNTERS: PerCpuArray<CompareCounters> = PerCpuArray::with_max_entries(4096, 0);

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ethernet {
    destination: [u8; 6],
    source: [u8; 6],
    kind: u16,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_and_length: u8,
    tos: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C, packed)]
struct Headers {
    ethernet: Ethernet,
    ip: Ipv4,
    ports: u32,
}

#[repr(C, packed)]
struct Outer {
    ethernet: Ethernet,
    ip: Ipv4,
}

/// Looks up, encapsulates, sends.
#[inline(always)]
pub fn forward(ctx: *mut xdp_md) -> Option<u32> {
    let headers = frame::bytes::<Headers>(ctx)?;
    // SAFETY: `bytes` has checked the bounds.
    let Headers { ethernet, ip, ports } = unsafe { headers.read_unaligned() };
    if ethernet.kind != 0x0800u16.to_be()
        || ip.version_and_length != 0x45
        || ip.fragment & 0x3fffu16.to_be() != 0
        || (ip.protocol != 6 && ip.protocol != 17)
    {
        return Some(xdp_action::XDP_PASS);
    }
    let vip = CompareVip {
        address: [ip.destination as u64, 0],
        port: (u32::from_be(ports) as u16).to_be(),
        protocol: ip.protocol,
        _pad: [0; 5],
    };
    // SAFETY: the value is copied at once.
    let first = unsafe { COMPARE_VIPS.get(&vip).copied() };
    let Some(first) = first else { return Some(xdp_action::XDP_PASS) };
    let flow = CompareFlow {
        source: [ip.source as u64, 0],
        destination: [ip.destination as u64, 0],
        ports,
        protocol: ip.protocol as u32,
    };
    let number = first + backend_of(&flow)?;
    let backend = *COMPARE_BACKENDS.get(number)?;
    let counters = COMPARE_COUNTERS.get_ptr_mut(number)?;
    // SAFETY: the entry is this CPU's.
    unsafe {
        (*counters).packets += 1;
        (*counters).bytes += u16::from_be(ip.total_length) as u64;
    }
    encapsulate(ctx, &ethernet, &ip, ports, &backend)?;
    Some(xdp_action::XDP_TX)
}

/// The flow table's backend, else the ring's, which is then remembered.
#[inline(always)]
fn backend_of(flow: &CompareFlow) -> Option<u32> {
    // SAFETY: the value is copied at once.
    if let Some(backend) = unsafe { COMPARE_FLOWS.get(flow).map(|pin| pin.backend) } {
        return Some(backend);
    }
    let ([source, ..], [destination, ..]) = (flow.source, flow.destination);
    let key = source << 32 | flow.ports as u64;
    let mixed = (key ^ (key >> 32) ^ destination).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let hash = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32;
    let backend = *COMPARE_RING.get(((hash * RING as u64) >> 32) as u32)?;
    // SAFETY: a helper without arguments.
    let created = unsafe { bpf_ktime_get_ns() };
    let pin = ComparePin { backend, _pad: 0, created };
    // A full per-CPU list gives up its oldest entry; an insertion that fails costs only the memory of the flow.
    let _ = COMPARE_FLOWS.insert(flow, &pin, 0);
    Some(backend)
}

#[inline(always)]
fn encapsulate(
    ctx: *mut xdp_md,
    ethernet: &Ethernet,
    ip: &Ipv4,
    ports: u32,
    backend: &CompareBackend,
) -> Option<()> {
    frame::move_head(ctx, -(size_of::<Ipv4>() as i32))?;
    let outer = frame::bytes::<Outer>(ctx)?;
    let total_length = (u16::from_be(ip.total_length) + size_of::<Ipv4>() as u16).to_be();
    // The source spreads the tunnel's packets over the receiver's queues.
    let source = 0x0000_10acu32 | ((ports ^ ip.source) & 0xffff_0000);
    let sum = 0x0045 + ip.tos as u32 * 256
        + total_length as u32
        + 0x0440 // TTL 64, protocol 4
        + (source & 0xffff)
        + (source >> 16)
        + (backend.address & 0xffff)
        + (backend.address >> 16);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    let header = Outer {
        ethernet: Ethernet {
            destination: backend.mac,
            source: ethernet.destination,
            kind: ethernet.kind,
        },
        ip: Ipv4 {
            version_and_length: 0x45,
            tos: ip.tos,
            total_length,
            id: 0,
            fragment: 0,
            ttl: 64,
            protocol: 4,
            checksum,
            source,
            destination: backend.address,
        },
    };
    // SAFETY: `bytes` has checked the bounds.
    unsafe { outer.write_unaligned(header) };
    Some(())
}
