//! Outer headers of IP-in-IP tunnels: RFC 2003 (IPv4 outside), RFC 2473 (IPv6 outside), RFC 6040 (ECN).

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    abi::{Address, protocol},
    be::Be32,
    checksum::Sum,
    frame::Wire,
    ip::{IpHeader, compose_v4, constant_sum_v4},
};

/// Bytes that the tunnel adds to a packet, by the version of the outer header.
#[inline(always)]
pub const fn overhead(outer_is_v6: bool) -> u16 {
    if outer_is_v6 { Ipv6Hdr::LENGTH as u16 } else { Ipv4Hdr::LENGTH as u16 }
}

/// The value of [`crate::abi::BackendRow::outer_sum`], which is that of a tunnel for IPv4; 0 if the outer header is IPv6, which
/// has no checksum.
pub const fn outer_sum(source: &Address, destination: &Address) -> u32 {
    if !destination.is_v4() {
        return 0;
    }
    constant_sum_v4(source, destination, protocol::IPIP).unfolded()
}

/// An [`outer_sum`] with another IPv4 source than it was made for.
#[inline(always)]
pub const fn sum_of_source(outer_sum: u32, old: &Address, new: &Address) -> u32 {
    Sum::begun(outer_sum).change(old.words[3].raw(), new.words[3].raw()).unfolded()
}

/// The outer header of a packet of `length` bytes, from an outer sum made by [`outer_sum`].
#[inline(always)]
pub fn outer_v4(
    source: &Address,
    destination: &Address,
    inner_is_v6: bool,
    traffic_class: u8,
    length: u16,
    outer_sum: u32,
) -> Ipv4Hdr {
    let constant = Sum::begun(outer_sum);
    let constant =
        if inner_is_v6 { constant.second(protocol::IPV6 - protocol::IPIP) } else { constant };
    compose_v4(source, destination, inner_protocol(inner_is_v6), traffic_class, length, constant)
}

/// The same with an outer IPv6 header.
#[inline(always)]
pub fn outer_v6(
    source: &Address,
    destination: &Address,
    inner_is_v6: bool,
    traffic_class: u8,
    length: u16,
) -> Ipv6Hdr {
    Ipv6Hdr::compose(source, destination, inner_protocol(inner_is_v6), traffic_class, length)
}

/// The outer source of a flow's packets, of a prefix that begins with `first` and leaves the last `bits` bits (0..=32): receivers spread
/// IP in IP over their queues, and routers over their paths, by the outer addresses alone. `entropy` is [`crate::gue::entropy`],
/// whose first bits are the best.
#[inline(always)]
pub const fn spread(first: &Address, bits: u32, entropy: u32) -> Address {
    let [a, b, c, d] = first.words;
    let host = ((entropy as u64) << (bits & 63) >> 32) as u32;
    let network = d.to_host() as u64 >> (bits & 63) << (bits & 63);
    Address::v6([a, b, c, Be32::from_host(network as u32 | host)])
}

const fn inner_protocol(inner_is_v6: bool) -> u8 {
    if inner_is_v6 { protocol::IPV6 } else { protocol::IPIP }
}

