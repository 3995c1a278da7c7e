//! Services that remember every flow, with real clients: connections are spread by number, and flows and clients stay while backends
//! come and go and the daemon dies.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::{Prefixes, RememberedSource, SourceKey, map};
use lb_tests::{
    client::{Held, by_client, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    machine::Machine,
    soak,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A TCP and a UDP service with these keys.
fn yaml(keys: &str, backends: &[usize]) -> String {
    let mut yaml = "services:\n".to_owned();
    for protocol in ["tcp", "udp"] {
        yaml += &format!(
            "  - name: {protocol}\n    listen: {{address: 10.77.0.80, port: {PORT}, protocol: {protocol}}}\n    forward: nat\n    \
             {keys}\n    window: 1s\n    backends:\n"
        );
        for number in backends {
            yaml += &format!(
                "      - {{name: web{number}, address: \"{}:{PORT}\"}}\n",
                backend4(*number)
            );
        }
    }
    yaml
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

/// Reloads with these keys and backends.
fn reload(daemon: &Daemon<'_>, keys: &str, backends: &[usize]) {
    daemon.write(&yaml(keys, backends)).unwrap();
    daemon.must(&["reload"]);
}

/// Open connections by backend, as `lb stats` shows them.
fn active(daemon: &Daemon<'_>) -> Vec<u64> {
    let backends = daemon.stats().services[0].backends.clone();
    backends.iter().map(|backend| backend.connections.map_or(0, |known| known.active)).collect()
}

#[test]
fn long_lived_connections_are_spread_by_their_number() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 4).unwrap();
    // Without the feature at first: its tables are made when they are wanted.
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("balance: maglev", &[1, 2, 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    reload(&daemon, "balance: leastconn", &[1, 2, 3]);
    let held = Held::open(&lab.client, target(), 90).unwrap();
    let counts: Vec<usize> = held.count().into_values().collect();
    assert_eq!(counts, [30, 30, 30], "{:?}", held.count());
    wait_for("all are counted", MINUTE, || active(&daemon), |seen| *seen == [30, 30, 30]);
    // Who has just come gets all new ones until it has as many.
    reload(&daemon, "balance: leastconn", &[1, 2, 3, 4]);
    let more = Held::open(&lab.client, target(), 30).unwrap();
    assert_eq!(more.count().into_keys().collect::<Vec<_>>(), ["web4"], "{:?}", more.count());
    // The daemon dies; the numbers are the data plane's.
    daemon.kill().unwrap();
    let again = Held::open(&lab.client, target(), 40).unwrap();
    assert_eq!(again.count().into_values().collect::<Vec<_>>(), [10; 4], "{:?}", again.count());
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    wait_for("they are known again", MINUTE, || active(&daemon), |seen| *seen == [40; 4]);
    assert_eq!(held.broken(), [""; 0], "{}", daemon.log_tail());
    drop(held);
    wait_for("they have ended", MINUTE, || active(&daemon), |seen| *seen == [10, 10, 10, 40]);
    let algorithm = daemon.must(&["stats", "--csv"]);
    assert!(algorithm.contains(",leastconn,"), "{algorithm}");
    assert_eq!((more.broken().len(), again.broken().len()), (0, 0));
}

#[test]
fn flows_stay_while_everything_changes_and_leave_a_backend_that_is_down() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 4).unwrap();
    for last in 100..130 {
        lab.client.ip(&format!("addr add 10.77.1.{last}/24 dev c0")).unwrap();
    }
    let keys = "track: always\n    timeouts: {tcp: 600s}";
    let udp_keys = keys.replace("tcp: 600s", "udp: 600s");
    let write = |backends: &[usize]| {
        let both = yaml(keys, backends);
        let (tcp, udp) = both.split_once("  - name: udp").unwrap();
        format!("{tcp}  - name: udp{}", udp.replace(keys, &udp_keys))
    };
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &write(&[1, 2, 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let held = Held::open(&lab.client, target(), 200).unwrap();
    let spread = held.count();
    assert_eq!(spread.len(), 3, "{spread:?}");
    let entries = |daemon: &Daemon<'_>| daemon.status().services[0].tracking.unwrap().confirmed;
    assert_eq!(entries(&daemon), 200);
    // More backends, other weights, a drain, and windows that end: nobody moves.
    daemon.write(&write(&[1, 2, 3, 4])).unwrap();
    daemon.must(&["reload"]);
    daemon.must(&["weight", "tcp/web4", "256"]);
    daemon.must(&["drain", "tcp/web1"]);
    daemon.kill().unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    assert_eq!(held.broken(), [""; 0], "{}", daemon.log_tail());
    assert!(entries(&daemon) >= 200);
    daemon.write(&write(&[2, 3, 4])).unwrap();
    daemon.must(&["reload"]);
    assert_eq!(held.broken(), [""; 0], "web1 is gone from the file: {}", daemon.log_tail());
    let why = daemon.lookup("10.77.1.2:1", "10.77.0.80:8080");
    assert!(why.why.contains("not remembered") && why.disagreement.is_none(), "{why:?}");
    // Another backend in maintenance: its flows, and no others, are gone.
    daemon.must(&["maint", "tcp/web2"]);
    let broken = wait_for(
        "web2's flows have ended",
        MINUTE,
        || held.broken().len(),
        |broken| *broken == spread["web2"],
    );
    assert_eq!(broken, spread["web2"]);
}

#[test]
fn clients_stay_through_a_scale_up_a_restart_and_a_drain() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 4).unwrap();
    for last in 100..160 {
        lab.client.ip(&format!("addr add 10.77.1.{last}/24 dev c0")).unwrap();
    }
    let keys = "balance: wrr\n    persistence: {by: source, timeout: 10m}";
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(keys, &[1, 2])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let before = by_client(&lab.client, target(), 100..130);
    let of = |name: &str, seen: &[String]| seen.iter().filter(|one| *one == name).count();
    assert_eq!((of("web1", &before), of("web2", &before)), (15, 15), "{before:?}");
    assert_eq!(
        by_client(&lab.client, target(), 100..130),
        before,
        "other ports, the same backends"
    );
    // Twice as many backends: clients that are known stay, new ones are spread over all.
    reload(&daemon, keys, &[1, 2, 3, 4]);
    assert_eq!(by_client(&lab.client, target(), 100..130), before, "{}", daemon.log_tail());
    let others: BTreeSet<String> = by_client(&lab.client, target(), 130..160).into_iter().collect();
    assert_eq!(others.len(), 4, "{others:?}");
    daemon.kill().unwrap();
    assert_eq!(by_client(&lab.client, target(), 100..130), before, "while nobody is there");
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    assert_eq!(by_client(&lab.client, target(), 100..130), before, "{}", daemon.log_tail());
    let known = wait_for(
        "all clients are counted",
        MINUTE,
        || daemon.status().services[1].tracking.and_then(|tracking| tracking.sources),
        |sources| *sources == Some(60),
    );
    assert_eq!(known, Some(60));
    // A drained backend keeps those it knows; one in maintenance does not.
    daemon.must(&["drain", "udp/web1"]);
    assert_eq!(by_client(&lab.client, target(), 100..130), before, "{}", daemon.log_tail());
    daemon.must(&["maint", "udp/web1"]);
    let after = by_client(&lab.client, target(), 100..130);
    for (before, after) in before.iter().zip(&after) {
        match before.as_str() {
            "web1" => assert_ne!(after, "web1"),
            other => assert_eq!(after, other),
        }
    }
    // For good: coming back takes nobody away again.
    daemon.must(&["ready", "udp/web1"]);
    assert_eq!(by_client(&lab.client, target(), 100..130), after);
    // One client by TCP: all of it at one backend.
    let tally = requests(&lab.client, target(), 60, 1);
    assert_eq!((tally.failures(), tally.answered.len()), (0, 1), "{tally:?}");
    let client = daemon.lookup("10.77.1.2:1", "10.77.0.80:8080");
    assert!(client.why.contains("client is remembered"), "{client:?}");
    assert_eq!(client.backend_for_new_flow.as_ref(), tally.answered.keys().next(), "{client:?}");
}

/// The table of remembered clients, as packets see it.
fn sources(lb: &Machine) -> HashMap<MapData, SourceKey, RememberedSource> {
    let pin = lb.sh(&format!("find /sys/fs/bpf/lb -name {}", map::SOURCES)).unwrap();
    let pin = PathBuf::from(pin.trim());
    let data = lb.run(move || MapData::from_pin(&pin).unwrap());
    HashMap::try_from(Map::HashMap(data)).unwrap()
}

/// Number of clients of each backend id, and a sum over all that changes with any of them.
fn census(lb: &Machine) -> (std::collections::BTreeMap<u32, u64>, u64) {
    let mut count = std::collections::BTreeMap::new();
    let mut sum = 0u64;
    for entry in sources(lb).iter() {
        let (key, known) = entry.unwrap();
        *count.entry(known.backend.0).or_default() += 1;
        let source = key.source.words.iter().fold(0, |all: u64, word| {
            all.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(word.to_host()))
        });
        sum = sum.wrapping_add(source.wrapping_mul(u64::from(known.backend.0) + 1));
    }
    (count, sum)
}

