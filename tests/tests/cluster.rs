//! Nodes that tell each other what their rings alone do not say: real daemons, real connections, real failovers.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use lb_tests::{
    client::{Held, request_from, wait_for},
    daemon::backend,
    maps::{dump, pins},
    node::{Node, start_all},
    pair::{Pair, VIPS, targets},
};
use lb_userspace::api::types::{ClusterPeer, ClusterStatus, Status};

const MINUTE: Duration = Duration::from_secs(60);
const SECRET: &str = "the nodes of this test share it";
const PORT: u16 = 7946;
/// Connections to each VIP.
const EACH: usize = 50;

/// A file that only lb may read.
fn write_secret(directory: &Path, secret: &str) {
    use std::io::Write as _;
    let path = directory.join("secret");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    writeln!(file.unwrap(), "{secret}").unwrap();
}

/// Puts a cluster into the configuration of a node.
fn join(node: &mut Node<'_>, secret: &str) {
    let directory = node.daemon.directory.clone();
    write_secret(&directory, secret);
    let yaml = fs::read_to_string(&node.daemon.config).unwrap();
    let cluster = format!(
        "cluster: {{listen: \"0.0.0.0:{PORT}\", peers: [10.77.1.3, 10.77.1.4], secret_file: {}}}\n",
        directory.join("secret").display()
    );
    node.daemon.write(&(cluster + &yaml)).unwrap();
    let name = if node.machine.name.contains("lb-a") { "lb-a" } else { "lb-b" };
    node.daemon.arguments = vec!["--node", name];
}

fn start<'a>(pair: &'a Pair, is_cluster: bool) -> [Node<'a>; 2] {
    let mut nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    if is_cluster {
        nodes.iter_mut().for_each(|node| join(node, SECRET));
    }
    start_all(&mut nodes).unwrap();
    if is_cluster {
        nodes.iter().for_each(|node| drop(wait_in_step(node)));
    }
    wait_active(&nodes[0]);
    nodes
}

fn cluster(status: &Status) -> ClusterStatus {
    status.cluster.clone().expect("the configuration has a cluster")
}

/// The other node, in the eyes of this one.
fn other(status: &Status) -> ClusterPeer {
    let mut peers = cluster(status).peers;
    peers.retain(|peer| peer.state != "this node");
    peers.pop().expect("there is another node")
}

#[track_caller]
fn wait_in_step(node: &Node<'_>) -> Status {
    node.daemon.wait("the nodes are in step", MINUTE, |status| other(status).state == "in step")
}

#[track_caller]
fn wait_active(node: &Node<'_>) {
    wait_for(
        &format!("the VIPs are on {}", node.machine.name),
        MINUTE,
        || VIPS.map(|(_, vip)| node.has(vip)),
        |seen| !seen.contains(&false),
    );
}

fn hold(pair: &Pair) -> Vec<Held> {
    targets().map(|(_, target)| Held::open(&pair.client, target, EACH).unwrap()).into()
}

fn broken(held: &[Held]) -> usize {
    held.iter().map(|held| held.broken().len()).sum()
}

/// Keys of the confirmed pins in a node's kernel. The daemon's count is of its last look at the table, in the midst of an
/// opening, perhaps.
fn confirmed(node: &Node<'_>) -> BTreeSet<Vec<u8>> {
    node.machine.run(|| dump(&pins().join("PINS"))).unwrap().into_keys().collect()
}

#[track_caller]
fn wait_all_pins(from: &Node<'_>, to: &Node<'_>) {
    let pinned = confirmed(from);
    let unheard_of = || pinned.difference(&confirmed(to)).count();
    wait_for("the other node has all pins", MINUTE, unheard_of, |count| *count == 0);
}

