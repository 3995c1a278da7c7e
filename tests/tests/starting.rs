//! A service that is new waits for the first answer of every check before any of them counts, whatever is asked of it
//! meanwhile: else the first backend to answer would have every slot.

use std::net::SocketAddr;

use lb_tests::{
    client::requests,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

const REQUESTS: usize = 60;

#[test]
fn reloads_before_the_first_answers_move_no_slot() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let backends = (1..=3)
        .map(|number| format!("{{name: web{number}, address: \"{}:{PORT}\"}}", backend4(number)))
        .collect::<Vec<_>>()
        .join(", ");
    // The checks of two are not answered for a while; their service would wait for five seconds.
    let yaml = format!(
        "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: nat\n    check: {{type: tcp}}\n    \
         backend_defaults: {{timeout: 5s}}\n    backends: [{backends}]\n"
    );
    for silent in &lab.backends[1..] {
        silent
            .sh(&format!(
                "nft add table t; nft add chain t i '{{ type filter hook input priority 0; }}'; \
                 nft add rule t i tcp dport {PORT} drop"
            ))
            .unwrap();
    }
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    let states = |status: &lb_userspace::api::types::Status| -> Vec<String> {
        status.services[0].backends.iter().map(|backend| backend.state.clone()).collect()
    };
    daemon.wait("one check is answered", std::time::Duration::from_secs(4), |status| {
        states(status) == ["UP", "DOWN", "DOWN"]
    });
    for round in 1..=3 {
        daemon.write(&format!("{yaml}# {round}\n")).unwrap();
        let said = daemon.must(&["reload"]);
        assert!(!said.contains("change hands"), "{said}");
        let status = daemon.status();
        let slots: Vec<u32> =
            status.services[0].backends.iter().map(|backend| backend.slots).collect();
        assert!(slots.iter().all(|slots| (300..400).contains(slots)), "{slots:?}\n{status:#?}");
        assert_eq!(states(&status), ["UP", "DOWN", "DOWN"], "{}", daemon.log_tail());
    }
    for silent in &lab.backends[1..] {
        silent.sh("nft delete table t").unwrap();
    }
    daemon.wait_ready(&["UP"]);
    let tally = requests(&lab.client, SocketAddr::new(VIP4, PORT), REQUESTS, 10);
    let context = || format!("{tally:?}\n{:#?}\n{}", daemon.stats(), daemon.log_tail());
    assert_eq!((tally.ok(), tally.failures()), (REQUESTS as u64, 0), "{}", context());
    assert_eq!(tally.answered.len(), 3, "{}", context());
    assert_eq!(daemon.status().services[0].moved_slots, 0, "{}", context());
}
