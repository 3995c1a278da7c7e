//! One probe: connect, maybe ask, and say what it was in HAProxy's codes.

mod http;

use std::net::SocketAddr;

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{CheckCode, Outcome, TargetKey};
use crate::config::model::CheckKind;

/// Probes once. The timeout covers everything the verdict needs.
pub(super) async fn probe(key: &TargetKey) -> Outcome {
    let began = Instant::now();
    let deadline = began + key.timing.timeout;
    let address = SocketAddr::new(key.address, key.port);
    let stream = match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Outcome::connect_failed(&error, began.elapsed()),
        Err(_) => {
            let output = format!("no connection within {:?}", key.timing.timeout);
            return Outcome::new(CheckCode::L4Tout, &output, began.elapsed());
        }
    };
    match &key.check.kind {
        CheckKind::Tcp => {
            let outcome = Outcome::new(CheckCode::L4Ok, "connected", began.elapsed());
            // A reset instead of a FIN, as HAProxy does: nothing was sent, and thousands of probes leave no TIME_WAIT
            // behind. If it cannot be set, an ordinary close does.
            let _ = stream.set_zero_linger();
            outcome
        }
        CheckKind::Http { method, path, host, status } => {
            let host = host.as_deref();
            let question = http::Question { address, method, path, host, status };
            http::ask(stream, question, began, deadline).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::config::model::{Check, InitState, Timing};

    /// More than any answer takes on a busy machine.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(300);

    fn key(port: u16, kind: CheckKind, timeout: Duration) -> TargetKey {
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
                timeout,
                init_state: InitState::Down,
            },
        }
    }

    fn http(host: Option<&str>) -> CheckKind {
        CheckKind::Http {
            method: "GET".to_owned(),
            path: "/healthz?deep=1".to_owned(),
            host: host.map(str::to_owned),
            status: vec![(200, 299), (401, 401)],
        }
    }

    /// How a server goes on once it has read a request.
    #[derive(Clone, Copy, Debug)]
    enum Then {
        Close,
        Hang,
        /// Sends this again and again, with a pause.
        Repeat(&'static [u8], Duration),
    }

    async fn server(answer: &'static [u8], then: Then) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    // From here on the prober may have had enough.
                    let mut open = stream.write_all(answer).await.is_ok();
                    match then {
                        Then::Close => {}
                        Then::Hang => std::future::pending().await,
                        Then::Repeat(bytes, pause) => {
                            while open {
                                tokio::time::sleep(pause).await;
                                open = stream.write_all(bytes).await.is_ok();
                            }
                        }
                    }
                });
            }
        });
        port
    }

    /// The server's answer and what it does then; the finding, its worth, its words.
    type Case = (&'static [u8], Then, CheckCode, Option<bool>, &'static str);

    const DRIP: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn tells_good_from_bad() {
        let good = Some(true);
        let bad = Some(false);
        let lines = b"a: b\r\n".repeat(1024).leak();
        let cases: [Case; 11] = [
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
                Then::Close,
                CheckCode::L7Ok,
                good,
                "200 OK",
            ),
            (b"HTTP/1.0 204 Fine\r\n\r\n", Then::Close, CheckCode::L7Ok, good, "204 No Content"),
            (
                b"HTTP/1.1 401 Who\r\ncontent-length: 0\r\n\r\n",
                Then::Hang,
                CheckCode::L7Ok,
                good,
                "401 Unauthorized",
            ),
            (
                b"HTTP/1.1 500 Bad\r\ncontent-length: 0\r\n\r\n",
                Then::Close,
                CheckCode::L7Sts,
                bad,
                "500 Internal Server Error",
            ),
            (
                b"HTTP/1.1 301 Moved\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
                Then::Hang,
                CheckCode::L7Sts,
                bad,
                "301 Moved Permanently",
            ),
            // The head decides, whatever becomes of the body.
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n",
                Then::Hang,
                CheckCode::L7Ok,
                good,
                "200 OK",
            ),
            (
                b"HTTP/1.1 200 OK\r\n\r\n",
                Then::Repeat(&[b'x'; 4096], Duration::ZERO),
                CheckCode::L7Ok,
                good,
                "200 OK",
            ),
            (b"SSH-2.0-OpenSSH\r\n", Then::Hang, CheckCode::L7Rsp, bad, "the answer is not HTTP"),
            (
                b"HTTP/1.1 200 OK\r\ncont",
                Then::Close,
                CheckCode::L7Rsp,
                bad,
                "the connection was closed in the middle of the answer",
            ),
            (
                b"HTTP/1.1 200 OK\r\nx: ",
                Then::Repeat(&[b'x'; 1024], Duration::ZERO),
                CheckCode::L7Rsp,
                bad,
                "the answer's head is longer than 64 KiB",
            ),
            (
                b"HTTP/1.1 200 OK\r\n",
                Then::Repeat(lines, Duration::ZERO),
                CheckCode::L7Rsp,
                bad,
                "the answer's head is longer than 64 KiB",
            ),
        ];
        for (answer, then, code, good, output) in cases {
            let port = server(answer, then).await;
            let outcome = probe(&key(port, http(None), LONG)).await;
            let seen = (outcome.code, outcome.good, outcome.output.as_str());
            assert_eq!(
                seen,
                (code, good, output),
                "{then:?} after {:?}",
                answer.escape_ascii().to_string()
            );
        }
    }

    #[tokio::test]
    async fn a_backend_that_hangs_or_drips_gets_no_more_than_its_time() {
        for (answer, then) in [
            (&b""[..], Then::Hang),
            (b"HTTP/1.1 200 OK\r\nx: ", Then::Repeat(b"x", DRIP)),
            (
                b"HTTP/1.1 100 Continue\r\n\r\n",
                Then::Repeat(b"HTTP/1.1 100 Continue\r\n\r\n", DRIP),
            ),
        ] {
            let port = server(answer, then).await;
            let outcome = probe(&key(port, http(None), SHORT)).await;
            assert_eq!(
                (outcome.code, outcome.good),
                (CheckCode::L7Tout, Some(false)),
                "{outcome:?}"
            );
            assert!(outcome.duration >= SHORT, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn refused_is_known_at_once_and_tcp_needs_no_answer() {
        let port = server(b"", Then::Hang).await;
        assert_eq!(probe(&key(port, CheckKind::Tcp, LONG)).await.code, CheckCode::L4Ok);
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        for kind in [CheckKind::Tcp, http(None)] {
            let outcome = probe(&key(closed, kind, LONG)).await;
            assert_eq!(outcome.code, CheckCode::L4Con, "{outcome:?}");
            assert_eq!(outcome.output, "Connection refused");
        }
    }

    /// A listener whose queue is full does not answer a connection request.
    #[tokio::test]
    async fn no_answer_to_the_connection_request_is_a_timeout_of_layer_4() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(connected) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 100, "the queue never fills");
        }
        let outcome = probe(&key(address.port(), CheckKind::Tcp, SHORT)).await;
        assert_eq!((outcome.code, outcome.good), (CheckCode::L4Tout, Some(false)), "{outcome:?}");
    }

    #[tokio::test]
    async fn what_the_prober_s_own_kernel_refuses_is_not_the_backend_s_fault() {
        // A link-local address without an interface: refused before anything is sent.
        let mut key = key(80, CheckKind::Tcp, LONG);
        key.address = "fe80::1".parse().unwrap();
        let outcome = probe(&key).await;
        assert_eq!((outcome.code, outcome.good), (CheckCode::SockErr, None), "{outcome:?}");
    }

    #[tokio::test]
    async fn the_request_is_as_configured() {
        for (host, expected) in
            [(Some("shop.example"), "shop.example".to_owned()), (None, String::new())]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let key = key(address.port(), http(host), LONG);
            let probing = tokio::spawn(async move { probe(&key).await });
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "closed: {request:?}");
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let request = String::from_utf8(request).unwrap().to_lowercase();
            assert!(request.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{request}");
            let expected = if expected.is_empty() { address.to_string() } else { expected };
            assert!(request.contains(&format!("\r\nhost: {expected}\r\n")), "{request}");
            assert!(request.contains("\r\nconnection: close\r\n"), "{request}");
            assert_eq!(probing.await.unwrap().code, CheckCode::L7Ok);
        }
    }
}
