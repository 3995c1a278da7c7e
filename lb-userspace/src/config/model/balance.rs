//! Which backend a new flow gets, and who remembers it.

use std::time::Duration;

use lb_common::abi::Prefixes;

use super::Service;

/// `balance:`
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
pub enum Balance {
    /// Each flow by itself, by the ring.
    #[default]
    Maglev,
    /// All flows of a client together, by the ring.
    Source,
    /// In turn.
    Rr,
    /// In turn, by weight.
    Wrr,
    /// The fewest connections.
    Leastconn,
    /// The fewest connections for its weight.
    Wlc,
    /// The less loaded of two drawn by weight.
    Random2,
}

impl Balance {
    /// The word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Source => "source",
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Leastconn => "leastconn",
            Self::Wlc => "wlc",
            Self::Random2 => "random2",
        }
    }

    /// Whether the ring alone decides.
    pub const fn is_by_ring(self) -> bool {
        matches!(self, Self::Maglev | Self::Source)
    }

    /// Whether all weights but 0 count alike.
    pub const fn ignores_weights(self) -> bool {
        matches!(self, Self::Rr | Self::Leastconn)
    }

    /// Whether a choice reads the load of each backend.
    pub const fn reads_all(self) -> bool {
        matches!(self, Self::Leastconn | Self::Wlc)
    }
}

/// `track:` of a service.
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
pub enum Track {
    /// Flows of slots that have changed.
    #[default]
    Changes,
    /// All flows.
    Always,
}

/// `by:` of `persistence:`
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PersistBy {
    /// The client's address.
    Source,
}

/// `persistence:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Persistence {
    /// What makes a client the same one.
    pub by: PersistBy,
    /// Leading bits of an IPv4 address that are one client, 0..=32.
    pub prefix_v4: u8,
    /// Leading bits of an IPv6 address that are one client, 0..=128.
    pub prefix_v6: u8,
    /// Clients are remembered, until they have been silent for so long (1s..=24h); `None` = the ring alone decides.
    pub timeout: Option<Duration>,
}

impl Service {
    /// How much of a client's address the ring is asked by; `None` = by the flow.
    pub fn ring_prefix(&self) -> Option<Prefixes> {
        match (self.persistence, self.balance) {
            (Some(persistence), _) => {
                Some(Prefixes { v4: persistence.prefix_v4, v6: persistence.prefix_v6 })
            }
            (None, Balance::Source) => Some(Prefixes::default()),
            (None, _) => None,
        }
    }

    /// Whether a backend is chosen for each new flow and remembered with it.
    pub fn tracks(&self) -> bool {
        self.track == Track::Always
    }

    /// Whether clients are remembered.
    pub fn remembers_sources(&self) -> bool {
        self.persistence.is_some_and(|persistence| persistence.timeout.is_some())
    }

    /// Whether it has an algorithm that only works with all flows remembered.
    pub fn needs_tracking(&self) -> bool {
        !self.balance.is_by_ring() || self.hash_balance_factor.is_some() || self.remembers_sources()
    }
}
