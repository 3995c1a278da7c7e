//! The death of the active node of a pair, as clients meet it: keepalived with lb, with HAProxy and with IPVS, on the same machines with
//! the same keepalived files, backends and clients.

mod haproxy;
mod ipvs;
mod other;

use std::{fs, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    client::{Held, request, wait_for},
    machine::Machine,
    node::Node,
    pair::{Pair, VIPS, targets},
    pulse::Pulse,
};

/// Long-lived connections.
pub const HELD: usize = 75;
const MINUTE: Duration = Duration::from_secs(60);
/// Too short for a repeated SYN.
const PATIENCE: Duration = Duration::from_millis(900);

/// How much is asked of the machines.
struct Pace {
    /// From one request to the next.
    every: Duration,
    /// Connections that are held open.
    held: usize,
    /// keepalived's file, changed for it.
    keepalived: fn(&str) -> String,
}

const FULL: Pace = Pace { every: Duration::from_millis(25), held: HELD, keepalived: str::to_owned };
/// For an emulated machine, some twenty times slower.
const EMULATED: Pace =
    Pace { every: Duration::from_millis(100), held: 30, keepalived: asking_rarely };

/// What the death has cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Who balanced.
    pub who: String,
    /// Requests answered while it happened.
    pub answered: u64,
    /// Requests failed.
    pub failed: u64,
    /// Long-lived connections.
    pub held: usize,
    /// Those of them that broke.
    pub broken: usize,
    /// The longest time between two answers, milliseconds.
    pub longest_gap_ms: u64,
}

/// lb and HAProxy, one after the other.
pub fn compare() -> anyhow::Result<[Cost; 2]> {
    Ok([with_lb("keepalived + lb", &FULL)?, with_haproxy()?])
}

/// keepalived's file for an emulated machine, which takes a second to ask a script: it is asked less often. What is measured, a node's
/// death, is found by advertisements alone.
fn asking_rarely(text: &str) -> String {
    text.replace("    interval 1\n    timeout 3\n", "    interval 10\n    timeout 9\n")
}

/// lb and IPVS, one after the other. The kernel has to have IPVS: `cargo xtask` boots one that has, and runs `lab beside-ipvs` there.
pub fn beside_ipvs() -> anyhow::Result<[Cost; 2]> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let line: Vec<&str> = release.split(['.', '-', '+']).take(2).collect();
    let line = line.join(".");
    let [lb, ipvs] = ["lb", "IPVS with its sync daemon"]
        .map(|who| format!("keepalived + {who} (Linux {line}, emulated)"));
    Ok([with_lb(&lb, &EMULATED)?, with_ipvs(&ipvs, &EMULATED)?])
}

fn with_lb(who: &str, pace: &Pace) -> anyhow::Result<Cost> {
    let pair = Pair::with(&VIPS[..1])?;
    let mut nodes = [pair.node(0)?, pair.node(1)?];
    for node in &nodes {
        let file = node.daemon.directory.join("keepalived.conf");
        fs::write(&file, (pace.keepalived)(&fs::read_to_string(&file)?))?;
    }
    // One after the other: an emulated machine that loads a program has no time for anything else.
    nodes.iter_mut().try_for_each(Node::start_daemon)?;
    nodes.iter_mut().try_for_each(Node::start_keepalived)?;
    let [first, _second] = &mut nodes;
    measure(who, pace, &pair, || first.crash())
}

fn with_haproxy() -> anyhow::Result<Cost> {
    let pair = Pair::with(&VIPS[..1])?;
    let directory = tempfile::tempdir()?;
    let start = |index| haproxy::start(&pair, index, directory.path());
    let (mut first, _second) = (start(0)?, start(1)?);
    measure("keepalived + HAProxy", &FULL, &pair, || first.crash(&pair))
}

fn with_ipvs(who: &str, pace: &Pace) -> anyhow::Result<Cost> {
    let pair = Pair::with(&VIPS[..1])?;
    let directory = tempfile::tempdir()?;
    let start = |index| ipvs::start(&pair, index, directory.path());
    let (mut first, second) = (start(0)?, start(1)?);
    measure(who, pace, &pair, || {
        // As the nodes of a pair of lb are in step: what was opened long ago is known to both.
        ipvs::wait_for_connections(&second, pace.held);
        first.crash(&pair)
    })
}

fn vip() -> &'static str {
    VIPS[0].1
}

fn target() -> SocketAddr {
    targets()[0].1
}

fn measure(
    who: &str,
    pace: &Pace,
    pair: &Pair,
    crash: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Cost> {
    let have = || [0, 1].map(|index| has(pair.machine(index)));
    wait_for("the first node alone has the VIP", MINUTE, have, |have| *have == [true, false]);
    let target = target();
    let pulse = Pulse::start(&pair.client, pace.every, PATIENCE, move |_| request(target));
    let answers = |more: u64| {
        let goal = pulse.look().ok() + more;
        wait_for("requests are answered", MINUTE, || pulse.look(), |beats| beats.ok() >= goal);
    };
    answers(40);
    let held = Held::open(&pair.client, target, pace.held)?;
    pulse.take();
    crash()?;
    wait_for("the second node has the VIP", MINUTE, || has(pair.machine(1)), |has| *has);
    answers(40);
    let beats = pulse.finish();
    Ok(Cost {
        who: who.to_owned(),
        answered: beats.ok(),
        failed: beats.failures(),
        held: pace.held,
        broken: held.broken().len(),
        longest_gap_ms: beats.longest_gap.as_millis() as u64,
    })
}

fn has(machine: &Machine) -> bool {
    let addresses = machine.ip("-o addr show").unwrap_or_default();
    addresses.contains(&format!(" {}/", vip()))
}

/// For people.
pub fn table(costs: &[Cost]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "THE ACTIVE NODE DEAD".to_owned(),
        "ANSWERED".to_owned(),
        "FAILED".to_owned(),
        "BROKEN".to_owned(),
        "LONGEST GAP".to_owned(),
    ]);
    for cost in costs {
        table.add_row([
            cost.who.clone(),
            cost.answered.to_string(),
            cost.failed.to_string(),
            format!("{} of {}", cost.broken, cost.held),
            format!("{} ms", cost.longest_gap_ms),
        ]);
    }
    table.to_string()
}
