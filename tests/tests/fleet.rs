//! A fleet behind a router with ECMP: nodes leave and join while thousands of requests and long-lived connections go on.

use std::time::Duration;

use lb_tests::{
    client::{Held, Load},
    fleet::{Fleet, FleetNode, NODES, VIPS, targets},
};

const MINUTE: Duration = Duration::from_secs(60);
/// Connections to each VIP before, and as many after, the change of the backends.
const EACH: usize = 100;

fn hold(fleet: &Fleet) -> Vec<Held> {
    targets().map(|target| Held::open(&fleet.client, target, EACH).unwrap()).into()
}

fn broken(held: &[Held]) -> Vec<String> {
    held.iter().flat_map(Held::broken).collect()
}

#[track_caller]
fn wait_in_step(nodes: &[FleetNode<'_>]) {
    for node in nodes {
        node.daemon.wait("the nodes are in step", MINUTE, |status| {
            status.cluster.as_ref().is_some_and(|cluster| {
                let here = cluster.peers.iter().filter(|peer| peer.state == "in step").count();
                here == nodes.len() - 1
            })
        });
    }
}

/// Nodes leave and join one after the other while slots are on their way: how many of how many connections break, and how many
/// requests fail.
fn change_nodes(is_cluster: bool) -> [usize; 3] {
    let fleet = Fleet::new().unwrap();
    let mut nodes: Vec<FleetNode<'_>> =
        (0..NODES).map(|index| fleet.node(index, is_cluster).unwrap()).collect();
    fleet.wait_announced(NODES);
    if is_cluster {
        wait_in_step(&nodes);
    }
    let mut held = hold(&fleet);
    for (service, _) in VIPS {
        let asked = if is_cluster { 1 } else { NODES };
        for node in &nodes[..asked] {
            node.daemon.must(&["drain", &format!("{service}/web1")]);
        }
    }
    for node in &nodes {
        node.daemon.wait("web1 drains everywhere", MINUTE, |status| {
            let drained = |one: &&lb_userspace::api::types::BackendStatus| one.admin == "drain";
            let backends = status.services.iter().flat_map(|service| &service.backends);
            backends.filter(drained).count() == VIPS.len()
        });
    }
    held.extend(hold(&fleet));
    let load = Load::start(&fleet.client, &targets(), 4, Duration::from_millis(20));
    let pins = nodes.iter().map(|node| node.daemon.status().pins.confirmed).sum::<u64>();
    println!("pins on all nodes: {pins}");
    for index in [0, 2] {
        let position = nodes.iter().position(|node| node.name() == ["lb-a", "", "lb-c"][index]);
        nodes.remove(position.unwrap()).leave().unwrap();
        fleet.wait_announced(NODES - 1);
        if is_cluster {
            wait_in_step(&nodes);
        }
        nodes.push(fleet.node(index, is_cluster).unwrap());
        fleet.wait_announced(NODES);
        if is_cluster {
            wait_in_step(&nodes);
        }
    }
    let tally = load.finish();
    if is_cluster {
        // A power cut, and a router that notices by BFD.
        let position = nodes.iter().position(|node| node.name() == "lb-b");
        nodes.remove(position.unwrap()).crash(&fleet).unwrap();
        fleet.wait_announced(NODES - 1);
    }
    let broken = broken(&held);
    println!("{tally:?}, broken: {:?}", broken.first());
    [broken.len(), held.len() * EACH, tally.failures() as usize]
}

#[test]
fn nodes_leave_and_join_under_load_and_break_nothing() {
    let [broken, all, failed] = change_nodes(true);
    println!("with a cluster: {broken} of {all} connections broken, {failed} requests failed");
    assert_eq!((broken, failed), (0, 0));
}

#[test]
fn without_a_cluster_the_share_that_breaks_is_that_of_the_change() {
    let [broken, all, failed] = change_nodes(false);
    println!("without a cluster: {broken} of {all} connections broken, {failed} requests failed");
    assert!(broken > 0, "else the other test shows nothing");
}

/// A router that cannot make up its mind: every second all flows meet the other one of two nodes (F34). Their rings are
/// the same, so nothing has to be told.
#[test]
fn flows_that_change_the_node_every_second_stay_with_their_backends() {
    let fleet = Fleet::new().unwrap();
    let nodes = [0, 1].map(|index| fleet.node(index, false).unwrap());
    fleet.wait_announced(nodes.len());
    let held = hold(&fleet);
    let load = Load::start(&fleet.client, &targets(), 4, Duration::from_millis(20));
    for flip in 0..10 {
        fleet.route_by(flip % 2).unwrap();
        assert_eq!(broken(&held), [""; 0], "after flip {flip}");
        // Connections speak every second, and requests are on their way all the time.
        std::thread::sleep(Duration::from_secs(1));
    }
    let tally = load.finish();
    assert_eq!((broken(&held).len(), tally.failures()), (0, 0), "{tally:?}");
    for node in &nodes {
        let stats = node.daemon.stats();
        let packets: u64 = stats.services.iter().map(|service| service.total.packets_in).sum();
        assert!(packets > 100, "{} has had {packets} packets", node.name());
    }
    println!("{} requests and {} connections", tally.ok(), held.len() * EACH);
}
