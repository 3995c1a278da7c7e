//! Topology: an etcd, and nodes that share the configuration in it.
//!
//! ```text
//!  br0 ──┬── store   etcd, and the backends' server    10.79.0.1
//!        └── lb-1, lb-2, lb-3                          10.79.0.11 and up
//! ```

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use crate::{
    client::wait_for, daemon::Daemon, lab::PORT, machine::Machine, node::share_seed,
    process::Process, server::Server,
};

/// Nodes.
pub const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// The lab without etcd, and without the nodes' daemons, which borrow their machines from it.
pub struct Stage {
    /// Where etcd and the backends' server run.
    pub store: Machine,
    /// Where lb runs.
    pub nodes: Vec<Machine>,
    /// Files of all.
    pub directory: tempfile::TempDir,
    seed: String,
    _server: Server,
    _switch: Machine,
}

/// A running etcd.
pub struct Etcd {
    process: Process,
}

impl Stage {
    /// Builds it.
    pub fn new() -> anyhow::Result<Self> {
        let switch = Machine::new("switch")?;
        switch.sh("ip link add br0 type bridge; ip link set br0 up")?;
        let plug = |name: &str, address: &str| {
            let machine = Machine::new(name)?;
            machine.connect("lb0", &switch, &format!("p-{name}"), 1500)?;
            switch.ip(&format!("link set p-{name} master br0"))?;
            machine.ip(&format!("addr add {address}/24 dev lb0"))?;
            anyhow::Ok(machine)
        };
        let store = plug("store", "10.79.0.1")?;
        let nodes = (1..=NODES).map(|number| plug(&format!("lb-{number}"), &own(number)));
        let nodes = nodes.collect::<anyhow::Result<_>>()?;
        let at: SocketAddr = format!("10.79.0.1:{PORT}").parse()?;
        let server = Server::start(&store, "web", &[at])?;
        let seed = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let directory = tempfile::tempdir()?;
        Ok(Self { store, nodes, directory, seed, _server: server, _switch: switch })
    }

    /// Starts etcd with the data of before, with these arguments beside its own; waits until it answers.
    pub fn etcd(&self, scheme: &str, arguments: &[&str]) -> anyhow::Result<Etcd> {
        let mut command = Command::new("etcd");
        let clients = format!("{scheme}://10.79.0.1:2379");
        command.args(["--name", "n1", "--logger", "zap", "--data-dir"]);
        command.arg(self.directory.path().join("etcd"));
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        let peers = "http://127.0.0.1:2380";
        command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
        command.args(["--initial-cluster", &format!("n1={peers}")]).args(arguments);
        let process = Process::start(&self.store, "etcd", self.directory.path(), &command)?;
        wait_for(
            "etcd listens",
            PATIENCE,
            || (self.store.sh("ss -Hltn sport = 2379").unwrap_or_default(), process.log()),
            |(text, _)| text.contains("2379"),
        );
        Ok(Etcd { process })
    }

    /// `etcdctl ARGUMENTS` beside etcd, tried again while it does not answer yet.
    #[track_caller]
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["--dial-timeout=1s", "--command-timeout=5s"];
        all.extend(arguments);
        let run = || {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(&all);
            if !arguments.iter().any(|argument| argument.starts_with("--endpoints")) {
                command.arg("--endpoints=http://10.79.0.1:2379");
            }
            let output = self.store.output(command).expect("etcdctl can be run");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.success(), text(&output.stdout), text(&output.stderr))
        };
        wait_for(&format!("etcdctl {arguments:?}"), PATIENCE, run, |(good, _, _)| *good).1
    }

    /// A node's lb with its configuration from `url`, not started.
    pub fn node(&self, number: usize, url: &str) -> anyhow::Result<Daemon<'_>> {
        let name: &'static str = ["lb-1", "lb-2", "lb-3"][number - 1];
        let directory = self.directory.path().join(name);
        fs::create_dir_all(&directory)?;
        let mut daemon = Daemon::in_directory(&self.nodes[number - 1], &["lb0"], "", &directory)?;
        daemon.config = url.into();
        daemon.arguments = vec!["--node", name];
        share_seed(&directory.join("state"), &self.seed)?;
        Ok(daemon)
    }

    /// The whole path of a file of the lab.
    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Writes a file of the lab; its whole path.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> anyhow::Result<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(name);
        fs::write(&path, text)?;
        fs::set_permissions(Path::new(&path), fs::Permissions::from_mode(mode))?;
        Ok(path)
    }
}

impl Etcd {
    /// `kill -9`
    pub fn kill(self) -> anyhow::Result<()> {
        self.process.kill()
    }
}

fn own(number: usize) -> String {
    format!("10.79.0.{}", 10 + number)
}

/// One service with one backend, of this weight.
pub fn yaml(weight: u16) -> String {
    format!(
        "services:\n  - name: web\n    listen: {{address: 10.79.0.80, port: {PORT}}}\n    forward: nat\n    \
         check: {{type: tcp}}\n    \
         backend_defaults: {{inter: 300ms, fastinter: 100ms, downinter: 300ms, rise: 1, fall: 2, timeout: 1s}}\n    \
         backends:\n      - {{name: web1, address: \"10.79.0.1:{PORT}\", weight: {weight}}}\n"
    )
}
