//! A run beside an earlier one: ratios to the floor where there are any, because times differ between machines.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::row::Row;

/// What is worth a line.
const NOTABLE: f64 = 0.05;

#[derive(Deserialize)]
struct Before {
    rows: Vec<BeforeRow>,
}

#[derive(Deserialize)]
struct BeforeRow {
    name: String,
    value: f64,
    ratio: Option<f64>,
}

/// Reads an earlier run's `--json`; so early that a wrong file costs no time.
pub fn read(path: &Path) -> Result<BTreeMap<String, (f64, Option<f64>)>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Its other lines are the table for people.
    let line = text.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
    let before: Before = serde_json::from_str(line).with_context(|| {
        format!("{} has no line that `cargo xtask bench --json` has written", path.display())
    })?;
    Ok(before.rows.into_iter().map(|row| (row.name, (row.value, row.ratio))).collect())
}

/// Prints what has changed.
pub fn print(rows: &[Row], before: &BTreeMap<String, (f64, Option<f64>)>) {
    println!("\n{:<42} {:>10} {:>10} {:>8}", "changed", "before", "now", "");
    let mut same = 0;
    for row in rows {
        let Some((value, ratio)) = before.get(&row.name) else {
            println!("{:<42} {:>10} {:>10.2}", row.name, "-", row.value);
            continue;
        };
        let (was, now) = match (ratio, row.ratio) {
            (Some(was), Some(now)) => (*was, now),
            _ => (*value, row.value),
        };
        let change = if was == now { 0.0 } else { (now - was) / was.abs().max(0.01) };
        if change.abs() < NOTABLE {
            same += 1;
        } else {
            println!("{:<42} {was:>10.2} {now:>10.2} {:>+7.0}%", row.name, change * 100.0);
        }
    }
    println!("{same} rows are within {:.0} %", NOTABLE * 100.0);
}
