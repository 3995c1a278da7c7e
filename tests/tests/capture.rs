//! `lb capture`: packets before and after rewriting, shown by a program that comes and goes without a packet lost.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lb_tests::{
    client::{Held, Load, wait_for},
    daemon::{Daemon, lb_binary},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};
use lb_userspace::dataplane::attachments_of;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);
/// Servers that send datagrams back.
const ECHO: u16 = 9_000;

fn yaml() -> String {
    let mut yaml = "services:\n".to_owned();
    for (name, protocol, port) in [("web", "tcp", PORT), ("echo", "udp", ECHO)] {
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: {VIP4}, port: {port}, protocol: {protocol}}}\n    forward: nat\n    \
             ring_size: 1021\n    window: 1h\n    backends:\n"
        );
        for number in 1..=2 {
            let address = SocketAddr::new(backend4(number), port);
            yaml += &format!("      - {{name: web{number}, address: \"{address}\"}}\n");
        }
    }
    yaml
}

fn started<'a>(lab: &'a Lab) -> Daemon<'a> {
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    daemon
}

fn web() -> SocketAddr {
    SocketAddr::new(VIP4, PORT)
}

/// Ids of the programs on lb's NICs.
fn programs(lab: &Lab) -> Vec<u32> {
    let attached = lab.lb.run(|| attachments_of(Path::new("/sys/fs/bpf/lb")));
    let mut programs: Vec<u32> = attached.iter().map(|attachment| attachment.program).collect();
    programs.dedup();
    programs
}

/// A running `lb capture`.
fn capture(lab: &Lab, daemon: &Daemon<'_>, arguments: &[&str]) -> Child {
    let mut command = Command::new(lb_binary());
    command.arg("--socket").arg(&daemon.socket).arg("capture").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    lab.lb.spawn(command).unwrap()
}

fn wait_swapped(lab: &Lab, what: &str, good: impl Fn(&[u32]) -> bool) -> Vec<u32> {
    wait_for(what, MINUTE, || programs(lab), |programs| programs.len() == 1 && good(programs))
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
    text
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn tshark_shows_packets_before_and_after_with_their_verdicts() {
    let lab = Lab::new(Arms::Two, Return::ThroughLb, 2).unwrap();
    let daemon = started(&lab);
    let plain = programs(&lab);
    let load = Load::start(&lab.client, &[web()], 2, Duration::from_millis(5));
    let file = daemon.directory.join("capture.pcapng");
    let path = file.to_str().unwrap();
    let done =
        capture(&lab, &daemon, &["-w", path, "--count", "60", "service", "web", "and", "tcp"]);
    let output = done.wait_with_output().unwrap();
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("60 packets captured"), "{said}");
    let tally = load.finish();
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert_eq!(wait_swapped(&lab, "the plain program is back", |now| now == plain), plain);

    let fields = ["frame.comment", "frame.interface_name", "ip.src", "ip.dst", "tcp.port"];
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", path, "-T", "fields", "-E", "separator=;"]);
    fields.iter().for_each(|field| {
        tshark.args(["-e", field]);
    });
    let output = tshark.output().expect("tshark (Debian's package of that name)");
    let text = succeeded(&output);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(';').collect()).collect();
    assert_eq!(rows.len(), 120, "each packet twice: {text}");
    let (mut requests, mut replies) = (0, 0);
    for pair in rows.chunks(2) {
        let [before, after] = pair else { panic!("{pair:?}") };
        assert!(before[0].contains("as it came") && after[0].contains("as it left"), "{pair:?}");
        let backend = ["web1", "web2"].iter().position(|name| before[0].contains(name));
        let address = backend4(backend.unwrap_or_else(|| panic!("{pair:?}")) + 1).to_string();
        let vip = VIP4.to_string();
        if before[0].contains("forwarded web/") {
            requests += 1;
            assert_eq!((before[1], after[1]), ("lb0", "lb1"), "{pair:?}");
            assert_eq!((before[3], after[3]), (&*vip, &*address), "{pair:?}");
        } else {
            replies += 1;
            assert!(before[0].contains("returned web/"), "{pair:?}");
            assert_eq!((before[1], after[1]), ("lb1", "lb0"), "{pair:?}");
            assert_eq!((before[2], after[2]), (&*address, &*vip), "{pair:?}");
        }
    }
    assert!(requests > 10 && replies > 10, "{requests} requests, {replies} replies");
    // Directions, as tshark has them.
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", path, "-Y", "frame.packet_flags_direction == 1"]);
    let inbound = succeeded(&tshark.output().unwrap()).lines().count();
    assert_eq!(inbound, 60, "frames that came in");
}

