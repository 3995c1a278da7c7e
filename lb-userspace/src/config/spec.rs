//! The file as written. These types are the only definition of its keys: the JSON Schema, the checks of keys, types
//! and bounds, `configs/every-option.yaml` and its documentation are all derived from them.

mod balance;
mod check;

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    check::Checked,
    diagnostic::Diagnostic,
    model::{
        Balance, Fragments, InitState, ObserveMode, OnAllDown, OnError, OnMarkedDown, Protocol,
        SocketLevel, Track, XdpMode,
    },
    value::{
        BackendPath, DnsName, Endpoint, FilePath, GroupName, HexBytes, Host, HostName,
        InterfaceName, Name, Period, Ports, Prefix, Rate, Vips,
    },
};

pub use self::{balance::*, check::*};

/// The configuration of lb, an XDP load balancer for TCP and UDP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// NICs that lb attaches to. `lb run --iface` replaces them.
    #[serde(default)]
    #[schemars(example = ["eth0", "eth1"], length(max = 32))]
    pub interfaces: Vec<InterfaceName>,
    /// How to attach: `native` = in the driver, or fail and say why; `generic` = in the network stack, which works
    /// everywhere and is several times slower; `auto` = native where the driver can, else generic with a warning.
    #[serde(default)]
    pub xdp_mode: XdpMode,
    /// Balance frames with one or two VLAN tags (802.1Q, 802.1ad), too; what leaves has the tags of what came, so clients and
    /// backends are in the same VLAN. Otherwise such frames are passed to the host untouched. The NIC must leave the tags
    /// in the packets: `ethtool -K eth0 rxvlan off` (`lb doctor` looks).
    #[serde(default)]
    pub vlan: bool,
    /// Group that may use the control socket (mode 0660 instead of 0600): its members can drain and detach.
    #[schemars(example = &"lb")]
    pub socket_group: Option<GroupName>,
    /// What the members of `socket_group` may do: `admin` = everything; `user` = look, but change nothing.
    #[serde(default)]
    pub socket_level: SocketLevel,
    /// Address and port on which Prometheus may scrape `/metrics`; nobody is asked who he is, so better not a public one.
    /// Without it there is no such listener.
    #[schemars(example = &"127.0.0.1:9180")]
    pub metrics: Option<Endpoint>,
    /// The dashboard in the browser: a mapping, or its address alone. Without it there is no such listener.
    pub dashboard: Option<Dashboard>,
    /// The other nodes that balance the same services, with which this one keeps in step. Without it a node goes by itself.
    pub cluster: Option<Cluster>,
    /// What services with `forward: fullnat` send from: addresses that are lb's alone, and that the backends' answers come back to.
    pub source_pool: Option<SourcePool>,
    /// What services with `encap: ipip` send from, one prefix for backends of each family: the last bits of the outer source (of IPv6
    /// at most 32) tell flows apart, so that NICs and routers spread what is sent to one backend over their queues and paths. Better
    /// none of a link's own: addresses that are nobody's. Route the prefix to this host, which has to take it for its own (`ip route
    /// add local 10.0.8.0/24 dev lo`), or nobody reads what routers say about the tunnel; backends take it in (`lb decap --from`; with
    /// a tunnel device, `rp_filter` of 0 or 2 or a route back). Without it the outer source is this node's address towards the backend.
    /// GUE spreads by its source port and needs none.
    #[serde(default)]
    #[schemars(example = ["10.0.8.0/24", "fd00:8::/64"], length(max = 2))]
    pub outer_source: Vec<Prefix>,
    /// Sizes of tables. They are fixed when lb attaches: a change needs `lb detach` and a new start.
    #[serde(default)]
    pub limits: Limits,
    /// How names of backends are resolved.
    #[serde(default)]
    pub resolver: Resolver,
    /// What backends of all services have unless their service or they themselves say otherwise.
    #[serde(default)]
    pub backend_defaults: BackendSettings,
    /// What lb balances: each service is one virtual address (VIP), port and protocol.
    #[schemars(length(min = 1))]
    pub services: Vec<Service>,
}

