//! Counters, summed over CPUs.

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use lb_common::abi::{BackendCounters, REASONS};

/// The counter maps.
pub(super) struct Counters {
    pub(super) backends: PerCpuArray<MapData, BackendCounters>,
    pub(super) reasons: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// One backend's counters.
    pub(super) fn backend(&self, id: u32) -> Result<BackendCounters, MapError> {
        let mut sum = BackendCounters::default();
        for cpu in self.backends.get(&id, 0)?.iter() {
            sum.packets += cpu.packets;
            sum.bytes += cpu.bytes;
            sum.flows += cpu.flows;
            sum.reply_packets += cpu.reply_packets;
            sum.reply_bytes += cpu.reply_bytes;
            sum.reply_resets += cpu.reply_resets;
        }
        Ok(sum)
    }

    /// A service's reasons; service 0 is the node.
    pub(super) fn reasons(&self, service: u32) -> Result<[u64; REASONS as usize], MapError> {
        let mut sums = [0; REASONS as usize];
        for (number, sum) in sums.iter_mut().enumerate() {
            let index = service * REASONS + number as u32;
            *sum = self.reasons.get(&index, 0)?.iter().sum();
        }
        Ok(sums)
    }

    /// Zeroes a backend's counters before its id is used again.
    pub(super) fn clear_backend(&mut self, id: u32) -> Result<(), MapError> {
        let zero = vec![BackendCounters::default(); cpus()?];
        self.backends.set(id, PerCpuValues::try_from(zero).map_err(MapError::from)?, 0)
    }

    /// Zeroes a service's reasons before its id is used again.
    pub(super) fn clear_reasons(&mut self, service: u32) -> Result<(), MapError> {
        for number in 0..REASONS {
            let zero = PerCpuValues::try_from(vec![0u64; cpus()?]).map_err(MapError::from)?;
            self.reasons.set(service * REASONS + number, zero, 0)?;
        }
        Ok(())
    }
}

fn cpus() -> Result<usize, MapError> {
    aya::util::nr_cpus().map_err(|(_, error)| MapError::from(error))
}
