//! Server and client against a controller made of fixed answers.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use super::*;
use crate::{
    api::{
        Change,
        client::{Client, ClientError},
        types::{
            Applied, Apply, Done, Draft, Events, Failure, FailureKind, LogLevel, Lookup,
            PacketVerdict, Plan, RevisionText, SetBackend, Stats, Status, Why, WhyService,
        },
    },
    capture::stream::{End, Record, encode},
    config::model::Protocol,
    control::dry_run::Question,
};

struct Fixture {
    server: ServerHandle,
    socket: PathBuf,
    client: Client,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb.sock");
    let (commands, inbox) = mpsc::channel(8);
    tokio::spawn(controller(inbox));
    let server = serve(&socket, None, &GroupLevel::new(true), commands).unwrap();
    Fixture { server, client: Client::new(&socket), socket, _dir: dir }
}

async fn controller(mut inbox: mpsc::Receiver<Command>) {
    while let Some(command) = inbox.recv().await {
        let done = |line: String| Ok(Done { changes: vec![line] });
        match command {
            Command::Status(answer) => {
                drop(answer.send(Ok(Status { pid: 7, ..Status::default() })));
            }
            Command::Stats(answer) => drop(answer.send(Ok(Stats::default()))),
            Command::Lookup { question, reply } => {
                let Question { source, destination, protocol, .. } = question;
                let why = format!("{source} {destination} {}", protocol.name());
                drop(reply.send(Ok(Lookup { why, ..Lookup::default() })));
            }
            Command::Capture { wanted, reply, .. } => {
                let (out, stream) = mpsc::channel(1);
                let why = format!("{} {} {:?}", wanted.snaplen, wanted.rate, wanted.time);
                let end = Record::End(End { why, ..End::default() });
                out.send(encode(&end, [b"", b""])).await.unwrap();
                drop(reply.send(Ok(stream)));
            }
            Command::Replay { batch, reply } => {
                let verdict = |frame: &bytes::Bytes| PacketVerdict {
                    verdict: String::from_utf8_lossy(frame).into_owned(),
                    reason: format!("{:?} {:?}", batch.interface, batch.down),
                    ..PacketVerdict::default()
                };
                drop(reply.send(Ok(batch.frames.iter().map(verdict).collect())));
            }
            Command::Why { service, reply } => {
                let service = WhyService { name: format!("{service:?}"), ..WhyService::default() };
                drop(reply.send(Ok(Why { services: vec![service], node: vec![] })));
            }
            Command::Events { after, limit, reply } => {
                let events = Events { last: after, lost: limit as u64, events: vec![] };
                drop(reply.send(Ok(events)));
            }
            Command::Log { level, peer, reply } => {
                drop(reply.send(done(format!("{} {peer}", level.filter))));
            }
            Command::SetNode { set, peer, reply } => {
                drop(reply.send(done(format!("{} {peer}", set.drain))));
            }
            Command::Plan { draft, reply } => {
                drop(reply.send(Ok(Plan { node: vec![draft.path, draft.text], services: vec![] })));
            }
            Command::SetBackend { service, backend, set, peer: _, reply } => {
                let answer = match service.as_str() {
                    "web" => done(format!("{backend} {:?} {:?}", set.admin, set.weight)),
                    _ => Err(Failure::unknown("service", &service, ["web"])),
                };
                drop(reply.send(answer));
            }
            Command::Reload { peer: _, reply: answer } => {
                let failure = Failure::new(FailureKind::Configuration, "lb.yaml:1:1: no");
                drop(answer.send(Err(failure)));
            }
            Command::Change(Change::Revision { number, reply }) => {
                let text = format!("{number:?}");
                drop(reply.send(Ok(RevisionText { text, ..RevisionText::default() })));
            }
            Command::Change(Change::Apply { apply, reply, .. }) => {
                let changes = vec![apply.path, apply.text];
                drop(reply.send(Ok(Applied { changes, ..Applied::default() })));
            }
            // A controller that ends without an answer.
            Command::Change(change) => drop(change),
            Command::Measures(answer) => drop(answer),
            Command::Detach(answer) => drop(answer),
        }
    }
}

