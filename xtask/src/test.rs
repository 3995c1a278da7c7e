//! `cargo xtask test`: every check and test, stage by stage, on one development build. Nothing is skipped: what cannot
//! run here is a failure that says what is missing.

use std::{
    fs,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{build::HOST_CRATES, command, ebpf, host, kernels, other_versions, setup, workspace};

/// What all stages together may take on two cores with nothing built.
const BUDGET: Duration = Duration::from_secs(40 * 60);

/// Runs everything (or the tests whose name contains `filter`) and reports.
pub fn run(filter: Option<&str>) -> Result<ExitCode> {
    host::require("testing lb")?;
    let mut stages = Stages::default();
    // What later stages build on; a failure here ends the run.
    let tools = stages.required("setup", setup::run_for_tests)?;
    stages.required("eBPF programs", || ebpf::build(&tools))?;
    if filter.is_none() {
        stages.optional("format", format);
        stages.optional("lint", lint);
        stages.optional("lint (eBPF)", lint_ebpf);
    }
    stages.required("build", build)?;
    if filter.is_none_or(|filter| filter.contains("upgrade")) {
        stages.optional("other versions", || other_versions::build(&tools));
    }
    stages.optional("unit tests", || tests(&["--lib", "--bins"], &[], filter));
    let suites = Suites::list()?;
    stages.optional("packet tests", || tests(&targets(&suites.packets), &[], filter));
    if filter.is_none() {
        stages.optional("booted kernels", kernels::run);
    }
    stages.optional("end-to-end tests", || {
        // They wait for most of their time, for elections, checks and time-outs; more at a time would load two cores so that clients
        // give up.
        tests(&targets(&suites.end_to_end), &["--test-threads=2"], filter)
    });
    Ok(stages.report())
}

/// Runs the packet tests in booted kernels and the comparison with IPVS there, which is too long for the run of everything.
pub fn run_in_kernels() -> Result<ExitCode> {
    host::require("building what the kernels run")?;
    let mut stages = Stages::default();
    let tools = stages.required("setup", setup::run_for_tests)?;
    stages.required("eBPF programs", || ebpf::build(&tools))?;
    stages.optional("booted kernels", kernels::run);
    stages.optional("beside IPVS", || {
        command::run(workspace::cargo().arg("build").args(HOST_CRATES))?;
        kernels::compare_with_ipvs()
    });
    Ok(stages.report())
}

fn format() -> Result<()> {
    command::run(workspace::cargo().args(["fmt", "--all", "--check"]))
        .context("by hand: `cargo fmt --all`")
}

fn lint() -> Result<()> {
    let mut cargo = workspace::cargo();
    command::run(cargo.arg("clippy").args(HOST_CRATES).args([
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The library part of lb-ebpf compiles on the host, too.
fn lint_ebpf() -> Result<()> {
    let mut cargo = workspace::cargo();
    command::run(cargo.args(["clippy", "--package", "lb-ebpf", "--lib", "--", "-D", "warnings"]))
}

fn build() -> Result<()> {
    // `cargo test` does not build binaries that only the tests start.
    command::run(workspace::cargo().arg("build").args(HOST_CRATES))?;
    command::run(workspace::cargo().arg("test").args(HOST_CRATES).arg("--no-run"))
}

/// Runs test targets. The whole workspace is always selected: with another selection of packages, cargo would unify
/// other features and build again.
fn tests(targets: &[&str], harness: &[&str], filter: Option<&str>) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.arg("test").args(HOST_CRATES).arg("--no-fail-fast").args(targets);
    cargo.args(filter).arg("--").args(harness);
    run_tests(&mut cargo)
}

/// Test results belong on standard output, unlike everything else that we run.
fn run_tests(cargo: &mut Command) -> Result<()> {
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`{}` failed ({status})", command::shown(cargo));
    }
    Ok(())
}

fn targets(names: &[String]) -> Vec<&str> {
    names.iter().flat_map(|name| ["--test", name.as_str()]).collect()
}

/// The test targets of `tests/tests`.
struct Suites {
    /// By BPF_PROG_TEST_RUN.
    packets: Vec<String>,
    /// In network namespaces.
    end_to_end: Vec<String>,
}

impl Suites {
    fn list() -> Result<Self> {
        let directory = workspace::root().join("tests/tests");
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
            .collect();
        // A stage of its own.
        names.retain(|name| name != kernels::SUITE);
        names.sort();
        let (packets, end_to_end) = names.into_iter().partition(|name| name.starts_with("packets"));
        let suites = Self { packets, end_to_end };
        if suites.packets.is_empty() || suites.end_to_end.is_empty() {
            bail!("{} lacks packet tests or end-to-end tests", directory.display());
        }
        Ok(suites)
    }
}

/// Stages that have run: name, time, error.
#[derive(Default)]
struct Stages {
    done: Vec<(&'static str, Duration, Option<String>)>,
}

impl Stages {
    /// A stage without which the rest makes no sense.
    fn required<T>(&mut self, name: &'static str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        command::step(format!("{name} ..."));
        let start = Instant::now();
        let result = stage();
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        self.done.push((name, start.elapsed(), error));
        if result.is_err() {
            self.report();
        }
        result
    }

    /// A stage after whose failure the others still run, so that one run shows everything.
    fn optional(&mut self, name: &'static str, stage: impl FnOnce() -> Result<()>) {
        command::step(format!("{name} ..."));
        let start = Instant::now();
        let error = stage().err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("error: {error}");
        }
        self.done.push((name, start.elapsed(), error));
    }

    /// Prints the stages; failure if any failed.
    fn report(&self) -> ExitCode {
        print!("{}", self.table());
        match self.done.iter().any(|(_, _, error)| error.is_some()) {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    }

    fn table(&self) -> String {
        let mut text = String::from("\nstage               seconds  result\n");
        for (name, time, error) in &self.done {
            let result = if error.is_some() { "FAILED" } else { "ok" };
            text += &format!("{name:<18} {:>8.1}  {result}\n", time.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, time, _)| *time).sum();
        let over = if total > BUDGET { ", OVER BUDGET" } else { "" };
        text += &format!(
            "{:<18} {:>8.1}  of {} budgeted{over}\n",
            "total",
            total.as_secs_f64(),
            BUDGET.as_secs()
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_stage_is_reported_and_the_others_run() {
        let mut stages = Stages::default();
        stages.optional("first", || bail!("broken"));
        stages.optional("second", || Ok(()));
        let table = stages.table();
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[2].starts_with("first") && rows[2].ends_with("FAILED"), "{table}");
        assert!(rows[3].starts_with("second") && rows[3].ends_with("ok"), "{table}");
        assert_eq!(stages.report(), ExitCode::FAILURE);
    }

    #[test]
    fn more_than_the_budget_is_said() {
        let within = Stages { done: vec![("all", BUDGET, None)] };
        let over = Stages { done: vec![("all", BUDGET + Duration::from_secs(1), None)] };
        assert!(!within.table().contains("OVER") && over.table().contains("OVER BUDGET"));
    }
}
