//! The two pin tables of a history, and one packet's view of them.

use std::collections::BTreeMap;

use lb_common::{
    abi::{BackendId, Phase, Pin, Slot},
    select::Pins,
};

use super::world::Mutant;

/// Service (its place in the world) and the client's number.
pub type Flow = (usize, u32);

/// The pin tables, ordered so that a history repeats.
#[derive(Default)]
pub struct Tables {
    pub unconfirmed: BTreeMap<Flow, Pin>,
    pub confirmed: BTreeMap<Flow, Pin>,
    pub unconfirmed_capacity: usize,
    pub confirmed_capacity: usize,
}

/// What one packet sees of the tables.
pub struct View<'a> {
    pub tables: &'a mut Tables,
    pub flow: Flow,
    pub slot: Slot,
    pub down: &'a [bool],
    pub now: u64,
    pub refused: u32,
    pub mutant: Mutant,
}

impl Pins for View<'_> {
    fn unconfirmed(&self) -> Option<Pin> {
        self.tables.unconfirmed.get(&self.flow).copied()
    }

    fn confirmed(&self) -> Option<Pin> {
        let pin = self.tables.confirmed.get(&self.flow).copied();
        match self.mutant {
            Mutant::MereSynBeatsPin => pin.filter(|_| self.unconfirmed().is_none()),
            // The rule asks only whether this is the SYN that made the pin.
            Mutant::LateSynOpens => {
                pin.map(|pin| Pin { client_isn: pin.client_isn.wrapping_add(1), ..pin })
            }
            _ => pin,
        }
    }

    fn put_unconfirmed(&mut self, pin: &Pin) -> bool {
        if self.mutant == Mutant::OpenersUnpinned {
            return true;
        }
        put(&mut self.tables.unconfirmed, self.tables.unconfirmed_capacity, self.flow, pin)
    }

    fn put_confirmed(&mut self, pin: &Pin) -> bool {
        let harvest =
            self.slot.phase() == Phase::Harvest && !self.tables.confirmed.contains_key(&self.flow);
        let harvested = harvest && pin.client_isn == 0;
        if harvested && self.mutant == Mutant::HarvestSkipsOwner && pin.backend == self.slot.owner()
        {
            return true;
        }
        put(&mut self.tables.confirmed, self.tables.confirmed_capacity, self.flow, pin)
    }

    fn remove_unconfirmed(&mut self) {
        self.tables.unconfirmed.remove(&self.flow);
    }

    fn remove_confirmed(&mut self) {
        if self.mutant != Mutant::HandshakeKeepsPin {
            self.tables.confirmed.remove(&self.flow);
        }
    }

    fn is_down(&self, backend: BackendId) -> bool {
        self.down[backend.0 as usize]
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn refused(&mut self) {
        self.refused += 1;
    }
}

fn put(table: &mut BTreeMap<Flow, Pin>, capacity: usize, flow: Flow, pin: &Pin) -> bool {
    let room = table.len() < capacity || table.contains_key(&flow);
    if room {
        table.insert(flow, *pin);
    }
    room
}
