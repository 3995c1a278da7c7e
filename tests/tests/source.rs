//! `balance: source`: a client stays with its backend, whatever its ports, and through changes of the others.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Held, by_client, requests},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(balance: &str, backends: &[usize]) -> String {
    let mut yaml = "services:\n".to_owned();
    for protocol in ["tcp", "udp"] {
        yaml += &format!(
            "  - name: {protocol}\n    listen: {{address: 10.77.0.80, port: {PORT}, protocol: {protocol}}}\n    forward: nat\n    \
             balance: {balance}\n    window: 1s\n    timeouts: {}\n    backends:\n",
            if protocol == "tcp" { "{tcp: 3s, tcpfin: 1s}" } else { "{udp: 3s}" }
        );
        for number in backends {
            yaml += &format!(
                "      - {{name: web{number}, address: \"{}:{PORT}\"}}\n",
                backend4(*number)
            );
        }
    }
    yaml
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

/// Who answers 100 connections.
fn who(lab: &Lab) -> BTreeSet<String> {
    let tally = requests(&lab.client, target(), 100, 10);
    assert_eq!((tally.ok(), tally.failures()), (100, 0), "{tally:?}");
    tally.answered.into_keys().collect()
}

#[test]
fn a_client_has_one_backend_and_the_clients_all() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    for last in 100..160 {
        lab.client.ip(&format!("addr add 10.77.1.{last}/24 dev c0")).unwrap();
    }
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("source", &[1, 2, 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let mine = who(&lab);
    assert_eq!(mine.len(), 1, "all connections of one client: {mine:?}");
    let lookup = daemon.lookup("10.77.1.2:1", "10.77.0.80:8080");
    assert_eq!(lookup.backend.as_ref(), mine.first(), "{lookup:?}");
    let before = by_client(&lab.client, target(), 100..160);
    assert_eq!(
        by_client(&lab.client, target(), 100..160),
        before,
        "other ports, the same backends"
    );
    let distinct: BTreeSet<&String> = before.iter().collect();
    assert_eq!(distinct.len(), 3, "{before:?}");
    // With web3 in maintenance, only its clients move.
    daemon.must(&["maint", "udp/web3"]);
    let after = by_client(&lab.client, target(), 100..160);
    for (before, after) in before.iter().zip(&after).filter(|(before, _)| *before != "web3") {
        assert_eq!(before, after);
    }
    assert!(!after.contains(&"web3".to_owned()), "{after:?}");
}

#[test]
fn open_connections_outlive_a_change_of_balance() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("maglev", &[1, 2, 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    for balance in ["source", "maglev"] {
        let held = Held::open(&lab.client, target(), 300).unwrap();
        daemon.write(&yaml(balance, &[1, 2, 3])).unwrap();
        daemon.must(&["reload"]);
        let seen = who(&lab);
        assert_eq!(seen.len(), if balance == "source" { 1 } else { 3 }, "{balance}: {seen:?}");
        assert_eq!(held.broken(), [""; 0], "{balance}: {}", daemon.log_tail());
        daemon.wait("window and harvest are over", MINUTE, |status| {
            status.services.iter().all(|s| s.slots.window + s.slots.harvest == 0)
        });
        assert_eq!(held.broken(), [""; 0], "{balance}, after the harvest: {}", daemon.log_tail());
        drop(held);
        daemon.wait_settled(MINUTE);
    }
    // The daemon dies within such a window: what it leaves tells the next one by which hash either ring is asked.
    let held = Held::open(&lab.client, target(), 300).unwrap();
    daemon.write(&yaml("source", &[1, 2, 3])).unwrap();
    daemon.must(&["reload"]);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!(held.broken(), [""; 0], "after a restart: {}", daemon.log_tail());
    assert_eq!(who(&lab).len(), 1);
    drop(held);
    daemon.wait_settled(MINUTE);
}
