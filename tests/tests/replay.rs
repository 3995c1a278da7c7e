//! `lb replay`: the loaded program decides about the packets of a file, and nothing is another afterwards.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use etherparse::PacketBuilder;
use lb_common::abi::Reason;
use lb_tests::{
    client::{Held, wait_for},
    daemon::{Daemon, backend, lb_binary},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    maps::{differences, dump_all, pins},
};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);
const PACKETS: u32 = 100_000;

/// Three backends over TCP and UDP; small maps, which are dumped whole, and a window that no test outlives.
fn yaml() -> String {
    let mut yaml = "limits: {services: 16, backends: 64, ring_slots: 16384, pins: 4096, pins_unconfirmed: 4096}\n\
                    services:\n"
        .to_owned();
    for protocol in ["tcp", "udp"] {
        yaml += &format!(
            "  - name: {protocol}\n    listen: {{address: {VIP4}, port: {PORT}, protocol: {protocol}}}\n    forward: nat\n    \
             ring_size: 1021\n    window: 1h\n    backends:\n"
        );
        for number in 1..=3 {
            let address = SocketAddr::new(backend4(number), PORT);
            yaml += &format!("      - {{name: web{number}, address: \"{address}\"}}\n");
        }
    }
    yaml
}

/// A pcap file with nanoseconds.
fn write(path: &Path, frames: impl Iterator<Item = Vec<u8>>) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let words: [u32; 6] = [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, 262_144, 1];
    words.iter().for_each(|word| file.write_all(&word.to_le_bytes()).unwrap());
    for (number, frame) in frames.enumerate() {
        let length = frame.len() as u32;
        for word in [1_700_000_000, number as u32, length, length] {
            file.write_all(&word.to_le_bytes()).unwrap();
        }
        file.write_all(&frame).unwrap();
    }
    file.flush().unwrap();
}

fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn v4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => panic!("{address}"),
    }
}

/// What the file of [`PACKETS`] has in turn: everything that makes the program write.
fn frame(number: u32) -> Vec<u8> {
    let client = Ipv4Addr::from(0xc633_0000 + number / 8).octets();
    let port = 1_024 + (number % 60_000) as u16;
    let to_vip = |ttl| ethernet().ipv4(client, v4(VIP4), ttl);
    let mut bytes = Vec::new();
    match number % 10 {
        // Opens flows: counters, pins, handshakes, ways back.
        0..=2 => to_vip(64).tcp(port, PORT, number, 1_000).syn().write(&mut bytes, &[]),
        // Older flows: pins to the base.
        3 => to_vip(64).tcp(port, PORT, number, 1_000).ack(9).write(&mut bytes, &[7; 100]),
        // Nobody's.
        4 => ethernet()
            .ipv4(client, [203, 0, 113, 9], 64)
            .udp(port, PORT)
            .write(&mut bytes, &[7; 30]),
        5 => to_vip(64).udp(port, PORT).write(&mut bytes, &[7; 500]),
        // Answers, samples, limits.
        6 => to_vip(1).tcp(port, PORT, number, 1_000).ack(9).write(&mut bytes, &[]),
        7 => to_vip(64).udp(port, 53).write(&mut bytes, &[7; 30]),
        8 => to_vip(64).icmpv4_echo_request(number as u16, 1).write(&mut bytes, &[7; 56]),
        // Replies to unknown clients: wishes for neighbours.
        _ => ethernet()
            .ipv4(v4(backend4(1)), client, 64)
            .tcp(PORT, port, number, 1_000)
            .syn()
            .ack(number)
            .write(&mut bytes, &[]),
    }
    .unwrap();
    bytes
}

