//! Generic UDP Encapsulation, variant 0: an outer IP header, a UDP header and four bytes that say which IP version follows.

use std::net::IpAddr;

use crate::{
    bytes::{checksum, number16, pseudo_header, put16},
    config::Backend,
    forward::What,
    ip::{IP, Packet, TCP, UDP, new_header},
    transport::{Flow, checksum_offset},
};

/// Bytes of the UDP header and of GUE's own.
pub const OVERHEAD: usize = 12;

/// A frame in a tunnel to a backend. `frame` is that of `packet` (of `length` bytes) with one less on its hop limit.
pub fn wrapped(
    frame: &[u8],
    packet: &Packet<'_>,
    what: What<'_>,
    backend: &Backend,
    length: usize,
) -> Vec<u8> {
    let source = backend.tunnel_source.expect("a tunnel has an outer source");
    let carried = if packet.is_v6 { 41 } else { 4 };
    let mut front = source_port(packet, what).to_be_bytes().to_vec();
    front.extend(backend.port.to_be_bytes());
    front.extend((length as u16 + OVERHEAD as u16).to_be_bytes());
    front.extend([0, 0, 0, carried, 0, 0]);
    let pseudo = pseudo_header(source, backend.address, UDP, length + OVERHEAD);
    let sum = checksum(&[&pseudo, &front, &as_if_sound(&frame[IP..IP + length], packet)]);
    put16(&mut front, 6, if sum == 0 { 0xffff } else { sum });
    let class = packet.traffic_class();
    let outer = new_header(source, backend.address, UDP, class, length + OVERHEAD);
    [&frame[..IP], &outer, &front, &frame[IP..]].concat()
}

/// One of the 16,384 dynamic ports, by the upper bits of the product of a constant and of what tells flows apart: the client's
/// address and both ports, each 32 bits as they stand in memory of a little-endian machine, added without carry. Fragments
/// have no ports, and an error is one of the flow that it is about.
fn source_port(packet: &Packet<'_>, what: What<'_>) -> u16 {
    let (client, ports) = match what {
        What::Flow { flow, .. } => (flow.source, ports(flow)),
        What::First { .. } | What::Later => (packet.source(), 0),
        What::Error(quote) => {
            let flow = quote.flow.reversed();
            (flow.source, ports(&flow))
        }
    };
    // An IPv4 address as IPv6 writes it.
    let octets = match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let words = octets.chunks_exact(4).map(|four| [four[0], four[1], four[2], four[3]]);
    let folded = words.map(u32::from_le_bytes).fold(ports, |folded, word| folded ^ word);
    0xc000 | (folded.wrapping_mul(0x9E37_79B1) >> 18) as u16
}

fn ports(flow: &Flow) -> u32 {
    let ([a, b], [c, d]) = (flow.destination_port.to_be_bytes(), flow.source_port.to_be_bytes());
    u32::from_le_bytes([a, b, c, d])
}

/// A packet as the outer checksum takes it: one whose transport checksum covers all of it is believed to be right, so that one
/// which is wrong makes the outer one wrong, too (docs/decisions.md).
fn as_if_sound(inner: &[u8], packet: &Packet<'_>) -> Vec<u8> {
    let mut sound = inner.to_vec();
    if packet.is_fragment() || packet.has_extension() {
        return sound;
    }
    let (at, protocol) = (packet.header_length(), packet.protocol());
    let is_covered = match protocol {
        TCP => true,
        UDP => {
            number16(inner, at + 6) != 0 && usize::from(number16(inner, at + 4)) == inner.len() - at
        }
        _ => false,
    };
    if !is_covered {
        return sound;
    }
    if !packet.is_v6 {
        put16(&mut sound, 10, 0);
        let sum = checksum(&[&sound[..at]]);
        put16(&mut sound, 10, sum);
    }
    let pseudo = pseudo_header(packet.source(), packet.destination(), protocol, inner.len() - at);
    let field = at + checksum_offset(protocol);
    put16(&mut sound, field, 0);
    let sum = checksum(&[&pseudo, &sound[at..]]);
    put16(&mut sound, field, sum);
    sound
}
