//! Topology: a client, backends, and a pair of lb nodes between them, kept by keepalived.
//!
//! ```text
//!  client ── br0 ──┬── lb-a ──┬── br1 ── web1, web2, web3
//!                  └── lb-b ──┘
//! ```
//! Clients and VIPs are in 10.77.1.0/24 and fd77:1::/64, backends in 10.77.0.0/24 and fd77::/64. The gateway of the backends,
//! 10.77.0.1 and fd77::1, is on the node that has the VIPs. A second NIC of the backends is in the clients' segment, by
//! which dsr and tunnel answer. keepalived is configured by configs/ha.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use aya::Ebpf;

use crate::{
    daemon::lb_binary,
    lab::{PORT, backend4, backend6, pass_on},
    machine::Machine,
    node::{Node, Plan},
    server::Server,
};

/// VIPs by what forwards to their backends: nat, dsr, tunnel, and nat over IPv6.
pub const VIPS: [(&str, &str); 4] = [
    ("nat", "10.77.1.80"),
    ("dsr", "10.77.1.81"),
    ("tunnel", "10.77.1.82"),
    ("nat6", "fd77:1::80"),
];
const BACKENDS: usize = 3;
const NICS: [&str; 2] = ["lb0", "lb1"];

/// The lab without the nodes' daemons, which borrow their machines from it.
pub struct Pair {
    /// Where requests come from.
    pub client: Machine,
    /// What joins the machines.
    pub switch: Machine,
    /// Where web1, web2... run.
    pub backends: Vec<Machine>,
    /// Their servers; `None` = stopped.
    pub servers: Vec<Option<Server>>,
    nodes: [Machine; 2],
    vips: &'static [(&'static str, &'static str)],
    seed: String,
    _pass: Ebpf,
}

