//! `cargo xtask lab`: labs other than the quickstart. Our process becomes the `lab` program.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::{build, command, host, kernels, setup::packages, workspace};

/// The labs.
#[derive(Subcommand)]
pub enum Lab {
    /// Web, application and database tiers on machines of their own, behind a pair of lb nodes
    ScaleUp(ScaleUp),
    /// The death of a pair's active node, with lb and with IPVS and its sync daemon, in a kernel of Debian's booted under qemu
    BesideIpvs,
}

/// Arguments of `cargo xtask lab scale-up`.
#[derive(Args)]
pub struct ScaleUp {
    /// End the one that runs
    #[arg(long, conflicts_with_all = ["status", "story", "json"])]
    down: bool,
    /// Show the machines, and what both lb nodes say
    #[arg(long, conflicts_with = "story")]
    status: bool,
    /// Run the failures one after another under load, print what each has cost, and end
    #[arg(long)]
    story: bool,
    /// The last line of standard output is one JSON object
    #[arg(long)]
    json: bool,
}

/// Installs what the lab runs, builds and becomes it; returns only if that fails.
pub fn run(lab: &Lab) -> Result<ExitCode> {
    let arguments = match lab {
        Lab::ScaleUp(arguments) => arguments,
        Lab::BesideIpvs => return beside_ipvs().map(|()| ExitCode::SUCCESS),
    };
    host::require("running a lab")?;
    let mut lab = Command::new(workspace::cargo_target().join("release/lab"));
    lab.args(words(arguments));
    // The one that runs was started by a lab that is built.
    if !(arguments.down || arguments.status) {
        packages::install(&packages::missing(&packages::FOR_TESTS))?;
        build::release_binaries(&["lb-userspace", "lb-tests"], &["lb", "lab"])?;
    }
    if arguments.story {
        command::step("the same failure beside IPVS, in a kernel that has it ...");
        let costs = kernels::beside_ipvs(&workspace::cargo_target().join("release"))?;
        let file = workspace::own_target().join("kernels/costs.json");
        fs::write(&file, serde_json::to_string(&costs)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        lab.arg("--booted").arg(file);
    }
    command::step(command::shown(&lab));
    let error = lab.exec();
    Err(error).with_context(|| format!("cannot start `{}`", command::shown(&lab)))
}

/// With what is in the release directory after a build of it.
fn beside_ipvs() -> Result<()> {
    packages::install(&packages::missing(&packages::FOR_TESTS))?;
    build::release_binaries(&["lb-userspace", "lb-tests"], &["lb", "lab"])?;
    for cost in kernels::beside_ipvs(&workspace::cargo_target().join("release"))? {
        println!("{}", kernels::cost_text(&cost));
    }
    Ok(())
}

fn words(arguments: &ScaleUp) -> Vec<&'static str> {
    let ScaleUp { down, status, story, json } = *arguments;
    let flags = [("--down", down), ("--status", status), ("--story", story), ("--json", json)];
    let given = flags.into_iter().filter_map(|(flag, given)| given.then_some(flag));
    ["scale-up"].into_iter().chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_passed_on() {
        let arguments = ScaleUp { down: false, status: false, story: true, json: true };
        assert_eq!(words(&arguments), ["scale-up", "--story", "--json"]);
    }
}
