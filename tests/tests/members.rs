//! Who serves when backends fail: tiers, sorry backends, quorum, panic, slow start, tracked health. Real requests, and
//! connections that stay open through every change.

use std::{collections::BTreeSet, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use lb_tests::{
    client::{Held, requests, wait_for},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::api::types::{Events, Status};

const MINUTE: Duration = Duration::from_secs(60);
/// Connections held in each phase.
const EACH: usize = 40;

/// A service with a fast check whose flows stay with a backend that is found DOWN (it still answers: only its health page
/// says no). `keys` are the service's, `backends` what each has beside name and address.
fn yaml(keys: &str, backends: &[&str]) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         on_marked_down: keep\n    window: 2s\n    timeouts: {{tcp: 30s}}\n    check: {{type: http, path: /healthz}}\n    \
         backend_defaults: {{inter: 100ms, fastinter: 50ms, downinter: 100ms, rise: 1, fall: 1, timeout: 5s}}\n    \
         {keys}\n    backends:\n"
    );
    for (index, more) in backends.iter().enumerate() {
        let number = index + 1;
        let address = backend4(number);
        yaml += &format!("      - {{name: web{number}, address: \"{address}:{PORT}\"{more}}}\n");
    }
    yaml
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

/// What the health pages of backends (1 = web1) say.
fn set_health(lab: &Lab, numbers: &[usize], healthy: bool) {
    for number in numbers {
        let server = lab.servers[number - 1].as_ref().expect("the server runs");
        server.healthy.store(healthy, Ordering::Relaxed);
    }
}

/// Waits for the mode, and for who is in the ring.
#[track_caller]
fn wait_mode(daemon: &Daemon<'_>, mode: &str, serving: &[&str]) -> Status {
    daemon.wait(&format!("{mode} with {serving:?}"), MINUTE, |status| {
        let service = &status.services[0];
        let in_ring = service.backends.iter().filter(|backend| backend.slots > 0);
        service.state == mode
            && in_ring.map(|backend| backend.name.as_str()).eq(serving.iter().copied())
    })
}

/// New connections reach these backends, all of them, and nobody else.
#[track_caller]
fn served_by(lab: &Lab, daemon: &Daemon<'_>, expected: &[&str]) {
    let tally = requests(&lab.client, target(), 200, 10);
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
    let seen: BTreeSet<&str> = tally.answered.keys().map(String::as_str).collect();
    assert_eq!(seen, expected.iter().copied().collect(), "{tally:?}\n{}", daemon.log_tail());
}

/// Connections opened in one phase after the other, none of which may break.
#[derive(Default)]
struct Flows(Vec<(String, Held)>);

impl Flows {
    fn open(&mut self, lab: &Lab, when: &str) {
        self.0.push((when.to_owned(), Held::open(&lab.client, target(), EACH).unwrap()));
    }

    #[track_caller]
    fn all_alive(&self, now: &str, daemon: &Daemon<'_>) {
        for (when, held) in &self.0 {
            assert_eq!(held.broken(), [""; 0], "opened {when}, {now}: {}", daemon.log_tail());
        }
    }
}

fn events(daemon: &Daemon<'_>, kind: &str) -> Vec<String> {
    let all: Events = serde_json::from_str(&daemon.must(&["events", "--json"])).unwrap();
    let of_kind = all.events.iter().filter(|event| event.kind == kind);
    of_kind.map(|event| format!("{} ({})", event.text, event.cause)).collect()
}

#[test]
fn tiers_and_the_sorry_backend_step_in_and_leave_again() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 4).unwrap();
    let text = yaml("on_all_down: reject", &["", "", ", backup: true", ", sorry: true"]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let mut flows = Flows::default();
    wait_mode(&daemon, "UP", &["web1", "web2"]);
    served_by(&lab, &daemon, &["web1", "web2"]);
    flows.open(&lab, "while all was well");
    let ring = daemon.status().services[0].ring.clone();

    set_health(&lab, &[1, 2], false);
    let status = wait_mode(&daemon, "BACKUP", &["web3"]);
    assert!(status.services[0].state_reason.contains("tier 1 is used"), "{status:#?}");
    served_by(&lab, &daemon, &["web3"]);
    flows.all_alive("with the backup", &daemon);
    flows.open(&lab, "to the backup");

    set_health(&lab, &[3], false);
    wait_mode(&daemon, "SORRY", &["web4"]);
    served_by(&lab, &daemon, &["web4"]);
    flows.all_alive("with the sorry backend", &daemon);
    flows.open(&lab, "to the sorry backend");
    // Where an operator looks.
    let shown = daemon.must(&["status"]);
    for word in ["SORRY", "no backend is usable: the sorry backend gets all new flows", "tier 1"] {
        assert!(shown.contains(word), "{word} is missing:\n{shown}");
    }
    let why = daemon.lookup("10.77.1.2:40000", &target().to_string()).why;
    assert!(why.contains("the service is SORRY"), "{why}");
    let csv = daemon.must(&["stats", "--csv"]);
    let columns: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let cell = |server: &str, column: &str| {
        let row = csv.lines().find(|line| line.starts_with(&format!("web,{server},"))).unwrap();
        let index = columns.iter().position(|name| *name == column).unwrap();
        row.split(',').nth(index).unwrap().to_owned()
    };
    assert_eq!([cell("web1", "act"), cell("web1", "bck")], ["1", "0"], "{csv}");
    assert_eq!([cell("web3", "act"), cell("web3", "bck")], ["0", "1"], "{csv}");
    assert_eq!([cell("BACKEND", "act"), cell("BACKEND", "bck")], ["0", "1"], "{csv}");

    set_health(&lab, &[3], true);
    wait_mode(&daemon, "BACKUP", &["web3"]);
    served_by(&lab, &daemon, &["web3"]);
    set_health(&lab, &[1], true);
    wait_mode(&daemon, "UP", &["web1"]);
    served_by(&lab, &daemon, &["web1"]);
    flows.all_alive("back with one of the first tier", &daemon);
    set_health(&lab, &[2], true);
    let status = wait_mode(&daemon, "UP", &["web1", "web2"]);
    assert_eq!(status.services[0].ring, ring, "the ring is what it was");
    flows.all_alive("when all is well again", &daemon);
    let down = events(&daemon, "service_down");
    assert!(down.iter().any(|line| line.contains("web is SORRY, was BACKUP")), "{down:#?}");
    let modes = events(&daemon, "service_mode");
    assert!(modes.iter().any(|line| line.contains("web is BACKUP, was UP")), "{modes:#?}");
}