impl File {
    /// From what of a document has the right shape, which is taken out; with it, where each of its services is in the file's
    /// list.
    pub fn from_checked(checked: &mut Checked) -> Result<(Self, Vec<usize>), Diagnostic> {
        let failed = |place: &str, error: serde_yaml::Error| {
            Diagnostic::of_file(format!("{place} cannot be read: {error}"), "")
        };
        let mut top = std::mem::take(&mut checked.top);
        top.insert("services".into(), serde_yaml::Value::Sequence(Vec::new()));
        let mut file: Self = serde_yaml::from_value(serde_yaml::Value::Mapping(top))
            .map_err(|error| failed("the top level", error))?;
        let mut indices = Vec::new();
        for (index, service) in std::mem::take(&mut checked.services).into_iter().enumerate() {
            let Some(service) = service else { continue };
            let service = serde_yaml::from_value(service)
                .map_err(|error| failed(&format!("services[{index}]"), error))?;
            file.services.push(service);
            indices.push(index);
        }
        Ok((file, indices))
    }
}

/// What full nat sends from. Each flow has a port of one of the addresses; a node of a cluster has addresses of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourcePool {
    /// Addresses, and prefixes whose addresses all count: up to 64, of the families that the services have. Better none that this host
    /// itself speaks from: it would use the same ports. Either they are on an interface of this host, or they are routed to it.
    #[schemars(example = ["10.0.0.100", "10.0.0.102/31", "fd00::100"], length(min = 1, max = 64))]
    pub addresses: Vec<Prefix>,
    /// The ports of each address that new flows may have, from 1024 on.
    #[serde(default = "source_ports_default")]
    #[schemars(example = "1024-65535")]
    pub ports: Ports,
}

fn source_ports_default() -> Ports {
    Ports::Range(1_024, u16::MAX)
}

/// The dashboard in the browser.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::schema::or_first_key)]
pub struct Dashboard {
    /// Address and port it is served on. One that others than this host can reach needs a `token_file`; there is no TLS, so
    /// better put a proxy with TLS or a tunnel of ssh before a loopback address.
    #[schemars(example = &"127.0.0.1:8404")]
    pub listen: Endpoint,
    /// File with the token that the page asks for: at least 16 characters on one line, readable by lb's user alone (0600 or
    /// 0400). A new token is in force within some seconds. Without it everybody who reaches the address may look.
    #[schemars(example = &"/etc/lb/dashboard.token")]
    pub token_file: Option<FilePath>,
    /// Whoever has the token may also drain backends, bring them back, and set their weights.
    #[serde(default)]
    pub write: bool,
    /// Names by which browsers reach the page, such as a proxy's; addresses and `localhost` always work. Others are refused, so
    /// that no foreign page can point its name at this host (DNS rebinding).
    #[serde(default)]
    #[schemars(example = ["lb1.example.org"], length(max = 32))]
    pub hosts: Vec<HostName>,
}

/// The nodes that balance the same services: flows that their rings alone do not find are told to each other, and so is what is
/// set by hand (`lb drain`, `lb weight`, `lb set`) and what checks find. The channel is authenticated and encrypted by a secret
/// that the nodes share, as they share the seed in the state directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Address and port on which the other nodes reach this one; 0.0.0.0 or "[::]" with a port where all have the same file.
    #[schemars(example = &"10.0.9.1:7946")]
    pub listen: Endpoint,
    /// Addresses of the nodes, with a port if it is not that of `listen`. This node may be among them: it finds out.
    #[schemars(example = ["10.0.9.1", "10.0.9.2"], length(min = 1, max = 32))]
    pub peers: Vec<Endpoint>,
    /// File with the secret: at least 16 characters on one line, readable by lb's user alone (0600 or 0400). A new secret is in
    /// force within some seconds.
    #[schemars(example = &"/etc/lb/cluster.secret")]
    pub secret_file: FilePath,
}

