use std::{cell::Cell, collections::HashMap};

use proptest::prelude::*;

use super::*;

const A: BackendId = BackendId(1);
const B: BackendId = BackendId(2);

/// The tables of one flow, and what is counted.
struct Model {
    unconfirmed: Option<Pin>,
    confirmed: Option<Pin>,
    room_unconfirmed: bool,
    room_confirmed: bool,
    now: u64,
    down: Vec<BackendId>,
    next: BackendId,
    connections: HashMap<u32, i64>,
    refused: u32,
    heard_of: Option<BackendId>,
    choices: Cell<u32>,
}

impl Model {
    fn new() -> Self {
        Self {
            unconfirmed: None,
            confirmed: None,
            room_unconfirmed: true,
            room_confirmed: true,
            now: 1_000_000,
            down: Vec::new(),
            next: A,
            connections: HashMap::new(),
            refused: 0,
            heard_of: None,
            choices: Cell::new(0),
        }
    }

    /// Connections by the entries alone.
    fn counted_anew(&self) -> HashMap<u32, i64> {
        let mut counted = HashMap::new();
        for entry in [self.unconfirmed, self.confirmed].into_iter().flatten() {
            if is_open(&entry) {
                *counted.entry(entry.backend.0).or_default() += 1;
            }
        }
        counted
    }

    fn check(&self) {
        let counted: HashMap<u32, i64> =
            self.connections.clone().into_iter().filter(|(_, count)| *count != 0).collect();
        assert_eq!(counted, self.counted_anew(), "{:?} {:?}", self.unconfirmed, self.confirmed);
    }
}

impl Pins for Model {
    fn unconfirmed(&self) -> Option<Pin> {
        self.unconfirmed
    }
    fn confirmed(&self) -> Option<Pin> {
        self.confirmed
    }
    fn put_unconfirmed(&mut self, pin: &Pin) -> bool {
        let fits = self.room_unconfirmed || self.unconfirmed.is_some();
        if fits {
            self.unconfirmed = Some(*pin);
        }
        fits
    }
    fn put_confirmed(&mut self, pin: &Pin) -> bool {
        let fits = self.room_confirmed || self.confirmed.is_some();
        if fits {
            self.confirmed = Some(*pin);
        }
        fits
    }
    fn remove_unconfirmed(&mut self) {
        self.unconfirmed = None;
    }
    fn remove_confirmed(&mut self) {
        self.confirmed = None;
    }
    fn is_down(&self, backend: BackendId) -> bool {
        self.down.contains(&backend)
    }
    fn now(&self) -> u64 {
        self.now
    }
    fn refused(&mut self) {
        self.refused += 1;
    }
}

impl Flows for Model {
    fn choose(&mut self) -> BackendId {
        self.choices.set(self.choices.get() + 1);
        if self.down.contains(&self.next) { BackendId::NONE } else { self.next }
    }
    fn count(&mut self, backend: BackendId, change: Change) {
        *self.connections.entry(backend.0).or_default() +=
            if change == Change::Opened { 1 } else { -1 };
    }
    fn heard_of(&mut self, backend: BackendId) {
        self.heard_of = Some(backend);
    }
}

const NAT: About = About { service: 7, sees_replies: true };
const DSR: About = About { service: 7, sees_replies: false };

fn syn(isn: u32) -> Segment {
    Segment::Opening { isn }
}

fn ack(sequence: u32, acknowledgement: u32) -> Segment {
    Segment::Other { sequence, acknowledgement, length: 0, closing: false }
}

fn fin(sequence: u32) -> Segment {
    Segment::Other { sequence, acknowledgement: 501, length: 1, closing: true }
}

/// The backend's SYN-ACK, as the program notes it.
fn syn_ack(model: &mut Model, isn: u32, client_isn: u32) {
    if let Some(pin) = &mut model.unconfirmed {
        crate::select::note_syn_ack(pin, isn, client_isn + 1);
    }
}

