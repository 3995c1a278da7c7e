//! `lb set`, `lb unset`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on, report},
};
use crate::api::types::{self, Setting};

/// Set a value of the configuration while lb runs, beside the file
///
/// Everything that a reload can change: keys of a backend (SERVICE/BACKEND), of a service (SERVICE) or of the file (`global`), with values
/// as in the YAML; `check.path` is the key `path` inside `check`. It is judged like a file and in force at once. It survives reloads and
/// restarts of the daemon, not a reboot, and stays in force whatever the file says, until `lb unset`, or until `lb save` has written it into the file.
/// `lb status` shows it. (`addr` is `address`, and hyphens are underscores, for HAProxy's friends. `weight` of a backend is `lb weight`.)
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb set web/web1 rise=3
  lb set web on_all_down=reject
  lb set web check.path=/readiness
  lb set web/web1 addr=10.0.0.99:8080
  lb set global metrics=127.0.0.1:9180")]
pub struct Set {
    /// SERVICE/BACKEND, SERVICE, or `global`
    target: String,
    /// The key and its value
    #[arg(value_name = "KEY=VALUE", value_parser = key_and_value)]
    setting: (String, String),
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as `rise=3`".to_owned()),
    }
}

impl Set {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let Self { target, setting: (key, value), json } = self;
        let client = connection.client();
        let setting = Setting { target, key, value };
        let done = block_on(async { Ok(client.set(&setting).await?) })?;
        report(&done, json)
    }
}

/// Let the file's value count again, after lb set or lb weight
///
/// Without a key: everything that was set for exactly this target.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb unset web/web1 rise
  lb unset web")]
pub struct Unset {
    /// SERVICE/BACKEND, SERVICE, or `global`
    target: String,
    /// The key; all of them without
    key: Option<String>,
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

impl Unset {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let Self { target, key, json } = self;
        let client = connection.client();
        let done = block_on(async { Ok(client.unset(&types::Unset { target, key }).await?) })?;
        report(&done, json)
    }
}