#[test]
fn a_lost_quorum_calls_the_next_tier_and_hysteresis_outlives_the_daemon() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 4).unwrap();
    let text = yaml("quorum: 2\n    hysteresis: 1", &["", "", "", ", tier: 3"]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    wait_mode(&daemon, "UP", &["web1", "web2", "web3"]);
    let mut flows = Flows::default();
    flows.open(&lab, "while all was well");
    set_health(&lab, &[2, 3], false);
    wait_mode(&daemon, "UP", &["web1"]);
    served_by(&lab, &daemon, &["web1"]);
    set_health(&lab, &[1], false);
    wait_mode(&daemon, "BACKUP", &["web4"]);
    served_by(&lab, &daemon, &["web4"]);
    flows.open(&lab, "to the second tier");
    // Two are the quorum, but after its loss it takes one more.
    set_health(&lab, &[1, 2], true);
    wait_mode(&daemon, "BACKUP", &["web1", "web2", "web4"]);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    wait_mode(&daemon, "BACKUP", &["web1", "web2", "web4"]);
    served_by(&lab, &daemon, &["web1", "web2", "web4"]);
    set_health(&lab, &[3], true);
    wait_mode(&daemon, "UP", &["web1", "web2", "web3"]);
    served_by(&lab, &daemon, &["web1", "web2", "web3"]);
    flows.all_alive("after all changes", &daemon);
}

