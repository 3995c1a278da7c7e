//! Whether a packet's cost grows with what there is beside its own service: services, and backends of its own. (Flows and deny lists
//! are rows of the other measurements.) What backends cost is their ring's slots, or their own rows and counters: in the whole form
//! there are rows of either without the other.

use std::iter;

use anyhow::Result;
use lb_common::abi::Forward;
use lb_tests::kernel::{
    Kernel, Options, World, action,
    lab::{Lab, Stream, Varied},
    packet::flag,
    world::Service,
};

use super::{
    lab,
    memory::Memory,
    quiet::{Kept, Machine, Turns},
    worlds::{backend, request, ring_of},
};
use crate::{
    Args, progress,
    row::{Row, median},
};

/// Services.
pub const SERVICES: [(u32, &str); 5] =
    [(1, "1"), (16, "16"), (256, "256"), (4_096, "4096"), (10_000, "10000")];
/// Backends of one service.
pub const OF_ONE: [(usize, &str); 5] =
    [(1, "1"), (10, "10"), (100, "100"), (1_000, "1000"), (10_000, "10000")];
/// Slots of the ring of a hundred backends.
const SLOTS: [(u32, &str); 5] =
    [(1_021, "1021"), (4_093, "4093"), (16_381, "16381"), (65_537, "65537"), (655_373, "655373")];
/// The most that a packet may cost with more services, as a multiple of what it costs with one: flat.
const FLAT: f64 = 1.25;
/// What it may cost more than with a tenth as many backends, in floors: logarithmic. Where the ring is as large as the second
/// cache of many CPUs, 1 MiB, or larger, two accesses to memory if that is more: the slot says which backend's row is read next.
const TENFOLD: f64 = 1.0;
const ACCESSES: f64 = 2.0;
/// Backends from which on it is.
const LONG: usize = 1_000;
/// Bytes of the longest ring.
const RING: usize = 655_373 * size_of::<u64>();

const SERVICES_ROWS: &str = "growth/services";
const BACKENDS_ROWS: &str = "growth/backends";
/// What an access to memory takes.
const MEMORY_ROW: &str = "growth/memory/one-access-to-5MiB";
/// With a ring as long as the longest, however few backends there are.
const ONE_RING_ROWS: &str = "growth/backends-on-655373-slots";
/// With a hundred backends, however long the ring is.
const SLOTS_ROWS: &str = "growth/slots-of-100-backends";

/// A row before and while it is measured.
struct Subject {
    kind: &'static str,
    text: &'static str,
    program: u32,
    streams: Vec<Stream>,
    turns: Turns,
    /// What of them counts.
    kept: Kept,
}

/// All rows: packets go to all services, and to all backends.
pub fn measure(args: &Args, machine: &mut Machine, turns: u32, packets: u32) -> Result<Vec<Row>> {
    let wants = |rows| args.wants_row("growth", rows);
    let mut lab = lab(1)?;
    let (mut kernels, mut subjects) = (Vec::new(), Vec::new());
    let mut add = |world: World, rows: Vec<(&'static str, &'static str, Vec<u32>)>| -> Result<()> {
        progress(&format!("loading a program for {}", rows[0].0));
        let program = kernels.len() as u32 + 1;
        let mut kernel = Kernel::load(options())?;
        kernel.enter(world);
        lab.register(program, kernel.balancer())?;
        kernels.push(kernel);
        for (kind, text, vips) in rows {
            let streams = vips.into_iter().map(|number| {
                let packet = request(true, &vip(number), flag::ACK);
                Stream::new(&packet, Varied::Source, 1 << 20)
            });
            let streams = streams.collect();
            let (turns, kept) = (Turns::default(), Kept::default());
            subjects.push(Subject { kind, text, program, streams, turns, kept });
        }
        Ok(())
    };
    if wants(SERVICES_ROWS) {
        for (count, text) in SERVICES {
            // Some services in turn, so that more than one's rows are read.
            let vips = (0..8).map(|turn| count * turn / 8).collect();
            add(services(count), vec![(SERVICES_ROWS, text, vips)])?;
        }
    }
    let mut of_backends = Vec::new();
    if wants(BACKENDS_ROWS) {
        of_backends.extend(OF_ONE.map(|(count, text)| (BACKENDS_ROWS, text, count, None)));
    }
    // The whole form has them, and whoever asks for them.
    let apart = !args.quick || args.only.is_some();
    let longest = SLOTS[SLOTS.len() - 1].0;
    if wants(ONE_RING_ROWS) && apart {
        let rows = OF_ONE.map(|(count, text)| (ONE_RING_ROWS, text, count, Some(longest)));
        of_backends.extend(rows);
    }
    if wants(SLOTS_ROWS) && apart {
        of_backends.extend(SLOTS.map(|(slots, text)| (SLOTS_ROWS, text, 100, Some(slots))));
    }
    if !of_backends.is_empty() {
        let services = (0..).zip(&of_backends);
        let services = services.map(|(number, (.., count, slots))| service(number, *count, *slots));
        let rows = (0..).zip(&of_backends).map(|(number, (kind, text, ..))| {
            let rows: (&'static str, &'static str, Vec<u32>) = (kind, text, vec![number]);
            rows
        });
        add(World::of(services), rows.collect())?;
    }
    let accesses = measure_all(&mut lab, machine, &mut subjects, turns, packets)?;
    drop(kernels);
    let access = median(&accesses);
    let mut rows: Vec<Row> =
        subjects.iter().map(|subject| row(subject, &subjects, access)).collect();
    if wants(BACKENDS_ROWS) {
        rows.push(Row::new("growth", MEMORY_ROW.to_owned(), "ns", &accesses, None));
    }
    Ok(rows)
}

