//! Backends come, go, fail and drain, and open connections do not notice.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Held, Load, requests},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

const MINUTE: Duration = Duration::from_secs(60);

/// A service whose windows, harvests and idle times are over within seconds.
fn yaml(backends: &[usize]) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         window: 2s\n    timeouts: {{tcp: 5s, tcpfin: 1s}}\n    check: {{type: http, path: /healthz}}\n    \
         backend_defaults: {{inter: 300ms, fastinter: 100ms, downinter: 300ms, rise: 2, fall: 2, timeout: 2s}}\n    backends:\n"
    );
    for number in backends {
        yaml +=
            &format!("      - {{name: web{number}, address: \"{}:{PORT}\"}}\n", backend4(*number));
    }
    yaml
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

#[test]
fn a_stopped_backend_costs_nobody_else_anything() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    lab.stop_server(2);
    lab.start_server(2).unwrap();
    let servers = std::mem::take(&mut lab.servers);
    let mut servers: Vec<_> = servers.into_iter().collect();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&[1, 2, 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let held = Held::open(&lab.client, target(), 300).unwrap();
    let before = held.count();
    assert_eq!(before.len(), 3, "{before:?}");
    servers[1] = None;
    daemon.wait("web2 is DOWN and out of the ring", MINUTE, |status| {
        backend(status, "web", "web2").is_some_and(|web2| web2.state == "DOWN" && web2.slots == 0)
    });
    // After detection: nothing fails, and nobody of the other two has moved.
    let tally = requests(&lab.client, target(), 500, 10);
    assert_eq!((tally.ok(), tally.failures()), (500, 0), "{tally:?}\n{}", daemon.log_tail());
    assert!(!tally.answered.contains_key("web2"), "{tally:?}");
    let broken = held.broken();
    let others: Vec<_> = broken.iter().filter(|line| !line.contains("of web2")).collect();
    assert!(others.is_empty(), "{others:#?}\n{}", daemon.log_tail());
    assert_eq!(broken.len(), before["web2"], "{broken:#?}");
    drop(held);
    daemon.wait_settled(MINUTE);
}

#[test]
fn two_thousand_connections_outlive_add_drain_and_remove() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    lab.add_backend().unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&[1, 2])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let load = Load::start(&lab.client, &[target()], 4, Duration::from_millis(5));

    let held = Held::open(&lab.client, target(), 2000).unwrap();
    daemon.write(&yaml(&[1, 2, 3])).unwrap();
    daemon.wait("web3 takes flows", MINUTE, |status| {
        backend(status, "web", "web3").is_some_and(|web3| web3.state == "UP" && web3.slots > 300)
    });
    outlive(&daemon, held, "the addition of web3");

    let held = Held::open(&lab.client, target(), 2000).unwrap();
    drain_web1(&lab, &daemon);
    outlive(&daemon, held, "the draining of web1");

    daemon.must(&["ready", "web/web1"]);
    daemon.wait("web1 takes flows again", MINUTE, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.slots > 300)
    });
    let held = Held::open(&lab.client, target(), 2000).unwrap();
    assert!(held.count()["web1"] > 300, "{:?}", held.count());
    drain_web1(&lab, &daemon);
    daemon.write(&yaml(&[2, 3])).unwrap();
    daemon.wait("web1 is removed", MINUTE, |status| {
        backend(status, "web", "web1").is_none_or(|web1| web1.admin == "removed")
    });
    outlive(&daemon, held, "the removal of web1");
    let status = daemon.status();
    assert!(
        backend(&status, "web", "web1").is_none(),
        "web1 is gone once nothing names it: {status:#?}"
    );
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

#[track_caller]
fn drain_web1(lab: &Lab, daemon: &Daemon<'_>) {
    daemon.must(&["drain", "web/web1"]);
    daemon.wait("web1 owns no slot", MINUTE, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.admin == "drain" && web1.slots == 0)
    });
    let tally = requests(&lab.client, target(), 300, 10);
    assert_eq!((tally.ok(), tally.failures()), (300, 0), "{tally:?}");
    assert!(
        !tally.answered.contains_key("web1"),
        "a drained backend got new connections: {tally:?}"
    );
}

/// The connections live through the window, the harvest and what follows; once they have closed, every slot settles and no pin is
/// left.
#[track_caller]
fn outlive(daemon: &Daemon<'_>, held: Held, what: &str) {
    assert_eq!(held.broken(), [""; 0], "{what}: {}", daemon.log_tail());
    daemon.wait(&format!("window and harvest are over after {what}"), MINUTE, |status| {
        status.services.iter().all(|service| service.slots.window + service.slots.harvest == 0)
    });
    assert_eq!(held.broken(), [""; 0], "{what}, after the harvest: {}", daemon.log_tail());
    drop(held);
    daemon.wait_settled(MINUTE);
}
