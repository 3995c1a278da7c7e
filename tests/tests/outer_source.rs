//! Tunnels from a prefix, with real backends: flows come from addresses of their own, `lb decap` takes the prefix, and a reload
//! changes it without a loss.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use ipnet::IpNet;
use lb_tests::{
    client::{datagrams, requests, wait_for},
    daemon::{Daemon, lb_binary},
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
};
use socket2::{Domain, Protocol, Socket, Type};

const REQUESTS: usize = 200;
const PREFIXES: [&str; 2] = ["10.99.0.0/24", "fd99::/64"];

fn yaml(outer_source: &str, backends: usize) -> String {
    let mut yaml = format!("{outer_source}\nservices:\n");
    for (vip, family) in [("10.77.0.80", "v4"), ("fd77::80", "v6")] {
        for protocol in ["tcp", "udp"] {
            yaml += &format!(
                "  - name: {protocol}-{family}\n    listen: {{address: \"{vip}\", port: {PORT}, protocol: {protocol}}}\n    forward: tunnel\n    encap: ipip\n    backends:\n"
            );
            for number in 1..=backends {
                let address = if family == "v4" { backend4(number) } else { backend6(number) };
                yaml += &format!("      - {{name: web{number}, address: \"{address}\"}}\n");
            }
        }
    }
    yaml
}

fn started<'a>(lab: &'a Lab, yaml: &str) -> Daemon<'a> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    daemon
}

/// Backends take what these prefixes send.
fn decapsulate(lab: &Lab, from: &[&str]) {
    for backend in &lab.backends {
        let mut command = Command::new(lb_binary());
        command.args(["decap", "--iface", "e0"]);
        from.iter().for_each(|prefix| {
            command.args(["--from", prefix]);
        });
        let output = backend.output(command).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[track_caller]
fn all_answered(lab: &Lab, daemon: &Daemon<'_>, what: &str) {
    for vip in [VIP4, VIP6] {
        let target = SocketAddr::new(vip, PORT);
        for tally in
            [requests(&lab.client, target, REQUESTS, 20), datagrams(&lab.client, target, REQUESTS)]
        {
            let counts = (tally.ok(), tally.failures());
            assert_eq!(
                counts,
                (REQUESTS as u64, 0),
                "{what}, {vip}: {tally:?}\n{}",
                daemon.log_tail()
            );
        }
    }
}

/// A socket of the first backend that gets what comes in tunnels and is not decapsulated.
fn listener(lab: &Lab, is_v4: bool) -> Socket {
    lab.backends[0].run(move || {
        // IPv4 in IPv4, and IPv6 in IPv6.
        let (domain, protocol) = if is_v4 { (Domain::IPV4, 4) } else { (Domain::IPV6, 41) };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).unwrap();
        socket.set_recv_buffer_size(4 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    })
}

/// Datagrams from many ports to a VIP; the outer sources that they come to the backend from.
fn sources(lab: &Lab, listener: &Socket, vip: IpAddr, flows: usize) -> BTreeSet<IpAddr> {
    let mut seen = BTreeSet::new();
    // A burst may be too much for a queue of the lab.
    let enough = flows * 3 / 4;
    let all = wait_for(
        "datagrams reach the backend",
        Duration::from_secs(30),
        || {
            lab.client.run(move || {
                let any = SocketAddr::new(
                    if vip.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() },
                    0,
                );
                for _ in 0..flows {
                    UdpSocket::bind(any).unwrap().send_to(b"anybody there?", (vip, PORT)).unwrap();
                }
            });
            let mut count = 0;
            let mut buffer = [MaybeUninit::uninit(); 2_048];
            loop {
                match listener.recv_from(&mut buffer) {
                    Ok((_, from)) => {
                        seen.insert(from.as_socket().expect("an IP address").ip());
                        count += 1;
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => return count,
                    Err(error) => panic!("{error}"),
                }
            }
        },
        |count| *count >= enough,
    );
    assert!(all >= enough);
    seen
}

#[test]
fn flows_have_sources_of_their_own_and_are_answered() {
    let lab = Lab::new(Arms::One, Return::Direct, 1).unwrap();
    let key = format!("outer_source: [{}, \"{}\"]", PREFIXES[0], PREFIXES[1]);
    let daemon = started(&lab, &yaml(&key, 1));
    for (vip, prefix) in [(VIP4, PREFIXES[0]), (VIP6, PREFIXES[1])] {
        let listener = listener(&lab, vip.is_ipv4());
        let seen = sources(&lab, &listener, vip, 256);
        let prefix: IpNet = prefix.parse().unwrap();
        println!("{vip}: 256 flows have {} outer sources of {prefix}", seen.len());
        assert!(seen.iter().all(|source| prefix.contains(source)), "{seen:?}");
        assert!(seen.len() > 100, "{seen:?}\n{}", daemon.log_tail());
    }
    decapsulate(&lab, &PREFIXES);
    all_answered(&lab, &daemon, "from a prefix");
}

#[test]
fn a_reload_changes_the_prefix_without_a_loss() {
    let lab = Lab::new(Arms::One, Return::Direct, 3).unwrap();
    let daemon = started(&lab, &yaml("", 3));
    decapsulate(
        &lab,
        &[
            "10.77.0.1/32",
            "fd77::1/128",
            "10.99.0.0/24",
            "fd99::/64",
            "10.98.0.0/16",
            "fd98::7/128",
        ],
    );
    all_answered(&lab, &daemon, "from the node's address");
    for (key, said) in [
        ("outer_source: [10.99.0.0/24, \"fd99::/64\"]", "the node's own address -> 10.99.0.0/24"),
        ("outer_source: [10.98.0.0/16, \"fd98::7\"]", "10.99.0.0/24, fd99::/64 -> 10.98.0.0/16"),
        ("", "-> the node's own address"),
    ] {
        daemon.write(&yaml(key, 3)).unwrap();
        let plan = daemon.must(&["plan", daemon.config.to_str().unwrap()]);
        assert!(plan.contains("outer_source: ") && plan.contains(said), "{plan}");
        let changes = daemon.must(&["reload"]);
        assert!(changes.contains(said), "{changes}");
        all_answered(&lab, &daemon, key);
    }
}
