//! Full nat from the controller's side: what it sends from, who has which port, and its program.

use aya::{
    Ebpf,
    maps::{MapData, MapError, ProgramArray},
};
use lb_common::{
    abi::{POOL_ADDRESSES, PORTS_PER_ADDRESS, PortSlot, SourcePool, map},
    fullnat::{State, age},
};

use super::{LoadError, load, mapped::Table, remove::missing_is_fine};

/// `SOURCE_POOL`, `PORT_SLOTS` and `PROGRAMS`.
pub struct Fullnat {
    pool: Table<SourcePool>,
    slots: Table<PortSlot>,
    programs: ProgramArray<MapData>,
}

/// A port that has a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The number of its address.
    pub address: u32,
    /// The flow.
    pub slot: PortSlot,
}

impl Taken {
    /// Its state.
    pub fn state(&self) -> State {
        State(self.slot.state)
    }
}

impl Fullnat {
    /// Of a loaded object.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        Ok(Self {
            pool: load::mapped(ebpf, map::SOURCE_POOL)?,
            slots: load::mapped(ebpf, map::PORT_SLOTS)?,
            programs: load::take(ebpf, map::PROGRAMS)?,
        })
    }

    /// Forgets the program of a mode whose balancer is on no NIC any more.
    pub(super) fn forget(&mut self, mode: u32) -> anyhow::Result<()> {
        match self.programs.clear_index(&mode) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            other => missing_is_fine(other).map_err(Into::into),
        }
    }

    /// How many addresses there is room for.
    pub fn capacity(&self) -> u32 {
        (self.slots.len() / PORTS_PER_ADDRESS).min(POOL_ADDRESSES as u32)
    }

    /// What packets are sent from now.
    pub fn pool(&self) -> SourcePool {
        self.pool.get(0)
    }

    /// What packets are sent from next: each mixture of this and what was before is right, if `pool` keeps the number of each
    /// address that has one.
    pub fn set_pool(&self, pool: &SourcePool) {
        // Places beyond either count are not read.
        let before = self.pool();
        let counts = [0, 1].map(|family| before.counts[family].min(pool.counts[family]));
        self.pool.set(0, &SourcePool { counts, order: before.order, ..*pool });
        self.pool.set(0, &SourcePool { counts, ..*pool });
        self.pool.set(0, pool);
    }

    /// The ports of an address (by its number) that flows have; `now` in nanoseconds of CLOCK_MONOTONIC.
    pub fn taken(&self, address: u32, now: u64) -> impl Iterator<Item = Taken> {
        let first = address.saturating_mul(PORTS_PER_ADDRESS);
        let last = first.saturating_add(PORTS_PER_ADDRESS).min(self.slots.len());
        (first..last).filter_map(move |index| {
            let word = (size_of::<PortSlot>() / 8) * index as usize;
            let state = State(self.slots.word(word + STATE));
            if !state.is_used() {
                return None;
            }
            let slot = self.slots.get(index);
            let age = age(now, slot.last_seen);
            let live = !state.is_free(age, slot.idle_seconds, slot.closed_seconds);
            live.then_some(Taken { address, slot })
        })
    }
}

/// The word of a slot that is its state.
const STATE: usize = core::mem::offset_of!(PortSlot, state) / 8;
