//! Connections: a bounded number, each with bounded time; the ones that have asked nothing yet make way.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Extension, Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{CONNECTION_TIMEOUT, MAX_CONNECTIONS, REQUEST_TIMEOUT};
use crate::api::peer::Caller;

/// All open connections.
pub struct Connections {
    router: Router,
    stopped: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    /// The oldest first.
    open: VecDeque<Open>,
}

struct Open {
    task: AbortHandle,
    /// Its request's head has been read.
    busy: Arc<AtomicBool>,
}

impl Connections {
    /// None yet.
    pub fn new(router: Router, stopped: watch::Receiver<bool>) -> Self {
        Self { router, stopped, tasks: JoinSet::new(), open: VecDeque::new() }
    }

    /// Serves `stream`, whose requests carry `caller`. With [`MAX_CONNECTIONS`] open, the oldest one that has asked nothing is closed for it; if all
    /// have asked, the new one is.
    pub fn start(&mut self, stream: impl Stream, caller: Caller) {
        self.open.retain(|connection| !connection.task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS {
            let idle = self.open.iter().position(|open| !open.busy.load(Ordering::Relaxed));
            let Some(index) = idle else { return };
            if let Some(open) = self.open.remove(index) {
                open.task.abort();
            }
        }
        let busy = Arc::new(AtomicBool::new(false));
        let router = self.router.clone().layer(Extension(caller));
        let serving = serve(stream, router, busy.clone(), self.stopped.clone());
        let task = self.tasks.spawn(serving);
        self.open.push_back(Open { task, busy });
    }

    /// Waits until a connection has ended; forever if there is none.
    pub async fn reap(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    /// Waits until all have ended.
    pub async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Of a connection whose answer takes as long as it takes; requests carry it.
#[derive(Clone, Default)]
pub struct Lease(Arc<AtomicBool>);

/// See [`Lease::hold`].
pub struct Held(Arc<AtomicBool>);

impl Lease {
    /// The connection is not cut off for its age until the result is dropped.
    pub fn hold(&self) -> Held {
        self.0.store(true, Ordering::Relaxed);
        Held(self.0.clone())
    }

    /// Returns when the connection is too old.
    async fn expired(&self) {
        loop {
            tokio::time::sleep(CONNECTION_TIMEOUT).await;
            if !self.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What connections are made of: Unix or TCP.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

async fn serve(
    stream: impl Stream,
    router: Router,
    busy: Arc<AtomicBool>,
    mut stopped: watch::Receiver<bool>,
) {
    let lease = Lease::default();
    let given = lease.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        busy.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(given.clone());
        let router = TowerToHyperService::new(router.clone());
        async move {
            let response = hyper::service::Service::call(&router, request.map(Body::new)).await;
            Ok::<_, Infallible>(response.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = async {
        tokio::select! {
            result = connection.as_mut() => return result,
            _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    tokio::select! {
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "a client was cut off");
        },
        () = lease.expired() => tracing::debug!("a client took too long"),
    }
}
