//! The prober's own faults are no backend's: rows F09, F10, F36, F37 and F39 of the catalogue of faults.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lb_tests::{
    client::{Held, Load, request_from, wait_for},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    pulse::Pulse,
    soak,
};
use lb_userspace::api::types::Event;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Backends, each with an HTTP check.
const BACKENDS: usize = 3;

fn lab() -> Lab {
    Lab::new(Arms::One, Return::ThroughLb, BACKENDS).unwrap()
}

fn yaml(timeout: &str) -> String {
    let backends: String = (1..=BACKENDS)
        .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
        .collect();
    format!(
        "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: nat\n    observe: layer4\n    \
         check: {{type: http, path: /healthz}}\n    \
         backend_defaults: {{inter: 200ms, fastinter: 100ms, fall: 2, timeout: {timeout}}}\n    backends:\n{backends}"
    )
}

fn started<'a>(lab: &'a Lab, timeout: &str) -> Daemon<'a> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(timeout)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    daemon
}

/// Events about backends.
fn changes(daemon: &Daemon<'_>) -> Vec<Event> {
    let kinds = ["backend_down", "backend_up", "ejected", "suspected"];
    let about = |event: &Event| kinds.contains(&event.kind.as_str());
    // The first answers brought them UP.
    daemon.events().into_iter().filter(|event| about(event) && event.kind != "backend_up").collect()
}

/// Probes of all backends that ended like this.
fn probes(daemon: &Daemon<'_>, code: &str) -> u64 {
    let status = daemon.status();
    (1..=BACKENDS)
        .map(|n| {
            let web = backend(&status, "web", &format!("web{n}")).unwrap();
            web.checks.as_ref().unwrap().codes[code]
        })
        .sum()
}

#[track_caller]
fn wait_probes(daemon: &Daemon<'_>, code: &str, more: u64) {
    let goal = probes(daemon, code) + more;
    wait_for(
        &format!("{more} probes end in {code}"),
        MINUTE,
        || probes(daemon, code),
        |n| *n >= goal,
    );
}

fn signal(daemon: &Daemon<'_>, signal: Signal) {
    kill(Pid::from_raw(daemon.pid().unwrap() as i32), signal).unwrap();
}

#[test]
fn f09_a_prober_without_descriptors_or_ports_finds_nobody_down() {
    let lab = lab();
    let daemon = started(&lab, "1s");
    let pid = daemon.pid().unwrap();
    let limits = lab
        .lb
        .sh(&format!("prlimit --pid {pid} --nofile --output SOFT,HARD --noheadings"))
        .unwrap();
    let limits = limits.split_whitespace().collect::<Vec<_>>().join(":");
    // What is open stays open; nothing more, the control socket's connections included.
    lab.lb
        .sh(&format!("prlimit --pid {pid} --nofile=4:{}", limits.split(':').nth(1).unwrap()))
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    lab.lb.sh(&format!("prlimit --pid {pid} --nofile={limits}")).unwrap();
    let without = probes(&daemon, "SOCKERR");
    println!("F09: {without} probes without a descriptor");
    assert!(without >= 2 * 3, "the limit was not felt: {without}");
    assert_eq!(changes(&daemon), [], "without descriptors");
    wait_probes(&daemon, "L7OK", 6);

    // One port for all, and each backend's last connection still holds it.
    lab.lb
        .sh("sysctl -qw net.ipv4.tcp_tw_reuse=0 net.ipv4.ip_local_port_range='61000 61000'")
        .unwrap();
    wait_probes(&daemon, "SOCKERR", 12);
    assert_eq!(changes(&daemon), [], "without ports");
    lab.lb.sh("sysctl -qw net.ipv4.ip_local_port_range='32768 60999'").unwrap();
    wait_probes(&daemon, "L7OK", 6);
    assert!(daemon.log().contains("a probe could not be made"), "{}", daemon.log_tail());
    // A real fault is found as ever.
    lab.backends[0].ip("link set e0 down").unwrap();
    daemon.wait("web1 is DOWN", MINUTE, |status| {
        backend(status, "web", "web1").unwrap().state.starts_with("DOWN")
    });
}

#[test]
fn f37_a_frozen_daemon_finds_nobody_down_when_it_wakes_up() {
    let lab = lab();
    let daemon = started(&lab, "300ms");
    for _ in 0..3 {
        wait_probes(&daemon, "L7OK", 3);
        signal(&daemon, Signal::SIGSTOP);
        // Longer than `fall` probes and their time-outs.
        std::thread::sleep(Duration::from_millis(1_500));
        signal(&daemon, Signal::SIGCONT);
        wait_probes(&daemon, "L7OK", 6);
    }
    assert_eq!(changes(&daemon), [], "{}", daemon.log_tail());
}

