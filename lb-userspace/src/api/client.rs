//! The client of the control socket: one connection a request, and every failure in one sentence that says what to do.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::types::{
    Applied, Apply, Done, Draft, Drain, Events, Failure, LogLevel, Lookup, PacketVerdict, Plan,
    RevisionText, Revisions, Rollback, Save, Saved, SetBackend, SetNode, Setting, Stats, Status,
    Unset, Why,
};
use crate::{
    capture::stream::{Record, decode},
    config::model::Protocol,
};

/// Longest answer that is read, bytes.
const MAX_ANSWER: usize = 256 << 20;
/// Time an answer may take unless [`Client::with_timeout`] says otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Talks to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("lb is not running: {why} {}; start it with `lb run` (or `systemctl start lb`), or name its socket with --socket", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// `there is no socket` or `nobody answers on`.
        why: &'static str,
    },
    /// The socket's mode keeps us out.
    #[error("permission denied on {}: {who} may use it", socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
        /// Who may: `root`, `root and the group lb`.
        who: String,
    },
    /// The daemon hangs, or has very much to do.
    #[error("lb did not answer on {} within {} seconds; look at its log", socket.display(), seconds)]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long it had.
        seconds: f64,
    },
    /// It answered, and the answer is no.
    #[error("{0}")]
    Refused(#[from] Failure),
    /// It answered something else.
    #[error("the answer on {} is not one of lb's: {what}; is it another version, or another program's socket?", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What was wrong.
        what: String,
    },
    /// Anything else with the connection.
    #[error("cannot talk to lb on {}: {source}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

