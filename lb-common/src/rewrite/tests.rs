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

/// Every shape of packet with a payload of its own.
fn samples(payload: &[u8]) -> Vec<Sample> {
    let mut with_options = Sample::tcp(false, 0x18, payload);
    with_options.options = vec![7, 7, 4, 0, 0, 0, 0, 0];
    vec![
        Sample::tcp(false, 0x18, payload),
        Sample::udp(false, payload),
        with_options,
        Sample::tcp(true, 0x18, payload),
        Sample::udp(true, payload),
    ]
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
    for mut sample in samples(b"some payload") {
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
        for sample in samples(&value.to_be_bytes()) {
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
    for sample in samples(b"payload") {
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
