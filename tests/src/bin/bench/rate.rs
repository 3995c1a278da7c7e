//! How many packets a second go through a veth on one core: generated in the kernel as live frames, sent back by the
//! program under test, and dropped and counted where they came from. A bare XDP_TX and XDP_DROP go the same way in turns.
//!
//! A veth converts nothing here, as all frames are XDP's own; the core composes, forwards and drops, so what one packet
//! costs in all is what the rate shows. Received frames are counted, not sent ones.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use lb_tests::kernel::{
    Kernel, Options,
    lab::{Lab, Stream, Varied},
    packet::flag,
    world,
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    program::{quiet::Machine, request, stay_on_one_cpu, vip, worlds},
    progress,
    row::{Row, median},
};

/// Of the rate of a bare XDP_TX, what lb has to reach.
const SHARE: f64 = 0.85;
/// Modes: name and the digit of their service in [`worlds::of_modes`].
const MODES: [(&str, u8); 3] = [("nat4", 1), ("dsr4", 3), ("tunnel-ipip4", 5)];
/// Frames of a measurement. The sender and the receiver take turns on the core at the scheduler's ticks, which are 4 ms: a measurement has to
/// be of many.
const FRAMES: u32 = 1 << 20;
/// How often frames are sent until one in a thousand or fewer are lost.
const ATTEMPTS: u32 = 3;
/// Frames that are only to warm up.
const WARM_UP: u32 = 1 << 16;
/// The programs that are attached where lb would be, beside lb.
const BARE: [&str; 2] = ["floor", "sink"];

/// One row.
struct Subject {
    name: String,
    established: Stream,
    flood: Stream,
    /// Per cent of packets that are SYNs of ever new flows.
    flooded: u32,
    flows: Option<u32>,
    /// Whether XDP_DROP is measured beside it, too.
    dropped: bool,
    rounds: Vec<Round>,
}

/// A round of a row.
struct Round {
    /// Mpps of lb, of XDP_TX and of XDP_DROP.
    rates: [f64; 3],
    /// The machine was quiet before and after each of them.
    is_quiet: bool,
}

/// All rows.
pub fn measure(quick: bool) -> Result<Vec<Row>> {
    stay_on_one_cpu()?;
    // Of this thread alone; it ends with the process.
    unshare(CloneFlags::CLONE_NEWNET)?;
    let [client, balancer] = veth()?;
    link("set client up")?;
    link("set balancer up")?;
    let options =
        Options { single_nic: true, arena: 1 << 20, backends: 4096, ..Options::default() };
    let mut kernel = Kernel::load(options)?;
    kernel.enter(worlds::of_modes(&world::MODES, 1));
    let mut lab = Lab::load(1)?;
    lab.attach("sink", client)?;
    let mut subjects = subjects();
    let (rounds, patience) = if quick { (2, 15) } else { (6, 60) };
    let mut machine = Machine::new(Duration::from_secs(patience));
    for round in 0..=3 * rounds {
        let frames = if round == 0 { WARM_UP } else { FRAMES };
        let mut due: Vec<&mut Subject> = subjects
            .iter_mut()
            .filter(|subject| subject.wants_more(&machine, rounds) || subject.misses())
            .collect();
        let count = due.len();
        for (index, subject) in due.iter_mut().enumerate() {
            progress(&format!("rate, round {round} of {rounds}: {} of {count} rows", index + 1));
            if let Some(flows) = subject.flows {
                lab.draw(zipf(flows))?;
            }
            machine.wait();
            let link = kernel.balancer_mut().attach_to_if_index(balancer, XdpMode::Driver)?;
            let through = send(&mut lab, subject, client, frames, true);
            kernel.balancer_mut().detach(link)?;
            let through = through?;
            let mut is_quiet = machine.is_still_quiet();
            let mut rates = [through, 0.0, 0.0];
            for (rate, name) in rates[1..].iter_mut().zip(BARE) {
                // What dropping takes does not depend on what lb would do: one row of it for each size and number of flows is enough.
                if name == "sink" && !subject.dropped {
                    continue;
                }
                let link = lab.attach(name, balancer)?;
                let measured = send(&mut lab, subject, client, frames, name == "floor");
                lab.detach(name, link)?;
                *rate = measured?;
                is_quiet &= machine.is_still_quiet();
            }
            if round > 0 {
                subject.rounds.push(Round { rates, is_quiet });
            }
        }
    }
    progress("");
    let mut rows: Vec<Row> = subjects.iter().flat_map(rows).collect();
    rows.push(machine.row("rate"));
    Ok(rows)
}

impl Subject {
    /// Whether there are not so many quiet rounds yet, and there may be.
    fn wants_more(&self, machine: &Machine, rounds: usize) -> bool {
        let quiet = || self.rounds.iter().filter(|round| round.is_quiet).count();
        let had = if machine.is_impatient() { self.rounds.len() } else { quiet() };
        had < rounds
    }

    /// Its limit, as far as it has been measured: then it is measured for longer, and all quiet rounds count.
    fn misses(&self) -> bool {
        rows(self).iter().any(|row| row.pass == Some(false))
    }

