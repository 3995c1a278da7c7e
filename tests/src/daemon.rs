//! lb in its machine, as an operator has it: a YAML file, the daemon, the command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use lb_userspace::api::types::{
    BackendStatus, Event, Events, ServiceStats, ServiceStatus, Stats, Status,
};
use serde::de::DeserializeOwned;

use crate::{client::wait_for, machine::Machine};

/// lb's files and its daemon.
pub struct Daemon<'a> {
    machine: &'a Machine,
    /// Holds everything below.
    pub directory: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// What is started.
    pub binary: PathBuf,
    /// Further arguments of `lb run`.
    pub arguments: Vec<&'static str>,
    /// Further variables of its environment.
    pub environment: Vec<(&'static str, String)>,
    nics: Vec<String>,
    child: Option<Child>,
    _temporary: Option<tempfile::TempDir>,
}

/// The `lb` binary that cargo has built beside this one.
pub fn lb_binary() -> PathBuf {
    let me = std::env::current_exe().expect("a process knows its binary");
    let directory = me.parent().expect("a binary is in a directory");
    // Tests are in `deps`.
    let directory =
        if directory.ends_with("deps") { directory.parent().expect("target") } else { directory };
    let lb = directory.join("lb");
    assert!(lb.is_file(), "{} is missing: `cargo xtask build` makes it", lb.display());
    lb
}

/// A version of lb with another program (`program`), or with other tables, too (`layout`).
pub fn other_version(name: &str) -> PathBuf {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/other-versions");
    let lb = Path::new(target).join(name).join("lb");
    assert!(
        lb.is_file(),
        "{} is missing: `cargo xtask build --other-versions` makes it",
        lb.display()
    );
    lb
}

impl<'a> Daemon<'a> {
    /// lb in a directory of its own, with a configuration; not started yet.
    pub fn new(machine: &'a Machine, nics: &[&str], yaml: &str) -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let mut daemon = Self::in_directory(machine, nics, yaml, temporary.path())?;
        daemon._temporary = Some(temporary);
        Ok(daemon)
    }

    /// The same in a given directory.
    pub fn in_directory(
        machine: &'a Machine,
        nics: &[&str],
        yaml: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let daemon = Self {
            machine,
            config: directory.join("lb.yaml"),
            socket: directory.join("run/lb.sock"),
            binary: lb_binary(),
            arguments: Vec::new(),
            environment: Vec::new(),
            nics: nics.iter().map(|nic| (*nic).to_owned()).collect(),
            directory: directory.to_owned(),
            child: None,
            _temporary: None,
        };
        daemon.write(yaml)?;
        Ok(daemon)
    }

    /// Writes the configuration, as an editor does: aside, then renamed.
    pub fn write(&self, yaml: &str) -> anyhow::Result<()> {
        let aside = self.config.with_extension("new");
        fs::write(&aside, yaml)?;
        fs::rename(&aside, &self.config)?;
        Ok(())
    }

    /// The command line that starts it.
    pub fn run_command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(&self.socket).arg("run").arg("--config").arg(&self.config);
        command.arg("--run-dir").arg(self.directory.join("run"));
        command.arg("--state-dir").arg(self.directory.join("state"));
        for nic in &self.nics {
            command.args(["--iface", nic]);
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        let status = wait_for(
            "the daemon answers",
            Duration::from_secs(60),
            || (self.try_json::<Status>(&["status"]), self.log_tail()),
            |(status, _)| status.is_ok(),
        );
        status.0.map(drop)
    }

