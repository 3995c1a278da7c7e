//! Flows of slots whose owner has changed: the program with real pin tables, against the rule and against the same rule
//! on tables in memory.

use std::{collections::HashMap, sync::MutexGuard};

use lb_common::{
    abi::{
        BackendId, FlowKey, Forward, Phase, Pin, Reason, Slot, backend_flag, map, pin_flag,
        protocol,
    },
    be::Be16,
    hash::{flow_hash, slot_of},
    select::{Context, Pins, Segment, note_syn_ack, select},
};
use lb_tests::kernel::{
    Kernel, World, action, hash_keys,
    packet::{Packet, flag},
    world::{CLIENT, Route, Service, ip},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const VIP: &str = "198.51.100.7";
const SLOTS: u32 = 1021;
const OLD: BackendId = BackendId(1);
const NEW: BackendId = BackendId(2);
const THIRD: BackendId = BackendId(3);
const CLIENT_ISN: u32 = 0x1000_0000;
const SERVER_ISN: u32 = 0x2000_0000;

/// One service with three backends, in some mode.
fn enter(forward: Forward) -> MutexGuard<'static, Kernel> {
    let mut kernel = Kernel::shared();
    let mut world = World::of([Service::new(VIP, forward, &["10.1.0.1", "10.1.0.2", "10.1.0.3"])]);
    let gateway = Some((ip("10.1.0.254"), Some(CLIENT)));
    world.routes = vec![Route { prefix: (ip("0.0.0.0"), 0), gateway, mtu: 1500 }];
    kernel.enter(world);
    kernel
}

/// Every slot in the same state.
fn set_all(kernel: &mut Kernel, slot: Slot) {
    for index in 0..SLOTS {
        kernel.set_slot(1, index, slot);
    }
}

/// Marks backends DOWN or UP.
fn set_down(kernel: &mut Kernel, backend: BackendId, is_down: bool) {
    let mut rows = kernel.array::<lb_common::abi::BackendRow>(map::BACKENDS);
    let mut row = rows.get(&backend.0, 0).expect("within");
    row.flags = backend_flag::RESOLVED | if is_down { backend_flag::DOWN } else { 0 };
    rows.set(backend.0, row, 0).expect("within");
}

/// A client's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow(u16);

impl Flow {
    fn packet(self, flags: u8, sequence: u32, acknowledgement: u32, length: usize) -> Packet {
        let source = format!("192.0.2.33@{}", self.0);
        Packet::tcp(&source, &format!("{VIP}@80"), flags).filled(length).with_tcp(|tcp| {
            (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement);
        })
    }

    fn key(self) -> FlowKey {
        FlowKey {
            source: ip("192.0.2.33").into(),
            destination: ip(VIP).into(),
            source_port: Be16::from_host(self.0),
            destination_port: Be16::from_host(80),
            protocol: protocol::TCP,
            _pad: [0; 3],
        }
    }

    fn slot(self) -> u32 {
        slot_of(flow_hash(&hash_keys(), &self.key()), SLOTS)
    }

    /// Sends a packet; the backend it reaches.
    fn send(
        self,
        kernel: &Kernel,
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        length: usize,
    ) -> BackendId {
        let packet = self.packet(flags, sequence, acknowledgement, length);
        let outcome = kernel.run(&packet.bytes());
        assert_eq!(outcome.action, action::TX, "{outcome:?}");
        // The next hop's MAC address ends with the backend's number from 0.
        BackendId(u32::from(outcome.frame[5]) + 1)
    }

    fn syn(self, kernel: &Kernel, isn: u32) -> BackendId {
        self.send(kernel, flag::SYN, isn, 0, 0)
    }

    /// The ACK that completes the handshake.
    fn complete(self, kernel: &Kernel) -> BackendId {
        self.send(kernel, flag::ACK, CLIENT_ISN + 1, SERVER_ISN + 1, 0)
    }

