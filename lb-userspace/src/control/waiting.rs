//! Services whose backends have changed: the first change of each is due at once, later ones of the same service wait for
//! company, and whoever has waited longest comes first. So a service that flaps delays no other.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// Changes of a service after a first one wait this long for company.
const TOGETHER: Duration = Duration::from_millis(100);

/// Services by id, each with the time at which it is due.
#[derive(Debug, Default)]
pub struct Waiting {
    /// In the order in which they are due.
    queue: BTreeSet<(Instant, u32)>,
    /// The same by service.
    due: HashMap<u32, Instant>,
    /// When services were last taken, as far as it still matters.
    taken: HashMap<u32, Instant>,
}

impl Waiting {
    /// A service has changed now.
    pub fn insert(&mut self, service: u32) {
        self.insert_at(service, Instant::now());
    }

    fn insert_at(&mut self, service: u32, now: Instant) {
        if self.due.contains_key(&service) {
            return;
        }
        let due = self.taken.get(&service).map_or(now, |taken| now.max(*taken + TOGETHER));
        self.due.insert(service, due);
        self.queue.insert((due, service));
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// The service that is due and has waited longest.
    pub fn take(&mut self, now: Instant) -> Option<u32> {
        let &(due, service) = self.queue.first().filter(|(due, _)| *due <= now)?;
        self.queue.remove(&(due, service));
        self.due.remove(&service);
        // Who has rested long enough is not remembered: the map stays as short as changes are recent.
        self.taken.retain(|_, taken| *taken + TOGETHER > now);
        self.taken.insert(service, now);
        Some(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_first_change_of_each_is_due_at_once_and_later_ones_together() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        waiting.insert_at(1, start);
        assert_eq!(waiting.take(start), Some(1));
        waiting.insert_at(1, after(start, 10));
        waiting.insert_at(1, after(start, 20));
        assert_eq!(waiting.next_due(), Some(after(start, 100)));
        assert_eq!(waiting.take(after(start, 99)), None);
        // Another service does not wait for it.
        waiting.insert_at(2, after(start, 30));
        assert_eq!(waiting.take(after(start, 30)), Some(2));
        assert_eq!(waiting.take(after(start, 100)), Some(1));
        assert_eq!((waiting.take(after(start, 100)), waiting.next_due()), (None, None));
        // Long after its last change it is a first one again.
        waiting.insert_at(1, after(start, 900));
        assert_eq!(waiting.take(after(start, 900)), Some(1));
    }

    /// A hundred services that change all the time, and one that changes now.
    #[test]
    fn a_hundred_that_flap_keep_nobody_waiting_for_more_than_those_before_it() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        for round in 0..20u64 {
            let now = after(start, round * 100);
            (1..=100).for_each(|flapping| waiting.insert_at(flapping, now));
            if round == 10 {
                // Half of them are done when it comes.
                (0..50).for_each(|_| assert!(waiting.take(now).is_some()));
                waiting.insert_at(999, now);
                (1..=50).for_each(|flapping| waiting.insert_at(flapping, now));
                let turns = std::iter::from_fn(|| waiting.take(now)).take_while(|id| *id != 999);
                assert!(turns.count() <= 50, "those that had been done come after it");
            }
            while waiting.take(now).is_some() {}
            assert!(waiting.taken.len() <= 101, "{}", waiting.taken.len());
        }
    }
}
