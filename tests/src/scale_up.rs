//! The scaled-up infrastructure: separate web, application and database tiers, each on machines of its own, behind a pair
//! of lb nodes, with the software that people use. Configured by the files of configs/scale-up.
//!
//! ```text
//!  client ── edge ─┬─ lb-a ─┬─ web:  web1..web6   nginx, TLS            10.80.1.0/24
//!   10.80.0.0/24   └─ lb-b ─┼─ app:  app1..app6   gunicorn and Flask    10.80.2.0/24
//!                           └─ db:   db1..db6     MariaDB, replicated   10.80.3.0/24
//!  admin ── mgmt 10.80.9.0/24 ── the databases
//! ```
//! Browsers are in 10.81.0.0/16, behind the client.
//! Every tier reaches the next one by a VIP of the lb nodes, which are also its gateway; nftables lets in nothing else.

pub mod command;
pub mod load;
pub mod sessions;
pub mod story;
mod tiers;
pub mod visitors;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use aya::Ebpf;

use crate::{
    lab::pass_on,
    machine::Machine,
    node::{Node, Plan},
    process::Process,
};

/// Web servers that there are machines for.
pub const WEB: usize = 6;
/// Application servers that there are machines for.
pub const APP: usize = 6;
/// Databases that there are machines for.
pub const DB: usize = 6;
/// Databases in lb.yaml: a primary and a replica.
pub const DB_AT_START: usize = 2;
/// Web servers, and application servers, in lb.yaml.
pub const AT_START: usize = 3;

/// How many servers of each tier lb is to send to.
#[derive(Clone, Copy, Debug)]
pub struct Tiers {
    /// Web servers.
    pub web: usize,
    /// Application servers.
    pub app: usize,
    /// Databases, of which one can be written.
    pub db: usize,
}

impl Default for Tiers {
    fn default() -> Self {
        Self { web: AT_START, app: AT_START, db: DB_AT_START }
    }
}

/// NICs of the lb nodes that lb is attached to; also the names of the segments.
const SEGMENTS: [&str; 4] = ["edge", "web", "app", "db"];
const MANAGEMENT: &str = "mgmt";

/// All machines, and the servers that run in them. The lb nodes' daemons borrow their machines: [`ScaleUp::node`].
pub struct ScaleUp {
    /// Where browsers are.
    pub client: Machine,
    /// Where the operator is.
    pub admin: Machine,
    switch: Machine,
    lb: [Machine; 2],
    web: Vec<Machine>,
    app: Vec<Machine>,
    db: Vec<Machine>,
    seed: String,
    processes: RefCell<BTreeMap<String, Process>>,
    directory: tempfile::TempDir,
    _pass: Ebpf,
}

/// The folder of the configuration files.
fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/scale-up")
}

