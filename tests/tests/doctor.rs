//! `lb doctor` on real NICs: each fault is found with its remedy, and after that remedy's command it is gone.

use std::{process::Command, time::Duration};

use lb_tests::{
    daemon::{Daemon, lb_binary},
    lab::{Arms, Lab, PORT, Return, backend4},
    machine::Machine,
};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

/// A host with one NIC, `lb0`, and its far end.
struct Host {
    machine: Machine,
    far: Machine,
    directory: tempfile::TempDir,
}

impl Host {
    fn new(queues: u32) -> Self {
        let (machine, far) = (Machine::new("host").unwrap(), Machine::new("far").unwrap());
        machine
            .ip(&format!(
                "link add name lb0 numrxqueues {queues} numtxqueues {queues} type veth peer name far0 \
                 numrxqueues {queues} numtxqueues {queues} netns {}",
                far.tid
            ))
            .unwrap();
        machine.ip("addr add 10.77.0.1/24 dev lb0").unwrap();
        machine.ip("link set lb0 up").unwrap();
        far.ip("link set far0 up").unwrap();
        Self { machine, far, directory: tempfile::tempdir().unwrap() }
    }

    /// `lb doctor --json ARGUMENTS`: the exit code and the report.
    fn examine(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        report(&self.machine, self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(lb_binary());
        let socket = self.directory.path().join("none.sock");
        command.arg("--socket").arg(socket).args(["doctor", "--json", "--iface", "lb0"]);
        command.args(arguments);
        command
    }

    fn config(&self, yaml: &str) -> String {
        let path = self.directory.path().join("lb.yaml");
        std::fs::write(&path, yaml).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The fault is there, its command is run, and the fault is gone.
    #[track_caller]
    fn cure(&self, check: &str, severity: &str, arguments: &[&str]) -> String {
        let (_, sick) = self.examine(arguments);
        let finding = find(&sick, check);
        assert_eq!(finding["severity"], severity, "{finding:#}");
        assert_ne!(finding["why"], "", "{finding:#}");
        let command =
            finding["remedy"]["command"].as_str().unwrap_or_else(|| panic!("{finding:#}"));
        self.machine.sh(command).unwrap();
        let (_, cured) = self.examine(arguments);
        assert_eq!(find(&cured, check)["severity"], "ok", "after `{command}`: {cured:#}");
        command.to_owned()
    }
}

fn report(machine: &Machine, command: Command) -> (Option<i32>, Value) {
    let output = machine.output(command).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
    });
    (output.status.code(), report)
}

/// The worst finding of a check.
#[track_caller]
fn find<'a>(report: &'a Value, check: &str) -> &'a Value {
    let rank = |finding: &&Value| {
        let severity = finding["severity"].as_str().unwrap_or_default();
        ["ok", "note", "warning", "error"].iter().position(|name| *name == severity)
    };
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .filter(|finding| finding["check"] == check)
        .max_by_key(rank)
        .unwrap_or_else(|| panic!("no finding {check}: {report:#}"))
}

fn yaml(settings: &str) -> String {
    format!(
        "{settings}\ninterfaces: [lb0]\nservices:\n  - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    \
         forward: nat\n    backends: [{{name: web1, address: \"{}:{PORT}\"}}]\n",
        backend4(1)
    )
}

#[test]
fn offloads_and_queues_are_cured_by_ethtool() {
    let host = Host::new(4);
    assert_eq!(host.cure("rx_vlan", "note", &[]), "ethtool -K lb0 rxvlan off");
    let (code, well) = host.examine(&[]);
    assert_eq!(code, Some(0), "{well:#}");
    assert_eq!(find(&well, "queues")["severity"], "ok");
    assert_eq!(find(&well, "lro")["severity"], "ok", "a veth has none: {well:#}");
    host.machine.sh("ethtool -K lb0 rxvlan on").unwrap();
    assert_eq!(find(&host.examine(&[]).1, "rx_vlan")["severity"], "note");

    // One queue here, four at the far end: the driver has no native XDP then.
    host.machine.sh("ethtool -L lb0 rx 1").unwrap();
    let (code, sick) = host.examine(&[]);
    assert_eq!(code, Some(8), "{sick:#}");
    assert_eq!(find(&sick, "queues")["severity"], "warning");
    assert_eq!(host.cure("xdp", "error", &[]), "ethtool -L lb0 rx 4");
    host.machine.sh("ethtool -L lb0 rx 1 tx 1").unwrap();
    host.far.sh("ethtool -L far0 rx 1 tx 1").unwrap();
    assert_eq!(find(&host.examine(&[]).1, "xdp")["severity"], "ok");
    assert!(host.cure("queues", "warning", &[]).starts_with("ethtool -L lb0 rx "));
}

