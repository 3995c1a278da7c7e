//! What the control socket answers: the JSON of `--json`. Fields are only ever added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod change;
mod fleet;

pub use self::change::{
    Applied, Apply, Drain, Revision, RevisionText, Revisions, Rollback, Save, Saved, Setting,
    Trial, Unset,
};
pub use self::fleet::{
    FleetNode, FleetStatus, NodeReport, RefusedRevision, ServiceReport, SharedStatus,
};
pub use super::failure::FailureKind;

/// `GET /v1/status`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Configuration file.
    pub config: String,
    /// Number of the configuration in force; counts applied changes.
    pub revision: u64,
    /// Why the file on disk is not in force (all its errors), if it is not.
    pub config_error: Option<String>,
    /// The configuration in force is on trial.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// What `lb set` has set beside the file.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// Fingerprint of the seed of the flow hash; the same on nodes of a cluster.
    pub seed_fingerprint: String,
    /// A new data plane whose first checks have not all been answered: not yet a node to send traffic to.
    #[serde(default)]
    pub starting: bool,
    /// The node is not to be sent traffic (`lb node drain`); what comes is forwarded all the same.
    #[serde(default)]
    pub draining: bool,
    /// NICs.
    pub interfaces: Vec<InterfaceStatus>,
    /// Things that need attention, each with a remedy.
    pub warnings: Vec<String>,
    /// Services.
    pub services: Vec<ServiceStatus>,
    /// Entries in the pin tables at the last sweep.
    pub pins: PinStatus,
    /// How full the tables are that have a limit.
    #[serde(default)]
    pub tables: Vec<TableStatus>,
    /// The other nodes, if the configuration has a `cluster:`.
    #[serde(default)]
    pub cluster: Option<ClusterStatus>,
    /// The configuration is from etcd.
    #[serde(default)]
    pub shared: Option<SharedStatus>,
    /// VIPs of this host that another host says are its own.
    #[serde(default)]
    pub vip_conflicts: Vec<VipConflict>,
    /// Another node of the cluster or the fleet has this one's name, in words.
    #[serde(default)]
    pub name_conflict: Option<String>,
}

/// A VIP that two hosts have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipConflict {
    /// The VIP.
    pub address: String,
    /// The other host's MAC address.
    pub mac: String,
    /// Seconds since that was first heard.
    pub seconds: u64,
    /// Seconds since it was last heard.
    pub heard_seconds: u64,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// This node's name.
    pub node: String,
    /// The other nodes, in the order of the file.
    pub peers: Vec<ClusterPeer>,
    /// Services whose ring is another one elsewhere, for longer than a few seconds; each with the input that differs.
    pub mismatches: Vec<RingMismatch>,
    /// Backends whose state by this node's checks is not the one that the nodes find together, in words.
    pub outvoted: Vec<String>,
    /// Entries of other nodes that were taken over.
    pub taken: u64,
    /// Entries that said nothing new.
    pub known: u64,
    /// Entries that could not be taken over: of a service, a backend or a ring that this node does not have.
    pub unknown: u64,
    /// Slots whose past is another one here, where flows pass: this node's own counts.
    pub conflicts: u64,
    /// Entries for which a table has no room.
    pub refused: u64,
    /// Connections of others that were no peers.
    pub strangers: u64,
}

/// Another node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPeer {
    /// Where it listens.
    pub address: String,
    /// Its name, once it has told it.
    pub node: String,
    /// `in step`, `in part` (one direction, or not everything yet), `away`; `this node` for itself.
    pub state: String,
    /// Why it is not in step.
    pub problem: String,
    /// It has the same seed; `None` = not known.
    pub same_seed: Option<bool>,
    /// Entries that were sent to it.
    pub sent: u64,
    /// Bytes that were sent to it.
    pub sent_bytes: u64,
    /// Entries that wait to be sent.
    pub waiting: u64,
    /// Entries that found no room there; everything is sent anew for them.
    pub dropped: u64,
    /// How long it took last to be heard of by it, milliseconds: what waited, the way there, and the way back.
    pub lag_milliseconds: Option<u64>,
    /// Entries that it has sent.
    pub received: u64,
    /// Seconds since something came from it.
    pub heard_seconds: Option<u64>,
    /// It has sent all that it had when it connected.
    pub whole: bool,
}