/// Sends bytes as they are and returns all that comes back.
async fn raw(socket: &Path, request: Vec<u8>) -> String {
    let socket = socket.to_owned();
    let exchange = move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        // The server may have answered and closed before it has read everything.
        let _ = stream.write_all(&request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Failure {
    match result {
        Err(ClientError::Refused(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn configurations_are_applied_and_read_back() {
    let Fixture { server, client, socket, _dir } = fixture();
    let apply = Apply { path: "a.yaml".into(), text: "b: 1".into(), confirm_seconds: Some(60) };
    assert_eq!(client.apply(&apply).await.unwrap().changes, ["a.yaml", "b: 1"]);
    assert_eq!(client.revision(Some(12)).await.unwrap().text, "Some(12)");
    assert_eq!(client.revision(None).await.unwrap().text, "None");
    let answer = raw(&socket, b"GET /v1/revisions/x HTTP/1.1\r\nhost: lb\r\n\r\n".to_vec()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("`x` is no revision"),
        "{answer}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn every_request_reaches_the_controller_and_comes_back() {
    let Fixture { client, server: _server, _dir, .. } = fixture();
    assert_eq!(client.status().await.unwrap().pid, 7);
    assert!(client.stats().await.unwrap().services.is_empty());
    let (source, vip) = ("[2001:db8::1]:1234", "[2001:db8::80]:443");
    let lookup =
        client.lookup(source.parse().unwrap(), vip.parse().unwrap(), Protocol::Udp, &[]).await;
    assert_eq!(lookup.unwrap().why, format!("{source} {vip} udp"));
    let why = client.why(Some("192.0.2.1:80")).await.unwrap();
    assert_eq!(why.services[0].name, "Some(\"192.0.2.1:80\")");
    assert_eq!(client.why(None).await.unwrap().services[0].name, "None");
    let events = client.events(7, 9).await.unwrap();
    assert_eq!((events.last, events.lost), (7, 9));
    let level = LogLevel { filter: "debug".into() };
    let me = std::process::id();
    assert!(client.log(&level).await.unwrap().changes[0].ends_with(&format!("(process {me})")));
    let draft = Draft { path: "a.yaml".into(), text: "x".repeat(2 << 20) };
    assert_eq!(client.plan(&draft).await.unwrap().node, [draft.path, draft.text]);
    let set = SetBackend { admin: Some("drain".into()), weight: Some(256) };
    let done = client.set_backend("web", "w 1/x", &set).await.unwrap();
    assert_eq!(done.changes, ["w 1/x Some(\"drain\") Some(256)"]);
}

#[tokio::test]
async fn failures_keep_their_kind_and_words() {
    let Fixture { client, server: _server, _dir, .. } = fixture();
    let set = SetBackend { admin: Some("maint".into()), weight: None };
    let failure = refusal(client.set_backend("wbe", "w1", &set).await);
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.error.contains("did you mean `web`?"), "{failure}");
    assert_eq!(refusal(client.reload().await).kind, FailureKind::Configuration);
    assert_eq!(refusal(client.detach().await).kind, FailureKind::Unavailable);
    for (set, word) in [
        (SetBackend { admin: Some("off".into()), weight: None }, "one of ready, drain, maint"),
        (SetBackend { admin: None, weight: Some(257) }, "0..=256"),
        (SetBackend::default(), "nothing to set"),
    ] {
        let failure = refusal(client.set_backend("web", "w1", &set).await);
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.error.contains(word), "{failure}");
    }
    let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
    let failure = refusal(client.lookup(v4, v6, Protocol::Tcp, &[]).await);
    assert!(failure.error.contains("address family"), "{failure}");
}

#[tokio::test]
async fn bad_requests_get_an_answer_and_are_closed() {
    let Fixture { socket, client, server: _server, _dir } = fixture();
    let post = |body: &str| {
        format!(
            "POST /v1/backends/web/w1 HTTP/1.1\r\nHost: lb\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let oversized = post(&" ".repeat(MAX_BODY + 1));
    let long_head = format!("GET /v1/status HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: lb\r\n\r\n");
    for (request, status, words) in [
        ("\x16\x03\x01garbage\r\n\r\n".to_owned(), "400", ""),
        (post("{\"weight\":1,\"wait\":2}"), "400", "unknown field `wait`"),
        (post("not json"), "400", "\"error\""),
        (post("{\"weight\":70000}"), "400", "\"error\""),
        (oversized, "400", "length limit"),
        (long_head, "431", ""),
        (get("/v1/lookup?source=nobody"), "400", "\"error\""),
        (get("/v1/statu"), "404", "did you mean `/v1/status`?"),
        (get("/v1/reload"), "405", "another method"),
        (get("/v1/backends/%ff/x"), "400", "UTF-8"),
    ] {
        let answer = raw(&socket, request.clone().into_bytes()).await;
        let head = &request[..request.len().min(60)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        assert!(answer.contains(words), "{head:?}: {answer}");
    }
    assert_eq!(client.status().await.unwrap().pid, 7);
}

#[tokio::test]
async fn a_thousand_idle_connections_keep_nobody_out() {
    let Fixture { socket, client, server: _server, _dir } = fixture();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET ").await.unwrap_or_default();
        idle.push(stream);
    }
    assert_eq!(client.status().await.unwrap().pid, 7);
    // The eldest made way: its end of file comes although it has not sent its request.
    let mut rest = [0; 1];
    let end = tokio::io::AsyncReadExt::read(&mut idle[0], &mut rest).await;
    assert!(!matches!(end, Ok(1)), "an idle connection was answered");
}

#[tokio::test]
async fn shutdown_answers_what_it_has_taken_and_removes_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb.sock");
    let (commands, mut inbox) = mpsc::channel(8);
    let server = serve(&socket, None, &GroupLevel::new(true), commands).unwrap();
    let client = Client::new(&socket);
    let asking = tokio::spawn(async move { client.detach().await });
    let Some(Command::Detach(answer)) = inbox.recv().await else { panic!("another command") };
    let stopping = tokio::spawn(server.shutdown());
    while socket.exists() {
        tokio::task::yield_now().await;
    }
    answer.send(Ok(Done { changes: vec!["gone".into()] })).unwrap();
    assert_eq!(asking.await.unwrap().unwrap().changes, ["gone"]);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_second_server_is_refused_and_a_killed_one_replaced() {
    let Fixture { socket, server, _dir, .. } = fixture();
    let (commands, _inbox) = mpsc::channel(1);
    let Err(ServeError::Running(path)) =
        serve(&socket, None, &GroupLevel::new(true), commands.clone())
    else {
        panic!("two servers on one socket");
    };
    assert_eq!(path, socket);
    drop(server);
    assert!(!socket.exists());
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    serve(&socket, None, &GroupLevel::new(true), commands).unwrap();
}
