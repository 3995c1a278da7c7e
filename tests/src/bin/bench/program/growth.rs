//! Whether a packet's cost grows with what there is beside its own service: services, and backends of its own. (Flows and deny lists
//! are rows of the other measurements.)

use anyhow::Result;
use lb_common::abi::Forward;
use lb_tests::kernel::{
    Kernel, Options, World, action,
    lab::{Lab, Stream, Varied},
    packet::flag,
    world::Service,
};

use super::worlds::{backend, request, ring};
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
/// The most that a packet may cost with more services, as a multiple of what it costs with one: flat.
const FLAT: f64 = 1.25;
/// What it may cost more for each ten times as many backends, in floors: logarithmic. Slots, rows and counters of 10,000 backends are
/// more than a CPU's caches hold.
const TENFOLD: f64 = 1.0;

/// All rows: packets go to all services, and to all backends.
pub fn measure(args: &Args, rounds: u32, packets: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if args.wants_row("growth", "growth/services") {
        let worlds = SERVICES.iter().map(|(count, text)| (*text, services(*count), *count));
        rows.extend(kind("growth/services", worlds, (rounds, packets))?);
    }
    if args.wants_row("growth", "growth/backends") {
        let worlds = OF_ONE.iter().map(|(count, text)| (*text, backends(*count), 1));
        rows.extend(kind("growth/backends", worlds, (rounds, packets))?);
    }
    Ok(rows)
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

fn backends(count: usize) -> World {
    let mut service = Service::new(&vip(0), Forward::Dsr, &[]);
    service.backends = (0..count).map(|number| backend(true, 1, number)).collect();
    service.ring = ring(&service.backends);
    World::of([service])
}

fn kind(
    kind: &str,
    worlds: impl Iterator<Item = (&'static str, World, u32)>,
    (rounds, packets): (u32, u32),
) -> Result<Vec<Row>> {
    let mut lab = Lab::load(1)?;
    lab.register_own(0, "floor")?;
    let mut all = Vec::new();
    for (index, (text, world, services)) in (1..).zip(worlds) {
        progress(&format!("{kind}: a program with {text}"));
        let options = Options {
            single_nic: true,
            arena: 1 << 21,
            backends: 16_384,
            services: 16_384,
            service_buckets: 16_384,
            ..Options::default()
        };
        let mut kernel = Kernel::load(options)?;
        kernel.enter(world);
        lab.register(index, kernel.balancer())?;
        // Some services in turn, so that more than one's rows are read.
        let streams: Vec<Stream> = (0..8)
            .map(|turn| {
                let packet = request(true, &vip(services * turn / 8), flag::ACK);
                Stream::new(&packet, Varied::Source, 1 << 20)
            })
            .collect();
        all.push((text, index, kernel, streams, (Vec::new(), Vec::new())));
    }
    for round in 0..=rounds {
        for (text, program, _, streams, (floors, differences)) in &mut all {
            progress(&format!("{kind}/{text}, round {round} of {rounds}"));
            let (mut floor, mut whole) = (0.0, 0.0);
            for stream in &mut *streams {
                let time = lab.stream(stream, 0, 0, packets / 8, action::TX)?;
                floor += time.as_nanos() as f64 / 8.0;
                let time = lab.stream(stream, *program, 0, packets / 8, action::TX)?;
                whole += time.as_nanos() as f64 / 8.0;
            }
            if round > 0 {
                floors.push(floor);
                differences.push(whole - floor);
            }
        }
    }
    progress("");
    let first = all.first().map_or(0.0, |(.., (_, differences))| median(differences));
    let row = |(text, .., (floors, differences)): &(&str, u32, Kernel, _, (Vec<f64>, Vec<f64>))| {
        let name = format!("{kind}/{text}");
        let limit = match kind {
            _ if *text == "1" => None,
            "growth/services" => Some(FLAT * first),
            _ => Some(first + (text.len() - 1) as f64 * TENFOLD * median(floors)),
        };
        Row::new("growth", name, "ns above floor", differences, limit).above(median(floors))
    };
    Ok(all.iter().map(row).collect())
}
