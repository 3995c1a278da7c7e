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
};

use anyhow::Result;
use clap::Parser;

/// Measures what lb's program costs per packet, and how long recoveries take.
#[derive(Parser)]
struct Args {
    /// Fewer rounds and rows: under ten minutes
    #[arg(long)]
    quick: bool,
    /// The last line of standard output is one JSON object
    #[arg(long)]
    json: bool,
    /// Only what begins so: recovery, control, control/probes, quality, peers, program, program/nat4, growth, rate
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Also show what has changed since the run that wrote this with --json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
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
    let before = args.compare.as_deref().map(compare::read).transpose()?;
    let mut rows = Vec::new();
    if args.wants("recovery") {
        rows.extend(recovery::measure(if args.quick { 1 } else { 5 })?);
    }
    rows.extend(control::measure(args)?);
    if args.wants("quality") {
        rows.extend(quality::measure());
    }
    if args.wants("peers") {
        rows.extend(peers::measure(args.quick)?);
    }
    if args
        .only
        .as_ref()
        .is_none_or(|only| only.starts_with("program") || only.starts_with("growth"))
    {
        // Last: afterwards this process stays on one CPU.
        rows.extend(program::measure(args)?);
    }
    if args.wants("rate") {
        rows.extend(rate::measure(args.quick)?);
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
    Ok(all_pass)
}

fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        let _ = std::io::stderr().flush();
    } else if text.contains(": 1 of ") {
        eprintln!("{text}");
    }
}
