//! The packet path against the reference model: millions of packets, whole and damaged, and small spaces from end to end.

#[path = "packets_model/spaces.rs"]
mod spaces;
#[path = "packets_model/worlds.rs"]
mod worlds;

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use aya::maps::DevMapHash;
use ipnet::IpNet;
use lb_common::abi::{Forward, Prefixes, Reason, map, service_flag};
use lb_model::{
    Config, Limit,
    generate::{Generator, People},
    part,
};
use lb_tests::{
    kernel::{
        Kernel, Options, World,
        compare::{Comparison, Tally, config_of},
        world::{CLIENT, NIC, Route, Service, ip},
    },
    soak::rounds,
};
use lb_userspace::config::model::{Listen, Protocol};
use nix::sched::{CloneFlags, unshare};

/// Packets on all CPUs.
const SHORT: u64 = 10_000_000;
const LONG: u64 = 1_000_000_000;

/// A NIC that frames may leave by.
const OUT: u32 = 77;
/// One that they may not.
const UNATTACHED: u32 = 78;
const NIC_NUMBER: u32 = 3;
/// Ports of the backends of the nat services for TCP on port 80 and UDP on port 53, as [`Family::services`] counts.
const NAT_TCP: u16 = 8_001;
const NAT_UDP: u16 = 8_002;

#[test]
fn millions_of_packets_as_the_model_says() {
    let seed: u64 = match std::env::var("LB_SEED") {
        Ok(text) => text.parse().expect("LB_SEED is a number"),
        Err(_) => 0x6c62_2d6d_6f64_656c,
    };
    let threads = thread::available_parallelism().map_or(2, usize::from).min(8) as u64;
    let packets = rounds(SHORT, LONG) / threads;
    println!("{threads} times {packets} packets; LB_SEED={seed} repeats this run");
    let start = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|part| {
            thread::spawn(move || {
                let seed = seed.wrapping_add(part << 32);
                // For services of several ports and of prefixes, and for VLANs, the program is another.
                let (wide, tagged) = (packets / 5, packets * 3 / 20);
                let wide_options = Options { ports: 2, ..Options::default() };
                let mut tally = run(seed, wide, wide_options, &wide_world());
                let options = Options { vlan: true, limit_openings: true, ..Options::default() };
                tally.add(&run(seed, tagged, options, &worlds::limited(world_of(4))));
                let (beside, translated) = (packets * 3 / 10, packets / 8);
                let tracked = packets / 8;
                // As many pins have room as are prepared, and few more.
                let options = Options { gue: true, quic: true, pins: 104, ..Options::default() };
                tally.add(&run(seed, beside, options, &worlds::beside(world_of(2))));
                let fullnat = worlds::POOL.len() as u32;
                let options = Options { fullnat, toa: true, ..Options::default() };
                tally.add(&run(seed, translated, options, &worlds::translated(world_of(2))));
                let options =
                    Options { flows: 1 << 12, sources: 3, connections: 12, ..Options::default() };
                tally.add(&run(seed, tracked, options, &worlds::tracked(world_of(2))));
                // Captures and dry runs do without the fast path.
                let alone = packets / 10;
                let options = Options { alone: true, ..Options::default() };
                tally.add(&run(seed, alone, options, &world()));
                let rest = packets - wide - tagged - beside - translated - tracked - alone;
                tally.add(&run(seed, rest, Options::default(), &world()));
                tally
            })
        })
        .collect();
    let mut tally = Tally::default();
    for worker in workers {
        tally.add(&worker.join().expect("no difference"));
    }
    println!("{}in {:.1} s", tally.table(), start.elapsed().as_secs_f64());
    assert_eq!(tally.packets, packets * threads);
    assert!(tally.late <= tally.packets / 100_000, "{} batches were left out", tally.late);
    let unreached: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| reason.name())
        .filter(|name| !tally.reasons.contains_key(name))
        .filter(|name| !OUTSIDE.iter().any(|(outside, _, _)| outside == name))
        .collect();
    assert!(unreached.is_empty(), "no packet met {unreached:?}");
    for name in part::ALL {
        assert!(tally.parts.contains_key(name), "no packet met \"{name}\"");
    }
    for name in [part::GUE, part::QUIC, part::CHANGED, part::FULLNAT, part::TRACKED] {
        assert!(tally.parts[name] >= tally.packets / 50, "too few packets met \"{name}\"");
    }
    let openings = tally.parts[part::OPENING];
    assert!(openings >= tally.packets / 200, "too few openings: {openings}");
}

