//! Encapsulation in UDP. The rules are [`lb_common::gue`].

use lb_common::{
    abi::{BackendId, BackendRow, FlowKey, protocol},
    checksum::Sum,
    frame::{Frame, Pair, be16},
    gue::{self, Inner, Middle, OVERHEAD},
    ip::IpHeader,
    parse::{self, Family, NETWORK},
    vlan::{self, Macs},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    maps,
    packet::{Context, XdpFrame},
    sum,
};

/// The sum of the packet that is to be encapsulated; [`NO_SUM`] if it is longer than any. A function of its own, as
/// [`wrap`] is, for the stack's sake: both read the packet once more.
#[inline(never)]
pub fn sum_of_packet<F: Family>(context: Context) -> u64 {
    let frame = context.frame();
    let sum = || {
        let length = frame.view::<F::Header>(NETWORK)?.length() as u16;
        match sum_of_sound::<F>(&frame, length) {
            Some(sum) => Some(sum),
            None => sum::of_frame(&frame, NETWORK, length),
        }
    };
    sum().map_or(NO_SUM, |sum| sum.unfolded() as u64)
}

/// What the source port of a packet's flow is made of; of fragments the addresses alone. Read from the packet anew: a flow that is
/// kept for it costs every packet of every service.
#[inline(never)]
pub fn entropy_of_packet<F: Family>(context: Context) -> u32 {
    let frame = context.frame();
    if let Some(outline) = parse::outline::<F>(&frame) {
        return gue::entropy(&outline.flow);
    }
    let Some(header) = frame.view::<F::Header>(NETWORK) else { return 0 };
    let (source, destination) = (header.source(), header.destination());
    gue::entropy(&FlowKey { source, destination, ..FlowKey::default() })
}

/// No sum.
pub const NO_SUM: u64 = u64::MAX;

/// Puts a frame that has its MAC addresses already, and one less on the hop limit, into a backend's tunnel; 0 if there is no
/// room. `sum` is that of the packet.
#[inline(never)]
pub fn wrap<F: Family>(context: Context, backend: u32, entropy: u32, sum: u32) -> u32 {
    let frame = context.frame();
    let wrap = || {
        let row = maps::backend(BackendId(backend))?;
        let header = frame.view::<F::Header>(NETWORK)?;
        let (length, traffic_class) = (header.length() as u16, header.traffic_class());
        let sum = Sum::begun(sum);
        let inner = Inner { is_v6: F::Header::IS_V6, traffic_class, length, sum };
        if row.address.is_v4() {
            let outer =
                |row: &BackendRow| gue::outer_v4(&row.source, &row.address, &inner, row.outer_sum);
            put::<Ipv4Hdr>(frame, row, &inner, entropy, outer)
        } else {
            let outer = |row: &BackendRow| gue::outer_v6(&row.source, &row.address, &inner);
            put::<Ipv6Hdr>(frame, row, &inner, entropy, outer)
        }
    };
    wrap().is_some() as u32
}

/// The sum of a packet, which is known without looking at its payload if its transport header has a checksum over all of it. One
/// that is wrong makes the outer one wrong, too, and the packet is dropped by the backend and not by the server.
#[inline(always)]
fn sum_of_sound<F: Family>(frame: &XdpFrame, length: u16) -> Option<Sum> {
    if F::HAS_EXTENSIONS {
        return None;
    }
    let outline = parse::outline::<F>(frame)?;
    let transport = length.wrapping_sub((outline.transport - NETWORK) as u16);
    if outline.flow.protocol == protocol::UDP {
        let udp = frame.view::<UdpHdr>(outline.transport)?;
        if udp.check == [0; 2] || be16(udp.len).to_host() != transport {
            return None;
        }
    }
    let header = frame.view::<F::Header>(NETWORK)?;
    Some(header.sum_of_sound_packet(outline.flow.protocol, transport))
}

/// All that stands in front of the packet.
type Front<H> = Pair<Pair<Macs, [u8; 2]>, Pair<H, Middle>>;

/// The headers are made where they are to stand: the stack has no room for them.
#[inline(always)]
fn put<H: IpHeader>(
    frame: XdpFrame,
    row: &BackendRow,
    inner: &Inner,
    entropy: u32,
    outer: impl FnOnce(&BackendRow) -> H,
) -> Option<()> {
    let macs = vlan::macs(&frame)?;
    let mut frame = frame.move_start(-(H::LENGTH as i32 + OVERHEAD as i32))?;
    let front = frame.view_mut::<Front<H>>(0)?;
    front.first = Pair { first: macs, second: H::ETHER_TYPE };
    front.second.first = outer(row);
    front.second.second = gue::middle(&row.source, &row.address, row.port, entropy, inner);
    Some(())
}
