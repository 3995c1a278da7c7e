//! What a feature costs packets that have nothing to do with it, in instructions: off, which is a constant at load time, it costs what
//! `packets_costs.json` says; on, for the sake of another service, what docs/feature-costs.md says. The same on every machine.
//! `LB_BLESS=1 cargo test --test packets_features` writes the document anew.

use std::{collections::BTreeMap, env, fmt::Write as _, fs};

use lb_common::abi::Forward;
use lb_tests::kernel::{
    Kernel, Options, World,
    interpreter::Interpreter,
    packet::{Packet, flag},
    world::{GUE_MODES, MODES, Service},
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/feature-costs.md");
const COSTS: &str = include_str!("packets_costs.json");
/// More of a thousand than committed that are no fault: compilers differ.
const TOLERANCE: i64 = 30;

/// A feature's name in the document, and how the controller turns it on.
type Feature = (&'static str, fn(Options) -> Options);

const FEATURES: [Feature; 9] = [
    ("several NICs", |options| Options { single_nic: false, ..options }),
    ("`observe`", |options| Options { observe: true, ..options }),
    ("`rate_limit`, `syn_flood`", |options| Options { limit_openings: true, ..options }),
    ("`track`", |options| Options { flows: 16, ..options }),
    ("GUE", |options| Options { gue: true, ..options }),
    ("QUIC", |options| Options { quic: true, ..options }),
    ("`fullnat`", |options| Options { fullnat: 1, ..options }),
    ("ports, prefixes", |options| Options { ports: 2, ..options }),
    ("`vlan`", |options| Options { vlan: true, ..options }),
];

fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let backends = if backends_are_v4 { ["10.1.0.1@8001"] } else { ["fd01::1@8001"] };
    let service = Service::new(vip(vip_is_v4), forward, &backends);
    World::of([service.clone(), service.udp()]).with_gateway(vip_is_v4)
}

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7" } else { "2001:db8:5::7" }
}

fn packets(world: &World, forward: Forward, is_v4: bool) -> Vec<(&'static str, Packet)> {
    let client = if is_v4 { "192.0.2.33@40001" } else { "2001:db8:c::33@40001" };
    let vip = format!("{}@80", vip(is_v4));
    let mut packets = vec![
        ("established", Packet::tcp(client, &vip, flag::ACK)),
        ("syn", Packet::tcp(client, &vip, flag::SYN)),
        ("udp", Packet::udp(client, &vip)),
    ];
    if forward == Forward::Nat {
        let backend = &world.services[0].backends[0];
        let from = format!("{}@{}", backend.address, backend.port);
        let mut reply = Packet::tcp(&from, client, flag::ACK);
        reply.from = backend.mac;
        packets.push(("reply", reply));
    }
    packets
}

/// Instructions by mode and packet.
fn costs(options: Options) -> BTreeMap<String, i64> {
    let mut kernel = Kernel::load(options).unwrap_or_else(|error| panic!("{error:#}"));
    let gue: &[_] = if options.gue { &GUE_MODES } else { &[] };
    let mut costs = BTreeMap::new();
    for (mode, forward, vip_is_v4, backends_are_v4) in MODES.iter().chain(gue) {
        kernel.enter(world(*forward, *vip_is_v4, *backends_are_v4));
        let interpreter = Interpreter::new(&kernel).expect("the object is there");
        for (name, packet) in packets(kernel.world(), *forward, *vip_is_v4) {
            let name = format!("{mode}/{name}");
            let frame = packet.bytes();
            let (outcome, cost) =
                interpreter.run(&frame).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert_eq!(outcome, kernel.run(&frame), "{name}: interpreter and kernel differ");
            costs.insert(name, cost.instructions as i64);
        }
    }
    costs
}

/// Rows of the document: mode and packet, cost without any feature, and what each adds.
type Rows = BTreeMap<String, Vec<i64>>;

fn measured() -> Rows {
    let off = Options { single_nic: true, ..Options::default() };
    // GUE's own packets need it, and nothing else.
    let with_gue = Options { gue: true, ..off };
    let base = costs(with_gue);
    let mut bare = base.clone();
    bare.extend(costs(off));
    let mut rows: Rows = bare.into_iter().map(|(name, cost)| (name, vec![cost])).collect();
    for (_, feature) in FEATURES {
        let options = feature(with_gue);
        // What GUE adds to the others' packets, and what the others add to that.
        let of_gue = feature(off).gue;
        let on = if of_gue { base.clone() } else { costs(options) };
        for (name, row) in &mut rows {
            row.push(on[name] - if of_gue { row[0] } else { base[name] });
        }
    }
    rows
}

fn document(rows: &Rows) -> String {
    let mut text = "# What a feature costs packets that have nothing to do with it\n\n\
        Instructions of the way of a packet (the object's; the kernel removes those behind branches that a load-time constant rules out). The first column is \
        without any feature, as it is where no service asks for one; the others are what a feature adds once another service has it. `tests/tests/packets_features.rs` \
        measures and compares; `tests/tests/packets_costs.json` has the ways of more kinds of packets.\n\n| packet | none |"
        .to_owned();
    for (name, _) in FEATURES {
        let _ = write!(text, " {name} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(FEATURES.len() + 1));
    for (name, row) in rows {
        let numbers: Vec<_> = row.iter().map(i64::to_string).collect();
        let _ = writeln!(text, "| {name} | {} |", numbers.join(" | "));
    }
    text
}

/// The rows of a document.
fn read(text: &str) -> Rows {
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let name = cells.next().filter(|name| name.contains('/'))?;
        Some((name.to_owned(), cells.map(|cell| cell.parse().expect("a number")).collect()))
    });
    rows.collect()
}

#[test]
fn a_feature_costs_others_what_is_documented() {
    let rows = measured();
    let text = document(&rows);
    println!("{text}");
    assert_eq!(read(&text), rows, "what is written is read");
    if env::var_os("LB_BLESS").is_some() {
        fs::write(DOCUMENT, text).expect("the document");
        return;
    }
    let committed = fs::read_to_string(DOCUMENT).unwrap_or_else(|e| panic!("{DOCUMENT}: {e}"));
    assert_eq!(committed.lines().nth(4), text.lines().nth(4), "the features");
    let committed = read(&committed);
    let names = |rows: &Rows| rows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&rows), names(&committed), "ways that are not in both");
    for (name, row) in &rows {
        let slack = row[0] * TOLERANCE / 1_000;
        let before = &committed[name];
        assert!(row[0] <= before[0] + slack, "{name}: {row:?} instead of {before:?}");
        for (column, (feature, _)) in FEATURES.iter().enumerate() {
            // What costs nothing is to cost nothing with any compiler.
            let (now, then) = (row[column + 1], before[column + 1]);
            let most = if then <= 0 { 0 } else { then + slack };
            assert!(now <= most, "{name}: {feature} adds {now} instructions instead of {then}");
        }
    }
}

/// Off, features cost what the committed figures say, from the times before there were some of them on: no more.
#[test]
fn without_features_packets_cost_what_is_committed() {
    let committed: serde_json::Value = serde_json::from_str(COSTS).expect("JSON");
    let off = Options { single_nic: true, ..Options::default() };
    for (name, cost) in costs(off) {
        let figure = committed["paths"][&name]["instructions"].as_i64();
        let figure = figure.unwrap_or_else(|| panic!("{name} is not in packets_costs.json"));
        assert!(cost <= figure + figure * TOLERANCE / 1_000, "{name}: {cost}, committed {figure}");
    }
}
