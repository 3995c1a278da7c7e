//! Snapshots of the balancer's counters and what changed between two of them.

use std::{collections::BTreeMap, fmt};

use aya::{Ebpf, maps::PerCpuArray};
use lb_common::abi::{BackendCounters, REASONS, Reason, map};

use super::World;

/// All counters of a world, summed over the CPUs.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By service id (0 = none) and reason.
    reasons: BTreeMap<(u32, u32), u64>,
    /// By backend id (0 = none).
    backends: BTreeMap<u32, BackendCounters>,
}

impl Counts {
    /// Reads them.
    pub(super) fn read(ebpf: &mut Ebpf, world: &World) -> Self {
        let mut counts = Self::default();
        let map_ref = ebpf.map(map::REASON_COUNTS).expect("the program declares it");
        let reasons: PerCpuArray<_, u64> = PerCpuArray::try_from(map_ref).expect("its type");
        for service in 0..=world.services.len() as u32 {
            for reason in 0..REASONS {
                let values = reasons.get(&(service * REASONS + reason), 0).expect("within");
                counts.reasons.insert((service, reason), values.iter().sum());
            }
        }
        let map_ref = ebpf.map(map::COUNTERS).expect("the program declares it");
        let backends: PerCpuArray<_, BackendCounters> =
            PerCpuArray::try_from(map_ref).expect("its type");
        for backend in 0..=world.backends() {
            let values = backends.get(&backend, 0).expect("within");
            let total = values
                .iter()
                .fold(BackendCounters::default(), |sum, c| combine(&sum, c, u64::wrapping_add));
            counts.backends.insert(backend, total);
        }
        counts
    }

    /// What has changed since an earlier snapshot of the same world.
    pub fn since(&self, before: &Self) -> Delta {
        let mut delta = Delta::default();
        for ((service, reason), count) in &self.reasons {
            let change = count - before.reasons[&(*service, *reason)];
            if change != 0 {
                delta.reasons.insert((*service, *reason), change);
            }
        }
        for (backend, counters) in &self.backends {
            let change = combine(counters, &before.backends[backend], u64::wrapping_sub);
            if change != BackendCounters::default() {
                delta.backends.insert(*backend, change);
            }
        }
        delta
    }
}

fn combine(a: &BackendCounters, b: &BackendCounters, f: fn(u64, u64) -> u64) -> BackendCounters {
    BackendCounters {
        packets: f(a.packets, b.packets),
        bytes: f(a.bytes, b.bytes),
        flows: f(a.flows, b.flows),
        reply_packets: f(a.reply_packets, b.reply_packets),
        reply_bytes: f(a.reply_bytes, b.reply_bytes),
        reply_resets: f(a.reply_resets, b.reply_resets),
        _reserved: [0; 2],
    }
}

/// Changes of counters, without those that did not change.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// By service id and reason.
    pub reasons: BTreeMap<(u32, u32), u64>,
    /// By backend id.
    pub backends: BTreeMap<u32, BackendCounters>,
}

impl Delta {
    /// One packet counted under a reason.
    pub fn reason(service: u32, reason: Reason) -> Self {
        Self::default().and(service, reason)
    }

    /// And under another one.
    pub fn and(mut self, service: u32, reason: Reason) -> Self {
        *self.reasons.entry((service, reason as u32)).or_default() += 1;
        self
    }

    /// One packet of `bytes` (layer 3) sent to a backend.
    pub fn request(backend: u32, bytes: usize, is_opening: bool) -> Self {
        let counters = BackendCounters {
            packets: 1,
            bytes: bytes as u64,
            flows: u64::from(is_opening),
            ..BackendCounters::default()
        };
        Self { backends: [(backend, counters)].into(), ..Self::default() }
    }

    /// One packet of `bytes` (layer 3) from a backend.
    pub fn reply(backend: u32, bytes: usize, is_reset: bool) -> Self {
        let counters = BackendCounters {
            reply_packets: 1,
            reply_bytes: bytes as u64,
            reply_resets: u64::from(is_reset),
            ..BackendCounters::default()
        };
        Self { backends: [(backend, counters)].into(), ..Self::default() }
    }

    /// Count of a reason over all services.
    pub fn total(&self, reason: Reason) -> u64 {
        self.reasons.iter().filter(|((_, r), _)| *r == reason as u32).map(|(_, n)| n).sum()
    }

    /// Packets dropped, by any reason.
    pub fn drops(&self) -> u64 {
        Reason::ALL.iter().filter(|reason| reason.is_drop()).map(|reason| self.total(*reason)).sum()
    }

    /// Packets sent to backends and back to clients.
    pub fn forwarded(&self) -> u64 {
        self.backends.values().map(|counters| counters.packets + counters.reply_packets).sum()
    }

    /// Packets to a backend.
    pub fn packets(&self, backend: u32) -> u64 {
        self.backends.get(&backend).map_or(0, |counters| counters.packets)
    }
}

impl fmt::Debug for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for ((service, reason), count) in &self.reasons {
            let name = Reason::ALL.iter().find(|r| **r as u32 == *reason).map_or("?", |r| r.name());
            list.entry(&format_args!("service {service} {name} +{count}"));
        }
        for (backend, counters) in &self.backends {
            list.entry(&format_args!(
                "backend {backend} packets +{} bytes +{} flows +{} replies +{} reply bytes +{} resets +{}",
                counters.packets,
                counters.bytes,
                counters.flows,
                counters.reply_packets,
                counters.reply_bytes,
                counters.reply_resets
            ));
        }
        list.finish()
    }
}