/// Connections opened while slots are on their way, then the active node dies: how many of how many break. With a cluster, the
/// dead node comes back, too.
fn break_after_a_change(is_cluster: bool) -> [usize; 2] {
    let pair = Pair::new().unwrap();
    let mut nodes = start(&pair, is_cluster);
    let before = hold(&pair);
    for (service, _) in VIPS {
        let drain = ["drain", &format!("{service}/web1")];
        nodes[0].daemon.must(&drain);
        if !is_cluster {
            nodes[1].daemon.must(&drain);
        }
    }
    nodes[1].daemon.wait("the other node drains, too", MINUTE, |status| {
        VIPS.iter().all(|(service, _)| {
            backend(status, service, "web1").is_some_and(|one| one.admin == "drain")
        })
    });
    let after = hold(&pair);
    let pinned = confirmed(&nodes[0]).len();
    assert!(pinned > 30, "{pinned} flows are pinned");
    if is_cluster {
        wait_all_pins(&nodes[0], &nodes[1]);
    }
    nodes[0].crash().unwrap();
    wait_active(&nodes[1]);
    let moved = [broken(&before) + broken(&after), before.len() * EACH * 2];
    if is_cluster {
        assert_eq!(moved[0], 0, "after the failover");
        nodes[0].boot().unwrap();
        let status = wait_in_step(&nodes[0]);
        let drained = VIPS.iter().all(|(service, _)| {
            backend(&status, service, "web1").is_some_and(|one| one.admin == "drain")
        });
        assert!(drained, "what was set by hand is heard from the other node: {status:#?}");
        wait_active(&nodes[0]);
        assert_eq!(
            broken(&before) + broken(&after),
            0,
            "after the return: {:#?}",
            cluster(&status)
        );
    }
    moved
}

#[test]
fn flows_of_a_change_survive_the_node_that_alone_saw_them_and_its_return() {
    let [broken, all] = break_after_a_change(true);
    println!("with a cluster: {broken} of {all} connections broken by a failover in a window");
    let [broken, all] = break_after_a_change(false);
    println!("without: {broken} of {all}");
    assert!(broken > 0, "else the test shows nothing");
}

/// Services whose backends are not the ring's choice: without the other node's tables nothing is found again.
fn track(node: &Node<'_>) {
    let yaml = fs::read_to_string(&node.daemon.config).unwrap();
    let tracked = "    balance: rr\n    persistence: {by: source, timeout: 10m}\n    forward: ";
    node.daemon.write(&yaml.replace("    forward: ", tracked)).unwrap();
}

/// Who answers each of these addresses of the client.
fn answers(pair: &Pair) -> Vec<String> {
    let target = targets()[0].1;
    pair.client.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |last: u8| {
            let source = SocketAddr::new(Ipv4Addr::new(10, 77, 1, last).into(), 0);
            runtime.block_on(request_from(target, Some(source))).unwrap()
        };
        (100..130).map(ask).collect()
    })
}

#[test]
fn tracked_flows_and_remembered_clients_go_on_through_the_other_node() {
    let pair = Pair::new().unwrap();
    pair.client
        .sh("for last in $(seq 100 129); do ip addr add 10.77.1.$last/24 dev c0; done")
        .unwrap();
    let mut nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    for node in &mut nodes {
        join(node, SECRET);
        track(node);
    }
    start_all(&mut nodes).unwrap();
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    wait_active(&nodes[0]);
    let held = hold(&pair);
    let before = answers(&pair);
    let tracking = |status: &Status| {
        let all = status.services.iter().filter_map(|service| service.tracking.as_ref());
        all.fold([0, 0], |sum, one| [sum[0] + one.confirmed, sum[1] + one.sources.unwrap_or(0)])
    };
    let open = (held.len() * EACH) as u64;
    for node in &nodes {
        // The clients' 30 addresses, and the one of the held connections at each service.
        node.daemon.wait("flows and clients are known", MINUTE, |status| {
            let [flows, clients] = tracking(status);
            flows >= open && clients >= 30 + VIPS.len() as u64
        });
    }
    nodes[0].crash().unwrap();
    wait_active(&nodes[1]);
    assert_eq!(broken(&held), 0, "after the failover");
    assert_eq!(answers(&pair), before, "clients stay with their backends");
    nodes[0].boot().unwrap();
    wait_in_step(&nodes[0]);
    wait_active(&nodes[0]);
    assert_eq!(broken(&held), 0, "after the return");
    assert_eq!(answers(&pair), before, "clients stay with their backends");
}

