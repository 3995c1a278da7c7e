//! Full nat of packets in fragments: the first one has the ports, gets a port of the pool or has one, and is remembered; those behind
//! it get the same addresses. Nothing is answered: a fragment is no whole packet to be quoted (R8).

use std::net::IpAddr;

use super::{
    Port,
    ports::{place_of, service},
    replace_both,
};
use crate::{
    config::{Backend, Config, Hop, Service},
    forward::{leave, set_ethernet},
    fragment::{Fragment, flow, read},
    ip::{End, IP, Packet, TCP, change_header},
    outcome::{Outcome, Traffic, part, reason},
    state::State,
    transport::{Flow, Place, Sound},
};

/// What is remembered of a first fragment of full nat beside service and backend.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The flow's port.
    pub port: Port,
    /// Which of all flows it is: the port may have another one's meanwhile.
    pub number: u64,
}

/// A client's first fragment that has been let in.
pub fn first(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    (fragment, flow): (&Fragment, &Flow),
    service: &Service,
) -> Outcome {
    state.met(part::FULLNAT);
    state.met(part::FULLNAT_FRAGMENT);
    let drop = |reason| Outcome::dropped(reason, service.id);
    let sound = says(packet, fragment, flow);
    let (port, backend) = match place_of(config, state, (flow, &sound), service) {
        Ok(place) => place,
        Err(why) => return drop(why.reason()),
    };
    let backend = &service.backends[backend];
    if let Err(reason) = way(config, packet, fragment.length, backend) {
        return drop(reason);
    }
    let number = state.ports.held(port).expect("it has just got it").number;
    let kept = Some(Kept { port, number });
    if let Err(reason) = state.fragments.note(config, fragment, (service, backend), kept) {
        return drop(reason);
    }
    let source = (config.pool.addresses[port.0].0, port.1);
    let to = (backend.address, backend.port_or(flow.destination_port));
    let mut frame = one_hop_less(packet);
    replace_both(&mut frame, place(fragment), flow, source, to);
    to_backend(config, packet, frame, fragment, service, backend)
}

/// One behind it.
pub fn later(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    fragment: &Fragment,
    (service, backend, kept): (&Service, &Backend, Kept),
) -> Outcome {
    state.met(part::FULLNAT);
    state.met(part::FULLNAT_FRAGMENT);
    state.met(part::FULLNAT_LATER);
    if let Err(reason) = way(config, packet, fragment.length, backend) {
        return Outcome::dropped(reason, service.id);
    }
    let ends = (config.pool.addresses[kept.port.0].0, backend.address);
    let frame = with_addresses(packet, ends);
    to_backend(config, packet, frame, fragment, service, backend)
}

