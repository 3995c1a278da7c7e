//! IP headers of both versions behind one trait, so that each step of the packet path is written once and compiled
//! twice, with constant offsets.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    abi::{Address, protocol},
    be::{Be16, Be32},
    checksum::{Sum, pseudo_header, update},
    frame::{ETHER_TYPE_V4, ETHER_TYPE_V6, Wire, be16, be32},
};

/// TTL or hop limit of every packet that lb originates.
pub const HOP_LIMIT: u8 = 64;

/// An IP header without options.
pub trait IpHeader: Wire {
    /// Whether this is IPv6.
    const IS_V6: bool;
    /// The EtherType.
    const ETHER_TYPE: [u8; 2];
    /// The protocol number of this version's ICMP.
    const ICMP: u8;
    /// The protocol number of this version inside another IP header.
    const INNER: u8;

    /// Whether the version field is right.
    fn is_version(&self) -> bool;
    /// Source address.
    fn source(&self) -> Address;
    /// Destination address.
    fn destination(&self) -> Address;
    /// Protocol or next header.
    fn protocol(&self) -> u8;
    /// TTL or hop limit.
    fn hop_limit(&self) -> u8;
    /// TOS or traffic class.
    fn traffic_class(&self) -> u8;
    /// Length of the whole packet in bytes, as the header says; 0 for IPv6 without a payload (RFC 2675).
    fn length(&self) -> u32;

    /// Whether the header's checksum is right; the header has no options. IPv6 has none.
    fn is_intact(&self) -> bool;

    /// The header's checksum (raw memory word); 0 for IPv6, which has none.
    fn checksum(&self) -> u16;

    /// The sum of the whole packet, if all its checksums are right: then a segment (`length` bytes of `protocol`) and its
    /// pseudo header add up to nothing, and so does an IPv4 header with its options. The header is not followed by
    /// extension headers.
    fn sum_of_sound_packet(&self, protocol: u8, length: u16) -> Sum;

    /// Takes one off the hop limit, which must not be 0.
    fn decrement_hop_limit(&mut self);
    /// Replaces the hop limit.
    fn set_hop_limit(&mut self, hop_limit: u8);
    /// Replaces the two ECN bits (RFC 3168 5).
    fn set_ecn(&mut self, ecn: u8);
    /// Makes the packet say that it is so many bytes longer.
    fn grow(&mut self, bytes: u16);
    /// Exchanges source and destination.
    fn swap_addresses(&mut self);
    /// Replaces the source by an address of the same version.
    fn set_source(&mut self, address: &Address);
    /// Replaces the destination by an address of the same version.
    fn set_destination(&mut self, address: &Address);

    /// A header of a packet that lb originates; never fragmented.
    fn compose(
        source: &Address,
        destination: &Address,
        protocol: u8,
        traffic_class: u8,
        payload: u16,
    ) -> Self;
}

impl IpHeader for Ipv4Hdr {
    const IS_V6: bool = false;
    const ETHER_TYPE: [u8; 2] = ETHER_TYPE_V4;
    const ICMP: u8 = protocol::ICMP;
    const INNER: u8 = protocol::IPIP;

    #[inline(always)]
    fn is_version(&self) -> bool {
        self.vihl >> 4 == 4
    }

    #[inline(always)]
    fn source(&self) -> Address {
        Address::v4(be32(self.src_addr))
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address::v4(be32(self.dst_addr))
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.proto
    }

