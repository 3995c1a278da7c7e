use super::*;
use crate::{
    parse::{V4, V4Options, V6, examine, outline},
    sample::{Sample, address, assert_valid},
};

fn translate_frame<F: Family>(frame: &mut [u8], end: End, to: &str, port: u16) {
    let outline = outline::<F>(&*frame).expect("it has ports");
    let packet = examine::<F>(&*frame, &outline).expect("it is sound");
    let port = Be16::from_host(port);
    translate::<F>(frame, &packet, end, &address(to), port).expect("it is long enough");
}

fn translated(sample: &Sample, end: End) -> Vec<u8> {
    let mut frame = sample.frame();
    match (sample.is_v6(), sample.options.is_empty()) {
        (true, _) => translate_frame::<V6>(&mut frame, end, "fd00::99", 8080),
        (false, true) => translate_frame::<V4>(&mut frame, end, "10.255.0.99", 8080),
        (false, false) => translate_frame::<V4Options>(&mut frame, end, "10.255.0.99", 8080),
    }
    frame
}

#[test]
fn only_what_has_to_change_changes() {
    for mut sample in Sample::every_shape(b"some payload") {
        for end in [End::Source, End::Destination] {
            let got = translated(&sample, end);
            let to = if sample.is_v6() { "fd00::99" } else { "10.255.0.99" };
            let mut expected = sample.clone();
            expected.hop_limit -= 1;
            let port = 8080u16.to_be_bytes();
            match end {
                End::Source => {
                    expected.source = to;
                    expected.transport[..2].copy_from_slice(&port);
                }
                End::Destination => {
                    expected.destination = to;
                    expected.transport[2..4].copy_from_slice(&port);
                }
            }
            assert_eq!(
                got,
                expected.frame(),
                "{end:?}, v6 {}, {}",
                sample.is_v6(),
                sample.protocol
            );
        }
        sample.hop_limit = 2;
        assert_valid(&translated(&sample, End::Destination));
    }
}

#[test]
fn every_checksum_is_brought_along() {
    for value in 0..=0xffffu16 {
        // Two bytes of payload make the checksum take every value.
        for sample in Sample::every_shape(&value.to_be_bytes()) {
            assert_valid(&translated(&sample, End::Destination));
        }
    }
}

#[test]
fn udp_checksums_of_zero() {
    let mut none = Sample::udp(false, b"payload");
    none.checksum = None;
    let frame = translated(&none, End::Destination);
    assert_eq!(frame[40..42], [0, 0], "none stays none");

    let mut met = false;
    for value in 0..=0xffffu16 {
        for is_v6 in [false, true] {
            let frame = translated(&Sample::udp(is_v6, &value.to_be_bytes()), End::Source);
            let at = if is_v6 { 60 } else { 40 };
            assert_ne!(frame[at..at + 2], [0, 0], "payload {value:#06x}");
            met |= frame[at..at + 2] == [0xff, 0xff];
        }
    }
    assert!(met, "the case of a computed zero never came up");
}

#[test]
fn a_wrong_checksum_is_not_repaired() {
    for sample in Sample::every_shape(b"payload") {
        let mut broken = sample.clone();
        let mut frame = sample.frame();
        let at = frame.len() - 1;
        frame[at] ^= 0x40;
        let outline_and_translate =
            |frame: &mut [u8]| match (broken.is_v6(), broken.options.is_empty()) {
                (true, _) => translate_frame::<V6>(frame, End::Destination, "fd00::99", 8080),
                (false, true) => {
                    translate_frame::<V4>(frame, End::Destination, "10.255.0.99", 8080)
                }
                (false, false) => {
                    translate_frame::<V4Options>(frame, End::Destination, "10.255.0.99", 8080)
                }
            };
        outline_and_translate(&mut frame);
        broken.transport.clone_from(&sample.transport);
        let (source, destination) =
            (broken.source, if broken.is_v6() { "fd00::99" } else { "10.255.0.99" });
        let start = frame.len() - broken.transport.len();
        let sum = Sample::transport_sum(source, destination, broken.protocol, &frame[start..]);
        assert_ne!(sum, 0, "protocol {}", broken.protocol);
    }
}

/// An error about `quoted`, cut to `length` bytes, from a router to the quoted packet's source.
fn error_about(quoted: &Sample, from: &'static str, length: usize) -> Sample {
    let is_v6 = quoted.is_v6();
    let mut transport = vec![if is_v6 { 2 } else { 3 }, 4, 0, 0, 0, 0, 5, 120];
    let bytes = &quoted.frame()[14..];
    transport.extend_from_slice(&bytes[..length.min(bytes.len())]);
    let mut error = Sample::new(is_v6, if is_v6 { 58 } else { 1 }, transport, Some(2));
    (error.source, error.destination) = (from, quoted.source);
    error
}

fn translate_error_frame<F: Family>(frame: &mut [u8], end: End, to: &str) {
    let icmp = NETWORK + F::MINIMUM;
    let quote = quote::read::<F::Header>(&*frame, icmp, frame.len()).expect("it is sound");
    translate_error::<F>(frame, &quote, end, &address(to), Be16::from_host(8080))
        .expect("it is long enough");
}

#[test]
fn an_error_is_translated_with_what_it_quotes() {
    for quoted in Sample::every_shape(b"some payload") {
        let (is_v6, options) = (quoted.is_v6(), quoted.options.len());
        let (to, router) =
            if is_v6 { ("fd00::99", "2001:db8:e::1") } else { ("10.255.0.99", "203.0.113.1") };
        let shortest = if is_v6 { 48 } else { 28 + options };
        for length in [shortest, shortest + 8, shortest + 10, 1_000] {
            for end in [End::Source, End::Destination] {
                // Only an error that comes from the replaced end itself has another source afterwards.
                let own = end == End::Source && length == 1_000;
                let from = if own { quoted.destination } else { router };
                let before = error_about(&quoted, from, length);
                let mut frame = before.frame();
                match is_v6 {
                    true => translate_error_frame::<V6>(&mut frame, end, to),
                    false => translate_error_frame::<V4>(&mut frame, end, to),
                }
                let mut inner = quoted.clone();
                let port = 8080u16.to_be_bytes();
                match end {
                    End::Source => {
                        inner.destination = to;
                        inner.transport[2..4].copy_from_slice(&port);
                    }
                    End::Destination => {
                        inner.source = to;
                        inner.transport[..2].copy_from_slice(&port);
                    }
                }
                let mut expected = error_about(&inner, if own { to } else { router }, length);
                if end == End::Source {
                    expected.destination = quoted.source;
                }
                expected.hop_limit -= 1;
                assert_eq!(frame, expected.frame(), "{end:?}, v6 {is_v6}, {length} bytes");
                assert_valid(&frame);
            }
        }
    }
}
