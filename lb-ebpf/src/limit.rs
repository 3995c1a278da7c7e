//! Rate limits per CPU, so that nobody makes lb flood others with ICMP or the controller with wishes.

use aya_ebpf::helpers::generated;
use lb_common::{
    abi::{Address, BackendId, REASONS, Reason},
    limit::Limit,
};

use crate::{config, maps};

/// ICMP errors and port-unreachables: 100 a second.
const ICMP: Limit = Limit { interval: 10_000_000, burst: 50 };
/// Wishes for neighbours of one class: ten a second. One neighbour asked for without end takes no more than its class.
const WANTED: Limit = Limit { interval: 100_000_000, burst: 2 };

/// Samples of drops for one reason: ten a second.
const SAMPLES: Limit = Limit { interval: 100_000_000, burst: 3 };

/// Samples of replies without a next hop, which the controller sends when it knows one: a thousand a second.
const WAITING: Limit = Limit { interval: 1_000_000, burst: 100 };

/// Failures of backends of one class: a hundred a second. A backend that stays in the ring takes no more than its class.
const FAILURES: Limit = Limit { interval: 10_000_000, burst: 50 };

const WANTED_CLASSES: u32 = 64;
const FAILURE_CLASSES: u32 = 64;
/// Length of the map: ICMP, then the classes of neighbours, then the reasons, then the classes of backends.
pub const LIMITS: u32 = 1 + WANTED_CLASSES + REASONS + FAILURE_CLASSES;

/// Whether an ICMP error may be sent now.
#[inline(always)]
pub fn may_send_icmp() -> bool {
    admit(0, &ICMP)
}

/// Whether a packet dropped for this reason may be shown to the controller now.
#[inline(always)]
pub fn may_sample(reason: u32) -> bool {
    let limit = if reason == Reason::NoNextHop as u32 { &WAITING } else { &SAMPLES };
    admit(1 + WANTED_CLASSES + (reason & (REASONS - 1)), limit)
}

/// Whether the controller may be told now that `neighbour` is wanted.
#[inline(always)]
pub fn may_want(neighbour: &Address) -> bool {
    // Word by word: the address may stand on the stack, where only four bytes of it are aligned.
    let [a, b, c, d] = neighbour.words.map(|word| word.raw());
    let class = (a ^ b ^ c ^ d).wrapping_mul(0x9E37_79B9) >> 26;
    admit(1 + (class & (WANTED_CLASSES - 1)), &WANTED)
}

/// Whether the controller may be told now of a failure of `backend`.
#[inline(always)]
pub fn may_tell_failure(backend: BackendId) -> bool {
    admit(1 + WANTED_CLASSES + REASONS + (backend.0 & (FAILURE_CLASSES - 1)), &FAILURES)
}

#[inline(always)]
fn admit(number: u32, limit: &Limit) -> bool {
    // Nothing is sent by a dry run.
    if config::is_dry_run() {
        return true;
    }
    let Some(state) = maps::LIMITS.get_ptr_mut(number) else { return false };
    // SAFETY: a helper without arguments; the coarse clock has the resolution of a tick, and costs no more than a load.
    let now = unsafe { generated::bpf_ktime_get_coarse_ns() };
    // SAFETY: the entry is this CPU's own, and XDP programs do not preempt one another on a CPU.
    let state = unsafe { &mut *state };
    match limit.admit(*state, now) {
        Some(next) => {
            *state = next;
            true
        }
        None => false,
    }
}
