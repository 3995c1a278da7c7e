//! Which addresses the service table knows anything about, as one bit each: most packets that are not for a service are
//! told by two bits, without further probes of the table.

use super::Address;

/// Bits of the filter, a power of two; 8 KiB in all.
pub const PRESENCE_BITS: u32 = 1 << 16;

/// Where an address has its bit. Others may share it: a set bit means "perhaps", a clear one "no".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Presence {
    /// Index of the 64-bit word in `PRESENCE`.
    pub word: u32,
    /// The bit in it.
    pub mask: u64,
}

impl Presence {
    /// The place of an address.
    #[inline(always)]
    pub const fn of(address: &Address) -> Self {
        let key = address.low() ^ address.high().rotate_left(29);
        let folded = key ^ (key >> 32);
        let hash = folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        Self { word: (hash >> 6) as u32, mask: 1 << (hash & 63) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_within_the_filter_and_seldom_shared() {
        let mut seen = std::collections::HashSet::new();
        for number in 0..1000u32 {
            let [c, d] = [(number / 250) as u8, (number % 250) as u8];
            let v4 = Presence::of(&core::net::IpAddr::from([10, 0, c, d]).into());
            assert!(v4.word < PRESENCE_BITS / 64 && v4.mask.count_ones() == 1);
            seen.insert(v4);
        }
        assert!(seen.len() > 980, "{} places for 1,000 consecutive addresses", seen.len());
    }
}
