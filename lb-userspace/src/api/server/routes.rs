//! Paths and what they ask the controller.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use lb_common::abi::MAX_SNAPLEN;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot};

use super::{MAX_BODY, MAX_DRAFT, REQUEST_TIMEOUT, connections::Lease};
use crate::{
    api::{
        Answer, Change, Command,
        peer::Caller,
        types::{Failure, FailureKind, SetBackend},
    },
    capture::filter::Filter,
    config::model::Protocol,
    control::{
        capture::Wanted,
        dry_run::{Batch, Question},
    },
};

pub(super) type Commands = State<mpsc::Sender<Command>>;

/// All paths of the API.
pub fn router(commands: mpsc::Sender<Command>) -> Router {
    Router::new()
        .route("/v1/status", get(async |s: Commands| ask(s, Command::Status).await))
        .route("/v1/stats", get(async |s: Commands| ask(s, Command::Stats).await))
        .route("/v1/lookup", get(lookup))
        .route("/v1/why", get(why))
        .route("/v1/events", get(events))
        .route("/v1/plan", post(plan))
        .route(
            "/v1/revisions",
            get(async |s: Commands| {
                ask(s, |reply| Command::Change(Change::Revisions(reply))).await
            }),
        )
        .route("/v1/replay", post(replay))
        .route("/v1/backends/{service}/{backend}", get(super::change::drained))
        .merge(changes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(commands)
}

/// What changes something, or shows what only admins may see.
fn changes() -> Router<mpsc::Sender<Command>> {
    Router::new()
        .route("/v1/backends/{service}/{backend}", post(set_backend))
        .route("/v1/reload", post(reload))
        .route("/v1/detach", post(async |s: Commands| ask(s, Command::Detach).await))
        .route("/v1/log", post(log))
        .route("/v1/node", post(node))
        .merge(super::change::routes())
        .route("/v1/capture", get(capture))
        .route_layer(middleware::from_fn(only_admins))
}

async fn only_admins(
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    if caller.admin {
        return Ok(next.run(request).await);
    }
    let error = format!(
        "{} may look, but not change anything or see packets: that takes root, or `socket_level: admin` in the configuration",
        caller.peer
    );
    Err(Failure::new(FailureKind::Forbidden, error))
}

/// Most events of one answer.
const MOST_EVENTS: usize = crate::events::REMEMBERED;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn events(
    commands: Commands,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(EventsQuery { after, limit }) = query.map_err(|error| invalid(error.body_text()))?;
    let limit = limit.unwrap_or(MOST_EVENTS).min(MOST_EVENTS);
    ask(commands, |reply| Command::Events { after, limit, reply }).await
}

async fn reload(
    Extension(caller): Extension<Caller>,
    commands: Commands,
) -> Result<Response, Failure> {
    ask(commands, |reply| Command::Reload { peer: caller.peer, reply }).await
}

async fn node(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    body: Body,
) -> Result<Response, Failure> {
    let set = read(body, MAX_BODY).await?;
    ask(commands, |reply| Command::SetNode { set, peer: caller.peer, reply }).await
}

async fn log(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    body: Body,
) -> Result<Response, Failure> {
    let level = read(body, MAX_BODY).await?;
    ask(commands, |reply| Command::Log { level, peer: caller.peer, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookupQuery {
    source: SocketAddr,
    destination: SocketAddr,
    #[serde(default)]
    protocol: Protocol,
    /// `SERVICE/BACKEND`s, separated by commas.
    #[serde(default)]
    down: String,
}

async fn lookup(
    commands: Commands,
    query: Result<Query<LookupQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(LookupQuery { source, destination, protocol, down }) =
        query.map_err(|error| invalid(error.body_text()))?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(invalid("source and destination are not of the same address family"));
    }
    let question = Question { source, destination, protocol, down: list(&down) };
    ask(commands, |reply| Command::Lookup { question, reply }).await
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayQuery {
    interface: Option<String>,
    #[serde(default)]
    down: String,
}

/// Takes frames, each after its length in four bytes (little end first), and answers with as many verdicts.
async fn replay(
    commands: Commands,
    query: Result<Query<ReplayQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, Failure> {
    let Query(ReplayQuery { interface, down }) =
        query.map_err(|error| invalid(error.body_text()))?;
    let frames = split(read_bytes(body, MAX_BODY).await?)
        .ok_or_else(|| invalid("the request's body ends inside a frame"))?;
    let batch = Batch { interface, down: list(&down), frames };
    ask(commands, |reply| Command::Replay { batch, reply }).await
}

fn cut(body: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= body.len()).then(|| body.split_to(length))
}

fn split(mut body: Bytes) -> Option<Vec<Bytes>> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let length = cut(&mut body, 4)?;
        let length = u32::from_le_bytes(length.as_ref().try_into().ok()?) as usize;
        frames.push(cut(&mut body, length)?);
    }
    Some(frames)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureQuery {
    #[serde(default)]
    filter: String,
    snaplen: Option<u32>,
    rate: Option<u32>,
    count: Option<u64>,
    milliseconds: Option<u64>,
}

/// Bytes of each frame, and packets a second, unless the client says otherwise.
pub const SNAPLEN: u32 = 256;
/// See [`SNAPLEN`].
pub const RATE: u32 = 10_000;

/// A stream of [`crate::capture::stream`], as long as the capture lasts.
async fn capture(
    Extension(caller): Extension<Caller>,
    Extension(lease): Extension<Lease>,
    State(commands): Commands,
    query: Result<Query<CaptureQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| invalid(error.body_text()))?;
    let wanted = Wanted {
        filter: Filter::parse(&query.filter).map_err(invalid)?,
        snaplen: query.snaplen.unwrap_or(SNAPLEN),
        rate: query.rate.unwrap_or(RATE),
        count: query.count,
        time: query.milliseconds.map(Duration::from_millis),
    };
    if !(64..=MAX_SNAPLEN).contains(&wanted.snaplen) || wanted.rate == 0 {
        return Err(invalid(format!(
            "the snap length is not in 64..={MAX_SNAPLEN}, or the rate is 0"
        )));
    }
    let peer = caller.peer;
    let stream = answer(&commands, |reply| Command::Capture { wanted, peer, reply }).await?;
    let held = lease.hold();
    let chunks = futures::stream::unfold((stream, held), async |(mut stream, held)| {
        let chunk = stream.recv().await?;
        Some((Ok::<_, Infallible>(chunk), (stream, held)))
    });
    Ok(Body::from_stream(chunks).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    service: Option<String>,
}

async fn why(
    commands: Commands,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(WhyQuery { service }) = query.map_err(|error| invalid(error.body_text()))?;
    ask(commands, |reply| Command::Why { service, reply }).await
}

async fn plan(commands: Commands, body: Body) -> Result<Response, Failure> {
    let draft = read(body, MAX_DRAFT).await?;
    ask(commands, |reply| Command::Plan { draft, reply }).await
}

async fn set_backend(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Body,
) -> Result<Response, Failure> {
    let Path((service, backend)) = path.map_err(|error| invalid(error.body_text()))?;
    let set = read(body, MAX_BODY).await?;
    check(&set)?;
    let peer = caller.peer;
    ask(commands, |reply| Command::SetBackend { service, backend, set, peer, reply }).await
}

pub(super) fn check(set: &SetBackend) -> Result<(), Failure> {
    match set {
        SetBackend { admin: None, weight: None } => {
            Err(invalid("nothing to set: give `admin`, `weight` or both"))
        }
        SetBackend { admin: Some(word), .. }
            if !["ready", "drain", "maint"].contains(&word.as_str()) =>
        {
            Err(invalid(format!("`{word}` is not one of ready, drain, maint")))
        }
        SetBackend { weight: Some(weight @ 257..), .. } => {
            Err(invalid(format!("the weight {weight} is not in 0..=256")))
        }
        _ => Ok(()),
    }
}

/// The whole body as JSON, bounded in size and time.
pub(super) async fn read<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Failure> {
    let bytes = read_bytes(body, limit).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("the request's body is not what is expected: {error}")))
}

/// The whole body, bounded in size and time.
async fn read_bytes(body: Body, limit: usize) -> Result<Bytes, Failure> {
    let whole = tokio::time::timeout(REQUEST_TIMEOUT, Limited::new(body, limit).collect());
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(invalid(format!("the request's body: {error}"))),
        Err(_) => Err(invalid(format!(
            "the request's body did not come within {} seconds",
            REQUEST_TIMEOUT.as_secs()
        ))),
    }
}