fn replay(daemon: &Daemon<'_>, file: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = daemon.must(&[&["replay", file.to_str().unwrap(), "--json"], arguments].concat());
    lines(&output)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How many packets have had this verdict for this reason.
fn outcomes(summary: &Value, verdict: &str, reason: &str) -> u64 {
    summary["summary"]["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|outcome| outcome["verdict"] == verdict && outcome["reason"] == reason)
        .map(|outcome| outcome["packets"].as_u64().unwrap())
        .sum()
}

fn started(lab: &Lab) -> Daemon<'_> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    daemon
}

fn file(daemon: &Daemon<'_>, name: &str) -> PathBuf {
    daemon.directory.join(name)
}

/// Where the maps of this version are pinned.
#[test]
fn a_hundred_thousand_packets_change_nothing() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    // Slots on their way, with pins.
    daemon.must(&["drain", "tcp/web3"]);
    daemon.wait("web3 owns no slot", MINUTE, |status| {
        backend(status, "tcp", "web3").is_some_and(|web3| web3.slots == 0)
    });
    let held = Held::open(&lab.client, SocketAddr::new(VIP4, PORT), 200).unwrap();
    drop(held);
    let path = file(&daemon, "packets.pcap");
    write(&path, (0..PACKETS).map(frame));

    // CLOCK is the controller's own. The host's stacks say something now and then, which is passed: of those packets there
    // are some, but not the ten thousand of the file. What else changes would be the controller's work, not there every time.
    let dump = || {
        let mut all = lab.lb.run(|| dump_all(&pins())).unwrap();
        assert!(all.remove("CLOCK").is_some(), "{:?}", all.keys());
        let passed = all.get_mut("REASON_COUNTS").unwrap();
        let passed = passed.remove(&(Reason::Passed as u32).to_ne_bytes()[..]).unwrap();
        let words = passed.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
        (all, words.sum::<u64>())
    };
    let mut times = Vec::new();
    let (entries, _) = wait_for(
        "maps are the same before and after a replay",
        MINUTE,
        || {
            let (before, passed_before) = dump();
            let began = Instant::now();
            // A process of its own: the machine's thread, which runs commands, is free for questions.
            let mut command = Command::new(lb_binary());
            command.arg("--socket").arg(&daemon.socket).arg("replay").arg(&path);
            command.args(["--summary", "--json"]).stdout(Stdio::piped());
            let mut running = lab.lb.spawn(command).unwrap();
            let mut answered = 0;
            while running.try_wait().unwrap().is_none() {
                daemon.status();
                answered += 1;
            }
            let output = running.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            times.push((began.elapsed(), answered));
            // A controller that was busy with all of the file would have answered once, at the end.
            assert!(answered > 2, "{answered} questions were answered meanwhile");
            let answers = lines(&String::from_utf8(output.stdout).unwrap());
            let summary = answers.last().unwrap();
            let tenth = u64::from(PACKETS / 10);
            assert_eq!(summary["summary"]["packets"], PACKETS, "{summary:#}");
            assert_eq!(outcomes(summary, "forwarded", "transmitted"), 5 * tenth, "{summary:#}");
            assert_eq!(outcomes(summary, "passed", "passed"), tenth, "{summary:#}");
            assert_eq!(outcomes(summary, "answered", "ttl"), tenth, "{summary:#}");
            assert_eq!(outcomes(summary, "dropped", "no_service"), tenth, "{summary:#}");
            assert_eq!(outcomes(summary, "answered", "echo"), tenth, "{summary:#}");
            let (after, passed_after) = dump();
            let passed = passed_after - passed_before;
            assert!(passed < tenth / 10, "{passed} packets were counted as passed");
            let entries: usize = after.values().map(|entries| entries.len()).sum();
            let pins = after["PINS"].len() + after["PINS_NEW"].len();
            assert!(pins > 0, "there are no pins to be changed");
            let differences = differences(&before, &after);
            (entries, differences)
        },
        |(_, differences)| differences.is_empty(),
    );
    eprintln!(
        "{PACKETS} packets in, with `lb status` answered so often meanwhile: {times:?}; {entries} entries of maps compared"
    );
}

