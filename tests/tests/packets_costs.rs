//! What the way of each kind of packet costs in instructions, map operations and helper calls, against committed figures.
//! A gate that is no timing: the same on every machine. `LB_BLESS=1 cargo test --test packets_costs` writes new figures.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use lb_common::abi::{BackendId, Forward, Phase, Slot, service_flag};
use lb_tests::kernel::{
    Kernel, Options, World,
    interpreter::{Cost, Interpreter},
    packet::{Packet, Transport, checksum, flag},
    world::{GUE_MODES, MODES, Service, ip},
};
use serde::{Deserialize, Serialize};

/// More instructions than committed that are no fault: compilers differ.
const TOLERANCE: f64 = 1.03;
/// What the verifier may look at more than committed: kernels differ.
const VERIFIER_TOLERANCE: f64 = 1.3;

/// The committed figures.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Figures {
    /// Instructions that the verifier looked at, of the fast path and of the balancer.
    verified_instructions: u32,
    /// By mode and packet.
    paths: BTreeMap<String, Path>,
}

/// One way of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Path {
    instructions: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lookups: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    updates: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    helpers: BTreeMap<String, u64>,
}

impl From<Cost> for Path {
    fn from(cost: Cost) -> Self {
        let helpers = cost.helpers.into_iter().map(|(name, calls)| (name.to_owned(), calls));
        Self {
            instructions: cost.instructions,
            lookups: cost.lookups,
            updates: cost.updates,
            helpers: helpers.collect(),
        }
    }
}

impl Path {
    /// Where this costs more than it did, in words.
    fn grown(&self, before: &Self) -> Vec<String> {
        let most = (before.instructions as f64 * TOLERANCE) as u64;
        let mut grown = Vec::new();
        if self.instructions > most {
            let (now, before) = (self.instructions, before.instructions);
            grown.push(format!("{now} instructions instead of {before}"));
        }
        for (what, now, before) in [
            ("look-ups in", &self.lookups, &before.lookups),
            ("updates of", &self.updates, &before.updates),
            ("calls of", &self.helpers, &before.helpers),
        ] {
            for (name, now) in now {
                let before = before.get(name).copied().unwrap_or(0);
                if *now > before {
                    grown.push(format!("{now} {what} {name} instead of {before}"));
                }
            }
        }
        grown
    }
}

fn client(is_v4: bool) -> &'static str {
    if is_v4 { "192.0.2.33@40001" } else { "2001:db8:c::33@40001" }
}

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7@80" } else { "2001:db8:5::7@80" }
}

fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let backends = if backends_are_v4 {
        ["10.1.0.1@8001", "10.1.0.2@8002", "10.1.0.3@8003"]
    } else {
        ["fd01::1@8001", "fd01::2@8002", "fd01::3@8003"]
    };
    let (address, _) = vip(vip_is_v4).split_once('@').unwrap();
    let mut service = Service::new(address, forward, &backends).flags(service_flag::FRAGMENTS);
    service.ring = vec![1; 1021];
    World::of([service.clone(), service.udp()]).with_gateway(vip_is_v4)
}

/// The packets of one mode.
fn packets(world: &World, forward: Forward, is_v4: bool) -> Vec<(&'static str, Packet)> {
    let tcp = |flags| Packet::tcp(client(is_v4), vip(is_v4), flags);
    let mut packets = vec![
        ("established", tcp(flag::ACK)),
        ("syn", tcp(flag::SYN)),
        ("udp", Packet::udp(client(is_v4), vip(is_v4))),
    ];
    let address = vip(is_v4).split_once('@').unwrap().0;
    packets.push(("echo", Packet::echo(client(is_v4).split_once('@').unwrap().0, address)));
    if forward == Forward::Nat {
        let backend = &world.services[0].backends[1];
        let from = format!("{}@{}", backend.address, backend.port);
        for (name, flags) in [("reply", flag::ACK), ("reply-syn-ack", flag::SYN | flag::ACK)] {
            let mut reply = Packet::tcp(&from, client(is_v4), flags);
            reply.from = backend.mac;
            packets.push((name, reply));
        }
    }
    // A router has no room for what the VIP has sent.
    let about = Packet::tcp(vip(is_v4), client(is_v4), flag::ACK).ip_bytes();
    let (router, kind, code) = if is_v4 { ("203.0.113.9", 3, 4) } else { ("2001:db8:e::9", 2, 0) };
    let error = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
    packets.push(("icmp-error", Packet::new(router, address, error).payload(&about)));
    packets
}

