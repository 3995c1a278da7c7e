//! What a feature costs packets that do not use it: the same packet of the same service by programs that were loaded with one
//! feature each, in turns with one that has none. Instructions are counted, too, which no machine's load changes.

use anyhow::{Context as _, Result};
use lb_common::abi::{Forward, service_flag};
use lb_tests::kernel::{
    Kernel, Options, World, action,
    interpreter::Interpreter,
    lab::{Lab, Stream, Varied},
    packet::{Packet, flag},
    world::{GUE_MODES, MODES, ip},
};

use super::{
    lab,
    quiet::Machine,
    subjects::overhead,
    worlds::{backend, of_modes, reply, request, vip},
};
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
const FEATURES: [(&str, Change, Option<Use>); 14] = [
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
    ("fullnat", |options| options.fullnat = 1, None),
    ("toa", |options| (options.fullnat, options.toa) = (1, true), None),
    ("outer-source", |options| options.outer_source = true, Some(spread)),
    ("ports", |options| options.ports = 1, None),
    ("prefixes", |options| options.ports = 2, None),
    ("count-connections", |_| (), Some(|world| flag_all(world, service_flag::COUNT_CONNECTIONS))),
];

/// Tunnels of IP in IP come from a prefix of 256 addresses.
fn spread(world: &mut World) {
    for service in world.services.iter_mut().filter(|one| one.forward == Forward::Ipip) {
        for backend in &mut service.backends {
            let first = if backend.address.is_ipv4() { "10.250.0.0" } else { "fd00:250::" };
            (backend.source, backend.source_bits) = (Some(ip(first)), 8);
        }
    }
}

fn flag_all(world: &mut World, flag: u32) {
    world.services.iter_mut().for_each(|service| service.flags |= flag);
}

/// A program and what it has been measured at.
struct Measured {
    name: String,
    kernel: Kernel,
    times: Vec<f64>,
}

/// An established packet of a mode.
struct Way {
    mode: String,
    packet: Packet,
    varied: Varied,
    /// Bytes that go in front.
    moved: u32,
}

/// Modes of one kind of program.
type Modes = [(&'static str, Forward, bool, bool)];

/// A row for each feature and mode: of time, and of instructions. With `--quick` the time of three modes, and instructions of those that
/// do without GUE, which programs of its own measure.
pub fn measure(args: &Args, machine: &mut Machine, rounds: u32, packets: u32) -> Result<Vec<Row>> {
    if !args.wants_row("program", "feature/") {
        return Ok(Vec::new());
    }
    let base = Options { single_nic: true, arena: 1 << 20, backends: 4096, ..Options::default() };
    let mut rows = of_modes_with(args.quick, machine, base, &MODES, (rounds, packets))?;
    if !args.quick {
        let base = Options { gue: true, ..base };
        rows.extend(of_modes_with(false, machine, base, &GUE_MODES, (rounds, packets))?);
    }
    Ok(rows)
}

fn of_modes_with(
    quick: bool,
    machine: &mut Machine,
    base: Options,
    modes: &Modes,
    (rounds, packets): (u32, u32),
) -> Result<Vec<Row>> {
    let mut lab = lab(1)?;
    let mut programs = load(&mut lab, base, modes)?;
    let mut rows = Vec::new();
    for way in ways(modes) {
        programs.iter_mut().for_each(|one| one.times.clear());
        if !quick || ["nat4", "dsr4", "tunnel-ipip4"].contains(&way.mode.as_str()) {
            time(&mut lab, machine, &mut programs, &way, (rounds, packets))?;
        }
        let frame = way.packet.bytes();
        let none = Interpreter::new(&programs[0].kernel)?.run(&frame)?.1.instructions;
        for one in &programs {
            let name = format!("feature/{}/{}", one.name, way.mode);
            if !one.times.is_empty() {
                let pairs = one.times.iter().zip(&programs[0].times);
                let more: Vec<f64> = pairs.map(|(with, without)| with - without).collect();
                let bare = median(&programs[0].times);
                let row = Row::new("program", name.clone(), "ns more", &more, None);
                rows.push(row.beside_whole(bare));
            }
            let (_, cost) = Interpreter::new(&one.kernel)?.run(&frame)?;
            let count = [cost.instructions as f64];
            let name = format!("{name}/instructions");
            rows.push(Row::new("program", name, "instructions", &count, None).beside(none as f64));
        }
    }
    progress("");
    Ok(rows)
}

/// A program for each feature, the first without any.
fn load(lab: &mut Lab, base: Options, modes: &Modes) -> Result<Vec<Measured>> {
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
        if name == "gue" && base.gue {
            continue;
        }
        if used.is_none() || ["observe", "outer-source"].contains(&name) {
            add(name.to_owned(), options, of_modes(modes, 1))?;
        }
        if let Some(used) = used {
            let mut world = of_modes(modes, 1);
            used(&mut world);
            add(format!("{name}-used"), options, world)?;
        }
    }
    Ok(programs)
}

/// The modes' requests, and nat's replies.
fn ways(modes: &Modes) -> Vec<Way> {
    let mut ways = Vec::new();
    for (digit, (mode, forward, is_v4, backend_is_v4)) in (1..).zip(modes.iter().copied()) {
        ways.push(Way {
            mode: mode.to_owned(),
            packet: request(is_v4, &vip(is_v4, digit), flag::ACK),
            varied: Varied::Source,
            moved: overhead(forward, backend_is_v4),
        });
        if forward == Forward::Nat {
            ways.push(Way {
                mode: format!("{mode}-reply"),
                packet: reply(&backend(backend_is_v4, digit, 7)),
                varied: Varied::Destination,
                moved: 0,
            });
        }
    }
    ways
}

/// All programs in turns, each while the machine is quiet if that can be waited for.
fn time(
    lab: &mut Lab,
    machine: &mut Machine,
    programs: &mut [Measured],
    way: &Way,
    (rounds, packets): (u32, u32),
) -> Result<()> {
    let mut stream = Stream::new(&way.packet, way.varied, 1 << 10);
    for round in 0..=rounds {
        for (index, one) in (1..).zip(programs.iter_mut()) {
            progress(&format!("{} with {}, round {round} of {rounds}", way.mode, one.name));
            machine.wait();
            let time = lab.stream(&mut stream, index, way.moved, packets, action::TX)?;
            if round > 0 {
                one.times.push(time.as_nanos() as f64);
            }
        }
    }
    Ok(())
}
