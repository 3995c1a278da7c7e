//! What `plan::members` is asked for a loaded service, and its answer in the words of the ring.

use super::loaded::{Backend, Service};
use crate::plan::{
    members::{Before, Candidate, Decision, Rules, decide},
    ring,
};

impl Backend {
    /// Everything that is known of it.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            configured: self.spec.weight,
            weight: self.weight(),
            admin: self.admin,
            removed: self.removed,
            healthy: self.voted.unwrap_or_else(|| self.counts_as_healthy()),
            agent: self.says(),
            ejected: self.passive.is_ejected(),
            ramp: self.ramp,
            tier: self.spec.tier,
            sorry: self.spec.sorry,
        }
    }
}

impl Service {
    /// Who would serve now.
    pub fn decide(&self) -> Decision {
        self.decide_among(self.backends.iter().map(Backend::candidate).collect())
    }

    /// Who would serve with this backend (by its place in the list) ejected.
    pub fn decide_without(&self, ejected: usize) -> Decision {
        let mut candidates: Vec<Candidate> = self.backends.iter().map(Backend::candidate).collect();
        candidates[ejected].ejected = true;
        self.decide_among(candidates)
    }

    fn decide_among(&self, candidates: Vec<Candidate>) -> Decision {
        let rules = Rules {
            on_all_down: self.spec.on_all_down,
            quorum: self.spec.quorum,
            hysteresis: self.spec.hysteresis,
            panic_threshold: self.spec.panic_threshold,
        };
        decide(&rules, &candidates, Before { short: self.short, new_ring: self.ring.slots == 0 })
    }

    /// Makes a decision the one in force.
    pub fn take(&mut self, decision: &Decision) {
        self.mode = decision.mode;
        self.mode_reason.clone_from(&decision.reason);
        // What is not known yet is no lost quorum.
        if self.starting_until.is_none() {
            self.short = decision.short;
        }
    }

    /// Length of its ring, if nothing is in its way.
    pub fn wanted_slots(&self) -> u32 {
        let staying = self.backends.iter().filter(|backend| !backend.removed);
        ring::ring_length(staying.map(|backend| backend.spec.weight), self.spec.ring_size)
    }

    /// Its backends as the ring sees them.
    pub fn ring_members(&self, decision: &Decision) -> Vec<ring::Member> {
        let staying = self.backends.iter().zip(&decision.parts).filter(|(b, _)| !b.removed);
        // Where weights do not count, they do not count for what falls back to the ring either.
        let weight = |weight: u16| match self.spec.balance.ignores_weights() {
            true if weight > 0 => 100,
            _ => weight,
        };
        staying
            .map(|(backend, part)| ring::Member {
                id: backend.id,
                address: backend.spec.address,
                port: backend.spec.port,
                configured: weight(part.configured),
                effective: weight(part.effective),
                percent: part.percent,
                ramp: part.ramp,
            })
            .collect()
    }
}
