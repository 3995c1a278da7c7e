//! Clients that a service remembers: all their flows go to one backend until they have been silent for the service's time. The flow
//! in hand is the one in the scratch.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated};
use lb_common::{
    abi::{BackendId, Policy, Reason, RememberedSource, backend_flag, policy_flag},
    select::TOUCH_JIFFIES,
};

use crate::{
    config, count,
    maps::{self, POLICIES, SOURCES},
    scratch::{Scratch, scratch},
};

/// The number of the backend where the client's flows go; 0 = it is not remembered, or its backend cannot be used any more.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn backend_of_client(service: u32) -> u32 {
    let Some(policy) = POLICIES.get(service) else { return BackendId::NONE.0 };
    if policy.flags & policy_flag::PERSIST == 0 {
        return BackendId::NONE.0;
    }
    let Some(scratch) = scratch() else { return BackendId::NONE.0 };
    name(scratch, policy, service);
    let Some(entry) = SOURCES.get_ptr(&scratch.source) else { return BackendId::NONE.0 };
    // SAFETY: the pointer is to a map's value, copied at once. One that is removed and used for another client in between is that of
    // somebody who has just been forgotten.
    let entry = unsafe { *entry };
    if is_usable(&entry, policy, service, now()) { entry.backend.0 } else { BackendId::NONE.0 }
}

/// The client of a confirmed flow is heard of: it is remembered from now on, and for longer.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn client_heard_of(service: u32, backend: u32) -> u32 {
    let Some(policy) = POLICIES.get(service) else { return 0 };
    if policy.flags & policy_flag::PERSIST == 0 || config::is_dry_run() {
        return 0;
    }
    let Some(scratch) = scratch() else { return 0 };
    name(scratch, policy, service);
    let now = now();
    if let Some(entry) = SOURCES.get_ptr(&scratch.source) {
        // SAFETY: as above.
        let entry = unsafe { *entry };
        let is_here = entry.backend.0 == backend;
        if is_here && now.wrapping_sub(entry.last_seen) < TOUCH_JIFFIES {
            return 0;
        }
        // An old flow does not take its client along: whoever is remembered where it can be served stays there.
        if !is_here && is_usable(&entry, policy, service, now) {
            return 0;
        }
    }
    scratch.remembered = RememberedSource { backend: BackendId(backend), _pad: 0, last_seen: now };
    if SOURCES.insert(&scratch.source, &scratch.remembered, BPF_ANY as u64).is_err() {
        count::reason(Reason::SourceRefused, service);
    }
    1
}

/// Whether a client is still remembered, and its backend takes it.
#[inline(always)]
fn is_usable(entry: &RememberedSource, policy: &Policy, service: u32, now: u64) -> bool {
    let unusable = backend_flag::DOWN | backend_flag::REMOVED;
    // Without a minus: another CPU may have written a later time.
    now <= entry.last_seen.wrapping_add(policy.source_idle)
        && maps::backend(entry.backend)
            .is_some_and(|row| row.flags & unusable == 0 && row.service == service)
}

/// Writes the client's key, word by word: what is in hand takes no stack, of which there is little left here.
#[inline(always)]
fn name(scratch: &mut Scratch, policy: &Policy, service: u32) {
    let is_v4 = scratch.flow.source.is_v4();
    for word in 0..4 {
        let kept = scratch.flow.source.words[word].and(policy.prefix.mask(is_v4, word as u32));
        let place = &raw mut scratch.source.source.words[word];
        // SAFETY: the scratch is exclusively ours. Volatile, so that the words do not wait for one another.
        unsafe { place.write_volatile(kept) };
    }
    scratch.source.service = service;
    scratch.source._pad = 0;
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { generated::bpf_jiffies64() }
}
