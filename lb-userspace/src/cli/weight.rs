//! `lb weight`

use clap::Args;

use super::{
    Exit,
    client::{Connection, block_on, report},
    target::Target,
};
use crate::api::types::SetBackend;

/// Give a backend another weight
///
/// Only as many slots of the ring move as the change needs; open connections stay where they are. The weight survives
/// reloads and restarts of the daemon; the file stays as it is. Weight 0 sends the backend no new flows.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb weight web/web1 50")]
pub struct Weight {
    /// The backend
    #[arg(value_name = "SERVICE/BACKEND")]
    target: Target,
    /// Its share of new flows relative to the service's other backends, 0 to 256
    #[arg(value_parser = clap::value_parser!(u16).range(0..=256))]
    weight: u16,
    /// Print JSON: {"changes": [..]}
    #[arg(long)]
    json: bool,
}

impl Weight {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let Self { target, weight, json } = self;
        let set = SetBackend { admin: None, weight: Some(weight) };
        let client = connection.client();
        let done = block_on(async {
            Ok(client.set_backend(&target.service, &target.backend, &set).await?)
        })?;
        report(&done, json)
    }
}
