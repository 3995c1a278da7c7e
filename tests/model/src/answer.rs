//! What lb says itself: resets and ICMP errors. A frame that is answered goes back where it came from.

use std::net::IpAddr;

use crate::{
    Limit,
    bytes::{checksum, number32, pseudo_header, put16},
    forward::set_ethernet,
    ip::{IP, Packet, TCP, mac_at, new_header},
    outcome::{Outcome, reason},
    transport::Flow,
};

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    packet: &'a Packet<'a>,
    service: u32,
    /// The address that answers: always a VIP.
    from: IpAddr,
}

impl<'a> About<'a> {
    /// A client's packet to a VIP.
    pub fn request(packet: &'a Packet<'a>, service: u32) -> Self {
        Self { packet, service, from: packet.destination() }
    }

    /// A backend's packet, which would leave as the VIP's.
    pub fn reply(packet: &'a Packet<'a>, service: u32, vip: IpAddr) -> Self {
        Self { packet, service, from: vip }
    }
}

/// The hop limit has run out (B20).
pub fn time_exceeded(about: &About<'_>, limit: Limit) -> Outcome {
    let (kind, code) = if about.packet.is_v6 { (3, 0) } else { (11, 0) };
    let why = (reason::TTL, reason::TTL);
    error(about, [kind, code], 0, why, limit, Some(reason::TIME_EXCEEDED_SENT))
}

/// The packet does not fit a link of `mtu` bytes (B93 to B96).
pub fn too_big(about: &About<'_>, mtu: u16, limit: Limit) -> Outcome {
    let (kind, code) = if about.packet.is_v6 { (2, 0) } else { (3, 4) };
    let why = (reason::TOO_BIG, reason::TOO_BIG);
    error(about, [kind, code], mtu, why, limit, Some(reason::TOO_BIG_SENT))
}

/// There is no port for a new flow: administratively prohibited (RFC 5508 REQ-8).
pub fn prohibited(about: &About<'_>, limit: Limit) -> Outcome {
    let (kind, code) = if about.packet.is_v6 { (1, 1) } else { (3, 13) };
    error(about, [kind, code], 0, (reason::NO_PORT, reason::NO_PORT), limit, None)
}

/// A TCP segment of no connection: a reset, which is never the answer to one.
pub fn no_flow(packet: &Packet<'_>, flow: &Flow, service: u32) -> Outcome {
    match reset(packet, flow) {
        Some(frame) => Outcome::answered(frame, reason::NO_FLOW, service),
        None => Outcome::dropped(reason::NO_FLOW, service),
    }
}

/// Nobody serves the port: a reset (RFC 9293 3.10.7.1), which is never the answer to one, or port unreachable.
pub fn refusal(packet: &Packet<'_>, flow: &Flow, service: u32, limit: Limit) -> Outcome {
    if flow.protocol == TCP {
        return match reset(packet, flow) {
            Some(frame) => Outcome::answered(frame, reason::REJECT, service),
            None => Outcome::dropped(reason::NO_BACKEND, service),
        };
    }
    let (kind, code) = if packet.is_v6 { (1, 4) } else { (3, 3) };
    let why = (reason::REJECT, reason::NO_BACKEND);
    error(&About::request(packet, service), [kind, code], 0, why, limit, None)
}

