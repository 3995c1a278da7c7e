//! What the packet path needs to choose backends of services that remember every flow. Pure.

use lb_common::{
    abi::{BackendId, algorithm},
    schedule::schedule,
};

use super::ring::Member;
use crate::config::model::{Balance, Forward, Protocol, Service};

/// Who takes part in a choice, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// One of [`algorithm`].
    pub algorithm: u32,
    /// Whose turn it is, in order; empty where the algorithm knows no turns.
    pub schedule: Vec<BackendId>,
    /// Everybody with a weight, where the algorithm compares all.
    pub members: Vec<BackendId>,
    /// Weights in force.
    pub weights: Vec<(BackendId, u32)>,
}

impl Choice {
    /// Of a service with these members.
    pub fn of(service: &Service, members: &[Member]) -> Self {
        let weights: Vec<(BackendId, u32)> =
            members.iter().map(|member| (member.id, weight(member))).collect();
        let algorithm = match service.balance {
            Balance::Maglev | Balance::Source => algorithm::RING,
            Balance::Rr | Balance::Wrr => algorithm::TURN,
            Balance::Leastconn | Balance::Wlc => algorithm::LEAST,
            Balance::Random2 => algorithm::TWO,
        };
        let mut choice = Self { algorithm, weights, ..Self::default() };
        match service.balance {
            Balance::Rr | Balance::Wrr | Balance::Random2 => {
                let shares: Vec<u32> = choice.weights.iter().map(|(_, weight)| *weight).collect();
                let turns = schedule(&shares);
                choice.schedule =
                    turns.into_iter().map(|index| choice.weights[index as usize].0).collect();
            }
            Balance::Leastconn | Balance::Wlc | Balance::Maglev | Balance::Source => {
                let usable = choice.weights.iter().filter(|(_, weight)| *weight > 0);
                choice.members = usable.map(|(id, _)| *id).collect();
            }
        }
        choice
    }

    /// What of it stands in the arena.
    pub fn entries(&self) -> &[BackendId] {
        if self.schedule.is_empty() { &self.members } else { &self.schedule }
    }

    /// Sum of the weights.
    pub fn total_weight(&self) -> u32 {
        let total: u64 = self.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        u32::try_from(total).unwrap_or(u32::MAX)
    }
}

/// A member's weight in force, in ten-thousandths.
fn weight(member: &Member) -> u32 {
    u32::from(member.effective) * u32::from(member.percent) * u32::from(member.ramp)
}

/// How many flows a service may have, unconfirmed and confirmed, of tables of these sizes which `services` share. Nobody can confirm
/// a TCP flow in nat who does not see what the backend answers; of all else a service has its part, so that a flood of one takes
/// nothing from another.
pub fn bounds(service: &Service, [unconfirmed, confirmed]: [u32; 2], services: u32) -> [u32; 2] {
    let part = |size: u32| (size / services.max(1)).max(1);
    let proven = service.forward == Forward::Nat && service.listen.protocol == Protocol::Tcp;
    [part(unconfirmed), if proven { u32::MAX } else { part(confirmed) }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32, effective: u16, ramp: u8) -> Member {
        Member {
            id: BackendId(id),
            address: [10, 0, 0, id as u8].into(),
            port: 80,
            configured: 100,
            effective,
            percent: 100,
            ramp,
        }
    }

    fn service(keys: &str) -> Service {
        let text = format!(
            "services:\n  - name: web\n    listen: {{address: 192.0.2.10, port: 80}}\n    {keys}\n    backends: [{{name: a, address: 10.0.0.1}}]\n"
        );
        let source = crate::config::Source { path: "lb.yaml".into(), text };
        crate::config::parse(&source).unwrap().config.services.remove(0)
    }

    #[test]
    fn schedules_and_members_are_of_those_with_a_weight() {
        let members = [member(1, 100, 100), member(2, 0, 100), member(3, 50, 100)];
        let of = |balance: &str| {
            Choice::of(&service(&format!("forward: nat\n    balance: {balance}")), &members)
        };
        let ids = |ids: &[u32]| ids.iter().copied().map(BackendId).collect::<Vec<_>>();
        let wrr = of("wrr");
        assert_eq!((wrr.algorithm, wrr.entries().len()), (algorithm::TURN, 3));
        assert_eq!(wrr.entries().iter().filter(|id| id.0 == 1).count(), 2);
        assert_eq!(of("wlc").entries(), ids(&[1, 3]));
        assert_eq!(of("maglev").algorithm, algorithm::RING);
        assert_eq!(of("random2").algorithm, algorithm::TWO);
        assert_eq!(of("wlc").total_weight(), 1_500_000);
    }

    #[test]
    fn who_comes_back_slowly_has_a_part_of_its_weight() {
        let members = [member(1, 100, 100), member(2, 100, 25)];
        let choice = Choice::of(&service("forward: nat\n    balance: wrr"), &members);
        assert_eq!(choice.entries().iter().filter(|id| id.0 == 1).count(), 4);
        assert_eq!(choice.entries().iter().filter(|id| id.0 == 2).count(), 1);
    }

    #[test]
    fn a_service_has_its_part_of_what_can_be_made_up() {
        let nat = service("forward: nat\n    track: always");
        let dsr = service("forward: dsr\n    track: always");
        assert_eq!(bounds(&nat, [1_000, 4_000], 4), [250, u32::MAX]);
        assert_eq!(bounds(&dsr, [1_000, 4_000], 4), [250, 1_000]);
    }
}
