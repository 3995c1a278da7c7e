//! Topology: a client, a router with ECMP, and a fleet of lb nodes that announce the VIPs to it by BGP.
//!
//! ```text
//!  client ── router ──┬── br0 ── lb-a, lb-b, lb-c, lb-d
//!                     └─────────  web1, web2, web3
//! ```
//! The client is in 10.77.1.0/24; router (.1), nodes (.11 and up) and backends (.21 and up) are in 10.77.2.0/24. The backends
//! answer through the router (dsr and tunnel). BIRD is configured by configs/fleet.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use aya::Ebpf;

use crate::{
    client::wait_for,
    daemon::{Daemon, lb_binary},
    lab::{PORT, pass_on},
    machine::Machine,
    node::share_seed,
    process::Process,
    server::Server,
};

/// VIPs by what forwards to their backends.
pub const VIPS: [(&str, &str); 2] = [("dsr", "10.77.3.80"), ("tunnel", "10.77.3.81")];
/// How many nodes there are.
pub const NODES: usize = 4;
const BACKENDS: usize = 3;
const NAMES: [&str; NODES] = ["lb-a", "lb-b", "lb-c", "lb-d"];
const PATIENCE: Duration = Duration::from_secs(60);

/// The lab without the nodes' daemons, which borrow their machines from it.
pub struct Fleet {
    /// Where requests come from.
    pub client: Machine,
    /// Where ECMP is.
    pub router: Machine,
    switch: Machine,
    nodes: Vec<Machine>,
    seed: String,
    directory: tempfile::TempDir,
    _servers: Vec<(Machine, Server)>,
    _bird: Process,
    _pass: Ebpf,
}

/// One node: lb, BIRD, and what joins them.
pub struct FleetNode<'a> {
    /// lb.
    pub daemon: Daemon<'a>,
    name: &'static str,
    processes: Vec<Process>,
}

/// The services of the lab.
pub fn targets() -> [SocketAddr; 2] {
    VIPS.map(|(_, vip)| SocketAddr::new(vip.parse().expect("an address"), PORT))
}

impl Fleet {
    /// Builds it, with running backends and the router's BIRD.
    pub fn new() -> anyhow::Result<Self> {
        let switch = Machine::new("switch")?;
        switch.sh("ip link add br0 type bridge; ip link set br0 mtu 1600 up")?;
        let client = Machine::new("client")?;
        let router = Machine::new("router")?;
        client.connect("c0", &router, "r0", 1500)?;
        client.sh("ip addr add 10.77.1.2/24 dev c0; ip route add default via 10.77.1.1")?;
        plug(&router, "r1", &switch, "p-router")?;
        router.sh("ip addr add 10.77.1.1/24 dev r0; ip addr add 10.77.2.1/24 dev r1; \
             echo 1 > /proc/sys/net/ipv4/ip_forward; \
             echo 1 > /proc/sys/net/ipv4/fib_multipath_hash_policy; \
             echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects; \
             echo 0 > /proc/sys/net/ipv4/conf/r1/send_redirects; \
             echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter")?;
        let mut nodes = Vec::new();
        for (index, name) in NAMES.into_iter().enumerate() {
            let node = Machine::new(name)?;
            plug(&node, "lb0", &switch, &format!("p-{name}"))?;
            node.sh(&format!(
                "ip addr add {}/24 dev lb0; ip route add default via 10.77.2.1; \
                 ip addr add {}/32 dev lo; ip addr add {}/32 dev lo; \
                 echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore",
                address(index),
                VIPS[0].1,
                VIPS[1].1
            ))?;
            nodes.push(node);
        }
        let ports: Vec<String> = NAMES.iter().map(|name| format!("p-{name}")).collect();
        let pass = pass_on(&switch, &ports)?;
        let servers = (1..=BACKENDS).map(|number| backend(number, &switch));
        let servers = servers.collect::<anyhow::Result<_>>()?;
        let directory = tempfile::tempdir()?;
        let bird = bird(&router, directory.path(), "router", "router.conf", &[])?;
        let seed = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        Ok(Self {
            client,
            router,
            switch,
            nodes,
            seed,
            directory,
            _servers: servers,
            _bird: bird,
            _pass: pass,
        })
    }

    /// A node with a running lb and BIRD; it announces nothing before it is ready.
    pub fn node(&self, index: usize, is_cluster: bool) -> anyhow::Result<FleetNode<'_>> {
        let (machine, name) = (&self.nodes[index], NAMES[index]);
        let directory = self.directory.path().join(name);
        fs::create_dir_all(&directory)?;
        let secret = self.directory.path().join("secret");
        write_secret(&secret)?;
        let yaml = yaml(is_cluster.then_some(secret.as_path()));
        let mut daemon = Daemon::in_directory(machine, &["lb0"], &yaml, &directory)?;
        daemon.arguments = vec!["--node", name];
        if !directory.join("state/seed").exists() {
            share_seed(&directory.join("state"), &self.seed)?;
        }
        daemon.start()?;
        let own = address(index);
        let bird = bird(machine, &directory, name, "node.conf", &[("10.0.9.11", &own)])?;
        let mut announce = Command::new("sh");
        announce.arg(example("announce.sh"));
        announce
            .env("LB", format!("{} --socket {}", lb_binary().display(), daemon.socket.display()));
        announce.env("BIRDC", format!("birdc -s {}", socket(&directory, name).display()));
        announce.env("EVERY", "0.1");
        let announce = Process::start(machine, "announce", &directory, &announce)?;
        Ok(FleetNode { daemon, name, processes: vec![announce, bird] })
    }

    /// Has the router send everything to one node, whatever is announced.
    pub fn route_by(&self, index: usize) -> anyhow::Result<()> {
        for (_, vip) in VIPS {
            // BIRD's own routes have a greater metric.
            self.router.ip(&format!("route replace {vip}/32 via {} metric 1", address(index)))?;
        }
        Ok(())
    }

    /// Waits until so many nodes are announced, for each VIP.
    #[track_caller]
    pub fn wait_announced(&self, count: usize) {
        for (_, vip) in VIPS {
            wait_for(
                &format!("{vip} is announced by {count} nodes"),
                PATIENCE,
                || self.router.sh(&format!("ip route show {vip}")).unwrap_or_default(),
                |text| text.matches("via ").count() == count,
            );
        }
    }
}

