//! The listener for Prometheus: read-only, on an address of its own.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{connections::Connections, host};
use crate::{
    api::{Command, peer::Caller, types::Failure},
    metrics::{self, Format, process::Process},
};

/// A running listener. Dropping it closes it.
pub struct MetricsHandle {
    address: SocketAddr,
    task: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

impl MetricsHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `/metrics` on `address`. Needs a tokio runtime.
pub fn serve_metrics(
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
) -> std::io::Result<MetricsHandle> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut router = Router::new().route("/metrics", get(scrape)).with_state(commands);
    if address.ip().is_loopback() {
        router = router.layer(middleware::from_fn(only_for_us));
    }
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(accept(listener, Connections::new(router, stopped)));
    Ok(MetricsHandle { address, task, _stop: stop })
}

/// A loopback address is for this host alone; without this, any page that a browser on it opens could read along.
async fn only_for_us(request: Request, next: Next) -> Result<Response, Failure> {
    let remedy = "scrape it by its address or as localhost";
    host::check(request.headers(), &[], remedy)?;
    Ok(next.run(request).await)
}

async fn accept(listener: TcpListener, mut connections: Connections) {
    loop {
        tokio::select! {
            () = connections.reap() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.start(stream, Caller::default()),
                Err(error) => {
                    tracing::warn!(%error, "the metrics listener cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// The controller only reads the snapshot; the text of thousands of backends is made elsewhere, so that no packet's change
/// waits for it.
async fn scrape(State(commands): State<mpsc::Sender<Command>>, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let text = async {
        let (answer, measures) = oneshot::channel();
        commands.send(Command::Measures(answer)).await.ok()?;
        let snapshot = measures.await.ok()?.ok()?;
        let render = move || {
            let process = Process::read(snapshot.start);
            metrics::render(*snapshot, process, format)
        };
        tokio::task::spawn_blocking(render).await.ok()
    };
    match text.await {
        Some(text) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
