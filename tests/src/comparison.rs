//! The death of the active node of a pair, as clients meet it: keepalived with lb, and keepalived with HAProxy, on the same machines with
//! the same keepalived files, backends and clients.

use std::{
    fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, process::Command, time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    client::{Held, request, wait_for},
    lab::{PORT, backend4},
    machine::Machine,
    pair::{Pair, VIPS, targets},
    process::Process,
    pulse::Pulse,
};

/// Long-lived connections.
pub const HELD: usize = 75;
const MINUTE: Duration = Duration::from_secs(60);
/// From one request to the next.
const EVERY: Duration = Duration::from_millis(25);
/// Too short for a repeated SYN.
const PATIENCE: Duration = Duration::from_millis(900);

/// What the death has cost.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Who balanced.
    pub who: &'static str,
    /// Requests answered while it happened.
    pub answered: u64,
    /// Requests failed.
    pub failed: u64,
    /// Connections broken, of [`HELD`].
    pub broken: usize,
    /// The longest time between two answers, milliseconds.
    pub longest_gap_ms: u64,
}

/// Both, one after the other.
pub fn compare() -> anyhow::Result<[Cost; 2]> {
    Ok([with_lb()?, with_haproxy()?])
}

fn with_lb() -> anyhow::Result<Cost> {
    let pair = Pair::new()?;
    let mut nodes = [pair.node(0)?, pair.node(1)?];
    for node in &mut nodes {
        node.start()?;
    }
    let [first, _second] = &mut nodes;
    let who = "keepalived + lb";
    measure(who, &pair, || has(pair.machine(0)), || has(pair.machine(1)), || first.crash())
}

fn with_haproxy() -> anyhow::Result<Cost> {
    let pair = Pair::new()?;
    let directory = tempfile::tempdir()?;
    let start = |index| Haproxy::start(&pair, index, directory.path());
    let (mut first, second) = (start(0)?, start(1)?);
    measure(
        "keepalived + HAProxy",
        &pair,
        || has(pair.machine(0)),
        || has(second.machine),
        || first.crash(&pair),
    )
}

fn vip() -> &'static str {
    VIPS[0].1
}

fn target() -> SocketAddr {
    targets()[0].1
}

fn measure(
    who: &'static str,
    pair: &Pair,
    first_has: impl Fn() -> bool,
    second_has: impl Fn() -> bool,
    crash: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Cost> {
    wait_for(
        "the first node alone has the VIP",
        MINUTE,
        || (first_has(), second_has()),
        |has| *has == (true, false),
    );
    let target = target();
    let pulse = Pulse::start(&pair.client, EVERY, PATIENCE, move |_| request(target));
    let answers = |more: u64| {
        let goal = pulse.look().ok() + more;
        wait_for("requests are answered", MINUTE, || pulse.look(), |beats| beats.ok() >= goal);
    };
    answers(40);
    let held = Held::open(&pair.client, target, HELD)?;
    pulse.take();
    crash()?;
    wait_for("the second node has the VIP", MINUTE, second_has, |has| *has);
    answers(40);
    let beats = pulse.finish();
    Ok(Cost {
        who,
        answered: beats.ok(),
        failed: beats.failures(),
        broken: held.broken().len(),
        longest_gap_ms: beats.longest_gap.as_millis() as u64,
    })
}

fn has(machine: &Machine) -> bool {
    let addresses = machine.ip("-o addr show").unwrap_or_default();
    addresses.contains(&format!(" {}/", vip()))
}

/// A node with HAProxy and keepalived.
struct Haproxy<'a> {
    machine: &'a Machine,
    index: usize,
    processes: Vec<Process>,
}

impl<'a> Haproxy<'a> {
    fn start(pair: &'a Pair, index: usize, directory: &std::path::Path) -> anyhow::Result<Self> {
        let machine = pair.machine(index);
        let directory = directory.join(format!("node{index}"));
        fs::create_dir(&directory)?;
        let own = index + 3;
        machine.ip(&format!("addr add 10.77.1.{own}/24 dev lb0"))?;
        machine.ip(&format!("addr add 10.77.0.{own}/24 dev lb1"))?;
        let file = directory.join("haproxy.cfg");
        fs::write(&file, haproxy_config())?;
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(&file);
        let haproxy = Process::start(machine, "haproxy", &directory, &haproxy)?;
        wait_for(
            "HAProxy has checked its servers",
            MINUTE,
            || haproxy.log(),
            |_| machine.sh(&format!("ss -Hltn sport = {PORT}")).is_ok_and(|text| !text.is_empty()),
        );
        let check = directory.join("check.sh");
        fs::write(&check, format!("#!/bin/sh\nss -Hltn sport = {PORT} | grep -q LISTEN\n"))?;
        fs::set_permissions(&check, fs::Permissions::from_mode(0o700))?;
        let text = pair.keepalived(index)?;
        let check = check.display().to_string();
        // The host's own sockets answer for the VIP here.
        let lines = text.lines().filter(|line| !["no_accept", "nftables"].contains(&line.trim()));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let text = text.replace("/usr/bin/lb health --forwarding", &check);
        let text = text.replace("/usr/bin/lb health", &check);
        let file = directory.join("keepalived.conf");
        fs::write(&file, text)?;
        let mut keepalived = Command::new("keepalived");
        keepalived.args(["--vrrp", "--dont-fork", "--log-console", "--use-file"]).arg(&file);
        keepalived.arg("--pid").arg(directory.join("keepalived.pid"));
        keepalived.arg("--vrrp_pid").arg(directory.join("vrrp.pid"));
        let keepalived = Process::start(machine, "keepalived", &directory, &keepalived)?;
        Ok(Self { machine, index, processes: vec![keepalived, haproxy] })
    }

    /// As a node of lb dies: nothing gets out of its NICs any more, and every process is gone.
    fn crash(&mut self, pair: &Pair) -> anyhow::Result<()> {
        pair.unplug(self.index)?;
        self.processes.drain(..).try_for_each(Process::kill).context("kill")
    }
}

fn haproxy_config() -> String {
    let mut text = format!(
        "global\n    maxconn 4000\n\
         defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 1h\n    timeout server 1h\n    timeout check 2s\n\
         listen web\n    bind :{PORT}\n    balance roundrobin\n    option redispatch\n    option httpchk GET /healthz\n    \
         default-server check inter 500ms fastinter 200ms fall 3\n"
    );
    for number in 1..=3 {
        text += &format!("    server web{number} {}:{PORT}\n", backend4(number));
    }
    text
}

/// For people.
pub fn table(costs: &[Cost]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "THE ACTIVE NODE DEAD".to_owned(),
        "ANSWERED".to_owned(),
        "FAILED".to_owned(),
        format!("BROKEN OF {HELD}"),
        "LONGEST GAP".to_owned(),
    ]);
    for cost in costs {
        table.add_row([
            cost.who.to_owned(),
            cost.answered.to_string(),
            cost.failed.to_string(),
            cost.broken.to_string(),
            format!("{} ms", cost.longest_gap_ms),
        ]);
    }
    table.to_string()
}
