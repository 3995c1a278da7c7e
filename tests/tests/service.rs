//! The daemon under a service manager: what it says, with what it makes do, and that its end is not the end of forwarding.

use std::{
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::Path,
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

/// Programs that the unit starts as root before the daemon, in this machine.
fn prepare_as_the_unit_says(lab: &Lab, user: u32, configuration: &Path) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/systemd/lb.service");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ExecStartPre=+")).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        let line = line.trim_start_matches('-').replace("lb:lb", &format!("{user}:{user}"));
        lab.lb.sh(&line.replace("/etc/lb", &configuration.display().to_string())).unwrap();
    }
}

#[test]
fn the_units_user_and_capabilities_suffice() {
    const USER: u32 = 4_242;
    let capabilities = unit("CapabilityBoundingSet");
    assert_eq!(capabilities.len(), 4, "{capabilities:?}");
    assert_eq!(capabilities, unit("AmbientCapabilities"));
    assert_eq!(unit("User"), ["lb"]);
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(
        &lab.lb,
        &lab.nics,
        &yaml().replace("port: 8080}", "port: 8080, add_address_to: lb0}"),
    )
    .unwrap();
    // What root has loaded before becomes the user's, as on a node whose unit was another one.
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    daemon.stop().unwrap();
    prepare_as_the_unit_says(&lab, USER, &daemon.directory);
    for directory in ["run", "state"] {
        let path = daemon.directory.join(directory);
        lab.lb.sh(&format!("chown -R {USER}:{USER} {}", path.display())).unwrap();
    }
    lab.lb.sh(&format!("chmod 644 {}", daemon.config.display())).unwrap();
    let run = daemon.run_command();
    let set = capabilities.iter().map(|name| name.to_lowercase().replace("cap_", "+"));
    let set = format!("-all,{}", set.collect::<Vec<_>>().join(","));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
    command.args(["--no-new-privs", "--bounding-set", &set, "--inh-caps", &set]);
    command.args(["--ambient-caps", &set]);
    command.arg(run.get_program()).args(run.get_args());
    let mut child = lab.lb.spawn(command).unwrap();
    let status = daemon.wait_ready(&["NOLB"]);
    assert_eq!(status.pid, child.id());
    let said = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    println!("{said}");
    assert!(said.contains("NoNewPrivs:\t1") && said.contains(&format!("Uid:\t{USER}\t{USER}")));
    all_answered(&lab, "as the unit's user");
    // Everything that a running daemon does to the kernel.
    let two = yaml().replace("name: web\n", "name: web\n    allow: [10.0.0.0/8]\n");
    let new = daemon.directory.join("new.yaml");
    std::fs::write(&new, &two).unwrap();
    daemon.must(&["apply", &new.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&daemon.config).unwrap(), two, "the file is replaced");
    daemon.must(&["reload"]);
    daemon.must(&["lookup", "10.77.0.9:4000", "10.77.0.80:8080"]);
    all_answered(&lab, "after a reload");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A daemon that root starts keeps no more than one that the unit starts, in any of its threads.
#[test]
fn s14_what_is_not_needed_is_given_up() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let pid = daemon.pid().unwrap();
    let mut threads = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap();
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let kept: u64 = [0, 10, 12, 13, 38, 39].into_iter().map(|number| 1 << number).sum();
        assert_eq!(set("CapPrm:") & !kept, 0, "{status}");
        assert_eq!(set("CapEff:") & !kept, 0, "{status}");
        assert_eq!((set("CapBnd:"), set("CapInh:"), set("CapAmb:")), (0, 0, 0), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        threads += 1;
    }
    assert!(threads > 1, "the runtime has threads");
    std::fs::write(&daemon.config, yaml().replace("name: web\n", "name: shop\n")).unwrap();
    daemon.must(&["reload"]);
    daemon.must(&["detach"]);
}

#[test]
fn systemd_understands_the_unit_and_finds_it_hardened() {
    let directory = tempfile::tempdir().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/systemd/lb.service");
    let text = std::fs::read_to_string(path).unwrap();
    let unit = directory.path().join("lb.service");
    std::fs::write(&unit, text.replace("/usr/bin/lb", "/bin/true")).unwrap();
    let said = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (good, text) = said(&["verify", "--man=no"]);
    assert!(good && text.trim().is_empty(), "{text}");
    // In tenths: 0 = nothing is exposed, 100 = everything.
    let (good, text) = said(&["security", "--offline=yes", "--threshold=25", "--no-pager"]);
    println!("{}", text.lines().last().unwrap_or_default());
    assert!(good, "{text}");
}
