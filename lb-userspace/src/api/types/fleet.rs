//! A configuration that many nodes share by etcd, and what they tell of themselves there.

use serde::{Deserialize, Serialize};

/// The shared configuration as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStatus {
    /// Where it is, as `lb run --config` was told.
    pub url: String,
    /// Its key.
    pub key: String,
    /// The member of etcd that answers; `None` = none does.
    pub member: Option<String>,
    /// Why none does, or why this node's report is not taken.
    pub problem: String,
    /// etcd's revision of what is in force; 0 = it is not from there.
    pub revision: u64,
    /// How often the key had been written then.
    pub version: u64,
    /// etcd's revision of the newest configuration heard of; 0 = none.
    pub newest_revision: u64,
    /// The newest one is not in force.
    pub refused: Option<RefusedRevision>,
    /// Another node reports under this one's name; empty = none does.
    #[serde(default)]
    pub namesake: String,
}

/// A revision that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRevision {
    /// etcd's number of it.
    pub revision: u64,
    /// All its errors.
    pub error: String,
}

/// What a node keeps under `PREFIX/nodes/NAME`, under a lease: it goes when nothing was heard of the node for 20 s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeReport {
    /// Its name.
    pub node: String,
    /// Name of its host.
    pub host: String,
    /// Drawn at each start of the daemon: two nodes of one name have two of them.
    pub instance: String,
    /// Version of lb.
    pub release: String,
    /// `forwarding`, `starting` or `draining`.
    pub state: String,
    /// The configuration in force is on trial, here alone.
    pub trial: bool,
    /// What `lb set` has set here beside the configuration.
    pub settings: u64,
    /// etcd's revision of what is in force; 0 = it is not from there.
    pub revision: u64,
    /// How often the key had been written then.
    pub version: u64,
    /// SHA-256 of the text in force.
    pub hash: String,
    /// What it has refused.
    pub refused: Option<RefusedRevision>,
    /// Fingerprint of its seed.
    pub seed: String,
    /// Fingerprint of all its rings together.
    pub rings: String,
    /// Backends that are usable, of how many.
    pub up: u64,
    /// Backends of all services.
    pub backends: u64,
    /// Things that need attention there (`lb status` tells them).
    pub warnings: u64,
    /// Its services, at most 500.
    pub services: Vec<ServiceReport>,
}

/// A node's view of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Fingerprint of its ring.
    pub ring: String,
    /// Backends that are usable.
    pub up: u64,
    /// Backends.
    pub backends: u64,
    /// Names of those that are not, at most 20.
    pub down: Vec<String>,
}

/// `lb fleet status --json`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// Where the configuration is.
    pub url: String,
    /// etcd's revision of the configuration; 0 = there is none.
    pub revision: u64,
    /// How often it was written.
    pub version: u64,
    /// All nodes run it, with the same seed, the same rings and the same view of their backends.
    pub in_step: bool,
    /// By name.
    pub nodes: Vec<FleetNode>,
}

/// A node of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetNode {
    /// What it says.
    #[serde(flatten)]
    pub report: NodeReport,
    /// Writes of the configuration that it does not run yet.
    pub lag: u64,
    /// What it has otherwise than most nodes, or than the configuration: `revision`, `text`, `seed`, `rings`, `health`.
    pub differs: Vec<String>,
}
