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

/// Makes a SYN-ACK offer `by` bytes less, which lb will need.
#[inline(always)]
pub fn lower(context: Context, transport: usize, by: u16) {
    lower_mss(context.pointer(), transport as u32, by as u32);
}

/// [`clamp`] in the shape of a global function. 1 if the packet has changed.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn clamp_mss(context: *mut xdp_md, transport: u32, service: u32) -> u32 {
    let Some(rules) = OPENING_RULES.get(service) else { return 0 };
    let (most, transport) = (rules.mss as u16, (transport & 0xff) as usize);
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let context = unsafe { Context::new(context) };
    let Some(at) = option(context, transport) else { return 0 };
    mss::clamp(&mut context.frame(), transport, at, most).unwrap_or(false) as u32
}

/// [`lower`] in the same shape.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn lower_mss(context: *mut xdp_md, transport: u32, by: u32) -> u32 {
    let transport = (transport & 0xff) as usize;
    // SAFETY: as above.
    let context = unsafe { Context::new(context) };
    let Some(at) = option(context, transport) else { return 0 };
    mss::lower(&mut context.frame(), transport, at, by as u16).unwrap_or(false) as u32
}

/// Where the option is.
#[inline(always)]
fn option(context: Context, transport: usize) -> Option<usize> {
    let (begin, end) = mss::options(&context.frame(), transport)?;
    let mut place = Place::at(begin);
    for _ in 0..MOST_OPTIONS {
        place = Place(mss_option_at(context.pointer(), place.0, end));
        if place.is_over() {
            break;
        }
    }
    place.found()
}

/// [`mss::step`] in the same shape.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn mss_option_at(context: *mut xdp_md, place: u32, end: u32) -> u32 {
    // SAFETY: as above.
    let frame = unsafe { Context::new(context) }.frame();
    mss::step(&frame, Place(place), end).0
}
