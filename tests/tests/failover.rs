//! A pair of nodes with keepalived: what a failover costs. Order and counts are asserted, times are reported.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use lb_tests::{
    client::{Held, request, wait_for},
    node::{Node, start_all},
    pair::{Pair, VIPS, targets},
    pulse::{Beats, Pulse},
    vrrp::{Advertisement, Forger},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::timeout;

const MINUTE: Duration = Duration::from_secs(60);
/// Too short for a repeated SYN.
const PATIENCE: Duration = Duration::from_millis(900);
/// Long-lived connections to each of the four VIPs.
const EACH: usize = 250;

/// Both nodes, started; lb-a has the VIPs.
fn started(pair: &Pair) -> [Node<'_>; 2] {
    start([pair.node(0).unwrap(), pair.node(1).unwrap()])
}

fn start(mut nodes: [Node<'_>; 2]) -> [Node<'_>; 2] {
    start_all(&mut nodes).unwrap();
    wait_active(&nodes, 0);
    nodes
}

/// Waits until all VIPs and the backends' gateway are on one node and nowhere else.
#[track_caller]
fn wait_active(nodes: &[Node<'_>; 2], active: usize) {
    let addresses: Vec<&str> =
        VIPS.map(|(_, vip)| vip).into_iter().chain(["10.77.0.1", "fd77::1"]).collect();
    let look =
        || [0, 1].map(|node| addresses.iter().map(|vip| nodes[node].has(vip)).collect::<Vec<_>>());
    wait_for(
        &format!("every virtual address is on {} alone", nodes[active].machine.name),
        MINUTE,
        look,
        |seen| seen[active].iter().all(|has| *has) && !seen[1 - active].contains(&true),
    );
}

/// Connections to every VIP that stay open.
fn hold(pair: &Pair) -> Vec<(&'static str, Held)> {
    let open = |(name, target)| (name, Held::open_calm(&pair.client, target, EACH, 4).unwrap());
    targets().map(open).into()
}

#[track_caller]
fn all_alive(held: &[(&'static str, Held)], when: &str) {
    for (name, held) in held {
        assert_eq!(held.broken(), [""; 0], "{name}, {when}");
    }
}

/// A request every 25 ms to the VIPs in turn.
fn pulse(pair: &Pair) -> Pulse {
    let targets = targets();
    Pulse::start(&pair.client, Duration::from_millis(25), PATIENCE * 2, move |number| {
        let (name, target) = targets[number % targets.len()];
        async move {
            let answer = timeout(PATIENCE, request(target)).await;
            answer.with_context(|| format!("{name} (request {number}) timed out"))?
        }
    })
}

fn report(what: &str, beats: &Beats) {
    println!(
        "{what}: {} answered, {} failed, longest gap {} ms",
        beats.ok(),
        beats.failures(),
        beats.longest_gap.as_millis()
    );
}

fn takeovers(nodes: &[Node<'_>; 2]) -> [usize; 2] {
    [0, 1].map(|node: usize| nodes[node].takeovers())
}

/// Waits until the pulse has had so many more answers.
#[track_caller]
fn wait_for_answers(pulse: &Pulse, more: u64) {
    let goal = pulse.look().ok() + more;
    wait_for("requests are answered", MINUTE, || pulse.look(), |beats| beats.ok() >= goal);
}

#[track_caller]
fn have_the_same_rings(nodes: &[Node<'_>; 2]) {
    let [a, b] = [nodes[0].daemon.status(), nodes[1].daemon.status()];
    assert_eq!(a.seed_fingerprint, b.seed_fingerprint);
    for (one, other) in a.services.iter().zip(&b.services) {
        assert_eq!((&one.name, &one.ring), (&other.name, &other.ring));
        assert!(one.vip_on_host && !other.vip_on_host, "{one:#?}\n{other:#?}");
    }
    for port in 20_000..20_040 {
        let [one, other] = [&nodes[0], &nodes[1]].map(|node| {
            node.daemon.lookup(&format!("10.77.1.2:{port}"), "10.77.1.80:8080").backend
        });
        assert_eq!(one, other, "port {port}");
    }
}

#[test]
fn rings_are_the_same_and_a_killed_daemon_moves_nothing_and_costs_nothing() {
    let pair = Pair::new().unwrap();
    let mut nodes = started(&pair);
    have_the_same_rings(&nodes);
    let held = hold(&pair);
    let before = takeovers(&nodes);
    let pulse = pulse(&pair);
    nodes[0].daemon.kill().unwrap();
    assert_eq!(nodes[0].health(&[]), Some(2), "forwarding, daemon away");
    assert_eq!(nodes[0].health(&["--forwarding"]), Some(0));
    // Several rounds of the track script.
    wait_for_answers(&pulse, 120);
    nodes[0].daemon.start().unwrap();
    assert_eq!(nodes[0].health(&[]), Some(0));
    wait_for_answers(&pulse, 50);
    let beats = pulse.finish();
    report("daemon killed", &beats);
    assert_eq!(beats.failures(), 0, "{beats:#?}");
    assert_eq!(takeovers(&nodes), before);
    all_alive(&held, "after the death of the active node's daemon");
}

#[test]
fn a_killed_node_breaks_no_connection_and_neither_does_its_return() {
    let pair = Pair::new().unwrap();
    let mut nodes = started(&pair);
    let held = hold(&pair);
    let before = takeovers(&nodes);
    let pulse = pulse(&pair);
    wait_for_answers(&pulse, 50);
    pulse.take();

    nodes[0].crash().unwrap();
    wait_active_alone(&nodes[1]);
    wait_for_answers(&pulse, 50);
    all_alive(&held, "after the death of the active node");
    assert_eq!(takeovers(&nodes), [before[0], before[1] + 1], "one move, to the other node");
    let beats = pulse.take();
    report("node killed", &beats);
    // Requests that fell into the gap waited in vain; nobody was refused, reset or answered by a stranger.
    assert!(beats.failed.keys().all(|reason| reason.contains(") timed out")), "{beats:#?}");
    assert_eq!(beats.answered.len(), 3, "{beats:#?}");
    wait_for_answers(&pulse, 50);
    let beats = pulse.take();
    assert_eq!(beats.failures(), 0, "the new active node is in full work: {beats:#?}");

    nodes[0].boot().unwrap();
    wait_active(&nodes, 0);
    wait_for_answers(&pulse, 50);
    let beats = pulse.finish();
    report("node back", &beats);
    assert_eq!(beats.failures(), 0, "{beats:#?}");
    assert_eq!(takeovers(&nodes), [before[0] + 1, before[1] + 1], "one move back");
    all_alive(&held, "after the return of the preferred node");
}

/// The dead node cannot be asked for its addresses.
#[track_caller]
fn wait_active_alone(node: &Node<'_>) {
    wait_for(
        &format!("the VIPs are on {}", node.machine.name),
        MINUTE,
        || VIPS.map(|(_, vip)| node.has(vip)),
        |seen| !seen.contains(&false),
    );
}

#[test]
fn a_node_that_does_not_forward_hands_over_and_moved_by_hand_first_nothing_is_lost() {
    let pair = Pair::new().unwrap();
    let mut nodes = started(&pair);
    let held = hold(&pair);
    let before = takeovers(&nodes);
    let pulse = pulse(&pair);
    wait_for_answers(&pulse, 50);
    nodes[0].daemon.must(&["detach"]);
    wait_for("lb has ended", MINUTE, || nodes[0].health(&[]), |code| *code == Some(1));
    assert_eq!(nodes[0].health(&["--forwarding"]), Some(1));
    wait_active(&nodes, 1);
    wait_for_answers(&pulse, 50);
    let beats = pulse.take();
    report("lb detach on the active node", &beats);
    assert_eq!(takeovers(&nodes), [before[0], before[1] + 1]);
    // What the host gets for a VIP it drops (no_accept), so clients repeat it instead of being reset.
    assert!(beats.failed.keys().all(|reason| reason.contains(") timed out")), "{beats:#?}");
    all_alive(&held, "after lb was detached on the active node");

    // It had ended by itself.
    nodes[0].daemon.kill().unwrap();
    nodes[0].daemon.start().unwrap();
    wait_active(&nodes, 0);
    wait_for_answers(&pulse, 50);
    let beats = pulse.take();
    report("lb started again", &beats);
    assert_eq!(beats.failures(), 0, "{beats:#?}");
    all_alive(&held, "after the return of the preferred node");

    // In order: first keepalived.
    nodes[0].stop_keepalived().unwrap();
    wait_active(&nodes, 1);
    wait_for_answers(&pulse, 50);
    nodes[0].daemon.must(&["detach"]);
    wait_for_answers(&pulse, 50);
    let beats = pulse.finish();
    report("keepalived stopped, then lb detach", &beats);
    assert_eq!(beats.failures(), 0, "{beats:#?}");
    all_alive(&held, "after a node was taken out in order");
}

/// Two masters serve, and one is left when they meet again (F32).
#[track_caller]
fn split(pair: &Pair, nodes: &[Node<'_>; 2], held: &[(&'static str, Held)]) {
    let before = takeovers(nodes);
    let pulse = pulse(pair);
    pair.split(true).unwrap();
    wait_active_alone(&nodes[1]);
    assert!(nodes[0].has(VIPS[0].1), "lb-a sees nothing of lb-b, and goes on");
    wait_for_answers(&pulse, 50);
    pair.split(false).unwrap();
    wait_active(nodes, 0);
    wait_for_answers(&pulse, 50);
    let beats = pulse.finish();
    report("split and healed", &beats);
    assert_eq!(beats.failures(), 0, "{beats:#?}");
    assert_eq!(takeovers(nodes), [before[0], before[1] + 1], "lb-a has been MASTER all the time");
    all_alive(held, "after a split");
}

/// lb-b hears nothing of lb-a, which hears lb-b: both have the VIPs, and neither goes back and forth. When lb-b hears again, lb-a is left (F33).
#[track_caller]
fn deaf(pair: &Pair, nodes: &[Node<'_>; 2], held: &[(&'static str, Held)]) {
    let before = takeovers(nodes);
    let pulse = pulse(pair);
    nodes[1]
        .machine
        .sh("nft add table netdev deaf; \
             nft 'add chain netdev deaf in { type filter hook ingress device lb0 priority 0; }'; \
             nft add rule netdev deaf in ip protocol vrrp drop; nft add rule netdev deaf in ip6 nexthdr vrrp drop")
        .unwrap();
    wait_active_alone(&nodes[1]);
    wait_for_answers(&pulse, 100);
    assert!(nodes[0].has(VIPS[0].1), "lb-a hears of a lower priority, and goes on");
    assert_eq!(takeovers(nodes), [before[0], before[1] + 1], "nobody goes back and forth");
    nodes[1].machine.sh("nft delete table netdev deaf").unwrap();
    wait_active(nodes, 0);
    wait_for_answers(&pulse, 50);
    let beats = pulse.finish();
    report("one node deaf, and healed", &beats);
    assert_eq!(beats.failures(), 0, "{beats:#?}");
    all_alive(held, "after a node was deaf");
}

#[test]
fn f32_f33_nodes_that_do_not_see_each_other_serve_and_one_is_left_in_the_end() {
    let pair = Pair::new().unwrap();
    let nodes = started(&pair);
    let held = hold(&pair);
    split(&pair, &nodes, &held);
    deaf(&pair, &nodes, &held);
}

/// Requests go through lb-a and their replies through lb-b, which has never seen the client, and forgets it again each time.
#[test]
fn a_reply_to_a_client_whom_a_node_does_not_know_waits_and_is_sent() {
    const ROUNDS: u64 = 10;
    let pair = Pair::new().unwrap();
    let mut nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    for node in &mut nodes {
        node.daemon.start().unwrap();
        node.daemon.wait_ready(&["UP"]);
    }
    let mac = |node: usize, nic: &str| {
        let line = nodes[node].machine.ip(&format!("-brief link show dev {nic}")).unwrap();
        line.split_whitespace().nth(2).unwrap().to_owned()
    };
    let services = [0, 3].map(|service: usize| targets()[service]);
    for (_, target) in services {
        pair.client
            .ip(&format!("neigh replace {} lladdr {} dev c0", target.ip(), mac(0, "lb0")))
            .unwrap();
    }
    for backend in &pair.backends {
        for gateway in ["10.77.0.1", "fd77::1"] {
            backend
                .ip(&format!("neigh replace {gateway} lladdr {} dev e0", mac(1, "lb1")))
                .unwrap();
        }
    }
    let waited = |name: &str| {
        let stats = nodes[1].daemon.stats();
        let service = stats.services.iter().find(|service| service.name == name).unwrap();
        service.reasons.get("no_nexthop").copied().unwrap_or(0)
    };
    for ((name, target), client) in services.into_iter().zip(["10.77.1.2", "fd77:1::2"]) {
        for round in 0.. {
            assert!(round < 20 * ROUNDS, "{name}: {} replies had to wait", waited(name));
            if waited(name) >= ROUNDS {
                break;
            }
            // There may be no entry to forget.
            let _ = nodes[1].machine.ip(&format!("neigh del {client} dev lb0"));
            let answer = pair.client.run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async { timeout(PATIENCE, request(target)).await })
            });
            let lost = || panic!("{name}, round {round}: {}", nodes[1].daemon.reasons());
            answer.unwrap_or_else(|_| lost()).unwrap();
        }
    }
}

/// Sends a signal to lb's daemon on a node.
fn signal(node: &Node<'_>, signal: Signal) {
    let pid = node.daemon.pid().unwrap();
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

#[test]
fn f13_a_node_whose_daemon_hangs_for_long_hands_over() {
    let pair = Pair::new().unwrap();
    let nodes = [pair.node(0).unwrap(), pair.node(1).unwrap()];
    // Half a minute is long for a test.
    for node in &nodes {
        let file = node.daemon.directory.join("keepalived.conf");
        let text = fs::read_to_string(&file).unwrap();
        let patient = "    interval 5\n    timeout 4\n    fall 6\n";
        assert!(text.contains(patient), "{text}");
        fs::write(&file, text.replace(patient, "    interval 1\n    timeout 4\n    fall 2\n"))
            .unwrap();
    }
    let nodes = start(nodes);
    let held = hold(&pair);
    let before = takeovers(&nodes);
    let pulse = pulse(&pair);
    signal(&nodes[0], Signal::SIGSTOP);
    assert_eq!(nodes[0].health(&[]), Some(2), "forwarding, daemon hangs");
    wait_active(&nodes, 1);
    wait_for_answers(&pulse, 50);
    signal(&nodes[0], Signal::SIGCONT);
    wait_active(&nodes, 0);
    wait_for_answers(&pulse, 50);
    let beats = pulse.finish();
    report("daemon hung, and woken up", &beats);
    assert_eq!(beats.failures(), 0, "{beats:#?}");
    assert_eq!(takeovers(&nodes), [before[0] + 1, before[1] + 1]);
    all_alive(&held, "after the active node's daemon hung");
}

/// VRRP has no secret: whoever is heard can take the VIPs away. With the filter of configs/ha nobody is heard but the peer (S17).
#[test]
fn s17_a_forged_advertisement_moves_nothing() {
    let pair = Pair::new().unwrap();
    let nodes = started(&pair);
    let held = hold(&pair);
    let before = takeovers(&nodes);
    let pulse = pulse(&pair);
    let (client, peer) = (Ipv4Addr::new(10, 77, 1, 2), Ipv4Addr::new(10, 77, 1, 4));
    let forge = |source, ttl| {
        let vips = VIPS.iter().map(|(_, vip)| *vip).chain(["10.77.0.1"]);
        let vips = vips.filter_map(|vip| vip.parse().ok()).collect();
        let forged = Advertisement { source, ttl, router: 51, priority: 255, vips };
        Forger::start(&pair.client, client, &forged).unwrap()
    };
    let harmless = |what: &str| {
        wait_for_answers(&pulse, 40);
        let beats = pulse.take();
        assert_eq!(beats.failures(), 0, "{what}: {beats:#?}");
        assert_eq!(takeovers(&nodes), before, "{what}");
        assert!(VIPS.iter().all(|(_, vip)| nodes[0].has(vip)), "{what}");
    };
    let from_afar = forge(peer, 254);
    harmless("through a router");
    drop(from_afar);
    for index in [0, 1] {
        pair.filter_vrrp(index).unwrap();
    }
    for (what, source) in [("with another address", client), ("with the peer's address", peer)] {
        let forger = forge(source, 255);
        harmless(what);
        drop(forger);
    }
    let counted = nodes[0].machine.sh("nft list table inet vrrp_peer").unwrap();
    let packets = counted.split("counter packets ").nth(1).and_then(|text| text.split(' ').next());
    let packets: u64 = packets.and_then(|text| text.parse().ok()).unwrap_or_default();
    assert!(packets > 20, "what was forged was counted: {counted}");
    all_alive(&held, "after advertisements that nobody has heard");

    // Without the filter the same takes the VIPs, else the test shows nothing. When it ends, they are back, and so is everybody.
    for node in &nodes {
        node.machine.sh("nft delete table inet vrrp_peer").unwrap();
    }
    let forger = forge(client, 255);
    wait_for("lb-a gives way", MINUTE, || nodes[0].has(VIPS[0].1), |has| !has);
    drop(forger);
    wait_active(&nodes, 0);
    wait_for_answers(&pulse, 50);
    pulse.finish();
    all_alive(&held, "after advertisements that the nodes have heard");
}
