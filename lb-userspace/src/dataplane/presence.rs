//! The filter in front of the service table: one bit for each address that has an entry.

use std::collections::HashMap;

use lb_common::abi::{Address, Presence};

use super::mapped::Words;

/// The filter, and how many entries keep each bit set.
pub(super) struct Filter {
    words: Words,
    entries: HashMap<Presence, usize>,
}

impl Filter {
    /// A filter over a map, to be told of what the table holds by [`Self::add`], then [`Self::clear_others`].
    pub(super) fn new(words: Words) -> Self {
        Self { words, entries: HashMap::new() }
    }

    /// Before an entry of this address is published.
    pub(super) fn add(&mut self, address: &Address) {
        let place = Presence::of(address);
        *self.entries.entry(place).or_default() += 1;
        self.write(place.word);
    }

    /// After an entry of this address has been removed.
    pub(super) fn remove(&mut self, address: &Address) {
        let place = Presence::of(address);
        if let Some(count) = self.entries.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.entries.remove(&place);
            }
        }
        self.write(place.word);
    }

    /// Clears the bits of addresses that were not added: what an earlier daemon has left.
    pub(super) fn clear_others(&mut self) {
        for word in 0..self.words.len() as u32 {
            self.write(word);
        }
    }

    fn write(&mut self, word: u32) {
        let bits = (0..64).map(|bit| 1u64 << bit);
        let set = bits.filter(|mask| self.entries.contains_key(&Presence { word, mask: *mask }));
        self.words.store(word as usize, set.fold(0, |all, mask| all | mask));
    }
}
