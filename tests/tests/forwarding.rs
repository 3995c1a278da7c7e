//! Real HTTP and UDP through the real program, in every mode and family: everything is answered, by everybody.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Tally, datagrams, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
};

const REQUESTS: usize = 300;

fn yaml(forward: &str, families: &[(&str, &str)]) -> String {
    let mut yaml = "services:\n".to_owned();
    for protocol in ["tcp", "udp"] {
        for (vip, family) in families {
            yaml += &format!(
                "  - name: {protocol}-{}-{family}\n    listen: {{address: \"{vip}\", port: {PORT}, protocol: {protocol}}}\n    {forward}\n",
                if vip.contains(':') { "v6" } else { "v4" }
            );
            if protocol == "tcp" {
                yaml += "    check: {type: http, path: /healthz}\n    backend_defaults: {inter: 500ms, fastinter: 100ms}\n";
            }
            yaml += "    backends:\n";
            for number in 1..=3 {
                let address = if *family == "v4" { backend4(number) } else { backend6(number) };
                yaml += &format!(
                    "      - {{name: web{number}, address: \"{}\"}}\n",
                    SocketAddr::new(address, PORT)
                );
            }
        }
    }
    yaml
}

#[track_caller]
fn all_answered(what: &str, tally: &Tally, wanted: usize, daemon: &Daemon<'_>) {
    let context = || format!("{what}: {tally:?}\n{:#?}\n{}", daemon.stats(), daemon.log_tail());
    assert_eq!((tally.ok(), tally.failures()), (wanted as u64, 0), "{}", context());
    assert_eq!(tally.answered.len(), 3, "{}", context());
}

/// Asks over both protocols and VIPs.
fn ask_everything(lab: &Lab, daemon: &Daemon<'_>) {
    for vip in [VIP4, VIP6] {
        let target = SocketAddr::new(vip, PORT);
        let tally = requests(&lab.client, target, REQUESTS, 20);
        all_answered(&format!("http to {target}"), &tally, REQUESTS, daemon);
        let tally = datagrams(&lab.client, target, REQUESTS);
        all_answered(&format!("udp to {target}"), &tally, REQUESTS, daemon);
    }
}

#[test]
fn nat_with_one_nic() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let yaml = yaml("forward: nat", &[("10.77.0.80", "v4"), ("fd77::80", "v6")]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    ask_everything(&lab, &daemon);
    saw_both_directions(&daemon);
}

/// lb has counted each request's answer, and lost none, not even the first to a client that no table knew yet.
#[track_caller]
fn saw_both_directions(daemon: &Daemon<'_>) {
    let stats = daemon.stats();
    for service in &stats.services {
        assert!(service.total.packets_out >= REQUESTS as u64, "{service:#?}");
        assert_eq!(service.reasons.get("no_nexthop"), None, "{service:#?}");
    }
}

#[test]
fn nat_with_two_nics() {
    let lab = Lab::new(Arms::Two, Return::ThroughLb, 3).unwrap();
    let yaml = yaml("forward: nat", &[("10.77.0.80", "v4"), ("fd77::80", "v6")]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    ask_everything(&lab, &daemon);
    saw_both_directions(&daemon);
}

#[test]
fn dsr_on_one_segment() {
    let lab = Lab::new(Arms::One, Return::Direct, 3).unwrap();
    let yaml = yaml("forward: dsr", &[("10.77.0.80", "v4"), ("fd77::80", "v6")]);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    ask_everything(&lab, &daemon);
}

#[test]
fn tunnel_in_every_mix_of_families() {
    let lab = Lab::new(Arms::One, Return::Direct, 3).unwrap();
    lab.decapsulate();
    let tunnels = [("ipip", "v4"), ("ipip", "v6"), ("gue", "v4"), ("gue", "v6")];
    for (encap, outer) in tunnels {
        let forward = format!("forward: tunnel\n    encap: {encap}");
        let yaml = yaml(&forward, &[("10.77.0.80", outer), ("fd77::80", outer)]);
        let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
        daemon.start().unwrap();
        daemon.wait_ready(&["UP", "NOLB"]);
        ask_everything(&lab, &daemon);
        daemon.must(&["detach"]);
        wait_for(
            "the daemon has ended",
            Duration::from_secs(10),
            || daemon.lb(&["status"]).unwrap().status.success(),
            |up| !up,
        );
    }
}
