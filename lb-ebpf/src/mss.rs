//! Clamps the maximum segment size that TCP handshakes offer (the rules are [`lb_common::mss`]). The walk is made of global functions, which
//! the verifier checks once: within one function, each combination of options would be another way to go on.

use aya_ebpf::bindings::xdp_md;
use lb_common::mss::{self, MOST_OPTIONS, Place};

use crate::{maps::OPENING_RULES, packet::Context};

/// Makes a SYN or SYN-ACK of the service, whose TCP header is at `transport`, offer no more than the service allows.
#[inline(always)]
pub fn clamp(context: Context, transport: usize, service: u32) {
    clamp_mss(context.pointer(), transport as u32, service);
}

/// [`clamp`] in the shape of a global function. 1 if the packet has changed.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn clamp_mss(context: *mut xdp_md, transport: u32, service: u32) -> u32 {
    let Some(rules) = OPENING_RULES.get(service) else { return 0 };
    let most = rules.mss as u16;
    let transport = (transport & 0xff) as usize;
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let mut frame = unsafe { Context::new(context) }.frame();
    let Some((begin, end)) = mss::options(&frame, transport) else { return 0 };
    let mut place = Place::at(begin);
    for _ in 0..MOST_OPTIONS {
        place = Place(mss_option_at(context, place.0, end));
        if place.is_over() {
            break;
        }
    }
    let Some(at) = place.found() else { return 0 };
    mss::clamp(&mut frame, transport, at, most).unwrap_or(false) as u32
}

/// [`mss::step`] in the same shape.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mss_option_at(context: *mut xdp_md, place: u32, end: u32) -> u32 {
    // SAFETY: as above.
    let frame = unsafe { Context::new(context) }.frame();
    mss::step(&frame, Place(place), end).0
}
