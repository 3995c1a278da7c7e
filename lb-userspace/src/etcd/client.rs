//! Asks one member of etcd: a connection, over TLS if wanted, and a token if there is a user.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    ANSWER, Location,
    gateway::{self, Answer, Compare, Entry, Lease, Line, Watched},
    location::{Endpoint, Tls},
};
use crate::{authorities, secret};

/// Longest answer, bytes: reports of many nodes; etcd's own limit of one value is 1.5 MB.
const LONGEST: usize = 64 << 20;
/// TCP finds a silent end that has gone after this and some more.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// gRPC's numbers of what is wrong with the request, of what is not permitted, and of what there is no room for.
const NO_USE_TO_REPEAT: [u64; 3] = [3, 7, 8];

/// Why there is no good answer.
#[derive(Debug)]
pub enum Error {
    /// etcd says so.
    Refused {
        /// gRPC's number.
        code: u64,
        /// In words.
        message: String,
    },
    /// There is none.
    Broken(String),
}

impl Error {
    /// Whether another connection would hear the same: etcd is there, and does not want this.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if NO_USE_TO_REPEAT.contains(code))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } => write!(f, "etcd: {message}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl From<String> for Error {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

/// A connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<HeaderValue>,
    running: Running,
}

/// What drives a connection; ends with it.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: u64,
    error: String,
    message: String,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

impl Client {
    /// Connects, and says who we are.
    pub async fn connect(location: &Location, endpoint: &Endpoint) -> Result<Self, Error> {
        let connecting = async {
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let keepalive =
                socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
            let kept = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
            kept.and_then(|()| stream.set_nodelay(true)).map_err(|error| error.to_string())?;
            match &location.tls {
                None => Self::over(stream, endpoint).await,
                Some(tls) => {
                    let name = ServerName::try_from(endpoint.host.clone());
                    let name = name.map_err(|error| format!("{}: {error}", endpoint.host))?;
                    let connector = TlsConnector::from(Arc::new(tls_config(tls)?));
                    let stream = connector.connect(name, stream).await;
                    Self::over(stream.map_err(|error| format!("TLS: {error}"))?, endpoint).await
                }
            }
        };
        let mut client = within(connecting).await?;
        if let Some((user, password)) = &location.user {
            let password = secret::read(password)?;
            let body = json!({"name": user, "password": password});
            let Token { token } = client.call("/v3/auth/authenticate", &body).await?;
            let token = HeaderValue::try_from(token).map_err(|error| error.to_string())?;
            client.token = Some(token);
        }
        Ok(client)
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        endpoint: &Endpoint,
    ) -> Result<Self, Error> {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| whole(&error))?;
        // How it ends is told to whoever waits for an answer.
        let running = Running(tokio::spawn(async { drop(connection.await) }).abort_handle());
        Ok(Self { sender, host: endpoint.to_string(), token: None, running })
    }

    /// A key, and etcd's revision.
    pub async fn get(&mut self, key: &str) -> Result<(u64, Option<Entry>), Error> {
        let answer: Answer = self.call("/v3/kv/range", &gateway::range(key)).await?;
        Ok((answer.revision(), answer.entries()?.pop()))
    }

    /// The revision of a key; 0 = it is not there.
    pub async fn revision_of(&mut self, key: &str) -> Result<u64, Error> {
        let answer: Answer = self.call("/v3/kv/range", &gateway::range_of_key(key)).await?;
        Ok(answer.entries()?.pop().map_or(0, |entry| entry.revision))
    }

    /// All keys that begin so.
    pub async fn get_all(&mut self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let answer: Answer = self.call("/v3/kv/range", &gateway::range_of_prefix(prefix)).await?;
        Ok(answer.entries()?)
    }

    /// Writes a key that goes with a lease.
    pub async fn put(&mut self, key: &str, text: &str, lease: &str) -> Result<(), Error> {
        let _: Answer = self.call("/v3/kv/put", &gateway::put(key, text, lease)).await?;
        Ok(())
    }

    /// Writes a key if it is as expected; the revision, or `None` = it is not.
    pub async fn put_if(&mut self, compare: &Compare, text: &str) -> Result<Option<u64>, Error> {
        let answer: Answer = self.call("/v3/kv/txn", &gateway::put_if(compare, text)).await?;
        Ok(answer.has_succeeded().then(|| answer.revision()))
    }

    /// A lease for so many seconds.
    pub async fn grant(&mut self, seconds: u64) -> Result<String, Error> {
        let body = json!({"TTL": seconds.to_string()});
        let lease: Lease = self.call("/v3/lease/grant", &body).await?;
        Ok(lease.id)
    }

    /// More time for a lease.
    pub async fn keep_alive(&mut self, lease: &str) -> Result<(), Error> {
        let line: Line<Lease> = self.call("/v3/lease/keepalive", &json!({"ID": lease})).await?;
        let left = line.result.map(|lease| lease.seconds).unwrap_or_default();
        match left.is_empty() || left == "0" {
            true => Err(Error::Broken("the lease is gone".to_owned())),
            false => Ok(()),
        }
    }

    /// Asks for all changes of a key from a revision on.
    pub async fn watch(mut self, key: &str, from: u64) -> Result<Watch, Error> {
        let answer = within(self.send("/v3/watch", &gateway::watch(key, from))).await?;
        Ok(Watch { body: answer.into_body(), read: BytesMut::new(), _running: self.running })
    }

    async fn call<T: DeserializeOwned>(&mut self, path: &str, body: &Value) -> Result<T, Error> {
        within(async {
            let answer = self.send(path, body).await?;
            let text = read_all(answer).await?;
            serde_json::from_slice(&text)
                .map_err(|error| Error::Broken(format!("{path} answers no JSON of etcd: {error}")))
        })
        .await
    }

    async fn send(&mut self, path: &str, body: &Value) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())));
        let request = request.map_err(|error| error.to_string())?;
        self.sender.ready().await.map_err(|error| whole(&error))?;
        let answer = self.sender.send_request(request).await.map_err(|error| whole(&error))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let text = read_all(answer).await?;
        let Refusal { code, error, message } = serde_json::from_slice(&text).unwrap_or_default();
        let said = if message.is_empty() { error } else { message };
        match said.is_empty() {
            true => {
                Err(Error::Broken(format!("{path} answers {status}: is it etcd 3.4 or later?")))
            }
            false => Err(Error::Refused { code, message: said }),
        }
    }
}