/// How names of backends are resolved: by DNS alone, with the servers and the search list of a `resolv.conf`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    /// The file that names the servers. It is read anew for each question.
    pub resolv_conf: FilePath,
    /// Time that a server may take; there are two attempts.
    pub timeout: Period,
    /// An answer is asked for again when its time to live is over, but not sooner than this.
    pub min_ttl: Period,
    /// And not later than this.
    pub max_ttl: Period,
}

impl Default for Resolver {
    fn default() -> Self {
        let seconds = |seconds| Period(std::time::Duration::from_secs(seconds));
        Self {
            resolv_conf: FilePath("/etc/resolv.conf".to_owned()),
            timeout: seconds(2),
            min_ttl: seconds(1),
            max_ttl: seconds(300),
        }
    }
}

/// Entries of tables; all of them are allocated when lb attaches.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Services at a time.
    #[schemars(range(min = 1, max = 16_384))]
    pub services: u32,
    /// Backends of all services at a time; those on their way out count.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub backends: u32,
    /// Slots of all rings, 8 bytes each. Without it: three times what the file needs at the start, at least 524288.
    #[schemars(range(min = 1_021, max = 268_435_456), example = 1_048_576)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_slots: Option<u32>,
    /// Flows remembered while rings change, after their handshake.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub pins: u32,
    /// The same, before the handshake is complete; a SYN flood while rings change can fill this table only.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub pins_unconfirmed: u32,
    /// Connections that are counted, of all services with `count_connections`; each takes some 100 bytes while it is open.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub connections: u32,
    /// Flows of services that track all of them (`track: always`), after their handshake or first answer; about 130 bytes each,
    /// allocated once a service does.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub flows: u32,
    /// The same, before that; a flood of SYNs or datagrams can fill this table only, and only its service's part of it.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub flows_unconfirmed: u32,
    /// Clients that services with `persistence` and a time-out remember; about 90 bytes each, allocated once a service does.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub sources: u32,
    /// Addresses of `source_pool`, those on their way out counted; about 13 MB each, allocated once a service does full nat.
    #[schemars(range(min = 1, max = 64))]
    pub source_addresses: u32,
    /// `allow` prefixes of all services together, those in files counted.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub allow_prefixes: u32,
    /// `deny` prefixes of all services together, those in files counted. Memory is taken with each.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub deny_prefixes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 1_024,
            backends: 16_384,
            ring_slots: None,
            pins: 262_144,
            pins_unconfirmed: 65_536,
            connections: 262_144,
            flows: 262_144,
            flows_unconfirmed: 65_536,
            sources: 262_144,
            source_addresses: 4,
            allow_prefixes: 65_536,
            deny_prefixes: 262_144,
        }
    }
}

/// What a backend has, of its own, by its service's `backend_defaults`, by the file's, or built in, in this order.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendSettings {
    /// Share of new flows, relative to the other backends of the service. 0 = no new flows.
    #[schemars(range(max = 256), extend("default" = 100), example = 100)]
    pub weight: Option<u16>,
    /// Time between checks while nothing changes.
    #[schemars(extend("default" = "2s"))]
    pub inter: Option<Period>,
    /// Time between checks while the backend is on its way up or down.
    #[schemars(extend("default" = "500ms"))]
    pub fastinter: Option<Period>,
    /// Time between checks while the backend is down.
    #[schemars(extend("default" = "5s"))]
    pub downinter: Option<Period>,
    /// Good checks in a row that bring a backend up.
    #[schemars(range(min = 1, max = 1_000), extend("default" = 2))]
    pub rise: Option<u32>,
    /// Bad checks in a row that take a backend down.
    #[schemars(range(min = 1, max = 1_000), extend("default" = 3))]
    pub fall: Option<u32>,
    /// Time a check may take.
    #[schemars(extend("default" = "1s"))]
    pub timeout: Option<Period>,
    /// State before the first check has an answer; the first answer alone can change it.
    #[schemars(extend("default" = "down"))]
    pub init_state: Option<InitState>,
    /// Time over which a backend that was down, in maintenance or ejected comes back: its share of new flows grows in
    /// steps of 5 % of what will be its own, and nobody else's flows move. Not for backends that start with lb or are
    /// new in the file. Up to 1h.
    #[schemars(extend("default" = "0s"), example = &"30s")]
    pub slowstart: Option<Period>,
}

