//! The walk over IPv6 extension headers. It and each of its steps are global functions, which the verifier checks once and by
//! themselves: within one function, each combination of headers would be another way to go on.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    frame::Frame,
    parse::{
        NETWORK,
        extensions::{MOST_HEADERS, Place, step},
    },
};
use network_types::ip::Ipv6Hdr;

use crate::packet::{Context, XdpFrame};

/// Where the extension headers end.
#[inline(always)]
pub fn end(frame: &XdpFrame) -> Place {
    Place(extensions_end(frame.context().pointer()))
}

/// [`lb_common::parse::extensions::walk`] in the shape of a global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn extensions_end(context: *mut xdp_md) -> u32 {
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let frame = unsafe { Context::new(context) }.frame();
    let Some(header) = frame.view::<Ipv6Hdr>(NETWORK) else { return Place::REFUSED.0 };
    let mut place = Place::first(header);
    for _ in 0..=MOST_HEADERS {
        place = Place(extension_at(context, place.0));
        if place.is_over() {
            return place.0;
        }
    }
    Place::REFUSED.0
}

/// [`step`] in the same shape.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn extension_at(context: *mut xdp_md, place: u32) -> u32 {
    // SAFETY: as above.
    let frame = unsafe { Context::new(context) }.frame();
    step(&frame, Place(place)).0
}
