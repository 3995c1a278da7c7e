//! Packets and the packets expected for them, built with etherparse: a builder that shares no code with lb, with
//! checksums of its own.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};

use super::world::{CLIENT, Mac, NIC, ip};

/// TCP flags.
pub mod flag {
    /// FIN
    pub const FIN: u8 = 1;
    /// SYN
    pub const SYN: u8 = 2;
    /// RST
    pub const RST: u8 = 4;
    /// PSH
    pub const PSH: u8 = 8;
    /// ACK
    pub const ACK: u8 = 16;
}

/// A whole packet, to be built by [`Packet::bytes`].
#[derive(Clone, Debug)]
pub struct Packet {
    /// Destination MAC address.
    pub to: Mac,
    /// Source MAC address.
    pub from: Mac,
    /// IP header.
    pub ip: Ip,
    /// What follows it.
    pub transport: Transport,
    /// What follows that.
    pub payload: Vec<u8>,
    /// What follows the IP packet in the frame.
    pub trailer: Vec<u8>,
}

/// The fields of an IP header of either version that tests vary. Both addresses are of one family.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TOS or traffic class.
    pub class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4: identification; IPv6: flow label.
    pub label: u32,
    /// IPv4 only.
    pub dont_fragment: bool,
    /// IPv4 only; a multiple of four bytes.
    pub options: Vec<u8>,
}

/// The transport header.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6, by the family.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Bytes 4..8.
        rest: [u8; 4],
    },
    /// Any other protocol; the payload follows the IP header directly.
    Other(u8),
}

/// A TCP header.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
}

impl Packet {
    /// A packet of a client to the NIC.
    pub fn new(source: &str, destination: &str, transport: Transport) -> Self {
        let ip = Ip {
            source: ip(source),
            destination: ip(destination),
            class: 0,
            hop_limit: 61,
            label: 0x1234,
            dont_fragment: true,
            options: Vec::new(),
        };
        Self { to: NIC, from: CLIENT, ip, transport, payload: Vec::new(), trailer: Vec::new() }
    }

    /// A TCP segment; `source` and `destination` are `address@port`.
    pub fn tcp(source: &str, destination: &str, flags: u8) -> Self {
        let (source, source_port) = endpoint(source);
        let (destination, destination_port) = endpoint(destination);
        let tcp = Tcp {
            source: source_port,
            destination: destination_port,
            sequence: 0x1000_0001,
            acknowledgement: if flags & flag::ACK != 0 { 0x2000_0002 } else { 0 },
            flags,
            window: 64_240,
            options: Vec::new(),
        };
        Self::new(source, destination, Transport::Tcp(tcp))
    }

    /// A UDP datagram.
    pub fn udp(source: &str, destination: &str) -> Self {
        let (source, source_port) = endpoint(source);
        let (destination, destination_port) = endpoint(destination);
        let udp = Transport::Udp { source: source_port, destination: destination_port };
        Self::new(source, destination, udp).payload(b"datagram")
    }

    /// An echo request (`kind` 8 or 128 by the family) with 8 bytes of data.
    pub fn echo(source: &str, destination: &str) -> Self {
        let kind = if ip(destination).is_ipv4() { 8 } else { 128 };
        let icmp = Transport::Icmp { kind, code: 0, rest: [0x12, 0x34, 0, 1] };
        Self::new(source, destination, icmp).payload(b"12345678")
    }

    /// What a stack answers to this echo request.
    ///
    /// # Panics
    /// If it is none.
    pub fn echo_reply(&self) -> Self {
        let mut reply = self.clone();
        (reply.to, reply.from) = (self.from, self.to);
        (reply.ip.source, reply.ip.destination) = (self.ip.destination, self.ip.source);
        reply.ip.hop_limit = 64;
        let Transport::Icmp { kind, .. } = &mut reply.transport else { panic!("no echo") };
        *kind = if *kind == 8 { 0 } else { 129 };
        reply
    }

