//! The number that a challenge acknowledges, and that only the source that it was sent to can send back.

use std::net::IpAddr;

use crate::siphash;

/// Keys and time of cookies: bit 0 of one tells the epoch, bit 1 the key, the others are the keyed hash of both addresses (16 bytes each,
/// IPv4 as mapped addresses) and the epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cookies {
    /// Two keys.
    pub keys: [[u64; 2]; 2],
    /// The number of the one that is in use.
    pub current: usize,
    /// The epoch, each 2^36 ns of CLOCK_MONOTONIC.
    pub epoch: u64,
}

impl Cookies {
    /// The cookie of a source for a VIP now.
    pub fn of(&self, source: IpAddr, vip: IpAddr) -> u32 {
        self.made(self.current, self.epoch, source, vip)
    }

    /// That of the epoch before, by the other key.
    pub fn former(&self, source: IpAddr, vip: IpAddr) -> u32 {
        self.made(1 - self.current, self.epoch.wrapping_sub(1), source, vip)
    }

    /// Whether a number is a cookie of this epoch or the one before, by either key.
    pub fn has(&self, number: u32, source: IpAddr, vip: IpAddr) -> bool {
        let epochs = [self.epoch, self.epoch.wrapping_sub(1)];
        epochs.iter().any(|epoch| (0..2).any(|key| self.made(key, *epoch, source, vip) == number))
    }

    fn made(&self, key: usize, epoch: u64, source: IpAddr, vip: IpAddr) -> u32 {
        let mapped = |address| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let message = [&mapped(source)[..], &mapped(vip), &epoch.to_le_bytes()].concat();
        let hash = siphash::of(self.keys[key], &message) as u32;
        hash << 2 | (key as u32) << 1 | epoch as u32 & 1
    }
}
