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
    /// The filter over a map, of a table that holds entries of these addresses (each as often as it has entries). Packets
    /// may be asking it already: no bit that is needed is ever clear.
    pub(super) fn adopt(words: Words, addresses: impl IntoIterator<Item = Address>) -> Self {
        let mut filter = Self { words, entries: HashMap::new() };
        for address in addresses {
            *filter.entries.entry(Presence::of(&address)).or_default() += 1;
        }
        for word in 0..filter.words.len() as u32 {
            filter.write(word);
        }
        filter
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

    fn write(&self, word: u32) {
        let bits = (0..64).map(|bit| 1u64 << bit);
        let set = bits.filter(|mask| self.entries.contains_key(&Presence { word, mask: *mask }));
        self.words.store(word as usize, set.fold(0, |all, mask| all | mask));
    }
}
