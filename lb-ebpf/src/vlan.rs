//! VLAN tags come off before anything else is done, and are put back on what leaves ([`lb_common::vlan`]). Only a program
//! loaded for VLANs has any of this.
//!
//! Both steps are global functions: the verifier knows nothing of what they return, and so it follows the way of a packet
//! once, not once for each number of tags. Between them the tags are kept beside the stack, of which none is left.

use aya_ebpf::bindings::xdp_md;
use lb_common::vlan::{self, Tags};

use crate::{packet::Context, scratch::scratch};

/// Takes the tags off an IP packet's frame, if it has any.
#[inline(always)]
pub fn take_off(context: Context) {
    untag(context.pointer());
}

/// Puts them back. False if there is no room in front of the frame.
#[inline(always)]
pub fn put_back(context: Context) -> bool {
    retag(context.pointer()) != 0
}

/// [`take_off`] in the shape of a global function. Returns how many bytes have gone.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn untag(context: *mut xdp_md) -> u32 {
    // SAFETY: the program's own argument; nobody has made a frame of it yet.
    let frame = unsafe { Context::new(context) }.frame();
    let Some(scratch) = scratch() else { return 0 };
    scratch.tags = 0;
    let take_off = || {
        let tags = vlan::read(&frame)?;
        let macs = vlan::macs(&frame)?;
        let mut frame = frame.move_start(tags.length() as i32)?;
        vlan::begin_untagged(&mut frame, macs)?;
        Some(tags)
    };
    match take_off() {
        Some(tags) => {
            scratch.tags = tags.word();
            tags.length() as u32
        }
        None => 0,
    }
}

/// [`put_back`] in the same shape.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn retag(context: *mut xdp_md) -> u32 {
    // SAFETY: the program's own argument; the caller has no frame of it in use.
    let frame = unsafe { Context::new(context) }.frame();
    let Some(scratch) = scratch() else { return 0 };
    let Some(tags) = Tags::of(scratch.tags) else { return 1 };
    let put_back = || {
        let macs = vlan::macs(&frame)?;
        let mut frame = frame.move_start(-(tags.length() as i32))?;
        vlan::begin_tagged(&mut frame, macs, tags)
    };
    put_back().is_some() as u32
}
