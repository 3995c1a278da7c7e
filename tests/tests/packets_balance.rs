//! Each algorithm in the real program against its definition, with fixed seeds: turns are exact, the fewest connections are those of an
//! exact simulation of the same openings and closings, and no load exceeds its factor.

use std::sync::MutexGuard;

use lb_common::{
    abi::{FlowKey, Forward, algorithm, protocol},
    balance::{Candidate, draw},
    be::Be16,
    hash::{flow_hash, slot_of},
    schedule::schedule,
};
use lb_tests::kernel::{
    Kernel, Options, World, action, hash_keys,
    packet::{Packet, flag},
    world::{Backend, Service, ip},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const VIP: &str = "198.51.100.7";
const ISN: u32 = 0x1000_0000;

fn enter(service: Service) -> MutexGuard<'static, Kernel> {
    let options = Options { flows: 1 << 15, sources: 1, ..Options::default() };
    let mut kernel = Kernel::shared_with(options);
    kernel.enter(World::of([service]));
    kernel
}

/// A dsr service whose backends have these weights.
fn weighted(weights: &[u64]) -> Service {
    let mut service = Service::new(VIP, Forward::Dsr, &[]);
    service.backends = (0..weights.len())
        .map(|number| {
            Backend::new(&format!("10.1.{}.{}", number / 250, number % 250 + 1), number as u8)
        })
        .collect();
    service.weights(weights)
}

/// A client's flow, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow(u32);

impl Flow {
    fn source(self) -> (String, u16) {
        let [_, b, c, d] = (self.0 / 50_000).to_be_bytes();
        (format!("10.{}.{c}.{d}", 64 + b), 1_024 + (self.0 % 50_000) as u16)
    }

    fn send(self, kernel: &Kernel, flags: u8, sequence: u32) -> u32 {
        let (address, port) = self.source();
        let packet = Packet::tcp(&format!("{address}@{port}"), &format!("{VIP}@80"), flags)
            .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, 1));
        let outcome = kernel.run(&packet.bytes());
        assert_eq!(outcome.action, action::TX, "{outcome:?}");
        u32::from(outcome.frame[5])
    }

    fn open(self, kernel: &Kernel) -> u32 {
        let backend = self.send(kernel, flag::SYN, ISN);
        assert_eq!(self.send(kernel, flag::ACK, ISN + 1), backend, "{self:?}");
        backend
    }

    fn close(self, kernel: &Kernel) -> u32 {
        self.send(kernel, flag::FIN | flag::ACK, ISN + 1)
    }

    fn hash(self) -> u32 {
        let (address, port) = self.source();
        let key = FlowKey {
            source: ip(&address).into(),
            destination: ip(VIP).into(),
            source_port: Be16::from_host(port),
            destination_port: Be16::from_host(80),
            protocol: protocol::TCP,
            _pad: [0; 3],
        };
        flow_hash(&hash_keys(), &key)
    }
}

/// What the balancer should do, by the definitions and nothing else.
struct Simulation {
    connections: Vec<u64>,
    weights: Vec<u64>,
    turn: u64,
}

impl Simulation {
    fn new(weights: &[u64]) -> Self {
        Self { connections: vec![0; weights.len()], weights: weights.to_vec(), turn: 0 }
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn - 1
    }

    /// The first, from the turn on, with the smallest (connections + 1) / weight, by exact fractions.
    fn least(&mut self) -> usize {
        let members: Vec<usize> =
            (0..self.weights.len()).filter(|i| self.weights[*i] > 0).collect();
        let first = (self.next_turn() % members.len() as u64) as usize;
        let mut best: Option<usize> = None;
        for step in 0..members.len() {
            let one = members[(first + step) % members.len()];
            let load =
                |i: usize| (u128::from(self.connections[i] + 1), u128::from(self.weights[i]));
            let is_better =
                best.is_none_or(|best| load(one).0 * load(best).1 < load(best).0 * load(one).1);
            best = if is_better { Some(one) } else { best };
        }
        best.expect("somebody has a weight")
    }
}

