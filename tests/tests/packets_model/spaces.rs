//! Small spaces of values, each from its first to its last.

use lb_tests::kernel::{
    bytes::{IP, is_v4, patched, with_header_checksum},
    packet::{Packet, Transport, flag},
};

/// A sound packet, and the checksum that lb has to bring along in it.
pub struct Sample {
    /// Its IP packet is all there is in the frame.
    frame: Vec<u8>,
    /// Offset of the checksum.
    checksum: usize,
    /// Offset of two bytes that it covers and that mean nothing to lb.
    free: usize,
    /// What else has to be made right when these have changed.
    covers: Covers,
}

/// What a checksum covers.
enum Covers {
    /// The IPv4 header.
    Header,
    /// TCP or UDP: the pseudo header and the rest of the packet.
    Transport(u8),
    /// ICMP: the message from here on; ICMPv6: the pseudo header, too.
    Message(usize),
}

impl Sample {
    /// Every value of the checksum: one is right, and the others leave as wrong as they came (or not at all: an
    /// echo request).
    pub fn each_checksum(&self, compare: &mut impl FnMut(&[u8])) {
        for value in 0..=u16::MAX {
            compare(&patched(&self.frame, self.checksum, &value.to_be_bytes()));
        }
    }

    /// Every right checksum (two free bytes take every value), 0x0000 and 0xffff among them.
    pub fn each_right_checksum(&self, compare: &mut impl FnMut(&[u8])) {
        for value in 0..=u16::MAX {
            compare(&self.with_right_checksum(value));
        }
    }

    fn with_right_checksum(&self, free: u16) -> Vec<u8> {
        let frame = patched(&self.frame, self.free, &free.to_be_bytes());
        let bare = patched(&frame, self.checksum, &[0, 0]);
        let (pseudo, from) = match self.covers {
            Covers::Header => return with_header_checksum(&bare),
            Covers::Transport(protocol) => (pseudo_header(&frame, protocol), transport(&frame)),
            Covers::Message(at) if is_v4(&frame) => (Vec::new(), at),
            Covers::Message(at) => (pseudo_header(&frame, 58), at),
        };
        let sum = lb_model::bytes::checksum(&[&pseudo, &bare[from..]]);
        let is_udp = matches!(self.covers, Covers::Transport(17));
        let sum = if is_udp && sum == 0 { 0xffff } else { sum };
        patched(&bare, self.checksum, &sum.to_be_bytes())
    }
}

fn transport(frame: &[u8]) -> usize {
    if is_v4(frame) { IP + 20 } else { IP + 40 }
}

fn pseudo_header(frame: &[u8], protocol: u8) -> Vec<u8> {
    let addresses = if is_v4(frame) { IP + 12..IP + 20 } else { IP + 8..IP + 40 };
    let length = (frame.len() - transport(frame)) as u16;
    [&frame[addresses], &length.to_be_bytes(), &[0, protocol]].concat()
}

/// Every rewrite of a checksum, in both families: nat's of TCP and UDP requests and replies, that of the IPv4 header in each
/// mode, echo replies, and ICMP errors about flows of nat in both directions.
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (client, vip, backend) in
        [("192.0.2.33", "198.51.100.1", "10.1.0.1"), ("2001:db8:c::33", "2001:db8:5::1", "fd01::1")]
    {
        let ends = |a: &str, b: u16| format!("{a}@{b}");
        let payload = [0u8; 6];
        let tcp = |from: &str, to: &str| Packet::tcp(from, to, flag::ACK).payload(&payload);
        let udp = |from: &str, to: &str| Packet::udp(from, to).payload(&payload);
        let client_end = ends(client, 40_001);
        // The ports of `Family::services`: the first and the thirteenth.
        let requests = [tcp(&client_end, &ends(vip, 80)), udp(&client_end, &ends(vip, 53))];
        let replies = [
            tcp(&ends(backend, super::NAT_TCP), &client_end),
            udp(&ends(backend, super::NAT_UDP), &client_end),
        ];
        for packet in requests.iter().chain(&replies) {
            let frame = packet.bytes();
            let at = transport(&frame);
            let (checksum, protocol, header) = match packet.transport {
                Transport::Tcp(_) => (at + 16, 6, 20),
                _ => (at + 6, 17, 8),
            };
            let covers = Covers::Transport(protocol);
            samples.push(Sample { frame, checksum, free: at + header + 2, covers });
        }
        samples.push(echo(client, vip));
        samples.extend(quotes(client, vip, backend));
        if is_v4(&requests[0].bytes()) {
            let modes = modes().into_iter().filter(|frame| is_v4(frame));
            samples.extend(modes.map(|frame| Sample {
                frame,
                checksum: IP + 10,
                free: IP + 4,
                covers: Covers::Header,
            }));
        }
    }
    samples
}

