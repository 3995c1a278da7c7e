//! Floods from a million sources and more, against each mode, in the steady state, in a window and in a harvest: who is
//! connected stays so, who is real gets in, tables stay within bounds, and the service beside it loses nothing. Rows F22, F23,
//! F24 and S03 of the fault cases (S05: `events.rs` looks for the seed in everything that lb says).
//!
//! The packets are composed in the kernel, one after the other through the real program; ten million of each in
//! `cargo xtask soak`.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::MutexGuard};

use aya::maps::HashMap;
use lb_common::{
    abi::{
        BackendId, CookieKeys, FlowKey, Forward, FragmentEntry, FragmentKey, OpeningRules, Phase,
        Reason, Slot, VerifiedSources, map, service_flag,
    },
    be::Be16,
    hash::{expand_seed, flow_hash, slot_of},
    syn_flood::in_window,
};
use lb_tests::{
    kernel::{
        Kernel, Options, World, action,
        lab::{Lab, Stream, Varied},
        packet::{Packet, flag},
        world::{CLIENT, Route, Service, ip},
    },
    soak::rounds,
};

const FLOODED: &str = "198.51.100.7";
const BESIDE: &str = "198.51.100.8";
const BACKENDS: u32 = 4;
const SLOTS: u32 = 1021;
/// Entries of each pin table: few, so that every flood can fill them.
const PINS: u32 = 4096;
/// Connections of each service that are open before the flood.
const IDLE: u32 = 1000;
/// The program under test among the lab's.
const BALANCER: u32 = 0;

/// States of the ring.
const PHASES: [Phase; 3] = [Phase::Settled, Phase::Window, Phase::Harvest];
const MODES: [Forward; 3] = [Forward::Nat, Forward::Dsr, Forward::Ipip];

fn kernel() -> MutexGuard<'static, Kernel> {
    let options = Options { pins: PINS, limit_openings: true, ..Options::default() };
    let mut kernel = Kernel::shared_with(options);
    let keys = CookieKeys { current: 1, keys: [[11, 12], [13, 14]] };
    kernel.array::<CookieKeys>(map::COOKIE_KEYS).set(0, keys, 0).unwrap();
    kernel
}

/// What is flooded (1), the same for UDP (2), and a service beside it (3).
fn services(forward: Forward) -> [Service; 3] {
    let service = |vip: &str, first: u32| {
        let backends: Vec<String> =
            (0..BACKENDS).map(|number| format!("10.1.{first}.{}", number + 1)).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        Service::new(vip, forward, &backends).flags(service_flag::FRAGMENTS)
    };
    [service(FLOODED, 1), service(FLOODED, 2).udp(), service(BESIDE, 3)]
}

/// The services, and the way back to clients.
fn world(services: [Service; 3]) -> World {
    let mut world = World::of(services);
    let gateway = Some((ip("10.1.0.254"), Some(CLIENT)));
    world.routes = vec![Route { prefix: (ip("0.0.0.0"), 0), gateway, mtu: 1500 }];
    world
}

/// In a phase, every fourth slot of each ring goes from its service's first backend to the second one.
fn change(kernel: &mut Kernel, phase: Phase) {
    for service in 1..=3 {
        let base = BackendId((service - 1) * BACKENDS + 1);
        for index in (0..SLOTS).step_by(BACKENDS as usize) {
            let slot = match phase {
                Phase::Settled => Slot::settled(base),
                _ => Slot::new(BackendId(base.0 + 1), base, phase, 0),
            };
            kernel.set_slot(service, index, slot);
        }
    }
}

/// Bytes that a tunnel adds.
fn moved(forward: Forward) -> u32 {
    if forward == Forward::Ipip { 20 } else { 0 }
}

/// A real client's connection.
#[derive(Clone, Copy)]
struct Client {
    number: u32,
    vip: &'static str,
}

impl Client {
    fn many(vip: &'static str, numbers: std::ops::Range<u32>) -> Vec<Self> {
        numbers.map(|number| Self { number, vip }).collect()
    }

    fn packet(self, flags: u8, sequence: u32) -> Packet {
        let source = Ipv4Addr::from(0xc000_0200 + self.number % 250);
        let port = 20_000 + self.number * 7 % 40_000;
        Packet::tcp(&format!("{source}@{port}"), &format!("{}@80", self.vip), flags)
            .with_tcp(|tcp| tcp.sequence = sequence)
    }

    /// Where a packet goes: the next hop's last byte, which is the backend's number in its service.
    fn send(self, kernel: &Kernel, flags: u8, sequence: u32) -> Option<u8> {
        let outcome = kernel.run(&self.packet(flags, sequence).bytes());
        (outcome.action == action::TX).then(|| outcome.frame[5])
    }

