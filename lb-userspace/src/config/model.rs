//! The checked configuration. Only `config` makes one; everything else may rely on what is documented here.

mod balance;
mod check;
pub mod listen;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

pub use self::{balance::*, check::*};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Config {
    /// NICs to attach to, in the order of the file; names are unique. The command line's `--iface` replaces them.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub xdp_mode: XdpMode,
    /// Frames with VLAN tags are balanced.
    pub vlan: bool,
    /// Group that may use the control socket (0660 instead of 0600).
    pub socket_group: Option<String>,
    /// What members of that group may do.
    pub socket_level: SocketLevel,
    /// Where Prometheus may scrape; the port is not 0.
    pub metrics: Option<SocketAddr>,
    /// The dashboard in the browser; `None` = there is none.
    pub dashboard: Option<Dashboard>,
    /// The other nodes; `None` = there are none.
    pub cluster: Option<Cluster>,
    /// What full nat sends from; `None` = no service does full nat.
    pub source_pool: Option<SourcePool>,
    /// What tunnels of ipip send from, at most one prefix of each family; a family without one has the node's own address.
    pub outer_source: Vec<IpNet>,
    /// Sizes fixed when the data plane is loaded.
    pub limits: Limits,
    /// How names of backends are resolved.
    pub resolver: Resolver,
    /// Services; names and (address, port, protocol) are unique.
    pub services: Vec<Service>,
}

/// `socket_level:`, by HAProxy's words.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SocketLevel {
    /// Everything.
    #[default]
    Admin,
    /// Look, but change nothing.
    User,
}

/// `xdp_mode:`
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// In the driver, or fail with the reason.
    #[default]
    Native,
    /// In the network stack: works everywhere, several times slower.
    Generic,
    /// Native where the driver can, else generic with a warning.
    Auto,
}

/// `dashboard:`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Dashboard {
    /// Where it is served; the port is not 0. Not loopback: there is a token.
    pub listen: SocketAddr,
    /// Holds the token; an absolute path. The file itself is judged on the host.
    pub token_file: Option<PathBuf>,
    /// Whoever has the token may change backends; there is one then.
    pub write: bool,
    /// Names that `Host` headers may have beside addresses and `localhost`; in small letters.
    pub hosts: Vec<String>,
}

/// `cluster:`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Cluster {
    /// Where the other nodes reach this one; the port is not 0.
    pub listen: SocketAddr,
    /// Where they are reached; different ones. This node may be among them.
    pub peers: Vec<SocketAddr>,
    /// Holds the secret; an absolute path. The file itself is judged on the host.
    pub secret_file: PathBuf,
}

/// `source_pool:`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SourcePool {
    /// The addresses, 1..=64 different ones in the order of the file; unicast, and no VIPs.
    pub addresses: Vec<IpAddr>,
    /// The first port of new flows, 1024 or more.
    pub first_port: u16,
    /// The last one, not before the first.
    pub last_port: u16,
}

/// `limits:`, entries; fixed while the data plane is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// Services at a time.
    pub services: u32,
    /// Backends at a time (those on their way out included).
    pub backends: u32,
    /// Slots of all rings; `None` = three times what the first configuration uses, at least 512 Ki.
    pub ring_slots: Option<u32>,
    /// Confirmed pins.
    pub pins: u32,
    /// Unconfirmed pins.
    pub pins_unconfirmed: u32,
    /// Connections that are counted.
    pub connections: u32,
    /// Confirmed flows of services that track all.
    pub flows: u32,
    /// Their unconfirmed flows.
    pub flows_unconfirmed: u32,
    /// Clients that services with `persistence` remember.
    pub sources: u32,
    /// Addresses of `source_pool`.
    pub source_addresses: u32,
    /// `allow` prefixes of all services together.
    pub allow_prefixes: u32,
    /// `deny` prefixes of all services together.
    pub deny_prefixes: u32,
}

