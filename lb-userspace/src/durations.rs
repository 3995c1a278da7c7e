//! How long things took, counted in buckets: what Prometheus calls a histogram.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::api::types::Histogram;

/// Upper bounds of the buckets, seconds: from an answer on link to the longest usual time-out.
const BOUNDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Counts by bucket; they never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// One more than there are bounds. Those of a version with other bounds are counted anew.
    #[serde(deserialize_with = "of_these_bounds")]
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

fn of_these_bounds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[u64; BOUNDS.len() + 1], D::Error> {
    Ok(Vec::deserialize(deserializer)?.try_into().unwrap_or_default())
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

    #[test]
    fn counts_of_another_version_are_no_error() {
        let mut durations = Durations::default();
        durations.add(Duration::from_secs(1));
        let text = serde_json::to_string(&durations).unwrap();
        assert_eq!(serde_json::from_str::<Durations>(&text).unwrap(), durations);
        let other = serde_json::from_str::<Durations>(r#"{"counts":[1,2],"seconds":0.5}"#).unwrap();
        assert_eq!(other.histogram().count, 0);
    }
}