    /// Says something on an open connection.
    fn speak(self, kernel: &Kernel) -> Option<u8> {
        self.send(kernel, flag::ACK | flag::PSH, 0x2000)
    }

    /// Opens a connection; whether the SYN and what follows it reach one backend.
    fn connects(self, kernel: &Kernel) -> bool {
        const SERVER_ISN: u32 = 0x5000;
        let syn = self.packet(flag::SYN, 0x1000);
        let outcome = kernel.run(&syn.bytes());
        if outcome.action != action::TX {
            return false;
        }
        let to = Ipv4Addr::from(<[u8; 4]>::try_from(&outcome.frame[30..34]).expect("four"));
        let is_nat = to.octets()[0] == 10 && outcome.frame[23] == 6;
        if is_nat {
            // In nat, lb sees what the backend answers.
            let port = u16::from_be_bytes([outcome.frame[36], outcome.frame[37]]);
            let client = Ipv4Addr::from(<[u8; 4]>::try_from(&outcome.frame[26..30]).expect("four"));
            let own = u16::from_be_bytes([outcome.frame[34], outcome.frame[35]]);
            let flags = flag::SYN | flag::ACK;
            let answer = Packet::tcp(&format!("{to}@{port}"), &format!("{client}@{own}"), flags)
                .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (SERVER_ISN, 0x1001));
            if kernel.run(&answer.bytes()).action != action::TX {
                return false;
            }
        }
        let ack =
            self.packet(flag::ACK, 0x1001).with_tcp(|tcp| tcp.acknowledgement = SERVER_ISN + 1);
        let next = kernel.run(&ack.bytes());
        next.action == action::TX && next.frame[5] == outcome.frame[5]
    }
}

/// Connections that are open, and where each of them lives.
struct Idle(Vec<(Client, Option<u8>)>);

impl Idle {
    fn open(kernel: &Kernel, vip: &'static str) -> Self {
        let clients = Client::many(vip, 0..IDLE);
        let living = clients.into_iter().map(|client| (client, client.speak(kernel)));
        let all = Self(living.collect());
        assert!(all.0.iter().all(|(_, home)| home.is_some()));
        all
    }

    /// How many are where they were.
    fn alive(&self, kernel: &Kernel) -> u32 {
        self.0.iter().filter(|(client, home)| client.speak(kernel) == *home).count() as u32
    }
}

/// The kinds of floods, each as a packet of one of its sources.
fn floods() -> Vec<(&'static str, Packet, bool)> {
    let tcp = |flags| Packet::tcp("10.64.0.0@1024", &format!("{FLOODED}@80"), flags);
    let udp = Packet::udp("10.64.0.0@1024", &format!("{FLOODED}@80")).filled(40);
    vec![
        ("SYN", tcp(flag::SYN), false),
        ("ACK", tcp(flag::ACK), false),
        ("SYN+ACK", tcp(flag::SYN | flag::ACK), false),
        ("RST", tcp(flag::RST), false),
        ("UDP", udp.clone(), false),
        ("fragments", udp.ip(|ip| ip.dont_fragment = false), true),
    ]
}

/// Entries of the table of fragments.
fn fragments(kernel: &mut Kernel) -> usize {
    let map = kernel.ebpf().map(map::FRAGMENTS).expect("declared");
    const KEY: usize = size_of::<FragmentKey>();
    const ROW: usize = size_of::<FragmentEntry>();
    let fragments: HashMap<_, [u8; KEY], [u8; ROW]> = map.try_into().expect("its type");
    fragments.keys().count()
}

#[track_caller]
fn unharmed(kernel: &mut Kernel, what: &str, idle: &[Idle; 2], newcomers: std::ops::Range<u32>) {
    for (idle, vip) in idle.iter().zip([FLOODED, BESIDE]) {
        let alive = idle.alive(kernel);
        assert_eq!(alive, IDLE, "{what}: {alive} of {IDLE} connections of {vip} live on");
        let refused = Client::many(vip, newcomers.clone())
            .into_iter()
            .filter(|client| !client.connects(kernel))
            .count();
        assert_eq!(refused, 0, "{what}: new clients of {vip}");
    }
    let (confirmed, unconfirmed) = kernel.pin_counts();
    let most = PINS as usize;
    assert!(confirmed <= most && unconfirmed <= most, "{what}: {confirmed} and {unconfirmed} pins");
}

