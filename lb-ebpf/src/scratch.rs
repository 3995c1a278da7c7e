//! Room beside the stack for keys and values of tables: each CPU's own, and in use for one packet at a time.

use lb_common::abi::{FlowKey, Pin, RememberedSource, SourceKey};

use crate::{fullnat::reply::Flow, maps::SCRATCH, pin};

/// What [`crate::track`] and [`crate::persist`] work on, and what [`crate::vlan`] keeps.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Scratch {
    /// The flow, in the client's direction.
    pub flow: FlowKey,
    /// Its entry that is to be stored.
    pub entry: Pin,
    /// The client.
    pub source: SourceKey,
    /// What is to be remembered of it.
    pub remembered: RememberedSource,
    /// [`lb_common::vlan::Tags`] of the frame in hand; 0 = it came without.
    pub tags: u64,
    /// What full nat knows of the packet in hand.
    pub translation: Flow,
}

impl Scratch {
    /// Sets the flow.
    #[inline(always)]
    pub fn set_flow(&mut self, flow: &FlowKey) {
        // SAFETY: what is initialised may be written as if it were not; all of it is.
        pin::key(unsafe { &mut *(&raw mut self.flow).cast() }, flow);
    }
}

/// This CPU's room.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the entry is this CPU's own, XDP programs do not preempt one another on a CPU, and the map outlives the program. Whoever
    // calls this does not use what an earlier call has given.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}
