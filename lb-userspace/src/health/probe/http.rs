//! The HTTP/1.1 question: does the answer have one of the status codes wanted?
//!
//! The answer's head decides. Redirects are not followed, a head may have 64 KiB, and of a body no more than that is
//! read and thrown away.

use std::{error::Error as _, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
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

use super::{CheckCode, LIMIT, Outcome, contains};

/// How long an answer's body is waited for, so that a server with a short one sees an orderly end and not a reset.
const LINGER: Duration = Duration::from_millis(50);

/// What to ask and what to expect.
pub(super) struct Question<'a> {
    /// The backend.
    pub(super) address: SocketAddr,
    /// The method.
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) path: &'a str,
    /// `Host`; `None` = the backend's address and port.
    pub(super) host: Option<&'a str>,
    /// Inclusive ranges of good codes.
    pub(super) status: &'a [(u16, u16)],
    /// What has to be in the body; `None` = the head decides.
    pub(super) expect: Option<&'a str>,
}

/// Asks over a fresh connection; the verdict comes by `deadline`.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    question: Question<'_>,
    began: Instant,
    deadline: Instant,
) -> Outcome {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    let request = match question.request() {
        Ok(request) => request,
        // The configuration's rules keep this from happening; if it does, the backend is not to blame.
        Err(error) => {
            return outcome(CheckCode::SockErr, &format!("cannot write the request: {error}"));
        }
    };
    let shaken = http1::Builder::new().max_buf_size(LIMIT).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => return outcome(CheckCode::L7Rsp, &describe(&error)),
    };
    // Driven here and not in a task of its own: whatever happens, the connection ends with the probe.
    tokio::pin!(connection);
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let head = async {
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The connection has ended, and has left its reason with the answer.
            _ = &mut connection => answer.await,
        }
    };
    match timeout_at(deadline, head).await {
        Err(_) => outcome(CheckCode::L7Tout, "connected, but no complete answer in time"),
        Ok(Err(error)) => outcome(CheckCode::L7Rsp, &describe(&error)),
        Ok(Ok(answer)) => {
            let (code, words) = (question.judge(answer.status()), words(answer.status()));
            if let (CheckCode::L7Ok, Some(text)) = (code, question.expect) {
                let body = async {
                    let body = read_body(answer, Some(text));
                    tokio::pin!(body);
                    tokio::select! {
                        biased;
                        body = &mut body => body,
                        // The connection has ended, and has left what it has read.
                        _ = &mut connection => body.await,
                    }
                };
                return match timeout_at(deadline, body).await {
                    Err(_) => {
                        outcome(CheckCode::L7Tout, &format!("{words}, but no whole body in time"))
                    }
                    Ok(body) if contains(&body, text) => outcome(CheckCode::L7Ok, &words),
                    Ok(_) => outcome(
                        CheckCode::L7Rsp,
                        &format!("{words}, but the body is not as expected"),
                    ),
                };
            }
            let outcome = outcome(code, &words);
            let end = deadline.min(Instant::now() + LINGER);
            let rest = async {
                tokio::select! {
                    _ = read_body(answer, None) => {}
                    _ = connection => {}
                }
            };
            // The verdict stands, whether the body ends or not.
            let _ = timeout_at(end, rest).await;
            outcome
        }
    }
}

impl Question<'_> {
    fn request(&self) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
        let host = self.host.map_or_else(|| self.address.to_string(), str::to_owned);
        Request::builder()
            .method(Method::from_bytes(self.method.as_bytes())?)
            .uri(self.path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .body(Empty::new())
    }

    fn judge(&self, status: StatusCode) -> CheckCode {
        let good = self.status.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16()));
        if good { CheckCode::L7Ok } else { CheckCode::L7Sts }
    }
}

/// Reads the body to its end, to the limit, or until it holds the text; returns it if there is a text.
async fn read_body(answer: Response<Incoming>, text: Option<&str>) -> Vec<u8> {
    let mut body = answer.into_body();
    let (mut read, mut kept) = (0, Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        if let Some(text) = text {
            kept.extend_from_slice(data);
            if contains(&kept, text) {
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

fn describe(error: &hyper::Error) -> String {
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
