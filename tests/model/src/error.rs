//! ICMP errors about balanced flows: to the backend that they concern, or (about a packet that nat has sent to a backend) to
//! the client. RFC 792, RFC 4443, RFC 5508; packet cases B63 to B74, B86, B87.

use std::net::IpAddr;

use crate::{
    address::{is_mapped, is_martian},
    bytes::{carried_over, checksum, number16, pseudo_header, put16, sum},
    config::{Config, Mode},
    forward::{self, Refused, set_ethernet},
    fullnat,
    ip::{End, FRAGMENT, IP, Packet, TCP, UDP, address_at, change_header},
    local::{examine, nobodys},
    outcome::{Outcome, Traffic, reason},
    slots,
    state::State,
    transport::{Flow, Place, replace},
};

/// The packet that an error is about, as far as it is quoted.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// In the direction in which the quoted packet went.
    pub flow: Flow,
    /// Offset of the ICMP header.
    pub(crate) icmp: usize,
    /// Where the message ends.
    pub(crate) end: usize,
    /// Offset of the quoted IP header.
    pub(crate) network: usize,
    /// Offset of the quoted TCP or UDP header.
    pub(crate) transport: usize,
}

/// An error to a VIP.
pub fn to_backend(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    length: usize,
) -> Outcome {
    let vip = config.vip(packet.destination()).expect("only packets to VIPs come here");
    let quote = quoted(packet, length);
    let about = quote.and_then(|quote| {
        let service = config.service_of(&quote.flow.reversed())?;
        Some((quote, service))
    });
    let Some((quote, service)) = about else {
        return nobodys(packet, vip, reason::ICMP_ERROR_BAD);
    };
    let drop = |reason| Outcome::dropped(reason, service.id);
    if !concerns_endpoints(packet) {
        return drop(reason::ICMP_ERROR_BAD);
    }
    if is_martian(packet.source(), packet.destination()) {
        return drop(reason::MARTIAN);
    }
    // It is the client of the flow who has to be let in, not the router.
    let flow = quote.flow.reversed();
    if let Err(reason) = service.check_lists(flow.source) {
        return drop(reason);
    }
    if service.refuses_all() {
        return drop(reason::NO_BACKEND);
    }
    if packet.hop_limit() <= 1 {
        return drop(reason::TTL);
    }
    if service.mode == Mode::FullNat {
        return fullnat::error::to_backend(config, state, packet, &quote, service);
    }
    let Some(backend) = slots::whereabouts(state, service, &flow) else {
        return drop(reason::NO_BACKEND);
    };
    let backend = &service.backends[backend];
    match forward::packet(config, state, packet, forward::What::Error(&quote), service, backend) {
        Ok(outcome) => outcome.and(service.id, reason::ICMP_ERROR_FORWARDED),
        Err(Refused::Dropped(reason)) => drop(reason),
        // Errors are never answered (R8).
        Err(Refused::TooBig(_)) => drop(reason::TOO_BIG),
    }
}

/// An error to somebody else: his, unless it is about a packet that nat has sent to a backend.
pub fn to_client(config: &Config, packet: &Packet<'_>) -> Outcome {
    let not_ours = || Outcome::passed(packet.frame, reason::PASSED);
    let Ok(length) = examine(packet) else { return not_ours() };
    if !concerns_endpoints(packet) {
        return not_ours();
    }
    let Some(quote) = quoted(packet, length) else { return not_ours() };
    let to = quote.flow.reversed();
    let Some((service, backend)) = config.replying(to.source, to.source_port, to.protocol) else {
        return not_ours();
    };
    let drop = |reason| Outcome::dropped(reason, service.id);
    if packet.hop_limit() <= 1 {
        return drop(reason::TTL);
    }
    let Some(hop) = config.hop_to(packet.destination()) else { return drop(reason::NO_NEXT_HOP) };
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return drop(reason::TOO_BIG);
    }
    let mut frame = packet.frame.to_vec();
    change_header(&mut frame, IP, |header| header.decrement_hop_limit());
    let port = service.port_or(quote.flow.destination_port);
    replace_quoted(&mut frame, &quote, End::Source, (service.vip, port));
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: length as u64, is_reply: true, is_marked: false };
    match forward::leave(config, hop.nic) {
        Ok(action) => Outcome::sent(action, frame, backend.id, traffic)
            .and(service.id, reason::ICMP_ERROR_FORWARDED),
        Err(reason) => drop(reason),
    }
}

