//! Backends by DNS name (A and SRV, by dnsmasq) and from a directory of files: they come, go and stay while clients see
//! nothing of it. Fault case F11: DNS fails, or is not there yet.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lb_tests::{
    client::{Load, wait_for},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    process::Process,
};
use lb_userspace::api::types::Status;

const MINUTE: Duration = Duration::from_secs(60);

/// A DNS server on lb's machine that knows the names of a file.
struct Dns {
    directory: tempfile::TempDir,
    server: Option<Process>,
}

impl Dns {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        Self { directory, server: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it anew: `app.internal` has these backends' addresses; `_http._tcp.app.internal` these, with priority and weight.
    fn serve(&mut self, lab: &Lab, hosts: &[usize], services: &[(usize, u16, u16)]) {
        self.stop();
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root"]);
        command.args(["--conf-file=/dev/null", "--local=/internal/", "--local-ttl=1"]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces"]);
        command.arg(format!("--pid-file={}", self.path("pid").display()));
        let mut text = String::new();
        for number in hosts {
            text += &format!("{} app.internal\n", backend4(*number));
        }
        for (number, priority, weight) in services {
            text += &format!("{} web{number}.internal\n", backend4(*number));
            command.arg(format!(
                "--srv-host=_http._tcp.app.internal,web{number}.internal,{PORT},{priority},{weight}"
            ));
        }
        fs::write(self.path("hosts"), text).unwrap();
        command.arg(format!("--addn-hosts={}", self.path("hosts").display()));
        let server = Process::start(&lab.lb, "dnsmasq", self.directory.path(), &command).unwrap();
        self.server = Some(server);
    }

    fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill().unwrap();
        }
    }

    fn yaml(&self, backends: &str) -> String {
        format!(
            "resolver: {{resolv_conf: {}, timeout: 500ms, min_ttl: 100ms, max_ttl: 1s}}\n{}",
            self.path("resolv.conf").display(),
            service("web", 80, &format!("backends:\n{backends}"))
        )
    }
}

fn service(name: &str, port: u16, backends: &str) -> String {
    let head = if name == "web" { "services:\n" } else { "" };
    format!(
        "{head}  - name: {name}\n    listen: {{address: {VIP4}, port: {port}}}\n    forward: nat\n    \
         window: 1s\n    timeouts: {{tcp: 2s, tcpfin: 1s}}\n    {backends}\n"
    )
}

const APP: &str = "      - {name: app, address: 'app.internal:8080'}";

/// Names of the backends that are in force.
fn names(status: &Status) -> BTreeSet<String> {
    let backends = status.services[0].backends.iter();
    backends.filter(|b| b.admin != "removed").map(|backend| backend.name.clone()).collect()
}

fn app(numbers: &[usize]) -> BTreeSet<String> {
    numbers.iter().map(|number| format!("app-{}", backend4(*number))).collect()
}

#[track_caller]
fn wait_names(daemon: &Daemon<'_>, wanted: &BTreeSet<String>) -> Status {
    daemon.wait(&format!("{wanted:?} are in force"), MINUTE, |status| {
        let resolved =
            |b: &lb_userspace::api::types::BackendStatus| !b.next_hop.contains("unresolved");
        names(status) == *wanted && status.services[0].backends.iter().all(resolved)
    })
}

#[track_caller]
fn happened(daemon: &Daemon<'_>, kind: &str, words: &str) {
    let look = || daemon.events();
    wait_for(&format!("event {kind}: {words}"), MINUTE, look, |events| {
        events.iter().any(|event| {
            event.kind == kind && format!("{} {}", event.text, event.cause).contains(words)
        })
    });
}

#[track_caller]
fn warned(daemon: &Daemon<'_>, words: &str) {
    daemon.wait(&format!("a warning of {words}"), MINUTE, |status| {
        status.warnings.iter().any(|warning| warning.contains(words))
    });
}

