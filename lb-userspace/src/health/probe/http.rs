//! The question by HTTP: does the answer have one of the status codes wanted?
//!
//! The answer's head decides. Redirects are not followed, a head may have 64 KiB, and of a body no more than that is
//! read and thrown away.

use std::{error::Error as _, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    CheckCode, Outcome,
    expect::{LIMIT, found},
    http2,
};
use crate::config::model::{Expect, Http, HttpVersion};

/// How long an answer's body is waited for, so that a server with a short one sees an orderly end and not a reset.
const LINGER: Duration = Duration::from_millis(50);

/// By which a backend sets its weight, as Google's load balancers have it.
const WEIGHT_HEADER: &str = "x-load-balancing-endpoint-weight";

/// Asks over a fresh connection; the verdict comes by `deadline`.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (address, http): (SocketAddr, &Http),
    began: Instant,
    deadline: Instant,
) -> Outcome {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    let question = Question { address, http, began, deadline };
    let request = match question.request() {
        Ok(request) => request,
        // The configuration's rules keep this from happening; if it does, the backend is not to blame.
        Err(error) => {
            return outcome(CheckCode::SockErr, &format!("cannot write the request: {error}"));
        }
    };
    let late = |_| outcome(CheckCode::L7Tout, "connected, but no complete answer in time");
    let broken = |error: &hyper::Error| outcome(CheckCode::L7Rsp, &describe(error));
    // The connection is driven here and not in a task of its own: whatever happens, it ends with the probe.
    match http.version {
        HttpVersion::H1 => {
            let stream = TokioIo::new(stream);
            let shaken = http1::Builder::new().max_buf_size(LIMIT).handshake(stream).await;
            match shaken {
                Ok((mut sender, connection)) => {
                    question.judge(sender.send_request(request), connection).await
                }
                Err(error) => broken(&error),
            }
        }
        HttpVersion::H2 => match timeout_at(deadline, http2::begin(stream)).await {
            Ok(Ok((mut sender, connection, _running))) => {
                question.judge(sender.send_request(request), connection).await
            }
            Ok(Err(error)) => broken(&error),
            Err(over) => late(over),
        },
    }
}

/// What to ask and what to expect.
struct Question<'a> {
    /// The backend.
    address: SocketAddr,
    http: &'a Http,
    began: Instant,
    deadline: Instant,
}

impl Question<'_> {
    fn request(&self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let Http { method, path, host, headers, version, tls, .. } = self.http;
        let host = host.clone().unwrap_or_else(|| self.address.to_string());
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = Request::builder().method(method);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(USER_AGENT.as_str())) {
            request = request.header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")));
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        match version {
            HttpVersion::H1 => {
                request = request.uri(path).header(HOST, host).header(CONNECTION, "close");
            }
            HttpVersion::H2 => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                request = request.uri(format!("{scheme}://{host}{path}"));
            }
        }
        request.body(Full::default())
    }

    /// Waits for the answer, with `connection` driven along, and looks at it.
    async fn judge<E>(
        &self,
        answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
        connection: impl Future<Output = Result<(), E>>,
    ) -> Outcome {
        let outcome = |code, output: &str| Outcome::new(code, output, self.began.elapsed());
        tokio::pin!(connection);
        tokio::pin!(answer);
        let mut open = true;
        let head = async {
            tokio::select! {
                biased;
                answer = &mut answer => answer,
                // The connection has ended, and has left its reason with the answer.
                _ = &mut connection => {
                    open = false;
                    answer.await
                }
            }
        };
        let answer = match timeout_at(self.deadline, head).await {
            Err(_) => {
                return outcome(CheckCode::L7Tout, "connected, but no complete answer in time");
            }
            Ok(Err(error)) => return outcome(CheckCode::L7Rsp, &describe(&error)),
            Ok(Ok(answer)) => answer,
        };
        let words = words(answer.status());
        let status = answer.status().as_u16();
        let good = self.http.status.iter().any(|(from, to)| (*from..=*to).contains(&status));
        if !good {
            let outcome = outcome(CheckCode::L7Sts, &words);
            self.linger(answer, connection, open).await;
            return outcome;
        }
        let (weight, note) = self.weight(&answer);
        let expect = &self.http.expect;
        if !expect.is_empty() {
            let body = async {
                let body = read_body(answer, expect);
                tokio::pin!(body);
                tokio::select! {
                    biased;
                    body = &mut body => body,
                    // The connection has ended, and has left what it has read.
                    _ = &mut connection, if open => body.await,
                }
            };
            return match timeout_at(self.deadline, body).await {
                Err(_) => {
                    outcome(CheckCode::L7Tout, &format!("{words}, but no whole body in time"))
                }
                Ok(body) if found(&body, expect) => Outcome {
                    weight_percent: weight,
                    ..outcome(CheckCode::L7Ok, &format!("{words}{note}"))
                },
                Ok(_) => {
                    outcome(CheckCode::L7Rsp, &format!("{words}, but the body is not as expected"))
                }
            };
        }
        let outcome = Outcome {
            weight_percent: weight,
            ..outcome(CheckCode::L7Ok, &format!("{words}{note}"))
        };
        self.linger(answer, connection, open).await;
        outcome
    }

    /// Reads what is left for a while. The verdict stands, whether the body ends or not.
    async fn linger(&self, answer: Response<Incoming>, connection: impl Future, open: bool) {
        let end = self.deadline.min(Instant::now() + LINGER);
        let rest = async {
            tokio::select! {
                _ = read_body(answer, &[]) => {}
                _ = connection, if open => {}
            }
        };
        let _ = timeout_at(end, rest).await;
    }

    /// The weight that the backend asks for, and a word about it for people.
    fn weight(&self, answer: &Response<Incoming>) -> (Option<u8>, String) {
        if !self.http.weight_header {
            return (None, String::new());
        }
        let Some(value) = answer.headers().get(WEIGHT_HEADER) else {
            return (Some(100), String::new());
        };
        match value.to_str().ok().and_then(|text| text.trim().parse::<u8>().ok()) {
            Some(percent @ 0..=100) => (Some(percent), format!(", weight {percent}%")),
            _ => (None, format!(", {WEIGHT_HEADER} is no number from 0 to 100: ignored")),
        }
    }
}

/// Reads the body to its end, to the limit, or until it holds the text; returns it if something is expected. An expression
/// is tried on the whole, since more text may end a match.
async fn read_body(answer: Response<Incoming>, expect: &[Expect]) -> Vec<u8> {
    let mut body = answer.into_body();
    let texts_alone = expect.iter().all(|one| matches!(one, Expect::Text(_)));
    let (mut read, mut kept) = (0, Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        if !expect.is_empty() {
            kept.extend_from_slice(data);
            if texts_alone && found(&kept, expect) {
                break;
            }
        }
        if read > LIMIT {
            break;
        }
    }
    kept
}

/// The code with its standard words; the backend's own words are nobody's business.
fn words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// What went wrong, for people.
pub(super) fn describe(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        "the answer's head is longer than 64 KiB".to_owned()
    } else if error.is_parse() {
        "the answer is not HTTP".to_owned()
    } else if error.is_incomplete_message() {
        "the connection was closed in the middle of the answer".to_owned()
    } else {
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }
}