/// Sends the controller a command and waits for its answer.
pub(super) async fn ask<T: Serialize>(
    State(commands): Commands,
    command: impl FnOnce(Answer<T>) -> Command,
) -> Result<Response, Failure> {
    Ok(Json(answer(&commands, command).await?).into_response())
}

/// The same, and the answer as it is.
pub(super) async fn answer<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(Answer<T>) -> Command,
) -> Result<T, Failure> {
    let stopping = || Failure::new(FailureKind::Unavailable, "the daemon is stopping; try again");
    let (answer, answered) = oneshot::channel();
    commands.send(command(answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

async fn unknown_path(uri: Uri) -> Failure {
    const PATHS: [&str; 21] = [
        "/v1/status",
        "/v1/stats",
        "/v1/lookup",
        "/v1/why",
        "/v1/events",
        "/v1/plan",
        "/v1/replay",
        "/v1/backends/{service}/{backend}",
        "/v1/backends/{service}/{backend}/drain",
        "/v1/reload",
        "/v1/detach",
        "/v1/log",
        "/v1/capture",
        "/v1/apply",
        "/v1/confirm",
        "/v1/rollback",
        "/v1/set",
        "/v1/unset",
        "/v1/save",
        "/v1/revisions",
        "/v1/revisions/{number}",
    ];
    Failure::unknown("path", uri.path(), PATHS)
}

async fn wrong_method() -> Response {
    let error = "this path knows another method: GET status, stats, lookup, why, events, revisions, capture and one backend, POST the others";
    (StatusCode::METHOD_NOT_ALLOWED, Json(invalid(error))).into_response()
}

pub(super) fn invalid(error: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, error)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status()).expect("kinds have valid codes");
        (status, Json(self)).into_response()
    }
}