fn options() -> Options {
    Options {
        single_nic: true,
        arena: 1 << 23,
        backends: 1 << 15,
        services: 16_384,
        service_buckets: 16_384,
        ..Options::default()
    }
}

/// The address of service `number`.
fn vip(number: u32) -> String {
    format!("198.{}.{}.{}", 18 + number / 62_500, number / 250 % 250, number % 250 + 1)
}

fn services(count: u32) -> World {
    World::of((0..count).map(|number| {
        let mut service = Service::new(&vip(number), Forward::Dsr, &[]);
        service.backends = vec![backend(true, 1, 0)];
        service.ring = vec![0; 61];
        service
    }))
}

fn service(number: u32, backends: usize, slots: Option<u32>) -> Service {
    let mut service = Service::new(&vip(number), Forward::Dsr, &[]);
    service.backends = (0..backends).map(|of| backend(true, number as u8 + 1, of)).collect();
    service.ring = ring_of(&service.backends, slots);
    service
}

/// All in turns, and accesses to memory between the rounds.
fn measure_all(
    lab: &mut Lab,
    machine: &mut Machine,
    subjects: &mut [Subject],
    turns: u32,
    packets: u32,
) -> Result<Vec<f64>> {
    let memory = Memory::of(RING);
    let mut accesses = Vec::new();
    for round in 0..=3 * turns {
        accesses.push(memory.access());
        for subject in &mut *subjects {
            if !subject.turns.wants_more(machine, turns as usize) {
                continue;
            }
            progress(&format!("{}/{}, round {round}", subject.kind, subject.text));
            let Some((first, others)) = subject.streams.split_first_mut() else { continue };
            let (program, share) = (subject.program, 1 + others.len() as u32);
            let turn = machine.turn(lab, first, |lab, first| {
                let mut whole = 0.0;
                for stream in iter::once(first).chain(others) {
                    let time = lab.stream(stream, program, 0, packets / share, action::TX)?;
                    whole += time.as_nanos() as f64 / f64::from(share);
                }
                Ok(whole)
            })?;
            // The first one only warms up.
            if round > 0 {
                subject.turns.add(turn);
            }
        }
    }
    for subject in subjects {
        subject.kept = subject.turns.keep(machine);
    }
    progress("");
    Ok(accesses)
}

fn row(subject: &Subject, all: &[Subject], access: f64) -> Row {
    let Subject { kind, text, kept, .. } = subject;
    let same = || all.iter().filter(|other| other.kind == *kind);
    let floor = median(&kept.floors);
    let limit = match *kind {
        SERVICES_ROWS => same().next().map(|first| FLAT * median(&first.kept.differences)),
        BACKENDS_ROWS => {
            let is_long = OF_ONE.iter().any(|(count, name)| name == text && *count >= LONG);
            let step =
                if is_long { (ACCESSES * access).max(TENFOLD * floor) } else { TENFOLD * floor };
            let fewer = same().take_while(|other| other.text != *text).last();
            fewer.map(|fewer| median(&fewer.kept.differences) + step)
        }
        _ => None,
    };
    let limit = limit.filter(|_| *text != "1");
    Row::new("growth", format!("{kind}/{text}"), "ns above floor", &kept.differences, limit)
        .above(floor)
}