/// What decapsulation does with the ECN bits (RFC 6040 4.2, figure 4): those that the inner packet leaves with, or
/// `None` if it must be dropped.
#[inline(always)]
pub const fn decapsulated_ecn(outer: u8, inner: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    match (outer & 3, inner & 3) {
        (CE, NOT_ECT) => None,
        (CE, _) => Some(CE),
        (ECT_1, ECT_0) => Some(ECT_1),
        (_, inner) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::tests::plain;

    fn address(text: &str) -> Address {
        text.parse::<std::net::IpAddr>().expect("an address").into()
    }

    #[test]
    fn outer_headers_are_valid_for_every_length_and_class() {
        let (source, destination) = (address("10.0.0.1"), address("10.255.254.253"));
        for inner_is_v6 in [false, true] {
            let sum = outer_sum(&source, &destination);
            for length in 20..=9000 {
                for class in [0, 1, 3, 0xb8, 0xff] {
                    let outer = outer_v4(&source, &destination, inner_is_v6, class, length, sum);
                    let mut bytes = [0u8; 20];
                    *crate::frame::Frame::view_mut(bytes.as_mut_slice(), 0).expect("20") = outer;
                    assert_eq!(plain(&[&bytes]), 0, "length {length}, class {class}");
                    let total = length + 20;
                    let protocol = if inner_is_v6 { 41 } else { 4 };
                    let expected =
                        [0x45, class, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, protocol];
                    assert_eq!(bytes[..10], expected);
                    assert_eq!(bytes[12..], [10, 0, 0, 1, 10, 255, 254, 253]);
                }
            }
        }
    }

    #[test]
    fn sources_are_of_their_prefix_and_differ() {
        for (first, length) in
            [("10.1.2.0", 24), ("10.1.2.4", 30), ("10.1.2.3", 32), ("10.0.0.0", 8)]
        {
            let base = address(first);
            let bits = 32 - length;
            let mut seen = std::collections::BTreeSet::new();
            for step in 0..1024u32 {
                let source = spread(&base, bits, step.wrapping_mul(0x9E37_79B1));
                assert!(source.is_v4());
                let mask = ((1u64 << bits) - 1) as u32;
                let (host, base) = (source.words[3].to_host(), base.words[3].to_host());
                assert_eq!(host & !mask, base & !mask, "{first}/{length}");
                seen.insert(host);
            }
            let most = (1usize << bits.min(10)).min(1024);
            assert!(seen.len() > most * 9 / 10, "{first}/{length}: {} of {most}", seen.len());
        }
        let base = address("fd00:1:2:3::");
        assert_eq!(spread(&base, 32, 0x1234_5678), address("fd00:1:2:3::1234:5678"));
        assert_eq!(spread(&address("fd00::f0"), 4, 0xa000_0000), address("fd00::fa"));
        assert_eq!(spread(&address("fd00::f7"), 0, u32::MAX), address("fd00::f7"));
    }

    #[test]
    fn outer_headers_of_a_prefix_are_valid() {
        let (first, destination) = (address("10.9.0.0"), address("10.255.254.253"));
        let constant = outer_sum(&first, &destination);
        for step in 0..=0xffffu32 {
            let source = spread(&first, 16, step << 16);
            let sum = sum_of_source(constant, &first, &source);
            let outer = outer_v4(&source, &destination, step & 1 != 0, 0, 1400, sum);
            let mut bytes = [0u8; 20];
            *crate::frame::Frame::view_mut(bytes.as_mut_slice(), 0).expect("20") = outer;
            assert_eq!(plain(&[&bytes]), 0, "{step}");
            assert_eq!(bytes[12..16], [10, 9, (step >> 8) as u8, step as u8]);
        }
    }

    #[test]
    fn outer_v6_says_its_payload() {
        let (source, destination) = (address("2001:db8::1"), address("2001:db8::2"));
        let outer = outer_v6(&source, &destination, false, 0xb8, 1400);
        assert_eq!((outer.payload_len, outer.next_hdr), (1400u16.to_be_bytes(), 4));
        assert_eq!((outer.source(), outer.destination()), (source, destination));
        assert_eq!(outer_v6(&source, &destination, true, 0, 60).next_hdr, 41);
        assert_eq!(outer_sum(&source, &destination), 0);
    }

    #[test]
    fn ecn_as_in_figure_4_of_rfc_6040() {
        // Rows: inner Not-ECT, ECT(0), ECT(1), CE; columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let (none, ect0, ect1, ce) = (Some(0), Some(2), Some(1), Some(3));
        let figure = [
            (0, [none, none, none, None]),
            (2, [ect0, ect0, ect1, ce]),
            (1, [ect1, ect1, ect1, ce]),
            (3, [ce, ce, ce, ce]),
        ];
        for (inner, row) in figure {
            for (outer, expected) in [0, 2, 1, 3].into_iter().zip(row) {
                assert_eq!(
                    decapsulated_ecn(outer, inner),
                    expected,
                    "outer {outer}, inner {inner}"
                );
            }
        }
    }
}
