//! To a backend, and what all ways out have in common.

use std::net::IpAddr;

use crate::{
    bytes::Mac,
    config::{Backend, Config, Mode, Service},
    error::{Quote, replace_quoted},
    gue,
    ip::{End, IP, Packet, change_header, new_header},
    outcome::{Action, Outcome, Traffic, part, reason},
    state::State,
    transport::{self, Flow, Place},
};

/// What a packet is to be forwarded as.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A packet with a transport header.
    Flow {
        /// Its flow.
        flow: &'a Flow,
        /// Whether it opens a connection.
        is_opening: bool,
    },
    /// A first fragment, whose transport header stands at `at`.
    First {
        /// Its flow.
        flow: &'a Flow,
        /// Offset of the transport header.
        at: usize,
    },
    /// A later fragment: no ports.
    Later,
    /// An ICMP error about a flow.
    Error(&'a Quote),
}

/// Why a packet was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is dropped.
    Dropped(&'static str),
    /// It does not fit a link of so many bytes.
    TooBig(u16),
}

/// Sends a packet to a backend. Nothing but what the mode has to change is changed, and one is taken off the hop limit (R4,
/// B19, B20).
pub fn packet(
    config: &Config,
    state: &mut State,
    packet: &Packet<'_>,
    what: What<'_>,
    service: &Service,
    backend: &Backend,
) -> Result<Outcome, Refused> {
    let hop = backend.hop.ok_or(Refused::Dropped(reason::NO_NEXT_HOP))?;
    if packet.sender() == hop.from && hop.nic == config.ingress {
        return Err(Refused::Dropped(reason::LOOP_SOURCE_MAC));
    }
    let length = packet.length().map_err(Refused::Dropped)?;
    let outer = match (service.mode, backend.address) {
        (Mode::Tunnel, IpAddr::V4(_)) => 20,
        (Mode::Tunnel, IpAddr::V6(_)) => 40,
        (Mode::Gue, IpAddr::V4(_)) => 20 + gue::OVERHEAD,
        (Mode::Gue, IpAddr::V6(_)) => 40 + gue::OVERHEAD,
        (Mode::Nat | Mode::Dsr | Mode::FullNat, _) => 0,
    };
    if hop.mtu != 0 && length + outer > usize::from(hop.mtu) {
        return Err(Refused::TooBig(hop.mtu.saturating_sub(outer as u16)));
    }
    let mut frame = packet.frame.to_vec();
    change_header(&mut frame, IP, |header| header.decrement_hop_limit());
    match service.mode {
        Mode::Nat => rewrite(&mut frame, packet, what, backend, length),
        Mode::Dsr => {}
        Mode::Tunnel => frame = wrapped(&frame, packet, backend, length),
        Mode::Gue => frame = gue::wrapped(&frame, packet, what, backend, length),
        Mode::FullNat => unreachable!("it goes ways of its own"),
    }
    let is_v6 = match service.mode {
        Mode::Tunnel | Mode::Gue => backend.address.is_ipv6(),
        Mode::Nat | Mode::Dsr | Mode::FullNat => packet.is_v6,
    };
    set_ethernet(&mut frame, hop.to, hop.from, is_v6);
    let action = leave(config, hop.nic).map_err(Refused::Dropped)?;
    if service.mode == Mode::Gue {
        state.met(part::GUE);
    }
    let is_marked = matches!(what, What::Flow { is_opening: true, .. });
    let traffic = Traffic { bytes: length as u64, is_reply: false, is_marked };
    Ok(Outcome::sent(action, frame, backend.id, traffic))
}

fn rewrite(
    frame: &mut [u8],
    packet: &Packet<'_>,
    what: What<'_>,
    backend: &Backend,
    length: usize,
) {
    let to = |own| (backend.address, backend.port_or(own));
    let place = |at| Place { at, end: IP + length, network: IP };
    match what {
        What::Flow { flow, .. } => {
            let at = IP + packet.header_length();
            transport::replace(frame, place(at), flow, End::Destination, to(flow.destination_port));
        }
        What::First { flow, at } => {
            transport::replace(frame, place(at), flow, End::Destination, to(flow.destination_port));
        }
        What::Later => {
            change_header(frame, IP, |header| {
                header.set_address(End::Destination, backend.address)
            });
        }
        What::Error(quote) => {
            replace_quoted(frame, quote, End::Destination, to(quote.flow.source_port));
        }
    }
}

/// IP in IP (RFC 2003, RFC 2473): DSCP and ECN are copied to the outer header (RFC 6040).
fn wrapped(frame: &[u8], packet: &Packet<'_>, backend: &Backend, length: usize) -> Vec<u8> {
    let inner = if packet.is_v6 { 41 } else { 4 };
    let source = backend.tunnel_source.expect("a tunnel has an outer source");
    let outer = new_header(source, backend.address, inner, packet.traffic_class(), length);
    [&frame[..IP], &outer, &frame[IP..]].concat()
}

/// Replaces the Ethernet header.
pub fn set_ethernet(frame: &mut [u8], to: Mac, from: Mac, is_v6: bool) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(if is_v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
}

/// By which NIC a frame leaves.
pub fn leave(config: &Config, nic: u32) -> Result<Action, &'static str> {
    match nic {
        nic if nic == config.ingress => Ok(Action::Transmit),
        nic if config.attached.contains(&nic) => Ok(Action::Redirect(nic)),
        _ => Err(reason::EGRESS_FAILED),
    }
}