    #[inline(always)]
    fn hop_limit(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn traffic_class(&self) -> u8 {
        self.tos
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        be16(self.tot_len).to_host() as u32
    }

    #[inline(always)]
    fn is_intact(&self) -> bool {
        let constant = Sum::default()
            .word(u16::from_ne_bytes([self.vihl, self.tos]))
            .word(u16::from_ne_bytes(self.tot_len))
            .word(u16::from_ne_bytes(self.id))
            .word(u16::from_ne_bytes(self.frags))
            .word(u16::from_ne_bytes([self.ttl, self.proto]))
            .word(u16::from_ne_bytes(self.check));
        let addresses = constant
            .double(u32::from_ne_bytes(self.src_addr))
            .double(u32::from_ne_bytes(self.dst_addr));
        addresses.checksum() == 0
    }

    #[inline(always)]
    fn checksum(&self) -> u16 {
        u16::from_ne_bytes(self.check)
    }

    #[inline(always)]
    fn sum_of_sound_packet(&self, protocol: u8, length: u16) -> Sum {
        let pseudo = pseudo_header(&self.source(), &self.destination(), protocol, length as u32);
        pseudo.negated()
    }

    /// The checksum grows by what the TTL's word loses (RFC 1624); no checksum of a header is all ones, so the end-around
    /// carry is all there is to it.
    #[inline(always)]
    fn decrement_hop_limit(&mut self) {
        self.set_hop_limit(self.ttl.wrapping_sub(1));
    }

    #[inline(always)]
    fn set_hop_limit(&mut self, hop_limit: u8) {
        let old = u16::from_ne_bytes([self.ttl, self.proto]);
        self.ttl = hop_limit;
        let new = u16::from_ne_bytes([self.ttl, self.proto]);
        self.update_checksum(Sum::default().change_word(old, new));
    }

    #[inline(always)]
    fn set_ecn(&mut self, ecn: u8) {
        let old = u16::from_ne_bytes([self.vihl, self.tos]);
        self.tos = (self.tos & !3) | (ecn & 3);
        let new = u16::from_ne_bytes([self.vihl, self.tos]);
        self.update_checksum(Sum::default().change_word(old, new));
    }

    #[inline(always)]
    fn grow(&mut self, bytes: u16) {
        let old = be16(self.tot_len);
        let new = Be16::from_host(old.to_host().wrapping_add(bytes));
        self.tot_len = new.raw().to_ne_bytes();
        self.update_checksum(Sum::default().change_word(old.raw(), new.raw()));
    }

    #[inline(always)]
    fn swap_addresses(&mut self) {
        core::mem::swap(&mut self.src_addr, &mut self.dst_addr);
    }

    #[inline(always)]
    fn set_source(&mut self, address: &Address) {
        let old = u32::from_ne_bytes(self.src_addr);
        self.src_addr = bytes_v4(address);
        self.update_checksum(Sum::default().change(old, address.words[3].raw()));
    }

    #[inline(always)]
    fn set_destination(&mut self, address: &Address) {
        let old = u32::from_ne_bytes(self.dst_addr);
        self.dst_addr = bytes_v4(address);
        self.update_checksum(Sum::default().change(old, address.words[3].raw()));
    }

    #[inline(always)]
    fn compose(
        source: &Address,
        destination: &Address,
        protocol: u8,
        traffic_class: u8,
        payload: u16,
    ) -> Self {
        let constant = constant_sum_v4(source, destination, protocol);
        compose_v4(source, destination, protocol, traffic_class, payload, constant)
    }
}

trait UpdateChecksum {
    fn update_checksum(&mut self, change: Sum);
}

impl UpdateChecksum for Ipv4Hdr {
    #[inline(always)]
    fn update_checksum(&mut self, change: Sum) {
        self.check = update(u16::from_ne_bytes(self.check), change).to_ne_bytes();
    }
}

const VERSION_AND_LENGTH: u8 = 0x45;
const DO_NOT_FRAGMENT: [u8; 2] = [0x40, 0];

/// The sum of what is constant in the headers of [`compose_v4`]: everything but TOS and length.
#[inline(always)]
pub const fn constant_sum_v4(source: &Address, destination: &Address, protocol: u8) -> Sum {
    Sum::begun(0)
        .first(VERSION_AND_LENGTH)
        .word(u16::from_ne_bytes(DO_NOT_FRAGMENT))
        .word(u16::from_ne_bytes([HOP_LIMIT, protocol]))
        .double(source.words[3].raw())
        .double(destination.words[3].raw())
}

/// An IPv4 header whose constant part has been summed already. Identification 0 with DF is an atomic datagram (RFC 6864).
#[inline(always)]
pub fn compose_v4(
    source: &Address,
    destination: &Address,
    protocol: u8,
    tos: u8,
    payload: u16,
    constant: Sum,
) -> Ipv4Hdr {
    let length = Be16::from_host(payload.wrapping_add(Ipv4Hdr::LENGTH as u16)).raw();
    Ipv4Hdr {
        vihl: VERSION_AND_LENGTH,
        tos,
        tot_len: length.to_ne_bytes(),
        id: [0; 2],
        frags: DO_NOT_FRAGMENT,
        ttl: HOP_LIMIT,
        proto: protocol,
        check: constant.second(tos).word(length).checksum().to_ne_bytes(),
        src_addr: bytes_v4(source),
        dst_addr: bytes_v4(destination),
    }
}

#[inline(always)]
fn bytes_v4(address: &Address) -> [u8; 4] {
    address.words[3].raw().to_ne_bytes()
}

impl IpHeader for Ipv6Hdr {
    const IS_V6: bool = true;
    const ETHER_TYPE: [u8; 2] = ETHER_TYPE_V6;
    const ICMP: u8 = protocol::ICMPV6;
    const INNER: u8 = protocol::IPV6;

