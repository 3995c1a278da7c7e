//! A node of a pair on which something else balances.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{machine::Machine, pair::Pair, process::Process};

/// The node, with keepalived and perhaps a balancer.
pub struct Other<'a> {
    /// Where it runs.
    pub machine: &'a Machine,
    index: usize,
    directory: PathBuf,
    processes: Vec<Process>,
}

impl<'a> Other<'a> {
    /// A node with the addresses of a node of lb, nothing started; its files go to a directory in this one.
    pub fn new(pair: &'a Pair, index: usize, directory: &Path) -> anyhow::Result<Self> {
        let machine = pair.machine(index);
        let directory = directory.join(format!("node{index}"));
        fs::create_dir(&directory)?;
        let own = index + 3;
        machine.ip(&format!("addr add 10.77.1.{own}/24 dev lb0"))?;
        machine.ip(&format!("addr add 10.77.0.{own}/24 dev lb1"))?;
        Ok(Self { machine, index, directory, processes: Vec::new() })
    }

    /// Writes a file of its own.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Starts a program.
    pub fn start(&mut self, name: &str, command: &Command) -> anyhow::Result<()> {
        self.processes.push(Process::start(self.machine, name, &self.directory, command)?);
        Ok(())
    }

    /// Starts keepalived with the file of lb's node, in which another script is asked and whose text is then changed.
    pub fn start_keepalived(
        &mut self,
        pair: &Pair,
        arguments: &[&str],
        check: &str,
        change: impl FnOnce(String) -> String,
    ) -> anyhow::Result<()> {
        let script = self.write("check.sh", &format!("#!/bin/sh\n{check}\n"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
        let script = script.display().to_string();
        // The host's own stack answers for the VIP here.
        let text = pair.keepalived(self.index)?;
        let lines = text.lines().filter(|line| !["no_accept", "nftables"].contains(&line.trim()));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let text = text.replace("/usr/bin/lb health --forwarding", &script);
        let text = change(text.replace("/usr/bin/lb health", &script));
        let file = self.write("keepalived.conf", &text)?;
        let mut keepalived = Command::new("keepalived");
        keepalived.args(arguments);
        keepalived.args(["--dont-fork", "--log-console", "--use-file"]).arg(&file);
        for (option, name) in
            [("--pid", "keepalived"), ("--vrrp_pid", "vrrp"), ("--checkers_pid", "check")]
        {
            keepalived.arg(option).arg(self.directory.join(format!("{name}.pid")));
        }
        self.start("keepalived", &keepalived)
    }

    /// What a program has printed.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// As a node of lb dies: nothing gets out of its NICs any more, and every process is gone.
    pub fn crash(&mut self, pair: &Pair) -> anyhow::Result<()> {
        pair.unplug(self.index)?;
        self.processes.drain(..).try_for_each(Process::kill).context("kill")
    }
}