/// A service whose ring is another one elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingMismatch {
    /// The service.
    pub service: String,
    /// The other node.
    pub node: String,
    /// The input that differs, in words.
    pub input: String,
    /// For how long.
    pub seconds: u64,
}

/// Body of `POST /v1/node`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetNode {
    /// The node is not to be sent traffic any more, or is again.
    pub drain: bool,
}

/// A table with a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    /// Its name: that of the key under `limits:`, or `service_table`, `routes`, `neighbours`.
    pub name: String,
    /// Entries in it; of pins, at the last sweep.
    pub entries: u64,
    /// As many as there may be.
    pub limit: u64,
}

/// One NIC.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Index, if it exists.
    pub ifindex: Option<u32>,
    /// `native`, `generic` or `detached`.
    pub mode: String,
    /// MTU.
    pub mtu: u32,
    /// Carrier and administrative state: `up` or `down`.
    pub link: String,
}

/// Fill of the pin tables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PinStatus {
    /// Confirmed.
    pub confirmed: u64,
    /// Limit of confirmed ones.
    pub confirmed_limit: u64,
    /// Unconfirmed.
    pub unconfirmed: u64,
    /// Limit of unconfirmed ones.
    pub unconfirmed_limit: u64,
}

/// One service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// `192.0.2.10:80/tcp`
    pub listen: String,
    /// `nat`, `dsr` or `tunnel`.
    pub forward: String,
    /// Who serves: `UP` (the first tier), `BACKUP` (with another tier), `UNDER-QUORUM` (those that are left), `PANIC` and
    /// `FAIL-OPEN` (all, whatever their health), `SORRY` (the sorry backend) or `DOWN` (nobody).
    pub state: String,
    /// Why, in words; empty = `UP`.
    #[serde(default)]
    pub state_reason: String,
    /// Digest of who owns which slot; the same on nodes whose rings are.
    #[serde(default)]
    pub ring: String,
    /// Whether this host has the VIP's address: of a keepalived pair, the node that is MASTER.
    #[serde(default)]
    pub vip_on_host: bool,
    /// Slots of its ring by phase.
    pub slots: PhaseCount,
    /// Backends, those on their way out included.
    pub backends: Vec<BackendStatus>,
    /// The word behind `balance:`.
    #[serde(default)]
    pub balance: String,
    /// What it has in the tables of flows, if it remembers all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<Tracking>,
    /// Seconds since the service last changed between usable and DOWN; since it is known, if it never has.
    #[serde(default)]
    pub last_change_seconds: u64,
    /// Times it went DOWN.
    #[serde(default)]
    pub downs: u64,
    /// Seconds it has been DOWN in all.
    #[serde(default)]
    pub down_seconds: u64,
    /// Slots that have changed their owner since the service is known; a ring of another length counts whole.
    #[serde(default)]
    pub moved_slots: u64,
    /// The SYN-flood stage, if the service has one.
    #[serde(default)]
    pub syn_flood: Option<SynFlood>,
}

/// The SYN-flood stage of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynFlood {
    /// Unknown clients are challenged.
    pub engaged: bool,
    /// SYNs a second that come for the service now.
    pub syns_per_second: u64,
    /// More engage it.
    pub engage: u64,
    /// Fewer release it.
    pub release: u64,
}

/// A service's entries in the tables of flows, and how many it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracking {
    /// Flows after their handshake or first answer.
    pub confirmed: u64,
    /// As many as there may be.
    pub confirmed_limit: u64,
    /// Flows before that.
    pub unconfirmed: u64,
    /// As many as there may be.
    pub unconfirmed_limit: u64,
    /// Clients that are remembered, at the last sweep; `None` = none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<u64>,
}

/// Slots by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseCount {
    /// SETTLED.
    pub settled: u32,
    /// WINDOW.
    pub window: u32,
    /// HARVEST.
    pub harvest: u32,
    /// PINNED.
    pub pinned: u32,
}

