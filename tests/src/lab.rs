//! Topologies: a client, lb's host and backends on bridged segments.
//!
//! ```text
//!  client ── br0 ── lb (lb0)          one-armed: backends on br0, too
//!                   lb (lb1) ── br1 ── web1, web2...   two-armed
//! ```
//! The client is in 10.77.1.0/24 and fd77:1::/64, the backends in 10.77.0.0/24 and fd77::/64; lb's host is the gateway of
//! both, so that nat's answers come back through it. With [`Return::Direct`] the backends reach the client on link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{SchedClassifier, TcAttachType, Xdp, xdp::XdpMode},
};

use crate::{kernel::lab::abi::Constant, machine::Machine, server::Server};

/// Port of the backends' servers, and of every VIP in dsr and tunnel labs.
pub const PORT: u16 = 8080;
/// The IPv4 VIP.
pub const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 80));
/// The IPv6 VIP.
pub const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x80));

/// Number of lb's NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// Everything on lb0.
    One,
    /// Clients on lb0, backends on lb1.
    Two,
}

/// How backends answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Through lb (nat).
    ThroughLb,
    /// Straight to the client, from the VIP on their loopback (dsr, tunnel).
    Direct,
}

/// A lab. Dropping it removes everything.
pub struct Lab {
    /// Where requests come from.
    pub client: Machine,
    /// Where lb runs.
    pub lb: Machine,
    /// Where servers run: web1, web2...
    pub backends: Vec<Machine>,
    /// Their servers; `None` = stopped.
    pub servers: Vec<Option<Server>>,
    /// lb's NICs.
    pub nics: Vec<&'static str>,
    /// What joins them: br0 and, with two arms, br1. Ports that lb does not send to need nothing special.
    pub switch: Machine,
    arms: Arms,
    way: Return,
    /// The program on far ends of lb's links, without which frames sent by XDP would vanish there.
    _pass: Ebpf,
}

/// Address of a backend, 1 = web1.
pub fn backend4(number: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, 10 + number as u8).into()
}

/// IPv6 address of a backend, 1 = web1.
pub fn backend6(number: usize) -> IpAddr {
    format!("fd77::1{number:x}").parse().expect("an address")
}

impl Lab {
    /// Builds it, with `backends` running servers.
    pub fn new(arms: Arms, way: Return, backends: usize) -> anyhow::Result<Self> {
        let switch = Machine::new("switch")?;
        let client = Machine::new("client")?;
        let lb = Machine::new("lb")?;
        for bridge in ["br0", "br1"] {
            switch.ip(&format!("link add {bridge} type bridge"))?;
            switch.ip(&format!("link set {bridge} mtu 1600 up"))?;
        }
        let nics = match arms {
            Arms::One => vec!["lb0"],
            Arms::Two => vec!["lb0", "lb1"],
        };
        let mut ports = Vec::new();
        for (number, nic) in nics.iter().enumerate() {
            let port = format!("p-{nic}");
            lb.connect(nic, &switch, &port, 1600)?;
            switch.ip(&format!("link set {port} master br{number}"))?;
            ports.push(port);
        }
        let inside = nics[nics.len() - 1];
        lb.sh(&format!(
            "ip addr add 10.77.1.1/24 dev lb0; ip addr add fd77:1::1/64 dev lb0 nodad; \
             ip addr add 10.77.0.1/24 dev {inside}; ip addr add fd77::1/64 dev {inside} nodad"
        ))?;
        client.connect("c0", &switch, "p-client", 1500)?;
        switch.ip("link set p-client master br0")?;
        client.sh("ip addr add 10.77.1.2/24 dev c0; ip addr add fd77:1::2/64 dev c0 nodad; \
             ip route add default via 10.77.1.1; ip route add default via fd77:1::1")?;
        let pass = pass_on(&switch, &ports)?;
        let mut lab = Self {
            client,
            lb,
            backends: Vec::new(),
            servers: Vec::new(),
            nics,
            switch,
            arms,
            way,
            _pass: pass,
        };
        for _ in 0..backends {
            lab.add_backend()?;
        }
        Ok(lab)
    }

