//! The MAC address that a client's packets last came from, in one word: the way back to a client whom neither the
//! mirrored tables nor the kernel know as a neighbour yet.
//!
//! The table is direct-mapped and forgets by being overwritten. A word is stored and read whole, and its tag ties it to
//! the client and the NIC: a stranger's word is taken for one's own once in 2^16 collisions, and then a frame goes to
//! the wrong host of the right network, which drops it.

use crate::{abi::Address, frame::Mac};

/// Words of the table; 128 KiB in all.
pub const ENTRIES: u32 = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;

/// Where a client's word stands, and the tag it bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in the table.
    pub index: u32,
    tag: u16,
}

impl Place {
    /// The place of a client on a NIC (ifindex, host order).
    ///
    /// A multiplicative hash without a key: whoever makes addresses collide makes lb forget ways back, which is what it did
    /// before it knew any.
    #[inline(always)]
    pub const fn of(client: &Address, ifindex: u32) -> Self {
        let [a, b, c, d] = client.words;
        let folded = a.raw() ^ b.raw() ^ c.raw() ^ d.raw() ^ ifindex.rotate_left(16);
        let hash = folded.wrapping_mul(0x9E37_79B1);
        Self { index: hash >> (u32::BITS - INDEX_BITS), tag: (hash >> 2) as u16 }
    }

    /// The word that remembers `mac`. Never 0, which is an empty word: no station has the MAC address 0.
    #[inline(always)]
    pub const fn word(self, mac: Mac) -> u64 {
        let [a, b, c, d, e, f] = mac;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | (self.tag as u64) << 48
    }

    /// The MAC address in a word, if the word is this client's.
    #[inline(always)]
    pub const fn mac(self, word: u64) -> Option<Mac> {
        let [a, b, c, d, e, f, _, _] = word.to_le_bytes();
        let is_empty = word << 16 == 0;
        if is_empty || (word >> 48) as u16 != self.tag { None } else { Some([a, b, c, d, e, f]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0xab, 0xcd, 0xef];

    fn place(address: &str, ifindex: u32) -> Place {
        let address: core::net::IpAddr = address.parse().unwrap();
        Place::of(&address.into(), ifindex)
    }

    #[test]
    fn a_word_gives_back_what_was_put_in() {
        for client in ["10.77.1.2", "fd77:1::2"] {
            let place = place(client, 3);
            assert!(place.index < ENTRIES);
            assert_eq!(place.mac(place.word(MAC)), Some(MAC));
            assert_eq!(place.mac(0), None);
        }
    }

    #[test]
    fn an_empty_word_is_nobodys_even_if_the_tag_is_zero() {
        let place = Place { index: 0, tag: 0 };
        assert_eq!(place.mac(0), None);
        assert_eq!(place.mac(place.word(MAC)), Some(MAC));
    }

    #[test]
    fn other_clients_and_other_nics_have_other_words() {
        let mine = place("10.77.1.2", 3);
        let others = (0..=255u8).map(|last| place(&format!("10.77.2.{last}"), 3));
        assert!(others.into_iter().all(|other| other.mac(mine.word(MAC)).is_none()));
        assert_eq!(place("10.77.1.2", 4).mac(mine.word(MAC)), None);
    }
}