#[test]
fn what_it_says_about_the_mtu_is_what_the_kernel_does() {
    let host = Host::new(1);
    host.far.ip("link set far0 mtu 3507").unwrap();
    host.machine.ip("link set lb0 mtu 3507").unwrap();
    let file = host.config(&yaml("xdp_mode: native"));
    let run = || {
        let mut command = Command::new("timeout");
        command.args(["--signal=TERM", "20"]).arg(lb_binary());
        command.arg("run").args(["--config", &file]);
        host.machine.output(command).unwrap()
    };
    let refused = String::from_utf8(run().stderr).unwrap();
    assert!(refused.contains("native XDP refused"), "{refused}");
    let command = host.cure("mtu", "error", &["--config", &file]);
    assert_eq!(command, "ip link set dev lb0 mtu 3506");
    host.far.sh(&command.replace("lb0", "far0")).unwrap();
    let mut daemon = Daemon::new(&host.machine, &["lb0"], &yaml("xdp_mode: native")).unwrap();
    daemon.start().unwrap();
    assert_eq!(daemon.status().interfaces[0].mode, "native");
    let tunnel = host.config(&yaml("").replace("forward: nat", "forward: tunnel\n    encap: ipip"));
    host.machine.ip("link set lb0 mtu 1500").unwrap();
    let command = host.cure("tunnel_mtu", "warning", &["--config", &tunnel]);
    assert_eq!(command, "ip link set dev lb0 mtu 1520");
}

#[test]
fn pins_and_privileges() {
    let host = Host::new(1);
    host.machine.sh("while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf; done").unwrap();
    assert_eq!(host.cure("bpffs", "error", &[]), "mount -t bpf bpf /sys/fs/bpf");
    host.machine.sh("mount -o remount,ro /sys/fs/bpf").unwrap();
    assert_eq!(host.cure("bpffs", "error", &[]), "mount -o remount,rw /sys/fs/bpf");

    let doctor = host.command(&[]);
    let mut dropped = Command::new("setpriv");
    dropped.args(["--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin"]);
    dropped.arg(doctor.get_program()).args(doctor.get_args());
    let (code, report) = report(&host.machine, dropped);
    assert_eq!(code, Some(8), "{report:#}");
    let finding = find(&report, "capabilities");
    assert_eq!(finding["severity"], "error", "{finding:#}");
    assert!(finding["found"].as_str().unwrap().contains("CAP_BPF"), "{finding:#}");
    // Not allowed to try is not the same as refused.
    assert_eq!(find(&report, "bpf")["severity"], "note", "{report:#}");
    // With them, everything that lb needs of BPF was tried, and works.
    assert_eq!(find(&host.examine(&[]).1, "bpf")["severity"], "ok");
}

#[test]
fn what_the_host_does_to_packets_is_cured_by_sysctl() {
    let host = Host::new(1);
    let file = host.config(&yaml(""));
    host.machine.sh("sysctl -qw net.ipv4.ip_forward=0").unwrap();
    assert_eq!(
        host.cure("ip_forward", "note", &["--config", &file]),
        "sysctl -w net.ipv4.ip_forward=1"
    );
    // A backend: tunnels end here, and the VIP is on its loopback.
    let lb = lb_binary();
    host.machine.sh(&format!("{} decap --iface lb0 --local 10.77.0.1", lb.display())).unwrap();
    host.machine.ip("addr add 10.77.0.80/32 dev lo").unwrap();
    host.machine.sh("sysctl -qw net.ipv4.conf.lb0.rp_filter=1").unwrap();
    assert_eq!(host.cure("rp_filter", "warning", &[]), "sysctl -w net/ipv4/conf/lb0/rp_filter=2");
    host.cure("arp_ignore", "warning", &[]);
    host.cure("arp_announce", "warning", &[]);
    let (_, well) = host.examine(&[]);
    assert_eq!(find(&well, "xdp")["severity"], "ok", "lb decap is no stranger: {well:#}");
    host.machine.sh(&format!("{} decap --detach", lb.display())).unwrap();
}

