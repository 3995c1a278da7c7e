//! Sums over many bytes of a frame. The loop stands in a global function, which the verifier checks once and by itself:
//! within a caller, every number of steps would be another way to go on.

use aya_ebpf::bindings::xdp_md;
use lb_common::{checksum::Sum, icmp::sum_of_frame};

use crate::packet::{Context, XdpFrame};

/// The sum of `length` bytes from `offset` on, see [`sum_of_frame`].
#[inline(always)]
pub fn of_frame(frame: &XdpFrame, offset: usize, length: u16) -> Option<Sum> {
    match sum_of_bytes(frame.context().pointer(), offset as u32, length as u32) {
        NONE => None,
        sum => Some(Sum::begun(sum as u32)),
    }
}

const NONE: u64 = u64::MAX;

/// [`of_frame`] in the shape of a global function: plain numbers in and out.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sum_of_bytes(context: *mut xdp_md, offset: u32, length: u32) -> u64 {
    // SAFETY: the program's own argument; the caller's frame is not in use during this call, and not moved.
    let frame = unsafe { Context::new(context) }.frame();
    match sum_of_frame(&frame.stepwise(), (offset & 0xff) as usize, length as usize) {
        Some(sum) => sum.unfolded() as u64,
        None => NONE,
    }
}
