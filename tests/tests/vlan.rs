//! Real HTTP and UDP under VLAN tags: clients, lb and backends are in one VLAN, with one tag or two.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    client::{datagrams, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
};

const REQUESTS: usize = 100;

fn yaml(vlan: bool, forward: &str) -> String {
    let mut yaml = format!("vlan: {vlan}\nservices:\n");
    for (name, vip, backend) in [("v4", VIP4, backend4(1)), ("v6", VIP6, backend6(1))] {
        for protocol in ["tcp", "udp"] {
            yaml += &format!(
                "  - name: {protocol}-{name}\n    listen: {{address: \"{vip}\", port: {PORT}, protocol: {protocol}}}\n    {forward}\n    \
                 backends: [{{name: web1, address: \"{}\"}}]\n",
                SocketAddr::new(backend, PORT)
            );
        }
    }
    yaml
}

/// Everything is answered, and what lb has sent out again is counted.
fn all_is_answered(tags: u32, way: Return, forward: &str) {
    let lab = Lab::new(Arms::One, way, 1).unwrap();
    let _tags = lab.tag(tags).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(true, forward)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    for vip in [VIP4, VIP6] {
        let target = SocketAddr::new(vip, PORT);
        for (what, tally) in [
            ("http", requests(&lab.client, target, REQUESTS, 10)),
            ("udp", datagrams(&lab.client, target, REQUESTS)),
        ] {
            let context = || format!("{what} to {target}: {tally:?}\n{}", daemon.log_tail());
            assert_eq!((tally.ok(), tally.failures()), (REQUESTS as u64, 0), "{}", context());
        }
    }
    for service in &daemon.stats().services {
        assert!(service.total.packets_in >= REQUESTS as u64, "{service:#?}");
    }
}

#[test]
fn nat_under_one_tag() {
    all_is_answered(1, Return::ThroughLb, "forward: nat");
}

#[test]
fn dsr_under_two_tags() {
    all_is_answered(2, Return::Direct, "forward: dsr");
}

/// Without `vlan: true` tagged packets are not touched; the key takes effect by a reload.
#[test]
fn tags_are_balanced_only_when_asked_for() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let _tags = lab.tag(1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(false, "forward: nat")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let target = SocketAddr::new(VIP4, PORT);
    for vlan in [false, true] {
        daemon.write(&yaml(vlan, "forward: nat")).unwrap();
        daemon.must(&["reload"]);
        wait_for(
            &format!("vlan: {vlan} is in force"),
            Duration::from_secs(10),
            || datagrams(&lab.client, target, 1).ok(),
            |answered| (*answered > 0) == vlan,
        );
    }
}
