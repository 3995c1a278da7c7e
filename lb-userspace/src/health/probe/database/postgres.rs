//! PostgreSQL.

use tokio_postgres::{Config, NoTls};

use super::{Login, Refusal, Said, Stream};

const QUERY: &str = "select current_setting('server_version'), \
                     not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";

/// Asks for version and role.
pub(super) async fn ask(stream: Stream, login: Login) -> Result<Said, Refusal> {
    let mut config = Config::new();
    config
        .user(&login.user)
        .application_name("lb")
        .ssl_mode(tokio_postgres::config::SslMode::Disable);
    config.dbname(login.database.as_deref().unwrap_or("postgres"));
    if let Some(password) = &login.password {
        config.password(password);
    }
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(refusal)?;
    tokio::pin!(connection);
    // Driven here and not in a task of its own: whatever happens, the connection ends with the probe.
    let row = {
        let query = client.query_one(QUERY, &[]);
        tokio::pin!(query);
        tokio::select! {
            biased;
            row = &mut query => row,
            _ = &mut connection => query.await,
        }
    };
    let row = row.map_err(refusal)?;
    let version: String = row.try_get(0).map_err(refusal)?;
    let said =
        Said { name: format!("PostgreSQL {version}"), writable: row.try_get(1).map_err(refusal)? };
    // An orderly end, or the server's log fills with complaints.
    drop(client);
    let _ = connection.await;
    Ok(said)
}

fn refusal(error: tokio_postgres::Error) -> Refusal {
    match error.as_db_error() {
        Some(said) => Refusal::Server(said.message().to_owned()),
        None => Refusal::Protocol(match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }),
    }
}
