//! Servers behind full nat are told their clients' addresses: the option is there on the wire, and connections work as before with a
//! kernel that passes it over.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use lb_tests::{
    client::requests,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, VIP6, backend4, backend6},
};
use socket2::{Domain, Protocol, Socket, Type};

const LONG: Duration = Duration::from_secs(30);
const FRONT: u16 = 80;
const CONNECTIONS: usize = 50;

fn lab() -> Lab {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    for backend in &lab.backends {
        backend.sh("ip route del default; ip -6 route del default").unwrap();
    }
    lab.lb
        .sh("ip addr add 10.77.0.200/32 dev lb0; ip addr add fd77::200/128 dev lb0 nodad")
        .unwrap();
    lab
}

fn yaml(port: u16) -> String {
    let mut yaml = "source_pool: {addresses: [10.77.0.200, \"fd77::200\"]}\nservices:\n".to_owned();
    for (name, vip, address) in [("four", VIP4, backend4(1)), ("six", VIP6, backend6(1))] {
        let address = SocketAddr::new(address, port);
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {FRONT}}}\n    forward: fullnat\n    toa: true\n    backends:\n      - {{name: web1, address: \"{address}\"}}\n"
        );
    }
    yaml
}

fn started<'a>(lab: &'a Lab, yaml: &str) -> Daemon<'a> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    daemon
}

/// A socket of the backend that gets every segment which comes to it.
fn listener(lab: &Lab, is_v4: bool) -> Socket {
    lab.backends[0].run(move || {
        let domain = if is_v4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(4 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    })
}

/// The options of a segment: kind and what it says.
fn options(segment: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let end = usize::from(segment[12] >> 4) * 4;
    let (mut at, mut found) = (20, Vec::new());
    while at < end {
        match segment[at] {
            0 => break,
            1 => at += 1,
            kind => {
                let length = usize::from(segment[at + 1]);
                found.push((kind, segment[at + 2..at + length].to_vec()));
                at += length;
            }
        }
    }
    found
}

/// The clients that segments to the server's port tell of, by the port of the pool that they come from; and how many told.
fn told(listener: &Socket, is_v4: bool) -> (BTreeMap<u16, BTreeSet<SocketAddr>>, usize) {
    let (mut clients, mut count) = (BTreeMap::new(), 0);
    let (mut buffer, mut listener) = ([0; 4_096], listener);
    loop {
        let packet = match listener.read(&mut buffer) {
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (clients, count),
            Err(error) => panic!("{error}"),
        };
        // Raw sockets of IPv4 have the IP header.
        let segment = if is_v4 { &packet[usize::from(packet[0] & 15) * 4..] } else { packet };
        if u16::from_be_bytes([segment[2], segment[3]]) != PORT {
            continue;
        }
        for (kind, said) in options(segment) {
            let address: IpAddr = match (kind, said.len()) {
                (254, 6) => Ipv4Addr::from(<[u8; 4]>::try_from(&said[2..]).unwrap()).into(),
                (253, 18) => Ipv6Addr::from(<[u8; 16]>::try_from(&said[2..]).unwrap()).into(),
                _ => continue,
            };
            count += 1;
            let client = SocketAddr::new(address, u16::from_be_bytes([said[0], said[1]]));
            let from = u16::from_be_bytes([segment[0], segment[1]]);
            clients.entry(from).or_insert_with(BTreeSet::new).insert(client);
        }
    }
}

/// Opens connections, asks on each of them, and tells from where.
fn ask(lab: &Lab, vip: IpAddr) -> BTreeSet<SocketAddr> {
    lab.client.run(move || {
        let one = || {
            let mut stream =
                TcpStream::connect_timeout(&SocketAddr::new(vip, FRONT), LONG).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1."), "{answer}");
            stream.local_addr().unwrap()
        };
        (0..CONNECTIONS).map(|_| one()).collect()
    })
}

#[test]
fn servers_see_who_their_clients_are() {
    let lab = lab();
    let daemon = started(&lab, &yaml(PORT));
    for vip in [VIP4, VIP6] {
        let listener = listener(&lab, vip.is_ipv4());
        let clients = ask(&lab, vip);
        let (told, count) = told(&listener, vip.is_ipv4());
        println!("{vip}: {count} segments told of {} clients", told.len());
        // A port of the pool is one client's for as long as this takes.
        assert!(told.values().all(|of_port| of_port.len() == 1), "{told:#?}");
        let said: BTreeSet<SocketAddr> = told.into_values().flatten().collect();
        assert!(said.is_superset(&clients), "{said:#?}\n{clients:#?}\n{}", daemon.log_tail());
        // Checks come from lb itself, and not through it.
        assert_eq!(said.len(), clients.len(), "{said:#?}");
    }
    for vip in [VIP4, VIP6] {
        let tally = requests(&lab.client, SocketAddr::new(vip, FRONT), 300, 20);
        assert_eq!((tally.ok(), tally.failures()), (300, 0), "{vip}: {tally:?}");
    }
    for service in &daemon.stats().services {
        assert_eq!(service.reasons.get("toa_omitted"), None, "{service:#?}");
    }
}

/// The server says nothing until it has heard everything: every segment tells, and there is room in each.
#[test]
fn a_long_request_is_whole_and_has_room() {
    const BYTES: usize = 8 << 20;
    let lab = lab();
    for address in [backend4(1), backend6(1)] {
        lab.backends[0].run(move || {
            let listener = TcpListener::bind(SocketAddr::new(address, 9_000)).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let (mut sum, mut length, mut buffer) = (0u64, 0, vec![0; 1 << 16]);
                    loop {
                        match stream.read(&mut buffer) {
                            Ok(0) | Err(_) => break,
                            Ok(read) => {
                                sum = buffer[..read].iter().fold(sum, |sum, byte| {
                                    sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
                                });
                                length += read;
                            }
                        }
                    }
                    // Checks close without a word.
                    let _ = stream.write_all(format!("{length} {sum}").as_bytes());
                }
            });
        });
    }
    let daemon = started(&lab, &yaml(9_000));
    for vip in [VIP4, VIP6] {
        let (answer, expected) = lab.client.run(move || {
            let mut stream =
                TcpStream::connect_timeout(&SocketAddr::new(vip, FRONT), LONG).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            let all: Vec<u8> = (0..BYTES).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
            stream.write_all(&all).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let sum = all
                .iter()
                .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            (answer, format!("{BYTES} {sum}"))
        });
        assert_eq!(answer, expected, "{vip}\n{:#?}\n{}", daemon.stats(), daemon.log_tail());
    }
    for service in &daemon.stats().services {
        assert_eq!(service.reasons.get("toa_omitted"), None, "{service:#?}");
        assert_eq!(service.reasons.get("too_big"), None, "{service:#?}");
    }
}
