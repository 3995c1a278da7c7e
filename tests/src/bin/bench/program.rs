//! What the program costs per packet above a bare MAC swap, by BPF_PROG_TEST_RUN.
//!
//! Each row is a stream of packets of so many flows, composed in the kernel by the lab's `restore` program, which then
//! calls the balancer, the bare floor or the comparison program. Floor and program are measured in turns on the same
//! stream, so that what else the machine does meets both; a value is the median of the differences.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use lb_common::abi::{Forward, OpeningRules, service_flag};
use lb_tests::kernel::{
    Kernel, Options, World, action,
    lab::{Lab, Stream, Varied},
    packet::{Packet, flag},
    world::{Backend, CLIENT, GUE_MODES, MODES, Route, Service, ip},
};
use lb_userspace::plan::ring::{Member, owners, ring_length};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    progress,
    row::{Row, median},
};

const FLOWS: [(u32, &str); 5] =
    [(1, "1"), (1 << 10, "1Ki"), (1 << 16, "64Ki"), (1 << 20, "1Mi"), (1 << 24, "16Mi")];
const BACKENDS: usize = 100;
/// Entries of the comparison program's flow table: its lists are per CPU, and one CPU's must hold all flows.
const COMPARE_FLOWS: u32 = 5 << 20;

const FLOOR: u32 = 0;
const BALANCER: u32 = 1;
const COMPARE: u32 = 2;
/// The balancer with services that do not let everybody in.
const GUARDED: u32 = 3;
/// The balancer with services that use gue.
const GUE: u32 = 4;

/// Digit of the first service that uses gue.
const GUE_DIGIT: u8 = 41;

/// Clients of services with lists: more would meet the prefixes around them.
const DENY_FLOWS: u32 = 1 << 10;
/// Services that do not let everybody in, all dsr and IPv4, by what they have.
const GUARDS: [(&str, Guard); 7] = [
    ("deny-0", Guard::Deny(0)),
    ("deny-1", Guard::Deny(1)),
    ("deny-1000", Guard::Deny(1_000)),
    ("deny-100000", Guard::Deny(100_000)),
    ("limits", Guard::Limits),
    ("syn-flood-idle", Guard::Stage(u32::MAX)),
    ("syn-flood-challenge", Guard::Stage(1)),
];

/// What keeps clients out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// So many prefixes (or a few less), none of which is the clients'.
    Deny(u32),
    /// Limits of rate, none of which is reached.
    Limits,
    /// The SYN-flood stage, engaged by so many SYNs.
    Stage(u32),
}

/// One service for each guard.
fn guarded_world() -> World {
    let services = GUARDS.iter().enumerate().map(|(index, (_, guard))| {
        let digit = index as u8 + 21;
        let mut service = Service::new(&vip(true, digit), Forward::Dsr, &[]);
        service.backends = (0..BACKENDS).map(|n| backend(true, digit, n)).collect();
        match *guard {
            Guard::Deny(count) => {
                // All over the clients' 10.0.0.0/8 but for those who are measured, so that the way through the trie is long.
                let gap = (1 << 24) / count.max(1);
                let prefix = |number: u32| (0x0a00_0000 + number * gap, 28 + number % 5);
                let network = |(address, length): (u32, u32)| {
                    (IpAddr::from((address & u32::MAX << (32 - length)).to_be_bytes()), length)
                };
                let clients = 0x0a40_0000..0x0a40_0000 + DENY_FLOWS;
                let is_other = |(address, _): &(u32, u32)| !clients.contains(address);
                service.deny = (0..count).map(prefix).filter(is_other).map(network).collect();
            }
            Guard::Limits => {
                service.flags |= service_flag::LIMIT_OPENINGS;
                service.openings = OpeningRules {
                    interval: 1,
                    burst: u64::from(u32::MAX),
                    source_interval: 1,
                    source_burst: u64::from(u32::MAX),
                    ..OpeningRules::default()
                };
            }
            Guard::Stage(engage) => {
                service.flags |= service_flag::SYN_FLOOD;
                service.openings = OpeningRules { engage, release: 1, ..OpeningRules::default() };
            }
        }
        service
    });
    World::of(services)
}

