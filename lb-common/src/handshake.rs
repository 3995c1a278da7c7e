//! Times of handshakes: which are measured, how they are remembered, and into which bucket a time falls.
//!
//! One SYN in eight is measured, chosen by its initial sequence number, which the SYN-ACK acknowledges: both directions
//! know without any state whether there is something to do. A repeated SYN keeps the time of the first, so that lost
//! packets count as they do for the client (RFC 9293 3.4: the number stays the same).

use crate::abi::HANDSHAKE_BUCKETS;

/// Entries of `HANDSHAKES`.
pub const ENTRIES: u32 = 65_536;
/// One in this many handshakes is measured; a power of two.
pub const ONE_IN: u32 = 8;
/// The upper bound of the first bucket, microseconds.
pub const FIRST_BUCKET: u32 = 16;
/// A SYN that has waited for so long is not that of the answer, microseconds.
const TOO_OLD: u32 = 60_000_000;

/// Whether the handshake with this initial sequence number (host order) is measured.
#[inline(always)]
pub const fn is_measured(isn: u32) -> bool {
    isn & (ONE_IN - 1) == 0
}

/// The entry of `HANDSHAKES` for an initial sequence number.
#[inline(always)]
pub const fn entry(isn: u32) -> u32 {
    ((isn >> 3) ^ (isn >> 17)) & (ENTRIES - 1)
}

/// A word of `HANDSHAKES`: a SYN that waits for its answer. 0 = none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Waiting(pub u64);

impl Waiting {
    /// The SYN with this number came at this time (microseconds, wrapping).
    #[inline(always)]
    pub const fn new(isn: u32, now: u32) -> Self {
        Self((isn as u64) << 32 | now as u64)
    }

    /// The entry after another SYN: a repetition keeps the first one's time.
    #[inline(always)]
    pub const fn after_syn(self, isn: u32, now: u32) -> Self {
        match self.answered(isn, now) {
            Some(_) => self,
            None => Self::new(isn, now),
        }
    }

    /// The time since the SYN that a SYN-ACK answers, microseconds; `None` if it is not the one that is remembered.
    #[inline(always)]
    pub const fn answered(self, isn: u32, now: u32) -> Option<u32> {
        let waited = now.wrapping_sub(self.0 as u32);
        if self.0 == 0 || (self.0 >> 32) as u32 != isn || waited > TOO_OLD {
            return None;
        }
        Some(waited)
    }
}

/// The bucket of a time in microseconds: the first whose bound, `FIRST_BUCKET << bucket`, is not below it; the last one has
/// no bound.
#[inline(always)]
pub const fn bucket(microseconds: u32) -> usize {
    let mut bucket = 0;
    let mut bound = FIRST_BUCKET;
    while bucket < HANDSHAKE_BUCKETS - 1 && microseconds > bound {
        bound <<= 1;
        bucket += 1;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        let expected = [(0, 0), (16, 0), (17, 1), (32, 1), (33, 2), (1_000, 6), (1_024, 6)];
        for (time, number) in expected {
            assert_eq!(bucket(time), number, "{time} µs");
        }
        assert_eq!(bucket(16 << 20), 20);
        assert_eq!(bucket((16 << 20) + 1), 21);
        assert_eq!(bucket(u32::MAX), HANDSHAKE_BUCKETS - 1);
    }

    #[test]
    fn an_answer_is_measured_from_the_first_syn() {
        let first = Waiting(0).after_syn(8, 1_000);
        let again = first.after_syn(8, 1_001_000);
        assert_eq!(again.answered(8, 1_001_500), Some(1_000_500));
        assert_eq!(again.answered(16, 1_001_500), None, "another connection's");
        assert_eq!(Waiting(0).answered(0, 5), None, "nothing is waiting");
        // The clock wraps every 71 minutes.
        assert_eq!(Waiting::new(8, u32::MAX).answered(8, 9), Some(10));
        let old = Waiting::new(8, 0);
        assert_eq!(old.after_syn(8, TOO_OLD + 1), Waiting::new(8, TOO_OLD + 1));
    }

    #[test]
    fn one_in_eight_is_measured_and_they_are_spread() {
        let measured: Vec<u32> = (0..800_000).filter(|isn| is_measured(*isn)).collect();
        assert_eq!(measured.len(), 100_000);
        let entries: std::collections::HashSet<u32> =
            measured.iter().take(ENTRIES as usize).map(|isn| entry(*isn)).collect();
        assert!(entries.len() > ENTRIES as usize * 9 / 10, "{}", entries.len());
    }
}
