//! Dry runs: a second copy of the program, over the same maps, decides about packets that nobody has sent, and writes
//! nothing that the program on the NICs reads.

use aya::{Ebpf, TestRun as _, TestRunOptions, programs::Xdp};
use lb_common::abi::{BackendId, BackendRow, ServiceRow, Slot, Trace, map, mode, program};

use super::{
    LoadError,
    load::{self, Recipe, Variant},
    mapped::{Arena, Table},
};

/// The longest frame that fits the kernel's test of an XDP program: a page without headroom (256 bytes) and the
/// `skb_shared_info` behind it (320).
pub const LARGEST_FRAME: usize = 4_096 - 256 - 320;
/// The shortest: an Ethernet header.
const SHORTEST_FRAME: usize = 14;

/// The copy.
pub struct DryRun {
    ebpf: Ebpf,
    trace: Table<Trace>,
    /// What a copy that answers "what if" has for itself.
    own: Option<Own>,
}

struct Own {
    arena: Arena,
    services: Table<ServiceRow>,
    backends: Table<BackendRow>,
}

/// Everything that rings, services and backends would be, of services that packets can reach.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// Slots from a place in the arena on.
    pub slots: Vec<(u32, Vec<Slot>)>,
    /// Rows of services.
    pub services: Vec<(u32, ServiceRow)>,
    /// Rows of backends.
    pub backends: Vec<(BackendId, BackendRow)>,
}

impl DryRun {
    /// Loads the copy. It remembers fragments for itself, so that the later ones of a packet find their first.
    pub fn load(recipe: &Recipe) -> Result<Self, LoadError> {
        Self::load_with(recipe, &[map::FRAGMENTS, map::PROGRAMS])
    }

    /// Loads a copy with rings, services and backends of its own, which [`Self::lay`] fills.
    pub fn load_what_if(recipe: &Recipe) -> Result<Self, LoadError> {
        let own = [map::FRAGMENTS, map::PROGRAMS, map::ARENA, map::SERVICES, map::BACKENDS];
        let mut copy = Self::load_with(recipe, &own)?;
        copy.own = Some(Own {
            arena: load::mapped(&mut copy.ebpf, map::ARENA)?,
            services: load::mapped(&mut copy.ebpf, map::SERVICES)?,
            backends: load::mapped(&mut copy.ebpf, map::BACKENDS)?,
        });
        Ok(copy)
    }

    fn load_with(recipe: &Recipe, own: &[&str]) -> Result<Self, LoadError> {
        let variant = Variant { mode: mode::DRY_RUN, own, entries: &[] };
        let mut ebpf = load::load_copy(recipe, &variant)?;
        let trace = load::mapped(&mut ebpf, map::TRACE)?;
        Ok(Self { ebpf, trace, own: None })
    }

    /// From now on, packets meet these; does nothing in a copy without its own.
    pub fn lay(&mut self, overlay: &Overlay) {
        let Some(own) = &self.own else { return };
        for (start, slots) in &overlay.slots {
            for (place, slot) in (*start..).zip(slots) {
                own.arena.set_slot(place, *slot);
            }
        }
        for (row, service) in &overlay.services {
            own.services.set(*row, service);
        }
        for (id, backend) in &overlay.backends {
            own.backends.set(id.0, backend);
        }
    }

    /// What would become of a frame of `14..=`[`LARGEST_FRAME`] bytes that comes in by a NIC of this network namespace (0
    /// = by none).
    pub fn run(&mut self, frame: &[u8], ifindex: u32) -> anyhow::Result<Trace> {
        anyhow::ensure!(
            (SHORTEST_FRAME..=LARGEST_FRAME).contains(&frame.len()),
            "a frame of {} bytes: {SHORTEST_FRAME} to {LARGEST_FRAME} can be tried",
            frame.len()
        );
        let context = context(frame.len() as u32, ifindex);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        self.program()?.test_run(options)?;
        Ok(self.trace.get(0))
    }

    fn program(&self) -> anyhow::Result<&Xdp> {
        let missing = || anyhow::anyhow!("the object has no program `{}`", program::BALANCER);
        Ok(self.ebpf.program(program::BALANCER).ok_or_else(missing)?.try_into()?)
    }
}

/// `struct xdp_md` (include/uapi/linux/bpf.h): the end of the data at 4, the NIC at 12.
pub(super) fn context(length: u32, ifindex: u32) -> [u8; 24] {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&length.to_ne_bytes());
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    context
}
