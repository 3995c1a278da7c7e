//! Per-CPU counters. A packet ends in exactly one: its backend's, or a reason's.

use aya_ebpf::maps::PerCpuArray;
use lb_common::abi::{BackendCounters, BackendId, REASONS, Reason, trace_flag};

use crate::{
    maps::{COUNTERS, REASON_COUNTS},
    trace,
    verdict::Verdict,
};

/// Counts a packet sent to a backend.
#[inline(always)]
pub fn request(backend: BackendId, length: u16, is_opening: bool) {
    if trace::sent(backend, trace_flag::REQUEST) {
        return;
    }
    with(&COUNTERS, backend.0, |counters: &mut BackendCounters| {
        counters.packets += 1;
        counters.bytes += length as u64;
        counters.flows += is_opening as u64;
    });
}

/// Counts a packet sent back from a backend.
#[inline(always)]
pub fn reply(backend: BackendId, length: u16, is_reset: bool) {
    if trace::sent(backend, trace_flag::REPLY) {
        return;
    }
    with(&COUNTERS, backend.0, |counters: &mut BackendCounters| {
        counters.reply_packets += 1;
        counters.reply_bytes += length as u64;
        counters.reply_resets += is_reset as u64;
    });
}

/// Counts what a verdict is to be counted as.
#[inline(always)]
pub fn verdict(verdict: Verdict) {
    if let Some(reason) = verdict.reason() {
        number(reason, verdict.service());
    }
}

/// Counts something that happened beside a packet's verdict.
#[inline(always)]
pub fn reason(reason: Reason, service: u32) {
    if trace::beside(reason) {
        return;
    }
    number(reason as u32, service);
}

#[inline(always)]
fn number(reason: u32, service: u32) {
    with(&REASON_COUNTS, service.wrapping_mul(REASONS).wrapping_add(reason), |count| *count += 1);
}

#[inline(always)]
fn with<T>(map: &PerCpuArray<T>, index: u32, change: impl FnOnce(&mut T)) {
    if let Some(entry) = map.get_ptr_mut(index) {
        // SAFETY: the entry is this CPU's own, XDP programs do not preempt one another on a CPU, and the map outlives
        // the program. User space reads whole words.
        change(unsafe { &mut *entry });
    }
}
