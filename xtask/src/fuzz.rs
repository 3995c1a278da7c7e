//! `cargo xtask fuzz`: the targets of tests/fuzz under libFuzzer, which looks for inputs that reach new code. As cargo-fuzz builds
//! them, but with the toolchain that builds lb.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{command, workspace};

/// For `cargo xtask fuzz --help`.
pub const HELP: &str = "\
Each target is a function of tests/fuzz/src/lib.rs, which panics where something does not hold that has to hold for any frame. What libFuzzer keeps
is in target/fuzz/corpus, and it goes on from there the next time; what fails is in target/fuzz/artifacts, and the target started with such a
file shows it again. `cargo xtask test` runs the same functions over the committed corpus and damaged copies of it, without a fuzzer.

Needs a C++ compiler. AddressSanitizer is used if the toolchain has its runtime.

Examples:
  cargo xtask fuzz                    every target for 20 seconds
  cargo xtask fuzz --seconds 3600     the same for an hour each
  cargo xtask fuzz rewrite quote";

/// Instrumentation for libFuzzer; its flags are LLVM's.
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
];

/// The longest frame that is tried.
const LONGEST: usize = 3_400;

/// What one target has done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    inputs: u64,
    edges: u64,
}

/// Builds the targets and runs those named, or all, one after the other.
pub fn run(names: &[String], seconds: u64) -> Result<ExitCode> {
    let source = workspace::root().join("tests/fuzz");
    let all = targets(&source)?;
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no target `{unknown}`; there are {}", all.join(", "));
    }
    let home = workspace::own_target().join("fuzz");
    let (host, sanitizer) = (host()?, sanitizer());
    build(&source, &home, &host, sanitizer)?;
    let how = if sanitizer { "AddressSanitizer" } else { "no sanitizer: the toolchain has none" };
    println!(
        "{} targets, {seconds} s each, {how}",
        if names.is_empty() { all.len() } else { names.len() }
    );
    let binaries = home.join(host).join("release");
    let mut failed = Vec::new();
    for name in all.iter().filter(|name| names.is_empty() || names.contains(name)) {
        match fuzz(&source, &home, &binaries.join(name), name, seconds)? {
            Ok(done) => {
                println!("{name:<10} {:>12} inputs  {:>5} edges  holds", done.inputs, done.edges)
            }
            Err(problem) => failed.push(format!("{name}: {problem}")),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// Names of the targets.
fn targets(source: &Path) -> Result<Vec<String>> {
    let directory = source.join("fuzz_targets");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| stem(entry.path())).collect();
    names.sort();
    Ok(names)
}

fn host() -> Result<String> {
    let version = command::output_of("rustc", &["-vV"]).context("`rustc -vV` fails")?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("`rustc -vV` does not say what it compiles for")
}

/// Whether the toolchain has the runtime of AddressSanitizer.
fn sanitizer() -> bool {
    let Some(libraries) = command::output_of("rustc", &["--print", "target-libdir"]) else {
        return false;
    };
    let entries = fs::read_dir(libraries.trim()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).any(|file| is_runtime(&file))
}

fn is_runtime(file: &str) -> bool {
    file.starts_with("librustc-") && file.ends_with("_rt.asan.a")
}

fn build(source: &Path, home: &Path, host: &str, sanitizer: bool) -> Result<()> {
    command::step("building the fuzz targets");
    let mut flags = COVERAGE.to_vec();
    if sanitizer {
        flags.push("-Zsanitizer=address");
    }
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--locked", "--bins", "--target", host]);
    cargo.arg("--manifest-path").arg(source.join("Cargo.toml")).arg("--target-dir").arg(home);
    // Sanitizers are an unstable option of the compiler.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags.join(" "));
    command::run(&mut cargo)
}

/// Runs one target; the inner error is what it has found.
fn fuzz(
    source: &Path,
    home: &Path,
    binary: &Path,
    name: &str,
    seconds: u64,
) -> Result<Result<Done, String>> {
    let (corpus, artifacts) = (home.join("corpus").join(name), home.join("artifacts"));
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut command = Command::new(binary);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .args(["-timeout=10", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/{name}-", artifacts.display()))
        .arg(&corpus)
        .arg(source.join("corpus"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut child =
        command.spawn().with_context(|| format!("cannot start `{}`", command::shown(&command)))?;
    let lines = lines(&mut child);
    let status = child.wait()?;
    if status.success() {
        return Ok(Ok(done(&lines)));
    }
    let last = lines[lines.len().saturating_sub(40)..].join("\n");
    Ok(Err(format!("{status}; the end of what it said:\n{last}")))
}

fn lines(child: &mut Child) -> Vec<String> {
    let Some(output) = child.stderr.take() else { return Vec::new() };
    BufReader::new(output).lines().map_while(Result::ok).collect()
}

/// What libFuzzer says at the end.
fn done(lines: &[String]) -> Done {
    let after = |line: &str, word: &str| -> Option<u64> {
        line.split_once(word)?.1.split_whitespace().next()?.parse().ok()
    };
    let last = |word: &str| lines.iter().rev().find_map(|line| after(line, word));
    Done {
        inputs: last("stat::number_of_executed_units:").unwrap_or(0),
        edges: last(" cov: ").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let lines = [
            "#2\tINITED cov: 11 ft: 12 corp: 1/1b exec/s: 0 rss: 30Mb",
            "#524288\tpulse  cov: 712 ft: 1800 corp: 200/9Kb lim: 4096 exec/s: 262144 rss: 60Mb",
            "Done 600000 runs in 3 second(s)",
            "stat::number_of_executed_units: 600000",
        ]
        .map(str::to_owned);
        assert_eq!(done(&lines), Done { inputs: 600_000, edges: 712 });
        assert_eq!(done(&[]), Done::default());
    }

    #[test]
    fn the_runtime_of_the_sanitizer_is_known_by_its_name() {
        assert!(
            is_runtime("librustc-stable_rt.asan.a") && is_runtime("librustc-nightly_rt.asan.a")
        );
        assert!(!is_runtime("librustc-stable_rt.tsan.a") && !is_runtime("libasan.a"));
    }

    #[test]
    fn every_target_is_found() {
        let found = targets(&workspace::root().join("tests/fuzz")).expect("they are there");
        assert!(found.contains(&"rewrite".to_owned()) && found.len() >= 5, "{found:?}");
    }
}
