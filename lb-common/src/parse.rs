//! From bytes to a flow, in two steps: [`outline`] reads just enough to look the packet up; [`examine`] judges a packet
//! that is known to be ours. So nothing that is not ours is ever dropped for what it looks like.
//!
//! Lengths come from the IP header, never from the frame: Ethernet trailers are not part of a packet.

pub mod extensions;
mod family;
pub mod options;

pub use family::{Family, V4, V4Options, V6, V6Extended};

use crate::{
    abi::{Address, FlowKey, Reason, protocol},
    be::Be16,
    frame::{Ethernet, Frame, Pair, Ports, Tcp, Wire, be16, tcp_flag},
    ip::IpHeader,
};
use network_types::udp::UdpHdr;

/// Offset of the IP header.
pub const NETWORK: usize = Ethernet::LENGTH;

/// What a packet is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The flow; ports are trustworthy only after [`examine`].
    pub flow: FlowKey,
    /// Offset of the TCP or UDP header in the frame.
    pub transport: usize,
}

/// A packet that is ours and sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The flow.
    pub flow: FlowKey,
    /// Offset of the TCP or UDP header in the frame.
    pub transport: usize,
    /// Length of the IP packet, bytes.
    pub length: u16,
    /// TTL or hop limit, as received.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// TCP flags ([`tcp_flag`]); 0 for UDP, but SYN for what may open a QUIC connection.
    pub flags: u8,
}

impl Packet {
    /// Whether it opens a TCP connection (SYN without ACK), or may open a QUIC connection.
    #[inline(always)]
    pub const fn is_opening(&self) -> bool {
        self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }
}

/// Reads a plain TCP or UDP packet: no fragment, no extension headers but those of its family, and at least eight bytes behind the IP header.
/// `None` for everything else, which [`destination`] and [`examine_any`] are for.
#[inline(always)]
pub fn outline<F: Family>(frame: &(impl Frame + ?Sized)) -> Option<Outline> {
    if F::FIXED {
        let headers = frame.view::<Pair<F::Header, Ports>>(NETWORK)?;
        let header = &headers.first;
        let end = (header.protocol(), NETWORK + F::MINIMUM);
        return outline_of::<F>(header, &headers.second, end);
    }
    let header = frame.view::<F::Header>(NETWORK)?;
    let (protocol, transport) = F::transport(frame, header).ok()?;
    outline_of::<F>(header, frame.view::<Ports>(transport)?, (protocol, transport))
}

#[inline(always)]
fn outline_of<F: Family>(
    header: &F::Header,
    ports: &Ports,
    (protocol, transport): (u8, usize),
) -> Option<Outline> {
    if !F::is_plain(header) || !(protocol == protocol::TCP || protocol == protocol::UDP) {
        return None;
    }
    // An IPv6 packet to a mapped address would otherwise be taken for one to the IPv4 service.
    if F::Header::IS_V6 && header.destination().is_v4() {
        return None;
    }
    let flow = FlowKey {
        source: header.source(),
        destination: header.destination(),
        source_port: be16(ports.source),
        destination_port: be16(ports.destination),
        protocol,
        _pad: [0; 3],
    };
    Some(Outline { flow, transport })
}

/// Judges a client's packet of which [`outline`] said what it is. The hop limit is not judged: that has an answer, and comes
/// after everything that decides whether a packet deserves one.
#[inline(always)]
pub fn examine<F: Family>(
    frame: &(impl Frame + ?Sized),
    outline: &Outline,
) -> Result<Packet, Reason> {
    let packet = examine_reply::<F>(frame, outline)?;
    if is_martian(&packet.flow.source, &packet.flow.destination) {
        return Err(Reason::Martian);
    }
    Ok(packet)
}

/// As [`examine`], for a backend's packet, whose source is known to be one.
#[inline(always)]
pub fn examine_reply<F: Family>(
    frame: &(impl Frame + ?Sized),
    outline: &Outline,
) -> Result<Packet, Reason> {
    let header = frame.view::<F::Header>(NETWORK).ok_or(Reason::L3Truncated)?;
    let length = network_length::<F>(header, frame.length())?;
    F::check_length(header)?;
    let room = (length as usize).saturating_sub(outline.transport - NETWORK);
    let flags = if outline.flow.protocol == protocol::TCP {
        let tcp = frame.view::<Tcp>(outline.transport).ok_or(Reason::L4Truncated)?;
        check_tcp(tcp, room)?;
        tcp.flags
    } else {
        check_udp(
            frame.view(outline.transport).ok_or(Reason::L4Truncated)?,
            room,
            F::Header::IS_V6,
        )?;
        0
    };
    if outline.flow.source_port == Be16::from_host(0) {
        return Err(Reason::PortZero);
    }
    Ok(Packet {
        flow: outline.flow,
        transport: outline.transport,
        length,
        hop_limit: header.hop_limit(),
        traffic_class: header.traffic_class(),
        flags,
    })
}

