//! What lb costs and how soon it is itself again: rows of figures, some with a limit.

mod compare;
mod control;
mod peers;
mod program;
mod quality;
mod rate;
mod recovery;
mod report;
mod row;

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use anyhow::Result;
use clap::Parser;

use self::row::Row;

/// What a run with `--quick` may take.
const QUICK_SECONDS: f64 = 600.0;

/// Measures what lb's program costs per packet, and how long recoveries take.
#[derive(Parser)]
struct Args {
    /// Fewer rounds and rows: under ten minutes
    #[arg(long)]
    quick: bool,
    /// The last line of standard output is one JSON object
    #[arg(long)]
    json: bool,
    /// Only what begins so: recovery, control, control/probes, quality, peers, peers/ipvs, program, program/nat4, growth, rate
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Also show what has changed since the run that wrote this with --json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// What was measured beside IPVS, or why nothing was
    #[arg(long, hide = true, value_name = "FILE")]
    booted: Option<PathBuf>,
    /// Only measure beside IPVS, in the kernel at hand, for another run's --booted
    #[arg(long, hide = true)]
    inside: bool,
}

impl Args {
    /// Whether this is to be measured.
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.starts_with(only.as_str()))
    }

    /// Whether a row of a group is: all of them if the group is named, or what begins so behind `GROUP/`.
    fn wants_row(&self, group: &str, name: &str) -> bool {
        let Some(only) = &self.only else { return true };
        match only.strip_prefix(group) {
            Some("" | "/") => true,
            Some(rest) => rest.strip_prefix('/').is_some_and(|rest| {
                name.starts_with(rest) || rest.starts_with(name) || name.starts_with(only.as_str())
            }),
            None => false,
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("some limits do not hold on this machine, see `limit` above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    if args.inside {
        return peers::measure_beside_ipvs(args.quick).map(|()| true);
    }
    let before = args.compare.as_deref().map(compare::read).transpose()?;
    let (rows, problem) = measure(args)?;
    if let (Some(problem), true) = (&problem, rows.is_empty()) {
        anyhow::bail!("{problem:#}");
    }
    anyhow::ensure!(!rows.is_empty(), "nothing that is measured begins with {:?}", args.only);
    row::print_table(&rows);
    if let Some(before) = before {
        compare::print(&rows, &before);
    }
    if args.only.is_none() {
        report::write(&rows, args.quick)?;
    }
    let all_pass = rows.iter().all(|row| row.pass != Some(false));
    if args.json {
        println!("{}", serde_json::to_string(&row::Report { rows })?);
    }
    problem.map_or(Ok(all_pass), Err)
}

/// All rows, and why some are missing.
fn measure(args: &Args) -> Result<(Vec<Row>, Option<anyhow::Error>)> {
    let mut rows = Vec::new();
    let mut parts = Parts::default();
    if args.wants("recovery") {
        rows.extend(parts.time("recovery", || recovery::measure(if args.quick { 1 } else { 5 }))?);
    }
    rows.extend(parts.time("control", || control::measure(args))?);
    if args.wants("quality") {
        rows.extend(parts.time("quality", || Ok(quality::measure()))?);
    }
    if args.wants("peers") {
        rows.extend(parts.time("peers", || peers::measure(args.quick))?);
    }
    let mut problem = None;
    if args.wants("peers/ipvs") {
        match peers::read_beside_ipvs(args.booted.as_deref()) {
            Ok((booted, seconds)) => {
                parts.0.push(("peers/ipvs", seconds));
                rows.extend(booted);
            }
            // Said at the end, when everything else is measured.
            Err(error) => problem = Some(error),
        }
    }
    let is_of = |group| args.only.as_ref().is_none_or(|only: &String| only.starts_with(group));
    if is_of("program") || is_of("growth") {
        // Last: afterwards this process stays on one CPU.
        rows.extend(program::measure(args, &mut parts)?);
    }
    if args.wants("rate") {
        rows.extend(parts.time("rate", || rate::measure(args.quick))?);
    }
    let seconds = parts.print();
    if args.only.is_none() {
        let limit = args.quick.then_some(QUICK_SECONDS);
        rows.push(Row::new("quality", "run/seconds".to_owned(), "s", &[seconds], limit));
    }
    Ok((rows, problem))
}

/// What each part of a run has taken, in seconds.
#[derive(Default)]
struct Parts(Vec<(&'static str, f64)>);

impl Parts {
    /// Does a part.
    fn time<T>(&mut self, name: &'static str, part: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let done = part()?;
        self.0.push((name, start.elapsed().as_secs_f64()));
        Ok(done)
    }

    /// Tells them; their sum.
    fn print(&self) -> f64 {
        let parts = self.0.iter().filter(|(_, seconds)| *seconds >= 1.0);
        let parts: Vec<String> =
            parts.map(|(name, seconds)| format!("{name} {seconds:.0} s")).collect();
        let sum = self.0.iter().map(|(_, seconds)| seconds).sum();
        eprintln!("measured in {sum:.0} s: {}", parts.join(", "));
        sum
    }
}

fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        let _ = std::io::stderr().flush();
    } else if text.contains(": 1 of ") {
        eprintln!("{text}");
    }
}
