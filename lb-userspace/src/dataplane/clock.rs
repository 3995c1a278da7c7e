//! Jiffies, in which pins tell time, and their rate.

use std::time::Duration;

use anyhow::Context as _;
use aya::{TestRun as _, TestRunOptions, programs::Xdp};
use lb_common::abi::{Clock, program};

use super::Dataplane;

/// Between the two samples of [`Dataplane::hz`]: ten jiffies at the slowest rate.
const SAMPLE: Duration = Duration::from_millis(100);
/// The rates that kernels are built with (CONFIG_HZ).
const RATES: [u64; 4] = [100, 250, 300, 1000];

impl Dataplane {
    /// Both clocks at one moment.
    pub fn clock(&self) -> anyhow::Result<Clock> {
        let program: &Xdp = self
            .ebpf
            .program(program::CLOCK)
            .with_context(|| format!("the object has no program `{}`", program::CLOCK))?
            .try_into()?;
        let frame = [0u8; 64];
        program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() })?;
        Ok(self.clock.get(&0, 0)?)
    }

    /// Jiffies per second. Takes a moment: ask once.
    pub fn hz(&self) -> anyhow::Result<u64> {
        let first = self.clock()?;
        std::thread::sleep(SAMPLE);
        Ok(rate(&first, &self.clock()?))
    }
}

/// The rate nearest to what two samples say. Each may be off by one jiffy.
fn rate(first: &Clock, second: &Clock) -> u64 {
    let jiffies = second.jiffies.saturating_sub(first.jiffies);
    let nanoseconds = second.nanoseconds.saturating_sub(first.nanoseconds).max(1);
    let measured = jiffies.saturating_mul(1_000_000_000) / nanoseconds;
    RATES.into_iter().min_by_key(|rate| rate.abs_diff(measured)).unwrap_or(RATES[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_one_that_kernels_have() {
        let begin = Clock { jiffies: 4_294_937_296, nanoseconds: 7_000_000 };
        let after = |jiffies: u64, milliseconds: u64| Clock {
            jiffies: begin.jiffies + jiffies,
            nanoseconds: begin.nanoseconds + milliseconds * 1_000_000,
        };
        for (jiffies, milliseconds, hz) in [
            (6, 60, 100),
            (7, 60, 100),
            (15, 60, 250),
            (16, 60, 250),
            (18, 60, 300),
            (60, 60, 1000),
            (59, 60, 1000),
            (152, 610, 250),
        ] {
            let found = rate(&begin, &after(jiffies, milliseconds));
            assert_eq!(found, hz, "{jiffies} in {milliseconds} ms");
        }
    }
}
