//! When to confirm a next hop, and when to give its MAC address up. Pure: time comes in, actions come out.
//!
//! The kernel confirms a neighbour only when it sends to it itself, and most packets here never pass its stack. So
//! every next hop in use is confirmed every [`CONFIRM`]; a confirmation unanswered for [`GIVE_UP`] is replaced by a
//! question to everybody. A MAC address that moved silently is thus found after at most the sum of both.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::snapshot::{Neighbour, NeighbourState};

/// How old a confirmation may get.
const CONFIRM: Duration = Duration::from_secs(2);
/// How long a unicast confirmation may stay unanswered; the kernel itself would take three times that long.
const GIVE_UP: Duration = Duration::from_secs(1);
/// How often a neighbour that does not answer at all is asked for.
const RETRY: Duration = Duration::from_secs(1);

/// Neighbours that do not answer are asked for in turn, so many at a look: thousands at once would be more reports than the
/// kernel has room for, and the answers of others would be lost among them.
const AT_A_LOOK: usize = 500;

/// Interface index and address.
pub(super) type Key = (u32, IpAddr);

/// What the kernel is to do about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask the MAC address known whether it is still there.
    Probe,
    /// Forget it and ask everybody.
    Replace,
    /// Ask everybody.
    Resolve,
}

/// The next hops in use.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    watched: HashMap<Key, Watch>,
}

#[derive(Debug)]
struct Watch {
    state: Option<NeighbourState>,
    /// When `state` began.
    since: Instant,
    /// When to confirm it next.
    confirm_at: Instant,
    /// The last `Replace` or `Resolve`.
    asked: Option<Instant>,
}

impl Freshness {
    /// Replaces the set; those that stay keep their history.
    pub(super) fn watch(
        &mut self,
        keys: Vec<Key>,
        now: Instant,
        state: impl Fn(&Key) -> Option<NeighbourState>,
    ) {
        let keys: HashSet<Key> = keys.into_iter().collect();
        self.watched.retain(|key, _| keys.contains(key));
        for key in keys {
            self.watched.entry(key).or_insert_with(|| Watch {
                state: state(&key),
                since: now,
                confirm_at: now + stagger(&key),
                asked: None,
            });
        }
    }

    /// The kernel reported a neighbour, or that there is none (any more).
    pub(super) fn observe(&mut self, key: &Key, neighbour: Option<&Neighbour>, now: Instant) {
        let Some(watch) = self.watched.get_mut(key) else { return };
        let state = neighbour.map(|neighbour| neighbour.state);
        if state == Some(NeighbourState::Reachable) {
            watch.confirm_at = now + CONFIRM;
        }
        if state != watch.state {
            watch.state = state;
            watch.since = now;
        }
    }

    /// What is due now. Reports that have arrived must have been given to `observe` first, or a process that was
    /// stopped for a while would give up neighbours which have long answered.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Key, Action)> {
        let mut silent: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, watch)| watch.is_silent() && watch.may_ask(now))
            .map(|(key, watch)| (watch.asked, *key))
            .collect();
        if silent.len() > AT_A_LOOK {
            // Who has waited longest.
            silent.select_nth_unstable(AT_A_LOOK);
            silent.truncate(AT_A_LOOK);
        }
        let silent: HashSet<Key> = silent.into_iter().map(|(_, key)| key).collect();
        let mut actions: Vec<_> = self
            .watched
            .iter_mut()
            .filter(|(key, watch)| !watch.is_silent() || silent.contains(key))
            .filter_map(|(key, watch)| Some((*key, watch.due(now)?)))
            .collect();
        actions.sort_unstable_by_key(|(key, _)| *key);
        actions
    }

    /// Whether a packet's wish for a neighbour is news: not if the neighbour was asked for just now.
    pub(super) fn may_want(&mut self, key: &Key, now: Instant) -> bool {
        let Some(watch) = self.watched.get_mut(key) else { return true };
        if !watch.may_ask(now) {
            return false;
        }
        watch.asked = Some(now);
        true
    }
}

impl Watch {
    /// There is no neighbour, and the kernel does not ask for it.
    fn is_silent(&self) -> bool {
        matches!(self.state, None | Some(NeighbourState::None | NeighbourState::Failed))
    }

    fn may_ask(&self, now: Instant) -> bool {
        self.asked.is_none_or(|asked| now >= asked + RETRY)
    }

    fn due(&mut self, now: Instant) -> Option<Action> {
        let may_ask = self.may_ask(now);
        match self.state {
            _ if self.is_silent() && may_ask => {
                self.asked = Some(now);
                Some(Action::Resolve)
            }
            Some(NeighbourState::Probe) if may_ask && now >= self.since + GIVE_UP => {
                self.asked = Some(now);
                Some(Action::Replace)
            }
            Some(NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay)
                if now >= self.confirm_at =>
            {
                self.confirm_at = now + CONFIRM;
                Some(Action::Probe)
            }
            // Incomplete: the kernel is asking. Permanent, NoArp: not ours to touch.
            _ => None,
        }
    }
}

