//! Full nat: ICMP errors about its packets, both ways, with what they quote.

use std::net::IpAddr;

use super::{fragment::way, ports::service, replace_both};
use crate::{
    address::is_martian,
    bytes::{carried_over, pseudo_header, put16, sum},
    config::{Config, Service},
    error::{Quote, concerns_endpoints, quoted},
    forward::{leave, set_ethernet},
    ip::{End, IP, Packet, address_at, change_header},
    outcome::{Outcome, Traffic, part, reason},
    state::State,
    transport::Place,
};

/// An error about what lb has sent to a backend; `None` = it is about no flow.
pub fn to_client(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    length: usize,
    index: usize,
) -> Option<Outcome> {
    if !concerns_endpoints(packet) {
        return None;
    }
    let quote = quoted(packet, length)?;
    let port = (index, quote.flow.source_port);
    let holder = state.ports.holder(config, port, &quote.flow.reversed())?;
    let (flow, service) = (holder.flow, service(config, holder));
    let backend = &service.backends[holder.backend];
    let drop = |reason| Some(Outcome::dropped(reason, service.id));
    if is_martian(packet.source(), packet.destination()) {
        return drop(reason::MARTIAN);
    }
    if packet.hop_limit() <= 1 {
        return drop(reason::TTL);
    }
    let Some(hop) = config.hop_to(flow.source) else { return drop(reason::NO_NEXT_HOP) };
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return drop(reason::TOO_BIG);
    }
    let sent = ((flow.source, flow.source_port), (flow.destination, flow.destination_port));
    let mut frame = with_quoted_ends(packet, &quote, sent);
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: length as u64, is_reply: true, is_marked: false };
    state.met(part::FULLNAT);
    state.met(part::FULLNAT_ERROR);
    match leave(config, hop.nic) {
        Ok(action) => Some(
            Outcome::sent(action, frame, backend.id, traffic)
                .and(service.id, reason::ICMP_ERROR_FORWARDED),
        ),
        Err(reason) => drop(reason),
    }
}

/// An error to a VIP about what lb has sent to a client, which has been let in.
pub fn to_backend(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    quote: &Quote,
    service: &Service,
) -> Outcome {
    let drop = |reason| Outcome::dropped(reason, service.id);
    let flow = quote.flow.reversed();
    let port = state.ports.of_flow(&flow);
    let Some((port, holder)) = port.and_then(|port| Some((port, state.ports.held(port)?))) else {
        return drop(reason::ICMP_ERROR_BAD);
    };
    let backend = &service.backends[holder.backend];
    let length = packet.length().expect("it was examined");
    let hop = match way(config, packet, length, backend) {
        Ok(hop) => hop,
        Err(reason) => return drop(reason),
    };
    let sent = (
        (backend.address, backend.port_or(flow.destination_port)),
        (config.pool.addresses[port.0].0, port.1),
    );
    let mut frame = with_quoted_ends(packet, quote, sent);
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: length as u64, is_reply: false, is_marked: false };
    state.met(part::FULLNAT);
    state.met(part::FULLNAT_ERROR);
    match leave(config, hop.nic) {
        Ok(action) => Outcome::sent(action, frame, backend.id, traffic)
            .and(service.id, reason::ICMP_ERROR_FORWARDED),
        Err(reason) => drop(reason),
    }
}

/// The frame of an error with one hop less, with these ends in the packet that it quotes, and itself from the one who was to get that
/// packet to the one who has sent it: a router between has no address on the other side.
fn with_quoted_ends(
    packet: &Packet<'_>,
    quote: &Quote,
    (source, destination): ((IpAddr, u16), (IpAddr, u16)),
) -> Vec<u8> {
    let mut frame = packet.frame.to_vec();
    let covered = |frame: &[u8]| {
        let message = &frame[quote.icmp..quote.end];
        let pseudo = match packet.is_v6 {
            true => {
                let from = address_at(frame, IP + 8, true);
                pseudo_header(from, address_at(frame, IP + 24, true), 58, message.len())
            }
            false => Vec::new(),
        };
        sum(&[&pseudo, message])
    };
    let before = covered(&frame);
    let place = Place { at: quote.transport, end: quote.end, network: quote.network };
    replace_both(&mut frame, place, &quote.flow, source, destination);
    change_header(&mut frame, IP, |header| {
        header.decrement_hop_limit();
        header.set_address(End::Source, destination.0);
        header.set_address(End::Destination, source.0);
    });
    put16(&mut frame, quote.icmp + 2, 0);
    let after = covered(&frame);
    put16(&mut frame, quote.icmp + 2, carried_over(before, after));
    frame
}
