//! What a backend can do wrong, and how soon its checks find it: rows F01 to F06 of the catalogue of faults. Order and counts
//! are asserted, times are printed. (`passive` has the same by clients' own connections.)

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use lb_tests::{
    client::{Held, request, wait_for},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    machine::Machine,
    pulse::{Beats, Pulse},
    server::Server,
};
use lb_userspace::api::types::Event;

const MINUTE: Duration = Duration::from_secs(60);
/// As in [`CHECK`].
const FALL: u64 = 3;
const CHECK: &str = "check: {type: http, path: /healthz}\n    backend_defaults: {inter: 300ms, fastinter: 300ms, fall: 3, timeout: 600ms}";
const TCP_CHECK: &str = "check: {type: tcp}\n    backend_defaults: {inter: 300ms, fastinter: 300ms, fall: 3, timeout: 600ms}";

/// A lab with three backends, whose servers are taken out of it, so that they can be stopped.
fn lab() -> (Lab, Vec<Option<Server>>) {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let servers = std::mem::take(&mut lab.servers);
    (lab, servers)
}

fn started<'a>(lab: &'a Lab, more: &str) -> Daemon<'a> {
    let backends: String = (1..=3)
        .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
        .collect();
    let yaml = format!(
        "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: nat\n    {more}\n    \
         backends:\n{backends}"
    );
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    daemon
}

/// A request every 10 ms.
fn pulse(lab: &Lab) -> Pulse {
    let target = SocketAddr::new(VIP4, PORT);
    Pulse::start(&lab.client, Duration::from_millis(10), Duration::from_secs(8), move |_| {
        request(target)
    })
}

fn unix_milliseconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

fn downs(daemon: &Daemon<'_>) -> Vec<Event> {
    daemon.events().into_iter().filter(|event| event.kind == "backend_down").collect()
}

/// Waits until web1 is DOWN for what its check found, and nobody else is; prints how long it took, and returns it.
#[track_caller]
fn wait_down(daemon: &Daemon<'_>, row: &str, began: u64, code: &str) -> u64 {
    let seen = wait_for("web1 is DOWN", MINUTE, || downs(daemon), |downs| !downs.is_empty());
    let names: Vec<_> = seen.iter().map(|event| event.backend.as_deref()).collect();
    assert_eq!(names, [Some("web1")], "{seen:#?}");
    assert!(seen[0].cause.starts_with(code), "{seen:#?}");
    let took = seen[0].unix_milliseconds - began;
    println!("{row}: DOWN by its check after {took} ms ({})", seen[0].cause);
    daemon.wait("web1 has no slot", MINUTE, |status| {
        backend(status, "web", "web1").unwrap().slots == 0
    });
    took
}

/// After web1 is out nothing fails any more, and the others answer.
#[track_caller]
fn assert_well(pulse: Pulse) -> Beats {
    let before = pulse.take();
    let goal = pulse.look().ok() + 100;
    wait_for("requests are answered", MINUTE, || pulse.look(), |beats| beats.ok() >= goal);
    let after = pulse.finish();
    assert_eq!(after.failures(), 0, "after web1 was out: {after:#?}");
    assert!(!after.answered.contains_key("web1"), "{after:#?}");
    before
}

#[test]
fn f01_a_crash_is_found_by_refused_connections() {
    let (lab, mut servers) = lab();
    let daemon = started(&lab, CHECK);
    let held = Held::open(&lab.client, SocketAddr::new(VIP4, PORT), 60).unwrap();
    let at_web1 = held.count()["web1"];
    let pulse = pulse(&lab);
    let began = unix_milliseconds();
    servers[0] = None;
    wait_down(&daemon, "F01 crash", began, "L4CON");
    let before = assert_well(pulse);
    println!("F01: {} requests failed before, {} answered", before.failures(), before.ok());
    let broken = held.broken();
    assert_eq!(broken.len(), at_web1, "only those of web1: {broken:#?}");
}

/// A listener that accepts nothing: the kernel completes handshakes, and nobody reads.
fn silent(machine: &Machine, number: usize) -> TcpListener {
    let address = SocketAddr::new(backend4(number), PORT);
    machine.run(move || TcpListener::bind(address)).unwrap()
}

#[test]
fn f02_a_hang_is_found_by_time_out_and_not_before() {
    let (lab, mut servers) = lab();
    let daemon = started(&lab, CHECK);
    servers[0] = None;
    let began = unix_milliseconds();
    let _silent = silent(&lab.backends[0], 1);
    let took = wait_down(&daemon, "F02 hang", began, "L7TOUT");
    assert!(took >= 600 * (FALL - 1), "sooner than time-outs allow: {took} ms");
    assert_well(pulse(&lab));
}

