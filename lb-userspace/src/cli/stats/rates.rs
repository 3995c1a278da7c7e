//! Rates per second between two samples.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::types::{Counters, Stats};

/// Per second, by `SERVICE` and `SERVICE/BACKEND`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Rates(BTreeMap<String, Rate>);

/// Counters per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Packets to backends.
    pub packets_in: f64,
    /// Their bytes.
    pub bytes_in: f64,
    /// Packets from backends.
    pub packets_out: f64,
    /// Their bytes.
    pub bytes_out: f64,
    /// New flows.
    pub flows: f64,
    /// Resets.
    pub resets: f64,
}

impl Rates {
    /// From one sample to a later one. Who was not in the first has no rate; a counter that went back (lb was detached
    /// and started anew) counts from 0.
    pub fn between(before: &Stats, after: &Stats, seconds: f64) -> Self {
        let before: BTreeMap<String, Counters> = named(before).collect();
        let rates = named(after).filter_map(|(name, now)| {
            let then = before.get(&name)?;
            Some((name, Rate::between(then, &now, seconds)))
        });
        Self(rates.collect())
    }

    /// Of a service.
    pub fn service(&self, service: &str) -> Option<Rate> {
        self.0.get(service).copied()
    }

    /// Of a backend.
    pub fn backend(&self, service: &str, backend: &str) -> Option<Rate> {
        self.0.get(&format!("{service}/{backend}")).copied()
    }
}

impl Rate {
    fn between(then: &Counters, now: &Counters, seconds: f64) -> Self {
        let rate = |then: u64, now: u64| {
            let grown = now.checked_sub(then).unwrap_or(now) as f64;
            if seconds > 0.0 { grown / seconds } else { 0.0 }
        };
        Self {
            packets_in: rate(then.packets_in, now.packets_in),
            bytes_in: rate(then.bytes_in, now.bytes_in),
            packets_out: rate(then.packets_out, now.packets_out),
            bytes_out: rate(then.bytes_out, now.bytes_out),
            flows: rate(then.flows, now.flows),
            resets: rate(then.resets, now.resets),
        }
    }
}

fn named(stats: &Stats) -> impl Iterator<Item = (String, Counters)> {
    stats.services.iter().flat_map(|service| {
        let backends = service
            .backends
            .iter()
            .map(|backend| (format!("{}/{}", service.name, backend.name), backend.counters));
        std::iter::once((service.name.clone(), service.total)).chain(backends)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{BackendStats, ServiceStats};

    fn stats(packets: u64, backend: &str) -> Stats {
        let counters = Counters { packets_in: packets, ..Counters::default() };
        let backend = BackendStats { name: backend.into(), counters, ..BackendStats::default() };
        let service = ServiceStats {
            name: "web".into(),
            total: counters,
            backends: vec![backend],
            ..ServiceStats::default()
        };
        Stats { services: vec![service], ..Stats::default() }
    }

    #[test]
    fn rates_are_per_second() {
        let rates = Rates::between(&stats(100, "a"), &stats(400, "a"), 2.0);
        assert_eq!(rates.service("web").unwrap().packets_in, 150.0);
        assert_eq!(rates.backend("web", "a").unwrap().packets_in, 150.0);
        assert_eq!(rates.backend("web", "b"), None);
    }

    #[test]
    fn newcomers_restarts_and_no_time_are_harmless() {
        let rates = Rates::between(&stats(100, "a"), &stats(40, "b"), 1.0);
        assert_eq!(rates.backend("web", "b"), None);
        assert_eq!(rates.service("web").unwrap().packets_in, 40.0);
        let rates = Rates::between(&stats(1, "a"), &stats(2, "a"), 0.0);
        assert_eq!(rates.service("web").unwrap().packets_in, 0.0);
    }
}