    fn data(self, kernel: &Kernel) -> BackendId {
        self.send(kernel, flag::ACK | flag::PSH, CLIENT_ISN + 1, SERVER_ISN + 1, 100)
    }

    /// The SYN-ACK of a backend, which nat sees.
    fn syn_ack(self, kernel: &Kernel, backend: BackendId, isn: u32, client_isn: u32) {
        let source = format!("10.1.0.{}@8080", backend.0);
        let packet = Packet::tcp(&source, &format!("192.0.2.33@{}", self.0), flag::SYN | flag::ACK)
            .with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (isn, client_isn + 1));
        let outcome = kernel.run(&packet.bytes());
        assert_eq!(outcome.action, action::TX, "{outcome:?}");
    }
}

const MODES: [Forward; 3] = [Forward::Nat, Forward::Dsr, Forward::Ipip];

fn window(kernel: &mut Kernel, phase: Phase) {
    set_all(kernel, Slot::new(NEW, OLD, phase, 0));
}

#[test]
fn a_settled_slot_reads_and_writes_no_pin() {
    for forward in MODES {
        let mut kernel = enter(forward);
        set_all(&mut kernel, Slot::settled(THIRD));
        for port in 1000..1100 {
            assert_eq!(Flow(port).syn(&kernel, CLIENT_ISN), THIRD);
            assert_eq!(Flow(port).complete(&kernel), THIRD);
            assert_eq!(Flow(port).data(&kernel), THIRD);
        }
        assert_eq!(kernel.pin_counts(), (0, 0), "{forward:?}");
    }
}

#[test]
fn in_a_window_old_flows_stay_and_new_ones_go_to_the_owner() {
    for forward in MODES {
        for phase in [Phase::Window, Phase::Harvest] {
            let mut kernel = enter(forward);
            window(&mut kernel, phase);
            let (old, new) = (Flow(1001), Flow(1002));
            assert_eq!(old.data(&kernel), OLD, "{forward:?} {phase:?}: a flow from before");
            assert_eq!(new.syn(&kernel, CLIENT_ISN), NEW);
            let (confirmed, unconfirmed) = kernel.pins(&new.key());
            let pin = unconfirmed.expect("a SYN makes an unconfirmed pin");
            assert_eq!((confirmed, pin.backend, pin.client_isn), (None, NEW, CLIENT_ISN));
            // A second change of the owner: the pin keeps the flow where its SYN went.
            set_all(&mut kernel, Slot::new(THIRD, OLD, phase, 0));
            assert_eq!(new.syn(&kernel, CLIENT_ISN), NEW, "{forward:?} {phase:?}: the SYN again");
            if forward == Forward::Nat {
                new.syn_ack(&kernel, NEW, SERVER_ISN, CLIENT_ISN);
            }
            assert_eq!(new.complete(&kernel), NEW, "{forward:?} {phase:?}: the handshake");
            let (confirmed, unconfirmed) = kernel.pins(&new.key());
            assert_eq!(confirmed.map(|pin| pin.backend), Some(NEW), "{forward:?} {phase:?}");
            assert_eq!(unconfirmed, None);
            assert_eq!(new.data(&kernel), NEW);
            assert_eq!(old.data(&kernel), OLD);
            let pinned = kernel.pins(&old.key()).0.map(|pin| pin.backend);
            // Only harvest pins those that have none.
            assert_eq!(pinned, (phase == Phase::Harvest).then_some(OLD), "{forward:?} {phase:?}");
        }
    }
}

