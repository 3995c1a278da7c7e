//! `cargo xtask soak`: what takes hours, one long form of a test after the other, with a report that outlives an interruption.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{build, build::HOST_CRATES, command, host, setup, workspace};

/// For `cargo xtask soak --help`.
pub const HELP: &str = "\
Each run is a test of tests/tests whose length comes from `lb_tests::soak::rounds(short, long)`: `cargo xtask test` runs the short form, this
the long one (LB_SOAK=1 in its environment). The runs stand in one table, `RUNS` in xtask/src/soak.rs; a new one is a line there.

What has passed is in target/soak/report.json, with the commit it passed on: begun again after an interruption (Ctrl-C, a reboot), what has
passed on the same commit with the same uncommitted changes is not run again, unless --again is given. A run that was interrupted or has failed begins anew. All that a run prints
is in target/soak/NAME.log.

Examples:
  cargo xtask soak                    everything that has not passed yet
  cargo xtask soak reloads            only this, if it has not passed yet
  cargo xtask soak --again reloads
  cargo xtask soak --list";

/// A long form of a test.
struct Run {
    /// Its name here.
    name: &'static str,
    /// File in tests/tests.
    target: &'static str,
    /// Name of the test.
    test: &'static str,
    /// What it shows.
    shows: &'static str,
}

/// All of them, the shortest first.
const RUNS: [Run; 10] = [
    Run {
        name: "clients",
        target: "track",
        test: "many_clients_are_remembered_over_a_restart_and_changes_of_backends",
        shows: "1,000,000 remembered clients stay over a restart of the daemon and changes of backends",
    },
    Run {
        name: "floods-stage",
        target: "floods",
        test: "an_engaged_stage_lets_only_the_real_in",
        shows: "10 million SYNs against an engaged SYN-flood stage in each mode: who is real gets in",
    },
    Run {
        name: "floods-nat",
        target: "floods",
        test: "no_flood_in_nat_harms_who_is_real",
        shows: "floods of 10 million sources of each kind in nat: no connection is lost, every new one succeeds",
    },
    Run {
        name: "floods-dsr",
        target: "floods",
        test: "no_flood_in_dsr_harms_who_is_real",
        shows: "the same in dsr",
    },
    Run {
        name: "floods-tunnel",
        target: "floods",
        test: "no_flood_in_a_tunnel_harms_who_is_real",
        shows: "the same in a tunnel",
    },
    Run {
        name: "lists",
        target: "lists",
        test: "a_hundred_thousand_prefixes_are_replaced_without_a_gap",
        shows: "100 replacements of a deny list of 100,000 prefixes under load: no wrong packet",
    },
    Run {
        name: "upgrades",
        target: "upgrade",
        test: "a_changed_program_takes_its_place_under_load",
        shows: "50 upgrades of the binary under load: no failed request",
    },
    Run {
        name: "reloads",
        target: "reload",
        test: "reloads_lose_nothing_and_leak_nothing",
        shows: "10,000 reloads under load: no failed request, nothing leaks",
    },
    Run {
        name: "packets",
        target: "packets_model",
        test: "millions_of_packets_as_the_model_says",
        shows: "a billion generated and damaged packets: no difference between the packet path and its model",
    },
    Run {
        name: "contention",
        target: "prober_faults",
        test: "f39_full_contention_finds_nobody_down",
        shows: "10 minutes of full CPU contention: nobody is found down",
    },
];