/// A peer that cannot be reached, and is again: nothing but the cluster notices (F51).
#[test]
fn f51_a_peer_out_of_reach_costs_nothing_and_catches_up() {
    let pair = Pair::new().unwrap();
    let nodes = start(&pair, true);
    let held = hold(&pair);
    nodes[1]
        .machine
        .sh("nft add table inet cut; \
             nft 'add chain inet cut in { type filter hook input priority 0; }'; \
             nft 'add chain inet cut out { type filter hook output priority 0; }'; \
             nft add rule inet cut in tcp dport 7946 drop; nft add rule inet cut in tcp sport 7946 drop; \
             nft add rule inet cut out tcp dport 7946 drop; nft add rule inet cut out tcp sport 7946 drop")
        .unwrap();
    for node in &nodes {
        node.daemon.wait("the peer is away", MINUTE, |status| other(status).state == "away");
    }
    nodes[0].daemon.must(&["drain", "nat/web1"]);
    let more = Held::open(&pair.client, targets()[0].1, EACH).unwrap();
    assert_eq!(broken(&held) + more.broken().len(), 0, "nobody notices");
    nodes[1].machine.sh("nft delete table inet cut").unwrap();
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    nodes[1].daemon.wait("it has caught up", MINUTE, |status| {
        backend(status, "nat", "web1").is_some_and(|one| one.admin == "drain")
    });
    wait_all_pins(&nodes[0], &nodes[1]);
}

fn log_of(nodes: &[Node<'_>; 2]) -> String {
    nodes.each_ref().map(|node| format!("{:#?}", node.daemon.events())).join("\n")
}

/// Two daemons and no keepalived: nobody needs the VIPs.
fn daemons<'a>(pair: &'a Pair, secrets: [&str; 2]) -> [Node<'a>; 2] {
    let mut nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    for (node, secret) in nodes.iter_mut().zip(secrets) {
        join(node, secret);
        node.daemon.start().unwrap();
    }
    nodes
}

