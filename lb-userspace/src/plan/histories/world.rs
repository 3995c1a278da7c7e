//! The state of a history, how time passes in it, and the way of one packet through it.

use std::collections::BTreeSet;

use lb_common::{
    abi::{BackendId, Phase, Slot, pin_flag},
    hash::slot_of,
    select::{Context, Segment, home, select},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    clients::Client,
    controller::Controller,
    tables::{Flow, Tables, View},
};

/// Jiffies in a second.
pub const HZ: u64 = 250;
/// Length of a window, seconds.
pub const WINDOW: u64 = 30;
/// Idle time of flows and length of a harvest, seconds.
pub const IDLE: u64 = 60;
/// Idle time of closing flows, seconds.
pub const CLOSING_IDLE: u64 = 20;
/// Clients (tuples) of a service.
pub const CLIENTS: u32 = 24;

const STEPS: u32 = 2_500;

macro_rules! mutants {
    ($( $(#[$doc:meta])* $name:ident ),* $(,)?) => {
        /// A rule with one clause left out or turned round.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            /// The rule as it is.
            None,
            $( $(#[$doc])* $name, )*
        }

        impl Mutant {
            pub const ALL: &[Mutant] = &[ $( Mutant::$name, )* ];
        }
    };
}

mutants! {
    /// A harvest does not pin where base equals the owner.
    HarvestSkipsOwner,
    /// A harvest pins nothing.
    HarvestPinsNothing,
    /// Openers get no pin.
    OpenersUnpinned,
    /// In PINNED, the SYN and not the completed handshake removes an old pin.
    SynRemovesPin,
    /// In PINNED, not even the completed handshake does.
    HandshakeKeepsPin,
    /// A SYN hides the confirmed pin of its tuple.
    MereSynBeatsPin,
    /// A late copy of a SYN opens its flow again.
    LateSynOpens,
    /// An opener that could not be pinned goes to the owner.
    RefusedGoesToOwner,
    /// Slots change owner without a window.
    NoWindow,
    /// Every change of owner moves the base of a window, too.
    BaseFollows,
    /// PINNED slots change owner without a new window.
    PinnedChangesAtOnce,
    /// WINDOW is followed by PINNED.
    NoHarvest,
    /// A harvest ends although pins were refused.
    HarvestIgnoresRefusals,
    /// PINNED slots settle whatever pins they have.
    SettlesWithPins,
    /// One count is enough to settle.
    SettlesAfterOneCount,
    /// The sweep deletes pins that name the owner in HARVEST, too.
    SweepsOwnedPinsInHarvest,
    /// After a change of length, unpinned flows go to the owner.
    NoOldRing,
    /// The old ring is asked for its owners whatever its phase.
    OldRingByOwner,
    /// A second change of length makes the first one's ring the old one, whatever its phase.
    OldRingAlwaysCurrent,
}

/// One service.
pub struct Service {
    pub backends: Vec<BackendId>,
    pub slots: Vec<Slot>,
    /// Empty: there is none.
    pub old: Vec<Slot>,
    /// Owners that the controller wants.
    pub target: Vec<BackendId>,
    pub sees_replies: bool,
    /// When a pin was last refused.
    pub last_refused: Option<u64>,
    /// Rings as they were before the controller's last moves: what a packet on its way still sees.
    pub stale: (Vec<Slot>, Vec<Slot>),
}

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Descriptions of packets that reached the wrong backend.
    pub misdirected: Vec<String>,
    /// Packets for which the promise was checked.
    pub promised: u64,
    /// Those of them whose slot belonged to another backend.
    pub pinned_elsewhere: u64,
    pub refused: u64,
    pub promoted: u64,
    pub settled: u64,
    pub lengths: u64,
    pub crashes: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.promised += other.promised;
        self.pinned_elsewhere += other.pinned_elsewhere;
        self.refused += other.refused;
        self.promoted += other.promoted;
        self.settled += other.settled;
        self.lengths += other.lengths;
        self.crashes += other.crashes;
    }
}

/// A packet's way: where it went and by what.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub backend: BackendId,
    pub slot: Slot,
    /// The packet's slot has this base; in PINNED none.
    pub base: BackendId,
    pub refused: bool,
}

/// The state of a history.
pub struct World {
    pub random: StdRng,
    pub mutant: Mutant,
    /// Jiffies.
    pub now: u64,
    pub services: Vec<Service>,
    /// By backend id.
    pub down: Vec<bool>,
    /// By backend id: when it was last DOWN.
    pub last_down: Vec<Option<u64>>,
    pub tables: Tables,
    pub clients: Vec<Vec<Client>>,
    /// Tuples of which a packet has seen the rings as they are now, in this step.
    fresh: BTreeSet<Flow>,
    pub controller: Controller,
    pub outcome: Outcome,
}

