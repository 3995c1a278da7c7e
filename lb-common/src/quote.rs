//! The packet that an ICMP error is about. The error quotes its beginning: the IP header and at least eight bytes
//! (RFC 792), which hold the ports.

use network_types::{
    icmp::Icmpv4Hdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};

use crate::{
    abi::{FlowKey, protocol},
    be::Be16,
    frame::{Frame, Ports, Wire, be16},
    ip::IpHeader,
};

/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

/// A quoted TCP or UDP packet. Offsets are in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The flow, in the direction in which the quoted packet went.
    pub flow: FlowKey,
    /// Offset of the ICMP header.
    pub icmp: usize,
    /// Offset of the quoted IP header.
    pub network: usize,
    /// Offset of the quoted TCP or UDP header.
    pub transport: usize,
    /// Whether the quote reaches as far as that header's checksum.
    pub has_checksum: bool,
}

/// Reads the packet that the ICMP error at offset `icmp` quotes; the message ends at offset `end`. `None` for a quote that is
/// cut short, broken, or not the beginning of a TCP or UDP packet. IPv4 options are passed over; of IPv6's extension
/// headers only the fragment header is known. An IPv4 header's checksum is for the caller to judge.
#[inline(always)]
pub fn read<H: IpHeader>(frame: &(impl Frame + ?Sized), icmp: usize, end: usize) -> Option<Quote> {
    let network = icmp + Icmpv4Hdr::LENGTH;
    let header = frame.view::<H>(network)?;
    if !header.is_version() {
        return None;
    }
    let (protocol, transport) = transport::<H>(frame, network)?;
    let is_tcp = protocol == protocol::TCP;
    if !(is_tcp || protocol == protocol::UDP) || transport + Ports::LENGTH > end {
        return None;
    }
    let (source, destination) = (header.source(), header.destination());
    // An IPv6 packet with a mapped address would otherwise be taken for one of an IPv4 flow.
    if H::IS_V6 && (source.is_v4() || destination.is_v4()) {
        return None;
    }
    let ports = frame.view::<Ports>(transport)?;
    let flow = FlowKey {
        source,
        destination,
        source_port: be16(ports.source),
        destination_port: be16(ports.destination),
        protocol,
        _pad: [0; 3],
    };
    if flow.source_port == Be16::from_host(0) || flow.destination_port == Be16::from_host(0) {
        return None;
    }
    let has_checksum = !is_tcp || transport + TCP_CHECKSUM + 2 <= end;
    Some(Quote { flow, icmp, network, transport, has_checksum })
}

/// Protocol and offset of what follows a quoted IP header, unless it is the middle of a packet.
#[inline(always)]
fn transport<H: IpHeader>(frame: &(impl Frame + ?Sized), network: usize) -> Option<(u8, usize)> {
    const FRAGMENT_HEADER: u8 = 44;
    const OFFSET_V4: u16 = 0x1fff;
    const OFFSET_V6: u16 = 0xfff8;
    if H::IS_V6 {
        let header = frame.view::<Ipv6Hdr>(network)?;
        if header.next_hdr != FRAGMENT_HEADER {
            return Some((header.next_hdr, network + Ipv6Hdr::LENGTH));
        }
        let [next, _, a, b, ..] = *frame.view::<[u8; 8]>(network + Ipv6Hdr::LENGTH)?;
        let is_first = be16([a, b]).to_host() & OFFSET_V6 == 0;
        is_first.then_some((next, network + Ipv6Hdr::LENGTH + 8))
    } else {
        let header = frame.view::<Ipv4Hdr>(network)?;
        let length = (header.vihl & 15) as usize * 4;
        let is_first = be16(header.frags).to_host() & OFFSET_V4 == 0;
        (is_first && length >= Ipv4Hdr::LENGTH).then_some((header.proto, network + length))
    }
}

#[cfg(test)]
mod tests;
