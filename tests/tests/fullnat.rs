//! Full nat with real servers: backends that have no way back to the clients answer lb, whatever happens to lb's daemon.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use lb_tests::{
    client::{Held, Tally, datagrams, requests, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
    machine::Machine,
};

const LONG: Duration = Duration::from_secs(30);
/// The VIPs' port, which is not the backends'.
const FRONT: u16 = 80;
const REQUESTS: usize = 300;
const POOL: &str = "source_pool: {addresses: [10.77.0.200, 10.77.0.201, \"fd77::200\"]}\n";

/// Three backends that reach nobody but their own link.
fn lab() -> Lab {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    for backend in &lab.backends {
        backend.sh("ip route del default; ip -6 route del default").unwrap();
    }
    lab.lb
        .sh("ip addr add 10.77.0.200/32 dev lb0; ip addr add 10.77.0.201/32 dev lb0; \
             ip addr add fd77::200/128 dev lb0 nodad")
        .unwrap();
    lab
}

fn services(backends: &[usize], more: &str) -> String {
    let mut yaml = "services:\n".to_owned();
    for (vip, family) in [("10.77.0.80", "v4"), ("fd77::80", "v6")] {
        for protocol in ["tcp", "udp"] {
            yaml += &format!(
                "  - name: {protocol}-{family}\n    listen: {{address: \"{vip}\", port: {FRONT}, protocol: {protocol}}}\n    forward: fullnat\n"
            );
            if protocol == "tcp" {
                yaml += more;
                yaml += &format!("    check: {{type: http, path: /healthz, port: {PORT}}}\n");
                yaml += "    backend_defaults: {inter: 500ms, fastinter: 100ms}\n";
            }
            yaml += "    backends:\n";
            for number in backends {
                let address = if family == "v4" { backend4(*number) } else { backend6(*number) };
                let address = SocketAddr::new(address, PORT);
                yaml += &format!("      - {{name: web{number}, address: \"{address}\"}}\n");
            }
        }
    }
    yaml
}

fn yaml(backends: &[usize]) -> String {
    POOL.to_owned() + &services(backends, "")
}

fn started<'a>(lab: &'a Lab, yaml: &str) -> Daemon<'a> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    daemon
}

#[track_caller]
fn all_answered(what: &str, tally: &Tally, daemon: &Daemon<'_>) {
    let context = || format!("{what}: {tally:?}\n{:#?}\n{}", daemon.stats(), daemon.log_tail());
    assert_eq!((tally.ok(), tally.failures()), (REQUESTS as u64, 0), "{}", context());
    assert_eq!(tally.answered.len(), 3, "{}", context());
}

#[test]
fn backends_without_a_way_back_answer_lb() {
    let lab = lab();
    let daemon = started(&lab, &yaml(&[1, 2, 3]));
    for vip in [VIP4, VIP6] {
        let target = SocketAddr::new(vip, FRONT);
        all_answered("http", &requests(&lab.client, target, REQUESTS, 20), &daemon);
        all_answered("udp", &datagrams(&lab.client, target, REQUESTS), &daemon);
    }
    for service in &daemon.stats().services {
        assert!(service.total.packets_out >= REQUESTS as u64, "{service:#?}");
        assert_eq!(service.reasons.get("no_flow"), None, "{service:#?}");
        assert_eq!(service.reasons.get("no_nexthop"), None, "{service:#?}");
    }
    // What a dry run says goes there, too.
    let found = daemon.lookup("10.77.1.2:40001", "10.77.0.80:80");
    assert_eq!(found.service.as_deref(), Some("tcp-v4"), "{found:#?}");
    let ports = wait_for(
        "ports in use are counted",
        LONG,
        || daemon.status().tables.into_iter().find(|table| table.name == "source_ports"),
        |table| table.as_ref().is_some_and(|table| table.entries >= REQUESTS as u64),
    );
    assert_eq!(ports.map(|table| table.limit), Some(3 * 64_512));
}