/// File and name.
type Test = (&'static str, &'static str);

/// Reasons that no packet of this comparison can meet, why, and the test that reaches them.
const OUTSIDE: [(&str, &str, Option<Test>); 6] = [
    (
        "encap_failed",
        "a test run leaves room in front",
        Some(("packets_rare", "a_tunnel_without_room_in_front")),
    ),
    (
        "bad_slot",
        "a fault of the controller",
        Some(("packets_rare", "a_slot_that_names_no_backend")),
    ),
    (
        "no_program",
        "a fault of the controller",
        Some(("packets_fullnat", "without_its_program_full_nat_is_a_counted_drop")),
    ),
    ("bad_tunnel", "a name for `lb decap`; the balancer has no such drop", None),
    ("pinned", "a name for the controller's own count of pins", None),
    ("transmitted", "a name for `lb why`: what is sent is counted for its backend", None),
];

#[test]
fn what_the_comparison_leaves_out_is_reached_by_other_tests() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let text = |file: &str| {
        std::fs::read_to_string(format!("{directory}/{file}.rs"))
            .unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    for (reason, why, test) in OUTSIDE {
        let known = Reason::ALL.iter().find(|known| known.name() == reason);
        let known = known.unwrap_or_else(|| panic!("{reason} ({why}) is no reason any more"));
        if let Some((file, test)) = test {
            let text = text(file);
            assert!(text.contains(&format!("fn {test}()")), "{reason}: {file} has no {test}");
            let mentions = format!("Reason::{known:?}");
            assert!(text.contains(&mentions), "{reason}: {file} says nothing of {mentions}");
        }
    }
}

/// Every value of what is small, in an otherwise sound packet, to and from services of each mode.
#[test]
fn small_spaces_from_end_to_end() {
    let mut comparison = comparison(Options::default(), world());
    let mut count = 0u64;
    let mut compare = |frame: &[u8]| {
        comparison.frame(frame.to_vec(), Limit::Open);
        count += 1;
    };
    let samples = spaces::samples();
    for sample in &samples {
        sample.each_checksum(&mut compare);
        sample.each_right_checksum(&mut compare);
    }
    println!("{} checksums, all values", samples.len());
    for frame in spaces::modes() {
        spaces::each_byte(&frame, &mut compare);
    }
    spaces::each_quic_byte(&mut compare);
    comparison.flush();
    println!("{}", comparison.tally.table());
    assert_eq!(comparison.tally.packets, count);
    let rewrites = samples.len() as u64 * 65_536;
    assert!(comparison.tally.actions["TX"] >= rewrites, "whatever has a right checksum leaves");
}