/// The destination of any IP packet, or why it has none.
#[inline(always)]
pub fn destination<F: Family>(frame: &(impl Frame + ?Sized)) -> Result<Address, Reason> {
    let header = frame.view::<F::Header>(NETWORK).ok_or(Reason::L3Truncated)?;
    if !header.is_version() {
        return Err(Reason::IpVersion);
    }
    let destination = header.destination();
    if F::Header::IS_V6 && destination.is_v4() {
        return Err(Reason::Martian);
    }
    Ok(destination)
}

/// What carries a packet that is not plain TCP or UDP, or has no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// IP protocol or next header.
    pub protocol: u8,
    /// Offset of what follows the IP header in the frame.
    pub transport: usize,
    /// Length of the IP packet, bytes.
    pub length: u16,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
}

/// Judges any packet to an address of ours: what [`examine`] would find wrong with it, or what it carries.
#[inline(always)]
pub fn examine_any<F: Family>(frame: &(impl Frame + ?Sized)) -> Result<Carrier, Reason> {
    let header = frame.view::<F::Header>(NETWORK).ok_or(Reason::L3Truncated)?;
    let length = network_length::<F>(header, frame.length())?;
    F::check_length(header)?;
    let (protocol, transport) = F::transport(frame, header)?;
    let room = (length as usize).saturating_sub(transport - NETWORK);
    let source = header.source();
    let minimum = match protocol {
        protocol::TCP => Tcp::LENGTH,
        protocol::UDP => UdpHdr::LENGTH,
        protocol if protocol == F::Header::ICMP => 8,
        _ => 0,
    };
    if room < minimum {
        return Err(Reason::L4Truncated);
    }
    let destination = header.destination();
    Ok(Carrier { protocol, transport, length, source, destination })
}

#[inline(always)]
pub(crate) fn network_length<F: Family>(
    header: &F::Header,
    frame_length: usize,
) -> Result<u16, Reason> {
    let length = header.length();
    if (length as usize) < F::MINIMUM || length as usize + NETWORK > frame_length {
        return Err(Reason::L3Length);
    }
    // Frames beyond 64 KiB do not exist, and IPv6 without a payload is a jumbogram or nothing for us (RFC 2675).
    Ok(length as u16)
}

#[inline(always)]
fn check_tcp(tcp: &Tcp, room: usize) -> Result<(), Reason> {
    if room < Tcp::LENGTH {
        return Err(Reason::L4Truncated);
    }
    let offset = (tcp.offset >> 4) as usize * 4;
    if offset < Tcp::LENGTH || offset > room {
        return Err(Reason::TcpOffset);
    }
    let flags = tcp.flags;
    let contradicting = tcp_flag::FIN | tcp_flag::RST;
    if flags & tcp_flag::ALL == 0 || (flags & tcp_flag::SYN != 0 && flags & contradicting != 0) {
        return Err(Reason::TcpFlags);
    }
    Ok(())
}

#[inline(always)]
fn check_udp(udp: &UdpHdr, room: usize, is_v6: bool) -> Result<(), Reason> {
    if room < UdpHdr::LENGTH {
        return Err(Reason::L4Truncated);
    }
    let length = be16(udp.len).to_host() as usize;
    if length < UdpHdr::LENGTH || length > room {
        return Err(Reason::UdpLength);
    }
    if is_v6 && udp.check == [0, 0] {
        return Err(Reason::UdpNoChecksum);
    }
    Ok(())
}

/// Whether no client can have this source address (RFC 1812 5.3.7, RFC 6890, RFC 4291 2.5).
#[inline(always)]
pub fn is_martian(source: &Address, destination: &Address) -> bool {
    if source == destination {
        return true;
    }
    let [a, b, c, d] = source.words;
    if destination.is_v4() {
        let first = d.to_host() >> 24;
        return first == 0 || first == 127 || first >= 224;
    }
    let head = a.to_host();
    let group = head >> 24 == 0xff;
    let is_link_local = |word: u32| word >> 22 == 0xfe80 >> 6;
    let link_local = is_link_local(head) && !is_link_local(destination.words[0].to_host());
    // ::, ::1 and ::ffff:0:0/96
    let upper_zero = a.raw() == 0 && b.raw() == 0;
    let special =
        upper_zero && ((c.raw() == 0 && d.to_host() <= 1) || c.raw() == Address::MAPPED.raw());
    group || link_local || special
}

#[cfg(test)]
mod tests;
