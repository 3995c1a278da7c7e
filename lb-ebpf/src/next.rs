//! Going on to another program of the object, each of which the verifier looks at by itself and has a stack of its own. A tail call
//! comes back only if there is no such program.

use aya_ebpf::programs::XdpContext;
use lb_common::abi::next_program;

use crate::{config, maps::PROGRAMS, packet::Context};

/// From the fast path to the balancer.
#[inline(always)]
pub fn balancer(context: Context) {
    tail_call(context, next_program::BALANCER);
}

/// To the program that does full nat.
#[inline(always)]
pub fn fullnat(context: Context) {
    tail_call(context, config::MODE.load());
}

#[inline(always)]
fn tail_call(context: Context, index: u32) {
    // SAFETY: whoever calls has nothing left to do with the frame.
    unsafe { PROGRAMS.tail_call(&XdpContext::new(context.pointer()), index) };
}
