//! Packets for the tests, put together byte by byte: nothing here calls what it is meant to test, but the plain checksum
//! of [`crate::checksum`]'s tests.

use std::net::IpAddr;

use crate::{abi::Address, checksum::tests::plain};

/// The client's MAC address.
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The balancer's MAC address.
pub(crate) const BALANCER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

fn bytes(text: &str) -> Vec<u8> {
    match text.parse::<IpAddr>().expect("an address") {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A packet to be varied before it is written out.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) source: &'static str,
    pub(crate) destination: &'static str,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) transport: Vec<u8>,
    /// Offset of the checksum in `transport`, which is filled in.
    pub(crate) checksum: Option<usize>,
}

impl Sample {
    /// From a client to a VIP, ports 40000 and 80.
    pub(crate) fn tcp(is_v6: bool, flags: u8, payload: &[u8]) -> Self {
        let mut transport = vec![
            0x9c, 0x40, 0, 80, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x50, flags, 0xfa,
            0xf0, 0, 0, 0, 0,
        ];
        transport.extend_from_slice(payload);
        Self::new(is_v6, 6, transport, Some(16))
    }

    pub(crate) fn udp(is_v6: bool, payload: &[u8]) -> Self {
        let length = (8 + payload.len() as u16).to_be_bytes();
        let mut transport = vec![0x9c, 0x40, 0, 80, length[0], length[1], 0, 0];
        transport.extend_from_slice(payload);
        Self::new(is_v6, 17, transport, Some(6))
    }

    /// One of each shape that has ports, with the same payload.
    pub(crate) fn every_shape(payload: &[u8]) -> Vec<Self> {
        let mut with_options = Self::tcp(false, 0x18, payload);
        with_options.options = vec![7, 7, 4, 0, 0, 0, 0, 0];
        vec![
            Self::tcp(false, 0x18, payload),
            Self::udp(false, payload),
            with_options,
            Self::tcp(true, 0x18, payload),
            Self::udp(true, payload),
        ]
    }

    pub(crate) fn echo(is_v6: bool, payload: &[u8]) -> Self {
        let mut transport = vec![if is_v6 { 128 } else { 8 }, 0, 0, 0, 0x12, 0x34, 0, 7];
        transport.extend_from_slice(payload);
        Self::new(is_v6, if is_v6 { 58 } else { 1 }, transport, Some(2))
    }

    pub(crate) fn new(
        is_v6: bool,
        protocol: u8,
        transport: Vec<u8>,
        checksum: Option<usize>,
    ) -> Self {
        let (source, destination) = if is_v6 {
            ("2001:db8:c::1", "2001:db8:f::80")
        } else {
            ("192.0.2.7", "198.51.100.80")
        };
        let options = Vec::new();
        Self { source, destination, protocol, hop_limit: 64, options, transport, checksum }
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.source.contains(':')
    }

    /// The sum over pseudo header and transport: 0 if its checksum is right.
    pub(crate) fn transport_sum(
        source: &str,
        destination: &str,
        protocol: u8,
        transport: &[u8],
    ) -> u16 {
        let pseudo = match protocol {
            1 => Vec::new(),
            _ => {
                let mut pseudo = bytes(source);
                pseudo.extend(bytes(destination));
                pseudo.extend((transport.len() as u32).to_be_bytes());
                pseudo.extend([0, 0, 0, protocol]);
                pseudo
            }
        };
        plain(&[&pseudo, transport])
    }

    /// The whole frame, valid as it stands.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut transport = self.transport.clone();
        if let Some(at) = self.checksum {
            transport[at..at + 2].fill(0);
            let mut sum =
                Self::transport_sum(self.source, self.destination, self.protocol, &transport);
            if sum == 0 && self.protocol == 17 {
                sum = 0xffff;
            }
            transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut frame = [BALANCER_MAC, CLIENT_MAC].concat();
        if self.is_v6() {
            let payload = (transport.len() as u16).to_be_bytes();
            frame.extend([0x86, 0xdd, 0x6b, 0x90, 0, 0x55, payload[0], payload[1]]);
            frame.extend([self.protocol, self.hop_limit]);
            frame.extend(bytes(self.source));
            frame.extend(bytes(self.destination));
        } else {
            frame.extend([0x08, 0x00]);
            frame.extend(self.header_v4(transport.len()));
        }
        frame.extend(transport);
        frame
    }

    fn header_v4(&self, payload: usize) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4), "options are padded to words");
        let length = 20 + self.options.len();
        let total = ((length + payload) as u16).to_be_bytes();
        let mut header =
            vec![0x40 | (length / 4) as u8, 0xb9, total[0], total[1], 0xbe, 0xef, 0x40, 0];
        header.extend([self.hop_limit, self.protocol, 0, 0]);
        header.extend(bytes(self.source));
        header.extend(bytes(self.destination));
        header.extend(&self.options);
        let sum = plain(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header
    }
}

/// Checks every checksum of a frame that holds TCP, UDP, ICMP or ICMPv6 right behind its IP header, as a receiver would.
#[track_caller]
pub(crate) fn assert_valid(frame: &[u8]) {
    let (protocol, source, destination, transport) = if frame[12..14] == [0x86, 0xdd] {
        let length = u16::from_be_bytes([frame[18], frame[19]]) as usize;
        (frame[20], &frame[22..38], &frame[38..54], &frame[54..54 + length])
    } else {
        let header = (frame[14] & 15) as usize * 4;
        assert_eq!(plain(&[&frame[14..14 + header]]), 0, "IPv4 header checksum");
        let total = u16::from_be_bytes([frame[16], frame[17]]) as usize;
        (frame[23], &frame[26..30], &frame[30..34], &frame[14 + header..14 + total])
    };
    let text = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4).to_string(),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("16 bytes")).to_string(),
    };
    let sum = Sample::transport_sum(&text(source), &text(destination), protocol, transport);
    assert_eq!(sum, 0, "checksum of protocol {protocol}");
}
