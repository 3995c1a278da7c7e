//! What happens to the daemon, its files and those who listen to it, while packets have to go on: rows of the catalogue of
//! faults.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::{fd::AsRawFd as _, unix::process::ExitStatusExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use lb_tests::{
    cgroup::MemoryGroup,
    client::{Held, Load, wait_for},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::api::types::Events;

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(backends: usize) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    check: {{type: tcp}}\n    \
         backend_defaults: {{inter: 200ms, fastinter: 100ms, downinter: 200ms, fall: 3, timeout: 2s}}\n    backends:\n"
    );
    for number in 1..=backends {
        yaml +=
            &format!("      - {{name: web{number}, address: \"{}:{PORT}\"}}\n", backend4(number));
    }
    yaml
}

/// So many services more, with an address each.
fn with_services(yaml: &str, count: usize) -> String {
    let mut yaml = yaml.to_owned();
    for number in 0..count {
        let (high, low) = (number / 200, number % 200 + 1);
        yaml += &format!(
            "  - name: more{number}\n    listen: {{address: 10.78.{high}.{low}, port: 80}}\n    forward: nat\n    ring_size: 1021\n    \
             backends: [{{name: one, address: \"10.79.{high}.{low}:80\"}}]\n"
        );
    }
    yaml
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

fn start<'a>(lab: &'a Lab, yaml: &str) -> Daemon<'a> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    daemon
}

fn load(lab: &Lab) -> Load {
    Load::start(&lab.client, &[target()], 3, Duration::from_millis(4))
}

fn goes_on(load: &Load, what: &str) {
    let before = load.tally().ok();
    wait_for(what, MINUTE, || load.tally().ok(), |now| *now > before + 50);
}

#[track_caller]
fn lost_nothing(load: Load, daemon: &Daemon<'_>) {
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

fn events(daemon: &Daemon<'_>) -> Events {
    serde_json::from_str(&daemon.must(&["events", "--json"])).unwrap()
}

#[test]
fn f08_all_backends_down_at_once_is_told_once() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let servers = std::mem::take(&mut lab.servers);
    let daemon = start(&lab, &yaml(2));
    // Backends are UP a moment before their service is, and what was not UP does not go DOWN.
    daemon.wait("the service is up", MINUTE, |status| !status.starting);
    drop(servers);
    daemon.wait("the service is down", MINUTE, |status| status.services[0].state != "UP");
    // More bad answers of each, which are no news.
    let checks = || {
        let status = daemon.status();
        let counts = status.services[0].backends.iter().map(|web| web.checks.clone());
        counts.map(|checks| checks.unwrap_or_default().durations.count).min().unwrap_or_default()
    };
    let before = checks();
    wait_for("more checks fail", MINUTE, checks, |now| *now >= before + 3);
    let told = events(&daemon);
    let count = |kind: &str| told.events.iter().filter(|event| event.kind == kind).count();
    println!("{told:#?}");
    assert_eq!((count("backend_down"), count("service_down")), (2, 1));
}

#[test]
fn f15_killed_for_its_memory_it_loses_nothing() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = start(&lab, &yaml(2));
    let held = Held::open(&lab.client, target(), 100).unwrap();
    let load = load(&lab);
    let group = MemoryGroup::of(daemon.pid().unwrap()).unwrap();
    group.limit(24 << 20).unwrap();
    // More than that for its text alone.
    let mut huge = yaml(2);
    huge.push_str(&format!("#{}\n", "x".repeat(999)).repeat(60_000));
    daemon.write(&huge).unwrap();
    let ended = daemon.wait_for_end().unwrap();
    assert_eq!(ended.signal(), Some(9), "{ended}: {}", daemon.log_tail());
    goes_on(&load, "requests go on without the daemon");
    daemon.write(&yaml(2)).unwrap();
    daemon.start().unwrap();
    assert!(daemon.log().contains("adopted the loaded data plane"), "{}", daemon.log_tail());
    goes_on(&load, "requests go on with the next one");
    assert_eq!(held.broken(), [""; 0]);
    lost_nothing(load, &daemon);
}