/// All kinds of floods in one mode.
fn flood_mode(forward: Forward, sources: u32) {
    let mut kernel = kernel();
    let mut lab = Lab::load(1).expect("the lab's programs");
    lab.register(BALANCER, kernel.balancer()).expect("a program array");
    for phase in PHASES {
        for (kind, packet, is_fragment) in floods() {
            let what = format!("{forward:?}, {phase:?}, {kind}");
            kernel.enter(world(services(forward)));
            // The same first fragments as in the phase before.
            kernel.forget_fragments();
            let idle = [FLOODED, BESIDE].map(|vip| Idle::open(&kernel, vip));
            change(&mut kernel, phase);
            // Whoever speaks in a harvest is remembered, as he always is.
            unharmed(&mut kernel, &what, &idle, 5_000..5_010);
            let before = kernel.counts();
            let mut stream = Stream::new(&packet, Varied::Source, sources.next_power_of_two());
            if is_fragment {
                stream.fragment();
            }
            // Each source, and then, as SYNs that nobody answers are, once more.
            let passes = if kind == "SYN" { 2 } else { 1 };
            for _ in 0..passes {
                lab.stream(&mut stream, BALANCER, moved(forward), sources, action::TX)
                    .unwrap_or_else(|error| panic!("{what}: {error:#}"));
            }
            let delta = kernel.counts().since(&before);
            let forwarded = u64::from(sources) * passes;
            assert_eq!((delta.forwarded(), delta.drops()), (forwarded, 0), "{what}: {delta:?}");
            unharmed(&mut kernel, &what, &idle, 6_000..6_100);
            assert!(fragments(&mut kernel) <= 16_384, "{what}");
            if phase == Phase::Settled {
                let pins = kernel.pin_counts();
                assert_eq!(pins, (0, 0), "{what}: nothing is remembered");
            } else {
                // When the harvest is over, those who have spoken in it are where they were.
                change(&mut kernel, Phase::Pinned);
                let unmoved = idle.each_ref().map(|idle| idle.alive(&kernel));
                if phase == Phase::Harvest {
                    assert_eq!(unmoved, [IDLE; 2], "{what}: after the harvest");
                }
            }
        }
    }
}

#[test]
fn no_flood_in_nat_harms_who_is_real() {
    flood_mode(Forward::Nat, rounds(1_000_000, 10_000_000) as u32);
}

#[test]
fn no_flood_in_dsr_harms_who_is_real() {
    flood_mode(Forward::Dsr, rounds(250_000, 10_000_000) as u32);
}

#[test]
fn no_flood_in_a_tunnel_harms_who_is_real() {
    flood_mode(Forward::Ipip, rounds(250_000, 10_000_000) as u32);
}

fn forget_verified(kernel: &mut Kernel) {
    let mut verified = kernel.array::<VerifiedSources>(map::VERIFIED);
    for index in 0..verified.len() {
        verified.set(index, VerifiedSources::default(), 0).expect("within");
    }
}

#[test]
fn an_engaged_stage_lets_only_the_real_in() {
    const ENGAGE: u32 = 1000;
    let sources = rounds(2_000_000, 10_000_000) as u32;
    let mut kernel = kernel();
    let mut lab = Lab::load(1).expect("the lab's programs");
    lab.register(BALANCER, kernel.balancer()).expect("a program array");
    for forward in MODES {
        for phase in [Phase::Settled, Phase::Window] {
            let what = format!("{forward:?}, {phase:?}");
            let mut services = services(forward);
            services[0].flags |= service_flag::SYN_FLOOD;
            services[0].openings = OpeningRules {
                engage: in_window(u64::from(ENGAGE)),
                release: in_window(u64::from(ENGAGE) / 2),
                ..OpeningRules::default()
            };
            kernel.enter(world(services));
            forget_verified(&mut kernel);
            let idle = [FLOODED, BESIDE].map(|vip| Idle::open(&kernel, vip));
            change(&mut kernel, phase);
            let syn = Packet::tcp("10.64.0.0@1024", &format!("{FLOODED}@80"), flag::SYN);
            let mut stream = Stream::new(&syn, Varied::Source, sources.next_power_of_two());
            // Until it is engaged the flood is let in, as any other SYN.
            let before = kernel.counts();
            lab.stream(&mut stream, BALANCER, moved(forward), ENGAGE, action::TX).expect("SYNs");
            for _ in 0..ENGAGE {
                kernel.run(&lab.next(&mut stream).expect("a SYN"));
            }
            let rest = sources - 2 * ENGAGE;
            lab.stream(&mut stream, BALANCER, 0, rest, action::TX).expect("SYNs");
            let delta = kernel.counts().since(&before);
            let challenged = delta.total(Reason::SynChallenge);
            assert_eq!(delta.forwarded() + challenged, u64::from(sources), "{what}: {delta:?}");
            // Windows are of time: on a busy machine more of them pass until one is full.
            assert!(delta.forwarded() <= 4 * u64::from(ENGAGE), "{what}: {delta:?}");
            let (_, unconfirmed) = kernel.pin_counts();
            assert!(unconfirmed as u32 <= 4 * ENGAGE, "{what}: {unconfirmed} pins");
            // A real client answers the challenge; SYNs to the service beside it are not even looked at.
            for client in Client::many(FLOODED, 9_000..9_040) {
                let answer = kernel.run(&client.packet(flag::SYN, 0x1000).bytes());
                let number = answer.frame[42..46].try_into().expect("four bytes");
                let reset = client.packet(flag::RST, u32::from_be_bytes(number));
                assert_eq!(kernel.run(&reset.bytes()).action, action::DROP, "{what}");
            }
            unharmed(&mut kernel, &what, &idle, 9_000..9_040);
        }
    }
}