/// The model is worth something only while it is nobody's but its own.
#[test]
fn the_model_shares_no_code_with_lb() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/model/Cargo.toml");
    let text = std::fs::read_to_string(manifest).unwrap_or_else(|error| panic!("{error}"));
    let (_, dependencies) = text.split_once("[dependencies]").expect("the section");
    let (dependencies, rest) = dependencies.split_once("[lints]").expect("the section after it");
    assert_eq!(dependencies.trim(), "", "the model depends on nothing");
    assert!(!rest.contains('[') && !text.contains("build"), "{text}");
    // What cargo makes of it, and every file that is compiled in.
    // For this machine: what only others need has not been downloaded.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--manifest-path", manifest])
        .args(["--filter-platform", &host])
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let node =
        nodes.iter().find(|node| node["id"].as_str().is_some_and(|id| id.contains("/model#")));
    let node = node.expect("the model is in the workspace");
    assert_eq!(node["dependencies"].as_array().map(Vec::len), Some(0), "{node}");
    for file in files(concat!(env!("CARGO_MANIFEST_DIR"), "/model/src").as_ref()) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for forbidden in
            ["lb_common", "lb_ebpf", "lb_userspace", "#[path", "include!", "include_str!"]
        {
            assert!(!text.contains(forbidden), "{}: {forbidden}", file.display());
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{error}"));
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let (directories, mut files): (Vec<_>, Vec<_>) =
        paths.into_iter().partition(|path| path.is_dir());
    files.extend(directories.iter().flat_map(|directory| self::files(directory)));
    files
}

fn run(seed: u64, packets: u64, options: Options, world: &World) -> Tally {
    let config = model_config(&options, world);
    let mut comparison = comparison(options, world.clone());
    let mut generator = Generator::new(&config, people(), seed);
    let has_pool = !world.pool.is_empty();
    let has_pins = world.services.iter().any(|service| !service.phases.is_empty());
    let has_stages = options.limit_openings;
    for number in 0..packets {
        if has_pins && comparison.is_between_batches() {
            comparison.prepare(generator.pins());
        }
        if has_pool && number % 16 == 0 {
            generator.learn(comparison.translated());
        }
        if has_pool && number % 256 == 0 {
            comparison.grow_old();
        }
        if has_stages {
            generator.set_epoch(comparison.epoch());
        }
        let limit = if generator.one_in(16) { Limit::Exhausted } else { Limit::Open };
        comparison.frame(generator.next_frame(), limit);
    }
    comparison.flush();
    comparison.tally
}

/// The program, loaded for this thread in a network namespace of its own, beside the model.
fn comparison(options: Options, world: World) -> Comparison {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (is this root?)");
    let line = format!("ip link add out index {OUT} type veth peer name far");
    let status = Command::new("ip").args(line.split(' ').skip(1)).status().expect("ip starts");
    assert!(status.success(), "`{line}`: {status}");
    let config = model_config(&options, &world);
    let kernel = Kernel::load(options);
    let mut kernel = kernel.unwrap_or_else(|error| panic!("{error:#}"));
    let devices = kernel.ebpf().map_mut(map::DEVICES).expect("the program declares it");
    let mut devices = DevMapHash::try_from(devices).expect("its type");
    devices.insert(OUT, OUT, None, 0).expect("the NIC exists");
    Comparison::new(kernel, world, config)
}

fn model_config(options: &Options, world: &World) -> Config {
    let mut config = config_of(world, &[OUT], options.sources as usize);
    config.takes_tagged = options.vlan;
    config.most_pins = options.pins as usize;
    config.most_connections = options.connections as usize;
    config
}

fn people() -> People {
    let clients = [
        "192.0.2.33",
        "192.0.2.70",
        "192.0.2.200",
        "8.8.4.4",
        "2001:db8:c::33",
        "2001:db8:c:40::1",
        "2001:db8:77::5",
    ];
    // On the routes without a next hop: a request would leave a way back behind, which the model does not know.
    let listeners = ["203.0.113.9", "2001:db8:dead:beef:5a5a::9"];
    let clients = clients.map(ip).to_vec();
    People { clients, listeners: listeners.map(ip).to_vec(), neighbour: CLIENT, nic: NIC }
}

/// Services of every kind in both families.
fn world() -> World {
    world_of(usize::MAX)
}

