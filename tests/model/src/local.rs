//! Packets to a VIP that no service takes: other ports and protocols, ICMP, fragments, and what is broken.

use crate::{
    address::is_martian,
    bytes::{carried_over, checksum, pseudo_header, put16, sum},
    config::{Config, Vip},
    error,
    forward::set_ethernet,
    fragment,
    ip::{End, IP, Packet, TCP, UDP, change_header, mac_at},
    outcome::{Outcome, reason},
    state::State,
};

/// The longest echo request that is answered: what a jumbo frame holds.
const LONGEST_MESSAGE: usize = 9_216;

/// What an ICMP message is to lb.
enum Kind {
    EchoRequest,
    /// It quotes a packet.
    Error,
    Other,
}

/// Decides about a packet to a VIP.
pub fn for_vip(config: &Config, state: &mut State, packet: &Packet<'_>, vip: Vip) -> Outcome {
    let drop = |reason| Outcome::dropped(reason, 0);
    if packet.has_source_route() {
        return drop(reason::SOURCE_ROUTE);
    }
    let length = match examine(packet) {
        Ok(length) => length,
        Err(reason) => return drop(reason),
    };
    if packet.is_fragment() {
        return fragment::to_backend(config, state, packet);
    }
    if packet.protocol() == packet.icmp() {
        return icmp(config, state, packet, length);
    }
    nobodys(packet, vip, reason::NO_SERVICE)
}

/// A packet to a VIP that nobody wants: the host's, if the VIP is its address, too; else it could loop.
pub fn nobodys(packet: &Packet<'_>, vip: Vip, reason: &'static str) -> Outcome {
    if vip.is_local {
        Outcome::passed(packet.frame, reason::NO_SERVICE_PASSED)
    } else {
        Outcome::dropped(reason, 0)
    }
}

/// Judges what can be judged of any packet; its length.
pub fn examine(packet: &Packet<'_>) -> Result<usize, &'static str> {
    let length = packet.length()?;
    if packet.is_fragment() {
        return Ok(length);
    }
    if packet.has_refused_extension() {
        return Err(reason::EXTENSION_HEADER);
    }
    let least = match packet.protocol() {
        TCP => 20,
        UDP => 8,
        protocol if protocol == packet.icmp() => 8,
        _ => 0,
    };
    if length.saturating_sub(packet.header_length()) < least {
        return Err(reason::L4_TRUNCATED);
    }
    Ok(length)
}

fn icmp(config: &Config, state: &mut State, packet: &Packet<'_>, length: usize) -> Outcome {
    match kind(packet) {
        Kind::EchoRequest => echo(packet, length),
        Kind::Error => error::to_backend(config, state, packet, length),
        // Echo replies, neighbour discovery...: the host's (B62, B85).
        Kind::Other => Outcome::passed(packet.frame, reason::NO_SERVICE_PASSED),
    }
}

fn kind(packet: &Packet<'_>) -> Kind {
    let message_type = packet.frame[IP + packet.header_length()];
    match (packet.is_v6, message_type) {
        (false, 8) | (true, 128) => Kind::EchoRequest,
        (false, 3 | 4 | 5 | 11 | 12) | (true, 0..=127) => Kind::Error,
        _ => Kind::Other,
    }
}

/// A right echo request is answered in place (B59, B61).
fn echo(packet: &Packet<'_>, length: usize) -> Outcome {
    let (source, destination) = (packet.source(), packet.destination());
    if is_martian(source, destination) {
        return Outcome::dropped(reason::MARTIAN, 0);
    }
    let at = IP + packet.header_length();
    let message = at..IP + length;
    if message.len() > LONGEST_MESSAGE {
        return Outcome::dropped(reason::TOO_BIG, 0);
    }
    let pseudo = if packet.is_v6 {
        pseudo_header(source, destination, packet.icmp(), message.len())
    } else {
        Vec::new()
    };
    if checksum(&[&pseudo, &packet.frame[message.clone()]]) != 0 {
        return Outcome::dropped(reason::ICMP_CHECKSUM, 0);
    }
    let mut frame = packet.frame.to_vec();
    change_header(&mut frame, IP, |header| {
        header.set_address(End::Source, destination);
        header.set_address(End::Destination, source);
        header.set_hop_limit(64);
    });
    frame[at] = if packet.is_v6 { 129 } else { 0 };
    put16(&mut frame, at + 2, 0);
    // The pseudo header's sum is the same in both directions.
    let after = sum(&[&pseudo, &frame[message]]);
    put16(&mut frame, at + 2, carried_over(0xffff, after));
    set_ethernet(&mut frame, packet.sender(), mac_at(packet.frame, 0), packet.is_v6);
    Outcome::answered(frame, reason::ECHO, 0)
}
