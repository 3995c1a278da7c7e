//! Shows the controller some of the packets that are dropped.

use aya_ebpf::helpers::generated;
use lb_common::{
    abi::{DroppedSample, REASONS, SAMPLE_BYTES},
    frame::{Ethernet, Frame as _},
};

use crate::{limit, maps, packet::Context, verdict::Verdict};

const ETHERNET: usize = size_of::<Ethernet>();

/// Records the frame's start, if its reason's rate allows and the controller keeps up.
#[inline(always)]
pub fn dropped(context: Context, verdict: Verdict) {
    let Some(reason) = verdict.reason() else { return };
    if reason >= REASONS || !limit::may_sample(reason) {
        return;
    }
    // A full ring means that the controller has samples enough.
    let Some(mut entry) = maps::SAMPLES.reserve::<DroppedSample>(0) else { return };
    let length = context.frame().length();
    // No frame is shorter than its Ethernet header: so the verifier sees that the helper is never asked for nothing.
    let more = length.wrapping_sub(ETHERNET);
    let captured =
        ETHERNET + if more < SAMPLE_BYTES - ETHERNET { more } else { SAMPLE_BYTES - ETHERNET };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted, as long as the type, and aligned to 8; every field is written, but
    // for bytes that `captured` says not to read. The helper writes `captured` bytes, at most as many as there are.
    unsafe {
        (&raw mut (*record).service).write(verdict.service());
        (&raw mut (*record).reason).write(reason);
        (&raw mut (*record).ifindex).write(context.ingress());
        (&raw mut (*record).length).write(length as u16);
        let bytes = (&raw mut (*record).bytes).cast();
        let loaded = generated::bpf_xdp_load_bytes(context.pointer(), 0, bytes, captured as u32);
        (&raw mut (*record).captured).write(if loaded == 0 { captured as u16 } else { 0 });
    }
    entry.submit(0);
}
