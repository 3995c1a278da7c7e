//! Every change of state is told with its cause, and neither the log nor the control socket can be played with.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::Command,
    thread,
    time::Duration,
};

use lb_tests::{
    client::wait_for,
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, backend4},
};
use lb_userspace::api::types::{Event, Events};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(lab: &Lab, more: &str) -> String {
    let backends: String = (1..=lab.backends.len())
        .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
        .collect();
    format!(
        "{more}backend_defaults: {{inter: 200ms, fastinter: 100ms, downinter: 200ms, timeout: 1s}}\nservices:\n  - name: web\n    \
         listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    check: {{type: http, path: /healthz}}\n    \
         backends:\n{backends}"
    )
}

fn events(daemon: &Daemon<'_>) -> Vec<Event> {
    let answer = daemon.must(&["events", "--json"]);
    let events: Events = serde_json::from_str(&answer).unwrap();
    events.events
}

#[track_caller]
fn wait_event(daemon: &Daemon<'_>, what: &str, good: impl Fn(&Event) -> bool) -> Event {
    let seen = wait_for(what, MINUTE, || events(daemon), |events| events.iter().any(&good));
    seen.into_iter().rev().find(|event| good(event)).unwrap()
}

#[test]
fn every_change_of_state_is_told_with_its_cause() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let started = wait_event(&daemon, "the start", |event| event.kind == "started");
    assert!(started.text.contains("with a new data plane: 1 services, 2 backends"), "{started:?}");
    let attached = wait_event(&daemon, "the NIC", |event| event.kind == "nic");
    assert_eq!(attached.text, "lb0: attached in native mode");

    lab.servers[0] = None;
    let of = |kind: &'static str, name: &'static str| {
        move |event: &Event| event.kind == kind && event.backend.as_deref() == Some(name)
    };
    let down = wait_event(&daemon, "web1 is down", of("backend_down", "web1"));
    assert_eq!((down.service.as_deref(), &*down.text), (Some("web"), "web/web1 is DOWN"));
    assert!(down.cause.starts_with("L4CON "), "{down:?}");
    lab.servers[0] = Some(lab.server(1).unwrap());
    let up = wait_event(&daemon, "web1 is up again", |event| {
        event.id > down.id && of("backend_up", "web1")(event)
    });
    assert!(up.cause.starts_with("L7OK"), "{up:?}");

    daemon.must(&["drain", "web/web2"]);
    let drained = wait_event(&daemon, "the drain", of("admin", "web2"));
    assert!(drained.text.starts_with("web/web2: drain"), "{drained:?}");
    assert!(drained.cause.starts_with("by root (process "), "{drained:?}");
    daemon.must(&["maint", "web/web1"]);
    let nobody = wait_event(&daemon, "nobody is left", |event| event.kind == "service_down");
    assert!(nobody.text.starts_with("web is "), "{nobody:?}");

    daemon.write("services: 7\n").unwrap();
    let refused = wait_event(&daemon, "the refusal", |event| event.kind == "config_refused");
    assert!(refused.text.contains("lb.yaml:1:11"), "{refused:?}");
    assert_eq!(refused.cause, "the file has changed");

    // They outlive the daemon, and go on being counted.
    let before = events(&daemon);
    daemon.kill().unwrap();
    daemon.write(&yaml(&lab, "")).unwrap();
    daemon.start().unwrap();
    let after = events(&daemon);
    assert_eq!(after[..before.len()], before[..], "events were lost");
    assert!(after.windows(2).all(|pair| pair[0].id + 1 == pair[1].id), "{after:#?}");
    let adopted = wait_event(&daemon, "the second start", |event| {
        event.kind == "started" && event.text.contains("adopted the loaded data plane")
    });
    assert!(adopted.id > refused.id);

    // For people: one line each, and only a backend's own.
    let text = daemon.must(&["events", "web/web1"]);
    assert!(text.lines().count() >= 3 && !text.contains("web2"), "{text}");
    assert_eq!(daemon.must(&["events", "-n", "1"]).lines().count(), 1);
}

#[test]
fn the_log_changes_its_level_while_it_runs() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "")).unwrap();
    daemon.arguments.push("--json");
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    assert!(!daemon.log().contains("\"DEBUG\""), "{}", daemon.log_tail());
    let said = daemon.must(&["log", "debug"]);
    assert_eq!(said, "log level: info -> debug\n");
    daemon.must(&["drain", "web/web1"]);
    daemon.write(&yaml(&lab, "").replace("inter: 200ms", "inter: 300ms")).unwrap();
    daemon.must(&["reload"]);
    wait_for("debug lines", MINUTE, || daemon.log(), |log| log.contains("\"DEBUG\""));
    assert_eq!(daemon.lb(&["log", "loud"]).unwrap().status.code(), Some(2));
    // Each line is one object, and events carry their fields.
    let log = daemon.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let drained = lines.iter().find(|line| line["fields"]["event"] == "admin").expect("the drain");
    assert_eq!(drained["fields"]["backend"], "web1");
}