#[test]
fn f16_a_file_that_is_half_written_changes_nothing() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = start(&lab, &yaml(2));
    let load = load(&lab);
    let whole = yaml(2);
    let mut refused = 0;
    for length in (1..whole.len()).step_by(41) {
        // In place, as a careless tool does it; the watcher may read it at any moment.
        fs::write(&daemon.config, &whole[..length]).unwrap();
        let output = daemon.lb(&["reload"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(0) {
            continue;
        }
        refused += 1;
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("lb.yaml"), "{said}");
        let status = daemon.status();
        assert!(status.config_error.is_some(), "{status:#?}");
        let service = &status.services[0];
        assert_eq!((service.name.as_str(), service.backends.len()), ("web", 2), "{said}");
    }
    assert!(refused > 5, "only {refused} of the halves were refused");
    // A daemon that begins with the half goes on with what was in force.
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!(daemon.status().services[0].backends.len(), 2);
    daemon.write(&whole).unwrap();
    daemon.must(&["reload"]);
    assert!(daemon.status().config_error.is_none());
    lost_nothing(load, &daemon);
}

#[test]
fn f18_more_than_fits_is_refused_as_a_whole() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let small = format!("limits: {{services: 50, backends: 100, ring_slots: 200000}}\n{}", yaml(2));
    let daemon = start(&lab, &small);
    let load = load(&lab);
    let before = daemon.status();
    for (text, limit) in [
        (with_services(&small, 60), "limits.services"),
        (
            small.replace("    backends:\n", &format!("    backends:\n{}", many(150))),
            "limits.backends",
        ),
        (small.replace("nat\n", "nat\n    ring_size: 655373\n"), "limits.ring_slots"),
    ] {
        daemon.write(&text).unwrap();
        let output = daemon.lb(&["reload"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(limit), "{limit}: {said}");
        let now = daemon.status();
        assert_eq!(now.services.len(), before.services.len());
        assert_eq!(now.services[0].ring, before.services[0].ring, "{limit}: partly applied");
    }
    daemon.write(&small).unwrap();
    daemon.must(&["reload"]);
    lost_nothing(load, &daemon);
}

fn many(count: usize) -> String {
    let line = |number: usize| {
        format!("      - {{name: more{number}, address: \"10.79.0.{}:{PORT}\"}}\n", number + 1)
    };
    (0..count).map(line).collect()
}

#[test]
fn f40_a_full_disk_is_reported_once_and_truncates_nothing() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(2)).unwrap();
    let run = daemon.directory.join("run");
    fs::create_dir(&run).unwrap();
    let shown = run.display().to_string();
    lab.lb.sh(&format!("mount -t tmpfs -o size=64k,mode=755 none {shown}")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let load = load(&lab);
    let state = || lab.lb.sh(&format!("cat {shown}/state.json")).unwrap();
    let fill = format!(
        "dd if=/dev/zero of={shown}/fill bs=1k 2>/dev/null; df --output=avail {shown} | tail -1"
    );
    assert_eq!(lab.lb.sh(&fill).unwrap().trim(), "0");
    let before = state();
    // What has changed goes to the journal, as long as its last block has room.
    let warned = || {
        let warnings = daemon.status().warnings;
        warnings.iter().any(|warning| warning.contains("state.json cannot be written"))
    };
    let mut weights = 10..200;
    let mut set_next = || {
        let weight = weights.next().expect("the journal's last block is full some time");
        daemon.must(&["weight", "web/web1", &weight.to_string()]);
    };
    while !warned() {
        set_next();
    }
    for _ in 0..5 {
        set_next();
        assert!(warned(), "{:?}", daemon.status().warnings);
    }
    assert_eq!(state(), before, "the last whole state stays");
    let reports = daemon.log().matches("state.json cannot be written").count();
    assert_eq!(reports, 1, "{}", daemon.log());
    goes_on(&load, "requests go on");
    lab.lb.sh(&format!("rm {shown}/fill")).unwrap();
    daemon.must(&["weight", "web/web1", "50"]);
    assert_eq!(daemon.status().warnings, [""; 0]);
    // And a daemon that begins on a full disk adopts what is loaded.
    lab.lb.sh(&fill).unwrap();
    daemon.kill().unwrap();
    daemon.start().unwrap();
    assert_eq!(daemon.status().services[0].backends[0].weight, 50);
    lost_nothing(load, &daemon);
}

