//! What nat and dsr change in a packet, with the checksums brought along incrementally (RFC 1624): a checksum that
//! arrived wrong leaves wrong.

use network_types::udp::UdpHdr;

use crate::{
    abi::{Address, protocol},
    be::Be16,
    checksum::{Sum, update, update_udp},
    frame::{Frame, Tcp},
    ip::IpHeader,
    parse::{Family, NETWORK, Packet},
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

#[cfg(test)]
mod tests;
