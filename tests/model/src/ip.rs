//! An IP packet in a frame. Lengths come from its header, never from the frame (R5).

use std::net::IpAddr;

use crate::{
    bytes::{Mac, carried_over, number16, put16, sum},
    outcome::reason,
};

/// Offset of the IP header in a frame.
pub const IP: usize = 14;
/// TCP's number.
pub const TCP: u8 = 6;
/// UDP's.
pub const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// The number of IPv6's fragment header.
pub const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// A packet whose bare header is in the frame, and has the version that the EtherType says.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The whole frame.
    pub frame: &'a [u8],
    /// IPv6, not IPv4.
    pub is_v6: bool,
}

/// Whether a frame carries IPv6, IPv4, or neither.
pub fn version_of(frame: &[u8]) -> Option<bool> {
    match number16(frame, 12) {
        0x0800 => Some(false),
        0x86dd => Some(true),
        _ => None,
    }
}

impl<'a> Packet<'a> {
    /// The packet in a frame (B01 to B03, B11, B75).
    pub fn new(frame: &'a [u8], is_v6: bool) -> Result<Self, &'static str> {
        let (bare, version) = if is_v6 { (40, 6) } else { (20, 4) };
        if frame.len() < IP + bare {
            return Err(reason::L3_TRUNCATED);
        }
        if frame[IP] >> 4 != version {
            return Err(reason::IP_VERSION);
        }
        Ok(Self { frame, is_v6 })
    }

    /// Another frame, which has become of this one.
    pub fn with<'b>(&self, frame: &'b [u8]) -> Packet<'b> {
        Packet { frame, is_v6: self.is_v6 }
    }

    /// Source.
    pub fn source(&self) -> IpAddr {
        address_at(self.frame, self.addresses().0, self.is_v6)
    }

    /// Destination.
    pub fn destination(&self) -> IpAddr {
        address_at(self.frame, self.addresses().1, self.is_v6)
    }

    /// TTL or hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.frame[if self.is_v6 { IP + 7 } else { IP + 8 }]
    }

    /// TOS or traffic class.
    pub fn traffic_class(&self) -> u8 {
        if self.is_v6 { (number16(self.frame, IP) >> 4) as u8 } else { self.frame[IP + 1] }
    }

    /// Protocol, or what stands behind IPv6's extension headers; of a chain that is not passed over, its first header.
    pub fn protocol(&self) -> u8 {
        if !self.is_v6 {
            return self.frame[IP + 9];
        }
        self.behind_extensions().map_or(self.frame[IP + 6], |(kind, _)| kind)
    }

    /// The number of this version's ICMP.
    pub fn icmp(&self) -> u8 {
        if self.is_v6 { 58 } else { 1 }
    }

    /// Length of the header as it says, with options, or with the extension headers that are passed over.
    pub fn header_length(&self) -> usize {
        if !self.is_v6 {
            return usize::from(self.frame[IP] & 15) * 4;
        }
        self.behind_extensions().map_or(40, |(_, at)| at)
    }

    /// What stands behind IPv6's extension headers (a fragment header ends them, too), and where it begins in the packet; none
    /// for a chain that is not passed over (B78, B79, B80, B84).
    fn behind_extensions(&self) -> Option<(u8, usize)> {
        const MOST_HEADERS: usize = 8;
        const MOST_BYTES: usize = 128;
        let (mut kind, mut at) = (self.frame[IP + 6], 40);
        for _ in 0..=MOST_HEADERS {
            let header = || self.frame.get(IP + at..IP + at + 4);
            let (next, length) = match kind {
                HOP_BY_HOP => {
                    // First or not at all; and no jumbo payload.
                    let header = header().filter(|header| at == 40 && header[2] != 0xc2)?;
                    (header[0], header[1])
                }
                ROUTING => {
                    // No source route, and no segments left.
                    let header = header().filter(|header| header[2] != 0 && header[3] == 0)?;
                    (header[0], header[1])
                }
                DESTINATION_OPTIONS => header().map(|header| (header[0], header[1]))?,
                AUTHENTICATION => return None,
                _ => return Some((kind, at)),
            };
            at += 8 * (1 + usize::from(length));
            if at > 40 + MOST_BYTES {
                return None;
            }
            kind = next;
        }
        None
    }

    /// Length of the whole packet, as the header says; 0 for IPv6 without a payload, which is a jumbogram or nothing.
    fn stated_length(&self) -> usize {
        if !self.is_v6 {
            return usize::from(number16(self.frame, IP + 2));
        }
        match usize::from(number16(self.frame, IP + 4)) {
            0 => 0,
            payload => 40 + payload,
        }
    }

    /// Length of the whole packet, if the header and the frame agree (B14, B76, B12, B13).
    pub fn length(&self) -> Result<usize, &'static str> {
        let (length, bare) = (self.stated_length(), if self.is_v6 { 40 } else { 20 });
        if length < bare || IP + length > self.frame.len() {
            return Err(reason::L3_LENGTH);
        }
        if !self.is_v6 && (self.header_length() < bare || self.header_length() > length) {
            return Err(reason::IP_HEADER_LENGTH);
        }
        Ok(length)
    }

    /// Whether the header says that this is a part of a packet.
    pub fn is_fragment(&self) -> bool {
        // All flags but DF and the reserved one, and the offset.
        if self.is_v6 {
            self.protocol() == FRAGMENT
        } else {
            number16(self.frame, IP + 6) & 0x3fff != 0
        }
    }

    /// Whether extension headers stand between the header and what it carries, other than a fragment header.
    pub fn has_extension(&self) -> bool {
        let kinds = [HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION_OPTIONS];
        self.is_v6 && kinds.contains(&self.frame[IP + 6])
    }

    /// Whether some of them are not passed over.
    pub fn has_refused_extension(&self) -> bool {
        self.is_v6 && self.behind_extensions().is_none()
    }

    /// Whether an IPv4 option is a source route (B18). The list ends at its end mark, at an option whose length makes no
    /// sense, and at the header's end.
    pub fn has_source_route(&self) -> bool {
        let mut at = 20;
        while !self.is_v6 && at < self.header_length() {
            // An option that is alone at the very end of a frame has no length.
            let Some([kind, length]) = self.frame.get(IP + at..IP + at + 2) else { return false };
            match (*kind, *length) {
                (0, _) => return false,
                (1, _) => at += 1,
                (131 | 137, _) => return true,
                (_, 0 | 1) => return false,
                (_, length) => at += usize::from(length),
            }
        }
        false
    }

    /// Source MAC address.
    pub fn sender(&self) -> Mac {
        mac_at(self.frame, 6)
    }

    /// Offsets of the addresses.
    fn addresses(&self) -> (usize, usize) {
        if self.is_v6 { (IP + 8, IP + 24) } else { (IP + 12, IP + 16) }
    }
}

