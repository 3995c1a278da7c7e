//! The ways from the client to the servers.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use aya::Ebpf;
use lb_tests::{
    client::{is_answered, slowness},
    daemon::Daemon,
    lab::{Lab, PORT, VIP4, backend4},
    process::Process,
};

use super::target;

/// How long one attempt to ask may take.
const BLINK: Duration = Duration::from_millis(200);
/// How long a way may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands between client and servers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing but a router.
    Routed,
    /// lb, `forward: nat`.
    Lb,
    /// nftables: a hash of client and port says which server.
    Nftables,
    /// HAProxy, `mode tcp`.
    Haproxy,
    /// nginx's stream module.
    Nginx,
    /// lb, `forward: dsr`.
    LbDsr,
    /// A program that does what `dsr` needs, with constants.
    Constant,
    /// IPVS, NAT.
    Ipvs,
    /// IPVS, direct routing.
    IpvsDr,
}

impl Way {
    /// Those whose answers come back by the same way, in the order of a round.
    pub const THROUGH: [Self; 5] =
        [Self::Routed, Self::Lb, Self::Nftables, Self::Haproxy, Self::Nginx];
    /// Those that servers answer past.
    pub const PAST: [Self; 2] = [Self::LbDsr, Self::Constant];

    /// What rows call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Lb => "lb",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx-stream",
            Self::LbDsr => "lb-dsr",
            Self::Constant => "constant",
            Self::Ipvs => "ipvs",
            Self::IpvsDr => "ipvs-dr",
        }
    }

    /// Whether it is something that lb is compared with.
    pub const fn is_peer(self) -> bool {
        matches!(self, Self::Nftables | Self::Haproxy | Self::Nginx)
    }
}