#[test]
fn f52_who_does_not_listen_keeps_nobody_waiting() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut servers = std::mem::take(&mut lab.servers);
    let small = format!(
        "metrics: \"127.0.0.1:9180\"\nlimits: {{services: 4096, ring_slots: 4194304}}\n{}",
        yaml(2)
    );
    let daemon = Daemon::new(&lab.lb, &lab.nics, &small).unwrap();
    let mut command = daemon.run_command();
    command.env("LB_LOG", "debug").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = lab.lb.spawn(command).unwrap();
    let pipe = child.stderr.take().unwrap();
    // SAFETY: a number, on a descriptor that is open.
    let size = unsafe { nix::libc::fcntl(pipe.as_raw_fd(), nix::libc::F_SETPIPE_SZ, 4096) };
    assert!(size >= 4096, "{}", std::io::Error::last_os_error());
    daemon.wait_ready(&["UP"]);
    let load = load(&lab);
    // A hundred who ask for metrics and never read them.
    let deaf: Vec<TcpStream> = lab.lb.run(|| {
        (0..100)
            .map(|_| {
                let mut stream = TcpStream::connect("127.0.0.1:9180").unwrap();
                let request = b"GET /metrics HTTP/1.1\r\nhost: lb\r\n\r\n";
                (0..20).take_while(|_| stream.write_all(request).is_ok()).for_each(drop);
                stream
            })
            .collect()
    });
    // Far more lines than wait for their reader; what the rings before had is free again only after a grace period.
    let many = with_services(&small, 400);
    for _ in 0..4 {
        for text in [&many, &small] {
            daemon.write(text).unwrap();
            daemon.must(&["reload"]);
        }
    }
    let warnings = daemon.status().warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("lines of the log are lost")),
        "{warnings:?}"
    );
    servers[0] = None;
    daemon.wait("web1 is seen to be down", MINUTE, |status| {
        backend(status, "web", "web1").is_some_and(|web1| web1.state == "DOWN")
    });
    goes_on(&load, "requests go on");
    drop(deaf);
    let mut said = String::new();
    child.kill().unwrap();
    let mut pipe = pipe;
    pipe.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    println!("{} bytes of its log were in the pipe", said.len());
    let tally = load.finish();
    // Requests to web1 failed until it was found down, and only those.
    assert!(tally.ok() > 100, "{tally:?}");
}

/// Brings a CPU back, however the test ends; if the process is killed, the shell does it.
struct CpuBack(&'static str);

impl CpuBack {
    fn take(path: &'static str) -> Self {
        let guard = format!("trap '' HUP INT TERM; sleep 20; echo 1 > {path}");
        // It ends at once, and leaves the shell behind.
        Command::new("setsid").args(["--fork", "sh", "-c", &guard]).status().unwrap();
        fs::write(path, "0").unwrap_or_else(|error| panic!("{path} cannot be written: {error}"));
        Self(path)
    }
}

impl Drop for CpuBack {
    fn drop(&mut self) {
        // The shell tries again.
        let _ = fs::write(self.0, "1");
    }
}

#[test]
fn f38_a_cpu_that_goes_and_comes_back_takes_no_count_with_it() {
    const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let daemon = start(&lab, &yaml(2));
    let held = Held::open(&lab.client, target(), 100).unwrap();
    let load = load(&lab);
    let mut last = 0;
    let mut rises = |when: &str| {
        goes_on(&load, when);
        let now = daemon.stats().services[0].total.packets_in;
        assert!(now > last, "{when}: {now} packets after {last}");
        last = now;
    };
    rises("before");
    for _ in 0..3 {
        let back = CpuBack::take(CPU);
        assert_eq!(fs::read_to_string(CPU).unwrap().trim(), "0");
        rises("with one CPU less");
        drop(back);
        assert_eq!(fs::read_to_string(CPU).unwrap().trim(), "1");
        rises("with the CPU back");
    }
    assert_eq!(held.broken(), [""; 0]);
    lost_nothing(load, &daemon);
}
