//! TCP and UDP: what a flow is, what a sound header is, and how an end of a flow is replaced.

use std::net::IpAddr;

use crate::{
    address,
    bytes::{carried_over, number16, number32, pseudo_header, put16, sum},
    ip::{End, IP, Packet, TCP, UDP, change_header},
    outcome::reason,
    slots::Tail,
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// 6 or 17.
    pub protocol: u8,
}

/// What a sound TCP or UDP header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sound {
    /// SYN without ACK.
    pub is_opening: bool,
    /// RST.
    pub is_reset: bool,
    /// FIN.
    pub is_closing: bool,
    /// SYN and ACK.
    pub is_syn_ack: bool,
    /// ACK, and neither begins nor ends anything.
    pub is_acknowledgement: bool,
    /// ACK.
    pub acknowledges: bool,
    /// A segment with data.
    pub has_data: bool,
    /// What a segment takes of the sequence space: its data, SYN and FIN.
    pub length: u32,
    /// TCP's sequence and acknowledgement number.
    pub numbers: (u32, u32),
}

impl Flow {
    /// The flow that a whole TCP or UDP packet seems to belong to, before anything is known to be sound: no fragment, no
    /// extension header that is not passed over, and eight bytes behind the IP header are in the frame. A packet to a mapped address belongs to
    /// none.
    pub fn plain(packet: &Packet<'_>) -> Option<Self> {
        let is_carrier = packet.protocol() == TCP || packet.protocol() == UDP;
        let is_whole = packet.header_length() >= 20 && !packet.is_fragment();
        if !is_carrier || !is_whole || address::is_mapped(packet.destination()) {
            return None;
        }
        Self::at(packet, IP + packet.header_length(), packet.protocol())
    }

    /// The flow whose transport header stands at `at`; none if the frame ends within eight bytes.
    pub fn at(packet: &Packet<'_>, at: usize, protocol: u8) -> Option<Self> {
        packet.frame.get(at..at + 8)?;
        Some(Self {
            source: packet.source(),
            destination: packet.destination(),
            source_port: number16(packet.frame, at),
            destination_port: number16(packet.frame, at + 2),
            protocol,
        })
    }

    /// The flow in the other direction.
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Judges a whole packet of a flow, from the outside in: lengths, the transport header (B04, B05, B15, B33, B34, B42,
/// B44), the port (B38).
pub fn examine(packet: &Packet<'_>, flow: &Flow) -> Result<Sound, &'static str> {
    let length = packet.length()?;
    let at = IP + packet.header_length().min(length);
    let segment = &packet.frame[at..IP + length];
    let mut sound = Sound::default();
    if flow.protocol == TCP {
        if segment.len() < 20 {
            return Err(reason::L4_TRUNCATED);
        }
        let header = usize::from(segment[12] >> 4) * 4;
        if header < 20 || header > segment.len() {
            return Err(reason::TCP_OFFSET);
        }
        let flags = segment[13];
        // The two upper bits are ECN's, and say nothing about the connection.
        if flags & 0x3f == 0 || (flags & SYN != 0 && flags & (FIN | RST) != 0) {
            return Err(reason::TCP_FLAGS);
        }
        sound = Sound::of_flags(flags);
        sound.has_data = segment.len() > header;
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        sound.length = (segment.len() - header) as u32 + controls;
        sound.numbers = (number32(segment, 4), number32(segment, 8));
    } else {
        if segment.len() < 8 {
            return Err(reason::L4_TRUNCATED);
        }
        let stated = usize::from(number16(segment, 4));
        if stated < 8 || stated > segment.len() {
            return Err(reason::UDP_LENGTH);
        }
        if packet.is_v6 && number16(segment, 6) == 0 {
            return Err(reason::UDP_NO_CHECKSUM);
        }
    }
    if flow.source_port == 0 {
        return Err(reason::PORT_ZERO);
    }
    Ok(sound)
}

impl Sound {
    /// The end of what a segment takes of the sequence space; a datagram takes nothing.
    pub(crate) fn tail(&self) -> Tail {
        let end = self.numbers.0.wrapping_add(self.length);
        Tail { end, length: self.length, closing: self.is_closing || self.is_reset }
    }

    /// What the flags of a TCP header say alone.
    pub(crate) fn of_flags(flags: u8) -> Self {
        Self {
            is_opening: flags & SYN != 0 && flags & ACK == 0,
            is_reset: flags & RST != 0,
            is_closing: flags & FIN != 0,
            is_syn_ack: flags & SYN != 0 && flags & ACK != 0,
            acknowledges: flags & ACK != 0,
            is_acknowledgement: flags & (SYN | FIN | RST | ACK) == ACK,
            ..Self::default()
        }
    }
}

/// Offset of the checksum in a TCP or UDP header.
pub fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

/// A transport header to be changed: where it stands in the frame, where what its checksum covers ends, and the ends of the flow.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Offset of the header.
    pub at: usize,
    /// Where the IP packet ends, or what there is of it.
    pub end: usize,
    /// Offset of the IP header.
    pub network: usize,
}

/// Replaces address and port of one end of a flow. The transport checksum (if it lies within the place) and an IPv4 header's
/// are brought along; of UDP over IPv4, none stays none.
pub fn replace(frame: &mut [u8], place: Place, flow: &Flow, end: End, to: (IpAddr, u16)) {
    let (address, port) = to;
    let pseudo = |source, destination| {
        pseudo_header(source, destination, flow.protocol, place.end - place.at)
    };
    let before = sum(&[&pseudo(flow.source, flow.destination), &frame[place.at..place.end]]);
    let (source, destination) = match end {
        End::Source => (address, flow.destination),
        End::Destination => (flow.source, address),
    };
    change_header(frame, place.network, |header| header.set_address(end, address));
    put16(frame, place.at + if end == End::Source { 0 } else { 2 }, port);
    let field = place.at + checksum_offset(flow.protocol);
    let is_udp = flow.protocol == UDP;
    if field + 2 > place.end || (is_udp && number16(frame, field) == 0) {
        return;
    }
    put16(frame, field, 0);
    let after = sum(&[&pseudo(source, destination), &frame[place.at..place.end]]);
    let checksum = carried_over(before, after);
    // RFC 768: a computed zero is sent as all ones.
    put16(frame, field, if is_udp && checksum == 0 { 0xffff } else { checksum });
}
