//! Another version of lb takes the place of this one under load: with another program over the same tables, and with other
//! tables. Both are real: built from this source with a change (`cargo xtask build --other-versions`).

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{maps::MapInfo, programs::loaded_programs};
use lb_tests::{
    client::{Held, Load, wait_for},
    daemon::{Daemon, lb_binary, other_version},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    machine::Machine,
    soak::rounds,
};

const MINUTE: Duration = Duration::from_secs(60);
const PINS: &str = "/sys/fs/bpf/lb";

fn yaml(weight: u16) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    ring_size: 4099\n    \
         window: 2s\n    timeouts: {{tcp: 5s, tcpfin: 1s}}\n    check: {{type: tcp}}\n    \
         backend_defaults: {{inter: 300ms, fastinter: 100ms, fall: 5, timeout: 2s}}\n    backends:\n"
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

/// What is loaded in a machine.
#[derive(Debug, PartialEq)]
struct Loaded {
    /// Directories of versions.
    versions: Vec<String>,
    /// Maps and links that are pinned.
    pins: usize,
    /// Tags (hashes of their instructions) of the programs that use the pinned maps.
    tags: Vec<u64>,
}

fn loaded(machine: &Machine) -> Loaded {
    machine.run(|| {
        let names = |directory: &Path| {
            let mut names: Vec<PathBuf> =
                std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        let versions = names(Path::new(PINS));
        let pins = versions.iter().flat_map(|version| names(version)).flat_map(|kind| names(&kind));
        let rings: Vec<u32> = (versions.iter())
            .filter_map(|version| Some(MapInfo::from_pin(version.join("maps/ARENA")).ok()?.id()))
            .collect();
        let mut tags: Vec<u64> = loaded_programs()
            .flatten()
            .filter(|program| {
                let maps = program.map_ids().ok().flatten().unwrap_or_default();
                rings.iter().any(|ring| maps.contains(ring))
            })
            .map(|program| program.tag())
            .collect();
        tags.sort();
        Loaded {
            pins: pins.count(),
            versions: (versions.iter())
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect(),
            tags,
        }
    })
}

fn descriptors(daemon: &Daemon<'_>) -> usize {
    let pid = daemon.pid().unwrap();
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// More than noise: requests go on.
fn goes_on(load: &Load, what: &str) {
    let before = load.tally().ok();
    wait_for(what, MINUTE, || load.tally().ok(), |now| *now > before + 50);
}

#[test]
fn a_changed_program_takes_its_place_under_load() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(100)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let target = SocketAddr::new(VIP4, PORT);
    let held = Held::open(&lab.client, target, 200).unwrap();
    let load = Load::start(&lab.client, &[target], 6, Duration::from_millis(3));
    let first = (loaded(&lab.lb), descriptors(&daemon));
    println!("before: {first:?}");
    let mut packets = 0;
    for round in 1..=rounds(10, 50) {
        let other = round % 2 == 1;
        // In every third round the rings are on their way.
        daemon.write(&yaml([100, 60, 150][round as usize % 3])).unwrap();
        daemon.stop().unwrap();
        goes_on(&load, "requests go on without a daemon");
        daemon.binary = if other { other_version("program") } else { lb_binary() };
        daemon.start().unwrap();
        let status = daemon.wait_ready(&["UP", "UP 4/5"]);
        assert_eq!(status.version, if other { "0.1.1" } else { "0.1.0" });
        let now = loaded(&lab.lb);
        assert_eq!((&now.versions, now.pins), (&first.0.versions, first.0.pins), "round {round}");
        assert_eq!(now.tags.len(), first.0.tags.len(), "round {round}: {now:?}");
        assert_eq!(now.tags == first.0.tags, !other, "round {round}: {now:?}");
        let total = daemon.stats().services[0].total.packets_in;
        assert!(total > packets, "round {round}: counters do not go on: {total} after {packets}");
        packets = total;
        goes_on(&load, "requests go on with the new version");
        assert_eq!(held.broken(), [""; 0], "round {round}: {}", daemon.log_tail());
    }
    let tally = load.finish();
    println!("{tally:?}; descriptors: {} -> {}", first.1, descriptors(&daemon));
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
    assert!(descriptors(&daemon) <= first.1 + 3, "descriptors leak");
}

#[test]
fn changed_tables_are_taken_over_when_rings_are_settled() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(100)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    daemon.must(&["maint", "web/web3"]);
    daemon.must(&["weight", "web/web2", "50"]);
    daemon.wait_settled(MINUTE);
    let target = SocketAddr::new(VIP4, PORT);
    let held = Held::open(&lab.client, target, 200).unwrap();
    let load = Load::start(&lab.client, &[target], 6, Duration::from_millis(3));
    let before = loaded(&lab.lb);
    let mut packets = 0;
    let mut digest = None;
    for (round, name) in ["layout", "", "layout"].into_iter().enumerate() {
        goes_on(&load, "requests go on");
        daemon.stop().unwrap();
        goes_on(&load, "requests go on without a daemon");
        daemon.binary = if name.is_empty() { lb_binary() } else { other_version(name) };
        daemon.start().unwrap();
        let status = daemon.status();
        let service = &status.services[0];
        let states: Vec<(&str, u16)> =
            service.backends.iter().map(|b| (b.admin.as_str(), b.weight)).collect();
        assert_eq!(states, [("ready", 100), ("ready", 50), ("maint", 100)], "round {round}");
        let ring = service.ring.clone();
        assert_eq!(*digest.get_or_insert(ring.clone()), ring, "another ring");
        let now = loaded(&lab.lb);
        println!("round {round}: {before:?} -> {now:?}");
        assert_eq!(now.versions.len(), 1, "{now:?}");
        assert_eq!(now.versions != before.versions, !name.is_empty(), "{now:?}");
        assert_eq!((now.pins, now.tags.len()), (before.pins, before.tags.len()));
        let total = daemon.stats().services[0].total.packets_in;
        assert!(total > packets, "round {round}: the service's counters do not go on");
        packets = total;
        assert_eq!(held.broken(), [""; 0], "round {round}: {}", daemon.log_tail());
    }
    let tally = load.finish();
    println!("{tally:?}");
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
    let events = daemon.must(&["events"]);
    assert!(events.contains("taken over from a version of lb with other tables"), "{events}");
}

