//! MySQL and MariaDB.
//!
//! `@@read_only` says it all: `@@super_read_only`, where a server has it, cannot be 1 without it.

use std::{net::Ipv4Addr, time::Duration};

use mysql_async::{Conn, OptsBuilder, prelude::Queryable as _};
use tokio::net::TcpListener;

use super::{Login, Refusal, Said, Stream};

/// How long the server may take to hang up.
const LINGER: Duration = Duration::from_millis(50);

/// Asks for version and `@@read_only`.
///
/// The library can only connect by itself, which knows neither the source nor the way of a check. So it connects to this
/// process, which passes on what it says.
pub(super) async fn ask(mut stream: Stream, login: Login) -> Result<Said, Refusal> {
    let ours = |error: std::io::Error| Refusal::Ours(format!("no socket for the relay: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(ours)?;
    let port = listener.local_addr().map_err(ours)?.port();
    let relay = async move {
        // Just one: the library's. Who comes before it can say no more than by connecting to the server himself.
        let (mut near, _) = listener.accept().await?;
        drop(listener);
        tokio::io::copy_bidirectional(&mut near, &mut stream).await
    };
    tokio::pin!(relay);
    let asking = query(port, login);
    tokio::pin!(asking);
    tokio::select! {
        biased;
        said = &mut asking => {
            // The library's goodbye is still to be passed on, or the server counts an aborted client.
            let _ = tokio::time::timeout(LINGER, relay).await;
            said
        }
        // One end has closed; the library has seen that or sees it now.
        _ = &mut relay => asking.await,
    }
}

async fn query(port: u16, login: Login) -> Result<Said, Refusal> {
    let options = OptsBuilder::default()
        .ip_or_hostname(Ipv4Addr::LOCALHOST.to_string())
        .tcp_port(port)
        .user(Some(login.user))
        .pass(login.password)
        .db_name(login.database)
        .prefer_socket(false)
        .stmt_cache_size(0);
    let mut connection = Conn::new(options).await.map_err(refusal)?;
    let row: Option<(String, i64)> =
        connection.query_first("select version(), @@read_only").await.map_err(refusal)?;
    let Some((version, read_only)) = row else {
        return Err(Refusal::Protocol("an empty answer".to_owned()));
    };
    // An orderly end, or the server counts an aborted client.
    let _ = connection.disconnect().await;
    Ok(Said { name: version, writable: read_only == 0 })
}

fn refusal(error: mysql_async::Error) -> Refusal {
    match error {
        mysql_async::Error::Server(said) => Refusal::Server(said.message),
        other => Refusal::Protocol(other.to_string()),
    }
}