impl Client {
    /// Of the daemon on `socket`; connects with each request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: ANSWER_TIMEOUT }
    }

    /// With another limit on the time of an answer.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// State of node, services and backends.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.send(Method::GET, "/v1/status", Bytes::new()).await
    }

    /// Counters.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.send(Method::GET, "/v1/stats", Bytes::new()).await
    }

    /// Which backend a flow reaches, and why; if the backends `down` (`SERVICE/BACKEND`) were DOWN.
    pub async fn lookup(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        protocol: Protocol,
        down: &[String],
    ) -> Result<Lookup, ClientError> {
        let (protocol, down) = (protocol.name(), percent_encode(&down.join(",")));
        let query =
            format!("source={source}&destination={destination}&protocol={protocol}&down={down}");
        self.send(Method::GET, &format!("/v1/lookup?{query}"), Bytes::new()).await
    }

    /// What the loaded program would do with these frames, coming in by `interface` (`None` = lb's first).
    pub async fn replay(
        &self,
        frames: &[Vec<u8>],
        interface: Option<&str>,
        down: &[String],
    ) -> Result<Vec<PacketVerdict>, ClientError> {
        let mut path = format!("/v1/replay?down={}", percent_encode(&down.join(",")));
        if let Some(interface) = interface {
            path.push_str(&format!("&interface={}", percent_encode(interface)));
        }
        let mut body = Vec::new();
        for frame in frames {
            body.extend((frame.len() as u32).to_le_bytes());
            body.extend(frame);
        }
        self.send(Method::POST, &path, body.into()).await
    }

    /// Why packets were dropped: of one service (its name, VIP or `VIP:port`), or of all.
    pub async fn why(&self, service: Option<&str>) -> Result<Why, ClientError> {
        let query = service.map(|service| format!("?service={}", percent_encode(service)));
        let path = format!("/v1/why{}", query.unwrap_or_default());
        self.send(Method::GET, &path, Bytes::new()).await
    }

    /// The first `limit` events after the one with the id `after` (0 = from the oldest that is remembered).
    pub async fn events(&self, after: u64, limit: usize) -> Result<Events, ClientError> {
        let path = format!("/v1/events?after={after}&limit={limit}");
        self.send(Method::GET, &path, Bytes::new()).await
    }

    /// Sets the level of the daemon's log.
    pub async fn log(&self, level: &LogLevel) -> Result<Done, ClientError> {
        let body = serde_json::to_vec(level).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/log", body.into()).await
    }

    /// Has traffic sent elsewhere, or here again.
    pub async fn set_node(&self, set: &SetNode) -> Result<Done, ClientError> {
        let body = serde_json::to_vec(set).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/node", body.into()).await
    }

    /// What a configuration would change.
    pub async fn plan(&self, draft: &Draft) -> Result<Plan, ClientError> {
        let body = serde_json::to_vec(draft).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/plan", body.into()).await
    }

    /// Puts a configuration in force.
    pub async fn apply(&self, apply: &Apply) -> Result<Applied, ClientError> {
        let body = serde_json::to_vec(apply).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/apply", body.into()).await
    }

    /// Keeps the configuration that is on trial.
    pub async fn confirm(&self) -> Result<Done, ClientError> {
        self.send(Method::POST, "/v1/confirm", Bytes::new()).await
    }

    /// Goes back to an earlier configuration.
    pub async fn rollback(&self, rollback: &Rollback) -> Result<Applied, ClientError> {
        let body = serde_json::to_vec(rollback).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/rollback", body.into()).await
    }

    /// Drains a backend, and begins at once to look for what is left on it.
    pub async fn drain(&self, service: &str, backend: &str) -> Result<Drain, ClientError> {
        let (service, backend) = (percent_encode(service), percent_encode(backend));
        let path = format!("/v1/backends/{service}/{backend}/drain");
        self.send(Method::POST, &path, Bytes::new()).await
    }

    /// What is left on a backend.
    pub async fn drained(&self, service: &str, backend: &str) -> Result<Drain, ClientError> {
        let path = format!("/v1/backends/{}/{}", percent_encode(service), percent_encode(backend));
        self.send(Method::GET, &path, Bytes::new()).await
    }

    /// Sets one value beside the file.
    pub async fn set(&self, setting: &Setting) -> Result<Done, ClientError> {
        let body = serde_json::to_vec(setting).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/set", body.into()).await
    }

    /// The file's value counts again.
    pub async fn unset(&self, unset: &Unset) -> Result<Done, ClientError> {
        let body = serde_json::to_vec(unset).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/unset", body.into()).await
    }

    /// Writes what was set into the file.
    pub async fn save(&self, save: Save) -> Result<Saved, ClientError> {
        let body = serde_json::to_vec(&save).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, "/v1/save", body.into()).await
    }

    /// Which configurations were in force.
    pub async fn revisions(&self) -> Result<Revisions, ClientError> {
        self.send(Method::GET, "/v1/revisions", Bytes::new()).await
    }

    /// The text of one of them; `None` = the one in force.
    pub async fn revision(&self, number: Option<u64>) -> Result<RevisionText, ClientError> {
        let name = number.map_or("running".to_owned(), |number| number.to_string());
        self.send(Method::GET, &format!("/v1/revisions/{name}"), Bytes::new()).await
    }

    /// Sets a backend's administrative state or weight.
    pub async fn set_backend(
        &self,
        service: &str,
        backend: &str,
        set: &SetBackend,
    ) -> Result<Done, ClientError> {
        let path = format!("/v1/backends/{}/{}", percent_encode(service), percent_encode(backend));
        let body = serde_json::to_vec(set).map_err(|error| self.protocol(error))?;
        self.send(Method::POST, &path, body.into()).await
    }

    /// Reads the configuration file again.
    pub async fn reload(&self) -> Result<Done, ClientError> {
        self.send(Method::POST, "/v1/reload", Bytes::new()).await
    }

    /// Removes program, links and maps, and ends the daemon.
    pub async fn detach(&self) -> Result<Done, ClientError> {
        self.send(Method::POST, "/v1/detach", Bytes::new()).await
    }

    /// Begins a capture; the result gives what is captured.
    pub async fn capture(&self, options: &CaptureOptions) -> Result<CaptureStream, ClientError> {
        let CaptureOptions { filter, snaplen, rate, count, time } = options;
        let mut path =
            format!("/v1/capture?filter={}&snaplen={snaplen}&rate={rate}", percent_encode(filter));
        if let Some(count) = count {
            path.push_str(&format!("&count={count}"));
        }
        if let Some(time) = time {
            path.push_str(&format!("&milliseconds={}", time.as_millis()));
        }
        let begin = tokio::time::timeout(self.timeout, self.begin(&path));
        let response = begin.await.map_err(|_| ClientError::Timeout {
            socket: self.socket.clone(),
            seconds: self.timeout.as_secs_f64(),
        })??;
        let status = response.status();
        let mut body = response.into_body();
        if status.is_success() {
            return Ok(CaptureStream { body, buffer: BytesMut::new(), client: self.clone() });
        }
        let mut bytes = BytesMut::new();
        while let Some(Ok(frame)) = body.frame().await
            && bytes.len() < MAX_ANSWER
        {
            bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        }
        match serde_json::from_slice::<Failure>(&bytes) {
            Ok(failure) => Err(failure.into()),
            Err(_) => Err(self.protocol(format!("HTTP status {status}"))),
        }
    }

    /// A request whose answer goes on and on; the connection is driven aside.
    async fn begin(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.connect_error(error))?;
        let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| self.protocol(error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .uri(path)
            .header("host", "lb")
            .body(Full::new(Bytes::new()))
            .map_err(|error| self.protocol(error))?;
        sender.send_request(request).await.map_err(|error| self.protocol(error))
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = tokio::time::timeout(self.timeout, self.exchange(method, path, body));
        let (status, bytes) = answer.await.map_err(|_| ClientError::Timeout {
            socket: self.socket.clone(),
            seconds: self.timeout.as_secs_f64(),
        })??;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.protocol(error));
        }
        match serde_json::from_slice::<Failure>(&bytes) {
            Ok(failure) => Err(failure.into()),
            Err(_) => Err(self.protocol(format!("HTTP status {status}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.connect_error(error))?;
        let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| self.protocol(error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lb")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.protocol(error))?;
        let exchange = async {
            let response =
                sender.send_request(request).await.map_err(|error| self.protocol(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            let body = body.collect().await.map_err(|error| self.protocol(error))?;
            Ok((status, body.to_bytes()))
        };
        // The connection's own result says nothing that the exchange does not: it is only driven.
        let drive = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            result = exchange => result,
            never = drive => never,
        }
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound => {
                ClientError::NotRunning { socket, why: "there is no socket" }
            }
            io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket, why: "nobody answers on" }
            }
            io::ErrorKind::PermissionDenied => {
                ClientError::Permission { who: who_may(&socket), socket }
            }
            _ => ClientError::Io { socket, source },
        }
    }

    fn protocol(&self, what: impl std::fmt::Display) -> ClientError {
        ClientError::Protocol { socket: self.socket.clone(), what: what.to_string() }
    }
}

/// What to capture.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// An expression of [`crate::capture::filter`].
    pub filter: String,
    /// Bytes of each frame.
    pub snaplen: u32,
    /// Packets a second of each CPU.
    pub rate: u32,
    /// How many at most.
    pub count: Option<u64>,
    /// How long at most.
    pub time: Option<Duration>,
}