#[test]
fn connections_outlive_the_daemon_reloads_and_a_change_of_the_pool() {
    let lab = lab();
    let mut daemon = started(&lab, &yaml(&[1, 2, 3]));
    let held: Vec<Held> = [VIP4, VIP6]
        .map(|vip| Held::open(&lab.client, SocketAddr::new(vip, FRONT), 200).unwrap())
        .into();
    let ask = |what: &str, daemon: &Daemon<'_>| {
        for held in &held {
            let broken = held.broken();
            assert!(broken.is_empty(), "{what}: {broken:#?}\n{}", daemon.log_tail());
        }
    };
    ask("at the beginning", &daemon);
    let count = wait_for(
        "they are counted",
        LONG,
        || {
            let stats = daemon.stats();
            let services = stats.services.iter().filter(|one| one.name.starts_with("tcp"));
            services
                .flat_map(|one| &one.backends)
                .filter_map(|one| one.connections)
                .map(|open| open.active)
                .sum::<u64>()
        },
        |count| *count == 400,
    );
    assert_eq!(count, 400);
    daemon.kill().unwrap();
    ask("with the daemon killed", &daemon);
    let target = SocketAddr::new(VIP4, FRONT);
    let tally = requests(&lab.client, target, 100, 10);
    assert_eq!((tally.ok(), tally.failures()), (100, 0), "new ones without a daemon: {tally:?}");
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    ask("with another daemon", &daemon);

    // A backend drains, another comes and goes with the file, and the pool is another one.
    daemon.must(&["drain", "tcp-v4/web1"]);
    ask("while web1 drains", &daemon);
    let pool = "source_pool: {addresses: [\"fd77::200\", 10.77.0.201], ports: 30000-39999}\n";
    daemon.write(&(pool.to_owned() + &services(&[1, 2], ""))).unwrap();
    daemon.must(&["reload"]);
    ask("without web3, and with another pool", &daemon);
    let tally = requests(&lab.client, target, REQUESTS, 20);
    let by: BTreeSet<&str> = tally.answered.keys().map(String::as_str).collect();
    assert_eq!((tally.ok(), by), (REQUESTS as u64, ["web2"].into()), "{tally:?}");
    daemon.must(&["ready", "tcp-v4/web1"]);
    daemon.write(&yaml(&[1, 2, 3])).unwrap();
    daemon.must(&["reload"]);
    daemon.wait_ready(&["UP", "NOLB"]);
    ask("with everything back", &daemon);
}

/// A server that sends back what it gets, on port 9000 of a machine.
fn echo(machine: &Machine, address: IpAddr) {
    machine.run(move || {
        let listener = TcpListener::bind(SocketAddr::new(address, 9_000)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let stream = stream.unwrap();
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
    });
}

/// Byte `index` of what is sent.
fn byte(index: usize) -> u8 {
    (index ^ index >> 8 ^ index >> 16) as u8
}

#[test]
fn large_transfers_are_whole_though_the_daemon_is_killed() {
    const BYTES: usize = 48 << 20;
    let lab = lab();
    for (address, machine) in [(backend4(1), 0), (backend6(1), 0)] {
        echo(&lab.backends[machine], address);
    }
    let mut yaml = POOL.to_owned() + "services:\n";
    for (name, vip, address) in
        [("four", "10.77.0.80", backend4(1)), ("six", "fd77::80", backend6(1))]
    {
        let address = SocketAddr::new(address, 9_000);
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {FRONT}}}\n    forward: fullnat\n    backends:\n      - {{name: web1, address: \"{address}\"}}\n"
        );
    }
    let mut daemon = started(&lab, &yaml);
    for vip in [VIP4, VIP6] {
        let (halfway, wait) = mpsc::channel();
        let (done, result) = mpsc::channel();
        lab.client.run(move || {
            thread::spawn(move || {
                let stream =
                    TcpStream::connect_timeout(&SocketAddr::new(vip, FRONT), LONG).unwrap();
                stream.set_read_timeout(Some(LONG)).unwrap();
                stream.set_write_timeout(Some(LONG)).unwrap();
                let mut writer = stream.try_clone().unwrap();
                let writing = thread::spawn(move || {
                    let all: Vec<u8> = (0..BYTES).map(byte).collect();
                    writer.write_all(&all).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let (mut seen, mut buffer, mut told) = (0, vec![0; 1 << 16], false);
                loop {
                    let length = (&stream).read(&mut buffer).unwrap();
                    if length == 0 {
                        break;
                    }
                    for (at, found) in buffer[..length].iter().enumerate() {
                        assert_eq!(*found, byte(seen + at), "byte {}", seen + at);
                    }
                    seen += length;
                    if seen > BYTES / 2 && !told {
                        told = true;
                        halfway.send(()).unwrap();
                    }
                }
                writing.join().unwrap();
                done.send(seen).unwrap();
            });
        });
        wait.recv_timeout(LONG).expect("half of it arrives");
        daemon.kill().unwrap();
        let seen = result.recv_timeout(LONG).expect("all of it arrives");
        assert_eq!(seen, BYTES, "{vip}\n{}", daemon.log_tail());
        daemon.start().unwrap();
        daemon.wait_ready(&["UP", "NOLB"]);
    }
}

/// Opens connections one after the other; those that were, and why others were not.
fn connect(machine: &Machine, count: usize) -> (Vec<TcpStream>, Vec<ErrorKind>) {
    machine.run(move || {
        let (mut open, mut refused) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let patience = Duration::from_millis(300);
            match TcpStream::connect_timeout(&SocketAddr::new(VIP4, FRONT), patience) {
                Ok(stream) => open.push(stream),
                Err(error) => refused.push(error.kind()),
            }
        }
        (open, refused)
    })
}

#[test]
fn f50_ports_run_out_and_come_back() {
    let lab = lab();
    let pool = "source_pool: {addresses: [10.77.0.200, \"fd77::200\"], ports: 40000-40099}\n";
    let yaml = pool.to_owned() + &services(&[1, 2, 3], "    timeouts: {tcpfin: 2s}\n");
    let daemon = started(&lab, &yaml);
    let (mut open, refused) = connect(&lab.client, 140);
    let context = || format!("{refused:?}\n{:#?}\n{}", daemon.stats(), daemon.log_tail());
    assert_eq!((open.len(), refused.len()), (100, 40), "{}", context());
    assert!(refused.contains(&ErrorKind::HostUnreachable), "{}", context());
    let stats = daemon.stats();
    let service = stats.services.iter().find(|one| one.name == "tcp-v4").unwrap();
    assert!(service.reasons.get("no_port").is_some_and(|count| *count >= 40), "{service:#?}");
    // Fifty close, and within their quarantine fifty others fit.
    open.truncate(50);
    let fitted = wait_for(
        "fifty ports come back",
        LONG,
        || {
            let (more, _) = connect(&lab.client, 50 - (open.len() - 50));
            open.extend(more);
            open.len()
        },
        |open| *open == 100,
    );
    assert_eq!(fitted, 100);
    let (more, _) = connect(&lab.client, 3);
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn a_configuration_without_a_pool_is_refused_with_its_remedy() {
    let lab = lab();
    let daemon = started(&lab, &yaml(&[1]));
    daemon.write(&services(&[1], "")).unwrap();
    let output = daemon.lb(&["reload"]).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("source_pool"), "{text}");
    let tally = requests(&lab.client, SocketAddr::new(VIP4, FRONT), 50, 5);
    assert_eq!((tally.ok(), tally.failures()), (50, 0), "the last one stays in force: {tally:?}");
}

/// A server of datagrams that sends them back, in fragments as they came.
fn echo_datagrams(machine: &Machine, address: IpAddr) {
    machine.run(move || {
        let socket = UdpSocket::bind(SocketAddr::new(address, 9_000)).unwrap();
        thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                // An answer that cannot be sent is the client's to miss.
                let _ = socket.send_to(&datagram[..length], from);
            }
        });
    });
}

