//! What the program costs per packet above a bare MAC swap, by BPF_PROG_TEST_RUN.
//!
//! Each row is a stream of packets of so many flows, composed in the kernel by the lab's `restore` program, which then
//! calls the balancer, the bare floor or the comparison program. Floor and program are measured in turns on the same
//! stream; a value is the median of the differences in those turns in which the machine was [`quiet`].

mod features;
mod fullnat;
mod growth;
mod memory;
pub mod quiet;
mod subjects;
pub mod worlds;

use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_common::abi::Phase;
use lb_tests::kernel::{
    Kernel, Options,
    lab::{Lab, Stream},
    world::{GUE_MODES, MODES, ip},
};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

pub use self::worlds::{request, vip};
use self::{
    quiet::Machine,
    subjects::{Subject, program},
};
use crate::{
    Args, Parts, progress,
    rate::veth,
    row::{Row, median},
};

/// Entries of the comparison program's flow table, shared out among CPUs: what Katran makes of its default (8,000,000, an equal part
/// for each CPU that forwards).
const COMPARE_FLOWS: u32 = 8_000_000;
/// Pins: as many flows as are pinned here, and room.
const PINS: u32 = 1 << 22;

/// At more flows, and when all packets are SYNs, a mode may cost this much more than at 1 Ki.
const GROWTH: f64 = 1.10;
/// And this many nanoseconds: the kernel tells whole ones, of the floor and of the packet.
const RESOLUTION: f64 = 2.0;
/// How often rows that miss their limits are measured for as many rounds again.
const MORE: u32 = 2;
/// How many floors a packet of a mode may cost above the floor.
const LIMITS: [(&str, f64); 12] = [
    ("tunnel-ipip4", 1.0),
    ("tunnel-ipip6", 1.3),
    ("tunnel-gue4", 1.5),
    ("tunnel-gue6", 1.8),
    ("dsr4", 0.65),
    ("dsr6", 0.95),
    ("nat4", 1.15),
    ("nat6", 1.45),
    ("nat4-reply", 1.15),
    ("nat6-reply", 1.45),
    ("non-vip4", 0.3),
    ("non-vip6", 0.6),
];
/// How many times the comparison program costs what lb does in the same mode, at least.
const CHEAPER: [(&str, f64); 2] = [("established", 8.0), ("syn-flood", 15.0)];

/// What a run with `--quick` may spend on waiting for a quiet machine, and a whole one.
const PATIENCE: [Duration; 2] = [Duration::from_secs(45), Duration::from_secs(120)];

/// All rows.
pub fn measure(args: &Args, parts: &mut Parts) -> Result<Vec<Row>> {
    stay_on_one_cpu()?;
    let (turns, packets) = if args.quick { (3, 1 << 17) } else { (7, 1 << 18) };
    let mut machine = Machine::new(PATIENCE[usize::from(!args.quick)]);
    let mut subjects = subjects::all(args.quick);
    subjects.retain(|subject| args.wants_row("program", &subject.name()));
    let mut rows = Vec::new();
    if !subjects.is_empty() {
        let measured = parts
            .time("program", || measure_subjects(&mut machine, &mut subjects, turns, packets))?;
        rows.extend(measured);
    }
    let rounds = if args.quick { 2 } else { turns };
    let features =
        parts.time("features", || features::measure(args, &mut machine, rounds, packets))?;
    rows.extend(features);
    let growth = parts.time("growth", || growth::measure(args, &mut machine, turns, packets))?;
    rows.extend(growth);
    if !rows.is_empty() {
        rows.push(machine.row("program"));
    }
    Ok(rows)
}

fn measure_subjects(
    machine: &mut Machine,
    subjects: &mut [Subject],
    turns: u32,
    packets: u32,
) -> Result<Vec<Row>> {
    let mut lab = lab(if uses(subjects, program::COMPARE) { COMPARE_FLOWS } else { 1 })?;
    let kernels = load(&mut lab, subjects)?;
    let all: Vec<usize> = (0..subjects.len()).collect();
    stream_all(&mut lab, machine, subjects, &all, 0, packets)?;
    measure_turns(&mut lab, machine, subjects, &all, turns, packets)?;
    // A row that misses its limit is measured for longer, and so is what its limit is made of; all quiet turns count.
    for more in 1..=MORE {
        let missed = missed(subjects);
        machine.wait_longer();
        measure_turns(&mut lab, machine, subjects, &missed, turns * (1 + more), packets)?;
    }
    progress("");
    drop(kernels);
    Ok(subject_rows(subjects))
}

