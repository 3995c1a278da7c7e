//! The controller of a history: health, changes of rings, phases, sweeps, crashes.

use lb_common::{
    abi::{BackendId, Phase, Slot},
    hash::slot_of,
};
use rand::{Rng, rngs::StdRng, seq::IteratorRandom};

use super::{
    super::{
        phases::{OldRing, advance, change_owner, needs_old_ring, new_ring_slot, old_ring, settle},
        sweep::{Census, Clock, Found, Verdict, judge},
    },
    tables::Flow,
    world::{CLOSING_IDLE, HZ, IDLE, Mutant, Service, WINDOW, World},
};

/// What the controller remembers, all of which a crash forgets, and its rates in this history.
pub struct Controller {
    /// It is away until then, jiffies.
    away_until: u64,
    next_sweep: u64,
    /// The count before.
    before: Option<Census>,
    /// The entry that a walk through a table missed last time; none is missed twice in a row.
    missed: Option<Flow>,
    change: f64,
    flap: f64,
    crash: f64,
}

impl Controller {
    pub fn new(random: &mut StdRng) -> Self {
        let mut rate = || [0.0005, 0.005, 0.05][random.random_range(0..3)];
        Self {
            away_until: 0,
            next_sweep: 0,
            before: None,
            missed: None,
            change: rate(),
            flap: rate(),
            crash: rate(),
        }
    }
}

impl World {
    /// Everything the controller does in this step.
    pub fn control(&mut self) {
        for (down, last) in self.down.iter().zip(&mut self.last_down) {
            if *down {
                *last = Some(self.now);
            }
        }
        if self.now < self.controller.away_until {
            return;
        }
        for service in 0..self.services.len() {
            if self.chance(self.controller.flap) {
                self.flap(service);
            }
            if self.chance(self.controller.change) {
                self.retarget(service);
            }
            if self.chance(self.controller.change / 10.0) {
                self.change_length(service);
            }
            if !self.apply(service) {
                return;
            }
            self.tick(service);
        }
        if self.now >= self.controller.next_sweep {
            self.controller.next_sweep = self.now + self.random.random_range(HZ..10 * HZ);
            self.sweep();
        }
    }

    /// A backend goes DOWN or comes back; its flag first, slots follow with the next apply.
    fn flap(&mut self, service: usize) {
        let backends = &self.services[service].backends;
        let Some(&backend) = backends.iter().choose(&mut self.random) else {
            return;
        };
        let down = &mut self.down[backend.0 as usize];
        *down = !*down;
        if *down {
            self.last_down[backend.0 as usize] = Some(self.now);
            for slot in 0..self.services[service].target.len() {
                if self.services[service].target[slot] == backend {
                    self.services[service].target[slot] = self.pick(service, backend);
                }
            }
        } else if self.chance(0.7) {
            self.retarget(service);
        }
    }

    /// New owners for some slots; now and then nobody (everything is drained).
    fn retarget(&mut self, service: usize) {
        let drained = self.chance(0.05);
        for slot in 0..self.services[service].target.len() {
            if drained {
                self.services[service].target[slot] = BackendId::NONE;
            } else if self.chance(0.4) || self.services[service].target[slot] == BackendId::NONE {
                let current = self.services[service].target[slot];
                self.services[service].target[slot] = self.pick(service, current);
            }
        }
    }

    /// A backend that is UP; if there is none, the current one or any (fail open).
    fn pick(&mut self, service: usize, current: BackendId) -> BackendId {
        let backends = &self.services[service].backends;
        let up = backends.iter().filter(|backend| !self.down[backend.0 as usize]);
        match up.choose(&mut self.random) {
            Some(&backend) => backend,
            None if current == BackendId::NONE => backends[0],
            None => current,
        }
    }

    /// A ring of another length in one step, as the store of a service's row is one.
    fn change_length(&mut self, service: usize) {
        let keep = match old_ring(self.services[service].slots.iter().copied()) {
            OldRing::NotYet if self.mutant != Mutant::OldRingAlwaysCurrent => return,
            OldRing::Previous if self.mutant != Mutant::OldRingAlwaysCurrent => true,
            _ => false,
        };
        let length = self.random.random_range(1..=8);
        let target: Vec<BackendId> =
            (0..length).map(|_| self.pick(service, BackendId::NONE)).collect();
        let now = self.now / HZ;
        let state = &mut self.services[service];
        let slots = target.iter().map(|owner| new_ring_slot(*owner, now)).collect();
        let replaced = std::mem::replace(&mut state.slots, slots);
        if !keep {
            state.old = replaced;
        }
        state.target = target;
        self.controller.before = None;
        self.outcome.lengths += 1;
    }

    /// Stores what differs from the target, slot by slot; false if the controller dies on the way.
    fn apply(&mut self, service: usize) -> bool {
        for slot in 0..self.services[service].slots.len() {
            let (old, new) =
                (self.services[service].slots[slot], self.services[service].target[slot]);
            if old.owner() == new {
                continue;
            }
            if self.chance(self.controller.crash) {
                self.crash();
                return false;
            }
            self.services[service].slots[slot] = self.changed(old, new);
        }
        true
    }

