//! What the controller measures of itself, and how full the tables are: for Prometheus.

use std::time::SystemTime;

use super::Node;
use crate::{
    api::types::{Stats, Status},
    durations::Durations,
    metrics::{MapFill, Snapshot},
};

/// Since the daemon's start.
#[derive(Clone, Debug)]
pub struct Measures {
    /// When that was.
    start: SystemTime,
    /// Whole configurations, from the check against the host to the last map.
    pub apply: Durations,
    /// One service's change: of health, weight or administrative state.
    pub publish: Durations,
    /// Configurations that changed something.
    pub applied: u64,
    /// Configurations that are what is in force already.
    pub unchanged: u64,
    /// Configurations that were refused.
    pub refused: u64,
}

impl Measures {
    /// The daemon starts now.
    pub fn new() -> Self {
        Self {
            start: SystemTime::now(),
            apply: Durations::default(),
            publish: Durations::default(),
            applied: 0,
            unchanged: 0,
            refused: 0,
        }
    }
}

impl Node {
    /// Everything for one scrape, read at one time.
    pub(super) fn measured(&self) -> anyhow::Result<Box<Snapshot>> {
        let (status, stats): (Status, Stats) = (self.status(), self.stats()?);
        let Measures { start, apply, publish, applied, unchanged, refused } = self.measures.clone();
        Ok(Box::new(Snapshot {
            status,
            stats,
            maps: self.fills(),
            apply: apply.histogram(),
            publish: publish.histogram(),
            events: self.log.counts(),
            start,
            reloads: [("applied", applied), ("unchanged", unchanged), ("refused", refused)],
        }))
    }

    /// Tables by name.
    pub(super) fn fills(&self) -> Vec<MapFill> {
        let sizes = self.dataplane.sizes();
        let left = |limit: u32, left: u32| (u64::from(limit.saturating_sub(left)), limit.into());
        // Number 0 is never given away.
        let numbers = |limit: u32, left_over: u32| left(limit.saturating_sub(1), left_over);
        let fixed = self.dataplane.fills();
        let own = [
            ("services", numbers(sizes.services, self.service_ids.left())),
            ("backends", numbers(sizes.backends, self.backend_ids.left())),
            ("ring_slots", left(sizes.ring_slots, self.spans.left())),
            ("pins", (self.pin_counts[1], sizes.pins.into())),
            ("pins_unconfirmed", (self.pin_counts[0], sizes.pins_unconfirmed.into())),
        ];
        let [unconfirmed, confirmed, sources] = self.tracked.entries();
        let tables = [
            ("flows", (confirmed, sizes.flows.into())),
            ("flows_unconfirmed", (unconfirmed, sizes.flows_unconfirmed.into())),
            ("sources", (sources, sizes.sources.into())),
        ];
        let ports = self.ports.fill().map(|fill| ("source_ports", fill));
        // One entry: no service has the feature.
        let tables =
            tables.into_iter().filter(|(_, (_, capacity)): &(_, (u64, u64))| *capacity > 1);
        let named = |(map, (entries, capacity))| MapFill { map, entries, capacity };
        own.into_iter().chain(tables).chain(ports).chain(fixed).map(named).collect()
    }
}
