//! What is wrong with the host, and what must not be allowed on it: rows of the catalogue of faults.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
    time::Duration,
};

use lb_tests::{
    client::{requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    recovery::detach_by_hand,
};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml() -> String {
    format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    backends:\n      \
         - {{name: web1, address: \"{}:{PORT}\"}}\n",
        backend4(1)
    )
}

fn lab() -> Lab {
    Lab::new(Arms::One, Return::ThroughLb, 1).unwrap()
}

/// Runs the daemon to its end, which is expected; after a minute it is made to end.
fn refused(lab: &Lab, daemon: &Daemon<'_>) -> (Option<i32>, String) {
    let run = daemon.run_command();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "60"]).arg(run.get_program()).args(run.get_args());
    said(lab.lb.output(command).unwrap())
}

fn said(output: Output) -> (Option<i32>, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[track_caller]
fn assert_says(said: &(Option<i32>, String), code: i32, words: &[&str]) {
    assert_eq!(said.0, Some(code), "{}", said.1);
    for word in words {
        assert!(said.1.contains(word), "`{word}` is missing: {}", said.1);
    }
}

#[test]
fn f41_pins_need_a_bpf_file_system_of_their_own() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    lab.lb.sh("mkdir -p /sys/fs/bpf/lb/strange/maps").unwrap();
    assert_says(&refused(&lab, &daemon), 1, &["strange", "remove it"]);
    // What another version has left that forwards nothing is taken over (what forwards: tests/upgrade.rs).
    lab.lb.sh("rmdir -p /sys/fs/bpf/lb/strange/maps; mkdir -p /sys/fs/bpf/lb/v999/maps").unwrap();
    daemon.start().unwrap();
    daemon.stop().unwrap();
    lab.lb.sh("! test -e /sys/fs/bpf/lb/v999").unwrap();
    daemon.must(&["detach"]);
    lab.lb.sh("umount /sys/fs/bpf && ! mount | grep -q 'on /sys/fs/bpf type bpf' || umount /sys/fs/bpf").unwrap();
    assert_says(&refused(&lab, &daemon), 1, &["mount -t bpf"]);
}

#[test]
fn f41_pins_of_somebody_else_are_left_alone() {
    let lab = lab();
    let daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    lab.lb.sh("mkdir /sys/fs/bpf/lb && chown 1234 /sys/fs/bpf/lb").unwrap();
    assert_says(&refused(&lab, &daemon), 1, &["/sys/fs/bpf/lb belongs to user 1234"]);
    lab.lb.sh("test $(stat -c %u /sys/fs/bpf/lb) = 1234 && rmdir /sys/fs/bpf/lb").unwrap();
    lab.lb.sh("mount -o remount,ro /sys/fs/bpf").unwrap();
    assert_says(&refused(&lab, &daemon), 1, &["mount -o remount,rw /sys/fs/bpf"]);
    let nic = lab.lb.ip("link show lb0").unwrap();
    assert!(!nic.contains("xdp"), "attached, though nothing could be pinned: {nic}");
}

#[test]
fn f42_a_missing_capability_is_named() {
    let lab = lab();
    let daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    let run = daemon.run_command();
    for (drop, name) in [
        ("-net_admin", "CAP_NET_ADMIN"),
        ("-bpf,-sys_admin", "CAP_BPF"),
        ("-perfmon,-sys_admin", "CAP_PERFMON"),
    ] {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", drop, "--inh-caps", drop])
            .arg(run.get_program())
            .args(run.get_args());
        assert_says(&said(lab.lb.output(command).unwrap()), 5, &[name]);
    }
}

#[test]
fn f43_a_second_instance_is_told_who_runs() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    let pid = daemon.status().pid;
    assert_says(&refused(&lab, &daemon), 7, &[&pid.to_string(), "already running"]);
    assert_eq!(daemon.status().pid, pid);
}

#[test]
fn f44_another_xdp_program_is_not_replaced() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    let other = lab.attach_pass("lb0").unwrap();
    let said = refused(&lab, &daemon);
    assert_says(&said, 1, &["lb0", "pass", "--force"]);
    drop(other);
    daemon.start().unwrap();
    assert_eq!(daemon.status().interfaces[0].mode, "native");
}

#[test]
fn f44_force_takes_the_place_of_a_program_that_nobody_holds() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    lab.attach_pass_by_netlink("lb0").unwrap();
    assert_says(&refused(&lab, &daemon), 1, &["lb0", "pass", "--force"]);
    daemon.arguments = vec!["--force"];
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let tally = requests(&lab.client, SocketAddr::new(VIP4, PORT), 20, 5);
    assert_eq!(tally.failures(), 0, "{tally:?}");
    drop(daemon);
    // What somebody's link holds is not even taken by force.
    let mut other = Daemon::new(&lab.client, &["c0"], &yaml()).unwrap();
    other.arguments = vec!["--force"];
    let _held = lab.attach_pass_to_client("c0").unwrap();
    let said = said(lab.client.output(other.run_command()).unwrap());
    assert_says(&said, 1, &["c0", "a BPF link of its owner holds it"]);
}

