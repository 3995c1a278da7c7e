//! What the packet path knows of connections: how many are open, and how long backends took to accept them.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use lb_tests::{
    client::{Held, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::api::types::Connections;

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(lab: &Lab, more: &str) -> String {
    let backends: String = (1..=lab.backends.len())
        .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
        .collect();
    format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    {more}\n    backends:\n{backends}"
    )
}

/// Open connections by backend; `None` = not known.
fn counted(daemon: &Daemon<'_>) -> Vec<Option<Connections>> {
    daemon.stats().services[0].backends.iter().map(|backend| backend.connections).collect()
}

fn sum(counted: &[Option<Connections>]) -> (u64, u64) {
    counted.iter().flatten().fold((0, 0), |(active, inactive), connections| {
        (active + connections.active, inactive + connections.inactive)
    })
}

#[track_caller]
fn wait_counted(daemon: &Daemon<'_>, active: u64, inactive: u64) -> Vec<Option<Connections>> {
    let what = format!("{active} active connections, {inactive} others");
    wait_for(&what, MINUTE, || counted(daemon), |seen| sum(seen) == (active, inactive))
}

#[test]
fn open_connections_are_counted_exactly() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let counting = yaml(&lab, "forward: nat\n    count_connections: true");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &counting).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    wait_counted(&daemon, 0, 0);

    let vip = SocketAddr::new(VIP4, PORT);
    let held = Held::open(&lab.client, vip, 200).unwrap();
    let seen = wait_counted(&daemon, 200, 0);
    let by_server = held.count();
    for (number, connections) in seen.iter().enumerate() {
        let server = by_server.get(&format!("web{}", number + 1)).copied().unwrap_or(0);
        assert_eq!(connections.unwrap().active, server as u64, "web{}", number + 1);
    }
    // Those that come and go leave nothing behind.
    let tally = requests(&lab.client, vip, 500, 8);
    assert_eq!(tally.failures(), 0, "{tally:?}");
    wait_counted(&daemon, 200, 0);

    // The count is the data plane's: it outlives the daemon.
    daemon.kill().unwrap();
    let more = Held::open(&lab.client, vip, 50).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    wait_counted(&daemon, 250, 0);
    drop(held);
    wait_counted(&daemon, 50, 0);

    // As ipvsadm shows them; and no number at all where nobody counts.
    let shown = daemon.must(&["stats", "--json"]);
    assert!(shown.contains("\"active\":"), "{shown}");
    daemon.write(&yaml(&lab, "forward: nat")).unwrap();
    daemon.must(&["reload"]);
    let seen = wait_for(
        "nothing is counted",
        MINUTE,
        || counted(&daemon),
        |seen| seen.iter().all(Option::is_none),
    );
    assert_eq!(seen.len(), 3);
    assert_eq!(more.broken(), Vec::<String>::new());
}

#[test]
fn a_half_open_connection_is_not_active() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let counting = yaml(&lab, "forward: nat\n    count_connections: true");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &counting).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    // The client's machine drops what the server says, but has sent its SYN.
    lab.client
        .sh("nft add table ip deaf; nft add chain ip deaf in '{type filter hook input priority 0;}'; \
             nft add rule ip deaf in ip saddr 10.77.0.80 drop")
        .unwrap();
    let half = lab.client.run(|| {
        std::thread::spawn(|| {
            TcpStream::connect_timeout(&SocketAddr::new(VIP4, PORT), MINUTE).map(drop)
        })
    });
    wait_counted(&daemon, 0, 1);
    lab.client.sh("nft delete table ip deaf").unwrap();
    half.join().unwrap().expect("the SYN is sent again");
    wait_counted(&daemon, 0, 0);
}

#[test]
fn handshakes_are_timed_as_the_client_sees_them() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&lab, "forward: nat")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let vip = SocketAddr::new(VIP4, PORT);
    let histogram = || daemon.stats().services[0].backends[0].handshake.clone().unwrap();
    let tally = requests(&lab.client, vip, 800, 4);
    assert_eq!(tally.failures(), 0, "{tally:?}");
    let quick = histogram();
    // One in eight, by a random number: 100 on average, with a standard deviation of 9.
    assert!((40..=160).contains(&quick.count), "{quick:?}");
    assert!(quick.sum_seconds > 0.0 && quick.buckets.last().unwrap().1 <= quick.count, "{quick:?}");

    // A server that is deaf at first is asked again after a second, and that counts from the first SYN.
    lab.backends[0]
        .sh("nft add table ip deaf; nft add chain ip deaf in '{type filter hook input priority 0;}'; \
             nft add rule ip deaf in tcp flags syn drop")
        .unwrap();
    let clients: Vec<_> = (0..300)
        .map(|_| {
            lab.client.run(move || {
                std::thread::spawn(move || {
                    let began = Instant::now();
                    TcpStream::connect_timeout(&vip, MINUTE).unwrap();
                    began.elapsed()
                })
            })
        })
        .collect();
    wait_for("all have asked", MINUTE, || daemon.stats().services[0].total.flows, |f| *f >= 1_100);
    lab.backends[0].sh("nft delete table ip deaf").unwrap();
    let times: Vec<Duration> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let slow = times.iter().filter(|time| time.as_secs_f64() > 0.6).count();
    assert_eq!(slow, times.len(), "{times:?}");
    let after = histogram();
    let at_most = |bound: f64| {
        let below = |histogram: &lb_userspace::api::types::Histogram| {
            histogram.buckets.iter().take_while(|(b, _)| *b <= bound).last().unwrap().1
        };
        below(&after) - below(&quick)
    };
    let measured = after.count - quick.count;
    assert!((8..=80).contains(&measured), "{measured} of 300");
    assert_eq!(at_most(0.6), 0, "{after:?}");
    let mean = (after.sum_seconds - quick.sum_seconds) / measured as f64;
    let clients_mean = times.iter().map(Duration::as_secs_f64).sum::<f64>() / times.len() as f64;
    assert!((mean / clients_mean - 1.0).abs() < 0.2, "{mean} s, but {clients_mean} s of clients");
}
