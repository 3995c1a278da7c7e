//! Whether a connection may be opened now: limits of rate, and the SYN-flood stage (the rules are [`lb_common::limit`],
//! [`lb_common::source_rate`] and [`lb_common::syn_flood`]). Only SYNs and resets of services that want it are looked at.
//!
//! The kernel decides alone: nothing here waits for the controller, which writes the rules and reads the states.

use aya_ebpf::helpers::generated;
use lb_common::{
    abi::{Address, FlowKey, OpeningRules, Reason, SourceRate, service_flag},
    frame::{Frame, Tcp, be32, tcp_flag},
    ip::IpHeader,
    limit::Limit,
    parse::{self, Family},
    source_rate,
    syn_flood::{FloodState, Verified, window},
};

use crate::{
    atomic, config,
    maps::{COOKIE_KEYS, OPENING_RULES, OPENING_STATES, SOURCE_RATES, VERIFIED},
    packet::Context,
    verdict::Verdict,
};

/// Attempts at a word that other CPUs change at the same time. Each that fails means that another CPU has admitted somebody.
const ATTEMPTS: u32 = 8;

/// What is to be done with a packet: plain numbers, which functions of the program can return.
mod decision {
    pub const ADMIT: u32 = 0;
    pub const CHALLENGE: u32 = 1;
    pub const PROOF: u32 = 2;
    pub const SOURCE_RATE: u32 = 3;
    pub const SERVICE_RATE: u32 = 4;
}
use decision::{ADMIT, CHALLENGE, PROOF, SERVICE_RATE, SOURCE_RATE};

/// Flags of services whose openings are looked at.
pub const LOOKED_AT: u32 = service_flag::LIMIT_OPENINGS | service_flag::SYN_FLOOD;

/// Lets a TCP packet in, or says what becomes of it.
#[inline(always)]
pub fn check<F: Family>(
    context: Context,
    flags: u8,
    service: u32,
    service_flags: u32,
) -> Result<(), Verdict> {
    let is_opening = flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    let may_prove = flags & tcp_flag::RST != 0 && service_flags & service_flag::SYN_FLOOD != 0;
    if config::LIMIT_OPENINGS.load() == 0 || !(is_opening || may_prove) {
        return Ok(());
    }
    let decision = match is_opening {
        true => opening::<F>(context, service, service_flags),
        false => reset::<F>(context, service),
    };
    let drop = |reason| Err(Verdict::drop(reason, service));
    match decision {
        CHALLENGE => Err(Verdict::challenge(service)),
        PROOF => drop(Reason::SynProof),
        SOURCE_RATE => drop(Reason::SourceRate),
        SERVICE_RATE => drop(Reason::ServiceRate),
        _ => Ok(()),
    }
}

/// Decides about a SYN. A function of its own, for the stack's sake.
#[inline(never)]
fn opening<F: Family>(context: Context, service: u32, service_flags: u32) -> u32 {
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return ADMIT };
    let Some(rules) = OPENING_RULES.get(service) else { return ADMIT };
    let source = &outline.flow.source;
    if service_flags & service_flag::SYN_FLOOD != 0
        && rules.engage != 0
        && is_engaged(service, rules)
        && !is_verified(source)
    {
        return CHALLENGE;
    }
    if service_flags & service_flag::LIMIT_OPENINGS == 0 {
        return ADMIT;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { generated::bpf_ktime_get_ns() };
    let of_source = Limit { interval: rules.source_interval, burst: rules.source_burst };
    if of_source.interval != 0 && !admit_source::<F>(source, service, &of_source, now) {
        return SOURCE_RATE;
    }
    let of_service = Limit { interval: rules.interval, burst: rules.burst };
    if of_service.interval != 0 && !admit_service(service, &of_service, now) {
        return SERVICE_RATE;
    }
    ADMIT
}

/// Decides about a reset: one with a cookie proves its source, and was for lb alone.
#[inline(never)]
fn reset<F: Family>(context: Context, service: u32) -> u32 {
    let Some(rules) = OPENING_RULES.get(service) else { return ADMIT };
    let Some(state) = OPENING_STATES.get_ptr_mut(service) else { return ADMIT };
    let now = clock();
    // SAFETY: the pointer is to a map's value; the word is read whole.
    let flood = FloodState(unsafe { (&raw const (*state).flood).read_volatile() });
    if rules.engage == 0 || !flood.is_engaged(window(now), rules.release) {
        return ADMIT;
    }
    let frame = context.frame();
    let Some(outline) = parse::outline::<F>(&frame) else { return ADMIT };
    let Some(tcp) = frame.view::<Tcp>(outline.transport) else { return ADMIT };
    let number = be32(tcp.sequence).to_host();
    let Some(keys) = COOKIE_KEYS.get(0) else { return ADMIT };
    let FlowKey { source, destination, .. } = &outline.flow;
    if !keys.is_cookie(number, source, destination, now) {
        return ADMIT;
    }
    if !config::is_dry_run() {
        verify(source, window(now));
    }
    PROOF
}

