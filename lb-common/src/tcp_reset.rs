//! The reset that refuses a TCP segment (RFC 9293 3.10.7.1: the state CLOSED).

use crate::{
    abi::{FlowKey, protocol},
    be::Be32,
    checksum::pseudo_header,
    frame::{Ethernet, Pair, Tcp, Wire, be32, tcp_flag},
    ip::IpHeader,
    parse::NETWORK,
};

/// A whole segment, without payload.
pub type Segment<H> = Pair<Ethernet, Pair<H, Tcp>>;

/// The answer to a segment with `payload` bytes of data; `None` for a reset, which is never answered.
#[inline(always)]
pub fn reset<H: IpHeader>(
    ethernet: &Ethernet,
    flow: &FlowKey,
    traffic_class: u8,
    segment: &Tcp,
    payload: u16,
) -> Option<Segment<H>> {
    if segment.flags & tcp_flag::RST != 0 {
        return None;
    }
    let (sequence, acknowledgement, flags) = if segment.flags & tcp_flag::ACK != 0 {
        (be32(segment.acknowledgement), Be32::from_host(0), tcp_flag::RST)
    } else {
        let end = be32(segment.sequence).to_host().wrapping_add(sequence_length(segment, payload));
        (Be32::from_host(0), Be32::from_host(end), tcp_flag::RST | tcp_flag::ACK)
    };
    Some(answer(ethernet, flow, traffic_class, (sequence, acknowledgement, flags)))
}

/// A segment that answers one of `flow`, with sequence and acknowledgement number and flags, and a window of 0.
#[inline(always)]
pub fn answer<H: IpHeader>(
    ethernet: &Ethernet,
    flow: &FlowKey,
    traffic_class: u8,
    (sequence, acknowledgement, flags): (Be32, Be32, u8),
) -> Segment<H> {
    const OFFSET: u8 = (Tcp::LENGTH as u8 / 4) << 4;
    let sum = pseudo_header(&flow.destination, &flow.source, protocol::TCP, Tcp::LENGTH as u32)
        .word(flow.source_port.raw())
        .word(flow.destination_port.raw())
        .double(sequence.raw())
        .double(acknowledgement.raw())
        .word(u16::from_ne_bytes([OFFSET, flags]));
    let tcp = Tcp {
        source: flow.destination_port.raw().to_ne_bytes(),
        destination: flow.source_port.raw().to_ne_bytes(),
        sequence: sequence.raw().to_ne_bytes(),
        acknowledgement: acknowledgement.raw().to_ne_bytes(),
        offset: OFFSET,
        flags,
        window: [0; 2],
        checksum: sum.checksum().to_ne_bytes(),
        urgent: [0; 2],
    };
    let header = H::compose(
        &flow.destination,
        &flow.source,
        protocol::TCP,
        traffic_class & !3,
        Tcp::LENGTH as u16,
    );
    Pair { first: ethernet.reversed(), second: Pair { first: header, second: tcp } }
}

/// Bytes of data in a segment whose header starts at `transport` in the frame of an IP packet of `length` bytes.
#[inline(always)]
pub const fn payload_length(segment: &Tcp, transport: usize, length: u16) -> u16 {
    let headers = transport as u16 - NETWORK as u16 + (segment.offset >> 4) as u16 * 4;
    length.saturating_sub(headers)
}

/// The sequence space a segment uses: its data, and one each for SYN and FIN.
#[inline(always)]
pub const fn sequence_length(segment: &Tcp, payload: u16) -> u32 {
    payload as u32
        + (segment.flags & tcp_flag::SYN != 0) as u32
        + (segment.flags & tcp_flag::FIN != 0) as u32
}

#[cfg(test)]
mod tests;
