//! The SYN-flood stage: while more SYNs come for a service than it wants, those of unknown sources are answered by lb itself,
//! with a challenge that costs no memory.
//!
//! The challenge is a SYN-ACK that acknowledges a number which the client has not sent: the *cookie*. A client that has really
//! sent a SYN must refuse it with a reset whose sequence number is that number (RFC 9293 3.10.7.3, first step), and tries
//! again. So whoever sends a reset with the right cookie sees what lb sends to his address: he is *verified*, and his SYNs
//! pass for ten minutes. No other packet is looked at but SYNs and resets; established flows notice nothing.
//!
//! A cookie is made of addresses, time and a secret key, so nothing is stored for a SYN; the challenge is never longer than
//! the SYN, so that lb amplifies no attack.

use crate::{
    abi::{Address, CookieKeys, VerifiedSources},
    hash::HashKeys,
    siphash::siphash,
};

/// Length of a window, in which SYNs are counted, as a shift of nanoseconds: 2^30 ns (1.07 s).
pub const WINDOW_SHIFT: u32 = 30;
/// Length of a window, nanoseconds.
pub const WINDOW: u64 = 1 << WINDOW_SHIFT;
/// So many windows in a row with fewer SYNs than `release` end the stage.
pub const CALM_WINDOWS: u32 = 8;
/// A source counts as verified for so many windows: ten minutes.
pub const VERIFIED_FOR: u32 = 559;
/// Entries of `VERIFIED`: places for 131,072 sources in 1 MiB.
pub const VERIFIED_BUCKETS: u32 = 16_384;

const WINDOW_BITS: u32 = 27;
const WINDOW_MASK: u32 = (1 << WINDOW_BITS) - 1;
const CALM_AT: u32 = 59;
const CALM_MASK: u64 = 0xf;
/// A cookie is good for the rest of one epoch and the next, each 2^36 ns (69 s).
const EPOCH_SHIFT: u32 = 36;

/// The number of the window of a time in nanoseconds; wraps after four years.
#[inline(always)]
pub const fn window(nanoseconds: u64) -> u32 {
    (nanoseconds >> WINDOW_SHIFT) as u32 & WINDOW_MASK
}

const fn windows_between(earlier: u32, later: u32) -> u32 {
    later.wrapping_sub(earlier) & WINDOW_MASK
}

/// How many SYNs came for a service, and whether the stage is engaged, in one word: bits 0..32 SYNs in the window, 32..59 the
/// window, 59..63 calm windows before it, 63 engaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct FloodState(pub u64);

impl FloodState {
    /// The bit that says that the stage is engaged.
    pub const ENGAGED: u64 = 1 << 63;

    /// SYNs in its window.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.0 as u32
    }

    /// Its window.
    #[inline(always)]
    pub const fn window(self) -> u32 {
        (self.0 >> 32) as u32 & WINDOW_MASK
    }

    const fn calm(self) -> u32 {
        (self.0 >> CALM_AT & CALM_MASK) as u32
    }

    /// What it was when its window ended, without looking at the clock.
    const fn was_engaged(self) -> bool {
        self.0 & Self::ENGAGED != 0
    }

    /// Calm windows in a row that lie behind, in a later window.
    const fn calm_before(self, window: u32, release: u32) -> u32 {
        let since = windows_between(self.window(), window);
        if since == 0 {
            return self.calm();
        }
        let before = if self.count() < release { self.calm() + 1 } else { 0 };
        before.saturating_add(since - 1)
    }

    /// Whether the stage is engaged in a window, before the next SYN.
    #[inline(always)]
    pub const fn is_engaged(self, window: u32, release: u32) -> bool {
        self.was_engaged() && self.calm_before(window, release) < CALM_WINDOWS
    }

    /// The state with the first SYN of another window in it.
    #[inline(always)]
    pub const fn next(self, window: u32, release: u32) -> Self {
        let word = 1 | (window as u64) << 32;
        if !self.is_engaged(window, release) {
            return Self(word);
        }
        Self(word | (self.calm_before(window, release) as u64) << CALM_AT | Self::ENGAGED)
    }

    /// SYNs a second in the window that was last seen, as of `nanoseconds`.
    pub const fn rate(self, nanoseconds: u64) -> u64 {
        let elapsed = match windows_between(self.window(), window(nanoseconds)) {
            0 => nanoseconds & (WINDOW - 1),
            1 => WINDOW,
            _ => return 0,
        };
        // Little of a window says little: what came in it came in a quarter at least.
        let elapsed = if elapsed < WINDOW / 4 { WINDOW / 4 } else { elapsed };
        self.count() as u64 * 1_000_000_000 / elapsed
    }
}