/// The cookie for a SYN now.
#[inline(always)]
pub fn cookie(flow: &FlowKey) -> Option<u32> {
    Some(COOKIE_KEYS.get(0)?.cookie(&flow.source, &flow.destination, clock()))
}

/// Counts a SYN, and tells whether unknown sources are challenged.
#[inline(always)]
fn is_engaged(service: u32, rules: &OpeningRules) -> bool {
    let Some(state) = OPENING_STATES.get_ptr_mut(service) else { return false };
    // SAFETY: the pointer is to a map's value, whose word is used by atomic operations only.
    let word = unsafe { &raw mut (*state).flood };
    // SAFETY: as above.
    let flood = FloodState(unsafe { word.read_volatile() });
    let window = window(clock());
    if config::is_dry_run() {
        return flood.is_engaged(window, rules.release);
    }
    if flood.window() != window {
        let next = flood.next(window, rules.release);
        // SAFETY: as above.
        if unsafe { atomic::compare_and_swap(word, flood.0, next.0) } == flood.0 {
            return next.is_engaged(window, rules.release);
        }
        // Another CPU was first: the window has begun.
    }
    // SAFETY: as above.
    unsafe { atomic::add(word, 1) };
    if flood.window() == window && flood.count() >= rules.engage {
        if flood.0 & FloodState::ENGAGED == 0 {
            // SAFETY: as above.
            unsafe { atomic::or(word, FloodState::ENGAGED) };
        }
        return true;
    }
    flood.is_engaged(window, rules.release)
}

#[inline(always)]
fn is_verified(source: &Address) -> bool {
    let verified = Verified::of(&config::hash_keys(false), source);
    VERIFIED.get(verified.bucket).is_some_and(|known| known.knows(verified, window(clock())))
}

#[inline(always)]
fn verify(source: &Address, window: u32) {
    let verified = Verified::of(&config::hash_keys(false), source);
    let Some(known) = VERIFIED.get_ptr_mut(verified.bucket) else { return };
    // SAFETY: the pointer is to a map's value. Each word is stored whole; when two sources take one place at the same moment,
    // one of them has to prove itself once more.
    unsafe {
        let place = (*known).place(verified, window) & 7;
        (&raw mut (*known).sources).cast::<u64>().add(place).write_volatile(verified.word(window));
    }
}

#[inline(always)]
fn admit_source<F: Family>(source: &Address, service: u32, limit: &Limit, now: u64) -> bool {
    let name = source_rate::name(&config::hash_keys(F::Header::IS_V6), source, service);
    let Some(bucket) = SOURCE_RATES.get_ptr_mut(source_rate::bucket(name)) else { return true };
    // SAFETY: the pointer is to a map's value of four places; each word is read and written whole. When two sources take one
    // place at the same moment, one of them is forgotten.
    unsafe {
        let place = (*bucket).place(name);
        let entry = (&raw mut (*bucket).sources).cast::<SourceRate>().add(place.index & 3);
        let state = &raw mut (*entry).state;
        if place.known {
            return admit(state, limit, now);
        }
        if !config::is_dry_run() {
            state.write_volatile(limit.admit(0, now).unwrap_or(0));
            (&raw mut (*entry).name).write_volatile(name);
        }
    }
    true
}

#[inline(always)]
fn admit_service(service: u32, limit: &Limit, now: u64) -> bool {
    let Some(state) = OPENING_STATES.get_ptr_mut(service) else { return true };
    // SAFETY: the pointer is to a map's value, whose word is used by atomic operations only.
    unsafe { admit(&raw mut (*state).admitted, limit, now) }
}

/// Takes one of a limit that all CPUs share. Who is refused writes nothing, so that a flood is not slowed by CPUs that want the
/// same word.
///
/// # Safety
/// `word` is aligned and valid for reads and writes, and nobody uses it but by atomic operations.
#[inline(always)]
unsafe fn admit(word: *mut u64, limit: &Limit, now: u64) -> bool {
    for _ in 0..ATTEMPTS {
        // SAFETY: the caller's promise.
        let state = unsafe { word.read_volatile() };
        let Some(next) = limit.admit(state, now) else { return false };
        if config::is_dry_run() {
            return true;
        }
        // SAFETY: the caller's promise.
        if unsafe { atomic::compare_and_swap(word, state, next) } == state {
            return true;
        }
    }
    false
}

#[inline(always)]
fn clock() -> u64 {
    // SAFETY: a helper without arguments; the coarse clock has the resolution of a tick, and costs no more than a load.
    unsafe { generated::bpf_ktime_get_coarse_ns() }
}
