//! Datagrams that no link takes whole, through real stacks: answered in every mode, by answers in fragments.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use lb_common::abi::{ServiceBucket, ServiceEntry, key_kind};
use lb_tests::{
    client::wait_for,
    daemon::{Daemon, lb_binary},
    kernel::{bytes::pieces, packet::Packet},
    lab::{Arms, Lab, Return, VIP4, VIP6, backend4, backend6},
    maps::{dump, pins},
    raw::make_up,
};

/// Port of the servers, on backends and VIPs.
const PORT: u16 = 9000;
const LENGTH: usize = 4_000;
const DATAGRAMS: usize = 20;

/// Sends every datagram back, on an address of a backend.
fn echo(lab: &Lab, number: usize, address: IpAddr) {
    lab.backends[number - 1].run(move || {
        let socket = UdpSocket::bind((address, PORT)).unwrap();
        thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                // An answer that cannot be sent is the client's to miss.
                let _ = socket.send_to(&datagram[..length], from);
            }
        });
    });
}

/// Asks from as many ports; the number of right answers.
fn ask(lab: &Lab, vip: IpAddr) -> usize {
    lab.client.run(move || {
        let any: IpAddr =
            if vip.is_ipv4() { [0; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let answered = |number: usize| {
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.connect((vip, PORT)).unwrap();
            let datagram: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + number) as u8).collect();
            let mut answer = vec![0; 65_536];
            // Datagrams may be lost while neighbours are asked for.
            (0..3).any(|_| {
                let sent = socket.send(&datagram).is_ok();
                sent && socket.recv(&mut answer).is_ok_and(|length| answer[..length] == datagram)
            })
        };
        (0..DATAGRAMS).filter(|number| answered(*number)).count()
    })
}

fn all_answered(lab: &Lab, forward: &str, way: Return) {
    let mut yaml = "services:\n".to_owned();
    for (name, vip) in [("v4", VIP4), ("v6", VIP6)] {
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {PORT}, protocol: udp}}\n    {forward}\n    backends:\n"
        );
        for number in 1..=lab.backends.len() {
            let address = if vip.is_ipv4() { backend4(number) } else { backend6(number) };
            yaml += &format!(
                "      - {{name: web{number}, address: \"{}\"}}\n",
                SocketAddr::new(address, PORT)
            );
        }
    }
    // Answers in fragments that the client's link takes: those of the backends and of lb are wider, for tunnels.
    for backend in &lab.backends {
        let narrower = match way {
            Return::ThroughLb => {
                "ip route replace default via 10.77.0.1 mtu 1500; ip route replace default via fd77::1 mtu 1500"
            }
            Return::Direct => {
                "ip route replace 10.77.1.0/24 dev e0 mtu 1500; ip route replace fd77:1::/64 dev e0 mtu 1500"
            }
        };
        backend.sh(narrower).unwrap();
    }
    for number in 1..=lab.backends.len() {
        match way {
            Return::ThroughLb => {
                echo(lab, number, backend4(number));
                echo(lab, number, backend6(number));
            }
            Return::Direct => {
                echo(lab, number, VIP4);
                echo(lab, number, VIP6);
            }
        }
    }
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    for vip in [VIP4, VIP6] {
        let answered = ask(lab, vip);
        assert_eq!(answered, DATAGRAMS, "{forward} {vip}: {:#?}", daemon.stats());
    }
    for service in &daemon.stats().services {
        assert!(service.total.packets_in >= 3 * DATAGRAMS as u64, "{service:#?}");
    }
}

#[test]
fn nat() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    all_answered(&lab, "forward: nat", Return::ThroughLb);
}

#[test]
fn dsr() {
    let lab = Lab::new(Arms::One, Return::Direct, 2).unwrap();
    all_answered(&lab, "forward: dsr", Return::Direct);
}

#[test]
fn tunnel() {
    let lab = Lab::new(Arms::One, Return::Direct, 2).unwrap();
    for backend in &lab.backends {
        let mut command = std::process::Command::new(lb_binary());
        command.args(["decap", "--iface", "e0", "--from", "10.77.0.1/32", "--from", "fd77::1/128"]);
        let output = backend.output(command).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    all_answered(&lab, "forward: tunnel\n    encap: ipip", Return::Direct);
}

/// Services of UDP, by the client's address, and of TCP at the VIP; only the latter without `udp`.
fn by_address(udp: Option<&str>) -> String {
    let service = |protocol: &str, more: &str| {
        let backends: String = (1..=2)
            .map(|number| {
                format!("      - {{name: web{number}, address: \"{}:{PORT}\"}}\n", backend4(number))
            })
            .collect();
        format!(
            "  - name: {protocol}\n    listen: {{address: {VIP4}, port: {PORT}, protocol: {protocol}}}\n    forward: nat\n    \
             {more}\n    backends:\n{backends}"
        )
    };
    let udp = udp.map(|more| service("udp", &format!("balance: source\n    {more}")));
    format!("services:\n{}{}", service("tcp", "balance: maglev"), udp.unwrap_or_default())
}

const WITH: &str = "fragments: udp\n    stateless_fragments: true";
const WITHOUT: &str = "fragments: udp";

/// Fragments of each datagram of [`Backwards`] that come before the first one.
const EARLY: u64 = 2;

/// A client whose fragments come in reverse order, which the receiving kernel does not mind.
struct Backwards<'l> {
    lab: &'l Lab,
    socket: UdpSocket,
    /// Of the last datagram.
    identification: u16,
}

impl<'l> Backwards<'l> {
    const CLIENT: &'static str = "10.77.1.2:5555";