/// A MAC address in a frame.
pub fn mac_at(frame: &[u8], at: usize) -> Mac {
    frame[at..at + 6].try_into().expect("six bytes")
}

/// An address in a frame.
pub fn address_at(frame: &[u8], at: usize, is_v6: bool) -> IpAddr {
    if is_v6 {
        let bytes: [u8; 16] = frame[at..at + 16].try_into().expect("sixteen bytes");
        return IpAddr::from(bytes);
    }
    let bytes: [u8; 4] = frame[at..at + 4].try_into().expect("four bytes");
    IpAddr::from(bytes)
}

/// Which address of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first.
    Source,
    /// The second.
    Destination,
}

/// Changes the header at `at` of a frame: one of the addresses, the hop limit, or both; an IPv4 header's checksum goes along.
pub fn change_header(frame: &mut [u8], at: usize, change: impl FnOnce(&mut Header<'_>)) {
    let is_v6 = frame[at] >> 4 == 6;
    // Its checksum covers the options, too; they do not change.
    let end = if is_v6 { at + 40 } else { at + 20 };
    let before = sum(&[&frame[at..end]]);
    change(&mut Header { bytes: &mut frame[at..end], is_v6 });
    if !is_v6 {
        put16(frame, at + 10, 0);
        let after = sum(&[&frame[at..end]]);
        put16(frame, at + 10, carried_over(before, after));
    }
}

/// A header to be changed.
#[derive(Debug)]
pub struct Header<'a> {
    bytes: &'a mut [u8],
    is_v6: bool,
}

impl Header<'_> {
    /// Replaces an address.
    pub fn set_address(&mut self, end: End, address: IpAddr) {
        let at = match (self.is_v6, end) {
            (false, End::Source) => 12,
            (false, End::Destination) => 16,
            (true, End::Source) => 8,
            (true, End::Destination) => 24,
        };
        let octets = crate::bytes::octets(address);
        self.bytes[at..at + octets.len()].copy_from_slice(&octets);
    }

    /// Replaces TTL or hop limit.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.bytes[if self.is_v6 { 7 } else { 8 }] = hop_limit;
    }

    /// Makes the packet longer.
    pub fn grow(&mut self, by: u16) {
        let at = if self.is_v6 { 4 } else { 2 };
        put16(self.bytes, at, number16(self.bytes, at) + by);
    }

    /// Takes one off it.
    pub fn decrement_hop_limit(&mut self) {
        let at = if self.is_v6 { 7 } else { 8 };
        self.bytes[at] -= 1;
    }
}

/// The header of a packet that lb originates: 64 hops, never fragmented, no flow label.
pub fn new_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    class: u8,
    payload: usize,
) -> Vec<u8> {
    let addresses = [crate::bytes::octets(source), crate::bytes::octets(destination)].concat();
    if source.is_ipv6() {
        let mut header = vec![0x60 | class >> 4, class << 4, 0, 0, 0, 0, protocol, 64];
        put16(&mut header, 4, payload as u16);
        return [header, addresses].concat();
    }
    let mut header = vec![0x45, class, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    put16(&mut header, 2, (20 + payload) as u16);
    let mut header = [header, addresses].concat();
    let checksum = crate::bytes::checksum(&[&header]);
    put16(&mut header, 10, checksum);
    header
}