impl FleetNode<'_> {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Out of service in order: drained until nothing comes any more, then everything ends, as for a reboot.
    pub fn leave(mut self) -> anyhow::Result<()> {
        self.daemon.must(&["node", "drain", "--wait", "--deadline", "30s"]);
        for process in self.processes.drain(..) {
            process.terminate()?;
        }
        self.daemon.must(&["detach"]);
        self.daemon.wait_for_end()?;
        fs::remove_dir_all(self.daemon.directory.join("run"))?;
        Ok(())
    }

    /// All its processes are killed, and its link is cut.
    pub fn crash(mut self, fleet: &Fleet) -> anyhow::Result<()> {
        fleet.switch.ip(&format!("link set p-{} down", self.name))?;
        for process in self.processes.drain(..) {
            process.kill()?;
        }
        self.daemon.kill()
    }
}

fn address(index: usize) -> String {
    format!("10.77.2.{}", 11 + index)
}

fn plug(machine: &Machine, nic: &str, switch: &Machine, port: &str) -> anyhow::Result<()> {
    machine.connect(nic, switch, port, 1600)?;
    switch.ip(&format!("link set {port} master br0"))?;
    Ok(())
}

fn backend(number: usize, switch: &Machine) -> anyhow::Result<(Machine, Server)> {
    let name = format!("web{number}");
    let machine = Machine::new(&name)?;
    plug(&machine, "e0", switch, &format!("p-{name}"))?;
    let own = format!("10.77.2.{}", 20 + number);
    machine.sh(&format!(
        "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce; \
         ip addr add {own}/24 dev e0; ip route add default via 10.77.2.1; \
         ip addr add {}/32 dev lo; ip addr add {}/32 dev lo",
        VIPS[0].1, VIPS[1].1
    ))?;
    let mut decap = Command::new(lb_binary());
    decap.args(["decap", "--iface", "e0", "--from", "10.77.2.0/24"]);
    let output = machine.output(decap)?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let at = |address: &str| -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(address.parse()?, PORT))
    };
    let addresses = [at(&own)?, at(VIPS[0].1)?, at(VIPS[1].1)?];
    let server = Server::start(&machine, &name, &addresses)?;
    Ok((machine, server))
}

fn write_secret(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, "the secret of a fleet in a lab\n")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context("chmod")
}

/// All nodes have the same file.
fn yaml(secret: Option<&Path>) -> String {
    let mut yaml = String::new();
    if let Some(secret) = secret {
        let peers: Vec<String> = (0..NODES).map(address).collect();
        yaml += &format!(
            "cluster: {{listen: \"0.0.0.0:7946\", peers: [{}], secret_file: {}}}\n",
            peers.join(", "),
            secret.display()
        );
    }
    yaml += "services:\n";
    for (name, vip) in VIPS {
        let forward = if name == "dsr" { "dsr" } else { "tunnel\n    encap: ipip" };
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {PORT}}}\n    forward: {forward}\n    \
             check: {{type: http, path: /healthz}}\n    \
             backend_defaults: {{inter: 500ms, fastinter: 200ms, fall: 3, timeout: 2s}}\n    backends:\n"
        );
        for number in 1..=BACKENDS {
            yaml += &format!(
                "      - {{name: web{number}, address: \"10.77.2.{}:{PORT}\"}}\n",
                20 + number
            );
        }
    }
    yaml
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/fleet").join(name)
}

fn socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.ctl"))
}

/// BIRD with an example of configs/fleet, with the addresses of the lab. What cannot be replaced any more is an error, so that
/// example and lab cannot part.
fn bird(
    machine: &Machine,
    directory: &Path,
    name: &str,
    config: &str,
    own: &[(&str, &str)],
) -> anyhow::Result<Process> {
    let path = example(config);
    let mut text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let vips = [("192.0.2.10/32", "10.77.3.80/32"), ("192.0.2.11/32", "10.77.3.81/32")];
    let lab: &[(&str, &str)] = match config {
        "node.conf" => &vips,
        _ => &[("192.0.2.0/24{32,32}", "10.77.3.0/24{32,32}")],
    };
    for (example, ours) in lab.iter().chain(own).chain(&[("10.0.9.", "10.77.2.")]) {
        anyhow::ensure!(text.contains(example), "{} has no `{example}`", path.display());
        text = text.replace(example, ours);
    }
    let file = directory.join(format!("{name}.bird.conf"));
    fs::write(&file, text)?;
    let mut command = Command::new("bird");
    command.arg("-f").arg("-c").arg(file).arg("-s").arg(socket(directory, name));
    command.arg("-P").arg(directory.join(format!("{name}.pid")));
    Process::start(machine, "bird", directory, &command)
}
