//! What nat and dsr change in a packet, with the checksums brought along incrementally (RFC 1624): a checksum that
//! arrived wrong leaves wrong.

mod both;

pub use both::{Ends, translate_both, translate_error_both};

use network_types::{icmp::Icmpv4Hdr, udp::UdpHdr};

use crate::{
    abi::{Address, protocol},
    be::Be16,
    checksum::{Sum, update, update_udp},
    frame::{Frame, Tcp},
    ip::IpHeader,
    parse::{Family, NETWORK, Packet},
    quote::{self, Quote},
};

/// Which end of a flow is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The source: a reply gets the VIP back.
    Source,
    /// The destination: a request goes to its backend.
    Destination,
}

/// Replaces one end of the flow and takes one off the hop limit; `None` (and nothing changed) if the frame is shorter
/// than [`crate::parse::examine`] found it.
#[inline(always)]
pub fn translate<F: Family>(
    frame: &mut (impl Frame + ?Sized),
    packet: &Packet,
    end: End,
    address: &Address,
    port: Be16,
) -> Option<()> {
    let (old_address, old_port) = match end {
        End::Source => (&packet.flow.source, packet.flow.source_port),
        End::Destination => (&packet.flow.destination, packet.flow.destination_port),
    };
    let change =
        Sum::default().change_address(old_address, address).change_word(old_port.raw(), port.raw());
    translate_transport(frame, packet, end, port, change)?;
    let header = frame.view_mut::<F::Header>(NETWORK)?;
    match end {
        End::Source => header.set_source(address),
        End::Destination => header.set_destination(address),
    }
    header.decrement_hop_limit();
    Some(())
}

#[inline(always)]
fn translate_transport(
    frame: &mut (impl Frame + ?Sized),
    packet: &Packet,
    end: End,
    port: Be16,
    change: Sum,
) -> Option<()> {
    let port = port.raw().to_ne_bytes();
    if packet.flow.protocol == protocol::TCP {
        let tcp = frame.view_mut::<Tcp>(packet.transport)?;
        match end {
            End::Source => tcp.source = port,
            End::Destination => tcp.destination = port,
        }
        tcp.checksum = update(u16::from_ne_bytes(tcp.checksum), change).to_ne_bytes();
    } else {
        let udp = frame.view_mut::<UdpHdr>(packet.transport)?;
        match end {
            End::Source => udp.src = port,
            End::Destination => udp.dst = port,
        }
        udp.check = update_udp(u16::from_ne_bytes(udp.check), change).to_ne_bytes();
    }
    Some(())
}

/// Replaces one end of the flow that an ICMP error is about, in the outer header and, mirrored, in the packet it quotes;
/// takes one off the hop limit. `end` is meant as the error travels: one to a backend gets another destination, and the packet
/// quoted in it another source. An outer source of somebody else (a router's) is kept.
#[inline(always)]
pub fn translate_error<F: Family>(
    frame: &mut (impl Frame + ?Sized),
    quote: &Quote,
    end: End,
    address: &Address,
    port: Be16,
) -> Option<()> {
    let (old_address, old_port) = match end {
        End::Source => (&quote.flow.destination, quote.flow.destination_port),
        End::Destination => (&quote.flow.source, quote.flow.source_port),
    };
    let mut change = translate_quoted_transport(frame, quote, end, old_address, address, port)?
        .change_address(old_address, address)
        .change_word(old_port.raw(), port.raw());

    let quoted = frame.view_mut::<F::Header>(quote.network)?;
    let before = quoted.checksum();
    match end {
        End::Source => quoted.set_destination(address),
        End::Destination => quoted.set_source(address),
    }
    change = change.change_word(before, quoted.checksum());

    let header = frame.view_mut::<F::Header>(NETWORK)?;
    let outer = match end {
        End::Source => header.source(),
        End::Destination => header.destination(),
    };
    if outer == *old_address {
        match end {
            End::Source => header.set_source(address),
            End::Destination => header.set_destination(address),
        }
        if F::Header::IS_V6 {
            change = change.change_address(old_address, address);
        }
    }
    header.decrement_hop_limit();

    let icmp = frame.view_mut::<Icmpv4Hdr>(quote.icmp)?;
    icmp.check = update(u16::from_ne_bytes(icmp.check), change).to_ne_bytes();
    Some(())
}

/// The quoted port, and the checksum behind it if the quote reaches that far. Returns the change of the checksum field itself,
/// which the ICMP checksum covers.
#[inline(always)]
fn translate_quoted_transport(
    frame: &mut (impl Frame + ?Sized),
    quote: &Quote,
    end: End,
    old_address: &Address,
    address: &Address,
    port: Be16,
) -> Option<Sum> {
    let ports = frame.view_mut::<[u8; 4]>(quote.transport)?;
    let [a, b, c, d] = *ports;
    let [e, f] = port.raw().to_ne_bytes();
    let old_port = match end {
        End::Source => [c, d],
        End::Destination => [a, b],
    };
    *ports = match end {
        End::Source => [a, b, e, f],
        End::Destination => [e, f, c, d],
    };
    if !quote.has_checksum {
        return Some(Sum::default());
    }
    let change = Sum::default()
        .change_address(old_address, address)
        .change_word(u16::from_ne_bytes(old_port), port.raw());
    if quote.flow.protocol == protocol::TCP {
        let field = frame.view_mut::<[u8; 2]>(quote.transport + quote::TCP_CHECKSUM)?;
        let (old, new) = (u16::from_ne_bytes(*field), update(u16::from_ne_bytes(*field), change));
        *field = new.to_ne_bytes();
        Some(Sum::default().change_word(old, new))
    } else {
        let field = frame.view_mut::<[u8; 2]>(quote.transport + quote::UDP_CHECKSUM)?;
        let (old, new) =
            (u16::from_ne_bytes(*field), update_udp(u16::from_ne_bytes(*field), change));
        *field = new.to_ne_bytes();
        Some(Sum::default().change_word(old, new))
    }
}

#[cfg(test)]
mod tests;
