use super::*;
use crate::{
    parse::{Family, V4, V6},
    sample::{BALANCER_MAC, CLIENT_MAC, Sample, address, assert_valid},
};

fn echoed<F: Family>(frame: &mut [u8]) {
    let transport = 14 + F::MINIMUM;
    let mut headers = *frame.view::<Pair<Ethernet, F::Header>>(0).expect("it is long enough");
    let icmp = frame.view_mut::<Icmpv4Hdr>(transport).expect("it is long enough");
    reply_to_echo(&mut headers.first, &mut headers.second, icmp);
    *frame.view_mut(0).expect("it is long enough") = headers;
}

#[test]
fn every_echo_is_answered_with_a_valid_checksum() {
    let mut seen = std::collections::HashSet::new();
    for value in 0..=0xffffu16 {
        let mut frame = Sample::echo(false, &value.to_be_bytes()).frame();
        seen.insert([frame[36], frame[37]]);
        echoed::<V4>(&mut frame);
        assert_valid(&frame);
        let mut frame = Sample::echo(true, &value.to_be_bytes()).frame();
        echoed::<V6>(&mut frame);
        assert_valid(&frame);
    }
    // Zero and all ones are one number; a message that is not all zeros has only one of them as its checksum.
    assert_eq!(seen.len(), 0xffff);
}

#[test]
fn an_echo_reply_goes_back_unchanged() {
    let sample = Sample::echo(false, b"payload");
    let mut frame = sample.frame();
    echoed::<V4>(&mut frame);
    let mut expected = sample.clone();
    (expected.source, expected.destination) = (sample.destination, sample.source);
    expected.transport[0] = 0;
    let mut expected = expected.frame();
    expected[..6].copy_from_slice(&CLIENT_MAC);
    expected[6..12].copy_from_slice(&BALANCER_MAC);
    assert_eq!(frame, expected);
}

#[test]
fn sums_of_any_length_and_place() {
    let bytes: Vec<u8> = (0..2_000u32).map(|index| (index * 31 + 7) as u8).collect();
    for offset in [1, 14, 34, 54] {
        for length in (0..200).chain([1_231, 1_232, 1_472, 1_900]) {
            let sum = sum_of_frame(bytes.as_slice(), offset, length).expect("it is there");
            let expected = crate::checksum::tests::plain(&[&bytes[offset..offset + length]]);
            assert_eq!(sum.checksum().to_be(), expected, "{length} bytes at {offset}");
        }
        assert!(sum_of_frame(bytes.as_slice(), offset, 2_001 - offset).is_none());
    }
    let long = vec![0xff; LONGEST_MESSAGE + 100];
    let sum = sum_of_frame(long.as_slice(), 50, LONGEST_MESSAGE).expect("just fits");
    assert_eq!(sum.checksum(), 0);
    assert!(sum_of_frame(long.as_slice(), 50, LONGEST_MESSAGE + 8).is_none());
}

#[test]
fn a_flipped_bit_is_found() {
    for is_v6 in [false, true] {
        let frame = Sample::echo(is_v6, b"an odd number of bytes!").frame();
        let offset = if is_v6 { 54 } else { 34 };
        let length = frame.len() - offset;
        let intact = |frame: &[u8]| {
            let sum = sum_of_frame(frame, offset, length).expect("it is there");
            match is_v6 {
                true => is_intact(
                    frame.view::<network_types::ip::Ipv6Hdr>(14).expect("v6"),
                    sum,
                    length as u16,
                ),
                false => is_intact(frame.view::<Ipv4Hdr>(14).expect("v4"), sum, length as u16),
            }
        };
        assert!(intact(&frame));
        for bit in 0..length * 8 {
            let mut broken = frame.clone();
            broken[offset + bit / 8] ^= 1 << (bit % 8);
            assert!(!intact(&broken), "bit {bit}");
        }
    }
}

fn error_about<F: Family>(frame: &[u8], from: &str, error: Error) -> Vec<u8> {
    let headers = frame.view::<Pair<Ethernet, F::Header>>(0).expect("it is long enough");
    let quoted = quoted_length(F::Header::IS_V6, headers.second.length() as u16);
    let quote = sum_of_frame(frame, 14, quoted as usize).expect("it is there");
    let made = error_headers(&headers.first, &headers.second, &address(from), error, quote, quoted);
    let mut answer = vec![0; ErrorHeaders::<F::Header>::LENGTH];
    *answer.as_mut_slice().view_mut(0).expect("it is that long") = made;
    answer.extend_from_slice(&frame[14..14 + quoted as usize]);
    answer
}

#[test]
fn errors_are_valid_and_quote_as_much_as_they_may() {
    let cases = [
        (Error::TIME_EXCEEDED, [11, 0], [3, 0], 0),
        (Error::too_big(1480), [3, 4], [2, 0], 1480),
        (Error::PORT_UNREACHABLE, [3, 3], [1, 4], 0),
        (Error::PROHIBITED, [3, 13], [1, 1], 0),
    ];
    for (error, v4, v6, mtu) in cases {
        for payload in (0..20).chain([520, 521, 1_172, 1_173, 1_192, 1_440]) {
            let frame = Sample::tcp(false, 0x10, &vec![0xa5; payload]).frame();
            let answer = error_about::<V4>(&frame, "198.51.100.80", error);
            assert_valid(&answer);
            assert!(answer.len() <= 14 + 576);
            assert_eq!(answer.len(), (frame.len() + 28).min(14 + 576));
            assert_eq!(answer[34..36], v4);
            assert_eq!(answer[38..42], [0, 0, (mtu >> 8) as u8, mtu as u8]);
            assert_eq!(answer[42..], frame[14..][..answer.len() - 42], "the quote");
            assert_eq!((&answer[..6], &answer[6..12]), (&CLIENT_MAC[..], &BALANCER_MAC[..]));
            assert_eq!((&answer[26..30], &answer[30..34]), (&frame[30..34], &frame[26..30]));
            assert_eq!(answer[15], 0xc0);

            let frame = Sample::tcp(true, 0x10, &vec![0xa5; payload]).frame();
            let answer = error_about::<V6>(&frame, "2001:db8:f::80", error);
            assert_valid(&answer);
            assert_eq!(answer.len(), (frame.len() + 48).min(14 + 1280));
            assert_eq!(answer[54..56], v6);
            assert_eq!(answer[58..62], [0, 0, (mtu >> 8) as u8, mtu as u8]);
            assert_eq!(answer[62..], frame[14..][..answer.len() - 62], "the quote");
        }
    }
}

#[test]
fn kinds_of_messages() {
    assert_eq!(kind(false, 8), Kind::EchoRequest);
    assert_eq!(kind(true, 128), Kind::EchoRequest);
    for error in [3, 4, 5, 11, 12] {
        assert_eq!(kind(false, error), Kind::Error, "type {error}");
    }
    for error in 0..128 {
        assert_eq!(kind(true, error), Kind::Error, "type {error}");
    }
    for other in [0, 9, 10, 13, 14, 17, 18] {
        assert_eq!(kind(false, other), Kind::Other, "type {other}");
    }
    for discovery in [129, 130, 133, 134, 135, 136, 137, 143] {
        assert_eq!(kind(true, discovery), Kind::Other, "type {discovery}");
    }
    let concerning = |is_v6| (0..=255).filter(move |kind| concerns_endpoints(is_v6, *kind));
    assert!(concerning(false).eq([3, 11, 12]));
    assert!(concerning(true).eq([1, 2, 3, 4]));
}