/// One virtual address, port and protocol, and the backends behind it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Name of the service in commands and statistics; unique.
    #[schemars(example = &"web")]
    pub name: Name,
    /// Where clients connect to.
    pub listen: Listen,
    /// How packets reach the backends. `nat`: the destination is rewritten, and the answers come back through lb.
    /// `dsr`: only the MAC address is rewritten; backends are on the same link, have the VIP, and answer the client
    /// directly. `tunnel`: encapsulated; backends may be anywhere, have the VIP, and answer the client directly.
    /// `fullnat`: the source is rewritten, too, to an address of `source_pool`; backends may be anywhere, need no VIP and no route
    /// through lb, and do not see the clients' addresses.
    #[schemars(example = Forward::Tunnel)]
    pub forward: Forward,
    /// The tunnel; needed with `forward: tunnel` and only there; IPv4 and IPv6 are mixed as needed. `ipip` is RFC 2003 and RFC
    /// 2473: 20 or 40 bytes more. `gue` is Generic UDP Encapsulation, variant 0: 32 or 52 bytes more, and a UDP source port
    /// of each flow's own, by which NICs and routers spread what is sent to one backend over their queues and paths. A backend
    /// without a tunnel device can run `lb decap`, which knows both.
    #[schemars(example = Encap::Gue)]
    pub encap: Option<Encap>,
    /// With `encap: gue`: the UDP port on which backends take packets out of the tunnel.
    #[schemars(extend("default" = 6080), example = 6080)]
    pub gue_port: Option<NonZeroU16>,
    /// What decides about the backend of a new flow. By Maglev hashing, without remembering anything: `maglev` = addresses and
    /// ports, each flow by itself; `source` = the client's address alone (IPv6: its /64), so that a client stays with its
    /// backend. With every flow remembered (`track: always` goes without saying): `rr` = in turn; `wrr` = in turn, by
    /// weight; `leastconn` = who has the fewest connections; `wlc` = who has the fewest for its weight; `random2` = the
    /// less loaded of two drawn by weight. `rr` and `leastconn` give all weights but 0 the same share.
    #[serde(default)]
    pub balance: Balance,
    /// Percent of its share of all connections that a backend may have (HAProxy's word): a new flow whose backend has more goes
    /// to the next one on the ring. With `balance: maglev` or `source`, for at most 256 backends; `track: always` goes
    /// without saying. Smaller = more even, and more flows that are not where the ring alone would have them.
    #[schemars(range(min = 101, max = 10_000), example = 125)]
    pub hash_balance_factor: Option<u16>,
    /// Which flows are remembered: `changes` = those of ring slots whose backend has changed, until that has settled; `always` =
    /// all of them (`limits.flows`), UDP's too, each with its backend until that goes down. What finds no room follows the
    /// ring, as if it were `changes`. Costs one or two look-ups for each packet from a client of this service. Without it:
    /// `always` where another key needs it, else `changes`.
    #[schemars(example = Track::Always)]
    pub track: Option<Track>,
    /// What keeps a client at its backend, whatever port it comes from.
    pub persistence: Option<Persistence>,
    /// Clients that may in. Empty = all. (Balanced packets do not pass the host's firewall.)
    #[serde(default)]
    #[schemars(example = ["198.51.100.0/24", "203.0.113.7"])]
    pub allow: Vec<Prefix>,
    /// File with more of them: one prefix or address a line; blank lines, and what follows `#` or `;`, say nothing; prefixes of
    /// the other family than the VIP's are left out. Read again with each reload.
    #[schemars(example = &"/etc/lb/allow.txt")]
    pub allow_file: Option<FilePath>,
    /// Clients that may not in: their packets are dropped and counted as `denied`, whatever `allow` says. Lists of 100,000
    /// prefixes are fine; a change of a list takes effect at one moment.
    #[serde(default)]
    #[schemars(example = ["192.0.2.0/24"])]
    pub deny: Vec<Prefix>,
    /// File with more of them, as `allow_file`.
    #[schemars(example = &"/etc/lb/deny.txt")]
    pub deny_file: Option<FilePath>,
    /// What clients meet while all backends of all tiers are down and there is no sorry backend: `fail_open` = the backends
    /// anyway, `reject` = a TCP reset or ICMP port unreachable, `drop` = nothing. Backends in drain or maint never count
    /// as a way out.
    #[serde(default)]
    pub on_all_down: OnAllDown,
    /// So many backends have to be usable (UP, ready, with a weight). If fewer of the first tier are, those of the next
    /// tier join them, and so on; if fewer are in all tiers, new flows go to the sorry backend, or, without one, to those
    /// that are left.
    #[serde(default = "quorum_default")]
    #[schemars(range(min = 1, max = 65_535))]
    pub quorum: u32,
    /// Backends below and above `quorum` between which nothing changes, as in keepalived: what had the quorum loses it
    /// with fewer than `quorum - hysteresis`, and has it again with `quorum + hysteresis`.
    #[serde(default)]
    #[schemars(range(max = 65_534))]
    pub hysteresis: u32,
    /// Percent of the backends that are not taken out by hand. With fewer of them usable in all tiers, the checks are not
    /// believed: all of them get traffic, DOWN or not, as in Envoy. A sorry backend comes before that if fewer than
    /// `quorum` are usable. 0 = never.
    #[serde(default)]
    #[schemars(range(max = 100), example = 50)]
    pub panic_threshold: u8,
    /// Which packets are balanced that come in fragments: `udp` = datagrams, `all` = TCP segments, too, `drop` = none. What comes
    /// before its first fragment is dropped, but for services with `stateless_fragments`.
    #[serde(default)]
    pub fragments: Fragments,
    /// Fragments of which nothing is known (they came before their first one, or that took the way by another node) go where
    /// the client's address leads, which needs no table. For that the service must have `balance: source`, addresses and not
    /// prefixes under `listen`, and be the only one of its addresses and protocol that takes fragments.
    #[serde(default)]
    pub stateless_fragments: bool,
    /// Count open connections (nat and TCP only): `lb stats` and `lb stats --ipvs` then show them. Costs a look-up for each
    /// packet from a client. Connections that are open already, here or on another node, are not counted.
    #[serde(default)]
    pub count_connections: bool,
    /// What clients' own connections tell of backends (TCP only): a mapping, or `layer4` alone. Backends that do not answer
    /// SYNs, or refuse them (seen in nat), are taken out without waiting for a check. Only clients that have lately completed
    /// a handshake with the service count, so that a flood of made-up addresses says nothing. Costs a look-up for each
    /// packet from a client of this service.
    pub observe: Option<Observe>,
    /// How many connections may be opened (TCP only). SYNs beyond that are dropped, and clients repeat them. (The first packet of
    /// a UDP flow looks like any other.)
    pub rate_limit: Option<RateLimit>,
    /// What is to be done about SYN floods (TCP only): a mapping, or `engage` alone. While the stage is engaged, lb answers SYNs of
    /// unknown clients with a challenge that only somebody at that address can answer: a SYN-ACK with a wrong acknowledgement
    /// number, which TCP refuses by a reset that has this number. Who has answered is let in for ten minutes, when he repeats his
    /// SYN (Linux at once, others after a second), by all services. Costs no memory for a SYN. Clients behind firewalls
    /// that drop such SYN-ACKs do not get in while the stage is engaged.
    pub syn_flood: Option<SynFlood>,
    /// The greatest segment that TCP handshakes may offer (TCP only), where path MTU discovery is not to be relied on: MTU minus 40 (IPv6:
    /// 60). A client's SYN is clamped in every mode, so that a backend sends no larger segments; a backend's SYN-ACK in nat, so that
    /// clients do not either. (In dsr and tunnel it does not pass lb: set `advmss` on the backends' routes; besides, lb tells
    /// clients what does not fit a tunnel.)
    #[schemars(range(min = 536, max = 9_000), example = 1_360)]
    pub mss_clamp: Option<u16>,
    /// Tell servers the clients' addresses (`forward: fullnat` and TCP only): a TCP option, in what a client sends until the server has
    /// sent data, which a kernel module named `toa` on the backends reads; without one, it is passed over. Kind 254 and 8 bytes
    /// with an IPv4 address, kind 253 and 20 bytes with an IPv6 address; SYN-ACKs offer segments smaller by as much, so that
    /// there is room. Options of these kinds that a client sends are made unreadable.
    #[serde(default)]
    pub toa: bool,
    /// Routing by connection ids (QUIC only; draft-ietf-quic-load-balancers, unencrypted): each backend puts its `server_id` into the
    /// connection ids that it gives out, and lb sends each packet that has one where it says. So a connection stays with its
    /// backend when the client's address or port changes, and through every change of backends. What has no such id follows
    /// addresses and ports: first packets, and ids of backends that are down or unknown.
    pub quic_lb: Option<QuicLb>,
    /// What happens to flows of a backend that goes down: `move` = to other backends at once, `keep` = nothing.
    #[serde(default)]
    pub on_marked_down: OnMarkedDown,
    /// How long lb watches for idle flows after the backends have changed before it starts to remember them: whole
    /// seconds up to 8000s. A flow that is silent through this and one idle time-out may move.
    #[serde(default = "window_default")]
    pub window: Period,
    /// Idle times of flows.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Slots of the Maglev ring: a prime from 1021 to 655373. Without it: by the number and weights of the backends.
    /// All nodes of a cluster need the same. A change moves nearly all flows.
    #[schemars(range(min = 1_021, max = 655_373), example = 65_537)]
    pub ring_size: Option<u32>,
    /// How lb asks backends whether they work. Without it they are always up.
    pub check: Option<Check>,
    /// An agent beside each backend, which says in a line of HAProxy's agent protocol what the backend wants: `75%` of its weight,
    /// `drain`, `maint`, `ready`, `down`, `up`. An agent that is silent or gone changes nothing.
    pub agent_check: Option<AgentCheck>,
    /// What backends of this service have unless they themselves say otherwise.
    #[serde(default)]
    pub backend_defaults: BackendSettings,
    /// A directory whose files (`*.yaml`, `*.yml`, `*.json`) each hold a list of backends, as under `backends`, but with
    /// addresses only. They are watched. A file that is invalid, or gone for a moment, counts with its last good content.
    #[schemars(example = &"/etc/lb/backends.d/web")]
    pub backends_from: Option<FilePath>,
    /// The servers that do the work.
    #[serde(default)]
    pub backends: Vec<Backend>,
}