/// At 1 Mi flows and more, and when all packets are SYNs, a mode may cost this much more than at 1 Ki.
const GROWTH: f64 = 1.10;
/// How many floors a packet of a mode may cost above the floor.
const LIMITS: [(&str, f64); 11] = [
    ("tunnel-ipip4", 1.0),
    ("tunnel-ipip6", 1.3),
    ("tunnel-gue4", 1.5),
    ("tunnel-gue6", 1.9),
    ("dsr4", 0.65),
    ("dsr6", 0.95),
    ("nat4", 1.15),
    ("nat6", 1.45),
    ("nat4-reply", 1.15),
    ("nat6-reply", 1.45),
    ("non-vip4", 0.3),
];
/// How many times the comparison program costs what lb does in the same mode at 1 Mi flows, at least.
const CHEAPER: [(&str, f64); 2] = [("established", 8.0), ("syn", 15.0)];

/// A row before and while it is measured.
struct Subject {
    mode: &'static str,
    state: &'static str,
    flows: &'static str,
    program: u32,
    moved: u32,
    expected: u32,
    stream: Stream,
    floors: Vec<f64>,
    differences: Vec<f64>,
}

/// All rows.
pub fn measure(quick: bool) -> Result<Vec<Row>> {
    stay_on_one_cpu()?;
    eprintln!("loading the programs ...");
    let options =
        Options { single_nic: true, arena: 1 << 20, backends: 4096, ..Options::default() };
    let mut kernel = Kernel::load(options)?;
    kernel.enter(world());
    let mut lab = Lab::load(COMPARE_FLOWS)?;
    lab.register_own(FLOOR, "floor")?;
    lab.register(BALANCER, kernel.balancer())?;
    lab.register_own(COMPARE, "compare")?;
    let compared: Vec<_> = (0..BACKENDS).map(|n| backend(true, 9, n).address).collect();
    lab.compare(ip("198.51.100.9"), 80, &compared)?;

    // A program of its own: the other rows are of one that need not look at openings.
    let mut guarded = Kernel::load(Options { limit_openings: true, ..options })?;
    guarded.enter(guarded_world());
    lab.register(GUARDED, guarded.balancer())?;
    let mut gue = Kernel::load(Options { gue: true, ..options })?;
    gue.enter(world_of(&GUE_MODES, GUE_DIGIT));
    lab.register(GUE, gue.balancer())?;

    let mut subjects = subjects();
    let (rounds, packets) = if quick { (5, 1 << 18) } else { (15, 1 << 20) };
    stream_all(&mut lab, &mut subjects, rounds, packets)?;
    Ok(rows(&subjects))
}

/// The comparison program's table is per CPU, and so are caches.
pub fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(nix::sched::sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}

/// Backend `number` of the service with this digit in its addresses.
fn backend(is_v4: bool, service: u8, number: usize) -> Backend {
    let address = match is_v4 {
        true => format!("10.{service}.0.{}", number + 1),
        false => format!("fd{service:02x}::{:x}", number + 1),
    };
    Backend::new(&address, number as u8)
}

/// VIP of the service with this digit.
pub fn vip(is_v4: bool, service: u8) -> String {
    if is_v4 { format!("198.51.100.{service}") } else { format!("2001:db8:5::{service}") }
}

/// One service a mode, with 100 backends of equal weight on the ring that lb would make.
pub fn world() -> World {
    world_of(&MODES, 1)
}

