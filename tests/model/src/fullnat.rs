//! Full nat: a flow gets a port of an address of lb's own, by which its backend sees it, and both ends of its packets are replaced
//! (docs/nat-behaviour.md). Which port is lb's own affair: the model is told, and sees that it is free and of the pool. The packets
//! of a comparison follow each other within a moment, so no flow's time is over. Fragments are left out.

use std::{collections::HashMap, net::IpAddr};

use crate::{
    Limit,
    address::is_martian,
    answer::{self, About},
    bytes::{carried_over, pseudo_header, put16, sum},
    config::{Backend, Config, Service},
    error::{Quote, concerns_endpoints, quoted},
    forward::{leave, set_ethernet},
    generate::Translated,
    ip::{End, IP, Packet, TCP, address_at, change_header},
    local::examine,
    outcome::{Outcome, Traffic, part, reason},
    state::State,
    transport::{self, Flow, Place, Sound},
};

/// What lb sends from.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Its addresses, and whether they are this host's, too.
    pub addresses: Vec<(IpAddr, bool)>,
    /// First and last port of new flows.
    pub ports: (u16, u16),
}

/// A port of the pool: the index of its address, and the number.
pub type Port = (usize, u16);

/// Who has which port.
#[derive(Debug, Default)]
pub struct Ports {
    by_port: HashMap<Port, Holder>,
    by_flow: HashMap<Flow, Port>,
    /// The port that lb has for the flow of the packet in hand, now that it has seen it.
    pub told: Option<Port>,
}

/// A flow that has a port.
#[derive(Clone, Copy, Debug)]
struct Holder {
    /// As its client sends it.
    flow: Flow,
    /// The service's number.
    service: u32,
    /// The backend's index.
    backend: usize,
    client_closed: bool,
    server_closed: bool,
    reset: bool,
}

impl Holder {
    fn is_over(&self) -> bool {
        self.reset || self.client_closed && self.server_closed
    }
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

impl Ports {
    /// All flows that have a port.
    pub fn translated(&self, config: &Config) -> Vec<Translated> {
        let mut all: Vec<_> = self
            .by_port
            .iter()
            .map(|(port, holder)| {
                let (flow, backend) =
                    (holder.flow, &service(config, holder).backends[holder.backend]);
                Translated {
                    pool: (config.pool.addresses[port.0].0, port.1),
                    client: (flow.source, flow.source_port),
                    vip: (flow.destination, flow.destination_port),
                    backend: (backend.address, backend.port_or(flow.destination_port)),
                    protocol: flow.protocol,
                }
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether every port of the client's family is taken.
    fn is_exhausted(&self, pool: &Pool, client: IpAddr) -> bool {
        let addresses =
            pool.addresses.iter().filter(|(address, _)| address.is_ipv4() == client.is_ipv4());
        let ports = usize::from(pool.ports.1 - pool.ports.0) + 1;
        let taken = self.by_port.keys().filter(|port| pool.has(**port, client)).count();
        taken == addresses.count() * ports
    }

    /// Who has a port, if its backend is at this address and port.
    fn holder(&mut self, config: &Config, port: Port, peer: &Flow) -> Option<&mut Holder> {
        let holder = self.by_port.get_mut(&port)?;
        let backend = &service(config, holder).backends[holder.backend];
        let its_port = backend.port_or(holder.flow.destination_port);
        let is_its = (backend.address, its_port) == (peer.source, peer.source_port);
        (is_its && holder.flow.protocol == peer.protocol).then_some(holder)
    }
}

fn service<'a>(config: &'a Config, holder: &Holder) -> &'a Service {
    let mut services = config.services().iter();
    services.find(|service| service.id == holder.service).expect("flows are of services")
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
    let (place, backend) = place_of(config, state, packet, (flow, sound), service, limit)?;
    let backend = &service.backends[backend];
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

/// The port of a client's packet, and the backend; a packet that can begin a flow gets one.
fn place_of(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    (flow, sound): (&Flow, &Sound),
    service: &Service,
    limit: Limit,
) -> Result<(Port, usize), Outcome> {
    let told = state.ports.told.take();
    let begins = flow.protocol != TCP || sound.is_opening;
    let known = state.ports.by_flow.get(flow).copied();
    if let Some(port) = known {
        let holder = state.ports.by_port.get_mut(&port).expect("both or none");
        let is_down = service.backends[holder.backend].is_down;
        if !(is_down || holder.is_over() && begins) {
            holder.client_closed |= sound.is_closing;
            holder.reset |= sound.is_reset;
            return Ok((port, holder.backend));
        }
    }
    // Whoever is in the middle of a connection is not given another one.
    if !begins {
        return Err(answer::no_flow(packet, flow, service.id));
    }
    let drop = |reason| Outcome::dropped(reason, service.id);
    let backend = service.slot_of(flow).owner.ok_or_else(|| drop(reason::NO_BACKEND))?;
    let port = match known {
        Some(port) => {
            state.met(part::PORT_KEPT);
            port
        }
        None if state.ports.is_exhausted(&config.pool, flow.source) => {
            return Err(answer::prohibited(&About::request(packet, service.id), limit));
        }
        None => {
            state.met(part::PORT_GIVEN);
            let is_free = |port: &Port| {
                config.pool.has(*port, flow.source) && !state.ports.by_port.contains_key(port)
            };
            told.filter(is_free).ok_or_else(|| drop("a port that is taken, or none"))?
        }
    };
    let holder = Holder {
        flow: *flow,
        service: service.id,
        backend,
        client_closed: false,
        server_closed: false,
        reset: false,
    };
    state.ports.by_port.insert(port, holder);
    state.ports.by_flow.insert(*flow, port);
    Ok((port, backend))
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
    let outcome = match Flow::plain(packet) {
        Some(flow) => reply(config, state, packet, &flow, index, limit),
        None => match examine(packet) {
            Err(reason) if !is_local => Some(Outcome::dropped(reason, 0)),
            Ok(length) if packet.protocol() == packet.icmp() => {
                error_to_client(config, state, packet, length, index)
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
    let length = packet.length().expect("it was examined");
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return Some(answer::too_big(&about, hop.mtu, limit));
    }
    holder.server_closed |= sound.is_closing;
    holder.reset |= sound.is_reset;
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

/// An error about what lb has sent to a backend; `None` = it is about no flow.
fn error_to_client(
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
pub fn error_to_backend(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    quote: &Quote,
    service: &Service,
) -> Outcome {
    let drop = |reason| Outcome::dropped(reason, service.id);
    let flow = quote.flow.reversed();
    let Some(port) = state.ports.by_flow.get(&flow).copied() else {
        return drop(reason::ICMP_ERROR_BAD);
    };
    let backend: &Backend = &service.backends[state.ports.by_port[&port].backend];
    let Some(hop) = backend.hop else { return drop(reason::NO_NEXT_HOP) };
    let length = packet.length().expect("it was examined");
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return drop(reason::TOO_BIG);
    }
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
