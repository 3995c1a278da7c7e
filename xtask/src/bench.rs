//! `cargo xtask bench`: builds the benchmark optimised and becomes it.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{build, command, host, kernels, setup, workspace};

/// Builds and becomes the benchmark; returns only if that fails.
pub fn run(
    quick: bool,
    json: bool,
    only: Option<&str>,
    compare: Option<&Path>,
) -> Result<ExitCode> {
    host::require("measuring the program")?;
    setup::run_for_bench()?;
    // The daemon beside it is what recovers.
    build::release_binaries(&["lb-tests", "lb-userspace"], &["bench", "lb"])?;
    let mut bench = Command::new(workspace::cargo_target().join("release/bench"));
    bench.args(quick.then_some("--quick")).args(json.then_some("--json"));
    bench.args(only.into_iter().flat_map(|name| ["--only", name]));
    if let Some(file) = compare {
        bench.arg("--compare").arg(file);
    }
    if only.is_none_or(|only| "peers/ipvs".starts_with(only)) {
        bench.arg("--booted").arg(booted(quick)?);
    }
    let error = bench.exec();
    Err(error).with_context(|| format!("cannot start `{}`", command::shown(&bench)))
}

/// A file with what was measured beside IPVS in a booted kernel, or why nothing was: the benchmark fails at its end then, so that what
/// else it measures is not lost.
fn booted(quick: bool) -> Result<PathBuf> {
    command::step("measuring beside IPVS, in a kernel that has it ...");
    let start = Instant::now();
    let mut said =
        match kernels::measured_beside_ipvs(&workspace::cargo_target().join("release"), quick) {
            Ok(measured) => json!({ "measured": measured }),
            Err(problem) => {
                command::step(format!("that failed: {problem:#}"));
                json!({ "problem": format!("{problem:#}") })
            }
        };
    said["seconds"] = start.elapsed().as_secs_f64().into();
    let file = workspace::own_target().join("kernels/measured.json");
    fs::write(&file, said.to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