/// One service. Its settings are written out to be compared; its backends are compared one by one.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Service {
    /// Unique name; 1..=64 of letters, digits, `_`, `-`, `.`, not beginning with `-` or `.`.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// How packets reach backends.
    pub forward: Forward,
    /// What decides about the backend.
    pub balance: Balance,
    /// Percent of its share of all connections that a backend may have, 101..=10000; with maglev and source only.
    pub hash_balance_factor: Option<u16>,
    /// Which flows are remembered; all of them if anything above or below needs it.
    pub track: Track,
    /// What keeps a client at its backend.
    pub persistence: Option<Persistence>,
    /// Clients that may in, beside those in `allow_file`; empty, and no file = all.
    pub allow: Vec<IpNet>,
    /// More of them.
    pub allow_file: Option<PrefixFile>,
    /// Clients that may not in, beside those in `deny_file`, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// More of them.
    pub deny_file: Option<PrefixFile>,
    /// What happens when all backends are DOWN.
    pub on_all_down: OnAllDown,
    /// Usable backends that are enough; at least 1.
    pub quorum: u32,
    /// Less than `quorum`.
    pub hysteresis: u32,
    /// Percent of the backends below which health is not believed, 0..=100; 0 = never.
    pub panic_threshold: u8,
    /// Which packets in fragments are taken.
    pub fragments: Fragments,
    /// `stateless_fragments:`; only of services that are asked by the client's address alone.
    pub stateless_fragments: bool,
    /// Connections are counted (nat, TCP).
    pub count_connections: bool,
    /// What clients' own connections tell of backends; TCP only.
    pub observe: Option<Observe>,
    /// Connections that may be opened; TCP only. It limits something.
    pub rate_limit: Option<RateLimit>,
    /// Thresholds of the SYN-flood stage; TCP only.
    pub syn_flood: Option<SynFlood>,
    /// The greatest MSS that handshakes may offer, bytes; TCP only.
    pub mss_clamp: Option<u16>,
    /// `toa:`; TCP and full nat only.
    pub toa: bool,
    /// Formats of connection ids; QUIC only.
    pub quic_lb: Option<QuicLb>,
    /// What happens to flows of a backend that goes DOWN.
    pub on_marked_down: OnMarkedDown,
    /// Length of a slot's WINDOW; whole seconds, 1..=8000.
    pub window: Duration,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Number of slots, if not derived from the backends; prime.
    pub ring_size: Option<u32>,
    /// The health check; `None` = backends are always UP.
    pub check: Option<Check>,
    /// Agents beside the backends; `None` = there are none.
    pub agent_check: Option<AgentCheck>,
    /// Where more backends come from; `None` = there are none.
    pub backends_from: Option<BackendsFrom>,
    /// Backends, at least one unless some are discovered (as long as they are not, templates stand for them); names and (address, port) are unique; none has a VIP's address. `nat` and `dsr`: of the
    /// VIP's family; `dsr` and `tunnel`: the port equals the listen port, which they cannot change. With `nat`, no
    /// other nat service of the same protocol has the same backend address and port. Shared by everything that
    /// holds the configuration: there may be 100,000.
    #[serde(skip)]
    pub backends: Vec<Arc<Backend>>,
}

impl Service {
    /// Whether it has backends that the file does not tell.
    pub fn is_discovered(&self) -> bool {
        self.backends_from.is_some() || self.backends.iter().any(|one| one.origin.is_template())
    }
}

/// `allow_file:` and `deny_file:`
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PrefixFile {
    /// The file; an absolute path.
    pub path: PathBuf,
    /// What it said when it was last read, of the VIP's family; `None` = it has not been read.
    #[serde(skip)]
    pub prefixes: Option<Arc<[IpNet]>>,
}

impl Service {
    /// All clients that may in; empty = all may, `None` = the file has not been read.
    pub fn allowed(&self) -> Option<Vec<IpNet>> {
        together(&self.allow, self.allow_file.as_ref())
    }

    /// All clients that may not in; `None` = the file has not been read.
    pub fn denied(&self) -> Option<Vec<IpNet>> {
        together(&self.deny, self.deny_file.as_ref())
    }
}

fn together(written: &[IpNet], file: Option<&PrefixFile>) -> Option<Vec<IpNet>> {
    let mut all = written.to_vec();
    if let Some(file) = file {
        all.extend_from_slice(file.prefixes.as_ref()?);
    }
    Some(all)
}