fn quorum_default() -> u32 {
    1
}

fn window_default() -> Period {
    Period(std::time::Duration::from_secs(300))
}

/// `observe:`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::schema::or_first_key)]
pub struct Observe {
    /// What is looked at: `layer4` = whether TCP connections are accepted.
    #[schemars(example = ObserveMode::Layer4)]
    pub mode: ObserveMode,
    /// Failures in a row, with no connection accepted in between, that are too many.
    #[serde(default = "error_limit_default")]
    #[schemars(range(min = 1, max = 1_000))]
    pub error_limit: u16,
    /// Clients (IPv6: /64 networks) that it takes to reach the limit, so that no single one can: each counts for its share of
    /// `error_limit` at most.
    #[serde(default = "min_sources_default")]
    #[schemars(range(min = 1, max = 1_000))]
    pub min_sources: u16,
    /// A failure counts for so long.
    #[serde(default = "interval_default")]
    pub interval: Period,
    /// What happens at the limit, in HAProxy's words: `fastinter` = the next check comes sooner; `sudden_death` = so it does,
    /// and if it fails the backend is down; `fail_check` = the failures count as a failed check, and the next one comes sooner;
    /// `mark_down` = the backend is ejected for a while. Without it: `mark_down` in nat, and `sudden_death` in dsr and tunnel,
    /// where answers are not seen, so that the evidence could be made up and is always checked.
    #[schemars(example = OnError::SuddenDeath)]
    pub on_error: Option<OnError>,
    /// With `mark_down`: time out of the ring at the first ejection. Each further one takes twice as long; each time of this
    /// length without one takes a doubling back.
    #[serde(default = "base_ejection_default")]
    pub base_ejection: Period,
    /// The longest ejection.
    #[serde(default = "max_ejection_default")]
    pub max_ejection: Period,
    /// Percent of the service's backends that may be ejected at a time; one always may, as long as another one is left.
    #[serde(default = "max_ejection_percent_default")]
    #[schemars(range(min = 1, max = 100))]
    pub max_ejection_percent: u8,
}