#[test]
fn changed_tables_are_refused_while_rings_are_on_their_way() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let slow = yaml(100).replace("window: 2s", "window: 1h");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &slow).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let target = SocketAddr::new(VIP4, PORT);
    let held = Held::open(&lab.client, target, 100).unwrap();
    let load = Load::start(&lab.client, &[target], 4, Duration::from_millis(3));
    daemon.must(&["weight", "web/web1", "10"]);
    let before = loaded(&lab.lb);
    let refused = |daemon: &Daemon<'_>, words: &[&str]| {
        let mut command = daemon.run_command();
        command.env("LB_LOG", "error");
        let output = lab.lb.output(command).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is missing: {said}");
        }
        assert_eq!(loaded(&lab.lb), before, "something was touched");
    };
    daemon.stop().unwrap();
    daemon.binary = other_version("layout");
    refused(&daemon, &["slots are on their way", "--take-over", "nothing was touched"]);
    goes_on(&load, "requests go on after the refusal");
    // The old version goes on as if nothing had been; killed, it cannot say how it leaves its tables.
    daemon.binary = lb_binary();
    daemon.start().unwrap();
    assert_eq!(daemon.status().services[0].backends[0].weight, 10);
    daemon.kill().unwrap();
    daemon.binary = other_version("layout");
    refused(&daemon, &["was killed", "--take-over"]);
    assert_eq!(held.broken(), [""; 0], "{}", daemon.log_tail());
    daemon.arguments = vec!["--take-over"];
    daemon.start().unwrap();
    assert_ne!(loaded(&lab.lb).versions, before.versions);
    goes_on(&load, "requests go on after the forced take-over");
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "new connections are not concerned: {tally:?}");
}
