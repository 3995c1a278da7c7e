//! Databases: does one let the prober in, and, if that is wanted, can it be written?

mod mysql;
mod postgres;
mod redis;

use tokio::time::{Instant, timeout_at};

use super::{CheckCode, Outcome, stream::Stream};
use crate::{
    config::model::{Database, Engine, Require},
    secret,
};

/// What a database has said.
struct Said {
    /// Version or the like, for people.
    name: String,
    /// It can be written.
    writable: bool,
}

/// Why there is no answer.
enum Refusal {
    /// The server says no: a wrong password, too many connections, still starting.
    Server(String),
    /// What came is not of this protocol, or broke off.
    Protocol(String),
    /// The prober cannot ask.
    Ours(String),
}

/// Who logs in.
struct Login {
    user: String,
    password: Option<String>,
    database: Option<String>,
}

/// Asks over a fresh connection; the verdict comes by `deadline`.
pub(super) async fn ask(
    stream: Stream,
    database: &Database,
    began: Instant,
    deadline: Instant,
) -> Outcome {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    let password = match database.password_file.as_deref().map(secret::read).transpose() {
        Ok(password) => password,
        Err(error) => return outcome(CheckCode::SockErr, &format!("password_file {error}")),
    };
    let login = Login {
        user: database.user.clone().unwrap_or_else(|| "lb".to_owned()),
        password,
        database: database.database.clone(),
    };
    let asking = async {
        match database.engine {
            Engine::Mysql => mysql::ask(stream, login).await,
            Engine::Postgres => postgres::ask(stream, login).await,
            Engine::Redis => redis::ask(stream, login, database.user.is_some()).await,
        }
    };
    match timeout_at(deadline, asking).await {
        Err(_) => outcome(CheckCode::L7Tout, "connected, but no complete answer in time"),
        Ok(Err(Refusal::Server(text))) => outcome(CheckCode::L7Sts, &text),
        Ok(Err(Refusal::Protocol(text))) => outcome(CheckCode::L7Rsp, &text),
        Ok(Err(Refusal::Ours(text))) => outcome(CheckCode::SockErr, &text),
        Ok(Ok(Said { name, writable })) => {
            let state = if writable { "writable" } else { "read-only" };
            let good = writable || database.require == Require::Any;
            let code = if good { CheckCode::L7Ok } else { CheckCode::L7Sts };
            outcome(code, &format!("{name}, {state}"))
        }
    }
}
