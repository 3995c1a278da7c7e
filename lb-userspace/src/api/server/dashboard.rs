//! The dashboard: a page in the browser that shows what `lb status`, `stats`, `why` and `events` do.
//!
//! The page is part of the binary and asks this listener only. It may look; changing backends takes `write: true` in the
//! configuration and its token.

mod access;
mod assets;
mod feed;
mod token;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, HeaderName, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use lb_common::abi::Reason;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use self::{access::Access, token::TokenError};
use self::{
    access::Denied,
    feed::{Feed, Shot},
};
use super::{MAX_BODY, connections::Connections, routes};
use crate::{
    api::{
        Command,
        peer::{Caller, Peer},
        types::{Done, Events, Failure, FailureKind, Why},
    },
    events::REMEMBERED,
};

/// A running dashboard. Dropping it closes it.
pub struct DashboardHandle {
    address: SocketAddr,
    access: watch::Sender<Access>,
    task: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

impl DashboardHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is asked of requests from now on.
    pub fn set_access(&self, access: Access) {
        self.access.send_if_modified(|old| {
            let changed = *old != access;
            *old = access;
            changed
        });
    }
}

impl Drop for DashboardHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the dashboard on `address`. Needs a tokio runtime.
pub fn serve_dashboard(
    address: SocketAddr,
    access: Access,
    commands: mpsc::Sender<Command>,
) -> std::io::Result<DashboardHandle> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (access, current) = watch::channel(access);
    let (stop, stopped) = watch::channel(false);
    let connections = Connections::new(router(current, Feed::new(commands)), stopped);
    let task = tokio::spawn(accept(listener, connections));
    Ok(DashboardHandle { address, access, task, _stop: stop })
}

async fn accept(listener: TcpListener, mut connections: Connections) {
    loop {
        tokio::select! {
            () = connections.reap() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let peer = Peer::Dashboard(from.ip().to_string());
                    connections.start(stream, Caller { peer, admin: false });
                }
                Err(error) => {
                    tracing::warn!(%error, "the dashboard cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

#[derive(Clone)]
struct Shared {
    access: watch::Receiver<Access>,
    feed: Arc<Feed>,
}

fn router(access: watch::Receiver<Access>, feed: Feed) -> Router {
    let shared = Shared { access, feed: Arc::new(feed) };
    let readers = Router::new()
        .route("/api/session", get(session))
        .route("/api/status", get(status))
        .route("/api/stats", get(stats))
        .route("/api/why", get(why))
        .route("/api/events", get(events))
        .route_layer(middleware::from_fn_with_state(shared.clone(), only_readers));
    let writers = Router::new()
        .route("/api/backends/{service}/{backend}", post(set_backend))
        .route_layer(middleware::from_fn_with_state(shared.clone(), only_writers));
    Router::new()
        .merge(readers)
        .merge(writers)
        .fallback(assets::serve)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(shared.clone(), only_for_us))
        .layer(middleware::from_fn(add_headers))
        .with_state(shared)
}

/// For browsers: nothing is loaded from elsewhere, shown inside of another page, guessed, or sent on.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
];

async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn only_for_us(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    shared.access.borrow().check_host(request.headers())?;
    Ok(next.run(request).await)
}

async fn only_readers(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, Denied> {
    shared.access.borrow().check_read(request.headers())?;
    Ok(next.run(request).await)
}

async fn only_writers(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, Denied> {
    shared.access.borrow().check_write(request.headers())?;
    Ok(next.run(request).await)
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(failure) => failure.into_response(),
            Self::Token => {
                let failure = Failure::new(
                    FailureKind::Forbidden,
                    "a token is needed: the content of the file `dashboard.token_file`",
                );
                let scheme = [(WWW_AUTHENTICATE, "Bearer realm=\"lb\"")];
                (StatusCode::UNAUTHORIZED, scheme, Json(failure)).into_response()
            }
        }
    }
}

/// What a page has to know before it begins.
#[derive(Serialize)]
struct Session {
    /// Changes are possible.
    write: bool,
    /// Names of the reasons under which packets are dropped.
    drops: Vec<&'static str>,
}

async fn session(State(shared): State<Shared>) -> Json<Session> {
    let write = shared.access.borrow().may_write();
    let drops = Reason::ALL.iter().filter(|reason| reason.is_drop()).map(|reason| reason.name());
    Json(Session { write, drops: drops.collect() })
}

async fn status(State(shared): State<Shared>) -> Result<Response, Failure> {
    Ok(sent(&*shared.feed.status().await?))
}

async fn stats(State(shared): State<Shared>) -> Result<Response, Failure> {
    Ok(sent(&*shared.feed.stats().await?))
}

fn sent(shot: &Shot) -> Response {
    let taken = shot.taken_milliseconds.to_string();
    let head = [("content-type", "application/json"), ("x-lb-taken", taken.as_str())];
    (head, shot.json.clone()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    service: Option<String>,
}

async fn why(
    State(shared): State<Shared>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Json<Why>, Failure> {
    let Query(WhyQuery { service }) = query.map_err(|error| routes::invalid(error.body_text()))?;
    Ok(Json(shared.feed.why(service.as_deref()).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn events(
    State(shared): State<Shared>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Events>, Failure> {
    let Query(EventsQuery { after, limit }) =
        query.map_err(|error| routes::invalid(error.body_text()))?;
    Ok(Json(shared.feed.events(after, limit.unwrap_or(REMEMBERED)).await?))
}

async fn set_backend(
    Extension(caller): Extension<Caller>,
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Body,
) -> Result<Json<Done>, Failure> {
    let Path((service, backend)) = path.map_err(|error| routes::invalid(error.body_text()))?;
    let set = routes::read(body, MAX_BODY).await?;
    routes::check(&set)?;
    let peer = caller.peer;
    let command = |reply| Command::SetBackend { service, backend, set, peer, reply };
    Ok(Json(routes::answer(shared.feed.commands(), command).await?))
}

async fn wrong_method() -> Response {
    let failure = routes::invalid("this path knows another method");
    (StatusCode::METHOD_NOT_ALLOWED, Json(failure)).into_response()
}
