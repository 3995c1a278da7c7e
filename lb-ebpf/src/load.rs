//! Loads of backends and services: words that all CPUs and the controller add to.

use lb_common::{abi::BackendId, track::Change};

use crate::{
    atomic, config,
    maps::{LOADS, SERVICE_LOADS},
};

/// A connection more or less.
#[inline(always)]
pub fn count(service: u32, backend: BackendId, change: Change) {
    let more = match change {
        Change::Opened => 1,
        Change::Closed => u64::MAX,
    };
    if let Some(load) = LOADS.get_ptr_mut(backend.0) {
        // SAFETY: the pointer is to a map's value, and everybody else adds to this word by atomic operations, too.
        unsafe { atomic::add(&raw mut (*load).connections, more) };
    }
    if let Some(load) = SERVICE_LOADS.get_ptr_mut(service) {
        // SAFETY: as above.
        unsafe { atomic::add(&raw mut (*load).connections, more) };
    }
}

/// Entries in `FLOWS_NEW` more (or less).
#[inline(always)]
pub fn add_unconfirmed(service: u32, more: i64) {
    if let Some(load) = SERVICE_LOADS.get_ptr_mut(service) {
        // SAFETY: as in `count`.
        unsafe { atomic::add(&raw mut (*load).unconfirmed, more as u64) };
    }
}

/// Entries in `FLOWS` more (or less).
#[inline(always)]
pub fn add_confirmed(service: u32, more: i64) {
    if let Some(load) = SERVICE_LOADS.get_ptr_mut(service) {
        // SAFETY: as in `count`.
        unsafe { atomic::add(&raw mut (*load).confirmed, more as u64) };
    }
}

/// The next turn of a service, which a dry run does not take.
#[inline(always)]
pub fn take_turn(service: u32) -> u64 {
    let Some(load) = SERVICE_LOADS.get_ptr_mut(service) else { return 0 };
    // SAFETY: as in `count`.
    unsafe {
        let turn = &raw mut (*load).turn;
        if config::is_dry_run() { turn.read_volatile() } else { atomic::fetch_add(turn, 1) }
    }
}
