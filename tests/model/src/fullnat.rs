//! Full nat: a flow gets a port of an address of lb's own, by which its backend sees it, and both ends of its packets are replaced
//! (docs/nat-behaviour.md). Which port is lb's own affair: the model is told, and sees that it is free and of the pool. Between packets
//! of a comparison some seconds may go by, and never so many that a flow's time is over.

pub mod error;
pub mod fragment;
mod ports;
mod toa;

use std::net::IpAddr;

use crate::{
    Limit,
    answer::{self, About},
    config::{Config, Service},
    forward::{leave, set_ethernet},
    ip::{End, IP, Packet, change_header},
    local::examine,
    mss,
    outcome::{Outcome, Traffic, part, reason},
    state::State,
    transport::{self, Flow, Place, Sound},
};

use ports::{NoPort, service};
pub use ports::{Port, Ports};
pub use toa::length as option_length;

/// What lb sends from.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Its addresses, and whether they are this host's, too.
    pub addresses: Vec<(IpAddr, bool)>,
    /// First and last port of new flows.
    pub ports: (u16, u16),
}

impl Pool {
    /// The index of an address, and whether it is this host's, too.
    pub fn find(&self, address: IpAddr) -> Option<(usize, bool)> {
        let index = self.addresses.iter().position(|(own, _)| *own == address)?;
        Some((index, self.addresses[index].1))
    }

    fn has(&self, (index, port): Port, client: IpAddr) -> bool {
        let address = self.addresses.get(index);
        address.is_some_and(|(address, _)| address.is_ipv4() == client.is_ipv4())
            && (self.ports.0..=self.ports.1).contains(&port)
    }
}

/// A client's packet that has been let in.
pub fn request(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    (flow, sound): (&Flow, &Sound),
    service: &Service,
    limit: Limit,
) -> Result<Outcome, Outcome> {
    state.met(part::FULLNAT);
    state.met(part::FULLNAT_REQUEST);
    let drop = |reason| Outcome::dropped(reason, service.id);
    let place = ports::place_of(config, state, (flow, sound), service);
    let (place, backend) = place.map_err(|why| match why {
        NoPort::NoFlow => answer::no_flow(packet, flow, service.id),
        NoPort::Exhausted => answer::prohibited(&About::request(packet, service.id), limit),
        NoPort::NoBackend | NoPort::Fault => drop(why.reason()),
    })?;
    let backend = &service.backends[backend];
    let told = toa::told(state, packet, sound, service, backend, place);
    let packet = &told.as_ref().map_or(*packet, |frame| packet.with(frame));
    let hop = backend.hop.ok_or_else(|| drop(reason::NO_NEXT_HOP))?;
    if packet.sender() == hop.from && hop.nic == config.ingress {
        return Err(drop(reason::LOOP_SOURCE_MAC));
    }
    let length = packet.length().map_err(drop)?;
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return Err(answer::too_big(&About::request(packet, service.id), hop.mtu, limit));
    }
    let source = (config.pool.addresses[place.0].0, place.1);
    let to = (backend.address, backend.port_or(flow.destination_port));
    let mut frame = with_both_ends(packet, flow, length, (source, to));
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let action = leave(config, hop.nic).map_err(drop)?;
    let traffic = Traffic { bytes: length as u64, is_reply: false, is_marked: sound.is_opening };
    Ok(Outcome::sent(action, frame, backend.id, traffic))
}

/// A packet to an address of the pool: a backend's, or an error about one that was sent from there.
pub fn to_pool(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    (index, is_local): (usize, bool),
    limit: Limit,
) -> Outcome {
    let nobodys = || match is_local {
        true => Outcome::passed(packet.frame, reason::PASSED),
        false => Outcome::dropped(reason::NO_FLOW, 0),
    };
    if packet.is_fragment() {
        return fragment::to_client(config, state, packet, (index, is_local));
    }
    let outcome = match Flow::plain(packet) {
        Some(flow) => reply(config, state, packet, &flow, index, limit),
        None => match examine(packet) {
            Err(reason) if !is_local => Some(Outcome::dropped(reason, 0)),
            Ok(length) if packet.protocol() == packet.icmp() => {
                error::to_client(config, state, packet, length, index)
            }
            _ => None,
        },
    };
    outcome.unwrap_or_else(nobodys)
}

/// A backend's packet; `None` = it belongs to no flow.
fn reply(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    flow: &Flow,
    index: usize,
    limit: Limit,
) -> Option<Outcome> {
    let holder = state.ports.holder(config, (index, flow.destination_port), flow)?;
    let (client, service) = (holder.flow, service(config, holder));
    let backend = &service.backends[holder.backend];
    let drop = |reason| Some(Outcome::dropped(reason, service.id));
    let sound = match transport::examine(packet, flow) {
        Ok(sound) => sound,
        Err(reason) => return drop(reason),
    };
    // The backend knows the client by the pool's address, and hears from there.
    let about = About::request(packet, service.id);
    if packet.hop_limit() <= 1 {
        return Some(answer::time_exceeded(&about, limit));
    }
    let Some(hop) = config.hop_to(client.source) else { return drop(reason::NO_NEXT_HOP) };
    // What a SYN-ACK offers leaves room for the option with the client's address.
    let offers = mss::of_syn_ack(state, packet, &sound, service);
    let packet = &offers.as_ref().map_or(*packet, |frame| packet.with(frame));
    let about = About::request(packet, service.id);
    let length = packet.length().expect("it was examined");
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return Some(answer::too_big(&about, hop.mtu, limit));
    }
    let port = (index, flow.destination_port);
    let holder = state.ports.holder(config, port, flow).expect("as before");
    holder.note_reply(&sound);
    holder.server_spoke |= sound.has_data;
    let ends = ((client.destination, client.destination_port), (client.source, client.source_port));
    let mut frame = with_both_ends(packet, flow, length, ends);
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: length as u64, is_reply: true, is_marked: sound.is_reset };
    state.met(part::FULLNAT);
    state.met(part::FULLNAT_REPLY);
    match leave(config, hop.nic) {
        Ok(action) => Some(Outcome::sent(action, frame, backend.id, traffic)),
        Err(reason) => drop(reason),
    }
}

/// The frame with one hop less and these ends: source, destination.
fn with_both_ends(
    packet: &Packet<'_>,
    flow: &Flow,
    length: usize,
    (source, destination): ((IpAddr, u16), (IpAddr, u16)),
) -> Vec<u8> {
    let mut frame = packet.frame.to_vec();
    change_header(&mut frame, IP, |header| header.decrement_hop_limit());
    let place = Place { at: IP + packet.header_length(), end: IP + length, network: IP };
    replace_both(&mut frame, place, flow, source, destination);
    frame
}

fn replace_both(
    frame: &mut [u8],
    place: Place,
    flow: &Flow,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
) {
    transport::replace(frame, place, flow, End::Source, source);
    let half = Flow { source: source.0, source_port: source.1, ..*flow };
    transport::replace(frame, place, &half, End::Destination, destination);
}