/// Whether an endpoint is to hear of it: not source quench, redirects, and types nobody has defined (B74).
pub fn concerns_endpoints(packet: &Packet<'_>) -> bool {
    let message_type = packet.frame[IP + packet.header_length()];
    match packet.is_v6 {
        false => matches!(message_type, 3 | 11 | 12),
        true => matches!(message_type, 1..=4),
    }
}

/// The packet that an error of `length` bytes (the IP packet) quotes: the beginning of a TCP or UDP packet, sent from the
/// address that the error has come to, with its ports.
pub fn quoted(packet: &Packet<'_>, length: usize) -> Option<Quote> {
    let frame = packet.frame;
    let (icmp, end) = (IP + packet.header_length(), IP + length);
    let network = icmp + 8;
    let (bare, version) = if packet.is_v6 { (40, 6) } else { (20, 4) };
    if network + bare > end || frame[network] >> 4 != version {
        return None;
    }
    let (protocol, transport) = if packet.is_v6 {
        match frame[network + 6] {
            FRAGMENT if network + 48 > end => return None,
            FRAGMENT if number16(frame, network + 42) & 0xfff8 != 0 => return None,
            FRAGMENT => (frame[network + 40], network + 48),
            protocol => (protocol, network + 40),
        }
    } else {
        let header = usize::from(frame[network] & 15) * 4;
        let is_later = number16(frame, network + 6) & 0x1fff != 0;
        if header < 20 || is_later {
            return None;
        }
        (frame[network + 9], network + header)
    };
    if !matches!(protocol, TCP | UDP) || transport + 8 > end {
        return None;
    }
    // A header with a wrong checksum is no header of ours (B67).
    if !packet.is_v6 && checksum(&[&frame[network..transport]]) != 0 {
        return None;
    }
    let address = |v4: usize, v6: usize| {
        address_at(frame, network + if packet.is_v6 { v6 } else { v4 }, packet.is_v6)
    };
    let flow = Flow {
        source: address(12, 8),
        destination: address(16, 24),
        source_port: number16(frame, transport),
        destination_port: number16(frame, transport + 2),
        protocol,
    };
    let is_strange = is_mapped(flow.source) || is_mapped(flow.destination);
    let has_ports = flow.source_port != 0 && flow.destination_port != 0;
    if is_strange || !has_ports || flow.source != packet.destination() {
        return None;
    }
    Some(Quote { flow, icmp, end, network, transport })
}

/// Replaces one end of the flow that an error is about, in the outer header and, mirrored, in the quote. `end` is meant as the
/// error travels. An outer source that is somebody else's (a router's) stays.
pub fn replace_quoted(frame: &mut [u8], quote: &Quote, end: End, to: (IpAddr, u16)) {
    let is_v6 = frame[IP] >> 4 == 6;
    let protocol = if is_v6 { 58 } else { 1 };
    let covered = |frame: &[u8]| {
        let message = &frame[quote.icmp..quote.end];
        let pseudo = if is_v6 {
            let addresses = (address_at(frame, IP + 8, true), address_at(frame, IP + 24, true));
            pseudo_header(addresses.0, addresses.1, protocol, message.len())
        } else {
            Vec::new()
        };
        sum(&[&pseudo, message])
    };
    let before = covered(frame);
    let (mirrored, old) = match end {
        End::Source => (End::Destination, quote.flow.destination),
        End::Destination => (End::Source, quote.flow.source),
    };
    let place = Place { at: quote.transport, end: quote.end, network: quote.network };
    replace(frame, place, &quote.flow, mirrored, to);
    let at = match (is_v6, end) {
        (false, End::Source) => IP + 12,
        (false, End::Destination) => IP + 16,
        (true, End::Source) => IP + 8,
        (true, End::Destination) => IP + 24,
    };
    if address_at(frame, at, is_v6) == old {
        change_header(frame, IP, |header| header.set_address(end, to.0));
    }
    put16(frame, quote.icmp + 2, 0);
    let after = covered(frame);
    put16(frame, quote.icmp + 2, carried_over(before, after));
}
