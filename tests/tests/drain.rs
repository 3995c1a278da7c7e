//! `lb drain --wait`: it ends when nothing is left, not before; a deadline, a killed daemon and an interrupted command have their
//! meaning.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use lb_tests::{
    client::{Held, requests, wait_for},
    daemon::{Daemon, backend, lb_binary},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::api::types::Drain;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A window that no test waits for, and short idle times.
fn yaml() -> String {
    yaml_idle(4)
}

/// With an idle time-out of so many seconds.
fn yaml_idle(seconds: u64) -> String {
    let backend =
        |number| format!("{{name: web{number}, address: \"{}:{PORT}\"}}", backend4(number));
    format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         count_connections: true\n    window: 1h\n    timeouts: {{tcp: {seconds}s, tcpfin: 1s}}\n    backends: [{}, {}]\n",
        backend(1),
        backend(2)
    )
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

/// A running `lb drain web/web1 --wait --json`.
struct Waiting {
    child: Child,
    lines: mpsc::Receiver<Drain>,
    /// The last line: it says how things are until there is another.
    last: Option<Drain>,
}

impl Waiting {
    fn start(lab: &Lab, daemon: &Daemon<'_>, arguments: &[&str]) -> Self {
        let mut command = Command::new(lb_binary());
        command.arg("--socket").arg(&daemon.socket);
        command.args(["drain", "web/web1", "--wait", "--json"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = lab.lb.spawn(command).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                println!("{line}");
                // Whoever listens may have seen enough.
                let _ = said.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines, last: None }
    }

    /// Waits until the last line is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, good: impl Fn(&Drain) -> bool) -> Drain {
        loop {
            if let Some(seen) = self.last.as_ref().filter(|seen| good(seen)) {
                return seen.clone();
            }
            let last = &self.last;
            let seen = self.lines.recv_timeout(MINUTE);
            let seen = seen.unwrap_or_else(|error| panic!("{what}: {error}; last seen: {last:?}"));
            assert!(good(&seen) || !seen.empty, "{what}: {seen:?}");
            self.last = Some(seen);
        }
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    #[track_caller]
    fn code(&mut self) -> (Option<i32>, String) {
        let look = || self.child.try_wait().unwrap().map(|status| status.code());
        let code = wait_for("the command ends", MINUTE, look, Option::is_some).flatten();
        let mut said = String::new();
        let error = self.child.stderr.as_mut().unwrap();
        std::io::Read::read_to_string(error, &mut said).unwrap();
        (code, said)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_drain_ends_when_its_last_connection_has() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let held = Held::open(&lab.client, target(), 40).unwrap();
    let on_web1 = held.count()["web1"] as u64;
    let mut waiting = Waiting::start(&lab, &daemon, &[]);
    // Each of its connections shows itself, long before the window would end.
    let all = waiting.until("all are pinned", |seen| seen.pins >= on_web1);
    assert_eq!((all.admin.as_str(), all.empty), ("drain", false));
    waiting.until("all are counted", |seen| {
        seen.connections.is_some_and(|count| count.active == on_web1)
    });
    // No new flow comes, and it does not end, not even when nothing is silent any more and the daemon was away.
    let tally = requests(&lab.client, target(), 100, 10);
    assert!(!tally.answered.contains_key("web1") && tally.failures() == 0, "{tally:?}");
    daemon.kill().unwrap();
    daemon.start().unwrap();
    waiting.until("the harvest is over", |seen| seen.older_slots == 0 && seen.pins >= on_web1);
    assert_eq!(held.broken(), [""; 0]);
    assert!(waiting.runs());
    drop(held);
    let end = waiting.until("nothing is left", |seen| seen.empty);
    assert_eq!((end.pins, end.slots, end.older_slots), (0, 0, 0));
    assert_eq!(waiting.code().0, Some(0));
    assert!(daemon.must(&["events"]).contains("web/web1: nothing is left on it"));
    assert_eq!(
        backend(&daemon.status(), "web", "web1").map(|web1| web1.admin.clone()),
        Some("drain".into())
    );

    // Once more, with nothing on it: it takes the idle time-out in which a silent flow could speak, and no window.
    daemon.must(&["ready", "web/web1"]);
    assert_eq!(Waiting::start(&lab, &daemon, &[]).code().0, Some(0));
}

#[test]
fn counted_connections_end_a_drain_before_silent_ones_could() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml_idle(30)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    // It has to have counted for as long as an older connection could have been silent.
    daemon.wait("30 s have been counted", MINUTE, |status| status.uptime_seconds > 33);
    let held = Held::open(&lab.client, target(), 20).unwrap();
    let on_web1 = held.count()["web1"] as u64;
    let mut waiting = Waiting::start(&lab, &daemon, &[]);
    let all = waiting.until("all are pinned", |seen| seen.pins >= on_web1);
    assert!(all.older_slots > 0, "{all:?}");
    assert_eq!(held.broken(), [""; 0]);
    assert!(waiting.runs());
    drop(held);
    let end = waiting.until("nothing is left", |seen| seen.empty);
    assert_eq!((end.pins, end.slots), (0, 0));
    assert!(end.older_slots > 0, "the idle time-out was waited for: {end:?}");
    assert_eq!(waiting.code().0, Some(0));
    assert!(daemon.must(&["events"]).contains("its last connection has ended"));
}

#[test]
fn a_deadline_an_interruption_and_somebody_else_end_it_otherwise() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let held = Held::open(&lab.client, target(), 20).unwrap();
    let admin = || backend(&daemon.status(), "web", "web1").unwrap().admin.clone();

    let mut waiting = Waiting::start(&lab, &daemon, &["--deadline", "1s"]);
    let (code, said) = waiting.code();
    assert_eq!((code, admin().as_str()), (Some(9), "drain"), "{said}");
    assert!(said.contains("the deadline has passed: web/web1 is in drain"), "{said}");

    // Ctrl-C ends the command alone.
    let mut waiting = Waiting::start(&lab, &daemon, &[]);
    waiting.until("it waits", |seen| seen.pins > 0);
    kill(Pid::from_raw(waiting.child.id() as i32), Signal::SIGINT).unwrap();
    let (code, said) = waiting.code();
    assert_eq!((code, admin().as_str()), (Some(1), "drain"), "{said}");
    assert!(said.contains("`lb ready web/web1` ends that"), "{said}");

    // Somebody else ends the drain.
    let mut waiting = Waiting::start(&lab, &daemon, &[]);
    waiting.until("it waits", |seen| seen.pins > 0);
    daemon.must(&["ready", "web/web1"]);
    let (code, said) = waiting.code();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("somebody has ended the drain"), "{said}");
    assert_eq!(held.broken(), [""; 0]);

    // What is left moves away.
    let mut waiting = Waiting::start(&lab, &daemon, &["--deadline", "1s", "--then", "maint"]);
    let (code, said) = waiting.code();
    assert_eq!((code, admin().as_str()), (Some(9), "maint"), "{said}");
    for wrong in [&["--deadline", "1s"][..], &["--wait", "--then", "maint"]] {
        let output = daemon.lb(&[&["drain", "web/web1"], wrong].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