    /// One more backend with a running server; returns its number (1 = web1).
    pub fn add_backend(&mut self) -> anyhow::Result<usize> {
        let number = self.backends.len() + 1;
        let machine = Machine::new(&format!("web{number}"))?;
        let port = format!("p-web{number}");
        machine.connect("e0", &self.switch, &port, 1600)?;
        let bridge = if self.arms == Arms::One { "br0" } else { "br1" };
        self.switch.ip(&format!("link set {port} master {bridge}"))?;
        let (v4, v6) = (backend4(number), backend6(number));
        machine.sh(&format!(
            "ip addr add {v4}/24 dev e0; ip addr add {v6}/64 dev e0 nodad; \
             ip route add default via 10.77.0.1; ip route add default via fd77::1"
        ))?;
        if self.way == Return::Direct {
            // The VIP without answering ARP for it, and the client on link.
            machine.sh(&format!(
                "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce; \
                 ip addr add {VIP4}/32 dev lo; ip addr add {VIP6}/128 dev lo nodad; \
                 ip route add 10.77.1.0/24 dev e0; ip route add fd77:1::/64 dev e0"
            ))?;
        }
        self.backends.push(machine);
        let server = self.server(number)?;
        self.servers.push(Some(server));
        Ok(number)
    }

    /// Puts all machines into a VLAN of one tag, or of two (802.1ad outside), as VLAN devices would. The tags stay in the
    /// packets, as lb needs it. Dropping the result takes them out again.
    pub fn tag(&self, tags: u32) -> anyhow::Result<Vec<Ebpf>> {
        let ports = self.switch.sh("ip -br link | sed 's/[@ ].*//'")?;
        for port in ports.split_whitespace().filter(|port| port.starts_with("p-")) {
            self.switch.sh(&keep_tags(port))?;
        }
        let backends = self.backends.iter().map(|backend| (backend, "e0"));
        [(&self.client, "c0"), (&self.lb, "lb0")]
            .into_iter()
            .chain(backends)
            .map(|(machine, nic)| {
                machine.sh(&keep_tags(nic))?;
                machine.run(move || tag(nic, tags)).with_context(|| format!("tag {nic}"))
            })
            .collect()
    }

    /// Attaches the lab's `pass` program to a NIC of lb, as another XDP user would; it is gone when the result is dropped.
    pub fn attach_pass(&self, nic: &str) -> anyhow::Result<Ebpf> {
        pass_on(&self.lb, &[nic.to_owned()])
    }

    /// The same on a NIC of the client.
    pub fn attach_pass_to_client(&self, nic: &str) -> anyhow::Result<Ebpf> {
        pass_on(&self.client, &[nic.to_owned()])
    }

    /// Attaches the lab's program that sends packets for [`VIP4`] to web1 and does nothing else, to lb0; it is gone when the
    /// result is dropped.
    pub fn attach_constant(&self) -> anyhow::Result<Ebpf> {
        let text = self.backends[0].sh("ip -o link show e0 | sed 's/.*ether //; s/ .*//'")?;
        let mut mac = [0; 6];
        for (byte, text) in mac.iter_mut().zip(text.trim().split(':')) {
            *byte = u8::from_str_radix(text, 16).context("a MAC address")?;
        }
        let IpAddr::V4(vip) = VIP4 else { anyhow::bail!("an IPv6 VIP") };
        let address = u32::from_ne_bytes(vip.octets());
        self.lb.run(move || {
            let mut ebpf = load_pass()?;
            let map = ebpf.map_mut("CONSTANT").context("no map CONSTANT")?;
            let mut constants: Array<_, Constant> = Array::try_from(map)?;
            constants.set(0, Constant { address, mac, _pad: [0; 2] }, 0)?;
            let program: &mut Xdp =
                ebpf.program_mut("constant").context("no program `constant`")?.try_into()?;
            program.load()?;
            program.attach("lb0", XdpMode::Driver)?;
            Ok(ebpf)
        })
    }

