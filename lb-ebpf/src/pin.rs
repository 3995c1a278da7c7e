//! The two pin tables, for a flow whose slot has changed.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::generated, maps::HashMap};
use lb_common::{
    abi::{BackendId, FlowKey, Pin, Reason, backend_flag},
    select::{self, Pins},
};

use crate::{
    config, count,
    maps::{self, PINS, PINS_NEW},
};

/// Flags of an update that no map knows: it is refused before anything is written.
const NO_UPDATE: u64 = 1 << 32;

/// The pins of one flow.
pub struct FlowPins<'a> {
    /// The flow.
    pub flow: &'a FlowKey,
    /// The service's id.
    pub service: u32,
}

impl Pins for FlowPins<'_> {
    #[inline(always)]
    fn unconfirmed(&self) -> Option<Pin> {
        read(&PINS_NEW, self.flow)
    }

    #[inline(always)]
    fn confirmed(&self) -> Option<Pin> {
        read(&PINS, self.flow)
    }

    #[inline(always)]
    fn put_unconfirmed(&mut self, pin: &Pin) -> bool {
        store(&PINS_NEW, self.flow, pin)
    }

    #[inline(always)]
    fn put_confirmed(&mut self, pin: &Pin) -> bool {
        store(&PINS, self.flow, pin)
    }

    #[inline(always)]
    fn remove_unconfirmed(&mut self) {
        if config::is_dry_run() {
            return;
        }
        // An error means that it is gone already.
        let _ = PINS_NEW.remove(self.flow);
    }

    #[inline(always)]
    fn remove_confirmed(&mut self) {
        if config::is_dry_run() {
            return;
        }
        // An error means that it is gone already.
        let _ = PINS.remove(self.flow);
    }

    #[inline(always)]
    fn is_down(&self, backend: BackendId) -> bool {
        maps::backend(backend).is_none_or(|row| row.flags & backend_flag::DOWN != 0)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { generated::bpf_jiffies64() }
    }

    #[inline(always)]
    fn refused(&mut self) {
        count::reason(Reason::PinRefused, self.service);
    }
}

/// A flow as the tables' key, in memory. Written word by word: the compiler would write the padding in portions that are
/// misaligned, which the verifier refuses on the stack.
#[inline(always)]
pub fn key<'a>(place: &'a mut MaybeUninit<FlowKey>, flow: &FlowKey) -> &'a FlowKey {
    let [a, b, c, d] = flow.source.words.map(|word| word.raw());
    let [e, f, g, h] = flow.destination.words.map(|word| word.raw());
    let [i, j] = flow.source_port.raw().to_ne_bytes();
    let [k, l] = flow.destination_port.raw().to_ne_bytes();
    let ports = u32::from_ne_bytes([i, j, k, l]);
    let protocol = u32::from_ne_bytes([flow.protocol, 0, 0, 0]);
    let words = place.as_mut_ptr().cast::<u32>();
    for (index, word) in [a, b, c, d, e, f, g, h, ports, protocol].into_iter().enumerate() {
        // SAFETY: a key is ten words in this order, aligned to eight bytes.
        unsafe { words.add(index).write_volatile(word) };
    }
    // SAFETY: all ten words have been written.
    unsafe { place.assume_init_ref() }
}

/// Notes a backend's SYN-ACK in the flow's unconfirmed entry of a table, if it has one to this backend. Numbers in host order.
#[inline(always)]
pub fn note_syn_ack(
    table: &HashMap<FlowKey, Pin>,
    flow: &FlowKey,
    backend: BackendId,
    sequence: u32,
    acknowledgement: u32,
) {
    if config::is_dry_run() {
        return;
    }
    let Some(pin) = table.get_ptr_mut(flow) else { return };
    // SAFETY: the pointer is to a map's value. It may be reused for another flow meanwhile; that flow's handshake would
    // then fail to confirm, and its next SYN-ACK sets it right.
    let pin = unsafe { &mut *pin };
    if pin.backend == backend {
        select::note_syn_ack(pin, sequence, acknowledgement);
    }
}

/// Stores a pin; false if the table is full. A dry run assumes that it is not.
#[inline(always)]
fn store(table: &HashMap<FlowKey, Pin>, flow: &FlowKey, pin: &Pin) -> bool {
    let mut place = MaybeUninit::uninit();
    insert(table, flow, copy(&mut place, pin), true)
}

/// A pin as a table's value, in memory. Volatile, field by field: two fields stored at once could be misaligned, which the
/// verifier refuses on the stack.
#[inline(always)]
pub fn copy<'a>(place: &'a mut MaybeUninit<Pin>, pin: &Pin) -> &'a Pin {
    let copy = place.as_mut_ptr();
    // SAFETY: `copy` is valid for a pin, and every field of it is written.
    unsafe {
        (&raw mut (*copy).backend).write_volatile(pin.backend);
        (&raw mut (*copy).flags).write_volatile(pin.flags);
        (&raw mut (*copy).last_seen).write_volatile(pin.last_seen);
        (&raw mut (*copy).created).write_volatile(pin.created);
        (&raw mut (*copy).client_isn).write_volatile(pin.client_isn);
        (&raw mut (*copy).server_isn).write_volatile(pin.server_isn);
        (&raw mut (*copy).closing_sequence).write_volatile(pin.closing_sequence);
        (&raw mut (*copy).service).write_volatile(pin.service);
        place.assume_init_ref()
    }
}

/// Stores what [`copy`] has made, if it is allowed; false if not, or if the table is full. A dry run assumes that it is not.
#[inline(always)]
pub fn insert(table: &HashMap<FlowKey, Pin>, flow: &FlowKey, copy: &Pin, is_allowed: bool) -> bool {
    // Without a branch around the call: the compiler would copy registers that it knows it does not need, and the verifier
    // refuses those that were never set.
    let is_dry_run = config::is_dry_run();
    let flags = if is_dry_run | !is_allowed { NO_UPDATE } else { 0 };
    table.insert(flow, copy, flags).is_ok() | (is_dry_run & is_allowed)
}

/// A flow's entry of a table.
#[inline(always)]
pub fn read(table: &HashMap<FlowKey, Pin>, flow: &FlowKey) -> Option<Pin> {
    // SAFETY: the pointer is to a map's value, copied at once. An entry that is removed and reused in between is what
    // the kernel's preallocated hash maps allow; then the flow's last packet and its pin's end coincided.
    table.get_ptr(flow).map(|pin| unsafe { *pin })
}