fn error_limit_default() -> u16 {
    10
}

fn min_sources_default() -> u16 {
    3
}

fn interval_default() -> Period {
    Period(std::time::Duration::from_secs(10))
}

fn base_ejection_default() -> Period {
    Period(std::time::Duration::from_secs(30))
}

fn max_ejection_default() -> Period {
    Period(std::time::Duration::from_secs(300))
}

fn max_ejection_percent_default() -> u8 {
    30
}

/// `rate_limit:`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Connections opened to the service, by all clients together and over all CPUs. Clients that the SYN-flood stage
    /// keeps out take nothing of it.
    #[schemars(example = &"10000/s")]
    pub connections: Option<Rate>,
    /// So many at once after a pause. Without it: those of one second (minute, hour).
    #[schemars(range(min = 1, max = 100_000_000), example = 10_000)]
    pub connections_burst: Option<u32>,
    /// Connections opened by one client (IPv6: by a /64 network).
    #[schemars(example = &"100/s")]
    pub connections_per_source: Option<Rate>,
    /// So many at once after a pause. Without it: those of one second (minute, hour).
    #[schemars(range(min = 1, max = 100_000_000), example = 100)]
    pub connections_per_source_burst: Option<u32>,
}

/// `quic_lb:`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::schema::or_first_key)]
pub struct QuicLb {
    /// Bytes of a server id, which stands behind the first byte of a connection id.
    #[schemars(range(min = 1, max = 15), example = 2)]
    pub server_id_length: u8,
    /// Config ids that backends use: the upper three bits of the first byte (7 is for ids that name no server). Several while
    /// backends change from one to another.
    #[serde(default = "first_config_id")]
    #[schemars(length(min = 1, max = 7), inner(range(max = 6)), example = [0])]
    pub config_ids: Vec<u8>,
}

