//! Frames from fields.

use std::net::IpAddr;

use crate::bytes::{Mac, checksum, octets, pseudo_header, put16};

/// A packet to be built. Lengths and checksums are right unless they are changed afterwards.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Destination MAC address.
    pub to: Mac,
    /// Source MAC address.
    pub from: Mac,
    /// Source; of the destination's family.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TOS or traffic class.
    pub class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4: identification, IPv6: flow label.
    pub label: u32,
    /// IPv4's flags and fragment offset.
    pub fragment: u16,
    /// IPv4's options, a multiple of four bytes; IPv6's extension headers, each of which names the next in its first byte.
    pub options: Vec<u8>,
    /// What stands in the header: the protocol, or the first extension header.
    pub protocol: u8,
    /// What follows the IP header and options.
    pub body: Vec<u8>,
    /// What follows the packet in the frame.
    pub trailer: Vec<u8>,
}

impl Draft {
    /// A packet with 64 hops to go.
    pub fn new(
        (to, from): (Mac, Mac),
        (source, destination): (IpAddr, IpAddr),
        protocol: u8,
        body: Vec<u8>,
    ) -> Self {
        Self {
            to,
            from,
            source,
            destination,
            class: 0,
            hop_limit: 64,
            label: 0x1234,
            fragment: if source.is_ipv4() { 0x4000 } else { 0 },
            options: Vec::new(),
            protocol,
            body,
            trailer: Vec::new(),
        }
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let ether_type = if self.source.is_ipv6() { [0x86, 0xdd] } else { [0x08, 0x00] };
        [&self.to[..], &self.from, &ether_type, &self.packet(), &self.trailer].concat()
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let addresses = [octets(self.source), octets(self.destination)].concat();
        let rest = self.options.len() + self.body.len();
        if self.source.is_ipv6() {
            let first = 0x6000_0000 | u32::from(self.class) << 20 | (self.label & 0xf_ffff);
            let mut header = first.to_be_bytes().to_vec();
            header.extend((rest as u16).to_be_bytes());
            header.extend([self.protocol, self.hop_limit]);
            return [&header[..], &addresses, &self.options, &self.body].concat();
        }
        let words = 5 + self.options.len() / 4;
        let mut header = vec![0x40 | words as u8, self.class];
        header.extend((20 + rest as u16).to_be_bytes());
        header.extend((self.label as u16).to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.hop_limit, self.protocol, 0, 0]);
        let mut header = [header, addresses, self.options.clone()].concat();
        let sum = checksum(&[&header]);
        put16(&mut header, 10, sum);
        [header, self.body.clone()].concat()
    }
}

/// A TCP segment.
pub fn tcp(
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    flags: u8,
    numbers: (u32, u32),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend(numbers.0.to_be_bytes());
    segment.extend(numbers.1.to_be_bytes());
    segment.extend([((5 + options.len() / 4) << 4) as u8, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    let pseudo = pseudo_header(ends.0, ends.1, 6, segment.len());
    let sum = checksum(&[&pseudo, &segment]);
    put16(&mut segment, 16, sum);
    segment
}

/// A UDP datagram.
pub fn udp(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let pseudo = pseudo_header(ends.0, ends.1, 17, datagram.len());
    let sum = checksum(&[&pseudo, &datagram]);
    put16(&mut datagram, 6, if sum == 0 { 0xffff } else { sum });
    datagram
}

/// An ICMP or ICMPv6 message.
pub fn icmp(ends: (IpAddr, IpAddr), [kind, code]: [u8; 2], rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest, data].concat();
    let pseudo = match ends.0 {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(_) => pseudo_header(ends.0, ends.1, 58, message.len()),
    };
    let sum = checksum(&[&pseudo, &message]);
    put16(&mut message, 2, sum);
    message
}
