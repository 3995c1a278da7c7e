//! Full nat: the addresses that lb sends from, and the flows that have their ports.

use super::{Address, BackendId};
use crate::be::Be16;

/// Addresses of the pool, in use and on their way out.
pub const POOL_ADDRESSES: usize = 64;

/// Slots of one address: one a port.
pub const PORTS_PER_ADDRESS: u32 = 1 << 16;

/// The one entry of `SOURCE_POOL`. The controller changes it while packets are under way, each field by one store; every
/// mixture of old and new fields is valid, as `order` names only addresses that are there, and of its own family.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePool {
    /// Addresses that new flows may have, of IPv4 and IPv6: how many entries of `order` count.
    pub counts: [u32; 2],
    /// The first port of new flows (host order).
    pub first_port: u16,
    /// The last one (host order).
    pub last_port: u16,
    /// Zero.
    pub _pad: u32,
    /// Indexes into `addresses`, of IPv4 and IPv6.
    pub order: [[u8; POOL_ADDRESSES]; 2],
    /// The addresses by the number that [`super::address_value::POOL`] gives them; zero = none.
    pub addresses: [Address; POOL_ADDRESSES],
}

impl Default for SourcePool {
    fn default() -> Self {
        Self {
            counts: [0; 2],
            first_port: 0,
            last_port: 0,
            _pad: 0,
            order: [[0; POOL_ADDRESSES]; 2],
            addresses: [Address::default(); POOL_ADDRESSES],
        }
    }
}

const _: () = assert!(size_of::<SourcePool>() == 16 + 128 + 1024);

/// One entry of `PORT_SLOTS`, one cache line: the flow that has a port of an address of the pool. Its index says which
/// ([`PortSlot::index`]). It is the whole of what is known of the flow, in both directions; `PORT_FLOWS` only finds it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSlot {
    /// The client.
    pub client: Address,
    /// The VIP.
    pub vip: Address,
    /// When a packet was last seen, nanoseconds of CLOCK_MONOTONIC; written once a second at most.
    pub last_seen: u64,
    /// [`crate::fullnat::State`]: changed by compare-and-swap alone.
    pub state: u64,
    /// The client's port.
    pub client_port: Be16,
    /// The VIP's port.
    pub vip_port: Be16,
    /// The backend.
    pub backend: BackendId,
    /// The service's id.
    pub service: u32,
    /// Idle time after which the slot may be used anew, seconds (host order).
    pub idle_seconds: u16,
    /// The same after FIN or RST.
    pub closed_seconds: u16,
}

const _: () = assert!(size_of::<PortSlot>() == 64);

impl PortSlot {
    /// The index of a port (host order) of an address of the pool.
    #[inline(always)]
    pub const fn index(address: u32, port: u16) -> u32 {
        address << 16 | port as u32
    }

    /// The number of the address at an index.
    #[inline(always)]
    pub const fn address(index: u32) -> u32 {
        index >> 16
    }

    /// The port (host order) at an index.
    #[inline(always)]
    pub const fn port(index: u32) -> u16 {
        index as u16
    }
}