/// The same of some modes; their services have digits from `first` on.
fn world_of(modes: &[(&str, Forward, bool, bool)], first: u8) -> World {
    let keys = lb_tests::kernel::hash_keys();
    let services =
        modes.iter().enumerate().map(|(index, (_, forward, vip_is_v4, backend_is_v4))| {
            let digit = index as u8 + first;
            let mut service = Service::new(&vip(*vip_is_v4, digit), *forward, &[]);
            service.backends = (0..BACKENDS).map(|n| backend(*backend_is_v4, digit, n)).collect();
            let members: Vec<Member> = (service.backends.iter().enumerate())
                .map(|(index, backend)| Member {
                    id: lb_common::abi::BackendId(index as u32 + 1),
                    address: backend.address,
                    port: backend.port,
                    configured: 100,
                    effective: 100,
                    percent: 100,
                    ramp: 100,
                })
                .collect();
            let slots = ring_length(members.iter().map(|member| member.configured), None);
            service.ring = owners(slots, &keys, &members).iter().map(|owner| owner.0 - 1).collect();
            service
        });
    let mut world = World::of(services);
    let gateway = |address: &str| Some((ip(address), Some(CLIENT)));
    world.routes = vec![
        Route { prefix: (ip("0.0.0.0"), 0), gateway: gateway("10.1.0.254"), mtu: 1500 },
        Route { prefix: (ip("::"), 0), gateway: gateway("fd01::fe"), mtu: 1500 },
    ];
    world
}

fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    let mut add = |mode, state, packet: &Packet, varied, (program, moved), expected| {
        // The comparison program has no room for more than it is loaded with.
        let room = match program {
            COMPARE => COMPARE_FLOWS,
            GUARDED if state == "established" => DENY_FLOWS,
            _ => u32::MAX,
        };
        for (count, flows) in FLOWS.into_iter().filter(|(count, _)| *count <= room) {
            let stream = Stream::new(packet, varied, count);
            let (floors, differences) = (Vec::new(), Vec::new());
            subjects.push(Subject {
                mode,
                state,
                flows,
                program,
                moved,
                expected,
                stream,
                floors,
                differences,
            });
        }
    };
    let numbered = |first: u8| move |(index, mode)| (index as u8 + first, mode);
    let plain = MODES.into_iter().enumerate().map(numbered(1));
    let gue = GUE_MODES.into_iter().enumerate().map(numbered(GUE_DIGIT));
    for (digit, (mode, forward, vip_is_v4, backend_is_v4)) in plain.chain(gue) {
        let program = if forward == Forward::Gue { GUE } else { BALANCER };
        let moved = match (forward, backend_is_v4) {
            (Forward::Ipip, true) => 20,
            (Forward::Ipip, false) => 40,
            (Forward::Gue, true) => 32,
            (Forward::Gue, false) => 52,
            (Forward::Nat | Forward::Dsr | Forward::FullNat, _) => 0,
        };
        for (state, flags) in [("established", flag::ACK), ("syn", flag::SYN)] {
            let packet = request(vip_is_v4, &vip(vip_is_v4, digit), flags);
            add(mode, state, &packet, Varied::Source, (program, moved), action::TX);
        }
        if forward == Forward::Nat {
            let backend = backend(backend_is_v4, digit, 7);
            let packet = reply(&backend);
            let mode = if vip_is_v4 { "nat4-reply" } else { "nat6-reply" };
            add(mode, "established", &packet, Varied::Destination, (BALANCER, 0), action::TX);
        }
    }
    for (index, (mode, guard)) in GUARDS.into_iter().enumerate() {
        let vip = vip(true, index as u8 + 21);
        let established = request(true, &vip, flag::ACK);
        add(mode, "established", &established, Varied::Source, (GUARDED, 0), action::TX);
        if !matches!(guard, Guard::Deny(_)) {
            let syn = request(true, &vip, flag::SYN);
            add(mode, "syn", &syn, Varied::Source, (GUARDED, 0), action::TX);
        }
    }
    let other = request(true, "198.51.100.200", flag::ACK);
    add("non-vip4", "established", &other, Varied::Source, (BALANCER, 0), action::PASS);
    for (state, flags) in [("established", flag::ACK), ("syn", flag::SYN)] {
        let packet = request(true, "198.51.100.9", flags);
        add("compare-flow-table-ipip4", state, &packet, Varied::Source, (COMPARE, 20), action::TX);
    }
    subjects
}

