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

fn yaml(weight: u16) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    ring_size: 4093\n    \
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
    let load = Load::start(&lab.client, &[target], 4, Duration::from_millis(4));
    let mut last = Counters::default();
    let mut phases_seen = [false; 4];
    for round in 0..ROUNDS {
        // A change of weights opens a window; every third round the daemon dies while it applies one.
        let weight = [100, 20, 60, 150][round % 4];
        daemon.write(&yaml(weight)).unwrap();
        if round % 3 == 0 {
            daemon.kill().unwrap();
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
            let share = web1.slots as f64 / 4093.0;
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
    drop(held);
    daemon.wait_settled(MINUTE);
}
