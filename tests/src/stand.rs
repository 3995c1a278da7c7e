//! One backend with a real server, and lb with one service whose check asks it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use lb_userspace::api::types::BackendStatus;

use crate::{
    daemon::{Daemon, backend},
    lab::{Arms, Lab, Return, backend4},
    machine::Machine,
};

/// How long anything is waited for.
pub const LONG: Duration = Duration::from_secs(60);

/// The lab, and a directory for the server's files.
pub struct Stand {
    /// With one backend; on it, the lab's own server at port 8080.
    pub lab: Lab,
    /// For the server's files; everybody may enter.
    pub directory: tempfile::TempDir,
    /// Time that a check may take.
    pub timeout: &'static str,
}

impl Stand {
    /// Builds it.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        // Servers that are not root have their own directories in it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let lab = Lab::new(Arms::One, Return::ThroughLb, 1)?;
        Ok(Self { lab, directory, timeout: "5s" })
    }

    /// The backend.
    pub fn machine(&self) -> &Machine {
        &self.lab.backends[0]
    }

    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file with a password, as checks want it.
    pub fn secret(&self, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.file("password");
        fs::write(&path, format!("{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// One service `web` whose only backend's check is this one.
    pub fn yaml(&self, check: &str) -> String {
        format!(
            "backend_defaults: {{inter: 200ms, fastinter: 100ms, downinter: 200ms, timeout: {}, rise: 1, fall: 1}}\n\
             services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: 80}}\n    forward: nat\n    \
             check: {{{check}}}\n    backends:\n      - {{name: web1, address: \"{}\"}}\n",
            self.timeout,
            backend4(1)
        )
    }

    /// lb with that.
    pub fn daemon(&self, check: &str) -> anyhow::Result<Daemon<'_>> {
        let mut daemon = Daemon::new(&self.lab.lb, &self.lab.nics, &self.yaml(check))?;
        daemon.start()?;
        Ok(daemon)
    }

    /// Gives the service another check, and waits for what it finds.
    #[track_caller]
    pub fn finds(
        &self,
        daemon: &Daemon<'_>,
        check: &str,
        code: &str,
        words: &str,
    ) -> BackendStatus {
        daemon.write(&self.yaml(check)).expect("the configuration is written");
        daemon.must(&["reload"]);
        sees(daemon, code, words)
    }
}

/// Waits for what the check finds.
#[track_caller]
pub fn sees(daemon: &Daemon<'_>, code: &str, words: &str) -> BackendStatus {
    let status = daemon.wait(&format!("{code} {words}"), LONG, |status| {
        backend(status, "web", "web1")
            .is_some_and(|web1| web1.check == code && web1.check_output.contains(words))
    });
    backend(&status, "web", "web1").cloned().expect("it was just seen")
}