fn first_config_id() -> Vec<u8> {
    vec![0]
}

/// `syn_flood:`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::schema::or_first_key)]
pub struct SynFlood {
    /// More SYNs a second than this engage the stage at once.
    #[schemars(example = &"10000/s")]
    pub engage: Rate,
    /// Fewer SYNs a second than this, for nine seconds, release it. Without it: half of `engage`.
    #[schemars(example = &"5000/s")]
    pub release: Option<Rate>,
}

/// Where clients connect to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The virtual address (VIP). Or a list of them, IPv4 and IPv6 mixed, except in nat, which has one: [192.0.2.10,
    /// 2001:db8::10]. A prefix is all of its addresses (not in nat): 10.1.0.0/24, which is to be routed to lb. Where several
    /// services match a packet, the longest prefix wins, then one port before a range, and a range before `any`.
    #[schemars(example = "192.0.2.10")]
    pub address: Vips,
    /// The port. Or a range of them (8000-8999), or any. With more than one, backends get each packet on the port that it was
    /// sent to, and `check` needs a `port` of its own.
    #[schemars(example = 443)]
    pub port: Ports,
    /// The protocol. `quic` is UDP whose Initial packets open flows, so that flows stay with their backends as TCP's do; with
    /// `quic_lb` they even follow their connection ids.
    #[serde(default)]
    pub protocol: Protocol,
    /// NICs by which clients may come. Empty = all that lb is attached to.
    #[serde(default)]
    #[schemars(example = ["eth0"], length(max = 32))]
    pub interfaces: Vec<InterfaceName>,
    /// NIC that lb puts the VIP on (as /32 or /128; `lb detach` takes it off). Without it the VIP belongs to somebody
    /// else: keepalived, BIRD, a static route.
    #[schemars(example = &"eth0")]
    pub add_address_to: Option<InterfaceName>,
    /// Balance even an address and port that a process on this host listens on, such as ssh's; a prefix with addresses of this
    /// host, which stay the host's; and all addresses there are (0.0.0.0/0).
    #[serde(default)]
    pub force: bool,
}

