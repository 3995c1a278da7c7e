//! Redis (and what speaks its protocol).

use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};

use super::{Login, Refusal, Said, Stream};

/// Asks for the role.
pub(super) async fn ask(stream: Stream, login: Login, named: bool) -> Result<Said, Refusal> {
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(password) = login.password {
        info = info.set_password(password);
        if named {
            info = info.set_username(login.user);
        }
    }
    let config = AsyncConnectionConfig::new();
    let (mut connection, driver) =
        MultiplexedConnection::new_with_config(&info, stream, config).await.map_err(refusal)?;
    tokio::pin!(driver);
    let asking = async {
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut connection).await?;
        redis::from_redis_value::<Vec<redis::Value>>(role)
            .ok()
            .and_then(|values| redis::from_redis_value::<String>(values.into_iter().next()?).ok())
            .ok_or_else(|| {
                redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "no role"))
            })
    };
    let role = tokio::select! {
        role = asking => role.map_err(refusal)?,
        () = &mut driver => return Err(Refusal::Protocol("the connection was closed".to_owned())),
    };
    Ok(Said { writable: role == "master", name: format!("role {role}") })
}

fn refusal(error: redis::RedisError) -> Refusal {
    match error.is_io_error() || error.is_connection_dropped() {
        true => Refusal::Protocol(error.to_string()),
        false => Refusal::Server(error.to_string()),
    }
}
