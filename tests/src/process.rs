//! A program of another project in a machine, in the foreground, with everything that it forks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::machine::Machine;

/// A running program. It is process 1 of a process namespace of its own, so that what it forks ends with it, however it
/// ends: workers of a web server whose master was killed would live on otherwise.
pub struct Process {
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts it in a machine; what it prints goes to `NAME.log` in `directory`, after what is there already.
    pub fn start(
        machine: &Machine,
        name: &str,
        directory: &Path,
        command: &Command,
    ) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--pid", "--fork", "--kill-child=KILL", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped.current_dir(directory);
        wrapped.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { log, child: machine.spawn(wrapped)? })
    }

    /// What it has printed so far, in this run and in earlier ones.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// `kill -9` of all its processes.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL)
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(first) = self.first()? {
            // It may have ended just now.
            let _ = kill(first, signal);
        }
        // `unshare` ends when the kernel has ended the whole process namespace.
        self.child.wait().context("wait for the end of a process")?;
        Ok(())
    }

    /// Process 1 of the namespace, as seen from outside.
    fn first(&self) -> anyhow::Result<Option<Pid>> {
        let pid = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let first = children.split_whitespace().next().map(str::parse).transpose()?;
        Ok(first.map(Pid::from_raw))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell. Without a first process, there is only `unshare` itself to end.
        if self.is_running() && self.first().is_ok_and(|first| first.is_none()) {
            let _ = self.child.kill();
        }
        let _ = self.end(Signal::SIGKILL);
    }
}
