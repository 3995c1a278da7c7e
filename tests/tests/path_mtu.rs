//! Path MTU discovery through lb: a hop on the client's side that takes smaller packets than both ends' links.
//!
//! ```text
//!  remote ──1500── narrow ──1400── client (here a router) ──1500── br0 ── lb, backends
//! ```
//! The router tells the sender of packets that do not fit the 1,400 bytes: the VIP. The backend has to hear it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use lb_common::abi::Reason;
use lb_tests::{
    daemon::{Daemon, lb_binary},
    lab::{Arms, Lab, Return, VIP4, VIP6, backend4, backend6},
    machine::Machine,
};

/// Port of the server that sends much, on backends and VIPs.
const MUCH: u16 = 9000;
const LENGTH: usize = 3_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

struct Narrow {
    lab: Lab,
    remote: Machine,
    _narrow: Machine,
}

impl Narrow {
    fn new(way: Return) -> Self {
        let lab = Lab::new(Arms::One, way, 1).unwrap();
        let (narrow, remote) = (Machine::new("narrow").unwrap(), Machine::new("remote").unwrap());
        narrow.connect("n0", &lab.client, "c1", 1400).unwrap();
        remote.connect("r0", &narrow, "n1", 1500).unwrap();
        let forwarding = "echo 1 > /proc/sys/net/ipv4/ip_forward; \
                          echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        lab.client
            .sh(&format!(
                "{forwarding}; ip addr add 10.79.1.1/24 dev c1; ip addr add fd79:1::1/64 dev c1 nodad; \
                 ip route add 10.79.2.0/24 via 10.79.1.2; ip route add fd79:2::/64 via fd79:1::2"
            ))
            .unwrap();
        narrow
            .sh(&format!(
                "{forwarding}; ip addr add 10.79.1.2/24 dev n0; ip addr add fd79:1::2/64 dev n0 nodad; \
                 ip addr add 10.79.2.1/24 dev n1; ip addr add fd79:2::1/64 dev n1 nodad; \
                 ip route add default via 10.79.1.1; ip route add default via fd79:1::1"
            ))
            .unwrap();
        remote
            .sh("ip addr add 10.79.2.2/24 dev r0; ip addr add fd79:2::2/64 dev r0 nodad; \
                 ip route add default via 10.79.2.1; ip route add default via fd79:2::1")
            .unwrap();
        let back =
            "ip route add 10.79.2.0/24 via 10.77.1.2; ip route add fd79:2::/64 via fd77:1::2";
        lab.lb.sh(back).unwrap();
        if way == Return::Direct {
            lab.backends[0].sh(back).unwrap();
        }
        let narrow = Self { lab, remote, _narrow: narrow };
        for address in [VIP4, VIP6, backend4(1), backend6(1)] {
            if way == Return::Direct || ![VIP4, VIP6].contains(&address) {
                narrow.send_much_from(SocketAddr::new(address, MUCH));
            }
        }
        narrow
    }

    /// A server on the backend that sends [`LENGTH`] bytes to whoever connects.
    fn send_much_from(&self, address: SocketAddr) {
        self.lab.backends[0].run(move || {
            let listener = TcpListener::bind(address).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    // A client that goes early is a failure of the client's, which the test sees.
                    let _ = stream.and_then(|mut stream| stream.write_all(&vec![b'm'; LENGTH]));
                }
            });
        });
    }

    /// How much a connection to a VIP brings.
    fn fetch(&self, vip: std::net::IpAddr) -> Result<usize, String> {
        self.remote.run(move || {
            let fetch = || {
                let target = SocketAddr::new(vip, MUCH);
                let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes)?;
                Ok(bytes.len())
            };
            fetch().map_err(|error: std::io::Error| error.to_string())
        })
    }

    fn much_arrives(&self, forward: &str) {
        let mut yaml = "services:\n".to_owned();
        for (name, vip, backend) in [("v4", VIP4, backend4(1)), ("v6", VIP6, backend6(1))] {
            yaml += &format!(
                "  - name: {name}\n    listen: {{address: \"{vip}\", port: {MUCH}}}\n    {forward}\n    backends:\n      \
                 - {{name: web1, address: \"{}\"}}\n",
                SocketAddr::new(backend, MUCH)
            );
        }
        let mut daemon = Daemon::new(&self.lab.lb, &self.lab.nics, &yaml).unwrap();
        daemon.start().unwrap();
        daemon.wait_ready(&["UP", "NOLB"]);
        for vip in [VIP4, VIP6] {
            let got = self.fetch(vip);
            let stats = daemon.stats();
            assert_eq!(got, Ok(LENGTH), "{forward} {vip}: {stats:#?}\n{}", daemon.log_tail());
        }
        for service in &daemon.stats().services {
            let told = service.reasons.get(Reason::IcmpErrorForwarded.name());
            assert!(told.is_some_and(|count| *count > 0), "nobody was told: {service:#?}");
        }
    }
}

#[test]
fn nat() {
    Narrow::new(Return::ThroughLb).much_arrives("forward: nat");
}

#[test]
fn dsr() {
    Narrow::new(Return::Direct).much_arrives("forward: dsr");
}

#[test]
fn tunnel() {
    let narrow = Narrow::new(Return::Direct);
    let mut command = std::process::Command::new(lb_binary());
    command.args(["decap", "--iface", "e0", "--from", "10.77.0.1/32", "--from", "fd77::1/128"]);
    let output = narrow.lab.backends[0].output(command).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    narrow.much_arrives("forward: tunnel\n    encap: ipip");
}