    /// With a payload.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// With `length` bytes of payload.
    pub fn filled(self, length: usize) -> Self {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 7 + 3) as u8).collect();
        self.payload(&bytes)
    }

    /// With the IP header changed.
    pub fn ip(mut self, change: impl FnOnce(&mut Ip)) -> Self {
        change(&mut self.ip);
        self
    }

    /// With the TCP header changed.
    pub fn with_tcp(mut self, change: impl FnOnce(&mut Tcp)) -> Self {
        match &mut self.transport {
            Transport::Tcp(tcp) => change(tcp),
            other => panic!("not TCP: {other:?}"),
        }
        self
    }

    /// With bytes behind the IP packet.
    pub fn trailer(mut self, trailer: &[u8]) -> Self {
        self.trailer = trailer.to_vec();
        self
    }

    /// As it leaves: MAC addresses, and one hop less.
    pub fn hop(mut self, from: Mac, to: Mac) -> Self {
        (self.from, self.to) = (from, to);
        self.ip.hop_limit -= 1;
        self
    }

    /// With another destination.
    pub fn destined(mut self, address: IpAddr, port: u16) -> Self {
        self.ip.destination = address;
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp.destination = port,
            Transport::Udp { destination, .. } => *destination = port,
            other => panic!("no ports: {other:?}"),
        }
        self
    }

    /// The port it is sent to.
    pub fn port(&self) -> u16 {
        match &self.transport {
            Transport::Tcp(tcp) => tcp.destination,
            Transport::Udp { destination, .. } => *destination,
            other => panic!("no ports: {other:?}"),
        }
    }

    /// With another source.
    pub fn sourced(mut self, address: IpAddr, port: u16) -> Self {
        self.ip.source = address;
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp.source = port,
            Transport::Udp { source, .. } => *source = port,
            other => panic!("no ports: {other:?}"),
        }
        self
    }

    /// Inside another IP header, as RFC 2003 and 2473 say; a trailer is lost. The outer header: hop limit 64, the inner
    /// class (RFC 6040), no identification, DF.
    pub fn tunnelled(self, source: IpAddr, destination: IpAddr) -> Self {
        let ip = Ip {
            source,
            destination,
            class: self.ip.class,
            hop_limit: 64,
            label: 0,
            dont_fragment: true,
            options: Vec::new(),
        };
        let protocol = if self.ip.source.is_ipv4() { 4 } else { 41 };
        let payload = self.ip_bytes();
        let (to, from) = (self.to, self.from);
        Self { to, from, ip, transport: Transport::Other(protocol), payload, trailer: self.trailer }
    }

    /// Inside UDP, as draft-ietf-intarea-gue-09 says: the outer IP header as of [`Packet::tunnelled`], a UDP header with a
    /// checksum, whose source port is made of the flow, and a GUE header of variant 0.
    pub fn in_gue(self, source: IpAddr, destination: IpAddr, port: u16) -> Self {
        let source_port = self.port_of_flow();
        let ports = Transport::Udp { source: source_port, destination: port };
        let outer = self.tunnelled(source, destination);
        let Transport::Other(protocol) = outer.transport else { panic!("not tunnelled") };
        let payload = [&[0, protocol, 0, 0][..], &outer.payload].concat();
        Self { transport: ports, payload, ..outer }
    }

    /// A dynamic port by source address and ports.
    fn port_of_flow(&self) -> u16 {
        0xc000 | (self.entropy() >> 18) as u16
    }

    /// An address of the prefix that begins with `first` and leaves `bits` bits, by source address and ports.
    pub fn source_of_flow(&self, first: IpAddr, bits: u32) -> IpAddr {
        if bits == 0 {
            return first;
        }
        let host = self.entropy() >> (32 - bits);
        match first {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + host).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(host)).into(),
        }
    }

    /// What tells flows apart: source address and ports (0 where there are none), mixed.
    fn entropy(&self) -> u32 {
        let octets = match self.ip.source {
            // As all of lb's addresses are: mapped.
            IpAddr::V4(source) => source.to_ipv6_mapped().octets(),
            IpAddr::V6(source) => source.octets(),
        };
        let (from, to) = match &self.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp { source, destination } => (*source, *destination),
            Transport::Icmp { .. } | Transport::Other(_) => (0, 0),
        };
        let ports = [to.to_be_bytes(), from.to_be_bytes()].concat();
        let words = octets.chunks_exact(4).chain([&ports[..]]);
        let folded = words
            .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")))
            .fold(0, |sum, word| sum ^ word);
        folded.wrapping_mul(0x9E37_79B1)
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let ether_type = if self.ip.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&self.to[..], &self.from, &ether_type, &self.ip_bytes(), &self.trailer].concat()
    }

    /// The IP packet.
    pub fn ip_bytes(&self) -> Vec<u8> {
        let segment = self.segment();
        let protocol = self.protocol();
        let mut bytes = match (self.ip.source, self.ip.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header::new(
                    segment.len() as u16,
                    self.ip.hop_limit,
                    IpNumber(protocol),
                    source.octets(),
                    destination.octets(),
                )
                .expect("it fits");
                header.options = Ipv4Options::try_from(&self.ip.options[..]).expect("whole words");
                header.set_payload_len(segment.len()).expect("it fits");
                header.dscp = (self.ip.class >> 2).try_into().expect("six bits");
                header.ecn = (self.ip.class & 3).try_into().expect("two bits");
                header.identification = self.ip.label as u16;
                header.dont_fragment = self.ip.dont_fragment;
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
                traffic_class: self.ip.class,
                flow_label: Ipv6FlowLabel::try_new(self.ip.label).expect("20 bits"),
                payload_length: segment.len() as u16,
                next_header: IpNumber(protocol),
                hop_limit: self.ip.hop_limit,
                source: source.octets(),
                destination: destination.octets(),
            }
            .to_bytes()
            .to_vec(),
            mixed => panic!("two families: {mixed:?}"),
        };
        bytes.extend(segment);
        bytes
    }

    /// Whether it opens a TCP connection.
    pub fn is_opening(&self) -> bool {
        matches!(&self.transport, Transport::Tcp(tcp) if tcp.flags & (flag::SYN | flag::ACK) == flag::SYN)
    }

    /// Length of the IP packet.
    pub fn length(&self) -> usize {
        self.ip_bytes().len()
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => 6,
            Transport::Udp { .. } => 17,
            Transport::Icmp { .. } if self.ip.source.is_ipv4() => 1,
            Transport::Icmp { .. } => 58,
            Transport::Other(protocol) => protocol,
        }
    }

    fn segment(&self) -> Vec<u8> {
        let mut bytes = match &self.transport {
            Transport::Tcp(tcp) => self.tcp_header(tcp).to_bytes().to_vec(),
            Transport::Udp { source, destination } => {
                let mut udp = UdpHeader {
                    source_port: *source,
                    destination_port: *destination,
                    length: (8 + self.payload.len()) as u16,
                    checksum: 0,
                };
                udp.checksum = match (self.ip.source, self.ip.destination) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        udp.calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.payload)
                    }
                    (IpAddr::V6(a), IpAddr::V6(b)) => {
                        udp.calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.payload)
                    }
                    mixed => panic!("two families: {mixed:?}"),
                }
                .expect("it fits");
                udp.to_bytes().to_vec()
            }
            Transport::Icmp { kind, code, rest } => self.icmp_header(*kind, *code, *rest),
            Transport::Other(_) => Vec::new(),
        };
        bytes.extend(&self.payload);
        bytes
    }

    fn tcp_header(&self, tcp: &Tcp) -> TcpHeader {
        let mut header = TcpHeader::new(tcp.source, tcp.destination, tcp.sequence, tcp.window);
        header.acknowledgment_number = tcp.acknowledgement;
        header.fin = tcp.flags & flag::FIN != 0;
        header.syn = tcp.flags & flag::SYN != 0;
        header.rst = tcp.flags & flag::RST != 0;
        header.psh = tcp.flags & flag::PSH != 0;
        header.ack = tcp.flags & flag::ACK != 0;
        header.urg = tcp.flags & 0x20 != 0;
        header.ece = tcp.flags & 0x40 != 0;
        header.cwr = tcp.flags & 0x80 != 0;
        header.set_options_raw(&tcp.options).expect("at most 40 bytes");
        header.checksum = match (self.ip.source, self.ip.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                header.calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.payload)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                header.calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.payload)
            }
            mixed => panic!("two families: {mixed:?}"),
        }
        .expect("it fits");
        header
    }

    fn icmp_header(&self, kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
        match (self.ip.source, self.ip.destination) {
            (IpAddr::V4(_), _) => {
                let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                Icmpv4Header::with_checksum(kind, &self.payload).to_bytes().to_vec()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                Icmpv6Header::with_checksum(kind, a.octets(), b.octets(), &self.payload)
                    .expect("it fits")
                    .to_bytes()
                    .to_vec()
            }
            mixed => panic!("two families: {mixed:?}"),
        }
    }
}

