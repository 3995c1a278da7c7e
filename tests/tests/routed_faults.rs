//! A backend on another subnet, and what happens to the gateways on the way to it: rows of the catalogue of faults.
//!
//! ```text
//!  client ── br0 ── lb0 of lb
//!             ├── g0 of gw1 (10.77.0.2) ── e1 of far ┐
//!             └── g0 of gw2 (10.77.0.3) ── e2 of far ┴ 10.78.0.11, which lb routes by one of the two
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use lb_tests::{
    client::{Load, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4},
    machine::Machine,
    server::Server,
};

const MINUTE: Duration = Duration::from_secs(60);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 11);

struct Routed {
    lab: Lab,
    gateways: [Machine; 2],
    _far: (Machine, Server),
}

impl Routed {
    /// The lab, with the route by the first gateway.
    fn new() -> Self {
        let lab = Lab::new(Arms::One, Return::ThroughLb, 0).unwrap();
        let far = Machine::new("far").unwrap();
        far.ip(&format!("addr add {FAR}/32 dev lo")).unwrap();
        let gateways = [1, 2].map(|number| {
            let gateway = Machine::new(&format!("gw{number}")).unwrap();
            let port = format!("p-gw{number}");
            gateway.connect("g0", &lab.switch, &port, 1500).unwrap();
            lab.switch.ip(&format!("link set {port} master br0")).unwrap();
            gateway.connect("g1", &far, &format!("e{number}"), 1500).unwrap();
            far.ip(&format!("addr add 10.78.{number}.2/24 dev e{number}")).unwrap();
            gateway
                .sh(&format!(
                    "ip addr add 10.77.0.{}/24 dev g0; ip addr add 10.78.{number}.1/24 dev g1; \
                     ip route add default via 10.77.0.1; ip route add {FAR} via 10.78.{number}.2; \
                     echo 1 > /proc/sys/net/ipv4/ip_forward; \
                     echo 0 > /proc/sys/net/ipv4/conf/g0/send_redirects",
                    number + 1
                ))
                .unwrap();
            gateway
        });
        // Answers come back by the first gateway, whichever the requests came by.
        far.ip("route add default via 10.78.1.1").unwrap();
        let server = Server::start(&far, "far", &[SocketAddr::new(FAR.into(), PORT)]).unwrap();
        let routed = Self { lab, gateways, _far: (far, server) };
        routed.route_by(1);
        routed
    }

    fn route_by(&self, gateway: usize) {
        self.lab.lb.ip(&format!("route replace {FAR} via 10.77.0.{}", gateway + 1)).unwrap();
    }

    /// MAC address of a gateway's near side.
    fn mac(&self, gateway: usize) -> String {
        let text = self.gateways[gateway - 1].sh("ip link show g0");
        let text = text.unwrap();
        let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
        words.nth(1).unwrap_or_else(|| panic!("no MAC address: {text}")).to_owned()
    }

    fn daemon(&self) -> Daemon<'_> {
        let yaml = format!(
            "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: nat\n    backends:\n      \
             - {{name: far, address: {FAR}}}\n"
        );
        let mut daemon = Daemon::new(&self.lab.lb, &self.lab.nics, &yaml).unwrap();
        daemon.start().unwrap();
        daemon
    }

    fn load(&self) -> Load {
        Load::start(&self.lab.client, &[target()], 4, Duration::from_millis(2))
    }
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

#[track_caller]
fn wait_next_hop(daemon: &Daemon<'_>, wanted: &str) {
    daemon.wait(&format!("the next hop is {wanted}"), MINUTE, |status| {
        status.services[0].backends[0].next_hop.contains(wanted)
    });
}

#[track_caller]
fn wait_answered(routed: &Routed, daemon: &Daemon<'_>) {
    let look = || (requests(&routed.lab.client, target(), 30, 10), daemon.log_tail());
    wait_for("all requests are answered", MINUTE, look, |(tally, _)| tally.failures() == 0);
}

#[track_caller]
fn wait_more(load: &Load) {
    let answered = load.tally().ok();
    wait_for("requests go on", MINUTE, || load.tally(), |tally| tally.ok() > answered + 100);
}

#[track_caller]
fn assert_lossless(load: Load, daemon: &Daemon<'_>) {
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

#[test]
fn f28_a_gateways_mac_address_changes_silently() {
    let routed = Routed::new();
    let daemon = routed.daemon();
    wait_next_hop(&daemon, &format!("lb0 via 10.77.0.2 {}", routed.mac(1)));
    wait_answered(&routed, &daemon);
    // `down` takes the default route off; the answers need it.
    let change = "ip link set g0 down; ip link set g0 address 02:00:00:00:ca:fe; ip link set g0 up; \
                  ip route add default via 10.77.0.1";
    routed.gateways[0].sh(change).unwrap();
    wait_next_hop(&daemon, "lb0 via 10.77.0.2 02:00:00:00:ca:fe");
    wait_answered(&routed, &daemon);
}

#[test]
fn f28_a_route_flaps_between_gateways_and_loses_nothing() {
    let routed = Routed::new();
    let daemon = routed.daemon();
    wait_next_hop(&daemon, "via 10.77.0.2 ");
    wait_answered(&routed, &daemon);
    let forwarded = |gateway: usize| {
        let counters = routed.gateways[gateway - 1].sh("grep g0: /proc/thread-self/net/dev");
        let counters = counters.unwrap();
        let packets = counters.split_whitespace().nth(2).and_then(|word| word.parse::<u64>().ok());
        packets.unwrap_or_else(|| panic!("no counters: {counters}"))
    };
    let load = routed.load();
    for gateway in [2, 1, 2, 1, 2] {
        routed.route_by(gateway);
        wait_next_hop(&daemon, &format!("via 10.77.0.{} {}", gateway + 1, routed.mac(gateway)));
        // Not only in words: the packets take this way now.
        let before = forwarded(gateway);
        wait_for(
            "packets go by this gateway",
            MINUTE,
            || forwarded(gateway),
            |now| *now > before + 100,
        );
    }
    // And faster than anybody follows.
    for round in 0..20 {
        routed.route_by(1 + round % 2);
    }
    wait_next_hop(&daemon, "via 10.77.0.3 ");
    wait_more(&load);
    assert_lossless(load, &daemon);
}

#[test]
fn f28_a_route_that_goes_and_comes_back_is_followed() {
    let routed = Routed::new();
    let daemon = routed.daemon();
    wait_next_hop(&daemon, "via 10.77.0.2 ");
    wait_answered(&routed, &daemon);
    routed.lab.lb.ip(&format!("route del {FAR}")).unwrap();
    wait_next_hop(&daemon, "no route");
    routed.route_by(2);
    wait_next_hop(&daemon, &format!("via 10.77.0.3 {}", routed.mac(2)));
    wait_answered(&routed, &daemon);
    let warnings = daemon.status().warnings;
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn f29_a_gateway_that_nobody_has_asked_for_is_found() {
    let routed = Routed::new();
    routed.lab.lb.ip("neigh flush all").unwrap();
    let daemon = routed.daemon();
    // Nobody waits for readiness: the first requests may come before the neighbour is known, and arrive all the same.
    let tally = requests(&routed.lab.client, target(), 50, 10);
    assert_eq!((tally.ok(), tally.failures()), (50, 0), "{tally:?}\n{}", daemon.log_tail());
    let load = routed.load();
    for _ in 0..5 {
        routed.lab.lb.ip("neigh flush all").unwrap();
        wait_more(&load);
    }
    assert_lossless(load, &daemon);
}
