//! A terminal whose screen can be read: tmux in a machine.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use crate::{client::wait_for, machine::Machine, process::Process};

/// Longest wait for a picture.
const MINUTE: Duration = Duration::from_secs(60);

/// One terminal with a shell. Dropping it ends everything that runs in it.
pub struct Tmux<'a> {
    machine: &'a Machine,
    socket: PathBuf,
    _server: Process,
}

impl<'a> Tmux<'a> {
    /// A terminal of so many columns and lines; `directory` is for its socket and log.
    pub fn start(
        machine: &'a Machine,
        directory: &Path,
        (columns, lines): (u16, u16),
    ) -> anyhow::Result<Self> {
        let socket = directory.join("tmux.sock");
        let mut server = Command::new("tmux");
        server.args(["-D", "-u", "-f", "/dev/null", "-S"]).arg(&socket);
        server.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR");
        let server = Process::start(machine, "tmux", directory, &server)?;
        let terminal = Self { machine, socket, _server: server };
        wait_for("tmux listens", MINUTE, || terminal.socket.exists(), |there| *there);
        let size = [columns.to_string(), lines.to_string()];
        terminal.tmux(&["new-session", "-d", "-x", &size[0], "-y", &size[1], "env PS1='$ ' sh"])?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).args(arguments);
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        let output = self.machine.output(command).context("tmux can be run")?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "tmux {arguments:?}: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types text as it is.
    #[track_caller]
    pub fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]).expect("the terminal is there");
    }

    /// Presses keys by tmux's names: `Enter`, `Escape`, `Down`, `j`.
    #[track_caller]
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat()).expect("the terminal is there");
    }

    /// Gives the terminal another size.
    #[track_caller]
    pub fn resize(&self, columns: u16, lines: u16) {
        let size = [columns.to_string(), lines.to_string()];
        self.tmux(&["resize-window", "-x", &size[0], "-y", &size[1]]).expect("it is resized");
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).unwrap_or_else(|error| format!("{error:#}"))
    }

    /// The same with the sequences that colour it.
    pub fn coloured_screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"]).unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Waits until the screen is as wanted, and returns it.
    #[track_caller]
    pub fn wait(&self, what: &str, good: impl Fn(&str) -> bool) -> String {
        wait_for(what, MINUTE, || self.screen(), |screen| good(screen))
    }
}