/// Measures the subjects at these places until each has so many quiet turns, in three times as many rounds at most.
fn measure_turns(
    lab: &mut Lab,
    machine: &mut Machine,
    subjects: &mut [Subject],
    places: &[usize],
    turns: u32,
    packets: u32,
) -> Result<()> {
    for round in 1..=3 * turns {
        // All are asked again: a look at a quieter machine tells that the earlier ones were not.
        let is_due = |place: &usize| subjects[*place].turns.wants_more(machine, turns as usize);
        let due: Vec<usize> = places.iter().copied().filter(is_due).collect();
        stream_all(lab, machine, subjects, &due, round, packets)?;
    }
    for subject in subjects {
        subject.kept = subject.turns.keep(machine);
    }
    Ok(())
}

fn uses(subjects: &[Subject], program: u32) -> bool {
    subjects.iter().any(|subject| subject.program == program)
}

/// The most flows of any row of a program.
fn flows_of(subjects: &[Subject], program: u32) -> u32 {
    let its = subjects.iter().filter(|subject| subject.program == program);
    its.map(|subject| subject.stream.flows()).max().unwrap_or(0)
}

/// The balancers that these rows need, as registered.
fn load(lab: &mut Lab, subjects: &[Subject]) -> Result<Vec<Kernel>> {
    eprintln!("loading the programs ...");
    let options =
        Options { single_nic: true, arena: 1 << 20, backends: 4096, ..Options::default() };
    let mut kernels = Vec::new();
    let mut add = |program: u32, options: Options, enter: &dyn Fn(&mut Kernel)| -> Result<()> {
        if uses(subjects, program) {
            let mut kernel = Kernel::load(options)?;
            enter(&mut kernel);
            lab.register(program, kernel.balancer())?;
            kernels.push(kernel);
        }
        Ok(())
    };
    add(program::BALANCER, options, &|kernel| kernel.enter(worlds::of_modes(&MODES, 1)))?;
    // Programs of their own: the other rows are of one that need not look at openings, and so on.
    let guarded = Options { limit_openings: true, ..options };
    add(program::GUARDED, guarded, &|kernel| kernel.enter(worlds::guarded()))?;
    let gue = Options { gue: true, ..options };
    let digit = subjects::GUE_DIGIT;
    add(program::GUE, gue, &|kernel| kernel.enter(worlds::of_modes(&GUE_MODES, digit)))?;
    let flows = flows_of(subjects, program::CHANGING);
    let changing = Options { pins: PINS, ..options };
    add(program::CHANGING, changing, &|kernel| {
        kernel.enter(subjects::changing_world());
        let phases = subjects::PHASES.map(|(_, phase): (&str, Phase)| phase);
        worlds::change_slots(kernel, &phases);
        for service in 0..kernel.world().services.len() {
            worlds::pin_flows(kernel, service, flows.min(PINS / 2 / 12));
        }
    })?;
    let tracked = Options { flows: 1 << 21, ..options };
    add(program::TRACKED, tracked, &|kernel| {
        kernel.enter(worlds::tracked(subjects::TRACKED_DIGIT))
    })?;
    let quic = Options { quic: true, ..options };
    add(program::QUIC, quic, &|kernel| kernel.enter(subjects::quic_world()))?;
    for (program, is_v4) in [(program::FULLNAT4, true), (program::FULLNAT6, false)] {
        let flows = flows_of(subjects, program);
        add(program, Options { fullnat: fullnat::POOL, ..options }, &|kernel| {
            kernel.enter(fullnat::world(is_v4));
            fullnat::fill(kernel, is_v4, flows);
        })?;
    }
    let flows = flows_of(subjects, program::FULLNAT4_TOA);
    let telling = Options { fullnat: fullnat::POOL, toa: true, ..options };
    add(program::FULLNAT4_TOA, telling, &|kernel| {
        kernel.enter(fullnat::telling_world());
        fullnat::fill(kernel, true, flows);
    })?;
    if uses(subjects, program::COMPARE) {
        lab.register_own(program::COMPARE, "compare")?;
        let compared: Vec<_> =
            (0..worlds::BACKENDS).map(|n| worlds::backend(true, 9, n).address).collect();
        lab.compare(ip("198.51.100.9"), 80, &compared)?;
    }
    Ok(kernels)
}

/// The lab's programs, one of them in place on a NIC that nobody uses: as long as it is not in place anywhere, the kernel enters it
/// into its code and removes it again for each measurement, which takes it tens of milliseconds.
fn lab(compare_flows: u32) -> Result<Lab> {
    // Of this thread alone; it ends with the process.
    unshare(CloneFlags::CLONE_NEWNET)?;
    let [nic, _] = veth()?;
    let mut lab = Lab::load(compare_flows)?;
    lab.attach("restore", nic)?;
    lab.register_own(program::FLOOR, "floor")?;
    Ok(lab)
}

