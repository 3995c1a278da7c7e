//! VLAN tags come off before anything else is done, and are put back on what leaves ([`lb_common::vlan`]). Only a program
//! loaded for VLANs has any of this.
//!
//! Both steps are global functions: what they return is a number the verifier knows nothing of, and so it follows the
//! way of a packet once, not once for each number of tags.

use aya_ebpf::bindings::xdp_md;
use lb_common::vlan::{self, Tags};

use crate::packet::Context;

/// Takes the tags off an IP packet's frame; `None` if there are none.
#[inline(always)]
pub fn take_off(context: Context) -> Option<Tags> {
    Tags::of(untag(context.pointer()))
}

/// Puts them back. False if there is no room in front of the frame.
#[inline(always)]
pub fn put_back(context: Context, tags: Tags) -> bool {
    retag(context.pointer(), tags.word()) != 0
}

/// [`take_off`] in the shape of a global function: plain numbers in and out.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn untag(context: *mut xdp_md) -> u64 {
    // SAFETY: the program's own argument; nobody has made a frame of it yet.
    let frame = unsafe { Context::new(context) }.frame();
    let take_off = || {
        let tags = vlan::read(&frame)?;
        let macs = vlan::macs(&frame)?;
        let mut frame = frame.move_start(tags.length() as i32)?;
        vlan::begin_untagged(&mut frame, macs)?;
        Some(tags)
    };
    take_off().map_or(0, Tags::word)
}

/// [`put_back`] in the same shape.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn retag(context: *mut xdp_md, tags: u64) -> u32 {
    // SAFETY: the program's own argument; the caller has no frame of it in use.
    let frame = unsafe { Context::new(context) }.frame();
    let put_back = || {
        let tags = Tags::of(tags)?;
        let macs = vlan::macs(&frame)?;
        let mut frame = frame.move_start(-(tags.length() as i32))?;
        vlan::begin_tagged(&mut frame, macs, tags)
    };
    put_back().is_some() as u32
}