#[test]
fn nothing_but_the_handshake_confirms() {
    for forward in MODES {
        let mut kernel = enter(forward);
        window(&mut kernel, Phase::Window);
        let flow = Flow(1003);
        assert_eq!(flow.syn(&kernel, CLIENT_ISN), NEW);
        if forward == Forward::Nat {
            flow.syn_ack(&kernel, NEW, SERVER_ISN, CLIENT_ISN);
        }
        // Sequence numbers that do not fit (1 to 65,535 behind the SYN's): a flow from before, or a guess.
        for sequence in [CLIENT_ISN, CLIENT_ISN + 65_536, CLIENT_ISN - 1, 7] {
            let backend = flow.send(&kernel, flag::ACK, sequence, SERVER_ISN + 1, 10);
            assert_eq!(backend, OLD, "{forward:?}: sequence {sequence:#x}");
        }
        if forward == Forward::Nat {
            for acknowledgement in [SERVER_ISN, SERVER_ISN + 65_536, 7] {
                let backend = flow.send(&kernel, flag::ACK, CLIENT_ISN + 1, acknowledgement, 10);
                assert_eq!(backend, OLD, "acknowledgement {acknowledgement:#x}");
            }
        }
        assert_eq!(kernel.pins(&flow.key()).0, None, "{forward:?}");
        let last = flow.send(&kernel, flag::ACK, CLIENT_ISN + 65_535, SERVER_ISN + 65_535, 0);
        assert_eq!(last, NEW, "{forward:?}");
        assert!(kernel.pins(&flow.key()).0.is_some(), "{forward:?}");
    }
}

#[test]
fn nat_waits_for_the_servers_answer() {
    let mut kernel = enter(Forward::Nat);
    window(&mut kernel, Phase::Window);
    let flow = Flow(1004);
    assert_eq!(flow.syn(&kernel, CLIENT_ISN), NEW);
    assert_eq!(flow.complete(&kernel), OLD, "no SYN-ACK was seen yet");
    // Answers of another backend, or to another SYN, do not count.
    flow.syn_ack(&kernel, OLD, SERVER_ISN, CLIENT_ISN);
    assert_eq!(flow.complete(&kernel), OLD, "another backend's SYN-ACK");
    flow.syn_ack(&kernel, NEW, SERVER_ISN, CLIENT_ISN + 9);
    assert_eq!(flow.complete(&kernel), OLD, "an answer to another SYN");
    flow.syn_ack(&kernel, NEW, SERVER_ISN, CLIENT_ISN);
    let pin = kernel.pins(&flow.key()).1.expect("an unconfirmed pin");
    assert_eq!(
        (pin.server_isn, pin.flags & pin_flag::SERVER_ISN),
        (SERVER_ISN, pin_flag::SERVER_ISN)
    );
    assert_eq!(flow.complete(&kernel), NEW);
}

#[test]
fn fin_and_rst_mark_a_pin_and_delete_nothing() {
    for (flags, length) in [(flag::FIN | flag::ACK, 0), (flag::RST, 0), (flag::FIN | flag::ACK, 20)]
    {
        let mut kernel = enter(Forward::Dsr);
        window(&mut kernel, Phase::Window);
        let flow = Flow(1005);
        assert_eq!(flow.syn(&kernel, CLIENT_ISN), NEW);
        assert_eq!(flow.complete(&kernel), NEW);
        let send =
            |kernel: &Kernel| flow.send(kernel, flags, CLIENT_ISN + 1, SERVER_ISN + 1, length);
        assert_eq!(send(&kernel), NEW);
        let pin = kernel.pins(&flow.key()).0.expect("still there");
        assert_ne!(pin.flags & pin_flag::CLOSING, 0, "flags {flags:#x}");
        assert_eq!(send(&kernel), NEW, "the same again");
        assert_ne!(kernel.pins(&flow.key()).0.expect("still there").flags & pin_flag::CLOSING, 0);
        // B36: the reset was not the peer's; the flow goes on.
        let more = flow.send(&kernel, flag::ACK, CLIENT_ISN + 500, SERVER_ISN + 1, 100);
        assert_eq!(more, NEW);
        assert_eq!(kernel.pins(&flow.key()).0.expect("still there").flags & pin_flag::CLOSING, 0);
    }
}

