//! Both ends of a flow at once, as full nat replaces them.

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

/// Both ends that a packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends<'a> {
    /// Its source.
    pub source: &'a Address,
    /// Its destination.
    pub destination: &'a Address,
    /// Its source port.
    pub source_port: Be16,
    /// Its destination port.
    pub destination_port: Be16,
}

impl Ends<'_> {
    /// What changes in sums over a packet that had these ends.
    #[inline(always)]
    fn change(
        &self,
        (source, destination): (&Address, &Address),
        (source_port, destination_port): (Be16, Be16),
    ) -> Sum {
        Sum::default()
            .change_address(source, self.source)
            .change_address(destination, self.destination)
            .change_word(source_port.raw(), self.source_port.raw())
            .change_word(destination_port.raw(), self.destination_port.raw())
    }

    /// The ports as they stand in a header.
    #[inline(always)]
    fn ports(&self) -> [u8; 4] {
        let [a, b] = self.source_port.raw().to_ne_bytes();
        let [c, d] = self.destination_port.raw().to_ne_bytes();
        [a, b, c, d]
    }
}

/// Replaces both ends of the flow and takes one off the hop limit; `None` (and nothing changed) if the frame is shorter than
/// [`crate::parse::examine`] found it.
#[inline(always)]
pub fn translate_both<F: Family>(
    frame: &mut (impl Frame + ?Sized),
    packet: &Packet,
    ends: &Ends<'_>,
) -> Option<()> {
    let flow = &packet.flow;
    let change =
        ends.change((&flow.source, &flow.destination), (flow.source_port, flow.destination_port));
    let [a, b, c, d] = ends.ports();
    if flow.protocol == protocol::TCP {
        let tcp = frame.view_mut::<Tcp>(packet.transport)?;
        (tcp.source, tcp.destination) = ([a, b], [c, d]);
        tcp.checksum = update(u16::from_ne_bytes(tcp.checksum), change).to_ne_bytes();
    } else {
        let udp = frame.view_mut::<UdpHdr>(packet.transport)?;
        (udp.src, udp.dst) = ([a, b], [c, d]);
        udp.check = update_udp(u16::from_ne_bytes(udp.check), change).to_ne_bytes();
    }
    let header = frame.view_mut::<F::Header>(NETWORK)?;
    header.set_source(ends.source);
    header.set_destination(ends.destination);
    header.decrement_hop_limit();
    Some(())
}

/// Replaces both ends of the packet that an ICMP error quotes, and both addresses of the error itself; takes one off the hop
/// limit. `quoted` are the ends that the quoted packet gets. The error goes to whoever sent that, from the other end: a router
/// between lb and either side has no address on the other one.
#[inline(always)]
pub fn translate_error_both<F: Family>(
    frame: &mut (impl Frame + ?Sized),
    quote: &Quote,
    quoted: &Ends<'_>,
) -> Option<()> {
    let flow = &quote.flow;
    let inner =
        quoted.change((&flow.source, &flow.destination), (flow.source_port, flow.destination_port));
    // What the ICMP checksum covers: the quoted addresses, ports and checksums.
    let mut change = inner;
    if quote.has_checksum {
        let is_tcp = flow.protocol == protocol::TCP;
        let at = if is_tcp { quote::TCP_CHECKSUM } else { quote::UDP_CHECKSUM };
        let field = frame.view_mut::<[u8; 2]>(quote.transport + at)?;
        let old = u16::from_ne_bytes(*field);
        let new = if is_tcp { update(old, inner) } else { update_udp(old, inner) };
        *field = new.to_ne_bytes();
        change = change.change_word(old, new);
    }
    *frame.view_mut::<[u8; 4]>(quote.transport)? = quoted.ports();

    let header = frame.view_mut::<F::Header>(quote.network)?;
    let before = header.checksum();
    header.set_source(quoted.source);
    header.set_destination(quoted.destination);
    change = change.change_word(before, header.checksum());

    let header = frame.view_mut::<F::Header>(NETWORK)?;
    let (old_source, old_destination) = (header.source(), header.destination());
    header.set_source(quoted.destination);
    header.set_destination(quoted.source);
    header.decrement_hop_limit();
    if F::Header::IS_V6 {
        change = change
            .change_address(&old_source, quoted.destination)
            .change_address(&old_destination, quoted.source);
    }
    let icmp = frame.view_mut::<Icmpv4Hdr>(quote.icmp)?;
    icmp.check = update(u16::from_ne_bytes(icmp.check), change).to_ne_bytes();
    Some(())
}

#[cfg(test)]
mod tests;