    /// Starts the daemon without waiting.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = self.run_command();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.machine.spawn(command)?);
        Ok(())
    }

    /// The NICs it is told to attach to.
    pub fn nics(&self) -> &[String] {
        &self.nics
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("lb.log")
    }

    /// All it has said so far, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The end of the daemon's log.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// What it has counted by reason, per service and for the node, for a person to read.
    pub fn reasons(&self) -> String {
        match self.try_json::<Stats>(&["stats"]) {
            Ok(stats) => {
                let of =
                    |service: &ServiceStats| format!("{}: {:?}", service.name, service.reasons);
                let services: Vec<String> = stats.services.iter().map(of).collect();
                format!("node: {:?}, {}", stats.node, services.join(", "))
            }
            Err(error) => format!("{error:#}"),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let mut child = self.child.take().context("it does not run")?;
        let look = || child.try_wait().ok().flatten();
        let ended = wait_for("the daemon ends", Duration::from_secs(60), look, Option::is_some);
        ended.context("it runs on")
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
            let status = child.wait()?;
            anyhow::ensure!(status.success(), "it ended with {status}: {}", self.log_tail());
        }
        Ok(())
    }

    /// A line for another terminal: a shell in the machine, where `lb` finds its daemon without any option.
    pub fn shell_command(&self) -> String {
        let binaries = lb_binary();
        let binaries = binaries.parent().unwrap_or(Path::new("/")).display();
        format!(
            "nsenter --target {} --net --mount env LB_SOCKET={} PATH={binaries}:$PATH sh -c 'cd {} && exec bash'",
            self.machine.tid,
            self.socket.display(),
            self.directory.display()
        )
    }

    /// Runs `lb ARGUMENTS` in the machine.
    pub fn lb(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(lb_binary());
        command.arg("--socket").arg(&self.socket).args(arguments);
        self.machine.output(command)
    }

    /// Runs `lb ARGUMENTS`, which has to succeed.
    #[track_caller]
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.lb(arguments).expect("lb can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "lb {arguments:?}: {}{}{}",
            text(&output.stdout),
            text(&output.stderr),
            self.log_tail()
        );
        text(&output.stdout)
    }

    fn try_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> anyhow::Result<T> {
        let output = self.lb(&[arguments, &["--json"]].concat())?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "lb {arguments:?}: {error}");
        serde_json::from_slice(&output.stdout).context("the answer is no JSON of this kind")
    }

    /// `lb status`
    #[track_caller]
    pub fn status(&self) -> Status {
        self.try_json(&["status"]).unwrap_or_else(|error| panic!("{error:#}\n{}", self.log_tail()))
    }

    /// `lb stats`
    #[track_caller]
    pub fn stats(&self) -> Stats {
        self.try_json(&["stats"]).unwrap_or_else(|error| panic!("{error:#}\n{}", self.log_tail()))
    }

    /// `lb lookup`
    #[track_caller]
    pub fn lookup(&self, source: &str, destination: &str) -> lb_userspace::api::types::Lookup {
        self.try_json(&["lookup", source, destination])
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log_tail()))
    }

    /// `lb events`: all that are remembered.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        let all: Events = self
            .try_json(&["events"])
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log_tail()));
        all.events
    }

    /// Waits until the status is as wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, limit: Duration, good: impl Fn(&Status) -> bool) -> Status {
        let look = || {
            let status = self.try_json::<Status>(&["status"]).map_err(|error| format!("{error:#}"));
            (status, self.log_tail())
        };
        let seen = wait_for(what, limit, look, |(status, _)| status.as_ref().is_ok_and(&good));
        seen.0.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until every backend's next hop is known and its state is one of `states`.
    #[track_caller]
    pub fn wait_ready(&self, states: &[&str]) -> Status {
        self.wait("all backends are ready", Duration::from_secs(30), |status| {
            !status.services.is_empty()
                && status.services.iter().flat_map(|service| &service.backends).all(|backend| {
                    states.contains(&backend.state.as_str())
                        && !backend.next_hop.contains("unresolved")
                })
        })
    }

    /// Waits until every slot is SETTLED and no pin is left.
    #[track_caller]
    pub fn wait_settled(&self, limit: Duration) {
        self.wait("every slot is SETTLED and no pin is left", limit, |status| {
            let settled = |service: &ServiceStatus| {
                let slots = service.slots;
                slots.window + slots.harvest + slots.pinned == 0
                    && !service.backends.iter().any(|backend| backend.admin == "removed")
            };
            status.pins.confirmed + status.pins.unconfirmed == 0
                && status.services.iter().all(settled)
        });
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log_tail());
            eprintln!("--- its counted reasons: {}", self.reasons());
        }
        // It is gone when this fails.
        let _ = self.kill();
    }
}

/// A backend of a status.
pub fn backend<'s>(status: &'s Status, service: &str, name: &str) -> Option<&'s BackendStatus> {
    let service = status.services.iter().find(|candidate| candidate.name == service)?;
    service.backends.iter().find(|backend| backend.name == name)
}