#[test]
fn in_pinned_pins_lead_and_nothing_is_inserted() {
    for forward in MODES {
        let mut kernel = enter(forward);
        window(&mut kernel, Phase::Window);
        let flow = Flow(1006);
        assert_eq!(flow.syn(&kernel, CLIENT_ISN), NEW);
        if forward == Forward::Nat {
            flow.syn_ack(&kernel, NEW, SERVER_ISN, CLIENT_ISN);
        }
        assert_eq!(flow.complete(&kernel), NEW);
        set_all(&mut kernel, Slot::new(THIRD, BackendId::NONE, Phase::Pinned, 0));
        let before = kernel.pin_counts();
        assert_eq!(flow.data(&kernel), NEW, "{forward:?}: a pinned flow");
        for port in 2000..2100 {
            assert_eq!(Flow(port).syn(&kernel, CLIENT_ISN), THIRD, "{forward:?}: a new flow");
            assert_eq!(Flow(port).data(&kernel), THIRD, "{forward:?}: an unknown flow");
        }
        assert_eq!(kernel.pin_counts(), before, "{forward:?}: nothing is inserted");
        // The same 5-tuple again: a mere SYN does not take the old flow's pin, the handshake does.
        let again = CLIENT_ISN + 0x0100_0000;
        assert_eq!(flow.syn(&kernel, again), THIRD, "{forward:?}: the tuple used again");
        assert_eq!(flow.data(&kernel), NEW, "{forward:?}: the old flow after a SYN");
        if forward == Forward::Nat {
            flow.syn_ack(&kernel, THIRD, SERVER_ISN, again);
        }
        let complete = flow.send(&kernel, flag::ACK, again + 1, SERVER_ISN + 1, 0);
        assert_eq!(complete, THIRD, "{forward:?}: the handshake");
        assert_eq!(kernel.pins(&flow.key()), (None, None), "{forward:?}");
    }
}

#[test]
fn down_backends_lose_their_flows_to_the_owner() {
    for forward in MODES {
        let mut kernel = enter(forward);
        window(&mut kernel, Phase::Window);
        let (old, new) = (Flow(1007), Flow(1008));
        assert_eq!(new.syn(&kernel, CLIENT_ISN), NEW);
        if forward == Forward::Nat {
            new.syn_ack(&kernel, NEW, SERVER_ISN, CLIENT_ISN);
        }
        assert_eq!(new.complete(&kernel), NEW);
        set_all(&mut kernel, Slot::new(THIRD, OLD, Phase::Window, 0));
        set_down(&mut kernel, NEW, true);
        set_down(&mut kernel, OLD, true);
        assert_eq!(new.data(&kernel), THIRD, "{forward:?}: its pin's backend is DOWN");
        assert_eq!(old.data(&kernel), THIRD, "{forward:?}: its base is DOWN");
        set_down(&mut kernel, NEW, false);
        set_down(&mut kernel, OLD, false);
        assert_eq!(new.data(&kernel), NEW, "{forward:?}: the pin was not forgotten");
        assert_eq!(old.data(&kernel), OLD, "{forward:?}");
    }
}

#[test]
fn udp_follows_the_owner_at_once() {
    let mut kernel = Kernel::shared();
    let service = Service::new(VIP, Forward::Nat, &["10.1.0.1", "10.1.0.2", "10.1.0.3"]).udp();
    kernel.enter(World::of([service]));
    for phase in [Phase::Window, Phase::Harvest, Phase::Pinned] {
        window(&mut kernel, phase);
        for port in 1000..1050 {
            let frame = Packet::udp(&format!("192.0.2.33@{port}"), &format!("{VIP}@80")).bytes();
            assert_eq!(
                kernel.run(&frame).frame[5],
                1,
                "{phase:?}: the owner is the second backend"
            );
        }
    }
    assert_eq!(kernel.pin_counts(), (0, 0));
}

/// Pin tables in memory.
#[derive(Default)]
struct Model {
    confirmed: HashMap<FlowKey, Pin>,
    unconfirmed: HashMap<FlowKey, Pin>,
    down: [bool; 4],
    slots: Vec<Slot>,
    now: u64,
}

/// The tables for one flow.
struct FlowPins<'a>(&'a mut Model, FlowKey);