#[test]
fn f45_a_program_detached_by_hand_comes_back() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let target = SocketAddr::new(VIP4, PORT);
    let by_link = |lab: &Lab| detach_by_hand(lab, "lb0").unwrap();
    let by_pin = |lab: &Lab| drop(lab.lb.sh("rm /sys/fs/bpf/lb/v*/links/*").unwrap());
    for (times, detach) in [by_link as fn(&Lab), by_pin as fn(&Lab)].into_iter().enumerate() {
        detach(&lab);
        let alarm = format!("taken off {} time", times + 1);
        daemon.wait("the alarm", MINUTE, |status| {
            status.warnings.iter().any(|warning| warning.contains(&alarm))
        });
        let status = daemon.status();
        assert_eq!(status.interfaces[0].mode, "native", "{status:#?}");
        wait_for(
            "traffic",
            MINUTE,
            || requests(&lab.client, target, 20, 5),
            |tally| tally.failures() == 0,
        );
    }
    assert!(daemon.log().contains("had taken lb's program off it"), "{}", daemon.log_tail());
}

#[test]
fn f46_generic_mode_only_if_allowed() {
    let lab = lab();
    // A bridge has no native XDP; nor has a veth whose MTU is too large.
    lab.lb.sh("ip link add nonative type bridge && ip link set nonative up").unwrap();
    let native = format!("interfaces: [nonative]\n{}", yaml());
    let mut daemon = Daemon::new(&lab.lb, &[], &native).unwrap();
    assert_says(&refused(&lab, &daemon), 1, &["nonative", "xdp_mode: auto"]);
    daemon.must(&["detach"]);
    daemon.write(&format!("xdp_mode: auto\n{native}")).unwrap();
    daemon.start().unwrap();
    let status = daemon.status();
    assert_eq!(status.interfaces[0].mode, "generic", "{status:#?}");
    assert!(status.warnings.iter().any(|warning| warning.contains("generic")), "{status:#?}");
}

#[test]
fn a_changed_xdp_mode_takes_effect_at_once() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    for mode in ["generic", "native"] {
        daemon.write(&format!("xdp_mode: {mode}\n{}", yaml())).unwrap();
        let said = daemon.must(&["reload"]);
        assert!(said.contains("xdp_mode: "), "{said}");
        assert_eq!(daemon.status().interfaces[0].mode, mode);
    }
    assert_eq!(daemon.status().warnings, [""; 0]);
}

#[test]
fn s11_a_file_that_anybody_may_write_is_refused() {
    let lab = lab();
    let daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    fs::set_permissions(&daemon.config, fs::Permissions::from_mode(0o666)).unwrap();
    assert_says(&refused(&lab, &daemon), 3, &["lb.yaml", "writ"]);
}

#[test]
fn s15_pins_are_nobody_elses() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    let listing = lab.lb.sh("stat -c '%a %U %n' /sys/fs/bpf/lb /sys/fs/bpf/lb/v*; find /sys/fs/bpf/lb -type f -printf '%m %u %p\\n'").unwrap();
    for line in listing.lines() {
        assert!(
            line.starts_with("700 root ") || line.starts_with("600 root "),
            "{line}\n{listing}"
        );
    }
    let socket = fs::metadata(&daemon.socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(socket, 0o600);
}

#[test]
fn s22_the_hosts_own_address_is_not_a_service() {
    let lab = lab();
    let mut daemon =
        Daemon::new(&lab.lb, &lab.nics, &yaml().replace("10.77.0.80", "10.77.1.1")).unwrap();
    assert_says(&refused(&lab, &daemon), 3, &["lb.yaml:3:", "10.77.1.1", "force: true"]);
    daemon.must(&["detach"]);
    daemon
        .write(&yaml().replace("address: 10.77.0.80", "force: true, address: 10.77.1.1"))
        .unwrap();
    daemon.start().unwrap();
}

#[test]
fn s23_the_host_stays_reachable() {
    let lab = lab();
    lab.lb.ip("addr add 10.77.0.80/32 dev lb0").unwrap();
    // Something like sshd, on every address of the host.
    lab.lb.run(|| {
        let listener = TcpListener::bind("0.0.0.0:22").unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                // A client that has gone is the client's matter.
                let _ = stream.write_all(b"the host\n");
            }
        });
    });
    let conflict = yaml().replace(&format!("port: {PORT}}}"), "port: 22}");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &conflict).unwrap();
    assert_says(&refused(&lab, &daemon), 3, &["10.77.0.80:22", "listens", "force: true"]);
    daemon.must(&["detach"]);
    daemon.write(&yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let tally = requests(&lab.client, SocketAddr::new(VIP4, PORT), 50, 5);
    assert_eq!(tally.failures(), 0, "{tally:?}");
    // Twice: the second time the client has to ask for lb's MAC address again, and ARP gets through.
    for _ in 0..2 {
        for address in ["10.77.0.80:22", "10.77.1.1:22"] {
            let line = lab.client.run(move || {
                let stream = TcpStream::connect(address).unwrap();
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).unwrap();
                line
            });
            assert_eq!(line, "the host\n", "{address}");
        }
        lab.client.ip("neigh flush all").unwrap();
    }
}

#[test]
fn detach_leaves_nothing() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.must(&["detach"]);
    let look = || lab.lb.sh("ls -A /sys/fs/bpf; ip link show lb0").unwrap();
    wait_for("no pin and no program is left", MINUTE, look, |seen| {
        !seen.contains("xdp") && !seen.lines().any(|line| line == "lb")
    });
    let output = daemon.lb(&["status"]).unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn exit_codes_for_scripts() {
    let lab = lab();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    let code = |arguments: &[&str]| daemon.lb(arguments).unwrap().status.code();
    assert_eq!(code(&["status"]), Some(0));
    assert_eq!(code(&["drain", "web/web9"]), Some(6));
    assert_eq!(code(&["weight", "wbe/web1", "3"]), Some(6));
    assert_eq!(code(&["teleport"]), Some(2));
    daemon.write("services: 7\n").unwrap();
    assert_eq!(code(&["reload"]), Some(3));
}