/// One backend.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Name.
    pub name: String,
    /// `10.0.0.11:80`
    pub address: String,
    /// `UP`, `DOWN`, `UP 1/3`, `DOWN 1/2`, `NOLB` (no check), `EJECTED 12s` (time left).
    pub state: String,
    /// `ready`, `drain`, `maint`, or `removed` (gone from the file, draining); ` (agent)` behind it where its agent wants that.
    pub admin: String,
    /// Weight in force.
    pub weight: u16,
    /// Weight in the file.
    pub configured_weight: u16,
    /// Share of the weight that the backend asks for, by its agent or its check's answers, percent; `None` = it does not.
    #[serde(default)]
    pub weight_percent: Option<u16>,
    /// How far its slow start has come, percent; `None` = it does not start slowly now.
    #[serde(default)]
    pub throttle: Option<u8>,
    /// 0 = first; the backends of other tiers step in for those before them.
    #[serde(default)]
    pub tier: u8,
    /// Only for when nobody else is left.
    #[serde(default)]
    pub sorry: bool,
    /// The backend whose health it has, `SERVICE/BACKEND`.
    #[serde(default)]
    pub tracks: Option<String>,
    /// Where it comes from, if the configuration file does not tell its address: `app (app.internal)` = from the DNS name of
    /// the template `app`; else a file.
    #[serde(default)]
    pub from: Option<String>,
    /// Slots it owns.
    pub slots: u32,
    /// Pins that name it, at the last sweep.
    pub pins: u64,
    /// Next hop: `eth0 via 10.0.0.1 02:00:..` or `unresolved`.
    pub next_hop: String,
    /// HAProxy's code of the last check (`L4OK`, `L7STS`...), empty without check.
    pub check: String,
    /// What the last check said.
    pub check_output: String,
    /// How long it took, milliseconds.
    pub check_milliseconds: Option<f64>,
    /// Seconds in this state.
    pub last_change_seconds: u64,
    /// What its agent says; `None` without one.
    #[serde(default)]
    pub agent: Option<AgentStatus>,
    /// All checks so far; `None` without check.
    #[serde(default)]
    pub checks: Option<Checks>,
    /// What clients' own connections tell of it; `None` = its service does not observe.
    #[serde(default)]
    pub observed: Option<Observed>,
}

/// What clients' own connections tell of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// SYNs that it answered.
    pub answered: u64,
    /// SYNs of clients known to exist that it did not answer.
    pub unanswered: u64,
    /// SYNs of clients known to exist that it refused (nat only).
    pub refused: u64,
    /// Times it was ejected.
    pub ejections: u64,
    /// Seconds left of its ejection; `None` = it is not ejected.
    pub ejected_seconds: Option<u64>,
    /// Back from an ejection, on trial.
    pub half_open: bool,
    /// Why it was last ejected; empty = never.
    pub cause: String,
}

/// A backend's agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// All that it has said: `down drain 50%`; `up` = nothing against the backend.
    pub says: String,
    /// HAProxy's code of the last question (`L7OK`, `L7STS`, `L4CON`...), empty before the first.
    pub code: String,
    /// What it said then, or why it did not.
    pub output: String,
    /// How long that took, milliseconds.
    pub milliseconds: f64,
}

/// The checks of one backend so far, those of earlier daemons on the same data plane included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// Checks that failed while the backend was UP.
    pub failed: u64,
    /// Times it went from UP to DOWN.
    pub downs: u64,
    /// Seconds it has been DOWN in all.
    pub down_seconds: u64,
    /// Good answers in a row that make it UP.
    pub rise: u32,
    /// Failures in a row that make it DOWN.
    pub fall: u32,
    /// HAProxy's health: 0 (DOWN) to `rise + fall - 1` (UP); UP from `rise` on.
    pub health: u32,
    /// Number of checks by HAProxy's code (`L4OK`, `L7STS`...), those that never came included.
    pub codes: BTreeMap<String, u64>,
    /// How long they took.
    pub durations: Histogram,
}

/// Durations, as Prometheus counts them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper bound in seconds, and how many took at most that long; bounds rise, and so do counts.
    pub buckets: Vec<(f64, u64)>,
    /// How many there are.
    pub count: u64,
    /// Their sum.
    pub sum_seconds: f64,
}

