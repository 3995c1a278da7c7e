//! What is remembered from packet to packet, and what a packet is known to have met on its way.

use crate::{
    counted::Connections, fragment::Memory, fullnat::Ports, openings::Opened, outcome::Outcome,
    slots::Pins, track::Tracked,
};

/// All of it.
#[derive(Debug, Default)]
pub struct State {
    /// Where first fragments went.
    pub fragments: Memory,
    /// Flows that are remembered because their slot has changed.
    pub pins: Pins,
    /// Flows of full nat.
    pub ports: Ports,
    /// Who has opened how many connections, and who has proven itself.
    pub openings: Opened,
    /// Connections of services that count them.
    pub connections: Connections,
    /// Flows of services that remember all.
    pub tracked: Tracked,
    /// Counted beside what becomes of the packet.
    counted: Vec<(u32, &'static str)>,
    parts: Vec<&'static str>,
}

impl State {
    /// The packet in hand has met this part.
    pub fn met(&mut self, part: &'static str) {
        if !self.parts.contains(&part) {
            self.parts.push(part);
        }
    }

    /// It is counted under this reason, whatever becomes of it.
    pub fn count(&mut self, service: u32, reason: &'static str) {
        self.counted.push((service, reason));
    }

    /// The packet's outcome with all of that; the next one begins anew.
    pub fn concluded(&mut self, mut outcome: Outcome) -> Outcome {
        outcome.counted.reasons.append(&mut self.counted);
        outcome.parts = std::mem::take(&mut self.parts);
        outcome
    }
}