#[test]
fn a_flow_stays_where_its_syn_went() {
    for about in [NAT, DSR] {
        let mut model = Model::new();
        assert_eq!(track(&about, &syn(100), &mut model), A);
        model.next = B;
        assert_eq!(track(&about, &syn(100), &mut model), A, "the SYN again");
        syn_ack(&mut model, 500, 100);
        assert!(model.heard_of.is_none(), "a SYN alone says nothing about its client");
        assert_eq!(track(&about, &ack(101, 501), &mut model), A);
        assert_eq!(model.heard_of, Some(A));
        assert!(model.unconfirmed.is_none() && model.confirmed.is_some());
        assert_eq!(track(&about, &ack(900, 900), &mut model), A);
        assert_eq!(model.connections[&1], 1);
        assert_eq!(track(&about, &fin(900), &mut model), A);
        assert_eq!(model.connections[&1], 0, "closed by its client");
        assert_eq!(track(&about, &ack(901, 950), &mut model), A, "the last ACK");
        assert_eq!(model.connections[&1], 0);
        // The same ports again.
        assert_eq!(track(&about, &syn(70_000), &mut model), B);
        assert_eq!((model.connections[&1], model.connections[&2]), (0, 1));
        model.check();
    }
}

#[test]
fn nothing_but_the_handshake_confirms() {
    let mut model = Model::new();
    track(&NAT, &syn(100), &mut model);
    for (sequence, acknowledgement) in [(101, 501), (100, 501), (65_636, 501)] {
        // On the way to the backend that has the SYN, all the same: there is no better place.
        assert_eq!(track(&NAT, &ack(sequence, acknowledgement), &mut model), A);
        assert!(model.confirmed.is_none());
    }
    syn_ack(&mut model, 500, 100);
    track(&NAT, &ack(101, 500), &mut model);
    assert!(model.confirmed.is_none(), "the acknowledgement does not fit");
    track(&NAT, &ack(101, 501), &mut model);
    assert!(model.confirmed.is_some());
}

#[test]
fn a_flow_without_room_is_the_rings() {
    let mut model = Model::new();
    model.room_unconfirmed = false;
    assert_eq!(track(&DSR, &syn(100), &mut model), BackendId::NONE);
    assert_eq!(track(&DSR, &ack(101, 501), &mut model), BackendId::NONE);
    assert_eq!((model.refused, model.connections.len()), (1, 0));
    assert_eq!(datagram(&DSR, &mut model), BackendId::NONE);
    assert_eq!(model.refused, 2);
    // Room in the table of unconfirmed flows alone: it is confirmed where it is.
    model.room_unconfirmed = true;
    model.room_confirmed = false;
    assert_eq!(track(&DSR, &syn(200), &mut model), A);
    assert_eq!(track(&DSR, &ack(201, 501), &mut model), A);
    assert_eq!(model.refused, 3);
    assert_ne!(model.unconfirmed.unwrap().flags & pin_flag::PROMOTED, 0);
    model.room_confirmed = true;
    model.now += 300;
    assert_eq!(track(&DSR, &ack(300, 501), &mut model), A);
    assert!(model.unconfirmed.is_none() && model.confirmed.is_some());
    model.check();
}

#[test]
fn nobody_is_sent_to_a_backend_that_is_down() {
    let mut model = Model::new();
    track(&DSR, &syn(100), &mut model);
    track(&DSR, &ack(101, 1), &mut model);
    model.down = vec![A];
    assert_eq!(track(&DSR, &ack(200, 1), &mut model), BackendId::NONE, "the ring's owner");
    model.next = B;
    assert_eq!(track(&DSR, &syn(7_000_000), &mut model), B);
    let mut model = Model::new();
    datagram(&DSR, &mut model);
    model.down = vec![A];
    model.next = B;
    assert_eq!(datagram(&DSR, &mut model), B, "a UDP flow moves for good");
    model.down.clear();
    assert_eq!(datagram(&DSR, &mut model), B);
    model.check();
}

#[test]
fn datagrams_are_confirmed_by_answers_or_by_going_on() {
    let mut model = Model::new();
    datagram(&NAT, &mut model);
    model.now += 1_000;
    datagram(&NAT, &mut model);
    assert!(model.confirmed.is_none(), "the client alone confirms nothing in nat");
    answered(B, &mut model);
    assert!(model.confirmed.is_none(), "another backend's answer");
    answered(A, &mut model);
    assert!(model.confirmed.is_some() && model.unconfirmed.is_none());
    let mut model = Model::new();
    datagram(&DSR, &mut model);
    datagram(&DSR, &mut model);
    assert!(model.confirmed.is_none());
    model.now += 256;
    datagram(&DSR, &mut model);
    assert!(model.confirmed.is_some() && model.unconfirmed.is_none());
    model.check();
}