#[test]
fn a_full_load_costs_captures_and_no_requests() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let daemon = started(&lab);
    let plain = programs(&lab);
    let load = Load::start(&lab.client, &[web()], 32, Duration::ZERO);
    let rate = ["--rate", "10000000", "--snaplen", "2000", "--json", "--for", "6s"];
    let client = capture(&lab, &daemon, &rate);
    wait_swapped(&lab, "the capturing program is on the NIC", |now| now != plain);
    // Whoever captures is held up, and everything in between fills.
    let pid = Pid::from_raw(client.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let answered = load.tally().ok();
    wait_for("thousands of requests", MINUTE, || load.tally().ok(), |ok| *ok > answered + 8_000);
    kill(pid, Signal::SIGCONT).unwrap();
    let output = client.wait_with_output().unwrap();
    let tally = load.finish();
    let lines = json_lines(&String::from_utf8_lossy(&output.stdout));
    let end = &lines.last().unwrap()["end"];
    eprintln!("{} requests answered meanwhile; {end}", tally.ok());
    assert_eq!(tally.failures(), 0, "{tally:?}");
    let number = |name: &str| end[name].as_u64().unwrap();
    assert!(number("lost") > 0, "{end}");
    assert!(number("sent") > 0 && number("sent") == lines.len() as u64 - 1, "{end}");
    assert_eq!(number("over_rate"), 0, "{end}");
    wait_swapped(&lab, "the plain program is back", |now| now == plain);

    // A bounded rate: what is beyond is left out, and told.
    let load = Load::start(&lab.client, &[web()], 8, Duration::ZERO);
    let bounded = capture(&lab, &daemon, &["--rate", "20", "--json", "--for", "2s"]);
    let output = bounded.wait_with_output().unwrap();
    let tally = load.finish();
    let lines = json_lines(&succeeded(&output));
    let end = &lines.last().unwrap()["end"];
    let cpus = aya::util::nr_cpus().unwrap() as u64;
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert!(end["over_rate"].as_u64().unwrap() > 0, "{end}");
    assert!(end["sent"].as_u64().unwrap() <= cpus * (20 * 60 + 2), "{end}");
}