/// `listen:`
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Listen {
    /// The first VIP, or the network address of the first prefix; unicast, not loopback, not unspecified, not link-local
    /// (IPv6), not IPv4-mapped.
    pub address: IpAddr,
    /// All VIPs in the order of the file; of prefixes all addresses are.
    pub vips: Vec<IpNet>,
    /// The port, or the first one; 1..=65535; 0 = any.
    pub port: u16,
    /// The last port, [`Self::port`] if that is the only one; 65535 with any.
    pub last_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// NICs the service is reachable on; empty = all that lb is attached to. Each is in `Config::interfaces` if that
    /// is not empty.
    pub interfaces: Vec<String>,
    /// Put the VIP on this NIC (/32 or /128), and take it off with `lb detach`.
    pub add_address_to: Option<String>,
    /// The VIP may be this host's own address, and its port one that a local process listens on.
    pub force: bool,
}

/// `protocol:`
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// UDP that carries QUIC.
    Quic,
}

impl Protocol {
    /// Whether some packets say that they open a flow: TCP's SYN, QUIC's Initial.
    pub const fn has_openings(self) -> bool {
        matches!(self, Self::Tcp | Self::Quic)
    }

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => lb_common::abi::protocol::TCP,
            Self::Udp | Self::Quic => lb_common::abi::protocol::UDP,
        }
    }

    /// `tcp`, `udp` or `quic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Quic => "quic",
        }
    }
}

/// `forward:` (and `encap:`)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Forward {
    /// Destination rewritten; VIP and backends of one family.
    Nat,
    /// MAC address rewritten; VIP and backends of one family, backends on link.
    Dsr,
    /// `forward: tunnel, encap: ipip`; any mix of families.
    Ipip,
    /// `forward: tunnel, encap: gue`; any mix of families.
    Gue {
        /// The backends' UDP port.
        port: u16,
    },
    /// Source and destination rewritten; VIP and backends of one family.
    FullNat,
}

impl Forward {
    /// `forward: tunnel`
    pub fn is_tunnel(self) -> bool {
        self == Self::Ipip || self.is_gue()
    }

    /// Whether what backends answer passes lb.
    pub fn sees_replies(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
    }

    /// `encap: gue`
    pub fn is_gue(self) -> bool {
        matches!(self, Self::Gue { .. })
    }
}

/// `on_all_down:`
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnAllDown {
    /// Keep sending to all backends that are not administratively out.
    #[default]
    FailOpen,
    /// TCP reset, ICMP port unreachable.
    Reject,
    /// Drop and count.
    Drop,
}

/// `fragments:`
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Fragments {
    /// Those of UDP.
    #[default]
    Udp,
    /// Those of TCP, too.
    All,
    /// None.
    Drop,
}

/// `observe:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Observe {
    /// What is looked at.
    pub mode: ObserveMode,
    /// Failures in a row that are too many, 1..=1000.
    pub error_limit: u16,
    /// Clients that it takes to reach the limit, 1..=1000.
    pub min_sources: u16,
    /// A failure counts for so long.
    pub interval: Duration,
    /// What happens at the limit.
    pub on_error: OnError,
    /// The first ejection's length.
    pub base_ejection: Duration,
    /// The longest ejection; not less than the first.
    pub max_ejection: Duration,
    /// Share of the backends that may be ejected at a time, 1..=100.
    pub max_ejection_percent: u8,
}

/// `rate_limit:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RateLimit {
    /// Of the service.
    pub connections: Option<Burst>,
    /// Of each client.
    pub connections_per_source: Option<Burst>,
}

/// A rate, and how far it may be exceeded for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Burst {
    /// Nanoseconds from one to the next; at least 1.
    pub interval: u64,
    /// So many at once after a pause; at least 1, and not more than come in a day.
    pub burst: u64,
}

/// `quic_lb:`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QuicLb {
    /// Bytes, 1..=15.
    pub server_id_length: u8,
    /// Config ids, 0..=6.
    pub config_ids: Vec<u8>,
}

/// `syn_flood:`, SYNs a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SynFlood {
    /// More engage it.
    pub engage: u64,
    /// Fewer release it; at least 1, and at most `engage`.
    pub release: u64,
}

/// `mode:` of `observe:`
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ObserveMode {
    /// Whether TCP connections are accepted.
    Layer4,
}

