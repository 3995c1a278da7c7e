//! Tells what becomes of a packet, to a dry run and to a capture. In the plain mode the verifier removes all of it.

use aya_ebpf::helpers::generated;
use lb_common::abi::{BackendId, Reason, Slot, Trace, mode, trace_flag};

use crate::{capture, config, maps, packet::Context, verdict::Verdict};

/// A packet has come.
#[inline(always)]
pub fn begin(context: Context) {
    with(|trace| *trace = Trace { time: now(), ..Trace::default() });
    if config::MODE.load() == mode::CAPTURE {
        capture::before(context);
    }
}

/// It has been dealt with.
#[inline(always)]
pub fn end(context: Context, verdict: Verdict) {
    with(|trace| trace.verdict = verdict.word());
    if config::MODE.load() == mode::CAPTURE {
        capture::after(context);
    }
}

/// It goes to a backend, or comes from it, as `flag` says ([`trace_flag`]). True if it is not to be counted.
#[inline(always)]
pub fn sent(backend: BackendId, flag: u32) -> bool {
    tell(|trace| {
        trace.backend = backend;
        trace.flags |= flag;
    })
}

/// It was meant for a backend, and does not get there.
#[inline(always)]
pub fn chosen(backend: BackendId) {
    tell(|trace| {
        trace.backend = backend;
        trace.flags |= trace_flag::CHOSEN;
    });
}

/// Something is counted beside its verdict. True if it is not to be counted.
#[inline(always)]
pub fn beside(reason: Reason) -> bool {
    tell(|trace| trace.beside |= 1 << (reason as u32 & 63))
}

/// Its flow's slot is not settled.
#[inline(always)]
pub fn changing(slot: Slot) {
    tell(|trace| {
        trace.slot = slot;
        trace.flags |= trace_flag::CHANGING;
    });
}

/// It is sent by another NIC.
#[inline(always)]
pub fn egress(ifindex: u32) {
    tell(|trace| trace.egress = ifindex);
}

/// What is known of the packet in hand.
#[inline(always)]
pub fn current() -> Option<*mut Trace> {
    let place = match config::MODE.load() {
        mode::CAPTURE => {
            // SAFETY: a helper without arguments.
            unsafe { generated::bpf_get_smp_processor_id() }
        }
        _ => 0,
    };
    maps::TRACE.get_ptr_mut(place)
}

#[inline(always)]
fn tell(change: impl FnOnce(&mut Trace)) -> bool {
    let mode = config::MODE.load();
    if mode == mode::PLAIN {
        return false;
    }
    with(change);
    mode == mode::DRY_RUN
}

#[inline(always)]
fn with(change: impl FnOnce(&mut Trace)) {
    if let Some(trace) = current() {
        // SAFETY: the entry is this CPU's own, or the only dry run's; the map outlives the program.
        change(unsafe { &mut *trace });
    }
}

#[inline(always)]
fn now() -> u64 {
    if config::MODE.load() != mode::CAPTURE {
        return 0;
    }
    // SAFETY: a helper without arguments.
    unsafe { generated::bpf_ktime_get_ns() }
}
