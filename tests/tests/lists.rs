//! Lists of a hundred thousand prefixes, replaced under load: nobody gets in who may not, and nobody is kept out who may.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lb_tests::{
    client::{Load, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    soak::rounds,
};
use lb_userspace::api::types::Why;

const MINUTE: Duration = Duration::from_secs(60);
const PREFIXES: u32 = 100_000;
/// In every list, and in none.
const DENIED: &str = "10.77.1.66";
const CLIENT: &str = "10.77.1.2";

/// A list of 100,000 with the denied client in it, in some place and under some prefix; no two rounds have the same.
fn list(round: u32) -> String {
    let mut text = format!("# round {round}\n");
    for number in 0..PREFIXES - 1 {
        if number == (round * 31_337) % PREFIXES {
            let length = 32 - round % 3;
            let mask = u32::MAX << (32 - length);
            let network = Ipv4Addr::from(u32::from(DENIED.parse::<Ipv4Addr>().unwrap()) & mask);
            writeln!(text, "{network}/{length} # here it is").unwrap();
        }
        // Every other prefix stays, the others come and go.
        let second = if number % 2 == 0 { 20 } else { 21 + round % 50 };
        let place = Ipv4Addr::from(second << 24 | number << 5);
        writeln!(text, "{place}/{}", 27 + number % 6).unwrap();
    }
    text
}

fn write(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
}

fn yaml(deny: &str) -> String {
    let service = |name: &str, protocol: &str| {
        format!(
            "  - name: {name}\n    listen: {{address: {VIP4}, port: {PORT}, protocol: {protocol}}}\n    forward: nat\n    \
             {deny}\n    backends:\n      - {{name: web1, address: \"{}:{PORT}\"}}\n",
            backend4(1)
        )
    };
    format!("services:\n{}{}", service("web", "tcp"), service("echo", "udp"))
}

/// How often a service has counted `denied`.
fn denied(daemon: &Daemon<'_>, service: &str) -> u64 {
    let why: Why = serde_json::from_str(&daemon.must(&["why", "--json", service])).unwrap();
    let reasons = &why.services[0].reasons;
    reasons.iter().find(|reason| reason.name == "denied").map_or(0, |reason| reason.count)
}

/// Sends datagrams from an address without a pause worth mentioning, until it is told to stop; counts them and their answers.
struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Sender {
    fn start(lab: &Lab, from: &'static str) -> Self {
        let (stop, sent, answered) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (stopped, count, answers) = (stop.clone(), sent.clone(), answered.clone());
        let thread = lab.client.run(move || {
            std::thread::spawn(move || {
                let socket = UdpSocket::bind((from, 4711)).unwrap();
                socket.connect((VIP4, PORT)).unwrap();
                socket.set_read_timeout(Some(Duration::from_micros(300))).unwrap();
                let mut buffer = [0; 64];
                while !stopped.load(Ordering::Relaxed) {
                    socket.send(b"let me in").unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                    if socket.recv(&mut buffer).is_ok() {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        Self { stop, sent, answered, thread }
    }

    /// Datagrams sent and answered.
    fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (self.sent.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed))
    }
}

#[test]
fn a_hundred_thousand_prefixes_are_replaced_without_a_gap() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    lab.client.ip(&format!("addr add {DENIED}/24 dev c0")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deny.txt");
    write(&file, &list(0));
    let with_list = yaml(&format!("deny_file: {}", file.display()));
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &with_list).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    // Alone, before there is a load: the neighbour's address is known then.
    assert!(lb_tests::client::is_answered(&lab.client, (VIP4, PORT).into(), MINUTE));
    let before = denied(&daemon, "echo");

    let load = Load::start(&lab.client, &[(VIP4, PORT).into()], 4, Duration::from_millis(1));
    let intruder = Sender::start(&lab, DENIED);
    for round in 1..=rounds(5, 100) as u32 {
        write(&file, &list(round));
        let said = daemon.must(&["reload"]);
        assert!(said.contains("deny: 100000 prefixes"), "{said}");
    }
    // A wrong list changes nothing, and says where it is wrong.
    write(&file, &(list(6) + "10.77.1.2/8\n"));
    let refused = daemon.lb(&["reload"]).unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    let place = format!("deny.txt:{}: `10.77.1.2/8` is not a network", PREFIXES + 2);
    assert!(!refused.status.success() && text.contains(&place), "{text}");
    assert!(daemon.lookup("10.77.1.66:1", "10.77.0.80:8080").why.contains("deny prefixes"));
    // Nor does the daemon's end and its next start, with the file away.
    daemon.kill().unwrap();
    fs::remove_file(&file).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["NOLB"]);
    write(&file, &list(7));
    daemon.must(&["reload"]);

    let (sent, answered) = intruder.finish();
    let tally = load.finish();
    println!("{sent} datagrams of the denied, {} requests of the others", tally.ok());
    assert_eq!(tally.failures(), 0, "{:?}", tally.failed);
    assert!(tally.ok() > 200 && sent > 200, "{sent} {}", tally.ok());
    assert_eq!(answered, 0, "{answered} of {sent} got in");
    let look = || denied(&daemon, "echo") - before;
    let counted = wait_for("all are counted", MINUTE, look, |counted| *counted >= sent);
    assert_eq!(counted, sent, "each packet of the denied is counted as such");

    // What is replaced is gone: no list leaks.
    let fill = || {
        let status = daemon.status();
        status.tables.iter().find(|table| table.name == "deny_prefixes").map(|table| table.entries)
    };
    let wanted = Some(u64::from(PREFIXES) * 2);
    let seen = wait_for("only the lists in force are left", MINUTE, fill, |fill| *fill == wanted);
    assert_eq!(seen, wanted);
    // Without a list everybody may in again.
    daemon.write(&yaml(&format!("allow: [{DENIED}, {CLIENT}]"))).unwrap();
    daemon.must(&["reload"]);
    let guest = Sender::start(&lab, DENIED);
    let answers = guest.answered.clone();
    let look = || answers.load(Ordering::Relaxed);
    wait_for("the denied gets in", MINUTE, look, |answers| *answers > 0);
    guest.finish();
    wait_for("the lists are gone", MINUTE, fill, |fill| *fill == Some(0));
}
