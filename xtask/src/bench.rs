//! `cargo xtask bench`: builds the benchmark optimised and becomes it.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{build, command, host, workspace};

/// Builds and becomes the benchmark; returns only if that fails.
pub fn run(quick: bool, json: bool, only: Option<&str>) -> Result<ExitCode> {
    host::require("measuring the program")?;
    // The daemon beside it is what recovers.
    build::release_binaries(&["lb-tests", "lb-userspace"], &["bench", "lb"])?;
    let mut bench = Command::new(workspace::cargo_target().join("release/bench"));
    bench.args(quick.then_some("--quick")).args(json.then_some("--json"));
    bench.args(only.into_iter().flat_map(|name| ["--only", name]));
    let error = bench.exec();
    Err(error).with_context(|| format!("cannot start `{}`", command::shown(&bench)))
}
