//! When to confirm a next hop, and when to ask for it anew: pure, with time as an argument.
//!
//! The kernel confirms a neighbour only when its own stack uses it, and XDP traffic never touches the stack; a MAC address
//! that moves without a gratuitous ARP would be followed after a minute or never. So each next hop in use is probed
//! (unicast) every two seconds, and one that does not answer within one is forgotten and asked for by broadcast.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Neighbour, NeighbourState};

const CONFIRM: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_millis(900);

/// What to do about a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Have it resolved.
    Ask,
    /// Forget what is known, and have it resolved.
    AskAnew,
    /// Confirm it.
    Probe,
}

/// The next hops in use, and when each was last seen to.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    acted: HashMap<(u32, IpAddr), Option<Instant>>,
}

impl Freshness {
    /// Replaces the set.
    pub(super) fn set(&mut self, next_hops: Vec<(u32, IpAddr)>) {
        self.acted.retain(|next_hop, _| next_hops.contains(next_hop));
        for next_hop in next_hops {
            self.acted.entry(next_hop).or_default();
        }
    }

    /// What to do now.
    pub(super) fn look(
        &mut self,
        now: Instant,
        neighbours: &HashMap<(u32, IpAddr), Neighbour>,
    ) -> HashMap<(u32, IpAddr), Action> {
        let mut actions = HashMap::new();
        for (next_hop, acted) in &mut self.acted {
            let since = acted.map(|at| now.saturating_duration_since(at));
            let waited = |least: Duration| since.is_none_or(|since| since >= least);
            let action = match neighbours.get(next_hop).map(|neighbour| neighbour.state) {
                Some(NeighbourState::Permanent) => None,
                None => waited(PATIENCE).then_some(Action::Ask),
                Some(NeighbourState::Incomplete) => waited(CONFIRM).then_some(Action::Ask),
                Some(NeighbourState::Failed) => waited(PATIENCE).then_some(Action::AskAnew),
                Some(NeighbourState::Probe) => waited(PATIENCE).then_some(Action::AskAnew),
                Some(NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay) => {
                    waited(CONFIRM).then_some(Action::Probe)
                }
            };
            if let Some(action) = action {
                *acted = Some(now);
                actions.insert(*next_hop, action);
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_mac_is_asked_for_anew_within_five_seconds() {
        let hop = (1, "10.0.0.1".parse().unwrap());
        let state = |state| HashMap::from([(hop, Neighbour { mac: Some([1; 6]), state })]);
        let mut fresh = Freshness::default();
        fresh.set(vec![hop]);
        let start = Instant::now();
        let mut look = |seconds: f64, neighbours: &HashMap<_, _>| {
            fresh.look(start + Duration::from_secs_f64(seconds), neighbours).get(&hop).copied()
        };
        assert_eq!(look(0.0, &state(NeighbourState::Reachable)), Some(Action::Probe));
        assert_eq!(look(0.5, &state(NeighbourState::Reachable)), None);
        assert_eq!(look(2.0, &state(NeighbourState::Reachable)), Some(Action::Probe));
        assert_eq!(look(2.5, &state(NeighbourState::Probe)), None);
        assert_eq!(look(3.0, &state(NeighbourState::Probe)), Some(Action::AskAnew));
        assert_eq!(look(3.1, &HashMap::new()), None);
        assert_eq!(look(4.0, &HashMap::new()), Some(Action::Ask));
        assert_eq!(look(6.0, &state(NeighbourState::Permanent)), None);
        fresh.set(Vec::new());
        assert!(fresh.look(start + Duration::from_secs(9), &HashMap::new()).is_empty());
    }
}
