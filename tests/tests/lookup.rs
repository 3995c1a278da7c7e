//! `lb lookup` says where packets go: what it answers, the backend that really answers must be.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use lb_tests::{
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
    machine::Machine,
};
use lb_userspace::api::types::Lookup;

const MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(10);
const FLOWS: usize = 40;

/// TCP and UDP on both VIPs; windows that no test outlives.
fn yaml() -> String {
    let mut yaml = "services:\n".to_owned();
    for protocol in ["tcp", "udp"] {
        for vip in [VIP4, VIP6] {
            yaml += &format!(
                "  - name: {}\n    listen: {{address: \"{vip}\", port: {PORT}, protocol: {protocol}}}\n    \
                 forward: nat\n    ring_size: 1021\n    window: 1h\n    backends:\n",
                service(protocol, vip)
            );
            for (number, weight) in [(1, 100), (2, 50), (3, 200)] {
                let address = if vip.is_ipv4() { backend4(number) } else { backend6(number) };
                yaml += &format!(
                    "      - {{name: web{number}, address: \"{}\", weight: {weight}}}\n",
                    SocketAddr::new(address, PORT)
                );
            }
        }
    }
    yaml
}

fn service(protocol: &str, vip: IpAddr) -> String {
    format!("{protocol}{}", if vip.is_ipv4() { 4 } else { 6 })
}

fn lookup(daemon: &Daemon<'_>, flow: &Flow) -> Lookup {
    let (source, vip) = (flow.source.to_string(), flow.vip.to_string());
    let answer = daemon.must(&["lookup", &source, &vip, flow.protocol(), "--json"]);
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// A client's socket.
struct Flow {
    socket: Socket,
    source: SocketAddr,
    vip: SocketAddr,
}

enum Socket {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket),
}

impl Flow {
    /// A socket keeps the namespace it was made in: any thread may use it.
    fn open(client: &Machine, protocol: &str, address: IpAddr) -> Self {
        let (vip, udp) = (SocketAddr::new(address, PORT), protocol == "udp");
        client.run(move || {
            let (socket, source) = if udp {
                let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect(vip).unwrap();
                let source = socket.local_addr().unwrap();
                (Socket::Udp(socket), source)
            } else {
                let stream = TcpStream::connect_timeout(&vip, PATIENCE).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let source = stream.local_addr().unwrap();
                (Socket::Tcp(BufReader::new(stream)), source)
            };
            Self { socket, source, vip }
        })
    }

    fn protocol(&self) -> &'static str {
        match self.socket {
            Socket::Tcp(_) => "tcp",
            Socket::Udp(_) => "udp",
        }
    }

    /// Asks, and returns who answered.
    fn ask(&mut self) -> String {
        match &mut self.socket {
            Socket::Udp(socket) => {
                socket.send(b"who").unwrap();
                let mut answer = [0u8; 64];
                let length = socket.recv(&mut answer).unwrap();
                let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
                answer.strip_suffix(" who").unwrap_or_else(|| panic!("{answer:?}")).to_owned()
            }
            Socket::Tcp(stream) => {
                stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    assert!(stream.read_line(&mut line).unwrap() > 0, "closed before an answer");
                    if let Some(value) = line.strip_prefix("Content-Length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0u8; length];
                stream.read_exact(&mut body).unwrap();
                String::from_utf8(body).unwrap()
            }
        }
    }
}

fn context(found: &Lookup, daemon: &Daemon<'_>) -> String {
    format!("{found:#?}\n{}", daemon.log_tail())
}

#[test]
fn lookup_names_the_backend_that_answers() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    for protocol in ["tcp", "udp"] {
        for vip in [VIP4, VIP6] {
            let mut met = BTreeSet::new();
            for _ in 0..FLOWS {
                let mut flow = Flow::open(&lab.client, protocol, vip);
                let name = flow.ask();
                let found = lookup(&daemon, &flow);
                let context = context(&found, &daemon);
                assert_eq!(found.service, Some(service(protocol, vip)), "{context}");
                assert_eq!(found.backend.as_deref(), Some(name.as_str()), "{context}");
                assert_eq!(found.backend_for_new_flow, found.backend, "{context}");
                assert_eq!((found.phase.as_str(), found.slots), ("SETTLED", 1021), "{context}");
                assert_eq!((found.pin.as_str(), found.base), ("none", None), "{context}");
                met.insert(name);
            }
            assert!(met.len() > 1, "{FLOWS} flows of {protocol} to {vip} have met only {met:?}");
        }
    }
}