/// The comparison program's table is per CPU, and so are caches.
pub fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(nix::sched::sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}

/// The rows that miss their limits, and those that their limits are made of, by their places.
fn missed(subjects: &[Subject]) -> Vec<usize> {
    let rows = subject_rows(subjects);
    let misses: Vec<&Subject> = subjects
        .iter()
        .zip(&rows)
        .filter(|(_, row)| row.pass == Some(false))
        .map(|(one, _)| one)
        .collect();
    let is_wanted = |subject: &Subject| {
        misses.iter().any(|missed| {
            missed.name() == subject.name()
                || missed.mode == subject.mode
                    && (subject.state, subject.flows) == ("established", "1Ki")
        })
    };
    (0..subjects.len()).filter(|place| is_wanted(&subjects[*place])).collect()
}

/// The subjects at these places, one after the other; round 0 only warms up.
fn stream_all(
    lab: &mut Lab,
    machine: &mut Machine,
    subjects: &mut [Subject],
    places: &[usize],
    round: u32,
    packets: u32,
) -> Result<()> {
    let count = places.len();
    for (index, place) in places.iter().enumerate() {
        progress(&format!("round {round}: {} of {count} rows", index + 1));
        let subject = &mut subjects[*place];
        let name = subject.name();
        let Subject { stream, opening, program, moved, expected, remembers, .. } = subject;
        let (program, moved, expected) = (*program, *moved, *expected);
        let packets_of_row = subject.packets;
        // The warm-up visits every flow once where something is to be remembered of it.
        let all = if *remembers { stream.flows() } else { 0 };
        if let Some(opening) = opening.as_mut().filter(|_| round == 0) {
            lab.stream(opening, program, moved, all.max(1 << 12), expected)?;
        }
        let packets = packets_of_row.unwrap_or(packets);
        let packets = if round == 0 { all.max(1 << 12) } else { packets };
        let whole = |lab: &mut Lab, stream: &mut Stream| {
            let time = lab.stream(stream, program, moved, packets, expected);
            Ok(time.with_context(|| name)?.as_nanos() as f64)
        };
        if round == 0 {
            whole(lab, stream)?;
        } else {
            subject.turns.add(machine.turn(lab, stream, whole)?);
        }
    }
    Ok(())
}

fn subject_rows(subjects: &[Subject]) -> Vec<Row> {
    let row = |subject: &Subject| {
        let floor = median(&subject.kept.floors);
        let limit = limit(subject, subjects, floor);
        Row::new("program", subject.name(), "ns above floor", &subject.kept.differences, limit)
            .above(floor)
    };
    let cheaper = CHEAPER.iter().filter_map(|(state, least)| cheaper(subjects, state, *least));
    subjects.iter().map(row).chain(cheaper).collect()
}

/// How many times the comparison program costs what lb does.
fn cheaper(subjects: &[Subject], state: &str, least: f64) -> Option<Row> {
    let differences = |mode: &str| {
        let found =
            subjects.iter().find(|one| (one.mode, one.state, one.flows) == (mode, state, "1Mi"));
        found.map(|found| &found.kept.differences)
    };
    let (ours, theirs) = (differences("tunnel-ipip4")?, differences("compare-flow-table-ipip4")?);
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect();
    let name = format!("cheaper-than-flow-table-ipip4/{state}/1Mi");
    Some(Row::at_least("program", name, "times", &ratios, least))
}

/// What this row may cost, if anything is promised: of the steady state.
fn limit(subject: &Subject, subjects: &[Subject], floor: f64) -> Option<f64> {
    let is_steady = [program::BALANCER, program::GUE].contains(&subject.program);
    if !is_steady || !["established", "syn", "syn-flood"].contains(&subject.state) {
        return None;
    }
    let mode = LIMITS.iter().find(|(mode, _)| *mode == subject.mode);
    let mode = mode.map(|(_, floors)| floors * floor);
    let grows = ["64Ki", "1Mi", "10Mi"].contains(&subject.flows) || subject.state != "established";
    let few = subjects.iter().find(|other| {
        (other.mode, other.state, other.flows) == (subject.mode, "established", "1Ki")
    });
    let growth =
        few.filter(|_| grows).map(|few| GROWTH * median(&few.kept.differences) + RESOLUTION);
    [mode, growth].into_iter().flatten().reduce(f64::min)
}