#[test]
fn f39_full_contention_finds_nobody_down() {
    let lab = lab();
    let add: Vec<String> =
        (0..8).map(|n| format!("ip addr add 10.77.1.{}/24 dev c0", 100 + n)).collect();
    lab.client.sh(&add.join("; ")).unwrap();
    let daemon = started(&lab, "3s");
    let target = SocketAddr::new(VIP4, PORT);
    let client = |number: usize| IpAddr::from(Ipv4Addr::new(10, 77, 1, 100 + (number % 8) as u8));
    let visitors =
        Pulse::start(&lab.client, Duration::from_millis(20), Duration::from_secs(20), move |n| {
            request_from(target, Some(SocketAddr::new(client(n), 0)))
        });
    let time = Duration::from_secs(soak::rounds(20, 600));
    let stop = Arc::new(AtomicBool::new(false));
    let cpus = std::thread::available_parallelism().unwrap().get();
    let hogs: Vec<_> = (0..cpus * 4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let began = Instant::now();
    let before = probes(&daemon, "L7OK");
    while began.elapsed() < time {
        std::thread::sleep(Duration::from_secs(1));
    }
    stop.store(true, Ordering::Relaxed);
    hogs.into_iter().for_each(|hog| hog.join().unwrap());
    let (good, beats) = (probes(&daemon, "L7OK") - before, visitors.finish());
    println!(
        "F39: {} s with {} busy threads on {cpus} CPUs: {good} good probes, {} requests answered, {} failed",
        time.as_secs(),
        cpus * 4,
        beats.ok(),
        beats.failures()
    );
    assert_eq!(changes(&daemon), [], "{}", daemon.log_tail());
    assert!(good >= time.as_secs(), "hardly anything was probed: {good}");
    assert_eq!(beats.failures(), 0, "{beats:#?}");
}

/// F10 the other way round: clients get through, probes do not. The check decides, as in any load balancer: DOWN, no new
/// flows. With `on_marked_down: keep` nobody who is connected notices.
#[test]
fn f10_who_serves_clients_but_no_probes_is_down_and_keeps_them() {
    let lab = lab();
    let yaml = yaml("1s").replace("observe: layer4", "on_marked_down: keep");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let target = SocketAddr::new(VIP4, PORT);
    let held = Held::open(&lab.client, target, 60).unwrap();
    assert!(held.count().contains_key("web1"), "{:?}", held.count());
    let load = Load::start(&lab.client, &[target], 4, Duration::from_millis(3));
    // Probes come from lb's own address, clients' packets from theirs.
    let deaf = "nft add table ip deaf; nft add chain ip deaf in '{type filter hook input priority 0;}'; \
                nft add rule ip deaf in ip saddr 10.77.0.1 tcp dport 8080 counter drop";
    lab.backends[0].sh(deaf).unwrap();
    let without = daemon.wait("web1 is DOWN and takes nobody", MINUTE, |status| {
        let web1 = backend(status, "web", "web1").unwrap();
        web1.state == "DOWN" && web1.slots == 0
    });
    assert_eq!(backend(&without, "web", "web1").unwrap().check, "L4TOUT");
    assert_eq!(held.broken(), [""; 0], "connections to who serves them");
    lab.backends[0].sh("nft delete table ip deaf").unwrap();
    daemon.wait("web1 is UP and takes its share", MINUTE, |status| {
        let web1 = backend(status, "web", "web1").unwrap();
        web1.state == "UP" && web1.slots > 0
    });
    assert_eq!(held.broken(), [""; 0]);
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

/// The machine's clock is everybody's: a library in front of the daemon's shifts what it reads of it, and nothing else.
#[test]
fn f36_the_wall_clock_jumps_a_day_and_nothing_happens() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("1s")).unwrap();
    let shift = daemon.directory.join("shift");
    let jump = |by: &str| {
        // Whole at every moment, as it may be read at any.
        let aside = shift.with_extension("new");
        std::fs::write(&aside, format!("{by}\n")).unwrap();
        std::fs::rename(&aside, &shift).unwrap();
    };
    jump("+0");
    daemon.environment = vec![
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1".to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", shift.to_str().unwrap().to_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let load =
        Load::start(&lab.client, &[SocketAddr::new(VIP4, PORT)], 4, Duration::from_millis(3));
    let some_probes = || {
        let began = Instant::now();
        wait_probes(&daemon, "L7OK", 30);
        began.elapsed()
    };
    // What has a time of its own: a trial.
    let draft = daemon.directory.join("draft.yaml");
    std::fs::write(&draft, format!("# on trial\n{}", yaml("1s"))).unwrap();
    daemon.must(&["apply", draft.to_str().unwrap(), "--confirm", "10m"]);
    let usual = some_probes();
    let day = 86_400_000;
    for (by, weight, expected) in [("+1d", "90", day), ("-1d", "80", -day), ("+0", "70", 0)] {
        jump(by);
        let after = some_probes();
        println!("F36: 30 probes took {usual:?}, and {after:?} after {by}");
        assert!(after > usual / 3, "a burst of probes after {by}: {after:?}, usually {usual:?}");
        assert_eq!(changes(&daemon), [], "{by}: {}", daemon.log_tail());
        // The daemon did see it.
        daemon.must(&["weight", "web/web1", weight]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let event = daemon.events().into_iter().rfind(|event| event.kind == "weight").unwrap();
        let shifted = event.unix_milliseconds as i64 - now.as_millis() as i64;
        assert!((shifted - expected).abs() < 60_000, "{by}: shifted by {shifted} ms");
    }
    daemon.must(&["confirm"]);
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}
