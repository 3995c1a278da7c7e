//! What a host or router answers to a packet, built as packets are: by etherparse.

use super::packet::{Packet, Transport, flag};

/// An ICMP error about a packet, as RFC 792, RFC 1812 4.3.2 and RFC 4443 2.4 want it.
pub fn error(about: &Packet, (kind, code): (u8, u8), rest: [u8; 4]) -> Packet {
    let is_v4 = about.ip.source.is_ipv4();
    // An error has at most 576 (RFC 1812) or 1280 (RFC 4443) bytes in all.
    let most = if is_v4 { 576 - 28 } else { 1280 - 48 };
    let mut quoted = about.ip_bytes();
    quoted.truncate(most);
    let mut error = about.clone();
    (error.to, error.from) = (about.from, about.to);
    (error.ip.source, error.ip.destination) = (about.ip.destination, about.ip.source);
    (error.ip.class, error.ip.hop_limit, error.ip.label) = (0xc0, 64, 0);
    error.ip.dont_fragment = true;
    error.ip.options.clear();
    error.transport = Transport::Icmp { kind, code, rest };
    error.payload(&quoted).trailer(&[])
}

/// The error that says how large a packet may be (RFC 1191, RFC 4443 3.2).
pub fn too_big(about: &Packet, mtu: u16) -> Packet {
    let [high, low] = mtu.to_be_bytes();
    error(about, if about.ip.source.is_ipv4() { (3, 4) } else { (2, 0) }, [0, 0, high, low])
}

/// The error of the last hop.
pub fn time_exceeded(about: &Packet) -> Packet {
    error(about, if about.ip.source.is_ipv4() { (11, 0) } else { (3, 0) }, [0; 4])
}

/// The reset that answers a segment (RFC 9293 3.10.7.1).
///
/// # Panics
/// If it is none.
pub fn reset(about: &Packet) -> Packet {
    let mut reset = about.clone();
    (reset.to, reset.from) = (about.from, about.to);
    (reset.ip.source, reset.ip.destination) = (about.ip.destination, about.ip.source);
    (reset.ip.hop_limit, reset.ip.label) = (64, 0);
    reset.ip.class &= !3;
    reset.ip.dont_fragment = true;
    reset.ip.options.clear();
    let length = about.payload.len() as u32;
    reset.payload(&[]).trailer(&[]).with_tcp(|tcp| {
        (tcp.source, tcp.destination) = (tcp.destination, tcp.source);
        let opens = u32::from(tcp.flags & flag::SYN != 0) + u32::from(tcp.flags & flag::FIN != 0);
        (tcp.sequence, tcp.acknowledgement, tcp.flags) = if tcp.flags & flag::ACK != 0 {
            (tcp.acknowledgement, 0, flag::RST)
        } else {
            (0, tcp.sequence.wrapping_add(length).wrapping_add(opens), flag::RST | flag::ACK)
        };
        (tcp.window, tcp.options) = (0, Vec::new());
    })
}