    fn changed(&self, old: Slot, new: BackendId) -> Slot {
        let now = self.now / HZ;
        let window = old.phase() == Phase::Window || old.phase() == Phase::Harvest;
        match self.mutant {
            Mutant::NoWindow => Slot::settled(new),
            Mutant::BaseFollows if window => Slot::new(new, old.owner(), old.phase(), old.since()),
            Mutant::PinnedChangesAtOnce if old.phase() == Phase::Pinned => {
                Slot::new(new, old.base(), Phase::Pinned, old.since())
            }
            _ => change_owner(old, new, now, true),
        }
    }

    /// Phases by the clock.
    fn tick(&mut self, service: usize) {
        let now = self.now / HZ;
        let recently = |last: u64| self.now - last <= IDLE * HZ;
        let refused = self.services[service].last_refused.is_some_and(recently)
            && self.mutant != Mutant::HarvestIgnoresRefusals;
        let harvest = if self.mutant == Mutant::NoHarvest { 0 } else { IDLE };
        let state = &mut self.services[service];
        for slot in &mut state.slots {
            *slot = advance(*slot, now, WINDOW, harvest, refused);
        }
        if !state.slots.iter().any(|slot| needs_old_ring(*slot)) {
            state.old = Vec::new();
        }
    }

    /// One sweep; packets arrive before, between and after its two walks. A crash may end it anywhere.
    fn sweep(&mut self) {
        let mut census = Census::begin(places(&self.services).collect::<Vec<_>>());
        let mut missed = None;
        for confirmed in [false, true] {
            self.packets();
            let table = if confirmed { &self.tables.confirmed } else { &self.tables.unconfirmed };
            let flows: Vec<Flow> = table.keys().copied().collect();
            for flow in flows {
                if self.chance(self.controller.crash / 100.0) {
                    return self.crash();
                }
                if missed.is_none() && self.controller.missed != Some(flow) && self.chance(0.1) {
                    missed = Some(flow);
                    continue;
                }
                self.examine(flow, confirmed, &mut census);
            }
        }
        self.controller.missed = missed;
        self.settle(&census);
        self.controller.before = Some(census);
    }

    fn examine(&mut self, flow: Flow, confirmed: bool, census: &mut Census) {
        let (unconfirmed, crowded) = (&self.tables.unconfirmed, &self.tables.confirmed);
        let (table, other) =
            if confirmed { (crowded, unconfirmed) } else { (unconfirmed, crowded) };
        let Some(pin) = table.get(&flow) else {
            return;
        };
        let slots = &self.services[flow.0].slots;
        let hash = (flow.1 + 1).wrapping_mul(0x9E37_79B9);
        let place = slot_of(hash, slots.len() as u32);
        let slot = slots[place as usize];
        let found = Found { pin, slot: Some(slot), confirmed, partner: other.contains_key(&flow) };
        let clock = Clock {
            now: self.now,
            now_seconds: self.now / HZ,
            jiffies_per_second: HZ,
            idle_seconds: IDLE,
            closing_idle_seconds: CLOSING_IDLE,
        };
        let crowding =
            self.tables.unconfirmed.len() as f64 / self.tables.unconfirmed_capacity as f64;
        let owned = slot.phase() == Phase::Harvest && pin.backend == slot.owner();
        let too_eager = self.mutant == Mutant::SweepsOwnedPinsInHarvest && owned;
        if too_eager || judge(&found, &clock, crowding) == Verdict::Delete {
            match confirmed {
                true => self.tables.confirmed.remove(&flow),
                false => self.tables.unconfirmed.remove(&flow),
            };
        } else {
            census.note(at(flow.0, place), pin.backend);
        }
    }

    fn settle(&mut self, census: &Census) {
        let all = places(&self.services).map(|(place, _)| place).collect::<Vec<_>>();
        let settleable: Vec<(u32, Slot)> = match (&self.controller.before, self.mutant) {
            (_, Mutant::SettlesAfterOneCount) => census.settleable(census).collect(),
            (_, Mutant::SettlesWithPins) => {
                all.iter().map(|&place| (place, *self.slot(place))).collect()
            }
            (Some(before), _) => census.settleable(before).collect(),
            (None, _) => Vec::new(),
        };
        for (place, seen) in settleable {
            let slot = self.slot(place);
            if *slot == seen {
                let settled = settle(seen, false);
                self.outcome.settled += (settled != seen) as u64;
                *self.slot(place) = settled;
            }
        }
    }

    fn slot(&mut self, place: u32) -> &mut Slot {
        &mut self.services[place as usize / 100].slots[place as usize % 100]
    }

    /// The controller dies; only slots and pins (and what is wanted) are left. The next one does not know when a pin was
    /// last refused, and takes it that one just was.
    fn crash(&mut self) {
        self.outcome.crashes += 1;
        self.controller.away_until = self.now + self.random.random_range(0..100 * HZ);
        self.controller.before = None;
        self.controller.missed = None;
        let back = self.controller.away_until;
        for service in &mut self.services {
            service.last_refused = Some(back);
        }
    }
}

/// All slots with their places in a common arena.
fn places(services: &[Service]) -> impl Iterator<Item = (u32, Slot)> + '_ {
    services.iter().enumerate().flat_map(|(service, state)| {
        state.slots.iter().enumerate().map(move |(slot, value)| (at(service, slot as u32), *value))
    })
}

fn at(service: usize, slot: u32) -> u32 {
    service as u32 * 100 + slot
}