    #[inline(always)]
    fn is_version(&self) -> bool {
        self.vcf[0] >> 4 == 6
    }

    #[inline(always)]
    fn source(&self) -> Address {
        address_v6(&self.src_addr)
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        address_v6(&self.dst_addr)
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_hdr
    }

    #[inline(always)]
    fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn traffic_class(&self) -> u8 {
        (be16([self.vcf[0], self.vcf[1]]).to_host() >> 4) as u8
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        match be16(self.payload_len).to_host() {
            0 => 0,
            payload => payload as u32 + Ipv6Hdr::LENGTH as u32,
        }
    }

    #[inline(always)]
    fn is_intact(&self) -> bool {
        true
    }

    #[inline(always)]
    fn checksum(&self) -> u16 {
        0
    }

    /// The addresses and the length stand in the pseudo header, too, and only what is not there is left.
    #[inline(always)]
    fn sum_of_sound_packet(&self, protocol: u8, _: u16) -> Sum {
        Sum::default()
            .double(u32::from_ne_bytes(self.vcf))
            .word(u16::from_ne_bytes([self.next_hdr, self.hop_limit]))
            .word(!u16::from_ne_bytes([0, protocol]))
    }

    #[inline(always)]
    fn decrement_hop_limit(&mut self) {
        self.hop_limit = self.hop_limit.wrapping_sub(1);
    }

    #[inline(always)]
    fn set_hop_limit(&mut self, hop_limit: u8) {
        self.hop_limit = hop_limit;
    }

    #[inline(always)]
    fn set_ecn(&mut self, ecn: u8) {
        self.vcf[1] = (self.vcf[1] & !0x30) | ((ecn & 3) << 4);
    }

    #[inline(always)]
    fn grow(&mut self, bytes: u16) {
        let length = be16(self.payload_len).to_host().wrapping_add(bytes);
        self.payload_len = Be16::from_host(length).raw().to_ne_bytes();
    }

    #[inline(always)]
    fn swap_addresses(&mut self) {
        core::mem::swap(&mut self.src_addr, &mut self.dst_addr);
    }

    #[inline(always)]
    fn set_source(&mut self, address: &Address) {
        self.src_addr = bytes_v6(address);
    }

    #[inline(always)]
    fn set_destination(&mut self, address: &Address) {
        self.dst_addr = bytes_v6(address);
    }

    /// The flow label is 0.
    #[inline(always)]
    fn compose(
        source: &Address,
        destination: &Address,
        protocol: u8,
        traffic_class: u8,
        payload: u16,
    ) -> Self {
        let head = (6 << 28) | ((traffic_class as u32) << 20);
        Self {
            vcf: Be32::from_host(head).raw().to_ne_bytes(),
            payload_len: Be16::from_host(payload).raw().to_ne_bytes(),
            next_hdr: protocol,
            hop_limit: HOP_LIMIT,
            src_addr: bytes_v6(source),
            dst_addr: bytes_v6(destination),
        }
    }
}

#[inline(always)]
fn address_v6(bytes: &[u8; 16]) -> Address {
    let word = |at: usize| be32([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Address::v6([word(0), word(4), word(8), word(12)])
}

#[inline(always)]
fn bytes_v6(address: &Address) -> [u8; 16] {
    let [a, b, c, d] = address.words.map(|word| word.raw().to_ne_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

#[cfg(test)]
mod tests;
