//! `lb log`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on, report},
};
use crate::{api::types::LogLevel, log};

/// Set the level of the daemon's log while it runs
///
/// Until the daemon's next start, which begins with LB_LOG or `info`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb log debug")]
pub struct Log {
    /// error, warn, info, debug, trace, or directives such as `info,lb_userspace::net=debug`
    #[arg(value_name = "LEVEL", value_parser = filter)]
    level: String,
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

fn filter(text: &str) -> Result<String, log::BadFilter> {
    log::parse(text).map(|_| text.to_owned())
}

impl Log {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let client = connection.client();
        let level = LogLevel { filter: self.level };
        let done = block_on(async { Ok(client.log(&level).await?) })?;
        report(&done, self.json)
    }
}