#[test]
fn datagrams_in_fragments_come_and_go() {
    const LENGTH: usize = 8_192;
    const DATAGRAMS: usize = 20;
    let lab = lab();
    let mut yaml = POOL.to_owned() + "services:\n";
    for (name, vip, address) in [("four", VIP4, backend4(1)), ("six", VIP6, backend6(1))] {
        echo_datagrams(&lab.backends[0], address);
        let address = SocketAddr::new(address, 9_000);
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {FRONT}, protocol: udp}}\n    forward: fullnat\n    backends:\n      - {{name: web1, address: \"{address}\"}}\n"
        );
    }
    // The client's link is narrower than those between lb and the backends.
    lab.backends[0].sh("ip link set e0 mtu 1500").unwrap();
    let daemon = started(&lab, &yaml);
    for vip in [VIP4, VIP6] {
        let answered = lab.client.run(move || {
            let any: IpAddr = if vip.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
            let answered = |number: usize| {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                socket.connect((vip, FRONT)).unwrap();
                let datagram: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + number) as u8).collect();
                let mut answer = vec![0; 65_536];
                // Datagrams may be lost while neighbours are asked for.
                (0..3).any(|_| {
                    let sent = socket.send(&datagram).is_ok();
                    sent && socket
                        .recv(&mut answer)
                        .is_ok_and(|length| answer[..length] == datagram)
                })
            };
            (0..DATAGRAMS).filter(|number| answered(*number)).count()
        });
        assert_eq!(answered, DATAGRAMS, "{vip}: {:#?}\n{}", daemon.stats(), daemon.log_tail());
    }
    for service in &daemon.stats().services {
        let fragments = 6 * DATAGRAMS as u64;
        assert!(service.total.packets_in >= fragments, "{service:#?}");
        assert!(service.total.packets_out >= fragments, "{service:#?}");
    }
}
