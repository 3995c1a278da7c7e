//! `lb schema`

use clap::Args;

use super::{Exit, output};
use crate::config;

/// Print a JSON Schema of the configuration file, for editors
///
/// Editors with a YAML language server complete and check configuration files with it. Write it to a file and name that
/// in the first line of yours: `# yaml-language-server: $schema=lb.schema.json`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb schema > /etc/lb/lb.schema.json")]
pub struct Schema {}

impl Schema {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<Exit> {
        output::print(&(serde_json::to_string_pretty(&config::schema())? + "\n"))?;
        Ok(Exit::Ok)
    }
}
