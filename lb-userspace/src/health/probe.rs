//! One probe: connect, maybe ask, and say what it was in HAProxy's codes.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout_at};

use super::TargetKey;
use crate::config::model::CheckKind;

/// Bytes of output that are kept.
const OUTPUT: usize = 256;
/// Bytes of headers that are read.
const HEADERS: usize = 64 * 1024;

/// HAProxy's `check_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckCode {
    /// Connected.
    L4Ok,
    /// No answer to the connection attempt in time.
    L4Tout,
    /// Refused or unreachable.
    L4Con,
    /// Answered with a good status.
    L7Ok,
    /// Connected, but no answer in time.
    L7Tout,
    /// The answer is not HTTP, or broke off.
    L7Rsp,
    /// Answered with another status.
    L7Sts,
    /// The prober's own fault: no descriptors, no ports.
    SockErr,
}

impl CheckCode {
    /// As shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L4Ok => "L4OK",
            Self::L4Tout => "L4TOUT",
            Self::L4Con => "L4CON",
            Self::L7Ok => "L7OK",
            Self::L7Tout => "L7TOUT",
            Self::L7Rsp => "L7RSP",
            Self::L7Sts => "L7STS",
            Self::SockErr => "SOCKERR",
        }
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The code.
    pub code: CheckCode,
    /// Counts for (true), against (false), or not at all: the prober's own fault.
    pub good: Option<bool>,
    /// In words, without control characters, at most 256 bytes.
    pub output: String,
    /// How long it took.
    pub duration: Duration,
}

/// Probes once; never takes longer than the timeout.
pub(super) async fn probe(key: &TargetKey) -> Outcome {
    let began = Instant::now();
    let deadline = tokio::time::Instant::from_std(began + key.timing.timeout);
    let outcome = |code: CheckCode, good, output: &str| Outcome {
        code,
        good,
        output: printable(output),
        duration: began.elapsed(),
    };
    let address = SocketAddr::new(key.address, key.port);
    let stream = match timeout_at(deadline, TcpStream::connect(address)).await {
        Err(_) => {
            return outcome(CheckCode::L4Tout, Some(false), "no answer to the connection attempt");
        }
        Ok(Err(error)) if own_fault(&error) => {
            return outcome(CheckCode::SockErr, None, &error.to_string());
        }
        Ok(Err(error)) => return outcome(CheckCode::L4Con, Some(false), &error.to_string()),
        Ok(Ok(stream)) => stream,
    };
    match &key.check.kind {
        CheckKind::Tcp => {
            // A reset instead of a FIN: thousands of probes leave no TIME_WAIT behind.
            let _ = stream.set_zero_linger();
            outcome(CheckCode::L4Ok, Some(true), "connected")
        }
        CheckKind::Http { method, path, host, status } => {
            let host = host.clone().unwrap_or_else(|| address.to_string());
            match timeout_at(deadline, ask(stream, method, path, &host)).await {
                Err(_) => outcome(CheckCode::L7Tout, Some(false), "connected, but no answer"),
                Ok(Err(error)) => outcome(CheckCode::L7Rsp, Some(false), &error.to_string()),
                Ok(Ok((code, reason))) => {
                    let good = status.iter().any(|(from, to)| (*from..=*to).contains(&code));
                    let check = if good { CheckCode::L7Ok } else { CheckCode::L7Sts };
                    outcome(check, Some(good), format!("{code} {reason}").trim_end())
                }
            }
        }
    }
}

/// Sends the request and reads the head of the answer; the body is nobody's business.
async fn ask(
    stream: TcpStream,
    method: &str,
    path: &str,
    host: &str,
) -> anyhow::Result<(u16, String)> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEADERS).handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::from_bytes(method.as_bytes())?)
        .uri(path)
        .header(hyper::header::HOST, host)
        .header(hyper::header::USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await;
    connection.abort();
    let status = answer?.status();
    Ok((status.as_u16(), status.canonical_reason().unwrap_or_default().to_owned()))
}

fn own_fault(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::EADDRNOTAVAIL
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EAGAIN
        )
    )
}

fn printable(text: &str) -> String {
    let mut printable: String =
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    while printable.len() > OUTPUT {
        printable.pop();
    }
    printable
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::config::model::{Check, InitState, Timing};

    fn key(port: u16, kind: CheckKind, milliseconds: u64) -> TargetKey {
        TargetKey {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            port,
            check: Check { kind, port: None },
            timing: Timing {
                inter: Duration::from_secs(1),
                fastinter: Duration::from_secs(1),
                downinter: Duration::from_secs(1),
                rise: 1,
                fall: 1,
                timeout: Duration::from_millis(milliseconds),
                init_state: InitState::Down,
            },
        }
    }

    fn http() -> CheckKind {
        CheckKind::Http {
            method: "GET".to_owned(),
            path: "/healthz".to_owned(),
            host: None,
            status: vec![(200, 299)],
        }
    }

    async fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0u8; 1024];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer).await;
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn tells_good_from_bad() {
        let cases: [(&[u8], CheckCode, Option<bool>); 5] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", CheckCode::L7Ok, Some(true)),
            (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", CheckCode::L7Sts, Some(false)),
            (b"HTTP/1.1 301 Moved\r\nlocation: /x\r\n\r\n", CheckCode::L7Sts, Some(false)),
            (b"SSH-2.0-OpenSSH\r\n", CheckCode::L7Rsp, Some(false)),
            (b"", CheckCode::L7Tout, Some(false)),
        ];
        for (answer, code, good) in cases {
            let port = answering(answer).await;
            let outcome = probe(&key(port, http(), 500)).await;
            assert_eq!((outcome.code, outcome.good), (code, good), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn refused_is_known_at_once_and_tcp_needs_no_answer() {
        let port = answering(b"").await;
        assert_eq!(probe(&key(port, CheckKind::Tcp, 500)).await.code, CheckCode::L4Ok);
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        assert_eq!(probe(&key(closed, CheckKind::Tcp, 60_000)).await.code, CheckCode::L4Con);
    }

    #[test]
    fn output_is_harmless() {
        assert_eq!(printable("a\n\x1b[31mb"), "a??[31mb");
        assert!(printable(&"ü".repeat(1000)).len() <= OUTPUT);
    }
}
