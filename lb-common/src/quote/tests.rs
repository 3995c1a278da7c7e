use super::*;
use crate::sample::{Sample, address};

/// Offset of the ICMP header in the frames of [`error_about`] without outer options.
const ICMP_V4: usize = 34;
const ICMP_V6: usize = 54;

/// An error that quotes `bytes`.
fn error_about(is_v6: bool, bytes: &[u8]) -> Vec<u8> {
    let mut transport = vec![if is_v6 { 2 } else { 3 }, 4, 0, 0, 0, 0, 5, 120];
    transport.extend_from_slice(bytes);
    Sample::new(is_v6, if is_v6 { 58 } else { 1 }, transport, Some(2)).frame()
}

fn quote(is_v6: bool, bytes: &[u8]) -> Option<Quote> {
    let frame = error_about(is_v6, bytes);
    let end = frame.len();
    match is_v6 {
        true => read::<Ipv6Hdr>(frame.as_slice(), ICMP_V6, end),
        false => read::<Ipv4Hdr>(frame.as_slice(), ICMP_V4, end),
    }
}

#[test]
fn eight_bytes_of_the_transport_header_are_enough_and_fewer_are_not() {
    for is_v6 in [false, true] {
        for (sample, checksum) in
            [(Sample::tcp(is_v6, 0x10, b"x"), 18), (Sample::udp(is_v6, b"0123456789"), 8)]
        {
            let bytes = sample.frame()[14..].to_vec();
            let header = if is_v6 { 40 } else { 20 };
            for length in 0..=bytes.len() {
                let quote = quote(is_v6, &bytes[..length]);
                assert_eq!(quote.is_some(), length >= header + 8, "{length} bytes");
                let Some(quote) = quote else { continue };
                assert_eq!(quote.flow.source, address(sample.source));
                assert_eq!(quote.flow.destination, address(sample.destination));
                assert_eq!(quote.flow.source_port.to_host(), 40_000);
                assert_eq!(quote.flow.destination_port.to_host(), 80);
                assert_eq!(quote.has_checksum, length >= header + checksum, "{length} bytes");
            }
        }
    }
}

#[test]
fn bytes_behind_the_message_are_no_quote() {
    let bytes = Sample::tcp(false, 0x10, b"").frame()[14..].to_vec();
    let frame = error_about(false, &bytes);
    let read = |end| read::<Ipv4Hdr>(frame.as_slice(), ICMP_V4, end);
    assert_eq!(read(42 + 27), None);
    assert!(read(42 + 28).is_some_and(|quote| !quote.has_checksum));
    assert!(read(42 + 38).is_some_and(|quote| quote.has_checksum));
}

#[test]
fn options_are_passed_over() {
    let mut sample = Sample::udp(false, b"data");
    sample.options = vec![7, 7, 4, 0, 0, 0, 0, 0];
    let quote = quote(false, &sample.frame()[14..]).expect("it is sound");
    assert_eq!((quote.network, quote.transport), (42, 70));
    assert_eq!(quote.flow.destination_port.to_host(), 80);
}

#[test]
fn only_the_beginning_of_a_tcp_or_udp_packet_counts() {
    let sound = Sample::udp(false, b"data").frame()[14..].to_vec();
    let patched = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        quote(false, &bytes)
    };
    for header_length in 0..5 {
        assert_eq!(patched(0, 0x40 | header_length), None, "IHL {header_length}");
    }
    for version in (0..16).filter(|version| *version != 4) {
        assert_eq!(patched(0, version << 4 | 5), None, "version {version}");
    }
    assert!(patched(6, 0x20).is_some(), "a first fragment");
    for (at, value) in [(6, 0x01), (6, 0x21), (7, 1), (6, 0x1f)] {
        assert_eq!(patched(at, value), None, "a later fragment: byte {at} = {value:#x}");
    }
    for protocol in (0..=255).filter(|protocol| ![6, 17].contains(protocol)) {
        assert_eq!(patched(9, protocol), None, "protocol {protocol}");
    }
    let mut no_port = sound.clone();
    no_port[20..22].fill(0);
    assert_eq!(quote(false, &no_port), None);
}

#[test]
fn a_fragment_header_is_passed_over_in_a_first_fragment() {
    let whole = Sample::udp(true, b"data").frame()[14..].to_vec();
    let fragment = |offset: u16| {
        let [high, low] = offset.to_be_bytes();
        let mut bytes = whole.clone();
        bytes[6] = 44;
        bytes.splice(40..40, [17, 0, high, low, 0, 0, 0, 9]);
        quote(true, &bytes)
    };
    assert_eq!(fragment(1).map(|quote| quote.transport), Some(110));
    assert!(fragment(0).is_some());
    for offset in [8, 9, 0xfff8] {
        assert_eq!(fragment(offset), None, "{offset:#x}");
    }
}

#[test]
fn mapped_addresses_are_no_flow() {
    let mut bytes = Sample::udp(true, b"data").frame()[14..].to_vec();
    bytes[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    assert_eq!(quote(true, &bytes), None);
}