/// Runs what has not passed yet (of `names`, if there are any) and reports.
pub fn run(names: &[String], again: bool, list: bool) -> Result<ExitCode> {
    if list {
        RUNS.iter().for_each(|run| println!("{:<14} {}", run.name, run.shows));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = names.iter().find(|name| !RUNS.iter().any(|run| run.name == **name)) {
        bail!("there is no run `{unknown}`; `cargo xtask soak --list` shows them");
    }
    host::require("soaking lb")?;
    setup::run_for_tests()?;
    build::run(false, true)?;
    let version = version()?;
    let mut report = Report::read()?;
    for run in
        RUNS.iter().filter(|run| names.is_empty() || names.iter().any(|name| name == run.name))
    {
        if !again && report.has_passed(run.name, &version) {
            command::step(format!("{}: has passed already on {version}", run.name));
            continue;
        }
        command::step(format!("{}: {}", run.name, run.shows));
        let start = Instant::now();
        let result = soak(run);
        report.add(run.name, &version, result.as_ref().err(), start.elapsed().as_secs());
        report.write()?;
    }
    print!("{}", report.table(&version));
    let wanted = |run: &&Run| names.is_empty() || names.iter().any(|name| name == run.name);
    let all = RUNS.iter().filter(wanted).all(|run| report.has_passed(run.name, &version));
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One run, its output here and in its log.
fn soak(run: &Run) -> Result<()> {
    let path = directory()?.join(format!("{}.log", run.name));
    let mut log =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut cargo = workspace::cargo();
    cargo.arg("test").args(HOST_CRATES).args(["--test", run.target, "--", "--exact", run.test]);
    cargo.args(["--nocapture", "--test-threads=1"]).env("LB_SOAK", "1").stdin(Stdio::null());
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", command::shown(&cargo)))?;
    let mut passed = 0;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            passed += usize::from(line.starts_with("test result: ok. 1 passed"));
            writeln!(log, "{line}")?;
            writeln!(io::stderr(), "{line}")?;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("failed ({status}); see {}", path.display());
    }
    // A name that no test has would pass, too.
    if passed != 1 {
        bail!("tests/tests/{}.rs has no test `{}`", run.target, run.test);
    }
    Ok(())
}

/// The commit, and a digest of what differs from it.
fn version() -> Result<String> {
    let commit = command::output_of("git", &["rev-parse", "--short=12", "HEAD"])
        .context("`git rev-parse HEAD` fails: a report needs to know what it is about")?;
    let changes = command::output_of("git", &["diff", "HEAD"]).unwrap_or_default();
    let commit = commit.trim();
    Ok(match changes.is_empty() {
        true => commit.to_owned(),
        false => format!("{commit}+{:08x}", digest(&changes)),
    })
}

/// FNV-1a, folded.
fn digest(text: &str) -> u32 {
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (sum ^ (sum >> 32)) as u32
}

fn directory() -> Result<PathBuf> {
    let directory = workspace::root().join("target/soak");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// What is known of the runs, by name.
#[derive(Default)]
struct Report(BTreeMap<String, Value>);

impl Report {
    fn read() -> Result<Self> {
        let path = directory()?.join("report.json");
        let Ok(text) = fs::read_to_string(&path) else { return Ok(Self::default()) };
        let runs = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: remove it", path.display()))?;
        Ok(Self(runs))
    }

    /// Whole or not at all.
    fn write(&self) -> Result<()> {
        let path = directory()?.join("report.json");
        let aside = path.with_extension("new");
        fs::write(&aside, serde_json::to_string_pretty(&self.0)?)?;
        fs::rename(&aside, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn add(&mut self, name: &str, version: &str, error: Option<&anyhow::Error>, seconds: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let run = json!({
            "version": version,
            "passed": error.is_none(),
            "error": error.map(|error| format!("{error:#}")),
            "seconds": seconds,
            "ended_unix_seconds": now,
        });
        self.0.insert(name.to_owned(), run);
    }

    fn has_passed(&self, name: &str, version: &str) -> bool {
        self.0.get(name).is_some_and(|run| run["passed"] == true && run["version"] == version)
    }

    fn table(&self, version: &str) -> String {
        let mut text = format!("\n{:<12} {:>8}  result on {version}\n", "soak", "seconds");
        for run in &RUNS {
            let known = self.0.get(run.name).filter(|known| known["version"] == version);
            let (seconds, result) = match known {
                None => ("-".to_owned(), "not run".to_owned()),
                Some(known) if known["passed"] == true => {
                    (known["seconds"].to_string(), "ok".to_owned())
                }
                Some(known) => {
                    let error = known["error"].as_str().unwrap_or_default();
                    (known["seconds"].to_string(), format!("FAILED: {error}"))
                }
            };
            text += &format!("{:<12} {seconds:>8}  {result}; {}\n", run.name, run.shows);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_passed_on_this_version_is_done() {
        let mut report = Report::default();
        report.add("reloads", "abc", None, 7);
        assert!(report.has_passed("reloads", "abc"));
        assert!(!report.has_passed("reloads", "abd") && !report.has_passed("upgrades", "abc"));
        report.add("reloads", "abc", Some(&anyhow::anyhow!("no")), 7);
        assert!(!report.has_passed("reloads", "abc"));
        let table = report.table("abc");
        assert!(table.contains("FAILED: no") && table.contains("not run"), "{table}");
    }

    #[test]
    fn every_run_is_a_test_with_a_long_form() {
        for run in &RUNS {
            let path = workspace::root().join(format!("tests/tests/{}.rs", run.target));
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(&format!("fn {}()", run.test)), "{}", run.name);
            assert!(text.contains("rounds("), "{}: it has no long form", run.name);
        }
    }

    #[test]
    fn other_changes_are_another_version() {
        assert_ne!(digest("a"), digest("b"));
        assert_eq!(digest(""), 0x4fd0_bfc1);
    }
}