/// An ICMP error, or the drop that it stands for. `why`: what is counted with it, and without.
fn error(
    about: &About<'_>,
    kind_and_code: [u8; 2],
    mtu: u16,
    why: (&'static str, &'static str),
    limit: Limit,
    sent: Option<&'static str>,
) -> Outcome {
    let service = about.service;
    if limit == Limit::Exhausted {
        let outcome = Outcome::dropped(why.1, service).and(service, reason::ICMP_LIMITED);
        return outcome.limited();
    }
    let packet = about.packet;
    let length = packet.length().expect("it was examined");
    // As much of the packet as fits: 576 bytes in all (RFC 1812 4.3.2.3), or 1,280 (RFC 4443 2.4).
    let most = if packet.is_v6 { 1280 - 40 - 8 } else { 576 - 20 - 8 };
    let quote = &packet.frame[IP..IP + length.min(most)];
    let mut message = vec![kind_and_code[0], kind_and_code[1], 0, 0, 0, 0, 0, 0];
    put16(&mut message, 6, mtu);
    message.extend(quote);
    let to = packet.source();
    let pseudo = if packet.is_v6 {
        pseudo_header(about.from, to, packet.icmp(), message.len())
    } else {
        Vec::new()
    };
    let sum = checksum(&[&pseudo, &message]);
    put16(&mut message, 2, sum);
    // Internetwork control (RFC 1812 4.3.2.5).
    let header = new_header(about.from, to, packet.icmp(), 0xc0, message.len());
    let frame = back(packet, &header, &message);
    let outcome = Outcome::answered(frame, why.0, service).limited();
    match sent {
        Some(sent) => outcome.and(service, sent),
        None => outcome,
    }
}

/// The challenge of the SYN-flood stage: a SYN-ACK that acknowledges `cookie`, offers no window, and has neither options nor data, so
/// that it is never longer than the SYN. None if the client would take it for an answer.
pub fn challenge(packet: &Packet<'_>, flow: &Flow, cookie: u32) -> Option<Vec<u8>> {
    let at = IP + packet.header_length();
    let segment = &packet.frame[at..IP + packet.length().expect("it was examined")];
    let data = segment.len() - usize::from(segment[12] >> 4) * 4;
    // RFC 9293 3.10.7.3: acceptable is what acknowledges the SYN, and its data or a part of it.
    let acknowledged = cookie.wrapping_sub(number32(segment, 4)).wrapping_sub(1);
    if acknowledged as usize <= data {
        return None;
    }
    Some(segment_back(packet, flow, (0, cookie), SYN | ACK))
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn reset(packet: &Packet<'_>, flow: &Flow) -> Option<Vec<u8>> {
    let at = IP + packet.header_length();
    let segment = &packet.frame[at..IP + packet.length().expect("it was examined")];
    let flags = segment[13];
    if flags & RST != 0 {
        return None;
    }
    let (sequence, acknowledgement, flags) = if flags & ACK != 0 {
        (number32(segment, 8), 0, RST)
    } else {
        let data = segment.len() - usize::from(segment[12] >> 4) * 4;
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let end = number32(segment, 4).wrapping_add(data as u32).wrapping_add(controls);
        (0, end, RST | ACK)
    };
    Some(segment_back(packet, flow, (sequence, acknowledgement), flags))
}

/// A bare segment in the other direction.
fn segment_back(
    packet: &Packet<'_>,
    flow: &Flow,
    (sequence, acknowledgement): (u32, u32),
    flags: u8,
) -> Vec<u8> {
    let mut answer = vec![0; 20];
    put16(&mut answer, 0, flow.destination_port);
    put16(&mut answer, 2, flow.source_port);
    answer[4..8].copy_from_slice(&sequence.to_be_bytes());
    answer[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    (answer[12], answer[13]) = (5 << 4, flags);
    let pseudo = pseudo_header(flow.destination, flow.source, TCP, answer.len());
    let sum = checksum(&[&pseudo, &answer]);
    put16(&mut answer, 16, sum);
    // Neither resets nor SYN-ACKs are ECN-capable (RFC 3168 6.1.1).
    let class = packet.traffic_class() & !3;
    let header = new_header(flow.destination, flow.source, TCP, class, answer.len());
    back(packet, &header, &answer)
}

/// A frame to where another one came from.
fn back(packet: &Packet<'_>, header: &[u8], message: &[u8]) -> Vec<u8> {
    let mut frame = [&[0; IP], header, message].concat();
    set_ethernet(&mut frame, packet.sender(), mac_at(packet.frame, 0), packet.is_v6);
    frame
}
