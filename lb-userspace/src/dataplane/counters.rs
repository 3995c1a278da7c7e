//! Counters, summed over CPUs.

use std::io;

use aya::maps::{MapData, MapError};
use lb_common::abi::{BackendCounters, HandshakeTimes, REASONS};

use super::batch::Batch;

/// Ids read at a time: what one call has to find room for.
const SPAN: u32 = 256;

/// The counter maps.
pub(super) struct Counters {
    backends: Batch<u32, BackendCounters>,
    reasons: Batch<u32, u64>,
    handshakes: Batch<u32, HandshakeTimes>,
    untouched: Untouched,
}

/// Ids from these on have never been used: what is counted for them is zero, as the kernel has made it.
#[derive(Clone, Copy, Debug)]
struct Untouched {
    backends: u32,
    services: u32,
}

impl Untouched {
    /// Nobody knows who has used adopted maps.
    const NONE: Self = Self { backends: u32::MAX, services: u32::MAX };
    const ALL: Self = Self { backends: 0, services: 0 };
}

impl Counters {
    /// Over the maps `COUNTERS`, `REASON_COUNTS` and `HANDSHAKE_TIMES`; `adopted`: an earlier daemon has used them.
    pub(super) fn new(
        backends: MapData,
        reasons: MapData,
        handshakes: MapData,
        adopted: bool,
    ) -> Result<Self, MapError> {
        Ok(Self {
            backends: Batch::new(&backends)?,
            reasons: Batch::new(&reasons)?,
            handshakes: Batch::new(&handshakes)?,
            untouched: if adopted { Untouched::NONE } else { Untouched::ALL },
        })
    }

    /// Counters of backends, in the order of `ids`.
    pub(super) fn backends(&self, ids: &[u32]) -> io::Result<Vec<BackendCounters>> {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|place| ids[*place]);
        let mut sums = vec![BackendCounters::default(); ids.len()];
        for together in order.chunk_by(|a, b| ids[*a] / SPAN == ids[*b] / SPAN) {
            let (first, last) = (ids[together[0]], ids[together[together.len() - 1]]);
            let count = (last - first + 1) as usize;
            let values = self.backends.range(first, count)?;
            for place in together {
                let start = (ids[*place] - first) as usize * self.backends.per_key();
                sums[*place] = sum(&values[start..start + self.backends.per_key()]);
            }
        }
        Ok(sums)
    }

    /// Times of handshakes, in the order of `ids`.
    pub(super) fn handshakes(&self, ids: &[u32]) -> io::Result<Vec<HandshakeTimes>> {
        ids.iter().map(|id| Ok(self.handshakes.range(*id, 1)?[0])).collect()
    }

    /// A service's reasons; service 0 is the node.
    pub(super) fn reasons(&self, service: u32) -> io::Result<[u64; REASONS as usize]> {
        let values = self.reasons.range(service * REASONS, REASONS as usize)?;
        let mut sums = [0; REASONS as usize];
        for (sum, cpus) in sums.iter_mut().zip(values.chunks(self.reasons.per_key())) {
            *sum = cpus.iter().sum();
        }
        Ok(sums)
    }

    /// Zeroes the counters and times of backends before their ids are used again.
    pub(super) fn clear_backends(&mut self, ids: &[u32]) -> Result<(), MapError> {
        let untouched = self.untouched.backends;
        let used: Vec<u32> = ids.iter().copied().filter(|id| *id < untouched).collect();
        self.handshakes.zero(&used)?;
        self.backends.zero(&used)?;
        let next = ids.iter().max().map_or(0, |highest| highest + 1);
        self.untouched.backends = untouched.max(next);
        Ok(())
    }

    /// Zeroes a service's reasons before its id is used again.
    pub(super) fn clear_reasons(&mut self, service: u32) -> Result<(), MapError> {
        if service < self.untouched.services {
            let numbers: Vec<u32> = (service * REASONS..(service + 1) * REASONS).collect();
            self.reasons.zero(&numbers)?;
        }
        self.untouched.services = self.untouched.services.max(service + 1);
        Ok(())
    }
}

fn sum(cpus: &[BackendCounters]) -> BackendCounters {
    cpus.iter().fold(BackendCounters::default(), |sum, cpu| BackendCounters {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
        flows: sum.flows + cpu.flows,
        reply_packets: sum.reply_packets + cpu.reply_packets,
        reply_bytes: sum.reply_bytes + cpu.reply_bytes,
        reply_resets: sum.reply_resets + cpu.reply_resets,
        _reserved: Default::default(),
    })
}
