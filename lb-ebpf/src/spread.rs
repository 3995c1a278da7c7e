//! IP in IP from the addresses of a prefix, by which receivers tell flows apart. The rules are [`lb_common::encap::spread`].

use lb_common::{
    abi::BackendId,
    encap,
    frame::{Ethernet, Frame, Pair},
    gue,
    ip::IpHeader,
    parse::{self, Family, NETWORK},
    vlan,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    gue::OWN_ENTROPY,
    maps,
    packet::{Context, XdpFrame},
};

/// Puts a frame that has its MAC addresses already, and one less on the hop limit, into a backend's tunnel; 0 if there is no
/// room. `entropy` is what the source is made of, or [`OWN_ENTROPY`]. A function of its own, as [`crate::gue::wrap`] is.
#[inline(never)]
pub fn wrap<F: Family>(context: Context, backend: u32, entropy: u64) -> u32 {
    let frame = context.frame();
    let wrap = || {
        let row = maps::backend(BackendId(backend))?;
        let entropy = match entropy {
            OWN_ENTROPY => own_entropy::<F>(&frame)?,
            entropy => entropy as u32,
        };
        let header = frame.view::<F::Header>(NETWORK)?;
        let (is_v6, length, class) =
            (F::Header::IS_V6, header.length() as u16, header.traffic_class());
        let source = encap::spread(&row.source, row.source_bits(), entropy);
        if row.address.is_v4() {
            let sum = encap::sum_of_source(row.outer_sum, &row.source, &source);
            put::<Ipv4Hdr>(frame, encap::outer_v4(&source, &row.address, is_v6, class, length, sum))
        } else {
            put::<Ipv6Hdr>(frame, encap::outer_v6(&source, &row.address, is_v6, class, length))
        }
    };
    wrap().is_some() as u32
}

/// Of the packet's flow; of fragments, and of what has no flow, by the addresses.
#[inline(always)]
fn own_entropy<F: Family>(frame: &XdpFrame) -> Option<u32> {
    if !F::HAS_EXTENSIONS
        && let Some(outline) = parse::outline::<F>(frame)
    {
        return Some(gue::entropy(&outline.flow));
    }
    Some(gue::entropy_of_source(&frame.view::<F::Header>(NETWORK)?.source()))
}

#[inline(always)]
fn put<H: IpHeader>(frame: XdpFrame, outer: H) -> Option<()> {
    let macs = vlan::macs(&frame)?;
    let mut frame = frame.move_start(-(H::LENGTH as i32))?;
    *frame.view_mut::<Pair<Ethernet, H>>(0)? =
        Pair { first: macs.ethernet(H::ETHER_TYPE), second: outer };
    Some(())
}
