//! The two pin tables, for a flow whose slot has changed.

use aya_ebpf::{helpers::generated, maps::HashMap};
use lb_common::{
    abi::{BackendId, FlowKey, Pin, Reason, backend_flag, pin_flag},
    select::Pins,
};

use crate::{
    count,
    maps::{self, PINS, PINS_NEW},
};

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
        PINS_NEW.insert(self.flow, pin, 0).is_ok()
    }

    #[inline(always)]
    fn put_confirmed(&mut self, pin: &Pin) -> bool {
        PINS.insert(self.flow, pin, 0).is_ok()
    }

    #[inline(always)]
    fn remove_unconfirmed(&mut self) {
        // An error means that it is gone already.
        let _ = PINS_NEW.remove(self.flow);
    }

    #[inline(always)]
    fn remove_confirmed(&mut self) {
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

/// Notes the server's initial sequence number in a flow's unconfirmed pin, if it has one to this backend.
#[inline(always)]
pub fn note_server_isn(flow: &FlowKey, backend: BackendId, isn: u32) -> Option<()> {
    let pin = PINS_NEW.get_ptr_mut(flow)?;
    // SAFETY: the pointer is to a map's value. It may be reused for another flow meanwhile; that flow's handshake would
    // then fail to confirm, and its next SYN-ACK sets it right.
    let pin = unsafe { &mut *pin };
    if pin.backend == backend {
        pin.server_isn = isn;
        pin.flags |= pin_flag::SERVER_ISN;
    }
    Some(())
}

#[inline(always)]
fn read(table: &HashMap<FlowKey, Pin>, flow: &FlowKey) -> Option<Pin> {
    // SAFETY: the pointer is to a map's value, copied at once. An entry that is removed and reused in between is what
    // the kernel's preallocated hash maps allow; then the flow's last packet and its pin's end coincided.
    table.get_ptr(flow).map(|pin| unsafe { *pin })
}
