//! `cargo xtask bench`: builds the benchmark optimised and becomes it.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{build, command, host, setup, workspace};

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
    let error = bench.exec();
    Err(error).with_context(|| format!("cannot start `{}`", command::shown(&bench)))
}
