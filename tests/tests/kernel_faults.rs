//! Faults of the kernel (F47, F48): it refuses lb's program, or lacks something that lb can use or needs. Each is found before a NIC is
//! touched, and said in one line.
//!
//! The refusals are the kernel's own: a copy of the `lb` binary whose program begins with a read through a register that nothing was
//! written to; type information hidden by a mount; a command of bpf(2) answered as by a kernel that does not know it (seccomp).

use std::{fs, path::Path, process::Command, time::Duration};

use lb_tests::{
    client::requests,
    daemon::{Daemon, lb_binary},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    machine::Machine,
    seccomp,
};
use serde_json::Value;

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/balancer");
/// `r0 = *(u64 *)(r2 + 0)`, the first instruction: only r1 and r10 have values there.
const UNREADABLE: [u8; 8] = [0x79, 0x20, 0, 0, 0, 0, 0, 0];

fn yaml() -> String {
    format!(
        "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: nat\n    check: {{type: tcp}}\n    \
         backends: [{{name: web1, address: \"{}:{PORT}\"}}]\n",
        backend4(1)
    )
}

/// Everything that the kernel tells of changes of NICs while something is done; an XDP program that comes or goes is one.
fn changes_of_nics(machine: &Machine, work: impl FnOnce()) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut monitor = Command::new("ip");
    monitor.args(["monitor", "link"]).stdout(file.reopen().unwrap());
    let mut monitor = machine.spawn(monitor).unwrap();
    // It listens once it tells of a change made for it, and has told everything when it tells of a later one.
    let said = || fs::read_to_string(file.path()).unwrap();
    let mut tries = 0;
    while !said().contains("mtu 65530") {
        tries += 1;
        assert!(tries < 500, "`ip monitor link` says nothing");
        machine.ip("link set lo mtu 65529").unwrap();
        machine.ip("link set lo mtu 65530").unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    work();
    machine.ip("link set lo mtu 65531").unwrap();
    while !said().contains("mtu 65531") {
        tries += 1;
        assert!(tries < 1_000, "`ip monitor link` is silent: {}", said());
        std::thread::sleep(Duration::from_millis(10));
    }
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let text = said();
    let mut paragraphs: Vec<&str> = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices('\n').filter(|(at, _)| !text[at + 1..].starts_with(' ')) {
        paragraphs.push(&text[start..=at]);
        start = at + 1;
    }
    paragraphs.retain(|paragraph| !paragraph.contains(" lo:") && !paragraph.trim().is_empty());
    paragraphs.concat()
}

/// Runs lb, which has to end by itself; what it said at last.
fn fails(machine: &Machine, nics: &[&str], command: Command, daemon: &Daemon<'_>) -> String {
    let mut output = None;
    let changes = changes_of_nics(machine, || output = Some(machine.output(command).unwrap()));
    let output = output.expect("it has run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert_eq!(changes, "", "a NIC was touched: {said}");
    for nic in nics {
        let shown = machine.ip(&format!("-details link show {nic}")).unwrap();
        assert!(!shown.contains("xdp"), "{shown}");
    }
    let last = said.lines().last().unwrap_or_default().to_owned();
    println!("{last}");
    assert!(last.len() < 400, "one line, and not all that the verifier said: {last}");
    assert!(daemon.lb(&["status"]).is_ok_and(|output| !output.status.success()));
    last
}

#[test]
fn f47_a_refused_program_is_one_line_and_a_log() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.binary = daemon.directory.join("lb-refused");
    fs::write(&daemon.binary, refused(&fs::read(lb_binary()).unwrap())).unwrap();
    lab.lb.sh(&format!("chmod 755 {}", daemon.binary.display())).unwrap();

    let said = fails(&lab.lb, &lab.nics, daemon.run_command(), &daemon);
    let log = daemon.directory.join("run/verifier.log");
    assert!(said.contains("the kernel refuses lb's program: "), "{said}");
    assert!(said.contains("R2 !read_ok"), "the verifier's reason: {said}");
    assert!(said.contains(&log.display().to_string()), "{said}");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("r0 = *(u64 *)(r2 +0)"), "the whole log: {text}");
    assert!(text.lines().count() > 1, "{text}");

    // The doctor tells what of all that lb needs is there, and what is not.
    let report = doctor(&lab.lb, &daemon.binary, daemon.directory.as_path());
    let refused = bpf_findings(&report, "error");
    assert_eq!(refused.len(), 1, "{report:#}");
    assert!(
        refused[0].contains("lb's program") && refused[0].contains("R2 !read_ok"),
        "{refused:?}"
    );
    for needed in ["ring buffer (Linux 5.8)", "LRU hash (Linux 4.10)", "device hash (Linux 5.4)"] {
        let found = bpf_findings(&report, "ok").iter().any(|found| found.contains(needed));
        assert!(found, "{needed}: {report:#}");
    }

    // What was left behind is in nobody's way.
    daemon.binary = lb_binary();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
}