/// What is captured. Dropping it ends the capture.
pub struct CaptureStream {
    body: Incoming,
    buffer: BytesMut,
    client: Client,
}

impl CaptureStream {
    /// The next record with its bytes; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<(Record, Bytes)>, ClientError> {
        loop {
            let whole = decode(&mut self.buffer).map_err(|error| self.client.protocol(error))?;
            if whole.is_some() {
                return Ok(whole);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| self.client.protocol(error))?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

/// Who may open `socket`, as far as we can see: its directory may hide it from us.
fn who_may(socket: &Path) -> String {
    let parent = socket.parent().unwrap_or(socket);
    let Ok(found) = std::fs::metadata(socket).or_else(|_| std::fs::metadata(parent)) else {
        return "root (try sudo)".to_owned();
    };
    let user = nix::unistd::User::from_uid(found.uid().into()).ok().flatten();
    let user = user.map_or_else(|| format!("user {}", found.uid()), |user| user.name);
    if found.mode() & 0o020 == 0 && found.mode() & 0o010 == 0 {
        return format!("only {user} (try sudo, or set `socket_group` in the configuration)");
    }
    let group = nix::unistd::Group::from_gid(found.gid().into()).ok().flatten();
    let group = group.map_or_else(|| found.gid().to_string(), |group| group.name);
    format!("only {user} and the group {group} (try sudo, or join the group)")
}

/// RFC 3986: everything but unreserved characters.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_daemon_that_is_away_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lb.sock");
        let client = Client::new(&socket);
        let error = runtime().block_on(client.status()).unwrap_err().to_string();
        assert!(error.contains("not running: there is no socket"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = runtime().block_on(client.status()).unwrap_err().to_string();
        assert!(error.contains("nobody answers"), "{error}");
        assert!(error.contains(socket.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_daemon_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lb.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let client = Client::new(&socket).with_timeout(Duration::from_millis(20));
        let error = runtime().block_on(client.status()).unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    }

    #[test]
    fn permission_denied_names_those_who_may() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("lb.sock"));
        let error = client.connect_error(io::ErrorKind::PermissionDenied.into());
        assert!(matches!(error, ClientError::Permission { .. }), "{error}");
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let error = error.to_string();
        assert!(error.contains(&format!("only {user} ")), "{error}");
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_path() {
        assert_eq!(percent_encode("web-1.a_b"), "web-1.a_b");
        assert_eq!(percent_encode("a/../b?x ä"), "a%2F..%2Fb%3Fx%20%C3%A4");
    }
}