/// Spreads the first confirmations of many next hops over the interval.
fn stagger(key: &Key) -> Duration {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    Duration::from_millis(hash % CONFIRM.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (3, IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    fn neighbour(state: NeighbourState) -> Neighbour {
        Neighbour { mac: Some([2, 0, 0, 0, 0, 1]), state }
    }

    struct Clock {
        start: Instant,
        freshness: Freshness,
    }

    impl Clock {
        fn new(state: Option<NeighbourState>) -> Self {
            let start = Instant::now();
            let mut freshness = Freshness::default();
            freshness.watch(vec![KEY], start, |_| state);
            Self { start, freshness }
        }

        fn at(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }

        fn observe(&mut self, milliseconds: u64, state: Option<NeighbourState>) {
            let now = self.at(milliseconds);
            self.freshness.observe(&KEY, state.map(neighbour).as_ref(), now);
        }

        fn due(&mut self, milliseconds: u64) -> Option<Action> {
            let now = self.at(milliseconds);
            self.freshness.due(now).pop().map(|(_, action)| action)
        }
    }

    #[test]
    fn a_reachable_neighbour_is_confirmed_two_seconds_after_its_last_answer() {
        let mut clock = Clock::new(Some(NeighbourState::Reachable));
        clock.observe(100, Some(NeighbourState::Reachable));
        assert_eq!(clock.due(2099), None);
        assert_eq!(clock.due(2100), Some(Action::Probe));
        assert_eq!(clock.due(2101), None, "one question at a time");
        clock.observe(2102, Some(NeighbourState::Probe));
        clock.observe(2110, Some(NeighbourState::Reachable));
        assert_eq!(clock.due(4109), None);
        assert_eq!(clock.due(4110), Some(Action::Probe));
    }

    #[test]
    fn an_unanswered_confirmation_becomes_a_question_to_everybody_after_a_second() {
        let mut clock = Clock::new(Some(NeighbourState::Stale));
        assert_eq!(clock.due(2000), Some(Action::Probe));
        clock.observe(2001, Some(NeighbourState::Probe));
        assert_eq!(clock.due(3000), None);
        assert_eq!(clock.due(3001), Some(Action::Replace));
        assert_eq!(clock.due(3002), None, "not twice");
        clock.observe(3002, None);
        clock.observe(3003, Some(NeighbourState::Incomplete));
        assert_eq!(clock.due(6000), None, "the kernel is asking");
        clock.observe(6003, Some(NeighbourState::Failed));
        assert_eq!(clock.due(6003), Some(Action::Resolve));
        assert_eq!(clock.due(7002), None);
        assert_eq!(clock.due(7003), Some(Action::Resolve), "it never gives up for good");
    }

    #[test]
    fn an_unknown_neighbour_is_resolved_at_once_and_fixed_ones_are_left_alone() {
        assert_eq!(Clock::new(None).due(0), Some(Action::Resolve));
        for state in [NeighbourState::Permanent, NeighbourState::NoArp] {
            assert_eq!(Clock::new(Some(state)).due(60_000), None, "{state:?}");
        }
    }

    #[test]
    fn thousands_that_do_not_answer_are_asked_for_in_turn_and_keep_nobody_else_waiting() {
        let start = Instant::now();
        let key = |n: u16| (1, IpAddr::from([10, 0, (n >> 8) as u8, n as u8]));
        let mut freshness = Freshness::default();
        freshness.watch((0..1_800).map(key).collect(), start, |_| None);
        let mut asked = HashMap::<Key, u32>::new();
        let mut look = |freshness: &mut Freshness, milliseconds: u64| {
            let due = freshness.due(start + Duration::from_millis(milliseconds));
            assert!(due.len() <= AT_A_LOOK + 1, "{}", due.len());
            due.into_iter().for_each(|(key, _)| *asked.entry(key).or_default() += 1);
            asked.clone()
        };
        (0..4).for_each(|round| drop(look(&mut freshness, round * 200)));
        assert_eq!(look(&mut freshness, 900).len(), 1_800, "each has had its turn");
        // One that has answered is confirmed whatever the others do.
        freshness.observe(&key(7), Some(&neighbour(NeighbourState::Reachable)), start);
        let before = look(&mut freshness, 1_000)[&key(7)];
        assert_eq!(look(&mut freshness, 2_000)[&key(7)], before + 1);
        assert!(!freshness.may_want(&key(7), start), "it was asked for just now");
        assert!(freshness.may_want(&(9, KEY.1), start), "nobody watches it");
    }

    #[test]
    fn first_confirmations_are_spread_and_a_new_set_keeps_the_history_of_those_that_stay() {
        let start = Instant::now();
        let keys: Vec<Key> = (0..200).map(|n| (1, IpAddr::from([10, 0, 0, n]))).collect();
        let mut freshness = Freshness::default();
        freshness.watch(keys.clone(), start, |_| Some(NeighbourState::Stale));
        let early = freshness.due(start + CONFIRM / 2).len();
        assert!((60..140).contains(&early), "{early} of 200 in the first half");
        freshness.watch(keys[..100].to_vec(), start + CONFIRM, |_| None);
        let later = freshness.due(start + CONFIRM);
        assert!(later.iter().all(|(_, action)| *action == Action::Probe), "{later:?}");
        assert!(later.len() < 100, "{}", later.len());
    }
}
