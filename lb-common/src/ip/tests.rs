use super::*;
use crate::checksum::tests::plain;

fn bytes<T: Wire>(header: &T) -> Vec<u8> {
    // Byte for byte, by the views that packets are read with.
    let mut buffer = vec![0u8; T::LENGTH];
    *crate::frame::Frame::view_mut::<T>(buffer.as_mut_slice(), 0).expect("it is that long") =
        *header;
    buffer
}

fn is_valid(header: &Ipv4Hdr) -> bool {
    plain(&[&bytes(header)]) == 0
}

fn v4(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().expect("an address").into()
}

/// A valid header whose checksum is steered by the identification.
fn header(identification: u16, ttl: u8) -> Ipv4Hdr {
    let mut header = Ipv4Hdr::compose(&v4("192.0.2.1"), &v4("198.51.100.9"), 6, 0, 20);
    header.id = identification.to_be_bytes();
    header.ttl = ttl;
    header.check = [0; 2];
    header.check = plain(&[&bytes(&header)]).to_be_bytes();
    header
}

#[test]
fn every_checksum_survives_the_decrement() {
    let mut seen = vec![false; 0x1_0000];
    for ttl in [1, 2, 64, 128, 255] {
        for identification in 0..=0xffff {
            let mut header = header(identification, ttl);
            assert!(is_valid(&header) && header.is_intact());
            seen[u16::from_be_bytes(header.check) as usize] = true;
            header.decrement_hop_limit();
            assert_eq!(header.ttl, ttl - 1);
            assert!(is_valid(&header), "identification {identification:#06x}, ttl {ttl}");
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    // All ones would mean that the header sums to zero, which no header with a version does.
    assert_eq!(missing, 1, "checksums that never came up");
    assert!(!seen[0xffff]);
}

#[test]
fn every_hop_limit_and_ecn_is_set_with_a_valid_checksum() {
    for value in 0..=255 {
        let mut header = header(0x1234, 77);
        header.set_hop_limit(value);
        assert!(header.ttl == value && is_valid(&header), "hop limit {value}");
        header.tos = value;
        header.check = [0; 2];
        header.check = plain(&[&bytes(&header)]).to_be_bytes();
        for ecn in 0..4 {
            header.set_ecn(ecn);
            assert!(header.tos == (value & 0xfc) | ecn && is_valid(&header), "{value} {ecn}");
        }
    }
}

#[test]
fn addresses_are_replaced_with_a_valid_checksum() {
    for identification in 0..=0xffff {
        let mut header = header(identification, 64);
        header.set_destination(&v4("10.200.0.77"));
        assert!(is_valid(&header), "destination, identification {identification:#06x}");
        header.set_source(&v4("255.254.253.252"));
        assert!(is_valid(&header), "source, identification {identification:#06x}");
        header.swap_addresses();
        assert!(is_valid(&header) && header.src_addr == [10, 200, 0, 77]);
        assert_eq!(header.destination(), v4("255.254.253.252"));
    }
}

#[test]
fn a_wrong_checksum_is_not_repaired() {
    let mut header = header(7, 64);
    header.check = (u16::from_be_bytes(header.check) ^ 0x0100).to_be_bytes();
    header.decrement_hop_limit();
    assert!(!is_valid(&header) && !header.is_intact());
    header.set_source(&v4("10.0.0.1"));
    assert!(!is_valid(&header));
}

#[test]
fn composed_headers_are_valid_and_say_what_they_were_given() {
    for payload in [0u16, 1, 20, 1480, 65_515] {
        for tos in 0..=255 {
            let header = Ipv4Hdr::compose(&v4("10.0.0.1"), &v4("203.0.113.254"), 4, tos, payload);
            assert!(is_valid(&header), "payload {payload}, TOS {tos}");
            assert_eq!(header.length(), u32::from(payload) + 20);
            assert_eq!(
                (header.traffic_class(), header.protocol(), header.hop_limit()),
                (tos, 4, 64)
            );
            assert_eq!((header.id, header.frags), ([0, 0], [0x40, 0]));

            let header = Ipv6Hdr::compose(&v4("2001:db8::1"), &v4("fd00::2"), 41, tos, payload);
            assert!(header.is_version());
            assert_eq!(header.length(), if payload == 0 { 0 } else { u32::from(payload) + 40 });
            assert_eq!(
                (header.traffic_class(), header.protocol(), header.hop_limit()),
                (tos, 41, 64)
            );
            assert_eq!(header.source(), v4("2001:db8::1"));
            assert_eq!(header.destination(), v4("fd00::2"));
            assert_eq!(bytes(&header)[..4], [0x60 | (tos >> 4), tos << 4, 0, 0]);
        }
    }
}

#[test]
fn v6_fields_change_alone() {
    let mut header = Ipv6Hdr::compose(&v4("2001:db8::1"), &v4("fd00::2"), 6, 0xb9, 100);
    header.vcf[2] = 0x12;
    let before = header;
    header.set_ecn(3);
    assert_eq!(header.traffic_class(), 0xbb);
    assert_eq!(header.vcf[2..], before.vcf[2..]);
    header.set_source(&v4("2001:db8:1:2:3:4:5:6"));
    assert_eq!(header.source(), v4("2001:db8:1:2:3:4:5:6"));
    header.set_destination(&v4("2001:db8:6:5:4:3:2:1"));
    assert_eq!(header.destination(), v4("2001:db8:6:5:4:3:2:1"));
    header.decrement_hop_limit();
    assert_eq!(
        (header.hop_limit, header.payload_len, header.next_hdr),
        (63, before.payload_len, 6)
    );
}
