//! The one seam between packet functions and packet bytes: bounded, typed views into a frame. The XDP program
//! implements [`Frame`] over the NIC's buffer, tests over byte slices.

use network_types::{
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    be::{Be16, Be32},
    parse::extensions::{Place, walk},
};

/// Types that may be laid over packet bytes.
///
/// # Safety
/// Alignment 1, no padding, and every bit pattern is a valid value.
pub unsafe trait Wire: Copy {
    /// Size in bytes.
    const LENGTH: usize = size_of::<Self>();
}

/// A frame: an Ethernet header and what follows.
pub trait Frame {
    /// Number of bytes.
    fn length(&self) -> usize;

    /// The header at `offset`; `None` if the frame ends before the header does.
    fn view<T: Wire>(&self, offset: usize) -> Option<&T>;

    /// The header at `offset`, to be changed.
    fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T>;

    /// Where the extension headers of an IPv6 packet end. The program has a way of its own to walk over them.
    fn extensions(&self) -> Place {
        walk(self)
    }
}

impl Frame for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn view<T: Wire>(&self, offset: usize) -> Option<&T> {
        let bytes = self.get(offset..)?.get(..T::LENGTH)?;
        // SAFETY: `bytes` is as long as `T` and lives as long as the result; `Wire` promises that any bytes at any
        // address are a `T`.
        Some(unsafe { &*bytes.as_ptr().cast() })
    }

    fn view_mut<T: Wire>(&mut self, offset: usize) -> Option<&mut T> {
        let bytes = self.get_mut(offset..)?.get_mut(..T::LENGTH)?;
        // SAFETY: as above, and the result borrows the frame exclusively.
        Some(unsafe { &mut *bytes.as_mut_ptr().cast() })
    }
}

/// A MAC address.
pub type Mac = [u8; 6];

/// An Ethernet header. (network-types' has an aligned integer in it and cannot lie over arbitrary bytes.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// EtherType, network order.
    pub ether_type: [u8; 2],
}

/// EtherType of IPv4.
pub const ETHER_TYPE_V4: [u8; 2] = [0x08, 0x00];
/// EtherType of IPv6.
pub const ETHER_TYPE_V6: [u8; 2] = [0x86, 0xdd];

impl Ethernet {
    /// Whether the destination is a group (multicast or broadcast) address.
    #[inline(always)]
    pub const fn to_group(&self) -> bool {
        self.destination[0] & 1 != 0
    }

    /// The header of a frame that goes back to where this one came from.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { destination: self.source, source: self.destination, ether_type: self.ether_type }
    }
}

/// Destination and source MAC address as they stand in a frame, held in two registers: copied as bytes they would be
/// read back from the program's stack in misaligned words, which the verifier refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacPair {
    first: u64,
    second: u32,
}

impl MacPair {
    /// Length in a frame.
    pub const LENGTH: usize = 12;

    /// From both addresses.
    #[inline(always)]
    pub const fn new(destination: Mac, source: Mac) -> Self {
        let [a, b, c, d, e, f] = destination;
        let destination = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let [a, b, c, d, e, f] = source;
        let source = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        Self { first: destination | (source << 48), second: (source >> 16) as u32 }
    }

    /// From the first bytes of a frame.
    #[inline(always)]
    pub const fn of_bytes(bytes: &Pair<[u8; 8], [u8; 4]>) -> Self {
        Self { first: u64::from_le_bytes(bytes.first), second: u32::from_le_bytes(bytes.second) }
    }

    /// As they stand in a frame.
    #[inline(always)]
    pub const fn bytes(self) -> Pair<[u8; 8], [u8; 4]> {
        Pair { first: self.first.to_le_bytes(), second: self.second.to_le_bytes() }
    }

    /// Whether `source` is the source.
    #[inline(always)]
    pub const fn is_from(&self, source: Mac) -> bool {
        let [a, b, c, d, e, f] = source;
        self.second == u32::from_le_bytes([c, d, e, f])
            && (self.first >> 48) as u16 == u16::from_le_bytes([a, b])
    }

    /// The source.
    #[inline(always)]
    pub const fn source(&self) -> Mac {
        let [.., a, b] = self.first.to_le_bytes();
        let [c, d, e, f] = self.second.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// The start of a frame.
    #[inline(always)]
    pub const fn ethernet(self, ether_type: [u8; 2]) -> Ethernet {
        let [a, b, c, d, e, f, g, h] = self.first.to_le_bytes();
        let [i, j, k, l] = self.second.to_le_bytes();
        Ethernet { destination: [a, b, c, d, e, f], source: [g, h, i, j, k, l], ether_type }
    }
}

/// A TCP header without options (RFC 9293 3.1). (network-types' keeps offset and flags in bit fields.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
    /// Sequence number.
    pub sequence: [u8; 4],
    /// Acknowledgement number.
    pub acknowledgement: [u8; 4],
    /// Data offset in the upper four bits, in words.
    pub offset: u8,
    /// Flags, see [`tcp_flag`].
    pub flags: u8,
    /// Window.
    pub window: [u8; 2],
    /// Checksum.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: [u8; 2],
}