    /// On a NIC of lb, but without a link, as `ip link set xdp` does it: it stays when the result is dropped.
    pub fn attach_pass_by_netlink(&self, nic: &str) -> anyhow::Result<()> {
        self.lb.run(|| {
            let mut ebpf = load_pass()?;
            pass_program(&mut ebpf)?.pin("/sys/fs/bpf/pass").context("pin the program")
        })?;
        self.lb.sh(&format!(
            "ip link set dev {nic} xdp pinned /sys/fs/bpf/pass; rm /sys/fs/bpf/pass"
        ))?;
        Ok(())
    }

    /// Makes lb1 (which is gone) anew: another pair under the same name, with its addresses, in the bridge.
    pub fn rebuild_inner_link(&self) -> anyhow::Result<Ebpf> {
        self.lb.connect("lb1", &self.switch, "p-lb1", 1600)?;
        self.switch.ip("link set p-lb1 master br1")?;
        self.lb.sh("ip addr add 10.77.0.1/24 dev lb1; ip addr add fd77::1/64 dev lb1 nodad")?;
        pass_on(&self.switch, &["p-lb1".to_owned()])
    }

    /// Stops a backend's server (1 = web1): connections break, new ones are refused.
    pub fn stop_server(&mut self, number: usize) {
        self.servers[number - 1] = None;
    }

    /// Starts it again.
    pub fn start_server(&mut self, number: usize) -> anyhow::Result<()> {
        self.servers[number - 1] = Some(self.server(number)?);
        Ok(())
    }

    /// Backends take packets out of tunnels by `lb decap`, as the README says.
    pub fn decapsulate(&self) {
        for backend in &self.backends {
            let mut command = std::process::Command::new(crate::daemon::lb_binary());
            let from = ["--from", "10.77.0.1/32", "--from", "fd77::1/128"];
            command.args(["decap", "--iface", "e0"]).args(from);
            let output = backend.output(command).expect("lb decap can be started");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "lb decap: {said}");
        }
    }

    /// A running server for a backend (1 = web1), on its own addresses and, if it answers directly, on the VIPs.
    pub fn server(&self, number: usize) -> anyhow::Result<Server> {
        let mut addresses = vec![backend4(number), backend6(number)];
        if self.way == Return::Direct {
            addresses.extend([VIP4, VIP6]);
        }
        let addresses: Vec<_> =
            addresses.into_iter().map(|address| SocketAddr::new(address, PORT)).collect();
        Server::start(&self.backends[number - 1], &format!("web{number}"), &addresses)
    }
}

/// The command that has a NIC leave VLAN tags where they are.
fn keep_tags(nic: &str) -> String {
    let features = ["txvlan", "rxvlan", "tx-vlan-stag-hw-insert", "rx-vlan-stag-hw-parse"]
        .map(|name| format!("{name} off"));
    format!("ethtool -K {nic} {} >/dev/null", features.join(" "))
}

/// Tags all that leaves by a NIC of this machine, and untags what comes.
fn tag(nic: &str, tags: u32) -> anyhow::Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().override_global("TAGS", &tags, true).load_file(OBJECT)?;
    for (name, way) in [("tag", TcAttachType::Egress), ("untag", TcAttachType::Ingress)] {
        let program = ebpf.program_mut(name).with_context(|| format!("no program `{name}`"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        program.attach(nic, way)?;
    }
    Ok(ebpf)
}

/// Attaches the lab's `pass` program to NICs of a machine.
pub(crate) fn pass_on(machine: &Machine, nics: &[String]) -> anyhow::Result<Ebpf> {
    let nics = nics.to_vec();
    machine.run(move || {
        let mut ebpf = load_pass()?;
        let program = pass_program(&mut ebpf)?;
        for nic in nics {
            program.attach(&nic, XdpMode::Driver).with_context(|| format!("attach to {nic}"))?;
        }
        Ok(ebpf)
    })
}

/// The lab's programs.
const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/lab");

fn load_pass() -> anyhow::Result<Ebpf> {
    let mut ebpf = EbpfLoader::new()
        .load_file(OBJECT)
        .with_context(|| format!("load {OBJECT} (`cargo xtask build` makes it)"))?;
    pass_program(&mut ebpf)?.load()?;
    Ok(ebpf)
}

fn pass_program(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    Ok(ebpf.program_mut("pass").context("the object has no program `pass`")?.try_into()?)
}
