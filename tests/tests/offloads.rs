//! Packets larger than the Internet's, and stacks that leave cutting and checksums to their NICs (docs/packet-cases.md, B98 and B99).

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use lb_common::abi::Reason;
use lb_tests::{
    client::wait_for,
    daemon::Daemon,
    kernel::packet::checksum,
    lab::{Arms, Lab, Return, VIP4, VIP6, backend4, backend6},
    machine::Machine,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Port of the servers that take much.
const MUCH: u16 = 9000;
const LENGTH: usize = 2_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// What has come to the servers' port of a machine.
#[derive(Clone, Debug, Default)]
struct Seen {
    frames: usize,
    /// Length of the largest IP packet.
    largest: usize,
    wrong_checksums: usize,
}

/// Watches a NIC until it is dropped.
struct Watch {
    seen: Arc<Mutex<Seen>>,
    ends: Arc<AtomicBool>,
}

impl Watch {
    fn new(machine: &Machine, nic: &'static str) -> Self {
        let watch = Self { seen: Arc::default(), ends: Arc::default() };
        let (seen, ends) = (Arc::clone(&watch.seen), Arc::clone(&watch.ends));
        machine.run(move || {
            let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
            let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
            socket.bind_device(Some(nic.as_bytes())).unwrap();
            socket.set_recv_buffer_size(16 << 20).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 17];
                while !ends.load(Ordering::Relaxed) {
                    // Nothing came within the time-out: whether to end is looked at again.
                    let Ok(length) = socket.read(&mut buffer) else { continue };
                    seen.lock().unwrap().add(&buffer[..length]);
                }
            });
        });
        watch
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn add(&mut self, frame: &[u8]) {
        let (addresses, transport, protocol) = match frame[12..14] {
            [0x08, 0x00] => (26..34, 34, frame[23]),
            [0x86, 0xdd] => (22..54, 54, frame[20]),
            _ => return,
        };
        if protocol != 6 || frame[transport + 2..transport + 4] != MUCH.to_be_bytes() {
            return;
        }
        let length = match frame[12] {
            0x08 => usize::from(u16::from_be_bytes([frame[16], frame[17]])),
            _ => usize::from(u16::from_be_bytes([frame[18], frame[19]])) + 40,
        };
        let segment = &frame[transport..14 + length];
        let front = (segment.len() as u32 + u32::from(protocol)).to_be_bytes();
        self.frames += 1;
        self.largest = self.largest.max(length);
        let sum = checksum(&[&frame[addresses], &front, segment].concat());
        self.wrong_checksums += usize::from(sum != 0);
    }
}

/// A server that reads all there is and answers with how much it was.
fn take_much(machine: &Machine, address: SocketAddr) {
    machine.run(move || {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes early is a failure of the client's, which the test sees.
                let _ = stream.and_then(|mut stream| {
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all)?;
                    stream.write_all(&(all.len() as u64).to_be_bytes())
                });
            }
        });
    });
}

/// Sends much to the VIP; how much has arrived.
fn send_much(client: &Machine, vip: IpAddr, patience: Duration) -> Result<u64, String> {
    client.run(move || {
        let send = || {
            let target = SocketAddr::new(vip, MUCH);
            let mut stream = TcpStream::connect_timeout(&target, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            stream.write_all(&vec![b'm'; LENGTH])?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer)?;
            Ok(u64::from_be_bytes(answer))
        };
        send().map_err(|error: std::io::Error| error.to_string())
    })
}

fn yaml(mode: &str, forward: &str) -> String {
    let mut yaml = format!("xdp_mode: {mode}\nservices:\n");
    for (name, vip, backend) in [("v4", VIP4, backend4(1)), ("v6", VIP6, backend6(1))] {
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {MUCH}}}\n    forward: {forward}\n    backends:\n      \
             - {{name: web1, address: \"{}\"}}\n",
            SocketAddr::new(backend, MUCH)
        );
    }
    yaml
}

fn lab(way: Return) -> Lab {
    let lab = Lab::new(Arms::One, way, 1).unwrap();
    let vips = if way == Return::Direct { &[VIP4, VIP6][..] } else { &[] };
    for address in [backend4(1), backend6(1)].iter().chain(vips) {
        take_much(&lab.backends[0], SocketAddr::new(*address, MUCH));
    }
    lab
}