/// The first fragment of an IPv4 datagram.
fn fragment() -> Vec<u8> {
    let mut frame = Packet::udp(client(true), vip(true)).filled(512).bytes();
    frame[20..22].copy_from_slice(&0x2000_u16.to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// All ways: name and what they cost. Each is run in the kernel, too: both have to come to the same.
fn measured(kernel: &mut Kernel, gue: &mut Kernel, spread: &mut Kernel) -> BTreeMap<String, Path> {
    let mut paths = BTreeMap::new();
    for (mode, forward, vip_is_v4, backends_are_v4) in MODES {
        kernel.enter(world(forward, vip_is_v4, backends_are_v4));
        let interpreter = Interpreter::new(kernel).unwrap();
        let mut add = |kernel: &mut Kernel, name: String, frame: &[u8]| {
            let (outcome, cost) =
                interpreter.run(frame).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            // Again, a first fragment would be one too many.
            kernel.forget_fragments();
            assert_eq!(outcome, kernel.run(frame), "{name}: interpreter and kernel differ");
            paths.insert(name, cost.into());
        };
        for (name, packet) in packets(kernel.world(), forward, vip_is_v4) {
            add(kernel, format!("{mode}/{name}"), &packet.bytes());
        }
        if vip_is_v4 {
            add(kernel, format!("{mode}/fragment-first"), &fragment());
        }
        for (name, phase) in
            [("window", Phase::Window), ("harvest", Phase::Harvest), ("pinned", Phase::Pinned)]
        {
            for index in 0..1021 {
                kernel.set_slot(1, index, Slot::new(BackendId(2), BackendId(1), phase, 0));
            }
            for (state, flags) in [("established", flag::ACK), ("syn", flag::SYN)] {
                let packet = Packet::tcp(client(vip_is_v4), vip(vip_is_v4), flags);
                // Interpreted first: the kernel's run stores a pin.
                add(kernel, format!("{mode}/{state}/{name}"), &packet.bytes());
            }
        }
    }
    for (mode, forward, vip_is_v4, backends_are_v4) in GUE_MODES {
        gue.enter(world(forward, vip_is_v4, backends_are_v4));
        let interpreter = Interpreter::new(gue).unwrap();
        for (name, packet) in packets(gue.world(), forward, vip_is_v4) {
            let name = format!("{mode}/{name}");
            let (outcome, cost) = interpreter.run(&packet.bytes()).unwrap();
            assert_eq!(outcome, gue.run(&packet.bytes()), "{name}");
            paths.insert(name, cost.into());
        }
    }
    for (mode, forward, vip_is_v4, backends_are_v4) in MODES {
        if forward != Forward::Ipip {
            continue;
        }
        let mut world = world(forward, vip_is_v4, backends_are_v4);
        world.services.iter_mut().flat_map(|service| &mut service.backends).for_each(|backend| {
            backend.source_bits = 8;
        });
        spread.enter(world);
        let interpreter = Interpreter::new(spread).unwrap();
        for (name, packet) in packets(spread.world(), forward, vip_is_v4) {
            let name = format!("{mode}-spread/{name}");
            let (outcome, cost) = interpreter.run(&packet.bytes()).unwrap();
            assert_eq!(outcome, spread.run(&packet.bytes()), "{name}");
            paths.insert(name, cost.into());
        }
    }
    kernel.enter(World::default());
    let interpreter = Interpreter::new(kernel).unwrap();
    for (name, is_v4) in [("non-vip4", true), ("non-vip6", false)] {
        let frame = Packet::tcp(client(is_v4), vip(is_v4), flag::ACK).bytes();
        let (outcome, cost) = interpreter.run(&frame).unwrap();
        assert_eq!(outcome, kernel.run(&frame), "{name}");
        paths.insert(name.to_owned(), cost.into());
    }
    paths
}

/// The ways of full nat, with its second program.
fn measured_fullnat(kernel: &mut Kernel) -> BTreeMap<String, Path> {
    let mut paths = BTreeMap::new();
    for (mode, is_v4) in [("fullnat4", true), ("fullnat6", false)] {
        let mut world = world(Forward::FullNat, is_v4, is_v4);
        let pool = if is_v4 { "10.9.0.1" } else { "fd09::1" };
        world.services.iter_mut().for_each(|service| service.flags = service_flag::FULLNAT);
        (world.pool, world.pool_ports) = (vec![(ip(pool), false)], (20_000, 29_999));
        kernel.enter(world);
        let interpreter = Interpreter::new(kernel).unwrap();
        let mut add = |kernel: &mut Kernel, name: &str, frame: &[u8]| {
            let name = format!("{mode}/{name}");
            let (outcome, cost) =
                interpreter.run(frame).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert_eq!(outcome, kernel.run(frame), "{name}: interpreter and kernel differ");
            paths.insert(name, cost.into());
            outcome.frame
        };
        let tcp = |flags| Packet::tcp(client(is_v4), vip(is_v4), flags).bytes();
        let sent = add(kernel, "syn", &tcp(flag::SYN));
        let at = if is_v4 { 34 } else { 54 };
        let port = u16::from_be_bytes([sent[at], sent[at + 1]]);
        let backend = kernel.world().services[0].backends[1].clone();
        let from = format!("{}@{}", backend.address, backend.port);
        let reply = |flags| {
            let mut reply = Packet::tcp(&from, &format!("{pool}@{port}"), flags);
            reply.from = backend.mac;
            reply.bytes()
        };
        add(kernel, "reply-syn-ack", &reply(flag::SYN | flag::ACK));
        kernel.run(&tcp(flag::ACK));
        add(kernel, "established", &tcp(flag::ACK));
        add(kernel, "reply", &reply(flag::ACK));
        add(kernel, "udp", &Packet::udp(client(is_v4), vip(is_v4)).bytes());
    }
    paths
}

fn file() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets_costs.json")
}

#[test]
fn no_way_costs_more_than_it_did() {
    let options = Options { single_nic: true, ..Options::default() };
    let mut kernel = Kernel::shared_with(options);
    let mut gue = Kernel::load(Options { gue: true, ..options }).unwrap();
    let mut spread = Kernel::load(Options { outer_source: true, ..options }).unwrap();
    let mut paths = measured(&mut kernel, &mut gue, &mut spread);
    let mut fullnat = Kernel::load(Options { fullnat: 1, ..options }).unwrap();
    paths.extend(measured_fullnat(&mut fullnat));
    let verified_instructions = [kernel.balancer(), kernel.slow_path()]
        .map(|program| program.info().unwrap().verified_instruction_count().unwrap())
        .iter()
        .sum();
    println!("the verifier looked at {verified_instructions} instructions of both programs");
    for (name, path) in &paths {
        let calls: u64 = path.lookups.values().chain(path.updates.values()).sum();
        println!("{name:<32} {:>5} instructions, {calls} map operations", path.instructions);
    }
    if env::var_os("LB_BLESS").is_some() {
        let figures = Figures { verified_instructions, paths };
        fs::write(file(), serde_json::to_string_pretty(&figures).unwrap() + "\n").unwrap();
        return;
    }
    let text = fs::read_to_string(file()).unwrap();
    let committed: Figures = serde_json::from_str(&text).unwrap();
    let names = |paths: &BTreeMap<String, Path>| paths.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&paths), names(&committed.paths), "ways that are not in both");
    let mut faults = Vec::new();
    for (name, path) in &paths {
        let grown = path.grown(&committed.paths[name]);
        if !grown.is_empty() {
            faults.push(format!("{name}: {}", grown.join(", ")));
        }
    }
    let most = f64::from(committed.verified_instructions) * VERIFIER_TOLERANCE;
    if f64::from(verified_instructions) > most {
        let before = committed.verified_instructions;
        faults.push(format!(
            "the verifier looks at {verified_instructions} instructions instead of {before}"
        ));
    }
    assert!(
        faults.is_empty(),
        "these packets cost more than {} says:\n{}\nIf that is worth it, say why in docs/decisions.md and \
         write the new figures with LB_BLESS=1.",
        file().display(),
        faults.join("\n")
    );
}

