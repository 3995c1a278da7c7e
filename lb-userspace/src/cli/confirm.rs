//! `lb confirm`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on, report},
};

/// Keep the configuration that `lb apply --confirm` has put on trial
///
/// It replaces the daemon's configuration file. Fails if nothing is on trial (any more): then what was in force before is so
/// again, and `lb events` says why.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb confirm")]
pub struct Confirm {
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

impl Confirm {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let done = block_on(async { Ok(client.confirm().await?) })?;
        report(&done, self.json)
    }
}
