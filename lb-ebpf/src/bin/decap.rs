//! The backend's end of the tunnel: takes the outer header off packets that lb encapsulated and hands the rest to the
//! host, which has the VIP. A tunnel device is not needed.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the xdp macro makes a second function of each, without its text")]

use aya_ebpf::{
    Global,
    bindings::{xdp_action, xdp_md},
    macros::{map, xdp},
    maps::{HashMap, LpmTrie, PerCpuArray},
    programs::XdpContext,
};
use lb_common::{
    abi::{Address, RouteKey, protocol},
    encap::decapsulated_ecn,
    frame::{ETHER_TYPE_V4, ETHER_TYPE_V6, Ethernet, Frame, Pair, be16},
    gue,
    ip::IpHeader,
    parse::{Family, NETWORK, V4, V6},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

// Not from the library: that would bring all maps of the balancer into this object.
#[path = "../extensions.rs"]
mod extensions;
#[path = "../lpm.rs"]
mod lpm;
#[expect(dead_code, reason = "the balancer uses the rest")]
#[path = "../packet.rs"]
mod packet;

use lpm::longest_match;
use packet::{Context, XdpFrame};

/// This host's tunnel addresses: outer destinations. The value is not used.
#[map]
static DECAP_LOCAL: HashMap<Address, u32> = HashMap::with_max_entries(64, 0);
/// Outer sources that are let in: the balancers. The value is not used.
#[map]
static DECAP_FROM: LpmTrie<RouteKey, u32> = LpmTrie::with_max_entries(256, 0);
/// Packets decapsulated, refused (source not let in), and broken.
#[map]
static DECAP_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(3, 0);
/// 1: any outer source is let in.
#[unsafe(no_mangle)]
static DECAP_FROM_ANY: Global<u32> = Global::new(0);
/// UDP port of GUE, host order; 0 = none.
#[unsafe(no_mangle)]
static DECAP_GUE_PORT: Global<u32> = Global::new(0);

const DECAPSULATED: u32 = 0;
const REFUSED: u32 = 1;
const BROKEN: u32 = 2;

/// Why a packet is not decapsulated.
enum Refusal {
    /// Not for us: the host gets it as it came.
    NotOurs,
    /// Dropped, and counted here.
    Drop(u32),
}

/// The decapsulator: XDP hands it every frame of the NIC it is attached to.
#[xdp]
pub fn decap(context: XdpContext) -> u32 {
    match enter(context.ctx) {
        Ok(()) => {
            count(DECAPSULATED);
            xdp_action::XDP_PASS
        }
        Err(Refusal::NotOurs) => xdp_action::XDP_PASS,
        Err(Refusal::Drop(counter)) => {
            count(counter);
            xdp_action::XDP_DROP
        }
    }
}

#[inline(always)]
fn enter(context: *mut xdp_md) -> Result<(), Refusal> {
    // SAFETY: the program's own argument; this is the only frame made of it.
    let frame = unsafe { Context::new(context) }.frame();
    let ethernet = *frame.view::<Ethernet>(0).ok_or(Refusal::NotOurs)?;
    if ethernet.to_group() {
        return Err(Refusal::NotOurs);
    }
    match ethernet.ether_type {
        ETHER_TYPE_V4 => outer::<V4>(frame, ethernet),
        ETHER_TYPE_V6 => outer::<V6>(frame, ethernet),
        _ => Err(Refusal::NotOurs),
    }
}

/// Judges the outer header. One with options or extension headers is none of lb's and left to the host.
#[inline(always)]
fn outer<F: Family>(frame: XdpFrame, ethernet: Ethernet) -> Result<(), Refusal> {
    let header = frame.view::<F::Header>(NETWORK).ok_or(Refusal::NotOurs)?;
    let carried = match header.protocol() {
        protocol::IPIP => Carried::V4,
        protocol::IPV6 => Carried::V6,
        protocol::UDP if DECAP_GUE_PORT.load() != 0 => carried_by_udp::<F>(&frame)?,
        _ => return Err(Refusal::NotOurs),
    };
    if !F::is_plain(header) || !is_local(&header.destination()) {
        return Err(Refusal::NotOurs);
    }
    if !is_let_in(&header.source()) {
        return Err(Refusal::Drop(REFUSED));
    }
    let (length, ecn) = (header.length() as usize, header.traffic_class() & 3);
    if !header.is_intact() || length <= F::MINIMUM || NETWORK + length > frame.length() {
        return Err(Refusal::Drop(BROKEN));
    }
    let room = length - F::MINIMUM;
    // With constant lengths, as the verifier likes them.
    let result = match carried {
        Carried::V4 => unwrap::<F, Ipv4Hdr, 0>(frame, ethernet, ecn, room),
        Carried::V6 => unwrap::<F, Ipv6Hdr, 0>(frame, ethernet, ecn, room),
        Carried::V4ByUdp => unwrap::<F, Ipv4Hdr, 8>(frame, ethernet, ecn, room),
        Carried::V6ByUdp => unwrap::<F, Ipv6Hdr, 8>(frame, ethernet, ecn, room),
        Carried::V4ByGue => unwrap::<F, Ipv4Hdr, 12>(frame, ethernet, ecn, room),
        Carried::V6ByGue => unwrap::<F, Ipv6Hdr, 12>(frame, ethernet, ecn, room),
    };
    result.ok_or(Refusal::Drop(BROKEN))
}

/// What the outer header carries, and how.
#[derive(Clone, Copy)]
enum Carried {
    V4,
    V6,
    /// GUE's variant 1: nothing between.
    V4ByUdp,
    V6ByUdp,
    /// Variant 0.
    V4ByGue,
    V6ByGue,
}

/// What a UDP datagram carries, if it is one of GUE. What has optional fields is left to the host. The checksum is not looked at:
/// what is inside has its own.
#[inline(always)]
fn carried_by_udp<F: Family>(frame: &XdpFrame) -> Result<Carried, Refusal> {
    let transport = NETWORK + F::MINIMUM;
    let headers = frame.view::<Pair<UdpHdr, [u8; 4]>>(transport).ok_or(Refusal::NotOurs)?;
    if be16(headers.first.dst).to_host() as u32 != DECAP_GUE_PORT.load() {
        return Err(Refusal::NotOurs);
    }
    match gue::read(headers.second) {
        Some((0, false)) => Ok(Carried::V4ByUdp),
        Some((0, true)) => Ok(Carried::V6ByUdp),
        Some((_, false)) => Ok(Carried::V4ByGue),
        Some((_, true)) => Ok(Carried::V6ByGue),
        None => Err(Refusal::NotOurs),
    }
}

/// Takes the outer header off, and `BETWEEN` bytes behind it; `None` if what is inside is not a packet that fits into `room` bytes
/// with them, or its ECN field says that it had to be dropped on the way.
#[inline(always)]
fn unwrap<F: Family, Inner: IpHeader, const BETWEEN: usize>(
    mut frame: XdpFrame,
    ethernet: Ethernet,
    outer_ecn: u8,
    room: usize,
) -> Option<()> {
    if BETWEEN != 0 {
        let udp = frame.view::<UdpHdr>(NETWORK + F::MINIMUM)?;
        if be16(udp.len).to_host() as usize != room {
            return None;
        }
    }
    let inner = frame.view_mut::<Inner>(NETWORK + F::MINIMUM + BETWEEN)?;
    let length = inner.length() as usize;
    if !inner.is_version() || length < Inner::LENGTH || length + BETWEEN > room {
        return None;
    }
    let ecn = decapsulated_ecn(outer_ecn, inner.traffic_class())?;
    if ecn != inner.traffic_class() & 3 {
        inner.set_ecn(ecn);
    }
    let mut frame = frame.move_start((F::MINIMUM + BETWEEN) as i32)?;
    *frame.view_mut(0)? = Ethernet { ether_type: Inner::ETHER_TYPE, ..ethernet };
    Some(())
}

#[inline(always)]
fn is_local(address: &Address) -> bool {
    DECAP_LOCAL.get_ptr(address).is_some()
}

#[inline(always)]
fn is_let_in(address: &Address) -> bool {
    let [a, b, c, d] = address.words.map(|word| word.raw());
    DECAP_FROM_ANY.load() != 0 || longest_match(&DECAP_FROM, [128, a, b, c, d]).is_some()
}

#[inline(always)]
fn count(counter: u32) {
    if let Some(count) = DECAP_COUNTS.get_ptr_mut(counter) {
        // SAFETY: the entry is this CPU's own, and XDP programs do not preempt one another on a CPU.
        unsafe { *count += 1 };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
