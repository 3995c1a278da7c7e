//! The greatest segment that a TCP handshake offers (RFC 9293 3.7.1, `mss_clamp`, `toa`): lb lowers it where what comes back would not
//! fit, and never raises it.

use crate::{
    bytes::{number16, put16},
    config::Service,
    fullnat::option_length,
    ip::Packet,
    outcome::part,
    state::State,
    tcp_options,
    transport::Sound,
};

const KIND: u8 = 2;
/// Options that are looked at.
const LOOKED_AT: usize = 16;
/// RFC 791: 576 bytes less the headers.
const LEAST: u16 = 536;

/// The frame of a client's SYN that offers more than its service wants.
pub fn of_syn(
    state: &mut State,
    packet: &Packet<'_>,
    sound: &Sound,
    service: &Service,
) -> Option<Vec<u8>> {
    let most = service.mss.filter(|_| sound.is_opening)?;
    lowered(state, packet, |size| size.min(most))
}

/// The same of a backend's SYN-ACK; there has to be room for the option that tells servers of clients, too.
pub fn of_syn_ack(
    state: &mut State,
    packet: &Packet<'_>,
    sound: &Sound,
    service: &Service,
) -> Option<Vec<u8>> {
    if !sound.is_syn_ack || !service.tells && service.mss.is_none() {
        return None;
    }
    let by = if service.tells { option_length(packet.is_v6) as u16 } else { 0 };
    let most = service.mss.unwrap_or(u16::MAX);
    lowered(state, packet, |size| {
        let size = if size > LEAST + by { size - by } else { size };
        size.min(most)
    })
}

fn lowered(
    state: &mut State,
    packet: &Packet<'_>,
    lower: impl FnOnce(u16) -> u16,
) -> Option<Vec<u8>> {
    let options = tcp_options::of(packet);
    let option = options.iter().take(LOOKED_AT).find(|option| option.kind == KIND)?;
    let transport = crate::ip::IP + packet.header_length();
    let end = transport + usize::from(packet.frame[transport + 12] >> 4) * 4;
    if option.length != 4 || option.at + 4 > end {
        return None;
    }
    let size = number16(packet.frame, option.at + 2);
    let less = lower(size);
    if less == size {
        return None;
    }
    state.met(part::MSS);
    let mut frame = packet.frame.to_vec();
    tcp_options::change(&mut frame, packet, |frame| put16(frame, option.at + 2, less));
    Some(frame)
}