#[test]
fn turns_are_exact() {
    for weights in [vec![1u64; 3], vec![5, 1, 1], vec![256, 64, 16], vec![100, 0, 50], vec![1; 40]]
    {
        let shares: Vec<u32> = weights.iter().map(|weight| *weight as u32).collect();
        let turns = schedule(&shares);
        let cycle = turns.len();
        let mut kernel = enter(weighted(&weights).tracked(algorithm::TURN, turns.clone()));
        let rounds = 3;
        let mut had = vec![0u64; weights.len()];
        for number in 0..(cycle * rounds) as u32 {
            let backend = Flow(number).open(&kernel);
            assert_eq!(backend, turns[number as usize % cycle], "flow {number} of {weights:?}");
            had[backend as usize] += 1;
        }
        let total: u64 = weights.iter().sum();
        for (had, weight) in had.iter().zip(&weights) {
            assert_eq!(had * total, (cycle * rounds) as u64 * weight, "{weights:?}: {had:?}");
        }
        assert_eq!(kernel.service_load(1).connections, (cycle * rounds) as u64);
    }
}

/// Openings and closings by chance, each choice compared with the simulation's.
fn compare(
    weights: &[u64],
    algorithm: u32,
    seed: u64,
    choose: impl Fn(&mut Simulation, Flow) -> usize,
) {
    let members = (0..weights.len() as u32).filter(|i| weights[*i as usize] > 0);
    let choices: Vec<u32> = match algorithm {
        algorithm::LEAST => members.collect(),
        _ => schedule(&weights.iter().map(|weight| *weight as u32).collect::<Vec<_>>()),
    };
    let mut kernel = enter(weighted(weights).tracked(algorithm, choices));
    let mut simulation = Simulation::new(weights);
    let mut random = StdRng::seed_from_u64(seed);
    let mut open: Vec<(Flow, u32)> = Vec::new();
    for number in 0..3_000 {
        // Long-lived ones among short-lived ones; in the middle, many close.
        let closes = if (1_200..1_800).contains(&number) { 0.8 } else { 0.3 };
        if !open.is_empty() && random.random_bool(closes) {
            let (flow, backend) = open.swap_remove(random.random_range(0..open.len()));
            assert_eq!(flow.close(&kernel), backend, "flow {flow:?} closes");
            simulation.connections[backend as usize] -= 1;
            continue;
        }
        let flow = Flow(number);
        let expected = choose(&mut simulation, flow);
        let backend = flow.open(&kernel);
        assert_eq!(
            backend as usize, expected,
            "step {number}, weights {weights:?}, connections {:?}",
            simulation.connections
        );
        simulation.connections[expected] += 1;
        open.push((flow, backend));
    }
    for (id, connections) in (1..).zip(&simulation.connections) {
        assert_eq!(kernel.connections(id), *connections, "backend {id} of {weights:?}");
    }
    assert_eq!(kernel.service_load(1).connections, open.len() as u64);
}

#[test]
fn the_fewest_connections_are_those_of_an_exact_simulation() {
    for (seed, weights) in
        [vec![100u64; 4], vec![1, 2, 3, 4], vec![256, 1, 100, 0, 50], vec![7; 23]]
            .into_iter()
            .enumerate()
    {
        compare(&weights, algorithm::LEAST, seed as u64, |simulation, _| simulation.least());
    }
}

#[test]
fn as_many_backends_as_there_may_be_are_compared() {
    let weights = vec![100; lb_common::balance::MEMBERS as usize];
    let kernel = enter(weighted(&weights).tracked(algorithm::LEAST, 0..weights.len() as u32));
    let mut had = vec![0; weights.len()];
    for number in 0..2 * weights.len() as u32 {
        had[Flow(number).open(&kernel) as usize] += 1;
    }
    assert!(had.iter().all(|had| *had == 2), "{had:?}");
}

