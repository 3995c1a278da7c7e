//! A node of a pair: lb's daemon and keepalived in one machine, which can be crashed and booted as a whole.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    client::wait_for,
    daemon::{Daemon, lb_binary},
    machine::Machine,
    process::Process,
};

/// What a VRRP instance logs when it takes over.
const TAKES_OVER: &str = "Entering MASTER STATE";

/// One lb node. Dropping it ends its daemons.
pub struct Node<'a> {
    /// Where it runs.
    pub machine: &'a Machine,
    /// lb.
    pub daemon: Daemon<'a>,
    keepalived: Option<Process>,
    /// Ports of the switch that its NICs are plugged into.
    ports: Vec<String>,
    switch: &'a Machine,
    /// Its own addresses: `10.77.1.3/24 dev lb0`.
    addresses: Vec<String>,
    /// Its own routes: `10.81.0.0/16 via 10.80.0.2`.
    routes: Vec<String>,
}

/// What a node is made of.
pub struct Plan<'p> {
    /// Its NICs, each with the port of the switch that it is plugged into.
    pub nics: &'p [(&'p str, String)],
    /// Its own addresses, as `ip address add` takes them.
    pub addresses: Vec<String>,
    /// Its own routes, as `ip route replace` takes them.
    pub routes: Vec<String>,
    /// lb's configuration.
    pub yaml: &'p str,
    /// keepalived's, in which `/usr/bin/lb` stands for ours.
    pub keepalived: &'p str,
    /// The hash seed, 64 hexadecimal digits.
    pub seed: &'p str,
}

impl<'a> Node<'a> {
    /// A node with its files in place and its addresses on, nothing started.
    pub fn new(machine: &'a Machine, switch: &'a Machine, plan: &Plan<'_>) -> anyhow::Result<Self> {
        let nics: Vec<&str> = plan.nics.iter().map(|(nic, _)| *nic).collect();
        let daemon = Daemon::new(machine, &nics, plan.yaml)?;
        share_seed(&daemon.directory.join("state"), plan.seed)?;
        let lb = format!("{} --socket {}", lb_binary().display(), daemon.socket.display());
        anyhow::ensure!(plan.keepalived.contains("/usr/bin/lb health"), "no track script");
        let text = plan.keepalived.replace("/usr/bin/lb", &lb);
        fs::write(daemon.directory.join("keepalived.conf"), text)?;
        let ports = plan.nics.iter().map(|(_, port)| port.clone()).collect();
        let node = Self {
            machine,
            daemon,
            keepalived: None,
            ports,
            switch,
            addresses: plan.addresses.clone(),
            routes: plan.routes.clone(),
        };
        node.add_addresses()?;
        Ok(node)
    }

    fn add_addresses(&self) -> anyhow::Result<()> {
        for address in &self.addresses {
            self.machine.ip(&format!("addr add {address}"))?;
        }
        for route in &self.routes {
            self.machine.ip(&format!("route replace {route}"))?;
        }
        Ok(())
    }

