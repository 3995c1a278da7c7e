//! The server on the control socket.
//!
//! One request a connection, answered by the controller. The socket can only be opened by those its mode admits, but
//! what they send is not trusted to be short, quick or HTTP: sizes, times and the number of connections are bounded,
//! and connections that ask nothing make way for those that do.

mod change;
mod connections;
pub mod dashboard;
mod host;
mod metrics;
mod routes;
mod socket;

use std::{io, path::Path, path::PathBuf, time::Duration};

use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use self::metrics::{MetricsHandle, serve_metrics};
use self::{connections::Connections, socket::Bound};
use super::{
    Command,
    peer::{Caller, GroupLevel},
};

/// Connections served at a time.
pub const MAX_CONNECTIONS: usize = 64;
/// Longest request body, bytes.
pub const MAX_BODY: usize = 1 << 20;
/// Longest body that holds a configuration, bytes.
pub const MAX_DRAFT: usize = 64 << 20;
/// Time a client has to send its whole request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time one connection may take in all; a client that does not read its answer holds nothing longer.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Time that running requests get at a shutdown.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers on it.
    #[error("lb is already running: a daemon answers on {}; stop it, or give this one its own --socket", .0.display())]
    Running(PathBuf),
    /// Something else has the name.
    #[error("{} exists and is not a socket; move it away, or choose another --socket", .0.display())]
    NotASocket(PathBuf),
    /// Everybody could replace the socket.
    #[error("everybody may write to {}, and so replace the control socket in it; choose another directory, or chmod o-w it", .0.display())]
    OpenDirectory(PathBuf),
    /// `socket_group` does not exist.
    #[error(
        "there is no group `{0}` on this host (socket_group); create it with `groupadd --system {0}`, or take the key out"
    )]
    NoGroup(String),
    /// The kernel says no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

/// A running server. Dropping it stops the server at once and removes the socket.
pub struct ServerHandle {
    bound: Bound,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Serves `socket` (mode 0600, or 0660 for `group`, whose members may do what `level` says) until the handle is shut down or dropped. Needs a tokio runtime.
pub fn serve(
    socket: &Path,
    group: Option<&str>,
    level: &GroupLevel,
    commands: mpsc::Sender<Command>,
) -> Result<ServerHandle, ServeError> {
    let (bound, listener) = socket::bind(socket, group)?;
    let listener = UnixListener::from_std(listener).map_err(|source| ServeError::Io {
        action: "listen on",
        path: socket.to_owned(),
        source,
    })?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(accept(listener, routes::router(commands), level.clone(), stopped));
    Ok(ServerHandle { bound, stop, task })
}

impl ServerHandle {
    /// Takes no more connections, removes the socket, and gives running requests [`SHUTDOWN_TIMEOUT`] to end.
    pub async fn shutdown(mut self) {
        self.bound.unlink();
        // Fails only if the task has ended already.
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut self.task).await;
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.bound.unlink();
        self.task.abort();
    }
}

async fn accept(
    listener: UnixListener,
    router: axum::Router,
    level: GroupLevel,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = Connections::new(router, stopped.clone());
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            () = connections.reap() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let caller = Caller::of(&stream, &level);
                    connections.start(stream, caller);
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait until some connection has ended.
                    tracing::warn!(%error, "the control socket cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    connections.finish().await;
}

#[cfg(test)]
mod tests;
