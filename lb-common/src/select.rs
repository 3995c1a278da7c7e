//! The rule of DESIGN.md 3 for one packet of a slot that is not SETTLED: which backend, and what happens to pins.
//!
//! Pure over [`Pins`], which the XDP program implements with the two pin maps and the property tests with hash maps.

use crate::abi::{BackendId, Pin, Slot};

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A TCP SYN without ACK (a QUIC Initial, once QUIC is built): opens a flow.
    Opening {
        /// The client's initial sequence number, host order.
        isn: u32,
    },
    /// Any other packet of the client.
    Other {
        /// Sequence number, host order.
        sequence: u32,
        /// Acknowledgement number, host order.
        acknowledgement: u32,
        /// Sequence space used: payload bytes plus one for FIN.
        length: u32,
        /// FIN or RST is set.
        closing: bool,
    },
}

/// The two pin tables and the states of backends, for the flow of the packet in hand.
pub trait Pins {
    /// The flow's unconfirmed pin.
    fn unconfirmed(&self) -> Option<Pin>;
    /// The flow's confirmed pin.
    fn confirmed(&self) -> Option<Pin>;
    /// Stores the unconfirmed pin; false if the table is full.
    fn put_unconfirmed(&mut self, pin: &Pin) -> bool;
    /// Stores the confirmed pin; false if the table is full.
    fn put_confirmed(&mut self, pin: &Pin) -> bool;
    /// Removes the unconfirmed pin.
    fn remove_unconfirmed(&mut self);
    /// Removes the confirmed pin.
    fn remove_confirmed(&mut self);
    /// Whether a backend is DOWN.
    fn is_down(&self, backend: BackendId) -> bool;
    /// Now, jiffies.
    fn now(&self) -> u64;
    /// Counts a pin that could not be stored.
    fn refused(&mut self);
}

/// What is the same for every packet of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The slot of the flow; its phase is not SETTLED.
    pub slot: Slot,
    /// The slot's base, already looked up in the old ring if it says [`BackendId::OLD_RING`].
    pub base: BackendId,
    /// The service's id, stored in pins.
    pub service: u32,
    /// nat: a pin is confirmed only if the acknowledgement fits the server's ISN, too.
    pub sees_replies: bool,
}

/// The backend of a packet.
pub fn select<P: Pins>(context: &Context, segment: &Segment, pins: &mut P) -> BackendId {
    let _ = (segment, pins);
    context.slot.owner()
}