    fn new(lab: &'l Lab) -> Self {
        let socket = lab.client.run(|| UdpSocket::bind(Self::CLIENT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        Self { lab, socket, identification: 0 }
    }

    /// Asks once; whether the right answer comes.
    fn is_answered(&mut self) -> bool {
        self.identification += 1;
        let identification = self.identification;
        let IpAddr::V4(vip) = VIP4 else { unreachable!("it is IPv4") };
        let data: Vec<u8> = (0..600).map(|at| (at * 7 + identification) as u8).collect();
        let datagram = Packet::udp(&Self::CLIENT.replace(':', "@"), &format!("{VIP4}@{PORT}"))
            .ip(|ip| ip.dont_fragment = false)
            .payload(&data);
        let mut fragments: Vec<(Ipv4Addr, Vec<u8>)> =
            pieces(&datagram.bytes(), identification, 208)
                .into_iter()
                .map(|frame| (vip, frame[14..].to_vec()))
                .collect();
        assert_eq!(fragments.len() as u64, EARLY + 1);
        fragments.reverse();
        make_up(&self.lab.client, fragments);
        let mut answer = [0; 1_000];
        // Answers to earlier ones may come late.
        while let Ok((length, from)) = self.socket.recv_from(&mut answer) {
            assert_eq!(from, SocketAddr::new(VIP4, PORT));
            if answer[..length] == data {
                return true;
            }
        }
        false
    }

    /// Neighbours may have to be asked for.
    #[track_caller]
    fn wait_answered(&mut self, when: &str) {
        wait_for(when, Duration::from_secs(10), || self.is_answered(), |is_answered| *is_answered);
    }

    /// Asks once, which lb does not forward but counts.
    #[track_caller]
    fn is_missed(&mut self, daemon: &Daemon<'_>, when: &str) {
        let before = missed(daemon);
        assert!(!self.is_answered(), "{when}");
        let after = missed(daemon);
        assert_eq!(after - before, EARLY, "{when}: {}", daemon.reasons());
    }
}

/// Fragments that nothing was known of.
fn missed(daemon: &Daemon<'_>) -> u64 {
    let stats = daemon.stats();
    let services = stats.services.iter().map(|service| &service.reasons);
    services.chain([&stats.node]).filter_map(|reasons| reasons.get("frag_miss")).sum()
}

/// As a crash between two entries may leave it: the entry for fragments has a row that is no service's.
fn lead_astray(lab: &Lab) {
    let changed = lab.lb.run(|| {
        let map = Map::Array(MapData::from_pin(pins().join("SERVICE_TABLE")).unwrap());
        let mut buckets: Array<_, ServiceBucket> = Array::try_from(map).unwrap();
        let mut changed = 0;
        for index in 0..buckets.len() {
            let mut bucket = buckets.get(&index, 0).unwrap();
            for entry in bucket.entries.iter_mut().filter(|entry| is_of_fragments(entry.word)) {
                entry.word = ServiceEntry::word(entry.word as u32, 9);
                changed += 1;
            }
            buckets.set(index, bucket, 0).unwrap();
        }
        changed
    });
    assert_eq!(changed, 1);
}

fn is_of_fragments(word: u64) -> bool {
    (word as u32) >> 24 == u32::from(key_kind::FRAGMENTS)
}

/// The last words of the entries that lead fragments to services.
fn entries(lab: &Lab) -> Vec<u64> {
    let buckets = lab.lb.run(|| dump(&pins().join("SERVICE_TABLE"))).unwrap();
    let words = buckets.values().flat_map(|bucket| bucket.chunks(size_of::<ServiceEntry>()));
    words
        .map(|entry| u64::from_ne_bytes(entry[16..24].try_into().unwrap()))
        .filter(|word| is_of_fragments(*word))
        .collect()
}

#[test]
fn a_clients_address_leads_fragments_that_come_before_their_first() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    (1..=2).for_each(|number| echo(&lab, number, backend4(number)));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &by_address(Some(WITHOUT))).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let reload = |daemon: &Daemon<'_>, udp| {
        daemon.write(&by_address(udp)).unwrap();
        daemon.must(&["reload"]);
        daemon.wait_ready(&["UP", "NOLB"]);
    };
    let mut client = Backwards::new(&lab);
    client.is_missed(&daemon, "without the option");
    assert_eq!(entries(&lab), [0_u64; 0]);

    reload(&daemon, Some(WITH));
    client.wait_answered("with the option");
    let entry = entries(&lab);
    assert_eq!(entry.len(), 1, "{entry:x?}");
    let before = missed(&daemon);
    daemon.kill().unwrap();
    client.wait_answered("while the daemon is dead");
    daemon.start().unwrap();
    client.wait_answered("after a restart");
    assert_eq!(entries(&lab), entry, "adopted");
    assert_eq!(missed(&daemon), before, "{}", daemon.reasons());

    reload(&daemon, Some(WITHOUT));
    assert_eq!(entries(&lab), [0_u64; 0], "the option is gone");
    client.is_missed(&daemon, "the option is gone");

    // It goes while the daemon is dead, who has left an entry that leads to no service.
    reload(&daemon, Some(WITH));
    client.wait_answered("with the option again");
    daemon.kill().unwrap();
    lead_astray(&lab);
    daemon.write(&by_address(Some(WITHOUT))).unwrap();
    daemon.start().unwrap();
    assert_eq!(entries(&lab), [0_u64; 0], "the option has gone meanwhile");
    client.is_missed(&daemon, "the option has gone meanwhile");

    // The next daemon adopts, and then the service goes.
    reload(&daemon, Some(WITH));
    daemon.kill().unwrap();
    daemon.start().unwrap();
    client.wait_answered("before the service goes");
    reload(&daemon, None);
    assert_eq!(entries(&lab), [0_u64; 0], "the service is gone");
    client.is_missed(&daemon, "the service is gone");
}