/// With so many services of each family at most.
fn world_of(most: usize) -> World {
    let mut services = Vec::new();
    for is_v6 in [false, true] {
        let mut family = Family { is_v6, port: 8_000 };
        services.extend(family.services().into_iter().take(most));
    }
    let route = |prefix: &str, length, gateway: &str, mac, mtu| Route {
        prefix: (ip(prefix), length),
        gateway: Some((ip(gateway), mac)),
        mtu,
    };
    let numbers = vec![(1, 0), (OUT, NIC_NUMBER)];
    World {
        services,
        hosts: vec![ip("10.1.0.254"), ip("fd01::fe")],
        routes: vec![
            route("0.0.0.0", 0, "10.1.0.253", Some(CLIENT), 1_500),
            route("8.8.0.0", 16, "10.1.0.252", Some([2, 0, 0, 0, 0, 0xc2]), 576),
            route("203.0.113.0", 24, "10.1.0.251", None, 1_500),
            route("::", 0, "fd01::fd", Some(CLIENT), 1_500),
            route("2001:db8:77::", 48, "fd01::fc", Some([2, 0, 0, 0, 0, 0xc2]), 1_280),
            route("2001:db8:dead:beef:5a5a::", 80, "fd01::fb", None, 1_500),
        ],
        interfaces: numbers,
        ..World::default()
    }
}

/// Services of several VIPs, ranges of ports, all ports and prefixes, one within another, beside some of the others.
fn wide_world() -> World {
    let mut world = world_of(10);
    for is_v6 in [false, true] {
        let mut add = |forward, protocol, vips: [&str; 2], (port, last_port): (u16, u16), flags| {
            let vips: Vec<IpNet> = vips[usize::from(is_v6)]
                .split(' ')
                .map(|vip| vip.parse().unwrap_or_else(|_| IpNet::from(ip(vip))))
                .collect();
            let number = world.services.len() as u16;
            let backends: Vec<String> = (1..=3)
                .map(|host| match is_v6 {
                    true => format!("fd02:{number}::{host}@0"),
                    false => format!("10.2.{number}.{host}@0"),
                })
                .collect();
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            let vip = vips[0].addr();
            let service = Service::new(&vip.to_string(), forward, &backends).port(0).flags(flags);
            let service = if protocol == Protocol::Udp { service.udp() } else { service };
            world.services.push(service);
            let listen = Listen {
                address: vip,
                vips,
                port,
                last_port,
                protocol,
                interfaces: Vec::new(),
                add_address_to: None,
                force: false,
            };
            world.listens.push((world.services.len() as u32, listen));
        };
        use Protocol::{Tcp, Udp};
        const ANY: (u16, u16) = (0, u16::MAX);
        let fragments = service_flag::FRAGMENTS;
        let range = ["198.51.100.20", "2001:db8:5::20"];
        add(Forward::Nat, Tcp, range, (7_000, 7_099), 0);
        add(Forward::Nat, Tcp, range, (7_040, 7_049), fragments);
        add(Forward::Nat, Tcp, range, ANY, 0);
        add(Forward::Nat, Udp, range, (5_060, 5_061), fragments);
        let pair = ["198.51.100.21 198.51.100.22", "2001:db8:5::21 2001:db8:5::22"];
        add(Forward::Dsr, Tcp, pair, (8_000, 8_999), 0);
        add(Forward::Dsr, Udp, pair, ANY, fragments);
        add(Forward::Ipip, Tcp, ["198.51.101.0/24", "2001:db8:6::/64"], ANY, 0);
        add(Forward::Dsr, Tcp, ["198.51.101.0/25", "2001:db8:6::/65"], (80, 80), 0);
        add(Forward::Ipip, Udp, ["198.51.101.0/28", "2001:db8:6::/124"], (1, 99), fragments);
        add(Forward::Dsr, Tcp, ["198.51.101.3", "2001:db8:6::3"], (80, 81), service_flag::REJECT);
        world.hosts.push(ip(if is_v6 { "2001:db8:6::5" } else { "198.51.101.5" }));
    }
    world.listening()
}

/// Makes services of one family.
struct Family {
    is_v6: bool,
    port: u16,
}

