//! `lb rollback`

use std::time::Duration;

use clap::Args;

use super::{
    Exit, apply,
    client::{Connection, block_on},
};
use crate::api::types;

/// Go back to an earlier configuration
///
/// Without a number: back from a trial (`lb apply --confirm`) to what was in force before, or else to the configuration before
/// this one; said twice, it comes back. With a number: to that revision of `lb history`. It is checked, put in force and written into the
/// configuration file as by `lb apply`, as a new revision.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb rollback
  lb diff 12 && lb rollback 12 --confirm 60s")]
pub struct Rollback {
    /// Number of a revision
    revision: Option<u64>,
    /// Come back by itself unless `lb confirm` is said within this time (1s to 24h)
    #[arg(long, value_name = "TIME", value_parser = super::units::parse_limit)]
    confirm: Option<Duration>,
    /// Print JSON: {"revision": .., "changes": [..], "trial": ..}
    #[arg(long)]
    json: bool,
}

impl Rollback {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let rollback = types::Rollback {
            revision: self.revision,
            confirm_seconds: self.confirm.map(|time| time.as_secs()),
        };
        let client = connection.client();
        let applied = block_on(async { Ok(client.rollback(&rollback).await?) })?;
        apply::report(&applied, self.json)
    }
}
