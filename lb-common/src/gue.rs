//! Generic UDP encapsulation (draft-ietf-intarea-gue-09), variant 0 without optional fields: an IP header, a UDP header whose source
//! port tells flows apart for whoever spreads packets over queues and paths, four bytes, and the packet.

use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    abi::{Address, FlowKey, protocol},
    be::Be16,
    checksum::Sum,
    frame::Pair,
    ip::{HOP_LIMIT, IpHeader, compose_v4},
};

/// The port that IANA has given to GUE.
pub const PORT: u16 = 6080;

/// Bytes that GUE adds to those of the outer IP header.
pub const OVERHEAD: u16 = 12;

/// What stands between the outer IP header and the packet.
pub type Middle = Pair<UdpHdr, [u8; 4]>;

/// What the source port of a flow's packets is made of. Fragments have the addresses alone. Without a key: all that somebody can
/// bring about who makes flows collide is that a backend receives them by one queue.
#[inline(always)]
pub const fn entropy(flow: &FlowKey) -> u32 {
    let [a, b, c, d] = flow.source.words;
    let [e, f] = flow.source_port.raw().to_ne_bytes();
    let [g, h] = flow.destination_port.raw().to_ne_bytes();
    let folded = a.raw() ^ b.raw() ^ c.raw() ^ d.raw() ^ u32::from_ne_bytes([g, h, e, f]);
    folded.wrapping_mul(0x9E37_79B1)
}

/// The same of what has no ports.
#[inline(always)]
pub const fn entropy_of_source(source: &Address) -> u32 {
    let [a, b, c, d] = source.words;
    (a.raw() ^ b.raw() ^ c.raw() ^ d.raw()).wrapping_mul(0x9E37_79B1)
}

/// The source port: one of the 16,384 dynamic ones (RFC 6335).
#[inline(always)]
const fn source_port(entropy: u32) -> Be16 {
    Be16::from_host(0xc000 | (entropy >> 18) as u16)
}

/// The packet that is to be encapsulated.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// Its TOS or traffic class, which the outer header copies (RFC 6040).
    pub traffic_class: u8,
    /// Its length, bytes.
    pub length: u16,
    /// The sum of all its bytes.
    pub sum: Sum,
}

/// UDP header (with its checksum: RFC 768, RFC 8200 8.1) and GUE header; `H` is the outer IP header.
#[inline(always)]
pub fn middle<H: IpHeader>(
    source: &Address,
    destination: &Address,
    port: Be16,
    entropy: u32,
    inner: &Inner,
) -> Middle {
    let source_port = source_port(entropy).raw();
    let length = Be16::from_host(inner.length.wrapping_add(OVERHEAD)).raw();
    let carried = if inner.is_v6 { protocol::IPV6 } else { protocol::IPIP };
    let ends = |sum: Sum, address: &Address| {
        let [a, b, c, d] = address.words.map(|word| word.raw());
        let sum = sum.double(d);
        if H::IS_V6 { sum.double(a).double(b).double(c) } else { sum }
    };
    let checksum = ends(ends(inner.sum.shortened(), source), destination)
        .second(protocol::UDP)
        .word(length)
        .word(source_port)
        .word(port.raw())
        .word(length)
        .second(carried)
        .checksum();
    Pair {
        first: UdpHdr {
            src: source_port.to_ne_bytes(),
            dst: port.raw().to_ne_bytes(),
            len: length.to_ne_bytes(),
            check: if checksum == 0 { [0xff; 2] } else { checksum.to_ne_bytes() },
        },
        second: [0, carried, 0, 0],
    }
}

/// The outer IPv4 header; `outer_sum` is that of IP in IP ([`crate::encap::outer_sum`]), so that a backend's row is the same for
/// both.
#[inline(always)]
pub fn outer_v4(source: &Address, destination: &Address, inner: &Inner, outer_sum: u32) -> Ipv4Hdr {
    let constant = Sum::begun(outer_sum).change_word(
        u16::from_ne_bytes([HOP_LIMIT, protocol::IPIP]),
        u16::from_ne_bytes([HOP_LIMIT, protocol::UDP]),
    );
    let length = inner.length.wrapping_add(OVERHEAD);
    compose_v4(source, destination, protocol::UDP, inner.traffic_class, length, constant)
}

/// The outer IPv6 header.
#[inline(always)]
pub fn outer_v6(source: &Address, destination: &Address, inner: &Inner) -> Ipv6Hdr {
    let length = inner.length.wrapping_add(OVERHEAD);
    Ipv6Hdr::compose(source, destination, protocol::UDP, inner.traffic_class, length)
}

