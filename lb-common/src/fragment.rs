//! IP fragments (RFC 791 3.2, RFC 8200 4.5). Only the first one has the ports; what it is taken for decides about the
//! others, which carry the same addresses, protocol and identification.

use network_types::{ip::Ipv4Hdr, udp::UdpHdr};

use crate::{
    abi::{FlowKey, FragmentKey, Reason, protocol},
    be::Be16,
    frame::{Frame, Ports, Tcp, Wire, be16, be32},
    ip::IpHeader,
    parse::{Family, NETWORK, network_length},
};

pub mod covered;

/// A sound fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What it has in common with the other fragments of its packet.
    pub key: FragmentKey,
    /// Offset in the frame of what the fragment carries: in the first one the transport header.
    pub transport: usize,
    /// Length of the IP packet, bytes.
    pub length: u16,
    /// Where its data begins in that of the whole packet, bytes.
    pub offset: u16,
    /// Whether others come behind it. Neither others before nor behind: an atomic fragment (RFC 6946), which is a
    /// whole packet.
    pub more: bool,
}

impl Fragment {
    /// How much of the packet's data it brings, bytes.
    #[inline(always)]
    pub const fn data(&self) -> u16 {
        self.length - (self.transport - NETWORK) as u16
    }
}

const OFFSET_V4: u16 = 0x1fff;
const MORE_V4: u16 = 0x2000;
const OFFSET_V6: u16 = 0xfff8;
const MORE_V6: u16 = 1;

/// Reads a packet of which [`Family::check_chain`] says that it is a fragment.
#[inline(always)]
pub fn read<F: Family>(frame: &(impl Frame + ?Sized)) -> Result<Fragment, Reason> {
    let header = frame.view::<F::Header>(NETWORK).ok_or(Reason::L3Truncated)?;
    let length = network_length::<F>(header, frame.length())?;
    F::check_length(header)?;
    let (source, destination) = (header.source(), header.destination());
    let (protocol, id, offset, more, front) = if F::Header::IS_V6 {
        let at = F::fragment_header(frame)?;
        let front = at - NETWORK + 8;
        let [protocol, _, a, b, id @ ..] = *frame.view::<[u8; 8]>(at).ok_or(Reason::L3Truncated)?;
        let field = be16([a, b]).to_host();
        (protocol, be32(id).raw(), field & OFFSET_V6, field & MORE_V6 != 0, front)
    } else {
        let header = frame.view::<Ipv4Hdr>(NETWORK).ok_or(Reason::L3Truncated)?;
        let field = be16(header.frags).to_host();
        let id = be16(header.id).raw() as u32;
        let offset = (field & OFFSET_V4) << 3;
        (header.proto, id, offset, field & MORE_V4 != 0, ((header.vihl & 15) as usize) * 4)
    };
    let data = (length as u32).wrapping_sub(front as u32);
    let is_empty = front >= length as usize;
    if is_empty || (more && !data.is_multiple_of(8)) || offset as u32 + data + front as u32 > 0xffff
    {
        return Err(Reason::FragmentDropped);
    }
    // The second fragment of a TCP header (RFC 1858).
    if protocol == protocol::TCP && offset == 8 {
        return Err(Reason::FragmentTiny);
    }
    let key = FragmentKey { source, destination, id, protocol: protocol as u32 };
    Ok(Fragment { key, transport: NETWORK + front, length, offset, more })
}

/// The flow that a first fragment belongs to; its transport header has to be complete (RFC 1858, RFC 7112).
#[inline(always)]
pub fn flow<F: Family>(
    frame: &(impl Frame + ?Sized),
    fragment: &Fragment,
) -> Result<FlowKey, Reason> {
    let room = (fragment.length as usize + NETWORK).saturating_sub(fragment.transport);
    let protocol = fragment.key.protocol as u8;
    if protocol == protocol::TCP {
        let tcp = frame.view::<Tcp>(fragment.transport).ok_or(Reason::FragmentTiny)?;
        if room < Tcp::LENGTH || room < (tcp.offset >> 4) as usize * 4 {
            return Err(Reason::FragmentTiny);
        }
    } else if protocol == protocol::UDP {
        let udp = frame.view::<UdpHdr>(fragment.transport).ok_or(Reason::FragmentTiny)?;
        if room < UdpHdr::LENGTH {
            return Err(Reason::FragmentTiny);
        }
        if F::Header::IS_V6 && udp.check == [0, 0] {
            return Err(Reason::UdpNoChecksum);
        }
    } else {
        return Err(Reason::FragmentDropped);
    }
    let ports = frame.view::<Ports>(fragment.transport).ok_or(Reason::FragmentTiny)?;
    if be16(ports.source) == Be16::from_host(0) {
        return Err(Reason::PortZero);
    }
    Ok(FlowKey {
        source: fragment.key.source,
        destination: fragment.key.destination,
        source_port: be16(ports.source),
        destination_port: be16(ports.destination),
        protocol,
        _pad: [0; 3],
    })
}

#[cfg(test)]
mod tests;
