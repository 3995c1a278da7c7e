//! `cargo xtask run`: the quickstart lab, or lb on this machine's NICs. Our process becomes the program that runs, so
//! that signals and the exit code are its own.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{RunArgs, build, command, host, workspace};

/// Builds and becomes the lab or lb; returns only if that fails.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    host::require("running lb")?;
    // The quickstart starts the daemon as users will have it, so both are needed for it.
    if args.iface.is_empty() {
        build::release_binaries(&["lb-userspace", "lb-tests"], &["lb", "lab"])?;
    } else {
        build::release_binaries(&["lb-userspace"], &["lb"])?;
    }
    let mut command = command(args)?;
    command::step(command::shown(&command));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", command::shown(&command)))
}

fn command(args: &RunArgs) -> Result<Command> {
    let binaries = workspace::cargo_target().join("release");
    if args.iface.is_empty() {
        let mut lab = Command::new(binaries.join("lab"));
        let default = || workspace::root().join("configs/quickstart.yaml");
        lab.arg("quickstart").arg("--config").arg(match &args.config {
            Some(config) => absolute(config)?,
            None => default(),
        });
        if let Some(duration) = &args.duration {
            lab.args(["--for", duration]);
        }
        if args.json {
            lab.arg("--json");
        }
        return Ok(lab);
    }
    let mut lb = Command::new(binaries.join("lb"));
    lb.arg("run");
    for nic in &args.iface {
        lb.args(["--iface", nic]);
    }
    if let Some(config) = &args.config {
        lb.arg("--config").arg(absolute(config)?);
    }
    Ok(lb)
}

/// Relative to where the user is.
fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(env::current_dir().context("the current directory is gone")?.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(args: &RunArgs) -> Vec<String> {
        command(args).unwrap().get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn without_a_nic_the_quickstart_runs() {
        let args =
            RunArgs { iface: vec![], config: None, duration: Some("10s".into()), json: true };
        let words = words(&args);
        assert_eq!(words[0], "quickstart");
        assert!(words[2].ends_with("configs/quickstart.yaml"), "{words:?}");
        assert_eq!(words[3..], ["--for", "10s", "--json"]);
    }

    #[test]
    fn with_nics_the_daemon_runs() {
        let args = RunArgs {
            iface: vec!["eth0".into(), "eth1".into()],
            config: Some("/etc/lb.yaml".into()),
            duration: None,
            json: false,
        };
        let expected = ["run", "--iface", "eth0", "--iface", "eth1", "--config", "/etc/lb.yaml"];
        assert_eq!(words(&args), expected);
    }
}
