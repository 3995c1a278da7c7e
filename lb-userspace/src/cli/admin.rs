//! `lb ready`, `lb maint`; `lb drain` without --wait

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on, report},
    target::Target,
};
use crate::api::types::SetBackend;

/// Let a backend take flows again, after drain or maint
///
/// Ends `lb drain` and `lb maint`. A backend that is checked takes flows when its check says UP.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb ready web/web1")]
pub struct Ready {
    #[command(flatten)]
    common: Common,
}

/// Take a backend out at once; its flows move
///
/// As if the backend were DOWN: its flows go to other backends now, where TCP connections are reset. Use `lb drain`
/// first if they may end by themselves. The state survives reloads and restarts of the daemon, until `lb ready`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb drain web/web1                   first, to let connections end
  lb maint web/web1")]
pub struct Maint {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// The backend
    #[arg(value_name = "SERVICE/BACKEND")]
    target: Target,
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

impl Ready {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        set(connection, self.common, "ready")
    }
}

impl Maint {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        set(connection, self.common, "maint")
    }
}

fn set(connection: &Connection, common: Common, admin: &str) -> anyhow::Result<Exit> {
    put(connection, &common.target, common.json, admin)
}

/// Sets an administrative state and prints what that changed.
pub(super) fn put(
    connection: &Connection,
    target: &Target,
    json: bool,
    admin: &str,
) -> anyhow::Result<Exit> {
    let set = SetBackend { admin: Some(admin.to_owned()), weight: None };
    let client = connection.client();
    let done =
        block_on(async { Ok(client.set_backend(&target.service, &target.backend, &set).await?) })?;
    report(&done, json)
}