#[test]
fn too_many_down_at_once_are_not_believed() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 4).unwrap();
    let text = yaml("panic_threshold: 50", &["", "", "", ""]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    daemon.must(&["drain", "web/web4"]);
    wait_mode(&daemon, "UP", &["web1", "web2", "web3"]);
    let mut flows = Flows::default();
    flows.open(&lab, "while all was well");
    set_health(&lab, &[1], false);
    wait_mode(&daemon, "UP", &["web2", "web3"]);
    set_health(&lab, &[2], false);
    let status = wait_mode(&daemon, "PANIC", &["web1", "web2", "web3"]);
    let reason = &status.services[0].state_reason;
    assert!(reason.starts_with("1 of 3 backends are usable, less than 50 %"), "{reason}");
    served_by(&lab, &daemon, &["web1", "web2", "web3"]);
    flows.all_alive("in panic", &daemon);
    set_health(&lab, &[1], true);
    wait_mode(&daemon, "UP", &["web1", "web3"]);
    served_by(&lab, &daemon, &["web1", "web3"]);
    flows.all_alive("after the panic", &daemon);
}

#[test]
fn who_was_down_comes_back_slowly_and_a_new_daemon_goes_on() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let text = yaml("", &["", ", slowstart: 8s", ""]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text).unwrap();
    daemon.start().unwrap();
    let status = daemon.wait_ready(&["UP"]);
    assert_eq!(backend(&status, "web", "web2").unwrap().throttle, None, "not at the start");
    let full = wait_mode(&daemon, "UP", &["web1", "web2", "web3"]);
    let of = |status: &Status, name: &str| backend(status, "web", name).unwrap().clone();
    let slots = of(&full, "web2").slots;
    let mut flows = Flows::default();
    flows.open(&lab, "while all was well");
    set_health(&lab, &[2], false);
    wait_mode(&daemon, "UP", &["web1", "web3"]);
    set_health(&lab, &[2], true);
    let mut steps = vec![0];
    let mut restarted = false;
    wait_for(
        "web2 has all its slots again",
        MINUTE,
        || {
            let status = daemon.status();
            let web2 = of(&status, "web2");
            if web2.slots != steps[steps.len() - 1] {
                steps.push(web2.slots);
            }
            if let Some(throttle) = web2.throttle {
                let share = web2.slots as f64 * 100.0 / slots as f64;
                assert!((share - f64::from(throttle)).abs() <= 5.5, "{web2:#?} of {slots}");
                if throttle >= 40 && !restarted {
                    restarted = true;
                    daemon.kill().unwrap();
                    daemon.start().unwrap();
                    let after = of(&daemon.status(), "web2");
                    assert!(after.throttle.is_some_and(|now| now >= throttle), "{after:#?}");
                }
            }
            web2
        },
        |web2| web2.throttle.is_none() && web2.slots == slots,
    );
    println!("slots of web2 on its way back: {steps:?}");
    assert!(restarted, "it was restarted on the way: {steps:?}");
    assert!(steps.is_sorted() && steps.len() >= 8, "in steps, and never back: {steps:?}");
    assert_eq!(daemon.status().services[0].ring, full.services[0].ring, "the ring is what it was");
    flows.all_alive("after a slow start", &daemon);
}

#[test]
fn a_tracked_backend_goes_and_comes_with_the_one_that_is_checked() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut text = yaml("", &["", "", ""]);
    // The third has no health of its own: its page says yes all the time.
    text = text.replace(
        &format!("{{name: web3, address: \"{}:{PORT}\"}}", backend4(3)),
        &format!("{{name: web3, address: \"{}:{PORT}\", track: web/web1}}", backend4(3)),
    );
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    wait_mode(&daemon, "UP", &["web1", "web2", "web3"]);
    set_health(&lab, &[1], false);
    let status = wait_mode(&daemon, "UP", &["web2"]);
    let web3 = backend(&status, "web", "web3").unwrap();
    assert_eq!((web3.tracks.as_deref(), web3.check.as_str()), (Some("web/web1"), "L7STS"));
    served_by(&lab, &daemon, &["web2"]);
    set_health(&lab, &[1], true);
    wait_mode(&daemon, "UP", &["web1", "web2", "web3"]);
    served_by(&lab, &daemon, &["web1", "web2", "web3"]);
}