impl Pins for FlowPins<'_> {
    fn unconfirmed(&self) -> Option<Pin> {
        self.0.unconfirmed.get(&self.1).copied()
    }
    fn confirmed(&self) -> Option<Pin> {
        self.0.confirmed.get(&self.1).copied()
    }
    fn put_unconfirmed(&mut self, pin: &Pin) -> bool {
        self.0.unconfirmed.insert(self.1, *pin);
        true
    }
    fn put_confirmed(&mut self, pin: &Pin) -> bool {
        self.0.confirmed.insert(self.1, *pin);
        true
    }
    fn remove_unconfirmed(&mut self) {
        self.0.unconfirmed.remove(&self.1);
    }
    fn remove_confirmed(&mut self) {
        self.0.confirmed.remove(&self.1);
    }
    fn is_down(&self, backend: BackendId) -> bool {
        self.0.down[backend.0 as usize]
    }
    fn now(&self) -> u64 {
        self.0.now
    }
    fn refused(&mut self) {
        panic!("the tables in memory are never full");
    }
}

impl Model {
    fn select(&mut self, flow: Flow, segment: &Segment, sees_replies: bool) -> BackendId {
        let slot = self.slots[flow.slot() as usize];
        let context = Context { slot, base: slot.base(), service: 1, sees_replies };
        select(&context, segment, &mut FlowPins(self, flow.key()))
    }

    fn syn_ack(&mut self, flow: Flow, backend: BackendId, isn: u32, acknowledgement: u32) {
        if self.slots[flow.slot() as usize].phase() == Phase::Settled {
            return;
        }
        if let Some(pin) = self.unconfirmed.get_mut(&flow.key())
            && pin.backend == backend
        {
            note_syn_ack(pin, isn, acknowledgement);
        }
    }
}

/// What of a pin does not depend on when within a jiffy a packet came.
fn timeless(pin: Option<Pin>) -> Option<Pin> {
    pin.map(|pin| Pin { last_seen: 0, created: 0, ..pin })
}

