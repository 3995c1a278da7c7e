//! Services of several VIPs, of prefixes and of ranges of ports, with real servers: nat and dsr, IPv4 and IPv6, through a reload and
//! a new daemon.

use std::net::{IpAddr, SocketAddr};

use lb_tests::{
    client::requests,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
    machine::Machine,
    server::Server,
};

const REQUESTS: usize = 100;

fn backends(is_v4: bool) -> String {
    let list: Vec<String> = (1..=3)
        .map(|number| {
            let address = if is_v4 { backend4(number) } else { backend6(number) };
            format!("{{name: web{number}, address: \"{address}\"}}")
        })
        .collect();
    format!("[{}]", list.join(", "))
}

fn service(name: &str, listen: &str, forward: &str, is_v4: bool) -> String {
    format!(
        "  - name: {name}\n    listen: {{{listen}}}\n    forward: {forward}\n    check: {{type: tcp, port: {PORT}}}\n    \
         backend_defaults: {{inter: 500ms, fastinter: 100ms}}\n    backends: {}\n",
        backends(is_v4)
    )
}

#[track_caller]
fn answers(lab: &Lab, daemon: &Daemon<'_>, to: IpAddr) {
    let target = SocketAddr::new(to, PORT);
    let tally = requests(&lab.client, target, REQUESTS, 10);
    let context = || format!("{target}: {tally:?}\n{:#?}\n{}", daemon.stats(), daemon.log_tail());
    assert_eq!((tally.ok(), tally.failures()), (REQUESTS as u64, 0), "{}", context());
    assert_eq!(tally.answered.len(), 3, "{}", context());
}

/// Addresses of two prefixes, on which the backends' servers listen.
const WITHIN: [&str; 6] =
    ["10.99.0.0", "10.99.0.255", "10.99.0.9", "fd99::1", "fd99::ffff:1", "fd99::2"];

/// The backends have all addresses of the prefixes; the client's packets to them come to lb as its router.
fn own_prefixes(lab: &Lab) -> Vec<Server> {
    let serve = |(web, number): (&Machine, usize)| {
        web.sh(
            "echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind; ip route replace local 10.99.0.0/24 dev lo; ip route replace local fd99::/64 dev lo",
        )
        .unwrap();
        let sockets = WITHIN.map(|address| SocketAddr::new(ip(address), PORT));
        Server::start(web, &format!("web{number}"), &sockets).unwrap()
    };
    lab.backends.iter().zip(1..).map(serve).collect()
}

#[test]
fn nat_keeps_the_port_in_ranges_and_where_all_are_one_service() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let (low, high) = (PORT - 1, PORT + 1);
    let range = "services:\n".to_owned()
        + &service("v4", &format!("address: {VIP4}, port: {low}-{high}"), "nat", true)
        + &service("v6", &format!("address: \"{VIP6}\", port: any"), "nat", false);
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &range).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    for vip in [VIP4, VIP6] {
        answers(&lab, &daemon, vip);
    }
    let status = daemon.must(&["status"]);
    assert!(status.contains(&format!("{VIP4}:{low}-{high}/tcp")), "{status}");
    assert!(status.contains(&format!("[{VIP6}]:any/tcp")), "{status}");
    for (port, found) in [(PORT, true), (high, true), (high + 1, false)] {
        let lookup = daemon.lookup("10.77.1.2:4711", &format!("{VIP4}:{port}"));
        assert_eq!(lookup.service.as_deref() == Some("v4"), found, "{lookup:#?}");
    }

    // The range moves away from the servers' port and back.
    let elsewhere = range.replace(&format!("port: {low}-{high}"), "port: 20000-20009");
    daemon.write(&elsewhere).unwrap();
    daemon.must(&["reload"]);
    let tally = requests(&lab.client, SocketAddr::new(VIP4, PORT), 5, 5);
    assert_eq!(tally.ok(), 0, "{tally:?}");
    daemon.write(&range).unwrap();
    daemon.must(&["reload"]);
    daemon.wait_ready(&["UP"]);
    answers(&lab, &daemon, VIP4);

    // A daemon that finds them loaded knows them again, and changes nothing.
    daemon.kill().unwrap();
    answers(&lab, &daemon, VIP6);
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    for vip in [VIP4, VIP6] {
        answers(&lab, &daemon, vip);
    }
}

#[test]
fn dsr_has_vips_of_both_families_and_whole_prefixes() {
    let lab = Lab::new(Arms::One, Return::Direct, 3).unwrap();
    let _servers = own_prefixes(&lab);
    let yaml = |vips: &str| {
        "services:\n".to_owned()
            + &service("web", &format!("address: [{vips}], port: {PORT}"), "dsr", true)
            + &service("any", "address: [10.99.0.0/24, \"fd99::/64\"], port: any", "dsr", true)
            + &service("one", &format!("address: 10.99.0.0/24, port: {PORT}"), "dsr", true)
    };
    let both = yaml(&format!("{VIP4}, \"{VIP6}\""));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &both).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let addresses: [IpAddr; 6] =
        [VIP4, VIP6, ip("10.99.0.0"), ip("10.99.0.255"), ip("fd99::1"), ip("fd99::ffff:1")];
    for to in addresses {
        answers(&lab, &daemon, to);
    }
    // One port wins over any: the IPv4 ones are this service's, the IPv6 ones the other's.
    let flows = |name: &str| {
        let stats = daemon.stats();
        stats.services.iter().find(|one| one.name == name).expect("it is there").total.flows
    };
    let hundred = REQUESTS as u64;
    assert_eq!((flows("web"), flows("one"), flows("any")), (2 * hundred, 2 * hundred, 2 * hundred));

    // A VIP goes and comes; the service and its other VIP stay.
    daemon.write(&yaml(&VIP4.to_string())).unwrap();
    daemon.must(&["reload"]);
    answers(&lab, &daemon, VIP4);
    let tally = requests(&lab.client, SocketAddr::new(VIP6, PORT), 3, 3);
    assert_eq!(tally.ok(), 0, "{tally:?}");
    daemon.write(&both).unwrap();
    daemon.must(&["reload"]);
    answers(&lab, &daemon, VIP6);
    assert_eq!(flows("web"), 4 * hundred, "it is the same service");

    // The host's own addresses are not to be had by the way.
    daemon.write(&both.replace("10.99.0.0/24, \"fd", "10.77.1.0/24, \"fd")).unwrap();
    let refused = daemon.lb(&["reload"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("this host's own address 10.77.1.1"),
        "{said}"
    );
    answers(&lab, &daemon, ip("10.99.0.9"));

    // A new daemon knows them all again.
    daemon.write(&both).unwrap();
    daemon.kill().unwrap();
    answers(&lab, &daemon, ip("fd99::2"));
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    for to in addresses {
        answers(&lab, &daemon, to);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no address"))
}
