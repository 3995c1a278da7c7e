//! `cargo xtask`: sets up, builds, runs, tests and measures lb. Cargo is the only tool needed to begin with.

mod bench;
mod build;
mod command;
mod ebpf;
mod fuzz;
mod host;
mod kernels;
mod lab;
mod other_versions;
mod run;
mod setup;
mod soak;
mod test;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Sets up, builds, runs, tests and measures lb.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find what building and testing need, and install what is missing
    Setup {
        /// Only report; exit with 1 if something is missing
        #[arg(long)]
        check: bool,
    },
    /// Build the eBPF programs, then `lb` and everything else
    Build {
        /// Optimised, as for production (target/release/lb)
        #[arg(long)]
        release: bool,
        /// Build what upgrade tests upgrade to, too (development only)
        #[arg(long, conflicts_with = "release")]
        other_versions: bool,
    },
    /// Start the quickstart lab, or (with --iface) lb on this machine's NICs
    Run(RunArgs),
    /// Start a larger lab
    Lab {
        #[command(subcommand)]
        lab: lab::Lab,
    },
    /// Run all checks and tests; needs root and BPF
    Test {
        /// Run only the tests whose name contains this (and no format or lint checks)
        filter: Option<String>,
        /// Run only the packet tests in Debian's kernels, booted under qemu (part of a whole run)
        #[arg(long, conflicts_with = "filter")]
        kernels: bool,
    },
    /// Run the long forms of tests, which take hours, and report; goes on where it was interrupted
    #[command(after_long_help = soak::HELP)]
    Soak {
        /// Only these runs
        #[arg(value_name = "RUN")]
        runs: Vec<String>,
        /// Also what has passed already
        #[arg(long)]
        again: bool,
        /// Only show which runs there are
        #[arg(long)]
        list: bool,
    },
    /// Let libFuzzer look for frames that the pure functions of the packet path get wrong
    #[command(after_long_help = fuzz::HELP)]
    Fuzz {
        /// Only these targets
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
        /// How long, each
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
    },
    /// Measure lb, its limit and its peers, and write docs/benchmarks.md; needs root and BPF
    Bench {
        /// Fewer rounds: less than ten minutes
        #[arg(long)]
        quick: bool,
        /// Print one JSON object as the last line of standard output
        #[arg(long)]
        json: bool,
        /// Only what begins so: recovery, control, control/probes, quality, peers, peers/ipvs, program, growth, rate
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Also show what has changed since the run that wrote this with --json
        #[arg(long, value_name = "FILE")]
        compare: Option<PathBuf>,
    },
}

/// Arguments of `cargo xtask run`.
#[derive(Args)]
struct RunArgs {
    /// NICs to attach to; without any, the quickstart lab is started
    #[arg(long, num_args = 1.., requires = "config")]
    iface: Vec<String>,
    /// The configuration; the quickstart has its own default
    #[arg(long)]
    config: Option<PathBuf>,
    /// Quickstart: end by itself after this time (`10s`, `2m`) with a summary
    #[arg(long = "for", value_name = "TIME", conflicts_with = "iface")]
    duration: Option<String>,
    /// Quickstart: the last line of standard output is one JSON object
    #[arg(long, conflicts_with = "iface")]
    json: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.verb {
        Verb::Setup { check: true } => setup::check(),
        Verb::Setup { check: false } => setup::run_and_report(),
        Verb::Build { release, other_versions } => {
            build::run(release, other_versions).map(|()| ExitCode::SUCCESS)
        }
        Verb::Run(args) => run::run(&args),
        Verb::Lab { lab } => lab::run(&lab),
        Verb::Test { kernels: true, .. } => test::run_in_kernels(),
        Verb::Test { filter, kernels: false } => test::run(filter.as_deref()),
        Verb::Soak { runs, again, list } => soak::run(&runs, again, list),
        Verb::Fuzz { targets, seconds } => fuzz::run(&targets, seconds),
        Verb::Bench { quick, json, only, compare } => {
            bench::run(quick, json, only.as_deref(), compare.as_deref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn several_nics_may_follow_one_flag_or_several() {
        let nics = |line: &[&str]| match Cli::try_parse_from(line).unwrap().verb {
            Verb::Run(args) => args.iface,
            _ => panic!("not `run`"),
        };
        let once = ["xtask", "run", "--iface", "eth0", "eth1", "--config", "a.yaml"];
        let twice = ["xtask", "run", "--iface", "eth0", "--iface", "eth1", "--config", "a.yaml"];
        assert_eq!(nics(&once), ["eth0", "eth1"]);
        assert_eq!(nics(&twice), ["eth0", "eth1"]);
    }

    #[test]
    fn a_nic_needs_a_configuration() {
        assert!(Cli::try_parse_from(["xtask", "run", "--iface", "eth0"]).is_err());
    }
}
