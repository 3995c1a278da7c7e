//! `lb reload`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on, report},
};

/// Have the daemon read its configuration file again, and print what changed
///
/// The daemon does so by itself when the file changes; this waits until it is done and says what came of it. An invalid
/// file changes nothing: its errors are printed, and the exit code is 3.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb check /etc/lb/lb.yaml && lb reload")]
pub struct Reload {
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

impl Reload {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let done = block_on(async { Ok(client.reload().await?) })?;
        report(&done, self.json)
    }
}
