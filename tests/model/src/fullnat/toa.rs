//! Full nat tells servers who the client is: a TCP option in what the client sends, until the server has sent data (docs/decisions.md,
//! `toa` of a service). Kind 254 with an IPv4 address, 253 with an IPv6 address; length, the client's port, its address. It is the first
//! option. A client's own options of these kinds get a kind that nobody reads, wherever the server may still be told.

use super::Port;
use crate::{
    bytes::{carried_over, number16, octets, pseudo_header, put16, sum},
    config::{Backend, Service},
    ip::{IP, Packet, TCP, change_header},
    outcome::{part, reason},
    state::State,
    tcp_options,
    transport::Sound,
};

const KIND_V4: u8 = 254;
const KIND_V6: u8 = 253;
const HIDDEN: u8 = 255;
/// The longest TCP header.
const LONGEST: usize = 60;

/// Bytes that the option takes.
pub fn length(is_v6: bool) -> usize {
    if is_v6 { 20 } else { 8 }
}

/// The frame of a client's packet, if it leaves with something else in its header.
pub fn told(
    state: &mut State,
    packet: &Packet<'_>,
    sound: &Sound,
    service: &Service,
    backend: &Backend,
    port: Port,
) -> Option<Vec<u8>> {
    let spoke = state.ports.held(port).is_some_and(|holder| holder.server_spoke);
    if !service.tells || service.protocol != TCP || spoke {
        return None;
    }
    let mut frame = packet.frame.to_vec();
    if hide(&mut frame, packet) {
        state.met(part::TOA_HIDDEN);
    }
    if !sound.is_acknowledgement {
        return Some(frame);
    }
    let transport = IP + packet.header_length();
    let header = usize::from(frame[transport + 12] >> 4) * 4;
    let is_plain = packet.header_length() == if packet.is_v6 { 40 } else { 20 };
    let (packet_length, more) = (packet.length().ok()?, length(packet.is_v6));
    let most = backend.hop.map_or(0, |hop| usize::from(hop.mtu));
    let most = if most == 0 { 65_535 } else { most };
    if !is_plain || header + more > LONGEST || packet_length + more > most {
        state.count(service.id, reason::TOA_OMITTED);
        return Some(frame);
    }
    state.met(part::TOA);
    insert(&mut frame, packet, packet_length);
    Some(frame)
}

/// Hides what the client says of these kinds.
fn hide(frame: &mut [u8], packet: &Packet<'_>) -> bool {
    let options = tcp_options::of(packet);
    let lies = options.iter().filter(|option| matches!(option.kind, KIND_V4 | KIND_V6));
    let at: Vec<usize> = lies.map(|option| option.at).collect();
    if at.is_empty() {
        return false;
    }
    tcp_options::change(frame, packet, |frame| at.iter().for_each(|at| frame[*at] = HIDDEN));
    true
}

fn insert(frame: &mut Vec<u8>, packet: &Packet<'_>, packet_length: usize) {
    let (at, end) = (IP + packet.header_length(), IP + packet_length);
    let client = packet.source();
    let kind = if packet.is_v6 { KIND_V6 } else { KIND_V4 };
    let more = length(packet.is_v6);
    let port = number16(frame, at).to_be_bytes();
    let option = [&[kind, more as u8, port[0], port[1]][..], &octets(client)].concat();
    let pseudo = |length| pseudo_header(client, packet.destination(), TCP, length);
    let before = sum(&[&pseudo(end - at), &frame[at..end]]);
    frame.splice(at + 20..at + 20, option);
    frame[at + 12] += (more as u8 / 4) << 4;
    put16(frame, at + 16, 0);
    let after = sum(&[&pseudo(end - at + more), &frame[at..end + more]]);
    put16(frame, at + 16, carried_over(before, after));
    change_header(frame, IP, |header| header.grow(more as u16));
}
