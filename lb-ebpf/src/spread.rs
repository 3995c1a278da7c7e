//! IP in IP from the addresses of a prefix, by which receivers tell flows apart. The rules are [`lb_common::encap::spread`].

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{BackendId, BackendRow, backend_flag, entropy},
    encap,
    frame::{Ethernet, Frame, Pair},
    gue,
    ip::IpHeader,
    parse::{self, Family, NETWORK, V4, V4Options, V6, V6Extended},
    vlan,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    config,
    gue::OWN_ENTROPY,
    maps,
    packet::{Context, XdpFrame},
};

/// Whether a backend's tunnel that tells flows apart is one of IP in IP, and not GUE.
#[inline(always)]
pub fn is_its(row: &BackendRow) -> bool {
    config::ENTROPY.load() & entropy::SOURCE_ADDRESS != 0 && row.flags & backend_flag::IPIP != 0
}

/// [`wrap`]'s answer where the tunnel is GUE's.
pub const NOT_ITS: u32 = 2;

/// As [`crate::gue::wrap`]; or [`NOT_ITS`], and nothing has happened.
#[inline(always)]
pub fn wrap<F: Family>(context: Context, backend: u32, entropy: u64) -> u32 {
    if config::ENTROPY.load() & entropy::SOURCE_ADDRESS == 0 {
        return NOT_ITS;
    }
    let way = match (F::Header::IS_V6, F::FIXED) {
        (false, true) => spread_v4,
        (false, false) => spread_v4_options,
        (true, true) => spread_v6,
        (true, false) => spread_v6_extended,
    };
    way(context.pointer(), backend, entropy)
}

/// The tunnel in the shape of global functions, one a family, which the verifier checks once each.
macro_rules! ways {
    ($($family:ident: $way:ident;)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $way(context: *mut xdp_md, backend: u32, entropy: u64) -> u32 {
            // SAFETY: the program's own argument; the caller's frame is not in use any more.
            let frame = unsafe { Context::new(context) }.frame();
            match maps::backend(BackendId(backend)) {
                Some(row) if is_its(row) => put_in::<$family>(frame, row, entropy).is_some() as u32,
                _ => NOT_ITS,
            }
        }
    )* };
}

ways! {
    V4: spread_v4;
    V4Options: spread_v4_options;
    V6: spread_v6;
    V6Extended: spread_v6_extended;
}

#[inline(always)]
fn put_in<F: Family>(frame: XdpFrame, row: &BackendRow, entropy: u64) -> Option<()> {
    let entropy = match entropy {
        OWN_ENTROPY => own_entropy::<F>(&frame)?,
        entropy => entropy as u32,
    };
    let header = frame.view::<F::Header>(NETWORK)?;
    let (is_v6, length, class) = (F::Header::IS_V6, header.length() as u16, header.traffic_class());
    let source = encap::spread(&row.source, row.source_bits(), entropy);
    if row.address.is_v4() {
        let sum = encap::sum_of_source(row.outer_sum, &row.source, &source);
        put::<Ipv4Hdr>(frame, encap::outer_v4(&source, &row.address, is_v6, class, length, sum))
    } else {
        put::<Ipv6Hdr>(frame, encap::outer_v6(&source, &row.address, is_v6, class, length))
    }
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