#[test]
fn answers_change_and_fail_under_load_without_a_failed_request() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut dns = Dns::new();
    dns.serve(&lab, &[1, 2], &[]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &dns.yaml(APP)).unwrap();
    daemon.start().unwrap();
    let status = wait_names(&daemon, &app(&[1, 2]));
    let first = backend(&status, "web", "app-10.77.0.11").unwrap();
    assert_eq!(first.from.as_deref(), Some("app (app.internal)"));
    assert_eq!(first.address, format!("{}:{PORT}", backend4(1)));
    assert!(daemon.must(&["status"]).contains("app (app.internal)"));
    assert!(
        daemon.must(&["plan", daemon.config.to_str().unwrap()]).contains("nothing would change")
    );

    let load = Load::start(&lab.client, &[(VIP4, 80).into()], 4, Duration::from_millis(2));
    dns.serve(&lab, &[3, 2], &[]);
    wait_names(&daemon, &app(&[2, 3]));
    happened(&daemon, "discovered", "backend app-10.77.0.13");
    happened(&daemon, "discovered", "backend app-10.77.0.11 removed: it drains");
    // What an operator has set for one of them stays; it is no backend of the file.
    daemon.must(&["weight", "web/app-10.77.0.12", "50"]);
    let refused = daemon.lb(&["set", "web/app-10.77.0.12", "rise=7"]).unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("comes from app (app.internal)"));

    // F11: the server is gone; then the name is.
    dns.stop();
    warned(&daemon, "web/app: app.internal (A) has not been resolved");
    happened(&daemon, "discovery_failed", "its last good addresses stay");
    assert_eq!(names(&daemon.status()), app(&[2, 3]));
    daemon.kill().unwrap();
    daemon.start().unwrap();
    let status = wait_names(&daemon, &app(&[2, 3]));
    assert_eq!(backend(&status, "web", "app-10.77.0.12").unwrap().weight, 50);
    warned(&daemon, "its last 2 addresses stay in force");
    dns.serve(&lab, &[], &[]);
    warned(&daemon, "NXDOMAIN");
    assert_eq!(names(&daemon.status()), app(&[2, 3]));
    dns.stop();
    fs::write(dns.path("resolv.conf"), "# nobody\n").unwrap();
    warned(&daemon, "it names no server: add a line");
    fs::write(dns.path("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    dns.serve(&lab, &[1, 2, 3], &[]);
    wait_names(&daemon, &app(&[1, 2, 3]));
    daemon.wait("nothing is left to warn of", MINUTE, |status| status.warnings.is_empty());
    happened(&daemon, "discovered", "is resolved again");
    daemon.must(&["unset", "web/app-10.77.0.12", "weight"]);

    // The ring is that of the same addresses in the file, in whatever order.
    let ring = daemon.status().services[0].ring.clone();
    let line =
        |number| format!("      - {{name: w{number}, address: \"{}:{PORT}\"}}\n", backend4(number));
    daemon.write(&dns.yaml(&[line(3), line(1), line(2)].concat())).unwrap();
    daemon.must(&["reload"]);
    let status = daemon.status();
    assert_eq!(names(&status), ["w1", "w2", "w3"].map(str::to_owned).into());
    assert_eq!(status.services[0].ring, ring);
    // A name in place of addresses, which DNS does not know: who serves stays.
    daemon.write(&dns.yaml("      - {name: none, address: 'none.internal:8080'}")).unwrap();
    daemon.must(&["reload"]);
    warned(&daemon, "web/none: none.internal (A) has not been resolved");
    let status = daemon.status();
    assert_eq!(names(&status), ["w1", "w2", "w3"].map(str::to_owned).into());
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!(names(&daemon.status()).len(), 3, "{:?}", names(&daemon.status()));
    daemon.write(&dns.yaml(APP)).unwrap();
    daemon.must(&["reload"]);
    wait_names(&daemon, &app(&[1, 2, 3]));
    let tally = load.finish();
    println!("{} answered, {} failed: {:?}", tally.ok(), tally.failures(), tally.failed);
    assert!(tally.ok() > 500 && tally.failures() == 0, "{tally:?}\n{}", daemon.log_tail());
}

#[test]
fn a_name_that_is_not_there_at_the_start_degrades_its_service_alone_and_heals() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut dns = Dns::new();
    let srv = "      - {name: app, srv: _http._tcp.app.internal, weight: 100}";
    let other = format!("backends: [{{name: web1, address: \"{}:{PORT}\"}}]", backend4(1));
    let yaml = format!("{}{}", dns.yaml(srv), service("other", 81, &other));
    // Two nat services cannot have the same address and port: web has the others.
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    warned(&daemon, "web/app: _http._tcp.app.internal (SRV, A) has not been resolved");
    let load = Load::start(&lab.client, &[(VIP4, 81).into()], 2, Duration::from_millis(5));
    let status = daemon.wait("other serves", MINUTE, |status| status.services[1].state == "UP");
    assert_eq!((status.services[0].state.as_str(), status.services[0].backends.len()), ("DOWN", 0));
    let plan = daemon.must(&["plan", daemon.config.to_str().unwrap()]);
    assert!(plan.contains("has not been resolved yet"), "{plan}");

    dns.serve(&lab, &[], &[(1, 10, 30), (2, 10, 10), (3, 20, 5)]);
    let wanted: BTreeSet<String> =
        [2, 3].iter().map(|number| format!("app-{}-{PORT}", backend4(*number))).collect();
    let status = wait_names(&daemon, &wanted);
    let second = backend(&status, "web", "app-10.77.0.12-8080").unwrap();
    let third = backend(&status, "web", "app-10.77.0.13-8080").unwrap();
    assert_eq!((second.weight, second.tier, third.tier), (34, 0, 1));
    assert!(
        second.slots > 0 && third.slots == 0,
        "the second priority steps in for the first only"
    );
    warned(&daemon, "is a nat backend of `other` too");
    daemon.wait("web serves", MINUTE, |status| status.services[0].state == "UP");
    let web = Load::start(&lab.client, &[(VIP4, 80).into()], 2, Duration::from_millis(5));
    dns.serve(&lab, &[], &[(3, 20, 5)]);
    wait_names(&daemon, &[format!("app-{}-{PORT}", backend4(3))].into());
    let (tally, web) = (load.finish(), web.finish());
    assert!(tally.ok() > 0 && tally.failures() == 0, "{tally:?}");
    assert!(web.ok() > 0 && web.failures() == 0, "{web:?}");
}

