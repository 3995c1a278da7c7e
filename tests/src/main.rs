//! The `lab` command: the labs that `cargo xtask run` and `cargo xtask lab` start.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use lb_tests::{
    comparison,
    scale_up::{self, command::Options},
};

/// Labs of network namespaces around the real lb.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// One client, lb's host and three web servers, with traffic flowing and a live table of who gets what
    Quickstart {
        /// The configuration lb starts with; a copy of it is used, and may be edited while it runs
        #[arg(long)]
        config: PathBuf,
        /// End by itself after this long (10s, 2m), with a summary
        #[arg(long = "for", value_parser = duration)]
        duration: Option<Duration>,
        /// Print one JSON object as the last line
        #[arg(long)]
        json: bool,
    },
    /// A web, an application and a database tier on machines of their own, behind a pair of lb nodes
    ScaleUp(Options),
    /// The death of a pair's active node, with lb and with IPVS: in a kernel that has both (`cargo xtask test --kernels` boots one)
    #[command(hide = true)]
    BesideIpvs,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Quickstart { config, duration, json } => {
            lb_tests::quickstart::run(&config, duration, json)
        }
        Verb::ScaleUp(options) => scale_up::command::run(options),
        Verb::BesideIpvs => beside_ipvs(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A line for each, which `cargo xtask` reads; whether lb's clients have lost nothing that they had.
fn beside_ipvs() -> anyhow::Result<bool> {
    let costs = comparison::beside_ipvs()?;
    for cost in &costs {
        println!("lb-cost {}", serde_json::to_string(cost)?);
    }
    let [lb, ipvs] = costs;
    Ok(lb.broken == 0 && lb.answered > 0 && ipvs.answered > 0)
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no time; say 10s or 2m"))?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("`{text}` has no unit; say {number}s or {number}m")),
    }
}