fn started<'a>(lab: &'a Lab, mode: &str, forward: &str) -> Daemon<'a> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(mode, forward)).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    daemon
}

/// Everything arrives, in packets of `largest` bytes at most and at least sometimes, all of them intact.
#[track_caller]
fn much_arrives(lab: &Lab, daemon: &Daemon<'_>, largest: usize, what: &str) {
    for vip in [VIP4, VIP6] {
        let watch = Watch::new(&lab.backends[0], "e0");
        let got = send_much(&lab.client, vip, PATIENCE);
        let context = || format!("{what} {vip}: {:?}\n{}", watch.seen(), daemon.reasons());
        assert_eq!(got, Ok(LENGTH as u64), "{}", context());
        let seen = wait_for("the packets are seen", PATIENCE, context, |_| {
            watch.seen().frames * largest > LENGTH
        });
        assert_eq!(watch.seen().largest, largest, "{seen}");
        assert_eq!(watch.seen().wrong_checksums, 0, "{seen}");
    }
}

/// B99: clients' stacks leave cutting and checksums to their NICs, as they do by default; the far end of lb's link does not leave
/// them to lb (`ethtool -K DEV tx off`, as README.md says).
#[test]
fn clients_with_offloads_are_served_in_both_modes() {
    for mode in ["native", "generic"] {
        let lab = lab(Return::ThroughLb);
        lab.client.sh("ethtool -K c0 tx on tso on gso on").unwrap();
        let daemon = started(&lab, mode, "nat");
        much_arrives(&lab, &daemon, 1500, mode);
    }
}

/// B99: where the far end does leave them to lb, a packet that has not been cut is too big, and never leaves.
#[test]
fn packets_that_were_not_cut_never_leave() {
    let lab = lab(Return::Direct);
    let daemon = started(&lab, "generic", "dsr");
    lab.client.sh("ethtool -K c0 tx on tso on gso on").unwrap();
    lab.switch.sh("ethtool -K p-lb0 tx on tso on gso on").unwrap();
    for (vip, service) in [(VIP4, "v4"), (VIP6, "v6")] {
        let watch = Watch::new(&lab.backends[0], "e0");
        let got = send_much(&lab.client, vip, Duration::from_secs(1));
        let stats = daemon.stats();
        let service = stats.services.iter().find(|one| one.name == service).unwrap();
        let refused = service.reasons.get(Reason::TooBig.name()).copied().unwrap_or(0);
        let seen = watch.seen();
        println!("{vip}: {got:?}, {seen:?}, too big: {refused}");
        assert!(refused > 0, "nothing was too big: {seen:?} {service:#?}");
        assert!((1..=1500).contains(&seen.largest), "{vip}: {seen:?}");
    }
}

/// B98: larger packets than the Internet's where all links take them; by the driver up to the size of its buffer.
#[test]
fn jumbo_packets_go_by_the_driver_up_to_its_limit_and_in_generic_mode() {
    for (mode, mtu) in [("native", 3000), ("generic", 9000)] {
        let lab = lab(Return::ThroughLb);
        lab.switch.sh("ip link set br0 mtu 9000").unwrap();
        if mode == "generic" {
            // Anew, without the program on its far end, which takes no such MTU.
            lab.lb.ip("link del lb0").unwrap();
            lab.lb.connect("lb0", &lab.switch, "p-lb0", 9000).unwrap();
            lab.switch.ip("link set p-lb0 master br0").unwrap();
            lab.lb
                .sh("ip addr add 10.77.1.1/24 dev lb0; ip addr add fd77:1::1/64 dev lb0 nodad; \
                     ip addr add 10.77.0.1/24 dev lb0; ip addr add fd77::1/64 dev lb0 nodad")
                .unwrap();
        }
        for (machine, nic) in [
            (&lab.switch, "p-lb0"),
            (&lab.lb, "lb0"),
            (&lab.switch, "p-client"),
            (&lab.client, "c0"),
            (&lab.switch, "p-web1"),
            (&lab.backends[0], "e0"),
        ] {
            machine.ip(&format!("link set {nic} mtu {mtu}")).unwrap();
        }
        let daemon = started(&lab, mode, "nat");
        much_arrives(&lab, &daemon, mtu, mode);
    }
}