/// `forward:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Forward {
    /// Destination address and port rewritten.
    Nat,
    /// MAC address rewritten.
    Dsr,
    /// Encapsulated.
    Tunnel,
    /// Source and destination rewritten.
    Fullnat,
}

/// `encap:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encap {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
}

/// Idle times of flows, whole seconds up to 8000s.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A TCP flow, idle for so long while rings change, is forgotten; in fullnat always, and there it is 124m (RFC 5382) if nothing
    /// is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "15m"))]
    pub tcp: Option<Period>,
    /// The same after FIN or RST; in fullnat, after both FINs: the time for which nobody else gets the port.
    pub tcpfin: Period,
    /// The same for UDP.
    pub udp: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Period(std::time::Duration::from_secs(60 * minutes));
        Self { tcp: None, tcpfin: minutes(2), udp: minutes(5) }
    }
}

/// One server.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Backend {
    /// Name of the backend in commands and statistics; unique in its service.
    #[schemars(example = &"web1")]
    pub name: Name,
    /// Its address, with a port if that is not the service's. Only `nat` can change the port. With a DNS name in place of the
    /// address, each address that the name has is a backend, named like `web1-10.0.0.11`; addresses that are no longer in
    /// the answer drain. While there is no good answer, the last good one counts.
    #[schemars(example = "10.0.0.11")]
    pub address: Option<Host>,
    /// In place of `address`: a DNS name with SRV records. They tell the ports; their weights share out the backend's weight,
    /// and each further priority is a further tier.
    #[schemars(example = &"_http._tcp.app.internal")]
    pub srv: Option<DnsName>,
    /// Used when the backends of lower tiers have nobody who is usable, or fewer than `quorum`. All backends of a tier
    /// are used together (HAProxy: `option allbackups`); give each a tier of its own to use one after the other.
    #[serde(default)]
    #[schemars(range(max = 15), example = 1)]
    pub tier: u8,
    /// `backup: true` is `tier: 1`.
    #[serde(default)]
    pub backup: bool,
    /// Used alone, and only while fewer than `quorum` backends of all tiers are usable: such as a page that says sorry
    /// (keepalived's `sorry_server`). It is not checked.
    #[serde(default)]
    pub sorry: bool,
    /// Has no check of its own but the health of this backend, of any service: `SERVICE/BACKEND`.
    #[schemars(example = &"web/web1")]
    pub track: Option<BackendPath>,
    /// With the service's `quic_lb`: what the backend puts into its connection ids, as pairs of hexadecimal digits.
    #[schemars(example = &"0a01")]
    pub server_id: Option<HexBytes>,
    /// What it has of its own. (serde cannot deny unknown keys here; `shape` does.)
    #[serde(flatten)]
    pub settings: BackendSettings,
}