/// `on_error:`, HAProxy's words.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The next check comes sooner.
    Fastinter,
    /// Counts as a failed check, and the next one comes sooner.
    FailCheck,
    /// The next check comes sooner, and is the last if it fails.
    SuddenDeath,
    /// Out of the ring for a while.
    MarkDown,
}

/// `on_marked_down:`
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnMarkedDown {
    /// Its flows go to other backends at once (and get their reset there).
    #[default]
    Move,
    /// Its flows stay with it; only new flows go elsewhere.
    Keep,
}

/// `timeouts:`, whole seconds, 1..=8000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Timeouts {
    /// An idle TCP flow's pin goes after this long; also the length of HARVEST of a TCP service.
    pub tcp: Duration,
    /// The same after FIN or RST.
    pub tcpfin: Duration,
    /// The same for UDP.
    pub udp: Duration,
}

/// `resolver:`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Resolver {
    /// An absolute path.
    pub resolv_conf: PathBuf,
    /// Time that a server may take.
    pub timeout: Duration,
    /// Shortest time between two questions for a name.
    pub min_ttl: Duration,
    /// Longest; not less than the shortest.
    pub max_ttl: Duration,
}

/// `backends_from:`
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BackendsFrom {
    /// An absolute path.
    pub directory: PathBuf,
    /// What each backend has unless its file says otherwise; without name and address.
    pub defaults: Box<Backend>,
}

/// Where a backend comes from. Only `config` and `discovery` know of templates: everything else has concrete backends.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It is in the file with its address.
    Written,
    /// It stands for the addresses of this name. Its own address means nothing.
    Name(String),
    /// It stands for the SRV records of this name. Its own address and port mean nothing.
    Srv(String),
    /// It is from an answer.
    Answer {
        /// Name of the template.
        template: String,
        /// The DNS name.
        name: String,
    },
    /// It is from a file.
    File(PathBuf),
    /// It has served before, and stays until the names of its service have been resolved.
    Held,
}

impl Origin {
    /// Whether it stands for others.
    pub fn is_template(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Srv(_))
    }
}

/// One backend, with all defaults filled in.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Backend {
    /// Unique in its service.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// 0..=256; 0 = no new flows.
    pub weight: u16,
    /// Probe timing.
    pub timing: Timing,
    /// Time over which it comes back; 0 = at once.
    pub slowstart: Duration,
    /// 0 = first, up to 15.
    pub tier: u8,
    /// Only for when nobody else is left; has tier 0 and no check. Not all backends of a service are.
    pub sorry: bool,
    /// Whose health it has instead of its own.
    pub track: Option<Tracked>,
    /// What it puts into connection ids: as many bytes as its service's `quic_lb` says; unique in the service.
    pub server_id: Option<Box<[u8]>>,
    /// Where it comes from.
    pub origin: Origin,
}

/// `track:`, followed to the backend that is checked.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Tracked {
    /// As written: `SERVICE/BACKEND`.
    pub name: String,
    /// What is checked; there is one in a valid configuration.
    pub probe: Option<Probe>,
}

/// A check of an address.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Probe {
    /// Whose check it is.
    pub address: IpAddr,
    /// Its port, which the check may replace.
    pub port: u16,
    /// The check.
    pub check: Check,
    /// Its times.
    pub timing: Timing,
    /// The service's name.
    pub service: String,
    /// The backend's.
    pub backend: String,
    /// VIP and port of the service.
    pub vip: SocketAddr,
    /// How packets of the service reach the backend.
    pub forward: Forward,
}

/// HAProxy's check timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Timing {
    /// Interval when settled.
    pub inter: Duration,
    /// Interval while changing.
    pub fastinter: Duration,
    /// Interval when down.
    pub downinter: Duration,
    /// Good answers in a row to go up, at least 1.
    pub rise: u32,
    /// Bad answers in a row to go down, at least 1.
    pub fall: u32,
    /// Time a probe may take.
    pub timeout: Duration,
    /// State before the first answer.
    pub init_state: InitState,
}

/// `init_state:`
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum InitState {
    /// DOWN until the first good answer (one is enough).
    #[default]
    Down,
    /// UP until the first bad answer (one is enough).
    Up,
}

/// Where a configuration came from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name as given.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}
