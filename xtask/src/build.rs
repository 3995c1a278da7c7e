//! `cargo xtask build`: the eBPF objects first, then the workspace, which embeds them.

use anyhow::Result;

use crate::{
    command, ebpf, host, other_versions,
    setup::{self, Tools},
    workspace,
};

/// Everything but lb-ebpf, which is built for the BPF target.
pub const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];

/// Sets up and builds everything.
pub fn run(release: bool, others: bool) -> Result<()> {
    let tools = objects()?;
    let arguments: &[&str] = if release { &["--release"] } else { &[] };
    command::step(format!(
        "building lb and its tools ({})",
        if release { "release" } else { "development" }
    ));
    command::run(workspace::cargo().arg("build").args(HOST_CRATES).args(arguments))?;
    if others {
        other_versions::build(&tools)?;
    }
    let profile = if release { "release" } else { "debug" };
    command::step(format!(
        "built {}",
        workspace::cargo_target().join(profile).join("lb").display()
    ));
    if let Some(problem) = host::problem() {
        command::step(format!("note: running what was built {problem}"));
    }
    Ok(())
}

/// Sets up and builds the eBPF objects and some optimised binaries of `packages`.
pub fn release_binaries(packages: &[&str], binaries: &[&str]) -> Result<()> {
    objects()?;
    command::step(format!("building {} (release)", binaries.join(" and ")));
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    cargo.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    command::run(&mut cargo)
}

/// Sets up and builds the eBPF objects.
pub fn objects() -> Result<Tools> {
    let tools = setup::run()?;
    ebpf::build(&tools)?;
    Ok(tools)
}
