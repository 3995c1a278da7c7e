//! HTTP/2 connections of probes: nothing of them outlives the probe.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    client::conn::http2::{Builder, Connection, SendRequest},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};

use super::expect::LIMIT;

/// Runs hyper's own tasks, and ends them when the last clone goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let task = async {
            future.await;
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

/// What drives a connection.
pub(super) type Driver<S> = Connection<TokioIo<S>, Full<Bytes>, Tasks>;

/// Begins HTTP/2 on a connection whose other end is known to speak it. The tasks go on while the third part lives.
pub(super) async fn begin<S>(
    stream: S,
) -> hyper::Result<(SendRequest<Full<Bytes>>, Driver<S>, Running)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tasks = Tasks::default();
    let running = Running(tasks.clone());
    let limit = LIMIT as u32;
    let shaken = Builder::new(tasks).max_header_list_size(limit).handshake(TokioIo::new(stream));
    let (sender, connection) = shaken.await?;
    Ok((sender, connection, running))
}

/// The tasks of one connection; they end with this.
#[derive(Debug)]
pub(super) struct Running(Tasks);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}