fn echo(client: &str, vip: &str) -> Sample {
    let frame = Packet::echo(client, vip).payload(&[0; 6]).bytes();
    let at = transport(&frame);
    let (checksum, free, covers) = (at + 2, at + 4, Covers::Message(at));
    Sample { frame, checksum, free, covers }
}

/// An error to the VIP about a packet to the client, and one to the client about a packet to the backend.
fn quotes(client: &str, vip: &str, backend: &str) -> Vec<Sample> {
    let client_end = format!("{client}@40001");
    let about_reply = Packet::tcp(&format!("{vip}@80"), &client_end, flag::ACK);
    let to_backend = format!("{backend}@{}", super::NAT_TCP);
    let about_request = Packet::tcp(&client_end, &to_backend, flag::ACK);
    let kind = if client.contains(':') { 2 } else { 3 };
    [(about_reply, vip), (about_request, client)]
        .into_iter()
        .map(|(quoted, to)| {
            let router = if client.contains(':') { "2001:db8:c::fe" } else { "192.0.2.254" };
            let error =
                Transport::Icmp { kind, code: if kind == 3 { 4 } else { 0 }, rest: [0, 0, 5, 0] };
            let frame = Packet::new(router, to, error).payload(&quoted.ip_bytes()).bytes();
            let at = transport(&frame);
            // The MTU.
            let (checksum, free, covers) = (at + 2, at + 6, Covers::Message(at));
            Sample { frame, checksum, free, covers }
        })
        .collect()
}

/// A sound packet for each mode and family, TCP and UDP.
pub fn modes() -> Vec<Vec<u8>> {
    let tcp = ends(80).map(|(client, vip)| Packet::tcp(&client, &vip, flag::ACK));
    let udp = ends(53).map(|(client, vip)| Packet::udp(&client, &vip).payload(&[0x40; 30]));
    tcp.chain(udp).map(|packet| packet.bytes()).collect()
}

/// Client and VIP of each mode and family.
fn ends(port: u16) -> impl Iterator<Item = (String, String)> {
    let families = [("192.0.2.33", "198.51.100."), ("2001:db8:c::33", "2001:db8:5::")];
    families.into_iter().flat_map(move |(client, prefix)| {
        [1, 2, 3].map(|vip| (format!("{client}@40001"), format!("{prefix}{vip}@{port}")))
    })
}

/// Every value of each byte of the IP and transport headers: versions and header lengths, DSCP and ECN, flags and offsets,
/// protocols, hop limits, ports, data offsets, TCP flags.
pub fn each_byte(frame: &[u8], compare: &mut impl FnMut(&[u8])) {
    let end = (transport(frame) + 20).min(frame.len());
    for at in IP..end {
        for value in 0..=u8::MAX {
            compare(&patched(frame, at, &[value]));
        }
    }
}

/// Every first byte of a UDP payload, where QUIC says what kind of packet it is: to a service that is not QUIC's it must not matter.
pub fn each_quic_byte(compare: &mut impl FnMut(&[u8])) {
    for (client, vip) in ends(53) {
        for value in 0..=u8::MAX {
            for length in [1, 2, 30, 1_200] {
                let payload: Vec<u8> = (0..length).map(|at| value.wrapping_add(at as u8)).collect();
                compare(&Packet::udp(&client, &vip).payload(&payload).bytes());
            }
        }
    }
}