#[test]
fn s04_limits_hold_in_a_flood_and_keep_nobody_out_of_another_service() {
    const BURST: u64 = 5_000;
    let sources = rounds(1_000_000, 10_000_000) as u32;
    let mut kernel = kernel();
    let mut lab = Lab::load(1).expect("the lab's programs");
    lab.register(BALANCER, kernel.balancer()).expect("a program array");
    let mut services = services(Forward::Nat);
    for service in services.iter_mut().step_by(2) {
        service.flags |= service_flag::LIMIT_OPENINGS;
        // Nothing is added while this runs.
        let never = 3_600_000_000_000;
        service.openings = OpeningRules {
            interval: never,
            burst: BURST,
            source_interval: never,
            source_burst: 50,
            ..OpeningRules::default()
        };
    }
    kernel.enter(world(services));
    let idle = [FLOODED, BESIDE].map(|vip| Idle::open(&kernel, vip));
    let syn = Packet::tcp("10.64.0.0@1024", &format!("{FLOODED}@80"), flag::SYN);
    let mut stream = Stream::new(&syn, Varied::Source, sources.next_power_of_two());
    let before = kernel.counts();
    lab.stream(&mut stream, BALANCER, 0, sources, action::DROP).expect("SYNs");
    let delta = kernel.counts().since(&before);
    let refused = delta.total(Reason::ServiceRate) + delta.total(Reason::SourceRate);
    assert_eq!((delta.forwarded(), refused), (BURST, u64::from(sources) - BURST), "{delta:?}");
    for idle in &idle {
        assert_eq!(idle.alive(&kernel), IDLE);
    }
    let clients = Client::many(BESIDE, 7_000..7_500);
    assert!(clients.iter().all(|client| client.connects(&kernel)), "the service beside it");
}

/// F24: whoever knows the rule, but not the seed, aims at one backend in vain.
#[test]
fn s05_flows_that_collide_under_another_key_are_spread_evenly() {
    let guess = expand_seed(&[0; 32]);
    let mut kernel = kernel();
    kernel.enter(world(services(Forward::Dsr)));
    let mut hits = BTreeMap::new();
    let mut flows = 0;
    for number in 0.. {
        let (source, port) = (0x0a40_0000 + number / 16, 1_024 + number as u16 % 16);
        let flow = FlowKey {
            source: ip(&Ipv4Addr::from(source).to_string()).into(),
            destination: ip(FLOODED).into(),
            source_port: Be16::from_host(port),
            destination_port: Be16::from_host(80),
            protocol: lb_common::abi::protocol::TCP,
            _pad: [0; 3],
        };
        // All of them to the first backend, and within a hundredth of the ring.
        let slot = slot_of(flow_hash(&guess, &flow), SLOTS);
        if slot >= 12 || !slot.is_multiple_of(BACKENDS) {
            continue;
        }
        let from = format!("{}@{port}", Ipv4Addr::from(source));
        let syn = Packet::tcp(&from, &format!("{FLOODED}@80"), flag::SYN);
        let outcome = kernel.run(&syn.bytes());
        assert_eq!(outcome.action, action::TX);
        *hits.entry(outcome.frame[5]).or_insert(0u32) += 1;
        flows += 1;
        if flows == 4_000 {
            break;
        }
    }
    println!("{hits:?}");
    for count in hits.values() {
        // Five standard deviations of 1,000 of 4,000.
        assert!((860..=1_140).contains(count), "{hits:?}");
    }
    assert_eq!(hits.len(), BACKENDS as usize);
}