#[test]
fn a_backend_may_close_first() {
    let mut model = Model::new();
    track(&NAT, &syn(100), &mut model);
    syn_ack(&mut model, 500, 100);
    track(&NAT, &ack(101, 501), &mut model);
    closed_by_backend(B, 200, false, &mut model);
    assert_eq!(model.connections[&1], 1, "another backend's FIN");
    closed_by_backend(A, 200, false, &mut model);
    assert_eq!(model.connections[&1], 0);
    track(&NAT, &ack(200, 601), &mut model);
    assert_eq!(model.connections[&1], 0, "the client's acknowledgement of the FIN");
    // A refused port.
    let mut model = Model::new();
    track(&NAT, &syn(100), &mut model);
    closed_by_backend(A, 101, true, &mut model);
    assert_eq!(model.connections[&1], 0);
    model.check();
}

#[derive(Clone, Debug)]
enum Step {
    Syn(u32),
    SynAck,
    Ack(u32, u32),
    Fin(u32),
    BackendCloses(u32, bool),
    Pass(u64),
    Room(bool, bool),
    Down(bool),
    Next(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 100u32..110;
    prop_oneof![
        prop_oneof![Just(100), Just(105), Just(5_000_000)].prop_map(Step::Syn),
        Just(Step::SynAck),
        (number.clone(), 500u32..503).prop_map(|(a, b)| Step::Ack(a, b)),
        number.clone().prop_map(Step::Fin),
        (number, any::<bool>()).prop_map(|(next, reset)| Step::BackendCloses(next, reset)),
        prop_oneof![Just(1), Just(300), Just(2_000)].prop_map(Step::Pass),
        (any::<bool>(), any::<bool>()).prop_map(|(a, b)| Step::Room(a, b)),
        any::<bool>().prop_map(Step::Down),
        any::<bool>().prop_map(Step::Next),
    ]
}

proptest! {
    /// Whatever happens, connections are as many as open entries, and no packet goes to a backend that is DOWN.
    #[test]
    fn connections_are_counted_exactly(steps in proptest::collection::vec(step(), 1..60), nat: bool) {
        let about = if nat { NAT } else { DSR };
        let mut model = Model::new();
        for step in steps {
            let sent = match step {
                Step::Syn(isn) => track(&about, &syn(isn), &mut model),
                Step::Ack(a, b) => track(&about, &ack(a, b), &mut model),
                Step::Fin(sequence) => track(&about, &fin(sequence), &mut model),
                other => {
                    match other {
                        Step::SynAck => {
                            let isn = model.unconfirmed.map_or(0, |pin| pin.client_isn);
                            syn_ack(&mut model, 500, isn);
                        }
                        Step::BackendCloses(next, reset) => {
                            closed_by_backend(A, next, reset, &mut model);
                        }
                        Step::Pass(jiffies) => model.now += jiffies,
                        Step::Room(a, b) => (model.room_unconfirmed, model.room_confirmed) = (a, b),
                        Step::Down(down) => model.down = if down { vec![A] } else { Vec::new() },
                        Step::Next(a) => model.next = if a { A } else { B },
                        _ => unreachable!(),
                    }
                    BackendId::NONE
                }
            };
            prop_assert!(!model.down.contains(&sent));
            model.check();
        }
    }

    #[test]
    fn datagrams_are_counted_exactly(steps in proptest::collection::vec(step(), 1..60), nat: bool) {
        let about = if nat { NAT } else { DSR };
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::SynAck => answered(A, &mut model),
                Step::Pass(jiffies) => model.now += jiffies,
                Step::Room(a, b) => (model.room_unconfirmed, model.room_confirmed) = (a, b),
                Step::Down(down) => model.down = if down { vec![A] } else { Vec::new() },
                Step::Next(a) => model.next = if a { A } else { B },
                _ => {
                    let sent = datagram(&about, &mut model);
                    prop_assert!(!model.down.contains(&sent));
                }
            }
            model.check();
        }
    }
}
