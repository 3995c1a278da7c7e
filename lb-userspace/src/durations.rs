//! How long things took, counted in buckets: what Prometheus calls a histogram.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::types::Histogram;

/// Upper bounds of the buckets, seconds: from an answer on link to the longest usual time-out.
const BOUNDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Counts by bucket; they never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// One more than there are bounds.
    counts: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Durations {
    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket] += 1;
        self.seconds += seconds;
    }

    /// As it is shown.
    pub fn histogram(&self) -> Histogram {
        let mut sum = 0;
        let buckets = BOUNDS
            .iter()
            .zip(self.counts)
            .map(|(bound, count)| {
                sum += count;
                (*bound, sum)
            })
            .collect();
        Histogram { buckets, count: self.counts.iter().sum(), sum_seconds: self.seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulative_and_none_is_lost() {
        let mut durations = Durations::default();
        for milliseconds in [0, 1, 4, 700, 60_000] {
            durations.add(Duration::from_millis(milliseconds));
        }
        let shown = durations.histogram();
        let at_most = |bound: f64| shown.buckets.iter().find(|(b, _)| *b == bound).unwrap().1;
        assert_eq!([at_most(0.0005), at_most(0.001), at_most(0.005)], [1, 2, 3]);
        assert_eq!([at_most(0.5), at_most(1.0), at_most(5.0), shown.count], [3, 4, 4, 5]);
        assert!((shown.sum_seconds - 60.705).abs() < 1e-9, "{shown:?}");
        assert!(shown.buckets.windows(2).all(|pair| pair[0].0 < pair[1].0), "{shown:?}");
    }
}
