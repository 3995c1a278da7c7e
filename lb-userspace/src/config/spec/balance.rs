//! What keeps a client at its backend.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{model::PersistBy, value::Period};

/// `persistence:`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = super::super::schema::or_first_key)]
pub struct Persistence {
    /// What makes a client the same one: `source` = its address.
    #[schemars(example = PersistBy::Source)]
    pub by: PersistBy,
    /// Leading bits of an IPv4 address that stand for one client: 24 = all of a /24 go together.
    #[serde(default = "prefix_v4_default")]
    #[schemars(range(max = 32))]
    pub prefix_v4: u8,
    /// The same of an IPv6 address. A host changes the last 64 bits at will (RFC 8981).
    #[serde(default = "prefix_v6_default")]
    #[schemars(range(max = 128))]
    pub prefix_v6: u8,
    /// Clients are remembered (`limits.sources`) until they have been silent for so long, whole seconds up to 24h: they stay where
    /// they are while backends come and go, and at a drained backend or one with weight 0, but not at one that is down or
    /// gone from the file. Without it nothing is remembered: the ring decides, asked by the client's address alone.
    #[schemars(example = &"6m")]
    pub timeout: Option<Period>,
}

fn prefix_v4_default() -> u8 {
    32
}

fn prefix_v6_default() -> u8 {
    64
}