#[test]
fn f03_a_syn_blackhole_is_found_by_time_out() {
    let (lab, _servers) = lab();
    let daemon = started(&lab, TCP_CHECK);
    let pulse = pulse(&lab);
    let began = unix_milliseconds();
    lab.backends[0]
        .sh(
            "nft add table inet f; nft add chain inet f in '{type filter hook input priority 0;}'; \
             nft add rule inet f in tcp flags syn drop",
        )
        .unwrap();
    let took = wait_down(&daemon, "F03 SYN blackhole", began, "L4TOUT");
    assert!(took >= 600 * (FALL - 1), "sooner than time-outs allow: {took} ms");
    let before = assert_well(pulse);
    // A SYN that is repeated meets another backend, once web1 is out.
    assert_eq!(before.failures(), 0, "{before:#?}");
}

#[test]
fn f04_flows_of_a_rebooted_backend_are_reset_by_it_and_never_go_elsewhere() {
    let (lab, mut servers) = lab();
    let slow =
        "check: {type: tcp}\n    backend_defaults: {inter: 60s, fastinter: 500ms, timeout: 1s}";
    let daemon = started(&lab, slow);
    let held = Held::open(&lab.client, SocketAddr::new(VIP4, PORT), 60).unwrap();
    let at_web1 = held.count()["web1"];
    // Nothing of its end gets out: no FIN, no RST.
    lab.backends[0]
        .sh("nft add table inet f; nft add chain inet f out '{type filter hook output priority 0;}'; \
             nft add rule inet f out meta l4proto tcp drop; ss -K -t >/dev/null")
        .unwrap();
    let left = lab.backends[0].sh("ss -Htn state established | wc -l").unwrap();
    assert_eq!(left.trim(), "0", "the kernel still knows connections");
    servers[0] = None;
    servers[0] = Some(lab.server(1).unwrap());
    lab.backends[0].sh("nft delete table inet f").unwrap();
    let broken = held.broken();
    assert_eq!(broken.len(), at_web1, "{broken:#?}");
    assert!(broken.iter().all(|text| text.contains("reset")), "{broken:#?}");
    assert_eq!(downs(&daemon), [], "it was back before its check noticed");
    println!("F04 reboot: {at_web1} flows of web1 were reset by it, none went elsewhere");
}

#[test]
fn f05_a_slow_answer_is_timed_out_and_delays_no_other_probe() {
    let (lab, mut servers) = lab();
    let daemon = started(&lab, CHECK);
    servers[0] = None;
    let listener = silent(&lab.backends[0], 1);
    let began = unix_milliseconds();
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    // Answers everybody, five seconds late.
    lab.backends[0].run(move || {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                if end.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_secs(5));
                    // The prober has long gone.
                    let _ = stream.read(&mut [0; 512]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                });
            }
        });
    });
    let good = |name: &str| {
        let status = daemon.status();
        backend(&status, "web", name).unwrap().checks.as_ref().unwrap().codes["L7OK"]
    };
    let (before, at) = ([good("web2"), good("web3")], Instant::now());
    wait_down(&daemon, "F05 slow answer", began, "L7TOUT");
    let (after, passed) = ([good("web2"), good("web3")], at.elapsed());
    let probes = [after[0] - before[0], after[1] - before[1]];
    println!("F05: others were asked {probes:?} times in {} ms", passed.as_millis());
    // Every 300 ms; on a busy machine half of that.
    let least = passed.as_millis() as u64 / 600;
    assert!(probes.iter().all(|probes| *probes >= least), "{probes:?}, {least} expected");
    ended.store(true, Ordering::Relaxed);
}

/// CPU time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn f06_a_storm_of_resets_takes_the_backend_out_and_not_the_controller() {
    let (lab, _servers) = lab();
    let daemon =
        started(&lab, &format!("count_connections: true\n    observe: layer4\n    {TCP_CHECK}"));
    let pulse = pulse(&lab);
    let began = unix_milliseconds();
    let (cpu_before, at) = (cpu(daemon.pid().unwrap()), Instant::now());
    lab.backends[0]
        .sh(
            "nft add table inet f; nft add chain inet f in '{type filter hook input priority 0;}'; \
             nft add rule inet f in meta l4proto tcp reject with tcp reset",
        )
        .unwrap();
    wait_down(&daemon, "F06 reset storm", began, "L4CON");
    let share =
        (cpu(daemon.pid().unwrap()) - cpu_before).as_secs_f64() / at.elapsed().as_secs_f64();
    println!("F06: the controller took {:.1} % of a CPU", share * 100.0);
    assert!(share < 0.2, "{share}");
    let before = assert_well(pulse);
    println!("F06: {} requests failed before, {} answered", before.failures(), before.ok());
    // Resets end connections: what is left was on its way when they came.
    let counted = daemon.stats().services[0].backends[0].connections.unwrap();
    assert!(counted.active == 0 && counted.inactive < 20, "{counted:?}");
}