    /// Starts lb, waits until it is ready, then starts keepalived.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_daemon()?;
        self.start_keepalived()
    }

    /// Starts lb, and waits until it is ready.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        self.daemon.start()?;
        wait_for(
            "lb is ready for traffic",
            Duration::from_secs(60),
            || (self.health(&[]), self.daemon.log_tail()),
            |(code, _)| *code == Some(0),
        );
        Ok(())
    }

    /// Starts keepalived, in the foreground, with files of its own.
    pub fn start_keepalived(&mut self) -> anyhow::Result<()> {
        let file = |name: &str| self.daemon.directory.join(name);
        let mut command = Command::new("keepalived");
        command.args(["--vrrp", "--dont-fork", "--log-console", "--log-detail"]);
        command.arg("--use-file").arg(file("keepalived.conf"));
        command.arg("--pid").arg(file("keepalived.pid"));
        command.arg("--vrrp_pid").arg(file("vrrp.pid"));
        let process = Process::start(self.machine, "keepalived", &self.daemon.directory, &command)?;
        self.keepalived = Some(process);
        Ok(())
    }

    /// Restarts keepalived with advertisements every so many seconds (as keepalived writes it).
    pub fn advertise_every(&mut self, seconds: &str) -> anyhow::Result<()> {
        let file = self.daemon.directory.join("keepalived.conf");
        let advertises = |line: &str| line.trim_start().starts_with("advert_int ");
        let lines = fs::read_to_string(&file)?;
        anyhow::ensure!(lines.lines().any(advertises), "no advert_int in keepalived.conf");
        let change = |line: &str| match advertises(line) {
            true => format!("    advert_int {seconds}\n"),
            false => format!("{line}\n"),
        };
        fs::write(&file, lines.lines().map(change).collect::<String>())?;
        self.stop_keepalived()?;
        self.start_keepalived()
    }

    /// Stops keepalived in order: it says good-bye, and the peer takes over at once.
    pub fn stop_keepalived(&mut self) -> anyhow::Result<()> {
        self.keepalived.take().map_or(Ok(()), Process::terminate)
    }

    /// `lb health`'s exit code.
    pub fn health(&self, arguments: &[&str]) -> Option<i32> {
        self.daemon.lb(&[&["health"], arguments].concat()).ok()?.status.code()
    }

    /// How often it has taken over since the beginning.
    pub fn takeovers(&self) -> usize {
        self.log().matches(TAKES_OVER).count()
    }

    /// What keepalived has logged since the beginning, over all its runs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.daemon.directory.join("keepalived.log")
    }

    /// Whether an address is on this node now.
    pub fn has(&self, address: &str) -> bool {
        self.machine.ip("-o addr show").is_ok_and(|text| {
            text.split_whitespace().any(|word| word.split('/').next() == Some(address))
        })
    }

    /// A power cut: nothing gets out of its NICs any more, and every process is gone at once.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        for port in &self.ports {
            self.switch.ip(&format!("link set {port} down"))?;
        }
        if let Some(keepalived) = self.keepalived.take() {
            keepalived.kill()?;
        }
        self.daemon.kill()
    }

    /// Power on again: nothing of before is left in the kernel, only files. Waits until lb and keepalived run.
    pub fn boot(&mut self) -> anyhow::Result<()> {
        // Without a daemon it takes away what is pinned.
        self.daemon.must(&["detach"]);
        self.machine.sh("nft list tables | sed -n 's/^table \\(.* keepalived\\)$/\\1/p' | \
             while read -r table; do nft delete table $table; done")?;
        for nic in self.daemon.nics() {
            self.machine.ip(&format!("addr flush dev {nic} scope global"))?;
        }
        for file in ["keepalived.pid", "vrrp.pid"] {
            gone(fs::remove_file(self.daemon.directory.join(file)))?;
        }
        gone(fs::remove_dir_all(self.daemon.directory.join("run")))?;
        self.add_addresses()?;
        for port in &self.ports {
            self.switch.ip(&format!("link set {port} up"))?;
        }
        self.start()
    }
}

/// Starts nodes: their daemons at once, and keepalived when all of them are ready.
pub fn start_all(nodes: &mut [Node<'_>]) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let starting: Vec<_> =
            nodes.iter_mut().map(|node| scope.spawn(|| node.start_daemon())).collect();
        let mut started = starting.into_iter().map(|thread| thread.join());
        started.try_for_each(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    nodes.iter_mut().try_for_each(Node::start_keepalived)
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- keepalived of {}:\n{tail}", self.machine.name);
        }
    }
}

/// It need not have been there.
fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The nodes of a cluster share the seed: a file that only root may read.
pub fn share_seed(state_dir: &Path, seed: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(state_dir.join("seed"))?;
    writeln!(file, "{seed}").context("write the seed")
}
