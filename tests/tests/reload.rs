//! Two hundred files, good and bad, under load; ten thousand of them in `cargo xtask soak`.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Load, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    soak::rounds,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

const MINUTE: Duration = Duration::from_secs(60);
/// Reloads before what is there is counted: by then, whatever is made once has been made.
const WARM_UP: u64 = 40;
/// Memory that may come and go, KiB: allocators keep pages, and a hundred revisions are remembered.
const SLACK: u64 = 24 << 10;

/// A valid configuration: some of the backends, some weights, some settings, in some order.
fn valid(random: &mut StdRng) -> String {
    let mut numbers = vec![1, 2, 3];
    numbers.shuffle(random);
    numbers.truncate(random.random_range(2..=3));
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         ring_size: {}\n    window: {}s\n    timeouts: {{tcp: 4s, tcpfin: 1s}}\n",
        if random.random_bool(0.1) { 4093 } else { 1021 },
        random.random_range(1..=3),
    );
    // Probes that are under way when their check, or their backend, goes: nobody answers those of web9.
    if random.random_bool(0.7) {
        yaml += "    check: {type: http, path: /healthz}\n    backend_defaults: {inter: 200ms, fastinter: 100ms, \
                 downinter: 100ms, rise: 1, fall: 3, timeout: 3s}\n";
        if random.random_bool(0.5) {
            numbers.push(9);
        }
    }
    yaml += "    backends:\n";
    for number in &numbers {
        // Under fail-open, web9 would get its share.
        let weight = if *number == 9 { 0 } else { [50, 100, 200][random.random_range(0..3)] };
        yaml += &format!(
            "      - {{name: web{number}, address: \"{}:{PORT}\", weight: {weight}}}\n",
            backend4(*number)
        );
    }
    yaml
}

/// The same with a fault in it.
fn invalid(random: &mut StdRng) -> String {
    let yaml = valid(random);
    match random.random_range(0..6) {
        0 => yaml[..yaml.len() * 2 / 3].trim_end().to_owned() + ": {",
        1 => yaml.replace("forward: nat", "forward: teleport"),
        2 => yaml.replace("weight: ", "wieght: "),
        3 => yaml.replace("10.77.0.80", "10.77.0.800"),
        4 => String::new(),
        _ => yaml.replace("window: ", "window: -"),
    }
}

/// Everything of the daemon that could leak, by kind: equal numbers before and after.
fn belongings(lab: &Lab, daemon: &Daemon<'_>) -> BTreeMap<String, u64> {
    let process = format!("/proc/{}", daemon.pid().expect("the daemon runs"));
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(format!("{process}/fd")).unwrap().flatten() {
        // One that has just been closed has no name any more.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        // `socket:[4711]` is a socket.
        let kind = link.to_string_lossy().split(":[").next().unwrap_or_default().to_owned();
        *counts.entry(format!("descriptors of {kind}")).or_default() += 1;
    }
    counts.insert("pins".to_owned(), {
        let listed = lab.lb.sh("find /sys/fs/bpf -type f | wc -l").unwrap();
        listed.trim().parse().unwrap()
    });
    for table in daemon.status().tables {
        if ["services", "backends", "ring_slots", "service_table"].contains(&table.name.as_str()) {
            counts.insert(format!("entries of {}", table.name), table.entries);
        }
    }
    counts.insert(
        "threads".to_owned(),
        fs::read_dir(format!("{process}/task")).unwrap().count() as u64,
    );
    counts
}

/// Memory of its own, KiB.
fn memory(daemon: &Daemon<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Puts the given file in force and waits until nothing of those before is on its way.
fn rest(daemon: &Daemon<'_>, yaml: &str) {
    daemon.write(yaml).unwrap();
    daemon.must(&["reload"]);
    daemon.wait_settled(Duration::from_secs(120));
}

#[test]
fn reloads_lose_nothing_and_leak_nothing() {
    let seed = rand::random();
    let reloads = rounds(200, 10_000);
    println!("seed {seed}, {reloads} reloads");
    let mut random = StdRng::seed_from_u64(seed);
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let first = valid(&mut random);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &first).unwrap();
    daemon.start().unwrap();
    daemon.wait("somebody can be used", MINUTE, |status| {
        status.services.first().is_some_and(|service| {
            service.backends.iter().any(|backend| {
                ["NOLB", "UP"].contains(&backend.state.as_str())
                    && !backend.next_hop.contains("unresolved")
            })
        })
    });
    let load =
        Load::start(&lab.client, &[SocketAddr::new(VIP4, PORT)], 8, Duration::from_millis(2));
    let mut before = None;
    let mut in_force = first.clone();
    for number in 0..WARM_UP + reloads {
        if number == WARM_UP {
            rest(&daemon, &first);
            before = Some((belongings(&lab, &daemon), memory(&daemon)));
        }
        let good = random.random_bool(0.6);
        let yaml = if good { valid(&mut random) } else { invalid(&mut random) };
        daemon.write(&yaml).unwrap();
        let output = daemon.lb(&["reload"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), good, "reload {number} (seed {seed}): {said}\n{yaml}");
        if good {
            in_force.clone_from(&yaml);
        } else {
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains("lb.yaml:"), "an error without its place: {said}");
            let status = daemon.status();
            assert!(status.config_error.is_some(), "the error is in the status: {status:#?}");
        }
        if number % 500 == 499 {
            println!("{} reloads: {:?}, {} KiB", number + 1, load.tally(), memory(&daemon));
        }
        let failures = load.tally().failures();
        assert_eq!(
            failures,
            0,
            "reload {number}, seed {seed}: {:?}\n{yaml}\n{}",
            load.tally(),
            daemon.log_tail()
        );
    }
    let tally = load.finish();
    println!(
        "{} reloads under {} requests, {} failed",
        WARM_UP + reloads,
        tally.ok(),
        tally.failures()
    );
    assert_eq!(tally.failures(), 0, "seed {seed}: {tally:?}\n{}", daemon.log_tail());
    assert!(tally.ok() > reloads, "{tally:?}");
    let expected: serde_yaml::Value = serde_yaml::from_str(&in_force).unwrap();
    daemon.wait("the last valid file is in force", MINUTE, |status| {
        let backends = expected["services"][0]["backends"].as_sequence().unwrap();
        let service = &status.services[0];
        backends.iter().all(|backend| {
            service.backends.iter().any(|known| {
                Some(known.name.as_str()) == backend["name"].as_str()
                    && Some(known.weight as u64) == backend["weight"].as_u64()
                    && known.admin == "ready"
            })
        })
    });
    rest(&daemon, &first);
    assert_eq!(daemon.status().config_error, None, "the file on disk is in force again");
    let (before, memory_before) = before.expect("there was a warm-up");
    // Probes that were under way have an end.
    wait_for("nothing has leaked", MINUTE, || belongings(&lab, &daemon), |now| *now == before);
    let memory_now = memory(&daemon);
    println!(
        "the same before and after: {before:?}; memory {memory_before} KiB, now {memory_now} KiB"
    );
    assert!(memory_now <= memory_before + SLACK, "{memory_before} KiB -> {memory_now} KiB");
}