/// Writes a file as a careful tool does.
fn put(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
}

#[test]
fn files_of_a_directory_come_go_and_break_without_a_failed_request() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let line = |number: usize| {
        format!("- {{name: f{number}, address: \"{}:{PORT}\"}}\n", backend4(number))
    };
    let inline = format!(
        "backends_from: {}\n    backends: [{{name: web1, address: \"{}:{PORT}\"}}]",
        directory.path().display(),
        backend4(1)
    );
    fs::write(path("a.yaml"), line(2)).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &service("web", 80, &inline)).unwrap();
    daemon.start().unwrap();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let status = wait_names(&daemon, &set(&["web1", "f2"]));
    let file = path("a.yaml").display().to_string();
    assert_eq!(backend(&status, "web", "f2").unwrap().from.as_ref(), Some(&file));
    let load = Load::start(&lab.client, &[(VIP4, 80).into()], 4, Duration::from_millis(2));

    let json =
        format!("[{{\"name\": \"f3\", \"address\": \"{}:{PORT}\", \"weight\": 50}}]", backend4(3));
    put(&path("b.json"), &json);
    let status = wait_names(&daemon, &set(&["web1", "f2", "f3"]));
    assert_eq!(backend(&status, "web", "f3").unwrap().weight, 50);
    // Half of it, nothing of it, something else: as it was.
    for (text, words) in [
        (&json[..20], "b.json"),
        ("", "b.json: the file is empty"),
        ("- {name: f3}", "b.json:1:3: [0] lacks the key `address`"),
    ] {
        fs::write(path("b.json"), text).unwrap();
        warned(&daemon, words);
        warned(&daemon, "its last good content stays in force");
        assert_eq!(names(&daemon.status()), set(&["web1", "f2", "f3"]), "{text}");
    }
    happened(
        &daemon,
        "discovery_failed",
        "b.json:1:3: [0] lacks the key `address`: add `address:`",
    );
    // It outlives the daemon.
    daemon.kill().unwrap();
    daemon.start().unwrap();
    wait_names(&daemon, &set(&["web1", "f2", "f3"]));
    warned(&daemon, "b.json:1:3: [0] lacks the key `address`");
    // Gone for a moment.
    fs::remove_file(path("b.json")).unwrap();
    warned(&daemon, "b.json: the file is gone");
    assert_eq!(names(&daemon.status()), set(&["web1", "f2", "f3"]));
    put(&path("b.json"), &json);
    daemon.wait("nothing is left to warn of", MINUTE, |status| status.warnings.is_empty());
    // What is there already is refused, with file and line; the rest counts.
    put(&path("c.yaml"), &format!("{}- {{name: web1, address: 10.77.0.99}}\n", line(3)));
    warned(
        &daemon,
        "c.yaml:1: 10.77.0.13 port 8080 is backend `f3` of `web` already: remove one of the two",
    );
    warned(&daemon, "c.yaml:2: the name `web1` is taken in `web`: give each backend");
    fs::remove_file(path("c.yaml")).unwrap();
    // Gone for good; and the whole directory, for a moment.
    fs::remove_file(path("b.json")).unwrap();
    wait_names(&daemon, &set(&["web1", "f2"]));
    happened(&daemon, "discovered", "backend f3 removed: it drains");
    let aside = directory.path().with_extension("aside");
    fs::rename(directory.path(), &aside).unwrap();
    warned(&daemon, "cannot be read");
    assert_eq!(names(&daemon.status()), set(&["web1", "f2"]));
    fs::rename(&aside, directory.path()).unwrap();
    put(&path("a.yaml"), &[line(2), line(3)].concat());
    wait_names(&daemon, &set(&["web1", "f2", "f3"]));
    let tally = load.finish();
    println!("{} answered, {} failed: {:?}", tally.ok(), tally.failures(), tally.failed);
    assert!(tally.ok() > 500 && tally.failures() == 0, "{tally:?}\n{}", daemon.log_tail());
}