/// `GET /v1/stats`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Services.
    pub services: Vec<ServiceStats>,
    /// Reasons that belong to no service, by name; only those that are not 0.
    pub node: BTreeMap<String, u64>,
}

/// One service's counters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Name.
    pub name: String,
    /// `192.0.2.10:80/tcp`
    pub listen: String,
    /// Sum over its backends, those removed included.
    pub total: Counters,
    /// Reasons by name; only those that are not 0.
    pub reasons: BTreeMap<String, u64>,
    /// Backends.
    pub backends: Vec<BackendStats>,
}

/// One backend's counters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackendStats {
    /// Name.
    pub name: String,
    /// As in [`BackendStatus`].
    pub state: String,
    /// As in [`BackendStatus`].
    pub admin: String,
    /// Weight in force.
    pub weight: u16,
    /// Share of the ring, 0..=1.
    pub share: f64,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
    /// Connections that are open now, of services with `count_connections`; `None` = not known.
    #[serde(default)]
    pub connections: Option<Connections>,
    /// Times from SYN to SYN-ACK of one connection in eight; nat over TCP only.
    #[serde(default)]
    pub handshake: Option<Histogram>,
}

/// Counted connections of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Established, and closed by nobody.
    pub active: u64,
    /// Opening or closing.
    pub inactive: u64,
}

/// Counters; they never go back while lb is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets to backends.
    pub packets_in: u64,
    /// Their bytes (layer 3).
    pub bytes_in: u64,
    /// Packets from backends; nat only.
    pub packets_out: u64,
    /// Their bytes (layer 3).
    pub bytes_out: u64,
    /// New flows (TCP SYNs, retransmissions included).
    pub flows: u64,
    /// TCP resets from backends; nat only.
    pub resets: u64,
}

/// Body of `POST /v1/plan`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Where the text is from, for messages.
    pub path: String,
    /// A configuration.
    pub text: String,
}

/// `POST /v1/plan`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// What would change for the whole node, in words.
    pub node: Vec<String>,
    /// Services: those that would go first, then in the order of the file.
    pub services: Vec<PlanService>,
}

/// What would change for one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlanService {
    /// Its name in the file.
    pub name: String,
    /// `192.0.2.10:80/tcp`
    pub listen: String,
    /// `added`, `removed`, `changed` or `none`.
    pub change: String,
    /// In words.
    pub lines: Vec<String>,
    /// Length of its ring then.
    pub slots: u32,
    /// Slots that would change their owner; of a ring of another length, as many as `moved_share` is worth.
    pub moved_slots: u32,
    /// Share of new flows that would reach another backend than now, 0..=1: counted exactly, over all hashes.
    pub moved_share: f64,
    /// Open flows would move with them (UDP).
    pub open_flows_move: bool,
    /// Of a service that stays: its backends with their parts in that, those on their way out included.
    #[serde(default)]
    pub backends: Vec<PlanBackend>,
}

/// What would change for one backend. Shares are of the service's new flows, 0..=1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanBackend {
    /// Its name in the file.
    pub name: String,
    /// `added`, `removed`, `back` (removed, and there again), `weight`, `role` (tier, sorry, track, slowstart), `renamed` or
    /// `none`.
    pub change: String,
    /// What reaches it now.
    pub share_before: f64,
    /// What would reach it.
    pub share_after: f64,
    /// What would come to it from others.
    pub gained: f64,
    /// What would go from it to others.
    pub lost: f64,
}

/// `GET /v1/why`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Why {
    /// Services.
    pub services: Vec<WhyService>,
    /// What belongs to no service.
    pub node: Vec<WhyReason>,
}

/// One service's reasons.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WhyService {
    /// Name.
    pub name: String,
    /// `192.0.2.10:80/tcp`
    pub listen: String,
    /// Drops first, then the most frequent.
    pub reasons: Vec<WhyReason>,
    /// Backends that clients did not get through to, in words.
    #[serde(default)]
    pub backends: Vec<String>,
}

