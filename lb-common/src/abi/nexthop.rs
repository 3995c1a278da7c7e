//! Routes and neighbours as the controller mirrors them for nat replies, and the small map types that stand alone.

use super::Address;

/// Data of the LPM key of `ROUTES`: the destination, v4-mapped (an IPv4 prefix of length n has length 96 + n).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteKey {
    /// Destination prefix.
    pub destination: Address,
}

const _: () = assert!(size_of::<RouteKey>() == 16);

/// Bits of [`NextHopRow::flags`].
pub mod nexthop_flag {
    /// The MAC addresses are valid: send.
    pub const RESOLVED: u32 = 1;
    /// The destination itself is the neighbour: look it up in `NEIGHBOURS`; `src_mac` and `ifindex` are valid.
    pub const ON_LINK: u32 = 2;
}

/// One entry of `NEXTHOPS`. Index 0 is never used.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHopRow {
    /// The gateway's MAC address.
    pub dst_mac: [u8; 6],
    /// MTU of the egress NIC (host order).
    pub mtu: u16,
    /// Egress NIC's MAC address.
    pub src_mac: [u8; 6],
    /// Zero.
    pub _pad: u16,
    /// Egress NIC (host order).
    pub ifindex: u32,
    /// Bits of [`nexthop_flag`].
    pub flags: u32,
    /// The gateway, asked for when not resolved; zero when on link.
    pub gateway: Address,
}

const _: () = assert!(size_of::<NextHopRow>() == 40);

/// Key of `NEIGHBOURS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NeighbourKey {
    /// The neighbour.
    pub address: Address,
    /// NIC it is on (host order).
    pub ifindex: u32,
}

const _: () = assert!(size_of::<NeighbourKey>() == 20);

/// Value of `NEIGHBOURS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourRow {
    /// The neighbour's MAC address.
    pub mac: [u8; 6],
    /// Zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<NeighbourRow>() == 8);

/// In [`NeighbourWanted::ifindex`]: the controller finds the interface by its routes.
pub const NEIGHBOUR_WANTED_ANY_INTERFACE: u32 = 0;

/// Record of `WANTED`: a packet could not be sent because this neighbour is not resolved. Rate-limited by the program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NeighbourWanted {
    /// The neighbour (a backend, a gateway or a client on link).
    pub address: Address,
    /// NIC (host order), or [`NEIGHBOUR_WANTED_ANY_INTERFACE`].
    pub ifindex: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<NeighbourWanted>() == 24);

/// Data of the LPM keys of `ALLOW` and `DENY`; prefix length = 32 + the prefix's length in v4-mapped form.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixKey {
    /// [`super::ServiceRow::allow_list`] or [`super::ServiceRow::deny_list`], host order as raw bytes.
    pub list: u32,
    /// Client prefix.
    pub source: Address,
}

const _: () = assert!(size_of::<PrefixKey>() == 20);

/// The entry of `CLOCK`: both clocks read at one moment.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// `bpf_jiffies64()`, the time of [`super::Pin::last_seen`].
    pub jiffies: u64,
    /// `bpf_ktime_get_ns()`: CLOCK_MONOTONIC, nanoseconds.
    pub nanoseconds: u64,
}

const _: () = assert!(size_of::<Clock>() == 16);
