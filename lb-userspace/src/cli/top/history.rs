//! Rates per second of services and backends, and their course over the last minutes.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use lb_common::abi::Reason;

use super::model::Place;
use crate::api::types::{Counters, ServiceStats, Stats};

/// Samples that are kept: four minutes at one a second.
pub const SAMPLES: usize = 240;

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets, both ways.
    pub packets: f64,
    /// Bits, both ways.
    pub bits: f64,
    /// New flows.
    pub flows: f64,
    /// Packets dropped; backends have none of their own.
    pub drops: f64,
    /// Resets from backends.
    pub resets: f64,
}

/// The course of everything.
#[derive(Debug, Default)]
pub struct History {
    last: Option<(Instant, HashMap<Place, Count>)>,
    courses: HashMap<Place, VecDeque<Rate>>,
}

/// What is counted of one place.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    counters: Counters,
    drops: u64,
}

impl History {
    /// Takes the counters of one moment. Who is new has no rate yet; who is gone is forgotten.
    pub fn add(&mut self, at: Instant, stats: &Stats) {
        let now: HashMap<Place, Count> = counts(stats).collect();
        let Some((then, before)) = self.last.replace((at, now)) else { return };
        let Some((_, now)) = &self.last else { return };
        let seconds = at.saturating_duration_since(then).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        self.courses.retain(|place, _| now.contains_key(place));
        for (place, count) in now {
            let Some(before) = before.get(place) else { continue };
            let course = self.courses.entry(place.clone()).or_default();
            if course.len() == SAMPLES {
                course.pop_front();
            }
            course.push_back(rate(before, count, seconds));
        }
    }

    /// The rate now; `None` = not known yet.
    pub fn rate(&self, place: &Place) -> Option<Rate> {
        self.courses.get(place)?.back().copied()
    }

    /// The course, the oldest first.
    pub fn course(&self, place: &Place, value: impl Fn(&Rate) -> f64) -> Vec<f64> {
        self.courses.get(place).into_iter().flatten().map(value).collect()
    }
}

fn counts(stats: &Stats) -> impl Iterator<Item = (Place, Count)> {
    // What belongs to no service is a service without a name.
    let node = Place { service: String::new(), backend: None };
    let nobody = Count { counters: Counters::default(), drops: drops(stats.node.iter()) };
    let services = stats.services.iter().flat_map(|service| {
        let total = Count { counters: service.total, drops: drops(service.reasons.iter()) };
        let backends = service.backends.iter().map(|backend| {
            (place(service, Some(&backend.name)), Count { counters: backend.counters, drops: 0 })
        });
        std::iter::once((place(service, None), total)).chain(backends)
    });
    std::iter::once((node, nobody)).chain(services)
}

fn place(service: &ServiceStats, backend: Option<&str>) -> Place {
    Place { service: service.name.clone(), backend: backend.map(str::to_owned) }
}

fn drops<'a>(reasons: impl Iterator<Item = (&'a String, &'a u64)>) -> u64 {
    let is_drop =
        |name: &str| Reason::ALL.iter().any(|reason| reason.is_drop() && reason.name() == name);
    reasons.filter(|(name, _)| is_drop(name)).map(|(_, count)| count).sum()
}

/// A counter that went back (lb was detached and started anew) counts from 0.
fn rate(before: &Count, now: &Count, seconds: f64) -> Rate {
    let grown = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now) as f64 / seconds;
    let (b, n) = (&before.counters, &now.counters);
    Rate {
        packets: grown(b.packets_in, n.packets_in) + grown(b.packets_out, n.packets_out),
        bits: 8.0 * (grown(b.bytes_in, n.bytes_in) + grown(b.bytes_out, n.bytes_out)),
        flows: grown(b.flows, n.flows),
        drops: grown(before.drops, now.drops),
        resets: grown(b.resets, n.resets),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::api::types::BackendStats;

    fn stats(packets: u64, drops: u64, backends: &[&str]) -> Stats {
        let counters =
            Counters { packets_in: packets, bytes_in: packets * 100, ..Counters::default() };
        let backend = |name: &&str| BackendStats {
            name: (*name).into(),
            counters,
            ..BackendStats::default()
        };
        let service = ServiceStats {
            name: "web".into(),
            total: counters,
            reasons: BTreeMap::from([("ttl".to_owned(), drops), ("echo".to_owned(), 9)]),
            backends: backends.iter().map(backend).collect(),
            ..ServiceStats::default()
        };
        Stats { services: vec![service], node: BTreeMap::from([("no_service".to_owned(), drops)]) }
    }

    fn at(place: &str) -> Place {
        match place.split_once('/') {
            None => Place { service: place.into(), backend: None },
            Some((service, backend)) => {
                Place { service: service.into(), backend: Some(backend.into()) }
            }
        }
    }

    #[test]
    fn rates_are_per_second_and_drops_are_drops_only() {
        let mut history = History::default();
        let start = Instant::now();
        history.add(start, &stats(100, 0, &["web1"]));
        assert_eq!(history.rate(&at("web")), None);
        history.add(start + Duration::from_secs(2), &stats(300, 8, &["web1", "web2"]));
        let rate = history.rate(&at("web")).unwrap();
        assert_eq!((rate.packets, rate.bits, rate.drops), (100.0, 80_000.0, 4.0));
        assert_eq!(history.rate(&at("")).unwrap().drops, 4.0);
        assert_eq!(history.rate(&at("web/web1")).unwrap().packets, 100.0);
        assert_eq!(history.rate(&at("web/web2")), None, "a newcomer");
        history.add(start + Duration::from_secs(3), &stats(40, 0, &["web2"]));
        assert_eq!(history.rate(&at("web")).unwrap().packets, 40.0, "counted from 0");
        assert_eq!(history.rate(&at("web/web1")), None, "gone");
        assert_eq!(history.course(&at("web"), |rate| rate.packets), [100.0, 40.0]);
    }

    #[test]
    fn the_course_has_a_limit() {
        let mut history = History::default();
        let start = Instant::now();
        for second in 0..SAMPLES as u64 + 10 {
            history.add(start + Duration::from_secs(second), &stats(second, 0, &[]));
        }
        assert_eq!(history.course(&at("web"), |rate| rate.packets).len(), SAMPLES);
    }
}