/// One reason that has been counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WhyReason {
    /// Its name in counters.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The packets were dropped (else answered, passed or noted).
    pub drop: bool,
    /// What it means.
    pub text: String,
    /// What can be done; may be empty.
    pub remedy: String,
    /// The last such packets that were shown (a few a second are), the latest first; drops only.
    pub samples: Vec<WhySample>,
}

/// One dropped packet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WhySample {
    /// When, before this answer.
    pub seconds_ago: f64,
    /// NIC it came in by.
    pub interface: String,
    /// Length of the frame, bytes.
    pub length: u16,
    /// `192.0.2.7:4711 > 192.0.2.10:80 TCP SYN, ttl 63`
    pub packet: String,
}

/// `GET /v1/events?after=ID&limit=N`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The oldest first.
    pub events: Vec<Event>,
    /// Id of the newest event there is; 0 = none yet.
    pub last: u64,
    /// Events after the one asked for that are forgotten already.
    pub lost: u64,
}

/// One change of state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// 1, 2, 3 and so on, also across restarts of the daemon.
    pub id: u64,
    /// When, milliseconds of Unix time.
    pub unix_milliseconds: u64,
    /// What it is about: `backend_down`, `config_applied`...
    pub kind: String,
    /// The service, if it is one's.
    pub service: Option<String>,
    /// The backend, if it is one's.
    pub backend: Option<String>,
    /// What happened, in words.
    pub text: String,
    /// Why: what was seen, or who wanted it; may be empty.
    pub cause: String,
}

/// Body of `POST /v1/log`, and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,lb_userspace::net=debug`.
    pub filter: String,
}

/// `GET /v1/lookup?source=..&destination=..&protocol=..`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lookup {
    /// Service, if any has this address.
    pub service: Option<String>,
    /// The backend an established flow reaches (its next non-opening packet).
    pub backend: Option<String>,
    /// The backend a new flow would reach.
    pub backend_for_new_flow: Option<String>,
    /// Slot number in the ring.
    pub slot: u32,
    /// Number of slots.
    pub slots: u32,
    /// `SETTLED`, `WINDOW`, `HARVEST` or `PINNED`.
    pub phase: String,
    /// The slot's base, in WINDOW and HARVEST.
    pub base: Option<String>,
    /// The flow's pin: `none`, `unconfirmed web1`, `confirmed web1`.
    pub pin: String,
    /// The reason in one sentence.
    pub why: String,
    /// What the loaded program says about the next packet of an established flow, as in [`PacketVerdict`].
    #[serde(default)]
    pub verdict: String,
    /// Name of the reason it counts the packet under.
    #[serde(default)]
    pub reason: String,
    /// The same of a packet that opens the flow.
    #[serde(default)]
    pub verdict_for_new_flow: String,
    /// The same of a packet that opens the flow.
    #[serde(default)]
    pub reason_for_new_flow: String,
    /// How `why` and the program differ: a bug of lb.
    #[serde(default)]
    pub disagreement: Option<String>,
}

/// What the loaded program decides about one packet; an element of `POST /v1/replay`'s answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketVerdict {
    /// `forwarded` (to a backend), `returned` (to a client), `answered`, `passed` (to this host), `dropped`, or `skipped` (not
    /// tried).
    pub verdict: String,
    /// Name of the reason that it is counted under; `transmitted` if it is sent. Of a skipped packet: why.
    pub reason: String,
    /// Service, if it is known.
    pub service: Option<String>,
    /// Backend, if one was chosen.
    pub backend: Option<String>,
    /// Reasons that are counted beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// Phase of the flow's slot, if a backend was chosen.
    pub phase: Option<String>,
    /// NIC it is sent by, if that is not the one it came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
}

/// `POST /v1/backends/{service}/{backend}`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBackend {
    /// `ready`, `drain` or `maint`.
    pub admin: Option<String>,
    /// New weight, 0..=256.
    pub weight: Option<u16>,
}

/// `POST /v1/reload` and other verbs: what happened, in words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// One line per change; empty = nothing to do.
    pub changes: Vec<String>,
}

/// Any failure; HTTP status 4xx or 5xx.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong and what would be right.
    pub error: String,
    /// What kind of failure it is; decides HTTP status and exit code.
    #[serde(default)]
    pub kind: FailureKind,
}
