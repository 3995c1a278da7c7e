//! How verbs reach the daemon.

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;

use super::{Exit, output, paths};
use crate::api::{client::Client, types::Done};

/// Options of every verb.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// The daemon's control socket [default: lb.sock in the run directory, /run/lb]
    #[arg(long, global = true, env = "LB_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Connection {
    /// The client of the socket given, or the default one.
    pub fn client(&self) -> Client {
        Client::new(self.path(Path::new(paths::RUN_DIR)))
    }

    /// The socket given, or that of `run_dir`.
    pub fn path(&self, run_dir: &Path) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| paths::socket_in(run_dir))
    }
}

/// Runs one verb's conversation on this thread.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}

/// Prints what was done.
pub fn report(done: &Done, json: bool) -> anyhow::Result<Exit> {
    if json {
        output::print_json(done)?;
    } else if done.changes.is_empty() {
        output::print("nothing to do\n")?;
    } else {
        output::print(&output::lines(done.changes.iter()))?;
    }
    Ok(Exit::Ok)
}