#[test]
fn random_histories_as_the_rule_says() {
    let seed: u64 = match std::env::var("LB_TEST_SEED") {
        Ok(text) => text.parse().expect("LB_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("LB_TEST_SEED={seed} repeats this run");
    let mut random = StdRng::seed_from_u64(seed);
    let mut packets = 0;
    let mut history = 0;
    while packets < 30_000 {
        history += 1;
        let forward = MODES[history % 3];
        let mut kernel = enter(forward);
        let mut model =
            Model { slots: vec![Slot::settled(OLD); SLOTS as usize], ..Model::default() };
        set_all(&mut kernel, Slot::settled(OLD));
        let flows: Vec<Flow> = (0..12).map(|_| Flow(random.random_range(1024..60_000))).collect();
        let start = kernel.jiffies();
        for step in 0..1500 {
            model.now = kernel.jiffies();
            // A young pin and one to be written again are told by their age: both limits are further away than this.
            if model.now - start > lb_common::select::TOUCH_JIFFIES - 20 {
                break;
            }
            let flow = flows[random.random_range(0..flows.len())];
            let told = |what: &str| {
                format!(
                    "seed {seed}, history {history}, step {step}, {forward:?}, {flow:?}: {what}"
                )
            };
            match random.random_range(0..40) {
                0 => {
                    let (owner, base) = (random_backend(&mut random), random_backend(&mut random));
                    let phase = [Phase::Settled, Phase::Window, Phase::Harvest, Phase::Pinned]
                        [random.random_range(0..4)];
                    let slot = Slot::new(owner, base, phase, 0);
                    model.slots[flow.slot() as usize] = slot;
                    kernel.set_slot(1, flow.slot(), slot);
                    continue;
                }
                1 => {
                    let backend = random_backend(&mut random);
                    let is_down = random.random_bool(0.4);
                    model.down[backend.0 as usize] = is_down;
                    set_down(&mut kernel, backend, is_down);
                    continue;
                }
                2..10 if forward == Forward::Nat => {
                    let backend = random_backend(&mut random);
                    let isn = random_isn(&mut random, SERVER_ISN);
                    let client_isn = random_isn(&mut random, CLIENT_ISN);
                    flow.syn_ack(&kernel, backend, isn, client_isn);
                    model.syn_ack(flow, backend, isn, client_isn + 1);
                }
                10..18 => {
                    let isn = random_isn(&mut random, CLIENT_ISN);
                    let expected =
                        model.select(flow, &Segment::Opening { isn }, forward == Forward::Nat);
                    assert_eq!(flow.syn(&kernel, isn), expected, "{}", told("a SYN"));
                }
                _ => {
                    let sequence = random_sequence(&mut random, CLIENT_ISN);
                    let acknowledgement = random_sequence(&mut random, SERVER_ISN);
                    let payload: usize = [0, 0, 1, 100][random.random_range(0..4)];
                    let flags = [flag::ACK, flag::ACK, flag::ACK, flag::FIN | flag::ACK, flag::RST]
                        [random.random_range(0..5)];
                    let is_fin = flags & flag::FIN != 0;
                    let segment = Segment::Other {
                        sequence,
                        acknowledgement,
                        length: payload as u32 + u32::from(is_fin),
                        closing: is_fin || flags & flag::RST != 0,
                    };
                    let expected = model.select(flow, &segment, forward == Forward::Nat);
                    let backend = flow.send(&kernel, flags, sequence, acknowledgement, payload);
                    assert_eq!(backend, expected, "{}", told(&format!("{segment:?}")));
                }
            }
            packets += 1;
            let (confirmed, unconfirmed) = kernel.pins(&flow.key());
            let key = flow.key();
            assert_eq!(
                (timeless(confirmed), timeless(unconfirmed)),
                (
                    timeless(model.confirmed.get(&key).copied()),
                    timeless(model.unconfirmed.get(&key).copied())
                ),
                "{}",
                told("pins (confirmed, unconfirmed)")
            );
        }
    }
}

fn random_backend(random: &mut StdRng) -> BackendId {
    BackendId(random.random_range(1..=3))
}

/// One of few initial sequence numbers, so that they meet again.
fn random_isn(random: &mut StdRng, base: u32) -> u32 {
    base + 0x0010_0000 * random.random_range(0..3u32)
}

/// A sequence number in or near the handshake of one of them.
fn random_sequence(random: &mut StdRng, base: u32) -> u32 {
    const STEPS: [u32; 9] = [0, 1, 1, 1, 2, 101, 65_535, 65_536, 0x0800_0000];
    random_isn(random, base) + STEPS[random.random_range(0..STEPS.len())]
}

#[test]
fn a_full_table_sends_new_flows_where_unpinned_flows_go() {
    let _shared = enter(Forward::Dsr); // this thread's network namespace
    let options = lb_tests::kernel::Options { pins: 16, ..Default::default() };
    let mut kernel = Kernel::load(options).expect("the balancer");
    kernel.enter(World::of([Service::new(
        VIP,
        Forward::Dsr,
        &["10.1.0.1", "10.1.0.2", "10.1.0.3"],
    )]));
    window(&mut kernel, Phase::Window);
    let before = kernel.counts();
    let backends: Vec<BackendId> =
        (3000..3200).map(|port| Flow(port).syn(&kernel, CLIENT_ISN)).collect();
    let pinned = backends.iter().filter(|backend| **backend == NEW).count();
    let refused = backends.iter().filter(|backend| **backend == OLD).count();
    assert_eq!(pinned + refused, 200, "{backends:?}");
    assert_eq!(kernel.pin_counts(), (0, pinned));
    let delta = kernel.counts().since(&before);
    assert_eq!(delta.total(Reason::PinRefused), refused as u64, "{delta:?}");
    // And there they stay.
    for (port, backend) in (3000..3200).zip(backends) {
        let flow = Flow(port);
        if backend == OLD {
            assert_eq!(flow.complete(&kernel), OLD, "port {port}");
        }
    }
}