    /// What counts: the quiet rounds, or all if there is none. Mpps of lb, of XDP_TX and of XDP_DROP.
    fn rates(&self) -> [Vec<f64>; 3] {
        let none = self.rounds.iter().all(|round| !round.is_quiet);
        let kept = || self.rounds.iter().filter(|round| none || round.is_quiet);
        [0, 1, 2].map(|which| kept().map(|round| round.rates[which]).collect())
    }
}

/// A pair that is down, both ends here; the numbers of the ends.
pub fn veth() -> Result<[u32; 2]> {
    link("add client type veth peer name balancer")?;
    Ok([if_nametoindex("client")?, if_nametoindex("balancer")?])
}

fn link(line: &str) -> Result<()> {
    let mut command = Command::new("ip");
    let output = command.arg("link").args(line.split(' ')).output();
    let output = output.context("cannot start `ip`")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip link {line}: {said}");
    Ok(())
}

fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    let mut add = |name: String, digit, bytes: usize, flows: u32, zipf: bool, flooded| {
        let packet = |flags| {
            let packet = request(true, &vip(true, digit), flags);
            let headers = packet.bytes().len();
            // The smallest frame has 60 bytes and a checksum that no veth adds; streams are a little longer.
            packet.filled(bytes.saturating_sub(headers + 4))
        };
        let established = Stream::new(&packet(flag::ACK), Varied::Source, flows);
        let established = if zipf { established.drawn() } else { established };
        let flood = Stream::new(&packet(flag::SYN), Varied::Source, 1 << 24);
        let flows = zipf.then_some(flows);
        subjects.push(Subject {
            name,
            established,
            flood,
            flooded,
            flows,
            dropped: digit == MODES[0].1 && !zipf && flooded == 0,
            rounds: Vec::new(),
        });
    };
    for (mode, digit) in MODES {
        for (flows, text) in [(1 << 10, "1Ki"), (1 << 20, "1Mi")] {
            add(format!("{mode}/64B/{text}"), digit, 64, flows, false, 0);
        }
    }
    for (mode, digit) in MODES {
        // With what a tunnel adds, it still is a frame of 1,500.
        add(format!("{mode}/1500B/1Ki"), digit, 1_480, 1 << 10, false, 0);
        add(format!("{mode}/1500B/1Mi"), digit, 1_480, 1 << 20, false, 0);
        add(format!("{mode}/64B/1Mi/zipf"), digit, 64, 1 << 20, true, 0);
        add(format!("{mode}/64B/1Mi/flood-10"), digit, 64, 1 << 20, false, 10);
        add(format!("{mode}/64B/1Mi/flood-90"), digit, 64, 1 << 20, false, 90);
    }
    subjects
}

/// Sends frames, so many in all; the rate at which they were received, in Mpps. `back`: they come back to the client. A core that the
/// receiver does not get for long loses what does not fit into the veth's ring of 256: that is tried again.
fn send(lab: &mut Lab, subject: &mut Subject, client: u32, frames: u32, back: bool) -> Result<f64> {
    let mut tried = try_send(lab, subject, client, frames, back);
    for _ in 1..ATTEMPTS {
        if tried.is_ok() {
            break;
        }
        tried = try_send(lab, subject, client, frames, back);
    }
    tried
}

fn try_send(
    lab: &mut Lab,
    subject: &mut Subject,
    client: u32,
    frames: u32,
    back: bool,
) -> Result<f64> {
    let before = lab.sunk()?;
    let began = Instant::now();
    let flood = (&subject.flood, 256 * subject.flooded / 100);
    lab.send(&mut subject.established, flood, client, frames)?;
    let time = began.elapsed();
    let received = lab.sunk()? - before;
    ensure!(
        received * 1_000 >= u64::from(frames) * 999,
        "{}: {received} of {frames} frames {}",
        subject.name,
        if back { "came back" } else { "arrived" },
    );
    Ok(received as f64 / time.as_secs_f64() / 1e6)
}

/// Flow numbers as Zipf's law has them (exponent 1): few flows have most of the packets. Always the same.
fn zipf(flows: u32) -> impl Iterator<Item = u32> {
    let mut sums = Vec::with_capacity(flows as usize);
    let mut sum = 0.0;
    for rank in 1..=flows {
        sum += 1.0 / f64::from(rank);
        sums.push(sum);
    }
    let mut random = StdRng::seed_from_u64(1);
    std::iter::repeat_with(move || {
        let rank = sums.partition_point(|below| *below < random.random_range(0.0..sum)) as u32;
        // Neighbours in rank are no neighbours in address.
        rank.wrapping_mul(0x9E37_79B1) % flows
    })
}

fn rows(subject: &Subject) -> Vec<Row> {
    let [through, bare, dropped] = &subject.rates();
    // Of the same round, so that what else the machine did meets both.
    let shares: Vec<f64> = through.iter().zip(bare).map(|(through, bare)| through / bare).collect();
    let bare = median(through) / median(&shares);
    let mut rows = vec![Row::rate(format!("rate/{}", subject.name), through, bare, Some(SHARE))];
    if subject.dropped {
        rows.push(Row::rate(format!("rate/{}/xdp-drop", subject.name), dropped, bare, None));
    }
    rows
}
