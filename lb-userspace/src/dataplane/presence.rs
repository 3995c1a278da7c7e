//! The filter in front of the service table: one bit for each address that has an entry.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use lb_common::abi::{Address, Presence};

use super::mapped::Words;

/// The filter, and how many entries keep each bit set.
pub(super) struct Filter {
    words: Words,
    entries: HashMap<Presence, u32, RandomState>,
}

impl Filter {
    /// The filter over a map, of a table that holds entries of these addresses (each as often as it has entries). Packets
    /// may be asking it already: no bit that is needed is ever clear.
    pub(super) fn adopt(words: Words, addresses: impl IntoIterator<Item = Address>) -> Self {
        let mut filter = Self { words, entries: HashMap::default() };
        for address in addresses {
            *filter.entries.entry(Presence::of(&address)).or_default() += 1;
        }
        let mut set = vec![0; filter.words.len()];
        for place in filter.entries.keys() {
            set[place.word as usize] |= place.mask;
        }
        for (word, set) in set.into_iter().enumerate() {
            filter.words.store(word, set);
        }
        filter
    }

    /// Before an entry of this address is published.
    pub(super) fn add(&mut self, address: &Address) {
        let place = Presence::of(address);
        let count = self.entries.entry(place).or_default();
        *count += 1;
        if *count == 1 {
            self.words.set(place.word as usize, place.mask, true);
        }
    }

    /// After an entry of this address has been removed.
    pub(super) fn remove(&mut self, address: &Address) {
        let place = Presence::of(address);
        if let Some(count) = self.entries.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.entries.remove(&place);
                self.words.set(place.word as usize, place.mask, false);
            }
        }
    }
}