/// Where the packet begins behind the UDP header of one that may be GUE's, and whether it is IPv6; `None` if it has optional
/// fields, is a control message, or carries something else. Variant 1, which is the packet itself, is understood as well.
#[inline(always)]
pub const fn read(first: [u8; 4]) -> Option<(usize, bool)> {
    match first {
        [0, protocol::IPIP, 0, 0] => Some((4, false)),
        [0, protocol::IPV6, 0, 0] => Some((4, true)),
        [byte, ..] if byte >> 4 == 4 => Some((0, false)),
        [byte, ..] if byte >> 4 == 6 => Some((0, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checksum::{sum_of, tests::plain},
        encap::outer_sum,
        frame::{Frame as _, Wire},
        parse::{NETWORK, V4, V6, outline},
        sample::Sample,
    };

    fn address(text: &str) -> Address {
        text.parse::<std::net::IpAddr>().expect("an address").into()
    }

    fn bytes<T: Wire>(header: T) -> Vec<u8> {
        let mut bytes = vec![0; T::LENGTH];
        *bytes.as_mut_slice().view_mut(0).expect("as long as it is") = header;
        bytes
    }

    /// The sum of a packet by the short cut, and of all its bytes.
    fn sums(is_v6: bool, sample: &Sample) -> (u16, u16) {
        let frame = sample.frame();
        let frame = frame.as_slice();
        let short = if is_v6 {
            let transport = outline::<V6>(frame).expect("plain").transport;
            let length = (frame.len() - transport) as u16;
            let header = frame.view::<Ipv6Hdr>(NETWORK).expect("it is there");
            header.sum_of_sound_packet(sample.protocol, length)
        } else {
            let transport = outline::<V4>(frame).expect("plain").transport;
            let length = (frame.len() - transport) as u16;
            let header = frame.view::<Ipv4Hdr>(NETWORK).expect("it is there");
            header.sum_of_sound_packet(sample.protocol, length)
        };
        let nothing = |sum: u16| if sum == 0xffff { 0 } else { sum };
        (nothing(short.folded()), nothing(sum_of(&frame[NETWORK..]).folded()))
    }

    #[test]
    fn the_sum_of_a_sound_packet_is_that_of_its_bytes() {
        for is_v6 in [false, true] {
            for length in 0..200u8 {
                let payload: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(97)).collect();
                for sample in [Sample::udp(is_v6, &payload), Sample::tcp(is_v6, 0x10, &payload)] {
                    let (short, long) = sums(is_v6, &sample);
                    assert_eq!(short, long, "IPv6: {is_v6}, {length} bytes");
                }
            }
        }
    }

    #[test]
    fn headers_are_right_for_every_sum_and_many_lengths() {
        let ends = [("10.0.0.1", "10.255.1.2"), ("2001:db8::1", "2001:db8:ffff::2")];
        for (source, destination) in ends.map(|(a, b)| (address(a), address(b))) {
            for word in (0..=0xffffu16).chain([0]) {
                let (is_v6, length) = (word & 1 != 0, 20 + word % 8000);
                // A packet of this word and nothing else.
                let sum = Sum::default().word(word);
                let inner = Inner { is_v6, traffic_class: word as u8, length, sum };
                let middle = match source.is_v4() {
                    true => middle::<Ipv4Hdr>,
                    false => middle::<Ipv6Hdr>,
                };
                let middle = middle(&source, &destination, Be16::from_host(PORT), 77, &inner);
                assert_ne!(middle.first.check, [0, 0], "that would be none");
                let total = (length + OVERHEAD).to_be_bytes();
                assert_eq!(middle.first.len, total);
                let pseudo = [[0, 17], total].concat();
                let addresses: Vec<u8> = [source, destination]
                    .iter()
                    .flat_map(|address| address.words)
                    .flat_map(|word| word.raw().to_ne_bytes())
                    .collect();
                let addresses = match source.is_v4() {
                    true => [&addresses[12..16], &addresses[28..]].concat(),
                    false => addresses,
                };
                let parts = [&addresses[..], &pseudo, &bytes(middle), &word.to_ne_bytes()];
                assert_eq!(plain(&parts), 0, "word {word:#x}");
                if source.is_v4() {
                    let constant = outer_sum(&source, &destination);
                    let outer = bytes(outer_v4(&source, &destination, &inner, constant));
                    assert_eq!(plain(&[&outer]), 0, "word {word:#x}");
                    assert_eq!((outer[1], outer[9]), (word as u8, 17));
                    assert_eq!(outer[2..4], (length + 32).to_be_bytes());
                } else {
                    let outer = outer_v6(&source, &destination, &inner);
                    assert_eq!((outer.payload_len, outer.next_hdr), (total, 17));
                }
            }
        }
    }

    #[test]
    fn flows_have_ports_of_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for port in 1024..5120 {
            let flow = FlowKey {
                source: address("192.0.2.1"),
                destination: address("198.51.100.7"),
                source_port: Be16::from_host(port),
                destination_port: Be16::from_host(443),
                protocol: 6,
                _pad: [0; 3],
            };
            let port = source_port(entropy(&flow)).to_host();
            assert!(port >= 0xc000);
            seen.insert(port);
        }
        // Of 4,096 thrown into 16,384, 3,600 are met by chance.
        assert!(seen.len() > 3_500, "{} ports", seen.len());
    }

    #[test]
    fn what_has_no_ports_is_a_flow_without() {
        for source in ["192.0.2.1", "2001:db8::1"].map(address) {
            let flow = FlowKey { source, ..FlowKey::default() };
            assert_eq!(entropy_of_source(&source), entropy(&flow));
        }
    }

    #[test]
    fn only_plain_packets_are_understood() {
        assert_eq!(read([0, 4, 0, 0]), Some((4, false)));
        assert_eq!(read([0, 41, 0, 0]), Some((4, true)));
        assert_eq!(read([0x45, 0, 0, 20]), Some((0, false)), "variant 1");
        assert_eq!(read([0x60, 0, 0, 0]), Some((0, true)));
        for other in [[1, 4, 0, 0], [0x20, 4, 0, 0], [0, 4, 0, 1], [0, 6, 0, 0], [0x80, 4, 0, 0]] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
