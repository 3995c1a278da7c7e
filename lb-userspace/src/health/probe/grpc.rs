//! The gRPC health service (grpc.health.v1.Health/Check): two messages of one field each, over hyper's HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{CheckCode, Outcome, expect::LIMIT, http, http2};

/// Asks over a fresh connection; the verdict comes by `deadline`.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (address, service, scheme): (SocketAddr, &str, &str),
    began: Instant,
    deadline: Instant,
) -> Outcome {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    let request = match request(address, service, scheme) {
        Ok(request) => request,
        // Configured names fit; if one does not, the backend is not to blame.
        Err(error) => {
            return outcome(CheckCode::SockErr, &format!("cannot write the request: {error}"));
        }
    };
    let asking = async {
        let (mut sender, connection, _running) = http2::begin(stream).await?;
        tokio::pin!(connection);
        let answer = async { read(sender.send_request(request).await?).await };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The connection has ended, and has left its reason with the answer.
            _ = &mut connection => answer.await,
        }
    };
    match timeout_at(deadline, asking).await {
        Err(_) => outcome(CheckCode::L7Tout, "connected, but no complete answer in time"),
        Ok(Err(error)) => outcome(CheckCode::L7Rsp, &http::describe(&error)),
        Ok(Ok(answer)) => {
            let (code, words) = answer.judge();
            outcome(code, &words)
        }
    }
}

fn request(
    address: SocketAddr,
    service: &str,
    scheme: &str,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(message(service)))
}

/// `HealthCheckRequest{service}` as protobuf, behind gRPC's flag and length.
fn message(service: &str) -> Bytes {
    // Names of services are short enough for a length of one byte.
    let name = &service.as_bytes()[..service.len().min(127)];
    let field = match name {
        [] => Vec::new(),
        name => [&[0x0a, name.len() as u8], name].concat(),
    };
    [&[0][..], &(field.len() as u32).to_be_bytes(), &field].concat().into()
}

/// What came.
struct Answer {
    http: u16,
    body: Vec<u8>,
    /// Of the head and of what came behind the body.
    headers: HeaderMap,
}

async fn read(answer: Response<Incoming>) -> hyper::Result<Answer> {
    let (head, mut rest) = answer.into_parts();
    let mut answer = Answer { http: head.status.as_u16(), body: Vec::new(), headers: head.headers };
    while let Some(frame) = rest.frame().await {
        match frame?.into_data() {
            Ok(data) if answer.body.len() + data.len() <= LIMIT => {
                answer.body.extend_from_slice(&data);
            }
            Ok(_) => break,
            Err(frame) => answer.headers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok(answer)
}

impl Answer {
    fn judge(&self) -> (CheckCode, String) {
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        match header("grpc-status") {
            None if self.http != 200 => (CheckCode::L7Sts, format!("HTTP {}", self.http)),
            None => (CheckCode::L7Rsp, "the answer is not gRPC".to_owned()),
            Some("0") => match status(&self.body) {
                Some(1) => (CheckCode::L7Ok, "SERVING".to_owned()),
                Some(0) => (CheckCode::L7Sts, "UNKNOWN".to_owned()),
                Some(2) => (CheckCode::L7Sts, "NOT_SERVING".to_owned()),
                Some(3) => (CheckCode::L7Sts, "SERVICE_UNKNOWN".to_owned()),
                Some(other) => (CheckCode::L7Sts, format!("status {other}")),
                None => (CheckCode::L7Rsp, "the answer is no HealthCheckResponse".to_owned()),
            },
            Some(code) => {
                let words = header("grpc-message").unwrap_or_default();
                (CheckCode::L7Sts, format!("grpc-status {code} {}: {words}", name(code)))
            }
        }
    }
}

/// `HealthCheckResponse.status`: field 1, a number; 0 if it is left out. `None` = no such message.
fn status(body: &[u8]) -> Option<u64> {
    // Not compressed, as we have not offered that.
    let [0, a, b, c, d, message @ ..] = body else { return None };
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    match message.get(..length)? {
        [] => Some(0),
        [0x08, number] if *number < 0x80 => Some(u64::from(*number)),
        _ => None,
    }
}

/// The word for a code of gRPC.
fn name(code: &str) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    code.parse().ok().and_then(|code: usize| NAMES.get(code).copied()).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protobuf_in_grpc_s_frame() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn answers_are_judged_by_status_and_body() {
        let judge = |http, grpc: Option<&str>, body: &[u8]| {
            let mut headers = HeaderMap::new();
            if let Some(grpc) = grpc {
                headers.insert("grpc-status", grpc.parse().unwrap());
            }
            let (code, words) = Answer { http, body: body.to_vec(), headers }.judge();
            format!("{code} {words}")
        };
        assert_eq!(judge(200, Some("0"), &[0, 0, 0, 0, 2, 8, 1]), "L7OK SERVING");
        assert_eq!(judge(200, Some("0"), &[0, 0, 0, 0, 2, 8, 2]), "L7STS NOT_SERVING");
        assert_eq!(judge(200, Some("0"), &[0, 0, 0, 0, 0]), "L7STS UNKNOWN");
        assert!(judge(200, Some("0"), &[0, 0, 0, 0, 9, 8, 1]).starts_with("L7RSP"), "cut short");
        assert!(judge(200, Some("0"), &[1, 0, 0, 0, 2, 8, 1]).starts_with("L7RSP"), "compressed");
        assert_eq!(judge(200, Some("12"), &[]), "L7STS grpc-status 12 UNIMPLEMENTED: ");
        assert_eq!(judge(404, None, &[]), "L7STS HTTP 404");
        assert_eq!(judge(200, None, &[]), "L7RSP the answer is not gRPC");
    }
}
