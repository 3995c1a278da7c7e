//! `lb drain`, `lb ready`, `lb maint`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on, report},
    target::Target,
};
use crate::api::types::SetBackend;

/// Send a backend no new flows; its old ones stay
///
/// Connections that are open go on until they end; new ones go to other backends. `lb status` shows when the backend's
/// slots are settled and no pin names it any more: then nothing is left on it. The state survives reloads and restarts
/// of the daemon, until `lb ready`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb drain web/web1
  lb status                           its slots and pins: 0 when nothing is left on it")]
pub struct Drain {
    #[command(flatten)]
    common: Common,
}

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

impl Drain {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        set(connection, self.common, "drain")
    }
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
    let Common { target, json } = common;
    let set = SetBackend { admin: Some(admin.to_owned()), weight: None };
    let client = connection.client();
    let done =
        block_on(async { Ok(client.set_backend(&target.service, &target.backend, &set).await?) })?;
    report(&done, json)
}
