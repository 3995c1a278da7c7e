//! The walk over IPv4 options. A step is a global function, which the verifier checks once and by itself: within one
//! function, each combination of options would be another way to go on.

use aya_ebpf::bindings::xdp_md;
use lb_common::parse::options::{FIRST, MOST, Step, step};

use crate::packet::{Context, XdpFrame};

/// Whether the packet carries a source route.
#[inline(always)]
pub fn has_source_route(frame: &XdpFrame) -> bool {
    let mut at = FIRST;
    for _ in 0..MOST {
        at = option_at(frame.context().pointer(), at);
        if at >= END {
            break;
        }
    }
    at == SOURCE_ROUTE
}

const END: u32 = 0x1000;
const SOURCE_ROUTE: u32 = 0x1001;

/// [`step`] in the shape of a global function: plain numbers in and out.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn option_at(context: *mut xdp_md, at: u32) -> u32 {
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let frame = unsafe { Context::new(context) }.frame();
    match step(&frame, at) {
        Step::Next(next) => next,
        Step::End => END,
        Step::SourceRoute => SOURCE_ROUTE,
    }
}
