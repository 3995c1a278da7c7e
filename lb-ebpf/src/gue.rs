//! Encapsulation in UDP. The rules are [`lb_common::gue`].

use lb_common::{
    abi::{BackendId, BackendRow, FlowKey, protocol},
    checksum::Sum,
    frame::{Ethernet, Frame, Pair, be16},
    gue::{self, Inner, Middle, OVERHEAD},
    ip::IpHeader,
    parse::{self, Family, NETWORK, Outline},
    vlan,
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

/// The entropy of the packet's own flow.
pub const OWN_ENTROPY: u64 = u64::MAX;

/// Puts a frame that has its MAC addresses already, and one less on the hop limit, into a backend's tunnel; 0 if there is no
/// room, or the packet is longer than any. `entropy` is what the source port is made of, or [`OWN_ENTROPY`]. A function of its own for
/// the stack's sake, which reads the packet once more; one, because each costs what it reads.
#[inline(never)]
pub fn wrap<F: Family>(context: Context, backend: u32, entropy: u64) -> u32 {
    let frame = context.frame();
    let wrap = || {
        let row = maps::backend(BackendId(backend))?;
        let header = frame.view::<F::Header>(NETWORK)?;
        let (length, traffic_class) = (header.length() as u16, header.traffic_class());
        // Extension headers are not walked over again.
        let outline = if F::HAS_EXTENSIONS { None } else { parse::outline::<F>(&frame) };
        let entropy = match (entropy, &outline) {
            (OWN_ENTROPY, Some(outline)) => gue::entropy(&outline.flow),
            (OWN_ENTROPY, None) => entropy_of_addresses(header),
            (entropy, _) => entropy as u32,
        };
        let sound = outline.and_then(|outline| sum_of_sound::<F>(&frame, &outline, length));
        let sum = match sound {
            Some(sum) => sum,
            None => sum::of_frame(&frame, NETWORK, length)?,
        };
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

/// Of fragments, and of what has no flow.
#[inline(always)]
fn entropy_of_addresses(header: &impl IpHeader) -> u32 {
    let (source, destination) = (header.source(), header.destination());
    gue::entropy(&FlowKey { source, destination, ..FlowKey::default() })
}

/// The sum of a packet, which is known without looking at its payload if its transport header has a checksum over all of it. One
/// that is wrong makes the outer one wrong, too, and the packet is dropped by the backend and not by the server.
#[inline(always)]
fn sum_of_sound<F: Family>(frame: &XdpFrame, outline: &Outline, length: u16) -> Option<Sum> {
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
type Front<H> = Pair<Ethernet, Pair<H, Middle>>;

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
    front.first = macs.ethernet(H::ETHER_TYPE);
    front.second.first = outer(row);
    front.second.second = gue::middle::<H>(&row.source, &row.address, row.port, entropy, inner);
    Some(())
}
