//! A backend as the packet path sees it.

use core::mem::offset_of;

use super::{Address, FlowKey};
use crate::be::Be16;

/// Number of a backend, 1..2^24; 0 is "none". Belongs to one backend of one service until nothing names it any more.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

impl BackendId {
    /// No backend: what a zeroed map entry names.
    pub const NONE: Self = Self(0);
    /// In [`super::Slot::base`]: the base is what the service's old ring says (the ring's length has changed).
    pub const OLD_RING: Self = Self(0x00ff_ffff);
}

/// Bits of [`BackendRow::flags`].
pub mod backend_flag {
    /// Health says DOWN, or maint: `resolve(pin)` and `resolve(base)` go to the slot's owner instead.
    pub const DOWN: u32 = 1;
    /// `ifindex`, `dst_mac` and `src_mac` are valid. Without it the packet path asks the kernel (`bpf_fib_lookup`).
    pub const RESOLVED: u32 = 2;
    /// Gone from the file: it keeps its flows, and clients that were remembered go elsewhere with their next one.
    pub const REMOVED: u32 = 4;
    /// The tunnel is IP in IP: where the service says [`super::Forward::Gue`], from an address of the flow's own.
    pub const IPIP: u32 = 8;
    /// Bits 8..16: [`super::BackendRow::source_bits`].
    pub const SOURCE_BITS_SHIFT: u32 = 8;
}

/// One entry of `BACKENDS`, one cache line. Every field group changes by one aligned 8-byte store: each MAC address with
/// what stands beside it, the NIC with the flags, and an IPv4 `source` (its last word) with the `outer_sum` over it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendRow {
    /// The backend's address: nat's new destination, the tunnel's outer destination.
    pub address: Address,
    /// The service's id (stable, not its row).
    pub service: u32,
    /// The tunnel's outer source (an address of this node, or the first one of a prefix: [`Self::source_bits`]); zero in nat and
    /// dsr.
    pub source: Address,
    /// Unfolded one's-complement sum (RFC 1071, native byte order of raw 16-bit words) of the constant part of the
    /// tunnel's outer IPv4 header: everything but TOS, total length and checksum (which count as zero).
    pub outer_sum: u32,
    /// Next hop's MAC address.
    pub dst_mac: [u8; 6],
    /// The backend's port (nat; 0 = the packet's own is kept), or the UDP port of its end of the tunnel (gue).
    pub port: Be16,
    /// Egress NIC's MAC address.
    pub src_mac: [u8; 6],
    /// MTU of the egress NIC, bytes of layer 3 (host order).
    pub mtu: u16,
    /// Egress NIC (host order).
    pub ifindex: u32,
    /// Bits of [`backend_flag`].
    pub flags: u32,
}

impl BackendRow {
    /// Bits at the end of `source` that tell flows apart ([`crate::encap::spread`]), 0..=32.
    #[inline(always)]
    pub const fn source_bits(&self) -> u32 {
        self.flags >> backend_flag::SOURCE_BITS_SHIFT & 0xff
    }

    /// [`Self::source_bits`] as they stand in `flags`.
    pub const fn flags_of_source_bits(bits: u32) -> u32 {
        (bits & 0xff) << backend_flag::SOURCE_BITS_SHIFT
    }
}

const _: () = assert!(size_of::<BackendRow>() == 64);
const _: () = assert!(offset_of!(BackendRow, source) + 12 == 32, "the last word of the source");
const _: () = assert!(offset_of!(BackendRow, outer_sum) == 36, "is in one store with the sum");

/// One entry of `REPLIES`: what a nat reply of this backend is rewritten to.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyRow {
    /// The VIP: the reply's new source address.
    pub vip: Address,
    /// The VIP's port; 0 = the reply's own is kept.
    pub port: Be16,
    /// Zero.
    pub _pad: u16,
    /// The service's row in `SERVICES` (0 = this backend has no replies).
    pub row: u32,
}

impl ReplyRow {
    /// The flow as its client sends it, of a packet that came from the backend.
    #[inline(always)]
    pub const fn client_flow(&self, from_backend: &FlowKey) -> FlowKey {
        FlowKey {
            source: from_backend.destination,
            destination: self.vip,
            source_port: from_backend.destination_port,
            destination_port: match self.port.raw() {
                0 => from_backend.source_port,
                _ => self.port,
            },
            protocol: from_backend.protocol,
            _pad: [0; 3],
        }
    }
}

const _: () = assert!(size_of::<ReplyRow>() == 24);