/// Without type information nothing is missing but what other tools would show.
#[test]
fn f48_a_kernel_without_type_information_serves_all_the_same() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    lab.lb.sh("mount -t tmpfs none /sys/kernel/btf && ! test -e /sys/kernel/btf/vmlinux").unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let tally = requests(&lab.client, std::net::SocketAddr::new(VIP4, PORT), 20, 5);
    assert_eq!((tally.ok(), tally.failures()), (20, 0), "{tally:?}\n{}", daemon.log_tail());
    let report = doctor(&lab.lb, &lb_binary(), daemon.directory.as_path());
    let findings = report["findings"].as_array().unwrap();
    let btf = findings.iter().find(|finding| finding["check"] == "btf").unwrap();
    assert_eq!(btf["severity"], "note", "{btf:#}");
    assert!(bpf_findings(&report, "error").is_empty(), "{report:#}");
}

/// Linux 5.6 and before say EINVAL to the command that makes a link, as to every command that they do not know.
#[test]
fn f48_a_kernel_without_links_is_told_before_a_nic_is_touched() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    let mut command = daemon.run_command();
    seccomp::refuse_bpf_command(&mut command, seccomp::BPF_LINK_CREATE, libc::EINVAL);
    let said = fails(&lab.lb, &lab.nics, command, &daemon);
    assert!(said.contains("no BPF links") && said.contains("6.1 or later"), "{said}");

    let mut command = doctor_command(&lb_binary(), &daemon.directory);
    seccomp::refuse_bpf_command(&mut command, seccomp::BPF_LINK_CREATE, libc::EINVAL);
    let refused = bpf_findings(&report(&lab.lb, command), "error");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("XDP link (Linux 5.9)"), "{refused:?}");
}

/// A container's filter, or a kernel without CONFIG_BPF_SYSCALL.
#[test]
fn f48_a_kernel_without_bpf_is_told_before_a_nic_is_touched() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let daemon = Daemon::new(&lab.lb, &lab.nics, &yaml()).unwrap();
    let mut command = daemon.run_command();
    seccomp::refuse_bpf(&mut command, libc::ENOSYS);
    let said = fails(&lab.lb, &lab.nics, command, &daemon);
    assert!(said.contains("CONFIG_BPF_SYSCALL"), "{said}");
}

fn doctor(machine: &Machine, binary: &Path, directory: &Path) -> Value {
    report(machine, doctor_command(binary, directory))
}

fn doctor_command(binary: &Path, directory: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("--socket").arg(directory.join("none.sock")).args(["doctor", "--json"]);
    command
}

fn report(machine: &Machine, command: Command) -> Value {
    let output = machine.output(command).unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// What was found when it was tried.
fn bpf_findings(report: &Value, severity: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let of_kind =
        findings.filter(|finding| finding["check"] == "bpf" && finding["severity"] == severity);
    of_kind.map(|finding| finding["found"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The binary with another first instruction of the balancer, wherever its object is embedded.
fn refused(binary: &[u8]) -> Vec<u8> {
    let object = fs::read(OBJECT).unwrap_or_else(|error| panic!("{OBJECT}: {error}"));
    let start = offset_of_balancer(&object);
    let mut changed = binary.to_vec();
    let mut copies = 0;
    // The first 64 bytes are every object's, more or less; the rest tells.
    let head = &object[..64];
    for at in 0..=binary.len() - object.len() {
        if binary[at..at + 64] == *head && binary[at..at + object.len()] == object {
            changed[at + start..at + start + 8].copy_from_slice(&UNREADABLE);
            copies += 1;
        }
    }
    assert!(copies > 0, "{OBJECT} is not what the binary has: run `cargo xtask build`");
    changed
}

/// Where the instructions of the balancer's program begin in its object (ELF, 64 bits, little-endian).
fn offset_of_balancer(object: &[u8]) -> usize {
    let number = |at: usize, bytes: usize| {
        object[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (sections, count) = (number(0x28, 8), number(0x3c, 2));
    // Type, offset, size, link and size of an entry.
    let section = |index: usize| {
        let at = sections + index * 64;
        (number(at + 4, 4), number(at + 24, 8), number(at + 32, 8), number(at + 40, 4))
    };
    const SYMBOLS: usize = 2;
    let (_, table, size, names) =
        (0..count).map(section).find(|(kind, ..)| *kind == SYMBOLS).expect("a table of symbols");
    let (_, names, _, _) = section(names);
    let is_name = |at: usize| object[names + number(at, 4)..].starts_with(b"balancer\0");
    let symbol = (table..table + size)
        .step_by(24)
        .find(|at| is_name(*at) && number(at + 16, 8) > 1_000)
        .expect("the program's symbol");
    let (_, code, ..) = section(number(symbol + 6, 2));
    code + number(symbol + 8, 8)
}