/// The clock of lb-b's wall is a day behind: it counts for nothing.
#[test]
fn what_is_set_by_hand_holds_on_both_and_the_last_word_counts() {
    let pair = Pair::new().unwrap();
    let mut nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    nodes[1].daemon.environment = vec![
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1".to_owned()),
        ("FAKETIME", "-1d".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    for node in &mut nodes {
        join(node, SECRET);
        node.daemon.start().unwrap();
    }
    let [a, b] = nodes.each_ref().map(|node| node.daemon.events()[0].unix_milliseconds);
    assert!(a > b + 86_000_000, "the clocks are a day apart: {a} {b}");
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    let is = |node: &Node<'_>, admin: &str, weight: u16| {
        node.daemon.wait(&format!("web1 is {admin} {weight}"), MINUTE, |status| {
            backend(status, "nat", "web1")
                .is_some_and(|one| one.admin == admin && one.weight == weight)
        });
    };
    nodes[0].daemon.must(&["weight", "nat/web1", "7"]);
    nodes[1].daemon.must(&["maint", "nat/web1"]);
    nodes.iter().for_each(|node| is(node, "maint", 7));
    nodes[0].daemon.must(&["drain", "nat/web1"]);
    nodes.iter().for_each(|node| is(node, "drain", 7));
    nodes[1].daemon.must(&["maint", "nat/web1"]);
    nodes.iter().for_each(|node| is(node, "maint", 7));
    // Who is away hears of it when it is back, and has no older word to say.
    nodes[1].daemon.kill().unwrap();
    nodes[0].daemon.must(&["ready", "nat/web1"]);
    nodes[0].daemon.must(&["set", "nat", "window=7m"]);
    nodes[1].daemon.start().unwrap();
    wait_in_step(&nodes[1]);
    nodes.iter().for_each(|node| is(node, "ready", 7));
    nodes[1].daemon.wait("the setting is there", MINUTE, |status| {
        status.settings.iter().any(|one| one.key == "window" && one.value == "7m")
    });
    nodes[1].daemon.must(&["unset", "nat", "window"]);
    nodes[1].daemon.must(&["unset", "nat/web1", "weight"]);
    nodes.iter().for_each(|node| is(node, "ready", 100));
    nodes[0].daemon.wait("it is the file's again", MINUTE, |status| status.settings.is_empty());
    let [a, b] = nodes.each_ref().map(|node| node.daemon.status());
    for (one, two) in a.services.iter().zip(&b.services) {
        assert_eq!(one.ring, two.ring, "{}", log_of(&nodes));
    }
}

#[test]
fn f35_a_node_that_alone_finds_a_backend_down_is_outvoted_and_says_so() {
    let pair = Pair::new().unwrap();
    let nodes = daemons(&pair, [SECRET; 2]);
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    nodes.iter().for_each(|node| drop(node.daemon.wait_ready(&["UP"])));
    let rings = |node: &Node<'_>| {
        let status = node.daemon.status();
        status.services.iter().map(|one| one.ring.clone()).collect::<Vec<_>>()
    };
    let before = rings(&nodes[0]);
    nodes[1]
        .machine
        .sh("nft add table inet cut; \
        nft 'add chain inet cut out { type filter hook output priority 0; }'; \
        nft add rule inet cut out ip daddr 10.77.0.11 tcp dport 8080 drop")
        .unwrap();
    let status = nodes[1]
        .daemon
        .wait("lb-b is outvoted", MINUTE, |status| !cluster(status).outvoted.is_empty());
    let web1 = backend(&status, "nat", "web1").unwrap();
    assert!(web1.state.starts_with("DOWN") && web1.slots > 0, "{web1:#?}");
    assert_eq!([rings(&nodes[0]), rings(&nodes[1])], [before.clone(), before.clone()]);
    // Alone, it goes by its own checks.
    let mut nodes = nodes;
    nodes[0].daemon.kill().unwrap();
    nodes[1].daemon.wait("lb-b goes by its own checks", MINUTE, |status| {
        backend(status, "nat", "web1").is_some_and(|one| one.slots == 0)
    });
    // Both find it: then it is so.
    nodes[1].machine.sh("nft delete table inet cut").unwrap();
    nodes[0].daemon.start().unwrap();
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    nodes.iter().for_each(|node| drop(node.daemon.wait_ready(&["UP"])));
    pair.backends[0].sh("ip link set e0 down").unwrap();
    for node in &nodes {
        node.daemon.wait("web1 is DOWN on both", MINUTE, |status| {
            backend(status, "nat", "web1").is_some_and(|one| one.slots == 0)
        });
    }
}

#[test]
fn rings_that_differ_are_told_with_the_input_that_does() {
    let pair = Pair::new().unwrap();
    let nodes = daemons(&pair, [SECRET; 2]);
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    let yaml = fs::read_to_string(&nodes[1].daemon.config).unwrap();
    let web3 = "      - {name: web3, address: \"10.77.0.13:8080\"}\n";
    assert!(yaml.contains(web3), "{yaml}");
    nodes[1].daemon.write(&yaml.replacen(web3, "", 1)).unwrap();
    let status = nodes[0]
        .daemon
        .wait("the rings differ", MINUTE, |status| !cluster(status).mismatches.is_empty());
    let found = &cluster(&status).mismatches[0];
    assert_eq!((found.service.as_str(), found.node.as_str()), ("nat", "lb-b"));
    assert_eq!(found.input, "the other node does not have the backend web3");
    assert!(status.warnings.iter().any(|text| text.contains("nat has another ring on lb-b")));
    assert!(nodes[0].daemon.events().iter().any(|event| event.kind == "ring_mismatch"));
    nodes[1].daemon.write(&yaml).unwrap();
    nodes[0]
        .daemon
        .wait("they are the same again", MINUTE, |status| cluster(status).mismatches.is_empty());
}

