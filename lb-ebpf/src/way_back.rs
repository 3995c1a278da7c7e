//! Remembers by which MAC address clients' packets come, and answers the same way while nobody knows better.

use lb_common::{abi::Address, frame::Mac, way_back::Place};

use crate::{config, maps::WAYS_BACK};

/// Notes where a client's packet came from.
#[inline(always)]
pub fn note(client: &Address, ifindex: u32, mac: Mac) {
    if config::is_dry_run() {
        return;
    }
    let place = Place::of(client, ifindex);
    let Some(entry) = WAYS_BACK.get_ptr_mut(place.index) else { return };
    let word = place.word(mac);
    // SAFETY: the pointer is to a map's value, one aligned word that everybody reads and writes whole. It is written
    // only when it changes, so that CPUs do not take its cache line from one another.
    unsafe {
        if entry.read_volatile() != word {
            entry.write_volatile(word);
        }
    }
}

/// Where the client's packets last came from.
#[inline(always)]
pub fn look(client: &Address, ifindex: u32) -> Option<Mac> {
    let place = Place::of(client, ifindex);
    let entry = WAYS_BACK.get_ptr(place.index)?;
    // SAFETY: as above.
    place.mac(unsafe { entry.read_volatile() })
}