/// Bits of [`Tcp::flags`].
pub mod tcp_flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets it.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// Every flag of RFC 793.
    pub const ALL: u8 = 0x3f;
}

/// Source and destination port, which TCP and UDP have in the same place, and the next four bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
    /// TCP: the sequence number. UDP: length and checksum.
    pub rest: [u8; 4],
}

/// Two headers in a row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<A, B> {
    /// The first.
    pub first: A,
    /// The second, right behind it.
    pub second: B,
}

// SAFETY: repr(C), all fields are bytes or byte arrays.
unsafe impl Wire for Ethernet {}
// SAFETY: as above.
unsafe impl Wire for Tcp {}
// SAFETY: as above.
unsafe impl Wire for Ports {}
// SAFETY: as above.
unsafe impl Wire for Ipv4Hdr {}
// SAFETY: as above.
unsafe impl Wire for Ipv6Hdr {}
// SAFETY: as above.
unsafe impl Wire for UdpHdr {}
// SAFETY: as above; ICMPv6 has the same shape (RFC 4443 2.1).
unsafe impl Wire for Icmpv4Hdr {}
// SAFETY: bytes.
unsafe impl<const N: usize> Wire for [u8; N] {}
// SAFETY: repr(C) of two types of alignment 1 has no padding.
unsafe impl<A: Wire, B: Wire> Wire for Pair<A, B> {}

const _: () = {
    assert!(size_of::<Ethernet>() == 14 && align_of::<Ethernet>() == 1);
    assert!(size_of::<Tcp>() == 20 && align_of::<Tcp>() == 1);
    assert!(size_of::<Ports>() == 8 && align_of::<Ports>() == 1);
    assert!(size_of::<Ipv4Hdr>() == 20 && align_of::<Ipv4Hdr>() == 1);
    assert!(size_of::<Ipv6Hdr>() == 40 && align_of::<Ipv6Hdr>() == 1);
    assert!(size_of::<UdpHdr>() == 8 && align_of::<UdpHdr>() == 1);
    assert!(size_of::<Icmpv4Hdr>() == 8 && align_of::<Icmpv4Hdr>() == 1);
    assert!(size_of::<Pair<Ethernet, Pair<Ipv4Hdr, Tcp>>>() == 54);
};

/// A 16-bit field of a header.
#[inline(always)]
pub const fn be16(bytes: [u8; 2]) -> Be16 {
    Be16::from_raw(u16::from_ne_bytes(bytes))
}

/// A 32-bit field of a header.
#[inline(always)]
pub const fn be32(bytes: [u8; 4]) -> Be32 {
    Be32::from_raw(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_ends_with_the_frame() {
        let mut frame: Vec<u8> = (0..34).collect();
        let frame = frame.as_mut_slice();
        assert_eq!(frame.view::<Ethernet>(0).map(|header| header.ether_type), Some([12, 13]));
        assert_eq!(frame.view::<Ipv4Hdr>(14).map(|header| header.dst_addr), Some([30, 31, 32, 33]));
        assert!(frame.view::<Ipv4Hdr>(15).is_none());
        assert!(frame.view::<Ethernet>(35).is_none());
        assert!(frame.view::<Ethernet>(usize::MAX).is_none());
        frame.view_mut::<Ethernet>(20).expect("it ends at 34").source = [0xaa; 6];
        assert_eq!(frame[26..32], [0xaa; 6]);
    }

    #[test]
    fn a_pair_of_addresses_stands_in_order() {
        let (destination, source) = ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        let pair = MacPair::new(destination, source);
        assert_eq!(pair.ethernet([8, 0]), Ethernet { destination, source, ether_type: [8, 0] });
        assert!(pair.is_from(source));
        for byte in 0..6 {
            let mut other = source;
            other[byte] ^= 0x80;
            assert!(!pair.is_from(other), "byte {byte}");
        }
    }

    #[test]
    fn fields_are_in_network_order() {
        assert_eq!(be16([0x12, 0x34]).to_host(), 0x1234);
        assert_eq!(be32([0x12, 0x34, 0x56, 0x78]).to_host(), 0x1234_5678);
    }
}
