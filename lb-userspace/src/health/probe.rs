//! One probe: connect, maybe ask, and say what it was in HAProxy's codes.

mod database;
mod dns;
mod exec;
mod expect;
mod grpc;
mod http;
mod http2;
mod icmp;
mod road;
mod stream;
mod talk;
mod tls;
mod udp;
mod vip;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use self::{road::Road, stream::Stream, tls::Alpn};
use super::{CheckCode, Outcome, TargetKey};
use crate::{
    config::model::{CheckKind, DnsTransport, HttpVersion, Tls, Via},
    net::Snapshot,
};

/// What is known of the network; only `via: vip` asks.
pub(super) type Network = watch::Receiver<Arc<Snapshot>>;

/// Probes once. The timeout covers everything the verdict needs.
pub(super) async fn probe(key: &TargetKey, network: &Network) -> Outcome {
    let began = Instant::now();
    let address = SocketAddr::new(key.address, key.port);
    let served = key.served.as_ref().filter(|_| key.check.via == Via::Vip);
    let vip = served.map(|served| (served, network.borrow().clone()));
    let turn = Turn {
        key,
        address,
        road: Road { address, source: key.check.source, vip },
        began,
        deadline: began + key.timing.timeout,
    };
    match turn.ask().await {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

/// One probe's turn.
struct Turn<'a> {
    key: &'a TargetKey,
    address: SocketAddr,
    road: Road<'a>,
    began: Instant,
    deadline: Instant,
}

impl Turn<'_> {
    /// Asks as the check wants it; a failure on the way there is an outcome, too.
    async fn ask(&self) -> Result<Outcome, Outcome> {
        let Self { key, address, began, deadline, .. } = *self;
        Ok(match &key.check.kind {
            CheckKind::Tcp { send: None, expect } if expect.is_empty() => {
                let stream = self.connect().await?;
                let outcome = self.outcome(CheckCode::L4Ok, "connected");
                stream.end_by_reset();
                outcome
            }
            CheckKind::Tcp { send, expect } => {
                let stream = self.connect().await?;
                talk::ask(stream, send.as_deref(), expect, began, deadline).await
            }
            CheckKind::Tls(tls) => {
                let stream = self.secure(tls, Alpn::None).await?;
                let (stream, connection) = stream.get_ref();
                let outcome = self.outcome(CheckCode::L6Ok, &tls::describe(connection));
                stream.end_by_reset();
                outcome
            }
            CheckKind::Http(http) => match &http.tls {
                None => http::ask(self.connect().await?, (address, http), began, deadline).await,
                Some(tls) => {
                    let alpn = if http.version == HttpVersion::H2 { Alpn::H2 } else { Alpn::None };
                    let stream = self.secure(tls, alpn).await?;
                    http::ask(stream, (address, http), began, deadline).await
                }
            },
            CheckKind::Grpc { service, tls: None } => {
                let stream = self.connect().await?;
                grpc::ask(stream, (address, service, "http"), began, deadline).await
            }
            CheckKind::Grpc { service, tls: Some(tls) } => {
                let stream = self.secure(tls, Alpn::H2).await?;
                grpc::ask(stream, (address, service, "https"), began, deadline).await
            }
            CheckKind::Icmp => icmp::ask(key.address, key.check.source, began, deadline).await,
            CheckKind::Udp { send, expect } => {
                udp::ask(&self.road, (send, expect), began, deadline).await
            }
            CheckKind::Dns(dns) => {
                let question = dns::Question::new(dns, began, deadline)?;
                match dns.transport {
                    DnsTransport::Udp => question.by_udp(&self.road).await,
                    DnsTransport::Tcp => question.by_tcp(self.connect().await?).await,
                }
            }
            CheckKind::Database(database) => {
                database::ask(self.connect().await?, database, began, deadline).await
            }
            CheckKind::Exec { command, arguments } => {
                let program = (command.as_path(), arguments.as_slice());
                exec::ask(program, address, key.served.as_ref(), began, deadline).await
            }
        })
    }

    async fn connect(&self) -> Result<Stream, Outcome> {
        match timeout_at(self.deadline, self.road.connect()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(trouble)) => Err(trouble.outcome(self.began)),
            Err(_) => {
                let text = format!("no connection within {:?}", self.key.timing.timeout);
                Err(self.outcome(CheckCode::L4Tout, &text))
            }
        }
    }

    /// Connects and speaks TLS.
    async fn secure(
        &self,
        tls: &Tls,
        alpn: Alpn,
    ) -> Result<tokio_rustls::client::TlsStream<Stream>, Outcome> {
        let stream = self.connect().await?;
        let stream =
            tls::handshake((stream, self.address), (tls, alpn), self.began, self.deadline).await?;
        if alpn == Alpn::H2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(self.outcome(CheckCode::L7Rsp, "the server does not speak HTTP/2 (ALPN)"));
        }
        Ok(stream)
    }

    fn outcome(&self, code: CheckCode, output: &str) -> Outcome {
        Outcome::new(code, output, self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Without a network that anybody asks.
    async fn probe(key: &TargetKey) -> Outcome {
        let (_, network) = watch::channel(Arc::default());
        super::probe(key, &network).await
    }

    use crate::config::model::{Check, Expect, Http, InitState, Timing, Verify};

    /// More than any answer takes on a busy machine.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(300);

    fn key(port: u16, kind: CheckKind, timeout: Duration) -> TargetKey {
        TargetKey {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            port,
            check: Check::direct(kind, None),
            served: None,
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
        CheckKind::Http(question(host))
    }

    fn question(host: Option<&str>) -> Http {
        Http {
            method: "GET".to_owned(),
            path: "/healthz?deep=1".to_owned(),
            host: host.map(str::to_owned),
            headers: vec![("X-Checked-By".to_owned(), "lb".to_owned())],
            version: HttpVersion::H1,
            status: vec![(200, 299), (401, 401)],
            expect: Vec::new(),
            weight_header: false,
            tls: None,
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
        assert_eq!(
            probe(&key(port, CheckKind::Tcp { send: None, expect: Vec::new() }, LONG)).await.code,
            CheckCode::L4Ok
        );
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        for kind in [CheckKind::Tcp { send: None, expect: Vec::new() }, http(None)] {
            let outcome = probe(&key(closed, kind, LONG)).await;
            assert_eq!(outcome.code, CheckCode::L4Con, "{outcome:?}");
            assert_eq!(outcome.output, "Connection refused");
        }
    }

    fn text(text: &str) -> Expect {
        Expect::Text(text.to_owned())
    }

    fn talking(send: Option<&str>, expect: Option<&str>) -> CheckKind {
        CheckKind::Tcp {
            send: send.map(str::to_owned),
            expect: expect.into_iter().map(text).collect(),
        }
    }

    #[tokio::test]
    async fn a_tcp_check_says_something_and_looks_for_an_answer() {
        let pong = server(b"+PONG\r\n", Then::Hang).await;
        let good = probe(&key(pong, talking(Some("PING\r\n"), Some("+PONG")), LONG)).await;
        assert_eq!((good.code, good.output.as_str()), (CheckCode::L7Ok, "+PONG"), "{good:?}");
        assert_eq!(probe(&key(pong, talking(Some("x"), None), LONG)).await.code, CheckCode::L7Ok);
        let late = probe(&key(pong, talking(Some("x"), Some("OK")), SHORT)).await;
        assert_eq!(late.code, CheckCode::L7Tout, "{late:?}");
        let wrong = server(b"-LOADING data\r\nmore", Then::Close).await;
        let bad = probe(&key(wrong, talking(Some("PING\r\n"), Some("+PONG")), LONG)).await;
        let expected = "not what is expected: -LOADING data";
        assert_eq!((bad.code, bad.output.as_str()), (CheckCode::L7Rsp, expected), "{bad:?}");
        let endless = server(b"", Then::Repeat(&[b'x'; 4096], Duration::ZERO)).await;
        let bad = probe(&key(endless, talking(Some("x"), Some("y")), LONG)).await;
        assert_eq!(bad.code, CheckCode::L7Rsp, "{bad:?}");
    }

    #[tokio::test]
    async fn an_http_body_has_to_hold_what_is_expected() {
        let wanting =
            |wanted: &str| CheckKind::Http(Http { expect: vec![text(wanted)], ..question(None) });
        let whole = server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready", Then::Close).await;
        let good = probe(&key(whole, wanting("ready"), LONG)).await;
        assert_eq!((good.code, good.output.as_str()), (CheckCode::L7Ok, "200 OK"));
        let bad = probe(&key(whole, wanting("never"), LONG)).await;
        assert_eq!(bad.code, CheckCode::L7Rsp, "{bad:?}");
        // What is expected may come before the end, and then the end does not matter.
        let part = server(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nready", Then::Hang).await;
        assert_eq!(probe(&key(part, wanting("ready"), LONG)).await.code, CheckCode::L7Ok);
        assert_eq!(probe(&key(part, wanting("never"), SHORT)).await.code, CheckCode::L7Tout);
        let sick = server(b"HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\nready", Then::Close).await;
        assert_eq!(probe(&key(sick, wanting("ready"), LONG)).await.code, CheckCode::L7Sts);
    }

    #[tokio::test]
    async fn an_expression_is_tried_on_the_whole_body() {
        let wanting = |regex: &str| {
            let expect = vec![Expect::Regex(regex.to_owned())];
            CheckKind::Http(Http { expect, ..question(None) })
        };
        let port =
            server(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nready 3", Then::Close).await;
        assert_eq!(probe(&key(port, wanting("^ready [0-9]$"), LONG)).await.code, CheckCode::L7Ok);
        assert_eq!(probe(&key(port, wanting("^ready$"), LONG)).await.code, CheckCode::L7Rsp);
    }

    #[tokio::test]
    async fn a_backend_sets_its_weight_only_if_it_may() {
        let asking = CheckKind::Http(Http { weight_header: true, ..question(None) });
        let cases: [(&'static [u8], Option<u8>, &str); 4] = [
            (b"40", Some(40), "200 OK, weight 40%"),
            (b" 0 ", Some(0), "200 OK, weight 0%"),
            (
                b"101",
                None,
                "200 OK, x-load-balancing-endpoint-weight is no number from 0 to 100: ignored",
            ),
            (
                b"",
                None,
                "200 OK, x-load-balancing-endpoint-weight is no number from 0 to 100: ignored",
            ),
        ];
        for (value, percent, output) in cases {
            let head = b"HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: ";
            let answer = [&head[..], value, b"\r\ncontent-length: 0\r\n\r\n"].concat().leak();
            let port = server(answer, Then::Close).await;
            let found = probe(&key(port, asking.clone(), LONG)).await;
            assert_eq!((found.weight_percent, found.output.as_str()), (percent, output));
            let unasked = probe(&key(port, http(None), LONG)).await;
            assert_eq!((unasked.weight_percent, unasked.output.as_str()), (None, "200 OK"));
        }
        let silent = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
        assert_eq!(probe(&key(silent, asking, LONG)).await.weight_percent, Some(100));
    }

    /// A TLS server with a certificate for `shop.example` that is valid for some days; answers HTTP. Its port, and the
    /// certificate as PEM.
    async fn tls_server(days: i64) -> (u16, String) {
        let mut parameters = rcgen::CertificateParams::new(vec!["shop.example".into()]).unwrap();
        // Whole days from now, and a bit that a slow test may use up.
        let end = std::time::SystemTime::now() + Duration::from_secs(3_600);
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = end.into();
        parameters.not_after = match days {
            0.. => parameters.not_after + Duration::from_secs(86_400 * days as u64),
            _ => rcgen::date_time_ymd(2021, 1, 1),
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let pem = certificate.pem();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let private = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    // The prober may have had enough.
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        (port, pem)
    }

    fn tls(verify: Verify, sni: Option<&str>, ca_file: Option<&std::path::Path>) -> Tls {
        Tls { sni: sni.map(str::to_owned), verify, ca_file: ca_file.map(Into::into) }
    }

    #[tokio::test]
    async fn a_certificate_is_judged_if_that_is_wanted_and_its_end_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let shop = Some("shop.example");
        let ask = async |port, tls: Tls| probe(&key(port, CheckKind::Tls(tls), LONG)).await;

        let (port, pem) = tls_server(20).await;
        std::fs::write(&file, &pem).unwrap();
        let anybody = ask(port, tls(Verify::None, None, None)).await;
        let expected = "TLSv1.3, certificate valid for 20 days";
        assert_eq!((anybody.code, anybody.output.as_str()), (CheckCode::L6Ok, expected));
        let good = ask(port, tls(Verify::Required, shop, Some(&file))).await;
        assert_eq!(good.code, CheckCode::L6Ok, "{good:?}");
        let other = ask(port, tls(Verify::Required, Some("other.example"), Some(&file))).await;
        assert_eq!(other.code, CheckCode::L6Rsp, "{other:?}");
        let unknown = ask(port, tls(Verify::Required, shop, None)).await;
        assert_ne!(unknown.code, CheckCode::L6Ok, "{unknown:?}");

        // The check's own fault is not the backend's.
        let missing = directory.path().join("missing.pem");
        let fault = ask(port, tls(Verify::Required, shop, Some(&missing))).await;
        assert_eq!((fault.code, fault.good), (CheckCode::SockErr, None), "{fault:?}");

        // Another server's certificate does not do, until the file names it.
        let (expired, pem) = tls_server(-1).await;
        let stranger = ask(expired, tls(Verify::Required, shop, Some(&file))).await;
        assert_eq!(stranger.code, CheckCode::L6Rsp, "{stranger:?}");
        let anybody = ask(expired, tls(Verify::None, None, None)).await;
        assert!(anybody.output.contains("certificate expired "), "{anybody:?}");
        std::fs::write(&file, &pem).unwrap();
        let bad = ask(expired, tls(Verify::Required, shop, Some(&file))).await;
        assert_eq!(bad.code, CheckCode::L6Rsp, "{bad:?}");
        assert!(bad.output.to_lowercase().contains("expired"), "{bad:?}");
    }

    #[tokio::test]
    async fn http_is_asked_over_tls_and_a_plain_server_does_not_speak_it() {
        let over_tls = || {
            let tls = Some(tls(Verify::None, None, None));
            CheckKind::Http(Http { tls, ..question(Some("shop.example")) })
        };
        let (port, _) = tls_server(1).await;
        let good = probe(&key(port, over_tls(), LONG)).await;
        assert_eq!((good.code, good.output.as_str()), (CheckCode::L7Ok, "200 OK"), "{good:?}");
        let plain = server(b"HTTP/1.1 400 Bad\r\n\r\n", Then::Close).await;
        let bad = probe(&key(plain, over_tls(), LONG)).await;
        assert_eq!((bad.code, bad.good), (CheckCode::L6Rsp, Some(false)), "{bad:?}");
        let silent = server(b"", Then::Hang).await;
        let late = probe(&key(silent, over_tls(), SHORT)).await;
        assert_eq!((late.code, late.good), (CheckCode::L6Tout, Some(false)), "{late:?}");
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
        let outcome =
            probe(&key(address.port(), CheckKind::Tcp { send: None, expect: Vec::new() }, SHORT))
                .await;
        assert_eq!((outcome.code, outcome.good), (CheckCode::L4Tout, Some(false)), "{outcome:?}");
    }

    #[tokio::test]
    async fn what_the_prober_s_own_kernel_refuses_is_not_the_backend_s_fault() {
        // A link-local address without an interface: refused before anything is sent.
        let mut key = key(80, CheckKind::Tcp { send: None, expect: Vec::new() }, LONG);
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
            assert!(request.contains("\r\nx-checked-by: lb\r\n"), "{request}");
            assert_eq!(probing.await.unwrap().code, CheckCode::L7Ok);
        }
    }
}