/// SYNs in a window at a rate of at most ten thousand million, rounded up; at least 1.
pub const fn in_window(per_second: u64) -> u32 {
    let count = (per_second * WINDOW).div_ceil(1_000_000_000);
    if count == 0 {
        1
    } else if count > u32::MAX as u64 {
        u32::MAX
    } else {
        count as u32
    }
}

/// Makes and checks cookies. Bit 0 tells the epoch, bit 1 the key, the others are the keyed hash.
impl CookieKeys {
    /// The cookie of a source for a VIP now.
    #[inline(always)]
    pub const fn cookie(&self, source: &Address, vip: &Address, nanoseconds: u64) -> u32 {
        let epoch = nanoseconds >> EPOCH_SHIFT;
        cookie(self.keys[(self.current & 1) as usize], self.current & 1, source, vip, epoch)
    }

    /// Whether a number is a cookie of this source, and not an old one.
    #[inline(always)]
    pub const fn is_cookie(
        &self,
        number: u32,
        source: &Address,
        vip: &Address,
        nanoseconds: u64,
    ) -> bool {
        let now = nanoseconds >> EPOCH_SHIFT;
        let epoch = if (now ^ number as u64) & 1 == 0 { now } else { now.wrapping_sub(1) };
        let key = (number >> 1 & 1) as u64;
        cookie(self.keys[key as usize], key, source, vip, epoch) == number
    }
}

#[inline(always)]
const fn cookie(key: [u64; 2], number: u64, source: &Address, vip: &Address, epoch: u64) -> u32 {
    let message = [source.high(), source.low(), vip.high(), vip.low(), epoch];
    (siphash(key, message) as u32) << 2 | (number as u32) << 1 | (epoch as u32 & 1)
}

/// Whether a client that has sent a SYN with this sequence number, and `payload` bytes of data in it, must refuse an
/// acknowledgement.
#[inline(always)]
pub const fn is_refused(acknowledgement: u32, isn: u32, payload: u16) -> bool {
    acknowledgement.wrapping_sub(isn.wrapping_add(1)) > payload as u32
}

/// A source as it stands in `VERIFIED`: a keyed number of 37 bits, and the window in which it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Index in `VERIFIED`.
    pub bucket: u32,
    tag: u64,
}

impl Verified {
    /// Of a source; all services share what is known of it.
    #[inline(always)]
    pub const fn of(keys: &HashKeys, source: &Address) -> Self {
        let name = crate::source_rate::name(keys, source, 0);
        let tag = name >> WINDOW_BITS | 1;
        Self { bucket: name as u32 >> 1 & (VERIFIED_BUCKETS - 1), tag }
    }

    /// Its word.
    #[inline(always)]
    pub const fn word(self, window: u32) -> u64 {
        self.tag << WINDOW_BITS | window as u64
    }

    #[inline(always)]
    const fn is(self, word: u64) -> bool {
        word >> WINDOW_BITS == self.tag
    }
}

impl VerifiedSources {
    /// Whether a source is verified.
    #[inline(always)]
    pub const fn knows(&self, source: Verified, window: u32) -> bool {
        let mut index = 0;
        while index < self.sources.len() {
            let word = self.sources[index];
            if source.is(word) {
                return windows_between(word as u32 & WINDOW_MASK, window) < VERIFIED_FOR;
            }
            index += 1;
        }
        false
    }

    /// Where its word goes: over its own, a free one, or that of the source that was verified first.
    #[inline(always)]
    pub const fn place(&self, source: Verified, window: u32) -> usize {
        let (mut place, mut oldest, mut index) = (0, 0, 0);
        while index < self.sources.len() {
            let word = self.sources[index];
            if source.is(word) {
                return index;
            }
            let age = match word {
                0 => u32::MAX,
                _ => windows_between(word as u32 & WINDOW_MASK, window),
            };
            if age > oldest {
                (place, oldest) = (index, age);
            }
            index += 1;
        }
        place
    }
}

#[cfg(test)]
mod tests;