/// One that is set up.
pub enum Running<'a> {
    /// It needs nothing.
    Routed,
    /// The daemon.
    Lb(Box<Daemon<'a>>),
    /// Rules of lb's machine.
    Nftables(&'a Lab),
    /// A process that has the VIP, and its files.
    Proxy(&'a Lab, Process, tempfile::TempDir),
    /// keepalived, which has told the kernel, and its files.
    Ipvs(&'a Lab, Process, tempfile::TempDir),
    /// The program, which goes with this.
    Constant(Box<Ebpf>),
}

/// What all of them need: a machine in the middle that forwards, and nobody who remembers connections that are over. The
/// client comes to the same port again after some 28,000 connections; a server that is in TIME-WAIT then answers the SYN
/// with an ACK of the old connection (RFC 1337), and the client asks again two ticks later: 10 to 20 ms that have nothing to
/// do with what is in the middle, and that come to whoever is measured after the first minute.
pub fn prepare(lab: &Lab) -> Result<()> {
    lab.lb.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    for machine in lab.backends.iter().chain([&lab.lb, &lab.client]) {
        machine.sh("echo 0 > /proc/sys/net/ipv4/tcp_max_tw_buckets")?;
    }
    Ok(())
}

impl<'a> Running<'a> {
    /// Sets it up, until a request is answered.
    pub fn start(lab: &'a Lab, way: Way) -> Result<Self> {
        let running = match way {
            Way::Routed => Self::Routed,
            Way::Constant => Self::Constant(Box::new(lab.attach_constant()?)),
            Way::Lb | Way::LbDsr => {
                let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(way))?;
                daemon.start()?;
                daemon.wait_ready(&["NOLB"]);
                Self::Lb(Box::new(daemon))
            }
            Way::Nftables => {
                let servers: Vec<String> =
                    (0..3).map(|n| format!("{n} : {}", backend4(n + 1))).collect();
                lab.lb.sh(&format!(
                    "nft 'add table ip lb; add chain ip lb pre {{ type nat hook prerouting priority dstnat; }}; \
                     add rule ip lb pre ip daddr {VIP4} tcp dport 80 dnat to \
                     jhash ip saddr . tcp sport mod 3 map {{ {} }} : {PORT}'",
                    servers.join(", ")
                ))?;
                Self::Nftables(lab)
            }
            Way::Haproxy => {
                let servers = list(3, |n, at| format!("  server web{n} {at}\n"));
                let text = format!(
                    "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                     listen web\n  bind {VIP4}:80\n  balance roundrobin\n{servers}"
                );
                proxy(lab, "haproxy", &["-db", "-f"], &text)?
            }
            Way::Nginx => {
                let servers = list(3, |_, at| format!("server {at}; "));
                let text = format!(
                    "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; worker_processes auto; pid nginx.pid;\n\
                     error_log stderr;\nevents {{ worker_connections 8192; }}\n\
                     stream {{ upstream web {{ {servers} }} server {{ listen {VIP4}:80; proxy_pass web; }} }}\n"
                );
                proxy(lab, "nginx", &["-p", ".", "-c"], &text)?
            }
            Way::Ipvs => ipvs(lab, 80, "NAT", 3)?,
            // The port is not rewritten.
            Way::IpvsDr => ipvs(lab, PORT, "DR", 1)?,
        };
        let began = Instant::now();
        let (blink, patience) = (BLINK * slowness(), PATIENCE * slowness());
        while !is_answered(&lab.client, target(way), blink) {
            ensure!(began.elapsed() < patience, "no request is answered: {}", running.log());
            thread::sleep(BLINK / 10);
        }
        Ok(running)
    }

    fn log(&self) -> String {
        match self {
            Self::Routed | Self::Nftables(_) | Self::Constant(_) => String::new(),
            Self::Lb(daemon) => daemon.log_tail(),
            Self::Proxy(_, process, _) | Self::Ipvs(_, process, _) => process.log(),
        }
    }

    /// Takes it away again.
    pub fn stop(self) -> Result<()> {
        match self {
            Self::Routed => Ok(()),
            Self::Constant(program) => {
                drop(program);
                Ok(())
            }
            Self::Lb(mut daemon) => {
                daemon.must(&["detach"]);
                daemon.stop()
            }
            Self::Nftables(lab) => lab.lb.sh("nft delete table ip lb").map(drop),
            Self::Proxy(lab, process, directory) => {
                process.kill()?;
                drop(directory);
                without_vip(lab)
            }
            Self::Ipvs(lab, process, directory) => {
                // It takes back what it has told the kernel.
                process.terminate()?;
                drop(directory);
                without_vip(lab)
            }
        }
    }
}

/// Takes the VIP from lb's machine.
fn without_vip(lab: &Lab) -> Result<()> {
    lab.lb.sh(&format!("ip addr del {VIP4}/32 dev {}", lab.nics[lab.nics.len() - 1])).map(drop)
}

/// IPVS for a port of the VIP, which the machine has to have. keepalived enters it and does nothing more: nothing is checked.
fn ipvs<'a>(lab: &'a Lab, port: u16, method: &str, count: usize) -> Result<Running<'a>> {
    let directory = tempfile::tempdir()?;
    let mut text = format!(
        "virtual_server {VIP4} {port} {{\n    lvs_sched rr\n    lvs_method {method}\n    protocol TCP\n    delay_loop 60\n"
    );
    for number in 1..=count {
        let server = backend4(number);
        text += &format!("    real_server {server} {PORT} {{\n        weight 1\n    }}\n");
    }
    let file = directory.path().join("keepalived.conf");
    fs::write(&file, text + "}\n")?;
    lab.lb.sh(&format!("ip addr add {VIP4}/32 dev {}", lab.nics[lab.nics.len() - 1]))?;
    let mut command = Command::new("keepalived");
    command.args(["--check", "--dont-fork", "--log-console", "--use-file"]).arg(&file);
    for (option, name) in [("--pid", "keepalived"), ("--checkers_pid", "check")] {
        command.arg(option).arg(directory.path().join(format!("{name}.pid")));
    }
    let process = Process::start(&lab.lb, "keepalived", directory.path(), &command)?;
    Ok(Running::Ipvs(lab, process, directory))
}

fn yaml(way: Way) -> String {
    let (forward, port, count) = if way == Way::LbDsr { ("dsr", PORT, 1) } else { ("nat", 80, 3) };
    let backends = list(count, |n, at| format!("      - {{name: web{n}, address: \"{at}\"}}\n"));
    format!(
        "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {port}}}\n    forward: {forward}\n    backends:\n{backends}"
    )
}

fn list(count: usize, line: impl Fn(usize, String) -> String) -> String {
    (1..=count).map(|number| line(number, format!("{}:{PORT}", backend4(number)))).collect()
}

/// A proxy that takes connections at the VIP.
fn proxy<'a>(lab: &'a Lab, program: &str, arguments: &[&str], text: &str) -> Result<Running<'a>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join(format!("{program}.conf"));
    fs::write(&file, text)?;
    lab.lb.sh(&format!("ip addr add {VIP4}/32 dev lb1"))?;
    let mut command = Command::new(program);
    command.args(arguments).arg(&file);
    let process = Process::start(&lab.lb, program, directory.path(), &command)?;
    Ok(Running::Proxy(lab, process, directory))
}