impl Family {
    /// A nat service's backends have ports of their own: by them a reply is known.
    fn service(&mut self, vip: u8, forward: Forward) -> Service {
        self.port += 1;
        let (vip, backends) = if self.is_v6 {
            (format!("2001:db8:5::{vip}"), ["fd01::1", "fd01::2", "fd01::3"])
        } else {
            (format!("198.51.100.{vip}"), ["10.1.0.1", "10.1.0.2", "10.1.0.3"])
        };
        let backends = backends.map(|backend| format!("{backend}@{}", self.port));
        Service::new(&vip, forward, &backends.each_ref().map(String::as_str))
    }

    fn nat(&mut self, port: u16) -> Service {
        self.service(1, Forward::Nat).port(port)
    }

    fn prefix(&self, v4: (&str, u32), v6: (&str, u32)) -> Vec<(std::net::IpAddr, u32)> {
        let (text, length) = if self.is_v6 { v6 } else { v4 };
        vec![(ip(text), length)]
    }

    fn services(&mut self) -> Vec<Service> {
        use service_flag::{BY_SOURCE, DROP, FRAGMENTS, NEW_ONLY, REJECT};
        let web = self.nat(80).flags(FRAGMENTS);
        let names = self.nat(53).udp().flags(FRAGMENTS);
        let mut allowed = self.service(4, Forward::Dsr);
        allowed.allow = self.prefix(("192.0.2.0", 25), ("2001:db8:c::", 64));
        let mut denied = self.nat(86);
        denied.deny = self.prefix(("192.0.2.64", 26), ("2001:db8:c:40::", 64));
        denied.allow = self.prefix(("192.0.2.0", 24), ("2001:db8:c::", 48));
        let mut local = self.service(6, Forward::Nat).flags(FRAGMENTS);
        local.is_local = true;
        let mut out_of_reach = self.nat(87);
        out_of_reach.interfaces = Some(1 << NIC_NUMBER);
        let mut in_reach = self.nat(88);
        in_reach.interfaces = Some(1);
        let mut by_source = self.nat(89).flags(BY_SOURCE | FRAGMENTS);
        by_source.prefix = Prefixes { v4: 24, v6: 48 };
        by_source.stateless_fragments = true;
        let mut stateless = self.service(2, Forward::Dsr).port(53).udp();
        stateless = stateless.flags(FRAGMENTS | BY_SOURCE);
        stateless.stateless_fragments = true;
        let mut empty = self.nat(85);
        empty.backends.clear();
        // The other family inside the tunnel.
        let (vip, other) =
            if self.is_v6 { ("2001:db8:5::3", "10.1.0.9") } else { ("198.51.100.3", "fd01::9") };
        let mixed = Service::new(vip, Forward::Ipip, &[other]).port(5_000);
        let mixed_udp = mixed.clone().udp().flags(FRAGMENTS);
        vec![
            web,
            names,
            self.service(2, Forward::Dsr),
            self.service(3, Forward::Ipip),
            mixed,
            mixed_udp,
            allowed,
            denied,
            local,
            self.nat(81).flags(REJECT),
            self.nat(82).flags(REJECT | NEW_ONLY | FRAGMENTS),
            self.nat(83).flags(DROP),
            self.nat(84).udp().flags(REJECT),
            stateless,
            self.service(3, Forward::Ipip).port(53).udp(),
            out_of_reach,
            in_reach,
            by_source,
            empty,
            self.nat(90).each(|backend| backend.flags = 0),
            self.nat(91).each(|backend| backend.mtu = 700),
            self.nat(92).each(|backend| backend.ifindex = UNATTACHED),
            self.service(5, Forward::Nat).each(|backend| backend.ifindex = OUT),
            self.service(7, Forward::Dsr).each(|backend| backend.ifindex = OUT),
            self.service(8, Forward::Ipip).each(|backend| backend.ifindex = OUT),
            self.service(9, Forward::Ipip)
                .each(|backend| (backend.ifindex, backend.mtu) = (OUT, 1_540)),
        ]
    }
}
