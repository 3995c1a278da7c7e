//! What the checks judge: plain data. `None` means that it is not known.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use crate::{
    api::types::{Status, Why},
    config::model::Config,
    dataplane::probe::Attempt,
};

/// Everything that was found out.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The kernel.
    pub kernel: Kernel,
    /// This command's process, and where it works.
    pub process: Process,
    /// The NICs asked about.
    pub nics: Vec<Nic>,
    /// Addresses on `lo` that make this host a backend (not 127.0.0.0/8, not ::1).
    pub loopback_addresses: Vec<IpAddr>,
    /// The configuration; `Err` is why it cannot be used.
    pub config: Option<Result<Config, ConfigProblem>>,
    /// The daemon.
    pub daemon: Daemon,
}

impl Facts {
    /// The configuration, if there is a good one.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()?.as_ref().ok()
    }

    /// Whether a NIC here takes packets out of tunnels, or the host has a VIP on its loopback: a backend of lb's.
    pub fn is_backend(&self) -> bool {
        self.nics.iter().any(|nic| nic.decapsulates) || !self.loopback_addresses.is_empty()
    }
}

/// A file that is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file.
    pub path: PathBuf,
    /// The first line of what is wrong.
    pub problem: String,
}

/// The kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// `6.1.0-18-amd64`
    pub release: String,
    /// Values of /proc/sys by their names with dots.
    pub sysctl: BTreeMap<&'static str, String>,
    /// The kernel describes its own types.
    pub btf: bool,
    /// What was tried with BPF.
    pub attempts: Vec<Attempt>,
    /// `tsc`, `kvm-clock`...
    pub clock_source: Option<String>,
    /// CPUs online.
    pub cpus: usize,
}

impl Kernel {
    /// A number among the sysctls.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.sysctl.get(name)?.trim().parse().ok()
    }
}

/// A process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Capabilities that lb needs and this command does not have.
    pub missing: Option<Vec<&'static str>>,
    /// Where pins are, or would be.
    pub pin_dir: PathBuf,
    /// `pin_dir` is on a bpffs.
    pub bpffs: Option<bool>,
    /// The bpffs is mounted read-only.
    pub read_only: bool,
    /// `lb run` may mount a bpffs by itself.
    pub may_mount: bool,
}

/// The daemon.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// What it says of itself.
    pub status: Option<Status>,
    /// What was dropped.
    pub why: Option<Why>,
    /// Why it does not answer.
    pub away: Option<String>,
    /// NICs with lb's pinned program.
    pub attached: Vec<String>,
    /// Capabilities that it lacks.
    pub missing: Option<Vec<&'static str>>,
    /// Files it may have open.
    pub open_files: Option<u64>,
    /// Bytes of memory its control group may use; `None` = unlimited or not known.
    pub memory_limit: Option<u64>,
}

/// A NIC.
#[derive(Clone, Debug, Default)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its index; `None` = there is no such NIC.
    pub ifindex: Option<u32>,
    /// MTU, bytes.
    pub mtu: u32,
    /// Up, with carrier.
    pub up: bool,
    /// Name of its driver.
    pub driver: Option<String>,
    /// What its driver can do with XDP; kernels before 6.3 do not say.
    pub xdp_features: Option<XdpFeatures>,
    /// The XDP program on it.
    pub program: Option<Program>,
    /// Offloads by the kernel's names (`rx-lro`).
    pub offloads: BTreeMap<String, Offload>,
    /// Queues.
    pub channels: Option<Channels>,
    /// Header fields that choose the receive queue, by traffic.
    pub hashes: BTreeMap<Traffic, HashFields>,
    /// VLAN interfaces on top of it.
    pub vlans: Vec<String>,
    /// For each of its interrupts the CPUs that get it; empty = not known.
    pub interrupts: Vec<Vec<u32>>,
    /// `net.ipv4.conf.NIC.rp_filter`
    pub rp_filter: Option<i64>,
    /// `lb decap` has its program here.
    pub decapsulates: bool,
}

impl Nic {
    /// Its name as the shell takes it.
    pub fn word(&self) -> String {
        super::shell_word(&self.name)
    }
}

/// `xdp-features` of the kernel's `netdev` family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Native XDP with PASS, DROP, TX.
    pub basic: bool,
    /// XDP_REDIRECT to others.
    pub redirect: bool,
    /// May be the target of XDP_REDIRECT.
    pub target: bool,
}

/// An XDP program on a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Its name and id, for messages.
    pub name: String,
    /// `native`, `generic` or `offloaded`.
    pub mode: String,
    /// lb's.
    pub ours: bool,
}

/// An offload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// It is on.
    pub on: bool,
    /// It cannot be changed.
    pub fixed: bool,
}

/// Queues: in use, and how many there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// Queues that only receive.
    pub rx: u32,
    /// Queues that receive and transmit.
    pub combined: u32,
    /// As many as there may be.
    pub max_rx: u32,
    /// As many as there may be.
    pub max_combined: u32,
}

/// Traffic that NICs hash in a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
    /// Any other IPv4, tunnels among it.
    Ip4,
    /// Any other IPv6.
    Ip6,
}

impl Traffic {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Tcp4, Self::Udp4, Self::Tcp6, Self::Udp6, Self::Ip4, Self::Ip6];

    /// ethtool's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "tcp4",
            Self::Udp4 => "udp4",
            Self::Tcp6 => "tcp6",
            Self::Udp6 => "udp6",
            Self::Ip4 => "ip4",
            Self::Ip6 => "ip6",
        }
    }
}

/// What the receive hash is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashFields {
    /// Source or destination address.
    pub addresses: bool,
    /// Ports.
    pub ports: bool,
}