#[test]
fn the_plain_program_comes_back_however_a_capture_ends() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let mut daemon = started(&lab);
    let plain = programs(&lab);
    let held = Held::open(&lab.client, web(), 50).unwrap();

    // The client is killed, while nothing matches what it wants.
    let mut client = capture(&lab, &daemon, &["host", "192.0.2.99"]);
    let capturing = wait_swapped(&lab, "the capturing program is on the NIC", |now| now != plain);
    let second = daemon.lb(&["capture", "--count", "1"]).unwrap();
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert!(error.contains("is capturing already"), "{error}");
    client.kill().unwrap();
    client.wait().unwrap();
    wait_swapped(&lab, "the plain program is back", |now| now == plain);

    // The daemon is killed: the next one puts its plain program there.
    let client = capture(&lab, &daemon, &["host", "192.0.2.99"]);
    let again = wait_swapped(&lab, "the capturing program is on the NIC", |now| now != plain);
    assert_ne!(capturing, again, "each capture has its own copy");
    daemon.kill().unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(programs(&lab), again, "nobody is there to put the plain one back");
    daemon.start().unwrap();
    wait_swapped(&lab, "a new program is on the NIC", |now| now != again);
    let events = daemon.must(&["events"]);
    assert!(events.contains("capture begins") && events.contains("capture ends"), "{events}");
    // It captures, and for people, too.
    let client = capture(&lab, &daemon, &["--count", "4", "tcp", "port", "8080"]);
    wait_swapped(&lab, "the capturing program is on the NIC", |now| now != again);
    let load = Load::start(&lab.client, &[web()], 1, Duration::from_millis(5));
    let text = succeeded(&client.wait_with_output().unwrap());
    assert_eq!(load.finish().failures(), 0);
    let first = text.lines().next().unwrap();
    assert!(
        first.contains("-> forwarded web/web") && first.contains(" > 10.77.0.80:8080 TCP"),
        "{text}"
    );
    assert_eq!(held.broken(), Vec::<String>::new());
    // What makes no sense is refused before anything is loaded.
    for (filter, code) in [("hots 192.0.2.7", 2), ("service wbe", 6)] {
        let output = daemon.lb(&["capture", "--count", "1", filter]).unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

/// Sends datagrams back, on a backend.
fn echo(lab: &Lab, number: usize) {
    lab.backends[number - 1].run(move || {
        let socket = UdpSocket::bind((backend4(number), ECHO)).unwrap();
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
fn datagrams_in_fragments_survive_every_swap() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let daemon = started(&lab);
    for number in 1..=2 {
        let narrower = "ip route replace default via 10.77.0.1 mtu 1500";
        lab.backends[number - 1].sh(narrower).unwrap();
        echo(&lab, number);
    }
    let plain = programs(&lab);
    let (stop, sent, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let (stopped, out, back) = (stop.clone(), sent.clone(), answered.clone());
    let clients = lab.client.run(move || {
        thread::spawn(move || {
            let socket = UdpSocket::bind("10.77.1.2:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.connect((VIP4, ECHO)).unwrap();
            let mut answer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                let number = out.fetch_add(1, Ordering::Relaxed);
                let datagram: Vec<u8> = (0..4_000).map(|at| (at * 7 + number) as u8).collect();
                socket.send(&datagram).unwrap();
                if socket.recv(&mut answer).is_ok_and(|length| answer[..length] == datagram) {
                    back.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    let some = |more: u64| {
        let before = answered.load(Ordering::Relaxed);
        let now = || (answered.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
        wait_for("datagrams are answered", MINUTE, now, |(now, _)| *now > before + more);
    };
    some(50);
    for _ in 0..4 {
        let client = capture(&lab, &daemon, &["--json", "--for", "500ms", "service", "echo"]);
        wait_swapped(&lab, "the capturing program is on the NIC", |now| now != plain);
        let lines = json_lines(&succeeded(&client.wait_with_output().unwrap()));
        assert!(lines.len() > 4, "fragments are captured: {lines:?}");
        wait_swapped(&lab, "the plain program is back", |now| now == plain);
        some(50);
    }
    stop.store(true, Ordering::Relaxed);
    clients.join().unwrap();
    let (sent, answered) = (sent.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    eprintln!("{answered} of {sent} datagrams in fragments answered over 8 swaps");
    assert_eq!(answered, sent, "{}", daemon.log_tail());
}

#[test]
fn a_written_capture_can_be_replayed() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 2).unwrap();
    let daemon = started(&lab);
    let load = Load::start(&lab.client, &[web()], 1, Duration::from_millis(5));
    let file = daemon.directory.join("again.pcapng");
    let path = file.to_str().unwrap();
    let arguments = ["-w", path, "--count", "10", "forwarded and dst host 10.77.0.80"];
    let output = capture(&lab, &daemon, &arguments).wait_with_output().unwrap();
    succeeded(&output);
    assert_eq!(load.finish().failures(), 0);
    assert!(fs::metadata(&file).unwrap().len() > 1_000);
    let lines = json_lines(&daemon.must(&["replay", path, "--json"]));
    // Every other packet is one as it came: the program decides the same again.
    for packet in lines.iter().take(20).step_by(2) {
        assert_eq!(packet["verdict"], "forwarded", "{packet:#}");
    }
}
