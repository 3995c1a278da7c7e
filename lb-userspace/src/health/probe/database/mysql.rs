//! MySQL and MariaDB.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use mysql_async::{Conn, IoError, OptsBuilder, prelude::Queryable as _};

use super::{Login, Refusal, Said};

/// Connects, and asks for version and `@@read_only`.
pub(super) async fn ask(address: SocketAddr, login: Login) -> Result<Said, Refusal> {
    let options = OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .tcp_port(address.port())
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
        mysql_async::Error::Io(IoError::Io(error)) if is_of_connecting(&error) => {
            Refusal::Connection(error)
        }
        other => Refusal::Protocol(other.to_string()),
    }
}

/// Whether no connection has come about; what breaks later is of another kind.
fn is_of_connecting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            | ErrorKind::TimedOut
    )
}