#[test]
fn the_verdict_of_a_replay_is_what_then_happens() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    let client: IpAddr = "10.77.1.2".parse().unwrap();
    let path = file(&daemon, "flows.pcap");
    let ports: Vec<u16> = (20_001..20_041).collect();
    let syn = |port: &u16| {
        let mut bytes = Vec::new();
        let to = ethernet().ipv4(v4(client), v4(VIP4), 64).tcp(*port, PORT, 1, 1_000).syn();
        to.write(&mut bytes, &[]).unwrap();
        bytes
    };
    write(&path, ports.iter().map(syn));
    let expected = replay(&daemon, &path, &[]);
    let fallen = replay(&daemon, &path, &["--down", "tcp/web1"]);
    let mut met = std::collections::BTreeSet::new();
    for (number, port) in ports.iter().enumerate() {
        let (expected, fallen) = (&expected[number], &fallen[number]);
        assert_eq!(expected["verdict"], "forwarded", "{expected:#}");
        let backend = expected["backend"].as_str().unwrap().to_owned();
        let answered = ask(&lab, SocketAddr::new(client, *port));
        assert_eq!(answered, backend, "{expected:#}");
        // Without web1 its flows go elsewhere, and nobody else's.
        assert_ne!(fallen["backend"], "web1", "{fallen:#}");
        assert!(backend == "web1" || fallen["backend"] == *backend, "{expected:#} {fallen:#}");
        met.insert(backend);
    }
    assert!(met.len() > 1, "all flows have met {met:?}");

    // What was only asked about becomes true: the same backends, by the rings that were foretold.
    daemon.must(&["maint", "tcp/web1"]);
    daemon.wait("web1 owns no slot", MINUTE, |status| {
        backend(status, "tcp", "web1").is_some_and(|web1| web1.slots == 0)
    });
    let now = replay(&daemon, &path, &[]);
    for (now, fallen) in now.iter().zip(&fallen).take(ports.len()) {
        assert_eq!(now["backend"], fallen["backend"], "{now:#} {fallen:#}");
    }
    let look = |down: &[&str]| {
        let flow = ["lookup", "10.77.1.2:30001", "10.77.0.80:8080", "--json"];
        let answer = daemon.must(&[&flow[..], down].concat());
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let now = look(&[]);
    assert_eq!((&now["verdict"], &now["disagreement"]), (&"forwarded".into(), &Value::Null));
    let all = look(&["--down", "tcp/web2", "--down", "tcp/web3"]);
    assert_eq!(all["verdict"], "forwarded", "fail_open, by default: {all:#}");
    let unknown = daemon.lb(&["lookup", "10.77.1.2:1", "10.77.0.80:8080", "--down", "tcp/web9"]);
    assert_eq!(unknown.unwrap().status.code(), Some(6));
}

#[test]
fn damaged_and_foreign_files_are_told_about() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let daemon = started(&lab);
    let path = file(&daemon, "cut.pcap");
    write(&path, (0..20).map(frame));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let output = daemon.lb(&["replay", path.to_str().unwrap(), "--summary"]).unwrap();
    let (text, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("19 packets"), "what could be read is told: {text}");
    assert!(error.contains("packet 20"), "{error}");
    std::fs::write(&path, "no packets").unwrap();
    let output = daemon.lb(&["replay", path.to_str().unwrap()]).unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("neither a pcap nor a pcapng"), "{error}");
    // Fragments find the first of their packet, and only theirs.
    let fragments = (0..2u8).map(|part| {
        let mut header = etherparse::Ipv4Header::new(
            24,
            64,
            etherparse::IpNumber::UDP,
            [198, 51, 100, 7],
            v4(VIP4),
        )
        .unwrap();
        header.identification = 4_711;
        header.more_fragments = part == 0;
        header.fragment_offset = etherparse::IpFragOffset::try_new(u16::from(part) * 3).unwrap();
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        header.header_checksum = header.calc_header_checksum();
        header.write(&mut frame).unwrap();
        let mut payload = [7; 24];
        if part == 0 {
            payload[..8].copy_from_slice(&[0x20, 0, 0x1f, 0x90, 0, 48, 0, 0]);
        }
        frame.extend(payload);
        frame
    });
    write(&path, fragments);
    let answers = replay(&daemon, &path, &[]);
    for packet in &answers[..2] {
        assert_eq!(packet["verdict"], "forwarded", "{packet:#}");
        assert_eq!(packet["backend"], answers[0]["backend"], "{packet:#}");
    }
    daemon.status();
}

/// Who answers a client's request from this address and port.
fn ask(lab: &Lab, from: SocketAddr) -> String {
    lab.client.run(move || {
        use std::io::Read as _;
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        use std::os::fd::AsRawFd as _;
        let address = |address: SocketAddr| nix::sys::socket::SockaddrStorage::from(address);
        nix::sys::socket::bind(socket.as_raw_fd(), &address(from)).unwrap();
        let vip = SocketAddr::new(VIP4, PORT);
        nix::sys::socket::connect(socket.as_raw_fd(), &address(vip)).unwrap();
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(MINUTE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.rsplit("\r\n\r\n").next().unwrap().trim().to_owned()
    })
}