/// A server that answers every probe with what would play with a terminal or a log.
fn hostile(lab: &Lab) {
    lab.backends[0].run(|| {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 9999))).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let head =
                    b"HTTP/1.1 500 bad\x1b[31m\x07 \xe2\x80\xae\r\nContent-Length: 0\r\n\r\n";
                // The prober may have gone.
                let _ = stream.write_all(head);
            }
        });
    });
}

#[test]
fn s12_the_log_holds_no_secret_and_nothing_raw() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    hostile(&lab);
    let yaml = yaml(&lab, "").replace("path: /healthz", "path: /healthz, port: 9999");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.environment.push(("LB_LOG", "trace".to_owned()));
    daemon.start().unwrap();
    daemon.wait("the check has failed", MINUTE, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.check.starts_with("L7"))
    });
    daemon.write("services: \"\\e[31mred\"\n\"\\e]0;title\\a\": 1\n").unwrap();
    wait_event(&daemon, "the refusal", |event| event.kind == "config_refused");

    let outputs = [
        daemon.log(),
        daemon.must(&["status"]),
        daemon.must(&["status", "--json"]),
        daemon.must(&["events"]),
        daemon.must(&["events", "--json"]),
        daemon.must(&["stats", "--csv"]),
    ];
    let hostile =
        |character: &char| character.is_control() && *character != '\n' || *character == '\u{202e}';
    let seed = fs::read(daemon.directory.join("state/seed")).unwrap();
    assert!(seed.len() >= 16, "the seed is too short to be looked for");
    let secret = String::from_utf8_lossy(&seed).trim().to_owned();
    for output in &outputs {
        assert_eq!(output.chars().find(hostile), None, "{output:?}");
        assert!(!output.contains(&secret), "the seed is in {output}");
    }
}

#[test]
fn s09_the_socket_is_for_those_it_was_given_to() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let with = |level: &str| yaml(&lab, &format!("socket_group: daemon\nsocket_level: {level}\n"));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &with("user")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.socket), 0o660);
    assert_eq!(mode(daemon.socket.parent().unwrap()), 0o750);
    // The directory above is the test's own.
    fs::set_permissions(&daemon.directory, fs::Permissions::from_mode(0o755)).unwrap();

    let as_user = |user: &str, group: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups"]);
        command.arg(lb_tests::daemon::lb_binary()).arg("--socket").arg(&daemon.socket);
        command.args(arguments);
        let output = lab.lb.output(command).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = as_user("nobody", "nogroup", &["status"]);
    assert_eq!(code, Some(5), "{text}");
    let (code, text) = as_user("nobody", "daemon", &["status"]);
    assert_eq!(code, Some(0), "{text}");
    let admins = [
        &["drain", "web/web1"][..],
        &["reload"],
        &["log", "trace"],
        &["detach"],
        &["capture", "--count", "1"],
    ];
    for change in admins {
        let (code, text) = as_user("nobody", "daemon", change);
        assert_eq!(code, Some(5), "{change:?}: {text}");
        assert!(text.contains("socket_level: admin"), "{text}");
    }
    assert_eq!(backend(&daemon.status(), "web", "web1").unwrap().admin, "ready");

    // A reload gives them more.
    daemon.write(&with("admin")).unwrap();
    daemon.must(&["reload"]);
    let (code, text) = as_user("nobody", "daemon", &["drain", "web/web1"]);
    assert_eq!(code, Some(0), "{text}");
    let told = wait_event(&daemon, "the drain", |event| event.kind == "admin");
    assert!(told.cause.starts_with("by nobody (process "), "{told:?}");

    // No TCP listener unless one is configured.
    let listening = lab.lb.sh("ss -Hltn").unwrap();
    assert_eq!(listening, "", "lb listens on TCP");
}

#[test]
fn f54_an_abused_socket_keeps_nobody_from_his_work() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);

    let idle: Vec<UnixStream> =
        (0..1_000).map(|_| UnixStream::connect(&daemon.socket).unwrap()).collect();
    let mut garbage = UnixStream::connect(&daemon.socket).unwrap();
    // The daemon may hang up before all of it is written.
    let _ = garbage.write_all(&vec![0xff; 1 << 20]);
    let mut endless = UnixStream::connect(&daemon.socket).unwrap();
    let head = b"POST /v1/plan HTTP/1.1\r\nhost: lb\r\ncontent-length: 1073741824\r\n\r\n";
    endless.write_all(head).unwrap();
    let flood = thread::spawn(move || {
        let piece = vec![b' '; 1 << 20];
        (0..1024).take_while(|_| endless.write_all(&piece).is_ok()).count()
    });

    // Meanwhile probes are on time and questions are answered.
    lab.servers[0] = None;
    daemon.wait("web1 is seen to be down", MINUTE, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.state == "DOWN")
    });
    daemon.must(&["stats"]);
    let written = flood.join().unwrap();
    assert!(written < 1024, "a request of 1 GiB was read to its end");
    drop((idle, garbage));
    let pid = daemon.pid().unwrap();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 300, "{open} descriptors are open");
}
