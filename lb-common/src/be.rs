//! Integers in network byte order, as they stand in packets: the order is visible in every signature.

use core::fmt;

/// A 16-bit integer whose bytes in memory are in network order (big endian). `Debug` and `Display` show host order.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be16(u16);

/// A 32-bit integer whose bytes in memory are in network order (big endian). `Debug` shows host order in hex.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be32(u32);

impl Be16 {
    /// From a host-order value.
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be())
    }

    /// From the raw memory word, as loaded from a packet.
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The value in host order.
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The raw memory word, as stored into a packet.
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// This one, or the other where this is zero.
    #[inline(always)]
    pub const fn or(self, other: Self) -> Self {
        if self.0 == 0 { other } else { self }
    }
}

impl Be32 {
    /// From a host-order value.
    pub const fn from_host(value: u32) -> Self {
        Self(value.to_be())
    }

    /// From the raw memory word, as loaded from a packet.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The value in host order.
    pub const fn to_host(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The raw memory word, as stored into a packet.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The bits that `mask`, in host order, leaves.
    pub const fn and(self, mask: u32) -> Self {
        Self(self.0 & mask.to_be())
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_host())
    }
}

impl fmt::Display for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_host())
    }
}

impl fmt::Debug for Be32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.to_host())
    }
}