/// An error with its causes: hyper's own words say little.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn read_all(answer: Response<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(ANSWER, work)
        .await
        .unwrap_or_else(|_| Err(Error::Broken(format!("no answer within {} s", ANSWER.as_secs()))))
}

fn tls_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(authorities::roots(tls.ca_file.as_deref())?);
    let Some((certificate, key)) = &tls.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let wrong =
        |path: &std::path::Path, error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| wrong(certificate, &error))?;
    // Refused if others can read it.
    let pem = secret::read(key)?;
    let read = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    let read = read.map_err(|error| wrong(key, &error))?;
    builder.with_client_auth_cert(chain, read).map_err(|error| wrong(certificate, &error))
}

/// What a watch tells, line by line.
pub struct Watch {
    body: Incoming,
    read: BytesMut,
    _running: Running,
}

impl Watch {
    /// The next line. May be dropped while it waits, and be asked again.
    pub async fn next(&mut self) -> Result<Watched, Error> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end);
                self.read.advance(1);
                return one(&line);
            }
            if self.read.len() > LONGEST {
                return Err(Error::Broken("a line of the watch is too long".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(Error::Broken(format!("the watch: {}", whole(&error))));
                }
                None => return Err(Error::Broken("the watch has ended".to_owned())),
            }
        }
    }
}

fn one(line: &[u8]) -> Result<Watched, Error> {
    let line: Line<Watched> = serde_json::from_slice(line)
        .map_err(|error| Error::Broken(format!("the watch tells no JSON of etcd: {error}")))?;
    if let Some(error) = line.error {
        return Err(Error::Broken(format!("the watch: {error}")));
    }
    let watched = line.result.unwrap_or_default();
    match watched.canceled {
        false => Ok(watched),
        true if !watched.compact_revision.is_empty() => Err(Error::Broken(format!(
            "the watch was for what is compacted away (to {})",
            watched.compact_revision
        ))),
        true => Err(Error::Broken(format!("the watch was ended: {}", watched.cancel_reason))),
    }
}
