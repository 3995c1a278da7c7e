//! Chooses a backend for a new flow of a service that remembers every flow, by the service's policy (the rules are
//! [`lb_common::balance`]).

use lb_common::{
    abi::{BackendId, ServiceRow, algorithm},
    balance::{Candidate, MEMBERS, STEPS, draw},
    hash::slot_of,
};

use crate::{
    load,
    maps::{self, LOADS, POLICIES, SERVICE_LOADS},
};

/// What a choice depends on.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ask {
    /// The service's id.
    pub service: u32,
    /// The hash that the ring is asked by.
    pub hash: u32,
    /// First slot of the ring.
    pub ring: u32,
    /// Its length.
    pub slots: u32,
}

impl Ask {
    /// For a flow with this hash.
    #[inline(always)]
    pub fn of(service: &ServiceRow, hash: u32) -> Self {
        Self { service: service.id, hash, ring: service.ring, slots: service.slots }
    }
}

/// The number of a backend for a new flow; 0 = nobody.
#[inline(always)]
pub fn choose(ask: &Ask) -> u32 {
    choose_backend(ask.service, ask.hash, ask.ring, ask.slots)
}

/// [`choose`] in the shape of a global function, which is verified once: plain numbers in and out.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn choose_backend(service: u32, hash: u32, ring: u32, slots: u32) -> u32 {
    let Some(policy) = POLICIES.get(service) else { return NOBODY };
    // SAFETY: a word of a map's value, which the controller stores whole: start and length fit one another.
    let schedule = unsafe { (&raw const policy.schedule).cast::<u64>().read_volatile() };
    let (start, length) = (schedule as u32, (schedule >> 32) as u32);
    match policy.algorithm {
        algorithm::TURN if length > 0 => {
            let turn = load::take_turn(service);
            owner(start.wrapping_add((turn % length as u64) as u32))
        }
        algorithm::TWO if length > 0 => {
            let turn = load::take_turn(service);
            let (one, other) = draw(turn, hash, length);
            let one = candidate_at(start.wrapping_add(one));
            let other = candidate_at(start.wrapping_add(other));
            if other.is_better_than(&one) { other.id } else { one.id }
        }
        algorithm::LEAST => least(service, load::take_turn(service), BY_WHAT_THEY_GET),
        algorithm::RING if policy.factor != 0 => bounded(service, hash, ring, slots),
        algorithm::RING => owner(ring.wrapping_add(slot_of(hash, slots))),
        _ => NOBODY,
    }
}

const NOBODY: u32 = BackendId::NONE.0;

/// The first on the ring from the flow's slot on that has room; the least loaded one if none of the first few has.
#[inline(always)]
fn bounded(service: u32, hash: u32, ring: u32, slots: u32) -> u32 {
    let Some(policy) = POLICIES.get(service) else { return NOBODY };
    let Some(all) = SERVICE_LOADS.get_ptr(service) else { return NOBODY };
    // SAFETY: a word of a map's value.
    let all = unsafe { (&raw const (*all).connections).read_volatile() };
    let mut slot = slot_of(hash, slots);
    for _ in 0..STEPS {
        let candidate = candidate_at(ring.wrapping_add(slot));
        if candidate.has_room(policy.factor, all, policy.total_weight) {
            return candidate.id;
        }
        slot = slot.wrapping_add(1);
        if slot >= slots {
            slot = 0;
        }
    }
    least(service, 0, BY_WHAT_THEY_HAVE)
}

/// The new connection counts for whoever might get it.
const BY_WHAT_THEY_GET: u32 = 0;
/// It does not: then the least loaded member has room within every bound.
const BY_WHAT_THEY_HAVE: u32 = 1;

/// The least loaded member; among equals the first from the turn on.
#[inline(always)]
fn least(service: u32, turn: u64, by: u32) -> u32 {
    least_loaded(service, turn as u32, (turn >> 32) as u32, by)
}

/// [`least`] in the shape of a global function, which is verified once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn least_loaded(service: u32, turn_low: u32, turn_high: u32, by: u32) -> u32 {
    let Some(policy) = POLICIES.get(service) else { return NOBODY };
    // SAFETY: a word of a map's value, which the controller stores whole: start and length fit one another.
    let members = unsafe { (&raw const policy.members).cast::<u64>().read_volatile() };
    let (start, length) = (members as u32, (members >> 32) as u32);
    if length == 0 {
        return NOBODY;
    }
    let turn = turn_low as u64 | (turn_high as u64) << 32;
    let first = (turn % length as u64) as u32;
    let mut best = first;
    for step in 1..MEMBERS {
        if step >= length {
            break;
        }
        best = better_of(start, length, first.wrapping_add(step), best, by);
    }
    let best = candidate_at(place_of(start, length, best));
    if best.weight == 0 { NOBODY } else { best.id }
}

/// The better one of two members, by their indexes, the first of them only if it is strictly better. A global function: what it
/// returns is any number to the verifier, so that the steps of the loop around it are all alike.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn better_of(start: u32, length: u32, one: u32, other: u32, by: u32) -> u32 {
    let first = candidate_at(place_of(start, length, one));
    let second = candidate_at(place_of(start, length, other));
    let is_better = match by {
        BY_WHAT_THEY_HAVE => first.is_emptier_than(&second),
        _ => first.is_better_than(&second),
    };
    if is_better { one } else { other }
}

/// Indexes go once around.
#[inline(always)]
fn place_of(start: u32, length: u32, index: u32) -> u32 {
    let index = if index >= length { index.wrapping_sub(length) } else { index };
    start.wrapping_add(index)
}

#[inline(always)]
fn owner(place: u32) -> u32 {
    let Some(slot) = maps::slot(place) else { return NOBODY };
    slot.owner().0
}

#[inline(always)]
fn candidate_at(place: u32) -> Candidate {
    let Some(slot) = maps::slot(place) else { return Candidate::NOBODY };
    let id = slot.owner().0;
    let Some(load) = LOADS.get_ptr(id) else { return Candidate::NOBODY };
    // SAFETY: the pointer is to a map's value; whoever writes these words writes them whole.
    unsafe {
        Candidate {
            id,
            connections: (&raw const (*load).connections).read_volatile(),
            weight: (&raw const (*load).weight).read_volatile(),
        }
    }
}
