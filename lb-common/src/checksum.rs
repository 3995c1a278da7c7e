//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A one's-complement sum is the same in either byte order as long as one keeps to one of them, so nothing here swaps
//! bytes: words are raw memory words, and so is the checksum.

use crate::{abi::Address, be::Be32};

/// A one's-complement sum in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// A sum that was begun elsewhere, see [`crate::abi::BackendRow::outer_sum`].
    #[inline(always)]
    pub const fn begun(unfolded: u32) -> Self {
        Self(unfolded as u64)
    }

    /// Adds two bytes (raw memory word).
    #[inline(always)]
    pub const fn word(self, raw: u16) -> Self {
        Self(self.0.wrapping_add(raw as u64))
    }

    /// Adds four bytes (raw memory word): the 16-bit halves fold together in the end.
    #[inline(always)]
    pub const fn double(self, raw: u32) -> Self {
        Self(self.0.wrapping_add(raw as u64))
    }

    /// Adds a byte that stands first in its 16-bit word (the second is zero).
    #[inline(always)]
    pub const fn first(self, byte: u8) -> Self {
        self.word(u16::from_ne_bytes([byte, 0]))
    }

    /// Adds a byte that stands second in its 16-bit word.
    #[inline(always)]
    pub const fn second(self, byte: u8) -> Self {
        self.word(u16::from_ne_bytes([0, byte]))
    }

    /// Adds an address: four bytes of an IPv4 address, sixteen of an IPv6 address.
    #[inline(always)]
    pub const fn address(self, address: &Address) -> Self {
        let [a, b, c, d] = address.words;
        let sum = self.double(d.raw());
        if address.is_v4() { sum } else { sum.double(a.raw()).double(b.raw()).double(c.raw()) }
    }

    /// Adds what is replaced, inverted, and what replaces it: the change of a checksum's sum (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn change(self, old: u32, new: u32) -> Self {
        self.double(!old).double(new)
    }

    /// As [`Sum::change`], for a 16-bit word.
    #[inline(always)]
    pub const fn change_word(self, old: u16, new: u16) -> Self {
        self.word(!old).word(new)
    }

    /// As [`Sum::change`], for an address by another of the same family.
    #[inline(always)]
    pub const fn change_address(self, old: &Address, new: &Address) -> Self {
        let sum = self.change(old.words[3].raw(), new.words[3].raw());
        if old.is_v4() {
            return sum;
        }
        sum.change(old.words[0].raw(), new.words[0].raw())
            .change(old.words[1].raw(), new.words[1].raw())
            .change(old.words[2].raw(), new.words[2].raw())
    }

    /// Adds another sum.
    #[inline(always)]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The sum in 16 bits. Exact below 2^40, which 255 added words never reach; add no more than that without
    /// [`Sum::shortened`].
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum + (sum >> 16)) as u16
    }

    /// The sum in 32 bits, for [`Sum::begun`]. Exact below 2^32 times 2^32 minus one; the carry goes around.
    #[inline(always)]
    pub const fn unfolded(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The same sum in at most 33 bits.
    #[inline(always)]
    pub const fn shortened(self) -> Self {
        Self((self.0 & 0xffff_ffff) + (self.0 >> 32))
    }

    /// What has to be added to come to nothing. Exact below 2^36, which an address and a header never reach. Without folding: a
    /// multiple of 65,535 less the sum.
    #[inline(always)]
    pub const fn negated(self) -> Self {
        Self((0xffff_u64 << 20).wrapping_sub(self.0))
    }

    /// The checksum of everything added (raw memory word).
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The checksum after a change of what it covers. A checksum that was wrong stays wrong.
#[inline(always)]
pub const fn update(checksum: u16, change: Sum) -> u16 {
    change.word(!checksum).checksum()
}

/// As [`update`] for UDP (RFC 768): zero means "none" and stays, and a computed zero is sent as all ones.
#[inline(always)]
pub const fn update_udp(checksum: u16, change: Sum) -> u16 {
    if checksum == 0 {
        return 0;
    }
    match update(checksum, change) {
        0 => 0xffff,
        updated => updated,
    }
}

/// The sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1). `length` is that of the upper layer, bytes.
#[inline(always)]
pub const fn pseudo_header(
    source: &Address,
    destination: &Address,
    protocol: u8,
    length: u32,
) -> Sum {
    Sum(0)
        .address(source)
        .address(destination)
        .second(protocol)
        .double(Be32::from_host(length).raw())
}

/// The sum of bytes; an odd last one counts as the first of its word.
pub fn sum_of(bytes: &[u8]) -> Sum {
    let mut sum = Sum(0);
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum = sum.word(u16::from_ne_bytes([word[0], word[1]])).shortened();
    }
    match words.remainder() {
        [last] => sum.first(*last),
        _ => sum,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The checksum by the letter of RFC 1071 4.1, sharing nothing with the code above: big-endian words, carries
    /// folded one by one. Returned as a number (network order).
    pub(crate) fn plain(parts: &[&[u8]]) -> u16 {
        let bytes: Vec<u8> = parts.concat();
        let mut sum: u32 = 0;
        for (index, byte) in bytes.iter().enumerate() {
            sum += if index % 2 == 0 { u32::from(*byte) << 8 } else { u32::from(*byte) };
            if sum > 0xffff {
                sum = (sum & 0xffff) + 1;
            }
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum_of(&bytes).folded().to_be(), 0xddf2);
        assert_eq!(plain(&[&bytes]), !0xddf2);
    }

    #[test]
    fn folding_is_exact_up_to_its_bound() {
        let edges = [0u64, 1, 0xfffe, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, 0xff_ffff_ffff];
        for high in 0..=0xffu64 {
            for low in edges {
                let value = (high << 32) | (low & 0xffff_ffff);
                let mut expected = value;
                while expected > 0xffff {
                    expected = (expected & 0xffff) + (expected >> 16);
                }
                assert_eq!(u64::from(Sum(value).folded()), expected, "{value:#x}");
            }
        }
    }

    #[test]
    fn every_checksum_updates_to_the_full_computation() {
        // One word is free, so that the checksum takes every value; another one changes.
        for free in 0..=0xffffu16 {
            let mut bytes = [0x45, 0x00, 0, 0, 0x40, 0x06, 10, 1, 2, 3, 192, 168, 7, 9];
            bytes[2..4].copy_from_slice(&free.to_be_bytes());
            let before = plain(&[&bytes]).to_be();
            let mut after = bytes;
            after[6..10].copy_from_slice(&[172, 16, 250, 255]);
            let change = Sum::default()
                .change(u32::from_ne_bytes([10, 1, 2, 3]), u32::from_ne_bytes([172, 16, 250, 255]));
            assert_eq!(update(before, change), plain(&[&after]).to_be(), "free word {free:#06x}");
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let before = plain(&[&[1, 2, 3, 4]]).to_be();
        let after = plain(&[&[1, 2, 9, 9]]).to_be();
        let change =
            Sum::default().change_word(u16::from_ne_bytes([3, 4]), u16::from_ne_bytes([9, 9]));
        for wrong in (0..=0xffffu16).filter(|value| *value != before) {
            // All ones and zero are the same number of one's complement.
            let same = matches!((wrong, before), (0, 0xffff) | (0xffff, 0));
            assert_eq!(update(wrong, change) == after, same, "{wrong:#06x}");
        }
    }

    #[test]
    fn udp_never_computes_zero_and_keeps_none() {
        assert_eq!(update_udp(0, Sum::default().change_word(1, 2)), 0);
        let mut met = 0;
        for new in 0..=0xffffu16 {
            let change = Sum::default().change_word(0x1234, new);
            let updated = update_udp(0x5678, change);
            assert_ne!(updated, 0, "new word {new:#06x}");
            met += u32::from(updated == 0xffff);
        }
        assert!(met > 0, "the case of a computed zero never came up");
    }

    #[test]
    fn bytes_of_any_length() {
        let bytes: Vec<u8> =
            (0..=255).cycle().take(1500).map(|byte: u8| byte.wrapping_mul(37)).collect();
        for length in 0..bytes.len() {
            let expected = plain(&[&bytes[..length]]);
            assert_eq!(sum_of(&bytes[..length]).checksum().to_be(), expected, "{length} bytes");
        }
    }
}