#[test]
fn of_two_drawn_the_less_loaded_is_taken() {
    for (seed, weights) in [vec![100u64; 10], vec![1, 2, 3, 4]].into_iter().enumerate() {
        let turns = schedule(&weights.iter().map(|weight| *weight as u32).collect::<Vec<_>>());
        compare(&weights, algorithm::TWO, 40 + seed as u64, |simulation, flow| {
            let (one, other) = draw(simulation.next_turn(), flow.hash(), turns.len() as u32);
            let candidate = |place: u32| {
                let index = turns[place as usize] as usize;
                Candidate {
                    id: index as u32 + 1,
                    connections: simulation.connections[index],
                    weight: simulation.weights[index],
                }
            };
            let (one, other) = (candidate(one), candidate(other));
            if other.is_better_than(&one) { other.id as usize - 1 } else { one.id as usize - 1 }
        });
    }
}

#[test]
fn two_choices_are_much_more_even_than_one() {
    const FLOWS: u32 = 5_000;
    let kernel = enter(weighted(&[100; 10]).tracked(algorithm::TWO, 0..10));
    let mut had = [0u32; 10];
    for number in 0..FLOWS {
        had[Flow(number).open(&kernel) as usize] += 1;
    }
    let (least, most) = (had.iter().min().expect("ten"), had.iter().max().expect("ten"));
    // By chance alone the standard deviation would be 21; the power of two choices leaves a few.
    assert!(most - least <= 10, "{had:?}");
}

#[test]
fn no_load_exceeds_its_factor_and_who_has_room_is_where_the_ring_says() {
    for (seed, factor, weights) in [
        (1, 125u32, vec![100u64; 5]),
        (2, 110, vec![1, 2, 3, 4]),
        (3, 101, vec![100; 12]),
        (4, 200, vec![256, 1, 1]),
    ] {
        // Half of the ring is the first backend's: it would get half of all flows.
        let mut service = weighted(&weights)
            .tracked(algorithm::RING, 0..weights.len() as u32)
            .policy(|policy| policy.factor = factor);
        let count = weights.len() as u32;
        service.ring =
            (0..1021).map(|slot| if slot % 2 == 0 { 0 } else { slot / 2 % count }).collect();
        let ring = service.ring.clone();
        let kernel = &mut *enter(service);
        let mut random = StdRng::seed_from_u64(seed);
        let total_weight: u64 = weights.iter().sum();
        let mut connections = vec![0u64; weights.len()];
        let mut open: Vec<(Flow, u32)> = Vec::new();
        let mut moved = 0;
        for number in 0..3_000 {
            if open.len() > 50 && random.random_bool(0.45) {
                let (flow, backend) = open.swap_remove(random.random_range(0..open.len()));
                flow.close(kernel);
                connections[backend as usize] -= 1;
                continue;
            }
            let flow = Flow(number);
            let all = open.len() as u64;
            let bound = |index: usize| {
                (u64::from(factor) * (all + 1) * weights[index]).div_ceil(100 * total_weight)
            };
            let owner = ring[slot_of(flow.hash(), 1021) as usize];
            let backend = flow.open(kernel);
            connections[backend as usize] += 1;
            assert!(
                connections[backend as usize] <= bound(backend as usize),
                "step {number}: backend {backend} has {connections:?} of {} by a factor of {factor}",
                all + 1
            );
            if connections[owner as usize] + u64::from(owner != backend) <= bound(owner as usize) {
                assert_eq!(backend, owner, "step {number}: the owner has room: {connections:?}");
            } else {
                moved += 1;
            }
            open.push((flow, backend));
        }
        assert!(moved > 100, "the bound was reached: {moved}");
        for (id, connections) in (1..).zip(&connections) {
            assert_eq!(kernel.connections(id), *connections);
        }
    }
}

#[test]
fn nobody_with_a_weight_is_the_rings_business() {
    let kernel = enter(weighted(&[0, 0]).tracked(algorithm::LEAST, [0, 1]));
    let ring = |flow: Flow| slot_of(flow.hash(), 1021) % 2;
    for number in 0..20 {
        let flow = Flow(number);
        assert_eq!(flow.send(&kernel, flag::SYN, ISN), ring(flow), "flow {number}");
    }
}
