//! One slot of `PORT_SLOTS` in the map: words that all CPUs read and write whole.

use lb_common::{
    abi::{Address, BackendId, FlowKey, PortSlot, ServiceRow},
    be::{Be16, Be32},
    fullnat::{SECOND, State, age},
};

use crate::{atomic, config, maps::PORT_SLOTS};

/// A slot.
#[derive(Clone, Copy)]
pub struct Slot(*mut PortSlot);

/// Whose a slot is: the flow in the client's direction, and where it goes.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Owner {
    /// The client.
    pub client: Address,
    /// The VIP.
    pub vip: Address,
    /// The client's port.
    pub client_port: Be16,
    /// The VIP's port.
    pub vip_port: Be16,
    /// The backend.
    pub backend: BackendId,
    /// The service's id.
    pub service: u32,
}

impl Owner {
    /// The flow as its client sends it.
    #[inline(always)]
    pub const fn key(&self, protocol: u8) -> FlowKey {
        FlowKey {
            source: self.client,
            destination: self.vip,
            source_port: self.client_port,
            destination_port: self.vip_port,
            protocol,
            _pad: [0; 3],
        }
    }
}

/// What a slot's time says: its state, nanoseconds since it was last used, and its own idle times.
#[derive(Clone, Copy)]
pub struct Standing {
    /// The state.
    pub state: State,
    age: u64,
    idle: u16,
    closed: u16,
}

impl Standing {
    /// Whether another flow may have the slot.
    #[inline(always)]
    pub const fn is_free(&self) -> bool {
        self.state.is_free(self.age, self.idle, self.closed)
    }

    /// Whether another flow may have it if there is no better one.
    #[inline(always)]
    pub const fn gives_way(&self) -> bool {
        self.state.gives_way(self.age)
    }

    /// Whether a flow has it whose time is not over.
    #[inline(always)]
    pub const fn is_live(&self) -> bool {
        self.state.is_used() && !self.is_free()
    }
}

impl Slot {
    /// The slot at an index.
    #[inline(always)]
    pub fn at(index: u32) -> Option<Self> {
        PORT_SLOTS.get_ptr_mut(index).map(Self)
    }

    /// How it stands.
    #[inline(always)]
    pub fn standing(self, now: u64) -> Standing {
        // SAFETY: the pointer is to a map's value, which outlives the program; volatile, so that each word is read once and whole.
        unsafe {
            Standing {
                state: State((&raw const (*self.0).state).read_volatile()),
                age: age(now, (&raw const (*self.0).last_seen).read_volatile()),
                idle: (&raw const (*self.0).idle_seconds).read_volatile(),
                closed: (&raw const (*self.0).closed_seconds).read_volatile(),
            }
        }
    }

    /// Whose it is. Right only if it [`Self::is_still`] what it was before.
    #[inline(always)]
    pub fn owner(self) -> Owner {
        // SAFETY: as in `standing`.
        unsafe {
            Owner {
                client: address(&raw const (*self.0).client),
                vip: address(&raw const (*self.0).vip),
                client_port: (&raw const (*self.0).client_port).read_volatile(),
                vip_port: (&raw const (*self.0).vip_port).read_volatile(),
                backend: (&raw const (*self.0).backend).read_volatile(),
                service: (&raw const (*self.0).service).read_volatile(),
            }
        }
    }

    /// The same into a place beside the stack.
    #[inline(always)]
    pub fn read_owner(self, to: &mut Owner) {
        // SAFETY: as in `standing`; `to` is valid for writes.
        unsafe {
            put(&raw mut to.client, &address(&raw const (*self.0).client));
            put(&raw mut to.vip, &address(&raw const (*self.0).vip));
        }
        // SAFETY: as in `standing`.
        unsafe {
            to.client_port = (&raw const (*self.0).client_port).read_volatile();
            to.vip_port = (&raw const (*self.0).vip_port).read_volatile();
            to.backend = (&raw const (*self.0).backend).read_volatile();
            to.service = (&raw const (*self.0).service).read_volatile();
        }
    }

    /// Its state now.
    #[inline(always)]
    pub fn state(self) -> State {
        // SAFETY: as in `standing`.
        State(unsafe { (&raw const (*self.0).state).read_volatile() })
    }

    /// Whether its flow is the one whose state this was.
    #[inline(always)]
    pub fn is_still(self, state: State) -> bool {
        (self.state().0 ^ state.0) >> 32 == 0
    }

    /// Notes a packet of its flow. If another packet was faster, this one's news is lost; the flow's next packet has it again.
    #[inline(always)]
    pub fn note(self, before: State, after: State, now: u64) {
        if config::is_dry_run() {
            return;
        }
        // SAFETY: as in `standing`; the state changes by compare-and-swap alone.
        unsafe {
            if before.0 != after.0 {
                atomic::compare_and_swap(&raw mut (*self.0).state, before.0, after.0);
            }
            let last_seen = &raw mut (*self.0).last_seen;
            if before.0 != after.0 || age(now, last_seen.read_volatile()) >= SECOND {
                last_seen.write_volatile(now);
            }
        }
    }

    /// Takes it away from whoever has it, if that is still so. In a dry run nobody takes anything.
    #[inline(always)]
    pub fn claim(self, state: State) -> bool {
        if config::is_dry_run() {
            return true;
        }
        let new = state.writing();
        // SAFETY: as in `note`.
        unsafe { atomic::compare_and_swap(&raw mut (*self.0).state, state.0, new.0) == state.0 }
    }

    /// Writes whose it is; only who has claimed it does.
    #[inline(always)]
    pub fn write(self, flow: &FlowKey, service: &ServiceRow, backend: BackendId, now: u64) {
        // SAFETY: as in `standing`; nobody else writes a slot that has been claimed.
        unsafe {
            put(&raw mut (*self.0).client, &flow.source);
            put(&raw mut (*self.0).vip, &flow.destination);
            (&raw mut (*self.0).client_port).write_volatile(flow.source_port);
            (&raw mut (*self.0).vip_port).write_volatile(flow.destination_port);
            (&raw mut (*self.0).backend).write_volatile(backend);
            (&raw mut (*self.0).service).write_volatile(service.id);
            (&raw mut (*self.0).idle_seconds).write_volatile(service.idle_seconds);
            (&raw mut (*self.0).closed_seconds).write_volatile(service.closed_seconds);
            (&raw mut (*self.0).last_seen).write_volatile(now);
        }
    }

    /// Ends the writing.
    #[inline(always)]
    pub fn publish(self, state: State) {
        // SAFETY: as in `write`.
        unsafe { (&raw mut (*self.0).state).write_volatile(state.0) };
    }
}

/// Reads an address word by word.
///
/// # Safety
/// `from` is valid for reads.
#[inline(always)]
unsafe fn address(from: *const Address) -> Address {
    let words = from.cast::<[u32; 4]>();
    // SAFETY: an address is four words.
    let word = |index: usize| unsafe { (&raw const (*words)[index]).read_volatile() };
    Address::v6([word(0), word(1), word(2), word(3)].map(Be32::from_raw))
}

/// Writes an address word by word.
///
/// # Safety
/// `to` is valid for writes.
#[inline(always)]
unsafe fn put(to: *mut Address, address: &Address) {
    let words = to.cast::<[u32; 4]>();
    for (index, word) in address.words.iter().enumerate() {
        // SAFETY: an address is four words.
        unsafe { (&raw mut (*words)[index]).write_volatile(word.raw()) };
    }
}