#[test]
fn many_clients_are_remembered_over_a_restart_and_changes_of_backends() {
    let all = soak::rounds(100_000, 1_000_000) as u32;
    let lab = Lab::new(Arms::One, Return::ThroughLb, 4).unwrap();
    for last in 100..160 {
        lab.client.ip(&format!("addr add 10.77.1.{last}/24 dev c0")).unwrap();
    }
    let keys = "balance: wrr\n    persistence: {by: source, timeout: 24h}";
    let text =
        |backends: &[usize]| format!("limits: {{sources: 2000000}}\n{}", yaml(keys, backends));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &text(&[1, 2, 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    // Half of the lab's clients come by themselves; they show the service's id and its backends'.
    let came = by_client(&lab.client, target(), 100..130);
    let mut table = sources(&lab.lb);
    let id_of = |name: &str| {
        let client = 100 + came.iter().position(|one| one == name).unwrap();
        let address = IpAddr::from(Ipv4Addr::new(10, 77, 1, client as u8));
        let found = table.iter().map(Result::unwrap);
        let is = |key: &SourceKey| key.source == Prefixes::default().masked(&address.into());
        found.into_iter().find(|(key, _)| is(key)).unwrap()
    };
    let (known, web): (SourceKey, Vec<RememberedSource>) =
        (id_of("web1").0, ["web1", "web2", "web3"].map(|name| id_of(name).1).to_vec());
    // The other half is written down, the other way round, with many more.
    let mut remember = |address: Ipv4Addr, number: usize| {
        let source = Prefixes::default().masked(&IpAddr::from(address).into());
        table.insert(SourceKey { source, ..known }, web[number % 3], 0).unwrap();
    };
    let expected: Vec<String> = (130..160).map(|client| format!("web{}", 3 - client % 3)).collect();
    for client in 130..160 {
        remember(Ipv4Addr::new(10, 77, 1, client), usize::from(2 - client % 3));
    }
    for number in 0..all - 60 {
        remember(Ipv4Addr::from(0x0b00_0000 + number), number as usize);
    }
    let counted = |daemon: &Daemon<'_>| {
        wait_for(
            "all clients are counted",
            2 * MINUTE,
            || daemon.status().services[1].tracking.and_then(|tracking| tracking.sources),
            |sources| *sources == Some(u64::from(all)),
        )
    };
    counted(&daemon);
    let before = census(&lab.lb);
    assert_eq!(before.0.values().sum::<u64>(), u64::from(all));
    let all_stay = |what: &str| {
        assert_eq!(by_client(&lab.client, target(), 100..130), came, "{what}");
        assert_eq!(by_client(&lab.client, target(), 130..160), expected, "{what}");
    };
    all_stay("at first");
    daemon.kill().unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    counted(&daemon);
    all_stay("after a restart");
    assert_eq!(census(&lab.lb), before, "after a restart: {}", daemon.log_tail());
    daemon.write(&text(&[1, 2, 3, 4])).unwrap();
    daemon.must(&["reload"]);
    daemon.must(&["drain", "udp/web2"]);
    all_stay("with one more and one that drains");
    assert_eq!(census(&lab.lb), before, "{}", daemon.log_tail());
    // Who is in maintenance loses its own, and nobody else's.
    daemon.must(&["maint", "udp/web1"]);
    let after = by_client(&lab.client, target(), 130..160);
    for (before, after) in expected.iter().zip(&after) {
        assert_eq!(before == after, before != "web1", "{before} {after}");
    }
}
