//! What happens to the network under a running lb: rows of the catalogue of faults.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    client::{Load, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

const MINUTE: Duration = Duration::from_secs(60);

fn yaml(order: &[usize]) -> String {
    let mut yaml = format!(
        "services:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    backends:\n"
    );
    for number in order {
        yaml +=
            &format!("      - {{name: web{number}, address: \"{}:{PORT}\"}}\n", backend4(*number));
    }
    yaml
}

fn target() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

fn started(lab: &Lab) -> Daemon<'_> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(&[1, 2, 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    daemon
}

/// Waits until everybody answers again.
#[track_caller]
fn traffic_is_back(lab: &Lab, daemon: &Daemon<'_>) {
    let look = || (requests(&lab.client, target(), 60, 20), daemon.log_tail());
    wait_for("all requests are answered, by all three", MINUTE, look, |(tally, _)| {
        tally.failures() == 0 && tally.answered.len() == 3
    });
}

#[test]
fn f20_order_in_the_file_means_nothing() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    let ask = || -> Vec<_> {
        (1..=60)
            .map(|port| {
                daemon.lookup(&format!("10.77.1.2:{}", 20_000 + port), "10.77.0.80:8080").backend
            })
            .collect()
    };
    let before = ask();
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        daemon.write(&yaml(&order)).unwrap();
        let said = daemon.must(&["reload"]);
        assert!(!said.contains("slots change hands"), "{said}");
        let slots = daemon.status().services[0].slots;
        assert_eq!(slots.window + slots.harvest + slots.pinned, 0, "{order:?}: {slots:?}");
        assert_eq!(ask(), before, "{order:?}");
    }
}

#[test]
fn f25_a_nic_goes_down_and_comes_up() {
    let lab = Lab::new(Arms::Two, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    traffic_is_back(&lab, &daemon);
    lab.lb.ip("link set lb1 down").unwrap();
    daemon.wait("the NIC is seen down", MINUTE, |status| status.interfaces[1].link == "down");
    lab.lb.ip("link set lb1 up").unwrap();
    // IPv6 addresses go with the link; they are not this test's matter.
    traffic_is_back(&lab, &daemon);
    let nic = daemon.status().interfaces[1].clone();
    assert_eq!((nic.link.as_str(), nic.mode.as_str()), ("up", "native"), "{nic:?}");
}

#[test]
fn f26_a_nic_is_made_anew() {
    let lab = Lab::new(Arms::Two, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    traffic_is_back(&lab, &daemon);
    let old = daemon.status().interfaces[1].ifindex;
    lab.lb.ip("link del lb1").unwrap();
    daemon.wait("the NIC is seen gone", MINUTE, |status| status.interfaces[1].ifindex.is_none());
    let _pass = lab.rebuild_inner_link().unwrap();
    let status =
        daemon.wait("attached anew", MINUTE, |status| status.interfaces[1].mode == "native");
    assert_ne!(status.interfaces[1].ifindex, old);
    traffic_is_back(&lab, &daemon);
}

#[test]
fn f27_a_backends_mac_address_moves_silently() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    traffic_is_back(&lab, &daemon);
    lab.backends[1]
        .sh("ip link set e0 down; ip link set e0 address 02:00:00:00:be:ef; ip link set e0 up; ip route add default via 10.77.0.1")
        .unwrap();
    let status = daemon.wait("the new address is followed", MINUTE, |status| {
        status.services[0].backends[1].next_hop.contains("02:00:00:00:be:ef")
    });
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
    traffic_is_back(&lab, &daemon);
}

#[test]
fn f28_a_gateways_mac_address_moves() {
    // The way back to clients is on link here; what is followed is the client's own address.
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    traffic_is_back(&lab, &daemon);
    lab.client
        .sh("ip link set c0 down; ip link set c0 address 02:00:00:00:ca:fe; ip link set c0 up; ip route add default via 10.77.1.1")
        .unwrap();
    traffic_is_back(&lab, &daemon);
}

#[test]
fn f29_forgotten_neighbours_are_found_again() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    traffic_is_back(&lab, &daemon);
    let load = Load::start(&lab.client, &[target()], 4, Duration::from_millis(2));
    for _ in 0..5 {
        lab.lb.ip("neigh flush all").unwrap();
        let answered = load.tally().ok();
        wait_for("requests go on", MINUTE, || load.tally().ok(), |now| *now > answered + 100);
    }
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", daemon.log_tail());
}

#[test]
fn f49_the_mtu_changes() {
    let lab = Lab::new(Arms::One, Return::Direct, 3).unwrap();
    let mut yaml = yaml(&[1, 2, 3]).replace("forward: nat", "forward: tunnel\n    encap: ipip");
    yaml = yaml.replace(", port: 8080}", ", port: 8080, protocol: udp}");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let sent = || daemon.stats().services[0].reasons.get("ptb_sent").copied().unwrap_or(0);
    // 1,500 bytes and 20 more fit into 1,600, but not into 1,510 (a veth takes in nothing larger than its MTU).
    big_datagram(&lab).unwrap();
    assert_eq!(sent(), 0);
    lab.lb.ip("link set lb0 mtu 1510").unwrap();
    daemon.wait("the MTU is known", MINUTE, |status| status.interfaces[0].mtu == 1510);
    wait_for(
        "the client is told the new limit",
        MINUTE,
        || {
            let _ = big_datagram(&lab);
            sent()
        },
        |sent| *sent > 0,
    );
    let route = lab.client.ip("route get 10.77.0.80").unwrap();
    assert!(route.contains("mtu 1490"), "the path MTU is the NIC's less the outer header: {route}");
    lab.lb.ip("link set lb0 mtu 1600").unwrap();
    daemon.wait("the MTU is known", MINUTE, |status| status.interfaces[0].mtu == 1600);
}

#[test]
fn f49_packets_that_no_longer_fit_are_answered_with_the_new_limit() {
    let lab = Lab::new(Arms::Two, Return::Direct, 3).unwrap();
    let mut yaml = yaml(&[1, 2, 3]).replace("forward: nat", "forward: tunnel\n    encap: ipip");
    yaml = yaml.replace(", port: 8080}", ", port: 8080, protocol: udp}");
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let sent = || daemon.stats().services[0].reasons.get("ptb_sent").copied().unwrap_or(0);
    lab.lb.ip("link set lb1 mtu 1400").unwrap();
    daemon.wait("the MTU is known", MINUTE, |status| status.interfaces[1].mtu == 1400);
    wait_for(
        "the client is told the new limit",
        MINUTE,
        || {
            let _ = big_datagram(&lab);
            sent()
        },
        |sent| *sent > 0,
    );
    let route = lab.client.ip("route get 10.77.0.80").unwrap();
    assert!(route.contains("mtu 1380"), "the path MTU is the NIC's less the outer header: {route}");
    // The driver refuses an MTU with which it could not run the program: nothing changes, and lb says what the driver said
    // when it is asked to attach to such a NIC (F46).
    let refused = lab.lb.ip("link set lb1 mtu 9000");
    let error = refused.expect_err("a veth with a program takes no MTU of 9,000").to_string();
    println!("the driver's refusal: {error}");
    let status = daemon.status();
    assert_eq!((status.interfaces[1].mtu, status.interfaces[1].mode.as_str()), (1400, "native"));
}

/// A datagram of 1,500 bytes with DF to the VIP.
fn big_datagram(lab: &Lab) -> std::io::Result<()> {
    lab.client.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(target())?;
        socket.send(&[7u8; 1472]).map(drop)
    })
}