/// Splits `address@port`.
fn endpoint(text: &str) -> (&str, u16) {
    let (address, port) = text.split_once('@').unwrap_or_else(|| panic!("`{text}` has no @port"));
    (address, port.parse().unwrap_or_else(|_| panic!("`{text}`: no port")))
}

/// Bytes for messages.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().enumerate().fold(String::new(), |mut text, (index, byte)| {
        let gap = if index == 14 || index == 34 || index == 54 { " | " } else { "" };
        let _ = write!(text, "{gap}{byte:02x}");
        text
    })
}

/// One's-complement checksum (RFC 1071) of bytes, for packets that etherparse does not build.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_as_on_the_wire() {
        let bytes = Packet::tcp("192.0.2.1@1025", "198.51.100.7@80", flag::SYN).bytes();
        assert_eq!(bytes.len(), 54);
        assert_eq!(bytes[12..16], [0x08, 0, 0x45, 0]);
        assert_eq!(bytes[34..38], [0x04, 0x01, 0, 80]);
        assert_eq!(bytes[46..48], [0x50, flag::SYN]);
        assert_eq!(checksum(&bytes[14..34]), 0, "header checksum");
        let pseudo = [&bytes[26..34], &[0, 6, 0, 20], &bytes[34..]].concat();
        assert_eq!(checksum(&pseudo), 0, "TCP checksum");
    }

    #[test]
    fn a_tunnelled_packet_is_the_packet_behind_another_header() {
        let inner = Packet::udp("2001:db8::1@5000", "2001:db8::80@53");
        let outer = inner.clone().tunnelled(ip("10.0.0.1"), ip("10.0.0.2")).bytes();
        assert_eq!(outer[23], 41);
        assert_eq!(outer[34..], inner.bytes()[14..]);
    }
}