/// Whoever is no peer, or behaves as none, costs nothing but its connection (S17, S18).
#[test]
fn s17_s18_strangers_garbage_and_silence_do_no_harm() {
    let pair = Pair::new().unwrap();
    let mut nodes = daemons(&pair, [SECRET, "another secret, as long as the first"]);
    for node in &nodes {
        let status = node.daemon.wait("the wrong secret is refused", MINUTE, |status| {
            cluster(status).strangers > 0 && other(status).problem.contains("secret")
        });
        assert_eq!((other(&status).state.as_str(), other(&status).received), ("away", 0));
    }
    let target = SocketAddr::new(Ipv4Addr::new(10, 77, 1, 3).into(), PORT);
    let stranger = move || {
        use std::io::{Read as _, Write as _};
        let connect = || std::net::TcpStream::connect(target).unwrap();
        // As many as it has room for and more, of every kind.
        let silent: Vec<_> = (0..60).map(|_| connect()).collect();
        drop(silent);
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0, 48], &[0; 2]] {
            let mut stream = connect();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // It may be closed before all has been written.
            let _ = stream.write_all(bytes);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.is_empty(), "who does not know the secret gets no answer");
        }
    };
    // From an address that no node has, and from one of a node.
    pair.client.run(stranger);
    nodes[1].machine.run(stranger);
    let status = nodes[0].daemon.status();
    assert!(status.services.iter().all(|service| service.state == "UP"), "{status:#?}");
    // A new secret is in force without a restart, and the nodes find each other.
    write_secret(&nodes[1].daemon.directory, SECRET);
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    // A peer that hangs is noticed, and missed by nobody.
    let pid = nix::unistd::Pid::from_raw(nodes[1].daemon.pid().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    nodes[0].daemon.wait("the silent peer is away", MINUTE, |status| other(status).state == "away");
    nodes[0].daemon.must(&["drain", "nat/web2"]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    nodes.iter().for_each(|node| drop(wait_in_step(node)));
    nodes[1].daemon.wait("it has caught up", MINUTE, |status| {
        backend(status, "nat", "web2").is_some_and(|one| one.admin == "drain")
    });
    nodes[1].daemon.kill().unwrap();
}

#[test]
fn nodes_with_different_seeds_say_so_and_tell_each_other_no_flows() {
    let pair = Pair::new().unwrap();
    let mut nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    let seed = nodes[1].daemon.directory.join("state/seed");
    fs::write(seed, "0123456789abcdef".repeat(4)).unwrap();
    for node in &mut nodes {
        join(node, SECRET);
        node.daemon.start().unwrap();
    }
    for node in &nodes {
        let status = wait_in_step(node);
        assert_eq!(other(&status).same_seed, Some(false));
        assert!(status.warnings.iter().any(|text| text.contains("another seed")), "{status:#?}");
        assert!(node.daemon.events().iter().any(|event| event.kind == "ring_mismatch"));
    }
    nodes[0].daemon.must(&["drain", "nat/web1"]);
    nodes[1].daemon.wait("what is set by hand holds all the same", MINUTE, |status| {
        backend(status, "nat", "web1").is_some_and(|one| one.admin == "drain")
    });
}

#[test]
fn two_nodes_of_one_name_say_so_until_one_has_another() {
    let pair = Pair::new().unwrap();
    let mut nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    for node in &mut nodes {
        join(node, SECRET);
        node.daemon.arguments = vec!["--node", "lb-a"];
        node.daemon.start().unwrap();
    }
    let told = |node: &Node<'_>| {
        let events = node.daemon.events();
        events.iter().filter(|event| event.kind == "node_name").count()
    };
    for node in &nodes {
        let status = node.daemon.wait("the name is taken", MINUTE, |s| s.name_conflict.is_some());
        let words = "is called lb-a, as this one is";
        assert!(status.warnings.iter().any(|one| one.contains(words)), "{status:#?}");
        // The event comes with the daemon's next look around.
        node.daemon.wait("the event is there, once", MINUTE, |_| told(node) == 1);
        let doctor = node.daemon.lb(&["doctor"]).unwrap();
        let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(doctor.contains(words), "{doctor}");
    }
    nodes[1].daemon.kill().unwrap();
    nodes[1].daemon.arguments = vec!["--node", "lb-b"];
    nodes[1].daemon.start().unwrap();
    for node in &nodes {
        let status = wait_in_step(node);
        assert_eq!(status.name_conflict, None);
    }
    nodes[0].daemon.wait("it is said that it is over", MINUTE, |_| told(&nodes[0]) == 2);
}