/// A fragment to an address of the pool, whose index this is, and whether it is this host's, too.
pub fn to_client(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    (index, is_local): (usize, bool),
) -> Outcome {
    let nobodys = |reason| match is_local {
        true => Outcome::passed(packet.frame, reason::PASSED),
        false => Outcome::dropped(reason, 0),
    };
    let fragment = match read(packet) {
        Ok(fragment) => fragment,
        Err(reason) => return Outcome::dropped(reason, 0),
    };
    let first_flow = match fragment.offset {
        0 => match flow(packet, &fragment) {
            Ok(flow) => Some(flow),
            Err(_) => return nobodys(reason::NO_FLOW),
        },
        _ => None,
    };
    let port = match first_flow {
        Some(flow) => {
            let port = (index, flow.destination_port);
            state.ports.holder(config, port, &flow).map(|_| port)
        }
        None => match state.fragments.find(config, &fragment) {
            None => return nobodys(reason::FRAGMENT_MISS),
            Some((service, _, kept)) => {
                if let Err(reason) = state.fragments.add(&fragment) {
                    return Outcome::dropped(reason, service.id);
                }
                let is_its = |kept: &Kept| {
                    let holder = state.ports.held(kept.port);
                    holder.is_some_and(|holder| holder.number == kept.number)
                };
                kept.filter(is_its).map(|kept| kept.port)
            }
        },
    };
    let Some(port) = port else { return nobodys(reason::NO_FLOW) };
    let holder = *state.ports.held(port).expect("it was found");
    let (client, service) = (holder.flow, service(config, &holder));
    let backend = &service.backends[holder.backend];
    let drop = |reason| Outcome::dropped(reason, service.id);
    if fragment.more && !service.fragments {
        return drop(reason::FRAGMENT_DROPPED);
    }
    if packet.hop_limit() <= 1 {
        return drop(reason::TTL);
    }
    let Some(hop) = config.hop_to(client.source) else { return drop(reason::NO_NEXT_HOP) };
    if hop.mtu != 0 && fragment.length > usize::from(hop.mtu) {
        return drop(reason::TOO_BIG);
    }
    state.met(part::FULLNAT);
    state.met(part::FULLNAT_FRAGMENT);
    let mut frame = match first_flow {
        Some(flow) => {
            let kept = Some(Kept { port, number: holder.number });
            let noted = state.fragments.note(config, &fragment, (service, backend), kept);
            if let Err(reason) = noted {
                return drop(reason);
            }
            let sound = says(packet, &fragment, &flow);
            state.ports.holder(config, port, &flow).expect("as before").note_reply(&sound);
            let ends = (
                (client.destination, client.destination_port),
                (client.source, client.source_port),
            );
            let mut frame = one_hop_less(packet);
            replace_both(&mut frame, place(&fragment), &flow, ends.0, ends.1);
            frame
        }
        None => {
            state.met(part::FULLNAT_LATER);
            with_addresses(packet, (client.destination, client.source))
        }
    };
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: fragment.length as u64, is_reply: true, is_marked: false };
    match leave(config, hop.nic) {
        Ok(action) => Outcome::sent(action, frame, backend.id, traffic),
        Err(reason) => drop(reason),
    }
}

/// What the flags of a first fragment say; a datagram's say nothing.
fn says(packet: &Packet<'_>, fragment: &Fragment, flow: &Flow) -> Sound {
    match flow.protocol {
        TCP => Sound::of_flags(packet.frame[fragment.data + 13]),
        _ => Sound::default(),
    }
}

/// The way to the backend, if it is known, not where the packet comes from, and carries so many bytes.
pub fn way(
    config: &Config,
    packet: &Packet<'_>,
    length: usize,
    backend: &Backend,
) -> Result<Hop, &'static str> {
    let hop = backend.hop.ok_or(reason::NO_NEXT_HOP)?;
    if packet.sender() == hop.from && hop.nic == config.ingress {
        return Err(reason::LOOP_SOURCE_MAC);
    }
    if hop.mtu != 0 && length > usize::from(hop.mtu) {
        return Err(reason::TOO_BIG);
    }
    Ok(hop)
}

fn to_backend(
    config: &Config,
    packet: &Packet<'_>,
    mut frame: Vec<u8>,
    fragment: &Fragment,
    service: &Service,
    backend: &Backend,
) -> Outcome {
    let hop = backend.hop.expect("the way is known");
    set_ethernet(&mut frame, hop.to, hop.from, packet.is_v6);
    let traffic = Traffic { bytes: fragment.length as u64, is_reply: false, is_marked: false };
    match leave(config, hop.nic) {
        Ok(action) => Outcome::sent(action, frame, backend.id, traffic),
        Err(reason) => Outcome::dropped(reason, service.id),
    }
}

fn place(fragment: &Fragment) -> Place {
    Place { at: fragment.data, end: IP + fragment.length, network: IP }
}

fn one_hop_less(packet: &Packet<'_>) -> Vec<u8> {
    let mut frame = packet.frame.to_vec();
    change_header(&mut frame, IP, |header| header.decrement_hop_limit());
    frame
}

fn with_addresses(packet: &Packet<'_>, (source, destination): (IpAddr, IpAddr)) -> Vec<u8> {
    let mut frame = one_hop_less(packet);
    change_header(&mut frame, IP, |header| {
        header.set_address(End::Source, source);
        header.set_address(End::Destination, destination);
    });
    frame
}