/// The services of the lab, each with its VIP.
pub fn targets() -> [(&'static str, SocketAddr); 4] {
    VIPS.map(|(name, vip)| (name, SocketAddr::new(address(vip), PORT)))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Pair {
    /// Builds it, with running backends.
    pub fn new() -> anyhow::Result<Self> {
        Self::with(&VIPS)
    }

    /// The same with some of the [`VIPS`] alone.
    pub fn with(vips: &'static [(&'static str, &'static str)]) -> anyhow::Result<Self> {
        let switch = Machine::new("switch")?;
        for bridge in ["br0", "br1"] {
            switch.ip(&format!("link add {bridge} type bridge"))?;
            switch.ip(&format!("link set {bridge} mtu 1600 up"))?;
        }
        let client = Machine::new("client")?;
        plug(&client, "c0", 1500, &switch, "p-client", "br0")?;
        client.sh("ip addr add 10.77.1.2/24 dev c0; ip addr add fd77:1::2/64 dev c0 nodad")?;
        let nodes = [Machine::new("lb-a")?, Machine::new("lb-b")?];
        let mut ports = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            for (number, nic) in NICS.iter().enumerate() {
                let port = port(index, nic);
                plug(node, nic, 1600, &switch, &port, &format!("br{number}"))?;
                // Frames for the dead node's MAC address would reach the other one, which would forward them: most
                // switches help like this, but not all.
                switch.ip(&format!("link set {port} type bridge_slave flood off"))?;
                ports.push(port);
            }
        }
        let pass = pass_on(&switch, &ports)?;
        let seed = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let mut pair = Self {
            client,
            switch,
            backends: Vec::new(),
            servers: Vec::new(),
            nodes,
            vips,
            seed,
            _pass: pass,
        };
        for number in 1..=BACKENDS {
            pair.add_backend(number)?;
        }
        Ok(pair)
    }

    fn add_backend(&mut self, number: usize) -> anyhow::Result<()> {
        let name = format!("web{number}");
        let machine = Machine::new(&name)?;
        plug(&machine, "e0", 1600, &self.switch, &format!("p-{name}-0"), "br1")?;
        plug(&machine, "e1", 1600, &self.switch, &format!("p-{name}-1"), "br0")?;
        let (v4, v6) = (backend4(number), backend6(number));
        // What comes from its own address answers nat, through the pair; what comes from a VIP answers directly.
        machine.sh(&format!(
            "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce; \
             ip addr add {v4}/24 dev e0; ip addr add {v6}/64 dev e0 nodad; \
             ip addr add 10.77.1.{}/24 dev e1; \
             ip rule add from {v4} to 10.77.1.0/24 lookup 100; ip route add default via 10.77.0.1 table 100; \
             ip route add default via fd77::1; \
             ip addr add {}/32 dev lo; ip addr add {}/32 dev lo",
            10 + number,
            VIPS[1].1,
            VIPS[2].1
        ))?;
        if self.vips.iter().any(|(name, _)| *name == "tunnel") {
            let mut decap = std::process::Command::new(lb_binary());
            decap.args(["decap", "--iface", "e0"]);
            decap.args(["--from", "10.77.0.3/32", "--from", "10.77.0.4/32"]);
            let output = machine.output(decap)?;
            anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let addresses: Vec<_> = [v4, v6, address(VIPS[1].1), address(VIPS[2].1)]
            .map(|address| SocketAddr::new(address, PORT))
            .into();
        let server = Server::start(&machine, &name, &addresses)?;
        self.backends.push(machine);
        self.servers.push(Some(server));
        Ok(())
    }

    /// Where one of the nodes runs.
    pub fn machine(&self, index: usize) -> &Machine {
        &self.nodes[index]
    }

    /// keepalived's configuration of one of the nodes.
    pub fn keepalived(&self, index: usize) -> anyhow::Result<String> {
        keepalived(["node-a.conf", "node-b.conf"][index], self.vips)
    }

    /// Has a node hear VRRP of its peer alone, as configs/ha/nftables.conf says; returns the peer's address.
    pub fn filter_vrrp(&self, index: usize) -> anyhow::Result<String> {
        let peer = &self.nodes[1 - index];
        let link = peer.ip("-o link show dev lb0")?;
        let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let address = format!("10.77.1.{}", 3 + 1 - index);
        let text = configured(
            "nftables.conf",
            &[
                ("iifname eth0", "iifname lb0"),
                ("saddr 192.0.2.4", &format!("saddr {address}")),
                ("02:00:00:00:00:04", mac.context("a NIC without a MAC address")?),
            ],
        )?;
        self.nodes[index].sh(&format!("nft -f - <<'END'\n{text}END"))?;
        Ok(address)
    }

    /// Pulls a node's cables.
    pub fn unplug(&self, index: usize) -> anyhow::Result<()> {
        for nic in NICS {
            self.switch.ip(&format!("link set {} down", port(index, nic)))?;
        }
        Ok(())
    }

    /// Cuts the nodes off from each other, and from nobody else; or joins them again.
    pub fn split(&self, split: bool) -> anyhow::Result<()> {
        let word = if split { "on" } else { "off" };
        for (node, nic) in [(0, "lb0"), (0, "lb1"), (1, "lb0"), (1, "lb1")] {
            let port = port(node, nic);
            self.switch.ip(&format!("link set {port} type bridge_slave isolated {word}"))?;
        }
        Ok(())
    }

    /// One of the nodes, not started: 0 is lb-a, the preferred one.
    pub fn node(&self, index: usize) -> anyhow::Result<Node<'_>> {
        let own = index + 3;
        let plan = Plan {
            nics: &NICS.map(|nic| (nic, port(index, nic))),
            addresses: vec![
                format!("10.77.1.{own}/24 dev lb0"),
                format!("fd77:1::{own}/64 dev lb0 nodad"),
                format!("10.77.0.{own}/24 dev lb1"),
                format!("fd77::{own}/64 dev lb1 nodad"),
            ],
            routes: Vec::new(),
            yaml: &yaml(self.vips),
            keepalived: &self.keepalived(index)?,
            seed: &self.seed,
        };
        Node::new(&self.nodes[index], &self.switch, &plan)
    }
}

fn plug(
    machine: &Machine,
    nic: &str,
    mtu: u32,
    switch: &Machine,
    port: &str,
    bridge: &str,
) -> anyhow::Result<()> {
    machine.connect(nic, switch, port, mtu)?;
    switch.ip(&format!("link set {port} master {bridge}"))?;
    Ok(())
}

fn port(node: usize, nic: &str) -> String {
    format!("p-{}-{nic}", ["a", "b"][node])
}

/// Both nodes have the same configuration.
fn yaml(vips: &[(&str, &str)]) -> String {
    let mut yaml = "services:\n".to_owned();
    for (name, vip) in vips {
        let forward = match *name {
            "dsr" => "dsr",
            "tunnel" => "tunnel\n    encap: ipip",
            _ => "nat",
        };
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {PORT}}}\n    forward: {forward}\n    \
             check: {{type: http, path: /healthz}}\n    \
             backend_defaults: {{inter: 500ms, fastinter: 200ms, fall: 3, timeout: 2s}}\n    backends:\n"
        );
        for number in 1..=BACKENDS {
            let address = if *name == "nat6" { backend6(number) } else { backend4(number) };
            let address = SocketAddr::new(address, PORT);
            yaml += &format!("      - {{name: web{number}, address: \"{address}\"}}\n");
        }
    }
    yaml
}

/// keepalived's file of configs/ha with the names and addresses of the lab.
fn keepalived(name: &str, all: &[(&str, &str)]) -> anyhow::Result<String> {
    let vips = |is_v6: bool| -> String {
        let bits = if is_v6 { 128 } else { 32 };
        let of_family = all.iter().filter(|(_, vip)| vip.contains(':') == is_v6);
        let lines = of_family.map(|(_, vip)| format!("{vip}/{bits} dev eth0"));
        lines.collect::<Vec<_>>().join("\n        ")
    };
    configured(
        name,
        &[
            ("192.0.2.10/32 dev eth0", &vips(false)),
            ("10.0.0.1/24 dev eth1", "10.77.0.1/24 dev eth1"),
            ("2001:db8::10/128 dev eth0", &vips(true)),
            ("fd00::1/128 dev eth1", "fd77::1/128 dev eth1"),
            ("eth0", "lb0"),
            ("eth1", "lb1"),
        ],
    )
}

/// A file of configs/ha with ours instead of what the example has. What cannot be replaced any more is an error, so that example and lab
/// cannot part.
fn configured(name: &str, replacements: &[(&str, &str)]) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/ha").join(name);
    let mut text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (example, ours) in replacements {
        anyhow::ensure!(text.contains(example), "{} has no `{example}`", path.display());
        text = text.replace(example, ours);
    }
    Ok(text)
}
