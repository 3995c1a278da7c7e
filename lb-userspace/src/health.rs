//! Health probes: what is asked (`probe`), what was found (`outcome`), what it means (`machine`, pure), and the loops
//! that do it (`checker`); agents beside backends (`agent`). `stall` tells a slow backend from a process that was itself asleep.

pub mod agent;
mod checker;
mod machine;
mod outcome;
pub mod passive;
mod probe;
mod stall;
mod tally;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use self::{
    checker::{Checker, Suspicion},
    machine::Machine,
    outcome::{CheckCode, Outcome},
    tally::Tally,
};
use crate::config::model::{Check, Forward, Timing};

/// What is probed: equal keys share one probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey {
    /// Backend's address.
    pub address: IpAddr,
    /// Port that is asked.
    pub port: u16,
    /// The question.
    pub check: Check,
    /// How often, and how many answers count.
    pub timing: Timing,
    /// For whom, where the question depends on that; `None` = it is the same for all.
    pub served: Option<Served>,
}

/// The service and backend that a target is probed for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Served {
    /// Name of the service.
    pub service: String,
    /// Name of the backend.
    pub backend: String,
    /// Where clients connect to.
    pub vip: SocketAddr,
    /// How their packets reach the backend.
    pub forward: Forward,
}

/// A target, with what was known of it before this daemon started.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is probed.
    pub key: TargetKey,
    /// State to go on from, so that a restart is no flap.
    pub restored: Option<Health>,
}

/// One result, and what it makes of the target.
#[derive(Clone, Debug)]
pub struct HealthEvent {
    /// The target.
    pub key: TargetKey,
    /// Its health now.
    pub health: Health,
}

/// What is known of a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Takes new flows.
    pub up: bool,
    /// `UP`, `DOWN`, `UP 1/3` (health left of `fall`), `DOWN 1/2` (of `rise`).
    pub display: String,
    /// HAProxy's code of the last answer.
    pub code: String,
    /// What the last answer said; no control characters.
    pub output: String,
    /// How long it took.
    pub milliseconds: Option<f64>,
    /// When `up` last changed, seconds of Unix time; 0 = never.
    pub changed_unix: u64,
    /// Answers against `up` in a row.
    pub streak: u32,
    /// The share of its weight that the backend last asked for by a header, percent; `None` = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_percent: Option<u8>,
    /// All probes so far.
    #[serde(default)]
    pub tally: Tally,
}