#[test]
fn lookup_tells_old_flows_from_new_ones_while_the_ring_changes() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    let open = |flows: &mut Vec<(Flow, String)>, protocol, vip| {
        let mut flow = Flow::open(&lab.client, protocol, vip);
        let name = flow.ask();
        flows.push((flow, name));
    };
    for vip in [VIP4, VIP6] {
        let name = service("tcp", vip);
        let mut old = Vec::new();
        while old.iter().filter(|(_, name)| name == "web3").count() < 10 {
            open(&mut old, "tcp", vip);
        }
        daemon.must(&["drain", &format!("{name}/web3")]);
        daemon.wait("web3 owns no slot", MINUTE, |status| {
            backend(status, &name, "web3").is_some_and(|web3| web3.slots == 0)
        });
        // Without a packet since: all from the slot. After one: nothing changes in a window.
        for _ in 0..2 {
            for (flow, name) in &mut old {
                let found = lookup(&daemon, flow);
                let context = context(&found, &daemon);
                assert_eq!(found.backend.as_deref(), Some(name.as_str()), "{context}");
                assert_ne!(found.backend_for_new_flow.as_deref(), Some("web3"), "{context}");
                if name == "web3" {
                    assert_eq!(found.phase, "WINDOW", "{context}");
                    assert_eq!(found.base.as_deref(), Some("web3"), "{context}");
                }
                assert_eq!(flow.ask(), *name, "{context}");
            }
        }
        let mut new = Vec::new();
        for _ in 0..FLOWS {
            open(&mut new, "tcp", vip);
        }
        let mut pinned = 0;
        for (flow, name) in &new {
            let found = lookup(&daemon, flow);
            let context = context(&found, &daemon);
            assert_eq!(found.backend.as_deref(), Some(name.as_str()), "{context}");
            assert_eq!(found.backend_for_new_flow, found.backend, "{context}");
            if found.phase == "WINDOW" {
                assert_eq!(found.pin, format!("confirmed {name}"), "{context}");
                pinned += 1;
            }
        }
        assert!(pinned > 0, "none of {FLOWS} new flows has met a slot of web3's");
    }
    // UDP has no opening packet: its flows follow the ring at once, and lookup says so.
    let mut flows = Vec::new();
    while flows.iter().filter(|(_, name)| name == "web3").count() < 10 {
        open(&mut flows, "udp", VIP4);
    }
    daemon.must(&["drain", "udp4/web3"]);
    daemon.wait("web3 owns no slot", MINUTE, |status| {
        backend(status, "udp4", "web3").is_some_and(|web3| web3.slots == 0)
    });
    for (flow, before) in &mut flows {
        let name = flow.ask();
        let found = lookup(&daemon, flow);
        let context = context(&found, &daemon);
        assert_eq!(found.backend.as_deref(), Some(name.as_str()), "{context}");
        assert_ne!(name, "web3", "{context}");
        assert!(before == "web3" || *before == name, "{before} -> {name}: {context}");
    }
}

#[test]
fn lookup_of_what_is_no_service_says_so() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    for (vip, protocol) in [("10.77.0.81:8080", "tcp"), ("10.77.0.80:81", "udp")] {
        let answer = daemon.must(&["lookup", "10.77.1.2:1024", vip, protocol, "--json"]);
        let found: Lookup = serde_json::from_str(&answer).unwrap();
        assert_eq!((found.service, found.backend), (None, None), "{answer}");
        assert!(!found.why.is_empty(), "{answer}");
    }
    // Addresses of two families, a name instead of an address: usage, not a crash of the daemon.
    for (source, vip) in [("[fd77:1::2]:1024", "10.77.0.80:8080"), ("client:1", "10.77.0.80:8080")]
    {
        let output = daemon.lb(&["lookup", source, vip]).unwrap();
        assert!(!output.status.success(), "{source} {vip}: {output:?}");
        assert!(!output.stderr.is_empty(), "{source} {vip}: {output:?}");
    }
    daemon.status();
}
