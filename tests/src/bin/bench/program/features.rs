//! What a feature costs packets that do not use it: the same packet of the same service by programs that were loaded with one
//! feature each, in turns with one that has none. Instructions are counted, too, which no machine's load changes.

use anyhow::{Context as _, Result};
use lb_common::abi::service_flag;
use lb_tests::kernel::{
    Kernel, Options, World, action,
    interpreter::Interpreter,
    lab::{Lab, Stream, Varied},
    packet::flag,
    world::MODES,
};

use super::worlds::{of_modes, request, vip};
use crate::{
    Args, progress,
    row::{Row, median},
};

/// What a program is loaded with.
type Change = fn(&mut Options);

/// What a service has beside it.
type Use = fn(&mut World);

/// Features by name; what they change when the program is loaded, and what in the service that uses them (as far as one packet shows
/// it).
const FEATURES: [(&str, Change, Option<Use>); 11] = [
    ("none", |_| (), None),
    ("several-nics", |options| options.single_nic = false, None),
    (
        "observe",
        |options| options.observe = true,
        Some(|world| flag_all(world, service_flag::OBSERVE)),
    ),
    ("limit-openings", |options| options.limit_openings = true, None),
    ("track", |options| options.flows = 1 << 16, None),
    ("vlan", |options| options.vlan = true, None),
    ("gue", |options| options.gue = true, None),
    ("quic", |options| options.quic = true, None),
    ("ports", |options| options.ports = 1, None),
    ("prefixes", |options| options.ports = 2, None),
    ("count-connections", |_| (), Some(|world| flag_all(world, service_flag::COUNT_CONNECTIONS))),
];

fn flag_all(world: &mut World, flag: u32) {
    world.services.iter_mut().for_each(|service| service.flags |= flag);
}

/// A program and what it has been measured at.
struct Measured {
    name: String,
    kernel: Kernel,
    times: Vec<f64>,
}

/// A row for each feature: of time, and of instructions.
pub fn measure(args: &Args, rounds: u32, packets: u32) -> Result<Vec<Row>> {
    let modes: [(&str, u8); 2] = [("nat4", 1), ("dsr4", 3)];
    if !args.wants_row("program", "feature/") {
        return Ok(Vec::new());
    }
    let mut lab = Lab::load(1)?;
    lab.register_own(0, "floor")?;
    let base = Options { single_nic: true, arena: 1 << 20, backends: 4096, ..Options::default() };
    let world = || of_modes(&MODES, 1);
    let mut programs: Vec<Measured> = Vec::new();
    let mut add = |name: String, options, world| -> Result<()> {
        progress(&format!("loading a program with {name}"));
        let mut kernel = Kernel::load(options).with_context(|| name.clone())?;
        kernel.enter(world);
        lab.register(programs.len() as u32 + 1, kernel.balancer())?;
        programs.push(Measured { name, kernel, times: Vec::new() });
        Ok(())
    };
    for (name, change, used) in FEATURES {
        let mut options = base;
        change(&mut options);
        if name == "none" || used.is_none() || name == "observe" {
            add(name.to_owned(), options, world())?;
        }
        if let Some(used) = used {
            let mut world = world();
            used(&mut world);
            add(format!("{name}-used"), options, world)?;
        }
    }
    let mut rows = Vec::new();
    for (mode, digit) in modes {
        let packet = request(true, &vip(true, digit), flag::ACK);
        let mut stream = Stream::new(&packet, Varied::Source, 1 << 10);
        programs.iter_mut().for_each(|one| one.times.clear());
        for round in 0..=rounds {
            for (index, one) in programs.iter_mut().enumerate() {
                progress(&format!("{mode} with {}, round {round} of {rounds}", one.name));
                let index = index as u32 + 1;
                let time = lab.stream(&mut stream, index, 0, packets, action::TX)?;
                if round > 0 {
                    one.times.push(time.as_nanos() as f64);
                }
            }
        }
        let frame = packet.bytes();
        let bare = median(&programs[0].times);
        let none = Interpreter::new(&programs[0].kernel)?.run(&frame)?.1.instructions;
        for one in &programs {
            let more: Vec<f64> = one
                .times
                .iter()
                .zip(&programs[0].times)
                .map(|(with, without)| with - without)
                .collect();
            let name = format!("feature/{}/{mode}", one.name);
            rows.push(Row::new("program", name.clone(), "ns more", &more, None).beside_whole(bare));
            let (_, cost) = Interpreter::new(&one.kernel)?.run(&frame)?;
            let count = [cost.instructions as f64];
            let name = format!("{name}/instructions");
            rows.push(Row::new("program", name, "instructions", &count, None).beside(none as f64));
        }
    }
    progress("");
    Ok(rows)
}