/// A client's packet.
pub fn request(is_v4: bool, vip: &str, flags: u8) -> Packet {
    let client = if is_v4 { "10.64.0.0@1024" } else { "2001:db8:c::@1024" };
    Packet::tcp(client, &format!("{vip}@80"), flags)
}

fn reply(backend: &Backend) -> Packet {
    let client = if backend.address.is_ipv4() { "10.64.0.0@1024" } else { "2001:db8:c::@1024" };
    Packet::tcp(&format!("{}@{}", backend.address, backend.port), client, flag::ACK)
}

/// All subjects in turns, `rounds` times after one round that only warms up.
fn stream_all(lab: &mut Lab, subjects: &mut [Subject], rounds: u32, packets: u32) -> Result<()> {
    for round in 0..=rounds {
        let count = subjects.len();
        for (index, subject) in subjects.iter_mut().enumerate() {
            progress(&format!("round {round} of {rounds}: {} of {count} rows", index + 1));
            // The warm-up visits every flow once: the comparison program then knows them all.
            let all = if subject.program == COMPARE { subject.stream.flows() } else { 0 };
            let packets = if round == 0 { all.max(1 << 12) } else { packets };
            let Subject { stream, program, moved, expected, .. } = subject;
            let floor = lab.stream(stream, FLOOR, 0, packets, action::TX)?.as_nanos() as f64;
            let whole = lab.stream(stream, *program, *moved, packets, *expected);
            let whole = whole.with_context(|| format!("{}/{}", subject.mode, subject.state))?;
            if round > 0 {
                subject.floors.push(floor);
                subject.differences.push(whole.as_nanos() as f64 - floor);
            }
        }
    }
    progress("");
    Ok(())
}

fn rows(subjects: &[Subject]) -> Vec<Row> {
    let row = |subject: &Subject| {
        let floor = median(&subject.floors);
        let limit = limit(subject, subjects, floor);
        let name = format!("{}/{}/{}", subject.mode, subject.state, subject.flows);
        Row::new("program", name, "ns above floor", &subject.differences, limit).above(floor)
    };
    let cheaper = CHEAPER.map(|(state, least)| cheaper(subjects, state, least));
    subjects.iter().map(row).chain(cheaper).collect()
}

/// How many times the comparison program costs what lb does.
fn cheaper(subjects: &[Subject], state: &str, least: f64) -> Row {
    let differences = |mode: &str| {
        let found =
            subjects.iter().find(|one| (one.mode, one.state, one.flows) == (mode, state, "1Mi"));
        found.map_or(&[][..], |found| &found.differences)
    };
    let (ours, theirs) = (differences("tunnel-ipip4"), differences("compare-flow-table-ipip4"));
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect();
    Row::at_least(
        "program",
        format!("cheaper-than-flow-table-ipip4/{state}/1Mi"),
        "times",
        &ratios,
        least,
    )
}

/// What this row may cost, if anything is promised.
fn limit(subject: &Subject, subjects: &[Subject], floor: f64) -> Option<f64> {
    if ![BALANCER, GUE].contains(&subject.program) {
        return None;
    }
    let mode = LIMITS.iter().find(|(mode, _)| *mode == subject.mode);
    let mode = mode.map(|(_, floors)| floors * floor);
    let grows = ["1Mi", "16Mi"].contains(&subject.flows) || subject.state == "syn";
    let few = subjects.iter().find(|other| {
        (other.mode, other.state, other.flows) == (subject.mode, "established", "1Ki")
    });
    let growth = few.filter(|_| grows).map(|few| GROWTH * median(&few.differences));
    [mode, growth].into_iter().flatten().reduce(f64::min)
}
