//! A hundred backends that flap ten times a second keep no other service waiting and break no flow of other backends
//! (fault case F07).

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lb_tests::{
    client::{Held, Load},
    crowd::Crowd,
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

const MINUTE: Duration = Duration::from_secs(60);
/// Backends that flap.
const FLAPPING: usize = 100;
/// Half of a flap: ten are a second.
const HALF: Duration = Duration::from_millis(50);
/// A second of their changes.
const A_SECOND: u64 = 2_000;
/// Where the service that flaps listens; the quiet one is at the lab's VIP.
const RESTLESS: &str = "10.77.0.81";

/// `quiet` has web1 and web2; `restless` has web3, which is well, and a hundred that flap.
fn yaml() -> String {
    let mut yaml = format!(
        "backend_defaults: {{inter: 50ms, fastinter: 50ms, downinter: 50ms, rise: 1, fall: 1, timeout: 5s}}\n\
         services:\n  - name: quiet\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: nat\n    on_marked_down: keep\n    \
         check: {{type: http, path: /healthz}}\n    backends:\n      \
         - {{name: web1, address: \"{}:{PORT}\"}}\n      - {{name: web2, address: \"{}:{PORT}\"}}\n  \
         - name: restless\n    listen: {{address: {RESTLESS}, port: {PORT}}}\n    forward: nat\n    \
         check: {{type: http, path: /healthz}}\n    backends:\n      - {{name: web3, address: \"{}:{PORT}\", weight: 100}}\n",
        backend4(1),
        backend4(2),
        backend4(3),
    );
    for number in 0..FLAPPING {
        let address = Crowd::address(number);
        yaml +=
            &format!("      - {{name: flap{number}, address: \"{address}:{PORT}\", weight: 1}}\n");
    }
    yaml
}

#[test]
fn f07_a_hundred_that_flap_keep_nobody_waiting_and_break_nobody_elses_flows() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let crowd = Arc::new(Crowd::among(&lab).unwrap());
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let quiet = SocketAddr::new(VIP4, PORT);
    let restless = SocketAddr::new(RESTLESS.parse::<IpAddr>().unwrap(), PORT);
    let quiet_flows = Held::open(&lab.client, quiet, 40).unwrap();
    // Half of them are web3's; the crowd keeps no connection open.
    let mixed = Held::open(&lab.client, restless, 40).unwrap();
    assert!(mixed.count().get("web3").is_some_and(|count| *count > 5), "{:?}", mixed.count());

    let (stop, flaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flapper = thread::spawn({
        let (crowd, stop, flaps) = (crowd.clone(), stop.clone(), flaps.clone());
        move || {
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                (0..FLAPPING).for_each(|number| crowd.set_healthy(number, round % 2 == 1));
                flaps.fetch_add(1, Ordering::Relaxed);
                thread::sleep(HALF);
            }
        }
    });
    let load = Load::start(&lab.client, &[quiet], 4, Duration::from_millis(20));
    let changes = |daemon: &Daemon<'_>| -> u64 {
        let stats = daemon.events();
        stats.last().map_or(0, |event| event.id)
    };
    let before = changes(&daemon);
    daemon.wait("the crowd flaps", MINUTE, |_| changes(&daemon) > before + A_SECOND);

    for (round, healthy) in [false, true, false, true].into_iter().enumerate() {
        let server = lab.servers[0].as_ref().unwrap();
        server.healthy.store(healthy, Ordering::Relaxed);
        // Seen by the check, and then in the ring, while the others have changed so many times.
        let word = if healthy { "UP" } else { "DOWN" };
        daemon.wait(&format!("web1 is {word}"), MINUTE, |status| {
            backend(status, "quiet", "web1").is_some_and(|web1| web1.state == word)
        });
        let seen = changes(&daemon);
        daemon.wait(&format!("web1 is {word} in the ring"), MINUTE, |status| {
            backend(status, "quiet", "web1").is_some_and(|web1| (web1.slots > 0) == healthy)
        });
        let applied = changes(&daemon);
        println!(
            "round {round}: {} other changes until web1 was {word} in the ring",
            applied - seen
        );
        assert!(
            applied - seen < 2 * A_SECOND,
            "{} other changes came first\n{}",
            applied - seen,
            daemon.log_tail()
        );
        // And they go on.
        daemon.wait("the crowd still flaps", MINUTE, |_| changes(&daemon) > applied + 100);
    }

    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
    assert!(tally.ok() > 0, "{tally:?}");
    stop.store(true, Ordering::Relaxed);
    flapper.join().unwrap();
    assert_eq!(quiet_flows.broken(), [""; 0], "{}", daemon.log_tail());
    let of_web3 = |line: &String| line.contains("connection of web3 ");
    let broken: Vec<String> = mixed.broken().into_iter().filter(of_web3).collect();
    assert_eq!(broken, [""; 0], "{}", daemon.log_tail());
    println!(
        "{} requests, none failed; {} rounds of {FLAPPING} flaps; events: {}",
        tally.ok(),
        flaps.load(Ordering::Relaxed),
        changes(&daemon)
    );
    // When they rest, all is as it was.
    (0..FLAPPING).for_each(|number| crowd.set_healthy(number, true));
    daemon.wait("everybody is in the ring again", MINUTE, |status| {
        let all = status.services.iter().flat_map(|service| &service.backends);
        all.clone().count() == FLAPPING + 3
            && all.clone().all(|one| one.state == "UP" && one.slots > 0)
    });
}
