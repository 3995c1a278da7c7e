//! A rate limit in one word: the generic cell rate algorithm (ITU-T I.371), a token bucket without a timer.

/// So many in a row, and one more every interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Nanoseconds from one to the next.
    pub interval: u64,
    /// How many may come at once after a pause.
    pub burst: u64,
}

impl Limit {
    /// The state after another one came at `now` (nanoseconds, any clock that does not go back), or `None` if that
    /// is one too many. A new limit's state is 0.
    #[inline(always)]
    pub const fn admit(&self, state: u64, now: u64) -> Option<u64> {
        let due = if state > now { state } else { now };
        let next = due + self.interval;
        if next - now > self.interval * self.burst { None } else { Some(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let limit = Limit { interval: 10, burst: 5 };
        let mut state = 0;
        let mut admitted = Vec::new();
        for now in 1_000..2_000 {
            for _ in 0..3 {
                if let Some(next) = limit.admit(state, now) {
                    state = next;
                    admitted.push(now);
                }
            }
        }
        assert_eq!(admitted.iter().filter(|now| **now < 1_010).count(), 5, "{admitted:?}");
        assert!((100..=105).contains(&admitted.len()), "{} in 1000", admitted.len());
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let limit = Limit { interval: 10, burst: 5 };
        let mut state = limit.admit(0, 7).expect("the first is free");
        let mut count = 0;
        while let Some(next) = limit.admit(state, 1_000_000) {
            state = next;
            count += 1;
        }
        assert_eq!(count, 5);
    }
}
