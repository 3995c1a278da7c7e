//! The daemon under a service manager: what it says, with what it makes do, and that its end is not the end of forwarding.

use std::{
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use lb_tests::{
    client::requests,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml() -> String {
    format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    backends:\n      \
         - {{name: web1, address: \"{}:{PORT}\"}}\n",
        backend4(1)
    )
}

#[track_caller]
fn all_answered(lab: &Lab, when: &str) {
    let tally = requests(&lab.client, SocketAddr::new(VIP4, PORT), 50, 5);
    assert_eq!((tally.ok(), tally.failures()), (50, 0), "{when}: {tally:?}");
}

/// The values of a key of the unit that we ship.
fn unit(key: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/systemd/lb.service");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(|values| values.split_whitespace().map(str::to_owned)).collect()
}

#[test]
fn readiness_life_and_the_end_are_told() {
    assert_eq!(unit("Type"), ["notify"]);
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    let path = daemon.directory.join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let hear = |wanted: &str| {
        let deadline = Instant::now() + MINUTE;
        let mut heard = Vec::new();
        loop {
            let mut message = [0u8; 4096];
            if let Ok(length) = manager.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if text.lines().any(|line| line == wanted) {
                    return;
                }
                heard.push(text);
            }
            assert!(Instant::now() < deadline, "no {wanted}, only {heard:?}");
        }
    };
    daemon.environment = vec![
        ("NOTIFY_SOCKET", path.display().to_string()),
        ("WATCHDOG_USEC", "1000000".to_owned()),
    ];
    daemon.launch().unwrap();
    hear("READY=1");
    daemon.wait_ready(&["NOLB"]);
    all_answered(&lab, "once it is ready");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    let pid = daemon.pid().unwrap();
    lab.lb.sh(&format!("kill -TERM {pid}")).unwrap();
    hear("STOPPING=1");
    all_answered(&lab, "after systemctl stop");
}

#[test]
fn the_units_capabilities_suffice() {
    let capabilities = unit("CapabilityBoundingSet");
    assert_eq!(capabilities.len(), 3, "{capabilities:?}");
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let daemon = Daemon::new(
        &lab.lb,
        &lab.nics,
        &yaml().replace("port: 8080}", "port: 8080, add_address_to: lb0}"),
    )
    .unwrap();
    let run = daemon.run_command();
    let set = capabilities.iter().map(|name| name.to_lowercase().replace("cap_", "+"));
    let set = format!("-all,{}", set.collect::<Vec<_>>().join(","));
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--bounding-set", &set, "--inh-caps", &set]);
    command.arg(run.get_program()).args(run.get_args());
    let mut child = lab.lb.spawn(command).unwrap();
    daemon.wait_ready(&["NOLB"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    println!("{status}");
    assert!(status.contains("NoNewPrivs:\t1"));
    all_answered(&lab, "with the unit's capabilities");
    child.kill().unwrap();
    child.wait().unwrap();
}