/// What the verifier looks at, at most, is a million; kernels differ, and so does what a node uses.
#[test]
fn with_all_features_the_program_keeps_its_distance_from_the_verifiers_limit() {
    let everything = Options {
        observe: true,
        limit_openings: true,
        flows: 16,
        vlan: true,
        gue: true,
        outer_source: true,
        quic: true,
        fullnat: 1,
        toa: true,
        single_nic: false,
        ..Options::default()
    };
    for ports in [0, 2] {
        let kernel = Kernel::load(Options { ports, ..everything }).unwrap();
        for (name, program) in [("fast path", kernel.balancer()), ("balancer", kernel.slow_path())]
        {
            let verified = program.info().unwrap().verified_instruction_count().unwrap();
            println!(
                "with all features the verifier looks at {verified} instructions of the {name}"
            );
            assert!(verified < 855_000, "{name}: {verified}, ports {ports}");
        }
    }
}

#[test]
fn a_costlier_way_is_found() {
    let path = |instructions, pins| Path {
        instructions,
        lookups: BTreeMap::from([("PINS".to_owned(), pins)]),
        ..Path::default()
    };
    assert_eq!(path(103, 1).grown(&path(100, 1)), [""; 0]);
    assert_eq!(path(104, 1).grown(&path(100, 1)), ["104 instructions instead of 100"]);
    assert_eq!(path(90, 2).grown(&path(100, 1)), ["2 look-ups in PINS instead of 1"]);
    assert_eq!(path(90, 1).grown(&Path::default()).len(), 2);
}