impl World {
    pub fn new(seed: u64, mutant: Mutant) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let number = random.random_range(1..=3);
        let mut services = Vec::new();
        let mut next_id = 1;
        for _ in 0..number {
            let backends: Vec<BackendId> =
                (0..random.random_range(2..=5)).map(|index| BackendId(next_id + index)).collect();
            next_id += backends.len() as u32;
            let target: Vec<BackendId> = (0..random.random_range(1..=8))
                .map(|_| backends[random.random_range(0..backends.len())])
                .collect();
            services.push(Service {
                backends,
                slots: target.iter().map(|owner| Slot::settled(*owner)).collect(),
                old: Vec::new(),
                target,
                sees_replies: random.random(),
                last_refused: None,
                stale: Default::default(),
            });
        }
        let mut capacity = || [4, 10, 1000][random.random_range(0..3)];
        let tables = Tables {
            unconfirmed_capacity: capacity(),
            confirmed_capacity: capacity(),
            ..Tables::default()
        };
        let clients = (0..number)
            .map(|_| (0..CLIENTS).map(|_| Client::new(random.random())).collect())
            .collect();
        let controller = Controller::new(&mut random);
        Self {
            random,
            mutant,
            now: 1_000_000,
            services,
            down: vec![false; next_id as usize],
            last_down: vec![None; next_id as usize],
            tables,
            clients,
            fresh: BTreeSet::new(),
            controller,
            outcome: Outcome::default(),
        }
    }

    pub fn run(mut self) -> Outcome {
        for _ in 0..STEPS {
            self.now += self.random.random_range(10..400);
            for service in &mut self.services {
                service.stale = (service.slots.clone(), service.old.clone());
            }
            self.fresh.clear();
            self.control();
            self.packets();
            if !self.outcome.misdirected.is_empty() {
                break;
            }
        }
        self.outcome
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    /// Whether a backend has been DOWN at or after a time.
    pub fn was_down(&self, backend: BackendId, since: u64) -> bool {
        let id = backend.0 as usize;
        self.down[id] || self.last_down[id].is_some_and(|last| last >= since)
    }

    /// Sends a packet through the rule.
    pub fn route(&mut self, service: usize, client: u32, segment: &Segment) -> Way {
        // The packets of one tuple are handled one after the other (by one CPU): none sees less than one before it.
        let on_its_way = !self.fresh.contains(&(service, client)) && self.chance(0.05);
        if !on_its_way {
            self.fresh.insert((service, client));
        }
        let state = &self.services[service];
        let (slots, old) =
            if on_its_way { (&state.stale.0, &state.stale.1) } else { (&state.slots, &state.old) };
        let hash = (client + 1).wrapping_mul(0x9E37_79B9);
        let at = |ring: &[Slot]| ring[slot_of(hash, ring.len() as u32) as usize];
        let mut slot = at(slots);
        let mut base = slot.base();
        if base == BackendId::OLD_RING {
            base = match self.mutant {
                Mutant::NoOldRing => BackendId::NONE,
                Mutant::OldRingByOwner => at(old).owner(),
                _ => home(at(old)),
            };
        }
        if base == BackendId::OLD_RING {
            base = BackendId::NONE; // only in the old ring of a mutant
        }
        let owner = slot.owner();
        if self.mutant == Mutant::HarvestPinsNothing && slot.phase() == Phase::Harvest {
            slot = Slot::new(owner, slot.base(), Phase::Window, slot.since());
        }
        let opening = matches!(segment, Segment::Opening { .. });
        if self.mutant == Mutant::SynRemovesPin && opening && slot.phase() == Phase::Pinned {
            self.tables.confirmed.remove(&(service, client));
        }
        let context = Context {
            slot,
            base,
            service: service as u32,
            sees_replies: self.services[service].sees_replies,
        };
        let mut view = View {
            tables: &mut self.tables,
            flow: (service, client),
            slot,
            down: &self.down,
            now: self.now,
            refused: 0,
            mutant: self.mutant,
        };
        let mut backend = select(&context, segment, &mut view);
        let refused = view.refused > 0;
        if refused {
            self.outcome.refused += 1;
            self.services[service].last_refused = Some(self.now);
            if opening && self.mutant == Mutant::RefusedGoesToOwner {
                backend = owner;
            }
        }
        let pin = self.tables.unconfirmed.get(&(service, client));
        self.outcome.promoted += pin.is_some_and(|pin| pin.flags & pin_flag::PROMOTED != 0) as u64;
        Way { backend, slot, base, refused }
    }
}