fn config(name: &str) -> anyhow::Result<String> {
    let path = configs().join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

impl ScaleUp {
    /// Builds all machines and their networks; no server runs yet.
    pub fn new() -> anyhow::Result<Self> {
        let switch = Machine::new("switch")?;
        for bridge in SEGMENTS.iter().chain([&MANAGEMENT]) {
            switch.ip(&format!("link add {bridge} type bridge"))?;
            switch.ip(&format!("link set {bridge} up"))?;
        }
        let client = Machine::new("client")?;
        let admin = Machine::new("admin")?;
        plug(&client, "edge", &switch, "10.80.0.2/24")?;
        plug(&admin, MANAGEMENT, &switch, "10.80.9.2/24")?;
        // The client knows a way to the inner segments, so that it can try what must not be possible.
        client.ip("route add 10.80.0.0/16 via 10.80.0.3")?;
        // Any address of these may be used, without being given first.
        client.ip("route add local 10.81.0.0/16 dev lo")?;
        let lb = [Machine::new("lb-a")?, Machine::new("lb-b")?];
        let mut ports = Vec::new();
        for machine in &lb {
            for nic in SEGMENTS {
                let port = attach(machine, nic, &switch)?;
                // As in [`crate::pair`]: no help from a switch that floods.
                switch.ip(&format!("link set {port} type bridge_slave flood off"))?;
                ports.push(port);
            }
            firewall(machine, "lb")?;
        }
        let pass = pass_on(&switch, &ports)?;
        let tier = |name: &str, segment: &str, third: u8, count: usize| {
            let member = |number: usize| {
                let machine = Machine::new(&format!("{name}{number}"))?;
                let host = 10 + number;
                plug(&machine, segment, &switch, &format!("10.80.{third}.{host}/24"))?;
                plug(&machine, MANAGEMENT, &switch, &format!("10.80.9.{third}{number}/24"))?;
                machine.ip(&format!("route add default via 10.80.{third}.1"))?;
                firewall(&machine, name)?;
                anyhow::Ok(machine)
            };
            (1..=count).map(member).collect::<anyhow::Result<Vec<_>>>()
        };
        let (web, app, db) =
            (tier("web", "web", 1, WEB)?, tier("app", "app", 2, APP)?, tier("db", "db", 3, DB)?);
        let directory = own_directory()?;
        write_secret(&directory.path().join("cluster.secret"))?;
        Ok(Self {
            client,
            admin,
            switch,
            lb,
            web,
            app,
            db,
            seed: format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()),
            processes: RefCell::default(),
            directory,
            _pass: pass,
        })
    }

    /// One of the lb nodes, not started: 0 is lb-a, the preferred one.
    pub fn node(&self, index: usize) -> anyhow::Result<Node<'_>> {
        let machine = &self.lb[index];
        let own = index + 3;
        let address = |(third, nic): (usize, &&str)| format!("10.80.{third}.{own}/24 dev {nic}");
        let yaml = self.yaml(&Tiers::default())?;
        let plan = Plan {
            nics: &SEGMENTS.map(|nic| (nic, port(machine, nic))),
            addresses: SEGMENTS.iter().enumerate().map(address).collect(),
            routes: vec!["10.81.0.0/16 via 10.80.0.2".to_owned()],
            yaml: &yaml,
            keepalived: &config(["keepalived-a.conf", "keepalived-b.conf"][index])?,
            seed: &self.seed,
        };
        let mut node = Node::new(machine, &self.switch, &plan)?;
        node.daemon.arguments = vec!["--node", ["lb-a", "lb-b"][index]];
        Ok(node)
    }

    /// lb.yaml with so many servers.
    pub fn yaml(&self, tiers: &Tiers) -> anyhow::Result<String> {
        let text = config("lb.yaml")?;
        let secret = self.directory().join("cluster.secret");
        let mut text = text.replace("/etc/lb/cluster.secret", &secret.display().to_string());
        type Line = fn(usize) -> String;
        let lines: [(&str, [usize; 2], Line); 4] = [
            ("web servers", [AT_START, tiers.web], |number| {
                format!("      - {{name: web{number}, address: 10.80.1.{}}}\n", 10 + number)
            }),
            ("application servers", [AT_START, tiers.app], |number| {
                format!("      - {{name: app{number}, address: 10.80.2.{}}}\n", 10 + number)
            }),
            ("application servers once more", [AT_START, tiers.app], |number| {
                format!(
                    "      - {{name: app{number}, address: 10.80.2.{}, track: app/app{number}}}\n",
                    10 + number
                )
            }),
            ("databases", [DB_AT_START, tiers.db], |number| {
                format!("      - {{name: db{number}, address: 10.80.3.{}}}\n", 10 + number)
            }),
        ];
        for (what, [listed, count], line) in lines {
            let old: String = (1..=listed).map(line).collect();
            anyhow::ensure!(
                text.contains(&old),
                "lb.yaml does not list {listed} {what} as expected"
            );
            text = text.replace(&old, &(1..=count).map(line).collect::<String>());
        }
        Ok(text)
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A machine by its name.
    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines().find(|machine| machine.name == name)
    }

    /// All machines.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        [&self.client, &self.admin]
            .into_iter()
            .chain(&self.lb)
            .chain(&self.web)
            .chain(&self.app)
            .chain(&self.db)
    }

    /// Runs a script of configs/scale-up where the operator is.
    pub fn operate(&self, script: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(configs().join(script));
        command.args(arguments);
        let output = self.admin.output(command)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "{script} {arguments:?}: {}",
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }
}

/// A directory of this process. Those of processes that were killed before they could tidy up are removed: the databases
/// in them are large.
fn own_directory() -> anyhow::Result<tempfile::TempDir> {
    const PREFIX: &str = "lb-scale-up-";
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another lab may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir()?)
}

fn write_secret(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, format!("{:032x}\n", rand::random::<u128>()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context("chmod")
}

fn port(machine: &Machine, nic: &str) -> String {
    format!("{}-{nic}", machine.name)
}

/// A NIC in a segment, named after it.
fn attach(machine: &Machine, segment: &str, switch: &Machine) -> anyhow::Result<String> {
    let port = port(machine, segment);
    machine.connect(segment, switch, &port, 1500)?;
    switch.ip(&format!("link set {port} master {segment}"))?;
    Ok(port)
}

fn plug(machine: &Machine, segment: &str, switch: &Machine, address: &str) -> anyhow::Result<()> {
    attach(machine, segment, switch)?;
    machine.ip(&format!("addr add {address} dev {segment}"))?;
    Ok(())
}

fn firewall(machine: &Machine, tier: &str) -> anyhow::Result<()> {
    let rules = configs().join(format!("nftables-{tier}.conf"));
    machine.sh(&format!("nft -f '{}'", rules.display()))?;
    Ok(())
}
