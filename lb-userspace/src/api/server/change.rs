//! Paths of configurations as a whole. The texts are for admins alone: what a check sends may be a secret.

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, rejection::PathRejection},
    response::Response,
    routing::{get, post},
};
use tokio::sync::mpsc;

use super::{
    MAX_BODY, MAX_DRAFT,
    routes::{Commands, ask, invalid, read},
};
use crate::api::{Change, Command, peer::Caller, types::Failure};

pub(super) fn routes() -> Router<mpsc::Sender<Command>> {
    Router::new()
        .route("/v1/apply", post(apply))
        .route("/v1/confirm", post(confirm))
        .route("/v1/rollback", post(rollback))
        .route("/v1/backends/{service}/{backend}/drain", post(drain))
        .route("/v1/set", post(set))
        .route("/v1/unset", post(unset))
        .route("/v1/save", post(save))
        .route("/v1/revisions/{number}", get(revision))
}

async fn apply(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    body: Body,
) -> Result<Response, Failure> {
    let apply = read(body, MAX_DRAFT).await?;
    let peer = caller.peer;
    ask(commands, |reply| Command::Change(Change::Apply { apply, peer, reply })).await
}

async fn confirm(
    Extension(caller): Extension<Caller>,
    commands: Commands,
) -> Result<Response, Failure> {
    let peer = caller.peer;
    ask(commands, |reply| Command::Change(Change::Confirm { peer, reply })).await
}

async fn rollback(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    body: Body,
) -> Result<Response, Failure> {
    let rollback = read(body, MAX_BODY).await?;
    let peer = caller.peer;
    ask(commands, |reply| Command::Change(Change::Rollback { rollback, peer, reply })).await
}

/// For everybody who may look.
pub(super) async fn drained(
    commands: Commands,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Failure> {
    let Path((service, backend)) = path.map_err(|error| invalid(error.body_text()))?;
    ask(commands, |reply| Command::Change(Change::Drained { service, backend, reply })).await
}

async fn drain(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Failure> {
    let Path((service, backend)) = path.map_err(|error| invalid(error.body_text()))?;
    let peer = caller.peer;
    ask(commands, |reply| Command::Change(Change::Drain { service, backend, peer, reply })).await
}

async fn set(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    body: Body,
) -> Result<Response, Failure> {
    let setting = read(body, MAX_BODY).await?;
    let peer = caller.peer;
    ask(commands, |reply| Command::Change(Change::Set { setting, peer, reply })).await
}

async fn unset(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    body: Body,
) -> Result<Response, Failure> {
    let unset = read(body, MAX_BODY).await?;
    let peer = caller.peer;
    ask(commands, |reply| Command::Change(Change::Unset { unset, peer, reply })).await
}

async fn save(
    Extension(caller): Extension<Caller>,
    commands: Commands,
    body: Body,
) -> Result<Response, Failure> {
    let save = read(body, MAX_BODY).await?;
    let peer = caller.peer;
    ask(commands, |reply| Command::Change(Change::Save { save, peer, reply })).await
}

async fn revision(commands: Commands, Path(number): Path<String>) -> Result<Response, Failure> {
    let number = match number.as_str() {
        "running" => None,
        number => Some(number.parse().map_err(|_| {
            invalid(format!("`{number}` is no revision: its number, or `running`"))
        })?),
    };
    ask(commands, |reply| Command::Change(Change::Revision { number, reply })).await
}
