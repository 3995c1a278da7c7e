//! `kill -9` of the daemon, again and again, under load: forwarding, flows and counters do not notice.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Held, Load},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::api::types::Counters;

const MINUTE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 20;
/// Long enough for an apply to take milliseconds.
const SLOTS: u32 = 65_537;

fn yaml(weight: u16) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    ring_size: {SLOTS}\n    \
         window: 2s\n    timeouts: {{tcp: 5s, tcpfin: 1s}}\n    check: {{type: tcp}}\n    \
         backend_defaults: {{inter: 300ms, fastinter: 100ms, fall: 3, timeout: 2s}}\n    backends:\n"
    );
    for number in 1..=3 {
        let weight = if number == 1 { weight } else { 100 };
        yaml += &format!(
            "      - {{name: web{number}, address: \"{}:{PORT}\", weight: {weight}}}\n",
            backend4(number)
        );
    }
    yaml
}

#[test]
fn twenty_kills_lose_nothing() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(100)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let target = SocketAddr::new(VIP4, PORT);
    let held = Held::open(&lab.client, target, 200).unwrap();
    let load = Load::start(&lab.client, &[target], 8, Duration::from_millis(2));
    let mut last = Counters::default();
    let mut phases_seen = [false; 4];
    let mut inside_apply = 0;
    for round in 0..ROUNDS {
        // A change of weights opens a window; every third round the daemon dies while it applies one.
        let weight = [20, 100, 60, 150][round % 4];
        daemon.write(&yaml(weight)).unwrap();
        if round % 3 == 0 {
            kill_inside_apply(&mut daemon, &yaml(weight));
            inside_apply += usize::from(!has_applied(&daemon, round));
        } else {
            let pause = [0, 400, 2500, 5000][round % 4];
            std::thread::sleep(Duration::from_millis(pause));
            let slots = daemon.status().services[0].slots;
            for (seen, count) in phases_seen.iter_mut().zip([
                slots.settled,
                slots.window,
                slots.harvest,
                slots.pinned,
            ]) {
                *seen |= count > 0;
            }
            daemon.kill().unwrap();
        }
        let forwarded = load.tally().ok();
        lb_tests::client::wait_for(
            "requests go on without the daemon",
            MINUTE,
            || load.tally().ok(),
            |now| *now > forwarded + 50,
        );
        daemon.start().unwrap();
        let total = daemon.stats().services[0].total;
        let went_back = total.packets_in < last.packets_in
            || total.bytes_in < last.bytes_in
            || total.packets_out < last.packets_out
            || total.flows < last.flows;
        assert!(!went_back, "round {round}: counters went back from {last:?} to {total:?}");
        assert!(total.packets_in > last.packets_in, "round {round}: {total:?}");
        last = total;
        // What an interrupted apply has left undone is done by the next start.
        daemon.wait("the weight of the file is in force", MINUTE, |status| {
            let web1 = &status.services[0].backends[0];
            let share = web1.slots as f64 / SLOTS as f64;
            let wanted = weight as f64 / (weight as f64 + 200.0);
            web1.weight == weight && (share - wanted).abs() < 0.01
        });
        assert_eq!(held.broken(), [""; 0], "round {round}: {}", daemon.log_tail());
    }
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
    assert!(
        phases_seen[1] && phases_seen[2],
        "no kill met a window and a harvest: {phases_seen:?}"
    );
    assert!(inside_apply > 0, "no kill met an apply");
    drop(held);
    daemon.wait_settled(MINUTE);
}

/// An apply writes down what it is about to make true before it begins: as soon as that is seen, the daemon dies.
fn kill_inside_apply(daemon: &mut Daemon<'_>, yaml: &str) {
    let run = daemon.directory.join("run");
    let read = |name: &str| std::fs::read_to_string(run.join(name)).unwrap_or_default();
    let says = |state: &serde_json::Value| state["config_text"] == yaml;
    lb_tests::client::wait_at_once("the apply begins", MINUTE, || {
        let journal = read("state.journal");
        let mut lines = journal.lines().filter_map(|line| serde_json::from_str(line).ok());
        let begins = lines.any(|line: serde_json::Value| says(&line["head"]));
        begins || says(&serde_json::from_str(&read("state.json")).unwrap_or_default())
    });
    daemon.kill().unwrap();
}

/// Whether the log of the daemon's last life tells of a finished apply (it does so after the last step).
fn has_applied(daemon: &Daemon<'_>, round: usize) -> bool {
    let log = daemon.log();
    let life = log.rsplit("lb is running").next().unwrap_or_default();
    println!("round {round}: the daemon's last words:\n{life}");
    life.contains("slots change hands")
}