#[test]
fn strangers_and_missing_nics_are_errors() {
    let host = Host::new(1);
    host.machine.ip("link set lb0 down").unwrap();
    assert_eq!(host.cure("link", "error", &[]), "ip link set dev lb0 up");
    let (code, report) = host.examine(&["--iface", "eth9"]);
    assert_eq!(code, Some(8));
    assert_eq!(find(&report, "nic")["group"], "eth9", "{report:#}");
    let lab = Lab::new(Arms::One, Return::ThroughLb, 0).unwrap();
    lab.attach_pass_by_netlink("lb0").unwrap();
    let mut command = Command::new(lb_binary());
    command.args(["--socket", "/none", "doctor", "--json", "--iface", "lb0"]);
    let (_, sick) = self::report(&lab.lb, command);
    let stranger = find(&sick, "xdp");
    assert_eq!(stranger["severity"], "error", "{stranger:#}");
    lab.lb.sh(stranger["remedy"]["command"].as_str().unwrap()).unwrap();
    assert!(!lab.lb.ip("link show lb0").unwrap().contains("prog/xdp"));
}

#[test]
fn a_running_daemon_is_asked_too() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    let mut servers = std::mem::take(&mut lab.servers);
    let checked = |mode: &str| {
        yaml(&format!("xdp_mode: {mode}")).replace("backends:", "check: {type: tcp}\n    backends:")
    };
    let mut daemon = Daemon::new(&lab.lb, &[], &checked("generic")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    let examine = |daemon: &Daemon<'_>| {
        let output = daemon.lb(&["doctor", "--json"]).unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code(), report)
    };
    let (_, report) = examine(&daemon);
    let xdp = find(&report, "xdp");
    assert_eq!((&xdp["group"], &xdp["severity"]), (&"lb0".into(), &"note".into()), "{xdp:#}");
    assert!(xdp["remedy"]["advice"].as_str().unwrap().contains("xdp_mode: native"), "{xdp:#}");
    // As it says.
    daemon.write(&checked("native")).unwrap();
    daemon.must(&["reload"]);
    let (code, report) = examine(&daemon);
    for check in
        ["xdp", "daemon", "daemon_capabilities", "open_files", "service", "tables", "config"]
    {
        assert_eq!(find(&report, check)["severity"], "ok", "{check}: {report:#}");
    }
    assert!(code.is_some_and(|code| code == 0 || code == 8), "{report:#}");

    servers[0] = None;
    let daemon_status = |status: &lb_userspace::api::types::Status| {
        status.services[0].backends[0].state.starts_with("DOWN")
    };
    daemon.wait("web1 is DOWN", MINUTE, daemon_status);
    let (code, report) = examine(&daemon);
    assert_eq!(code, Some(8), "{report:#}");
    assert_eq!(find(&report, "backend")["severity"], "warning");
    assert_eq!(find(&report, "service")["severity"], "error", "{report:#}");
    let text = daemon.lb(&["doctor"]).unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("web/web1 is DOWN") && text.contains("\n           do:  "), "{text}");

    daemon.write("services: [").unwrap();
    daemon.wait("the file is refused", MINUTE, |status| status.config_error.is_some());
    assert_eq!(find(&examine(&daemon).1, "config_in_force")["severity"], "error");
    daemon.kill().unwrap();
    let away = find(&examine(&daemon).1, "daemon").clone();
    assert_eq!(away["severity"], "warning", "packets are forwarded: {away:#}");
}
