//! How long lb takes to recover from faults of the host, in network namespaces with the real daemon.

use anyhow::{Context as _, Result};
use lb_tests::recovery;

use crate::{progress, row::Row};

/// All rows, each the median of so many recoveries.
pub fn measure(rounds: usize) -> Result<Vec<Row>> {
    let measure = |recovery: &recovery::Recovery| {
        let times = (1..=rounds).map(|round| {
            progress(&format!("{}: round {round} of {rounds}", recovery.name));
            let time = (recovery.measure)().with_context(|| recovery.name)?;
            Ok(time.as_secs_f64() * 1e3)
        });
        let times = times.collect::<Result<Vec<f64>>>()?;
        let limit = recovery.limit.as_secs_f64() * 1e3;
        Ok(Row::new("control", recovery.name.to_owned(), "ms", &times, Some(limit)))
    };
    let rows = recovery::ALL.iter().map(measure).collect();
    progress("");
    rows
}
