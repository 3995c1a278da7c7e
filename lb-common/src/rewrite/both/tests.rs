use super::*;
use crate::{
    parse::{V4, V4Options, V6, examine, outline},
    sample::{Sample, address, assert_valid},
};

const PORTS: (u16, u16) = (50_123, 8080);

fn ends(is_v6: bool) -> (&'static str, &'static str) {
    if is_v6 { ("fd00::1:1", "fd00::99") } else { ("10.255.0.1", "10.255.0.99") }
}

/// The sample as it is to come out.
fn replaced(sample: &Sample) -> Sample {
    let mut expected = sample.clone();
    (expected.source, expected.destination) = ends(sample.is_v6());
    expected.transport[..2].copy_from_slice(&PORTS.0.to_be_bytes());
    expected.transport[2..4].copy_from_slice(&PORTS.1.to_be_bytes());
    expected
}

fn with_ends(is_v6: bool, then: impl FnOnce(&Ends<'_>)) {
    let (source, destination) = ends(is_v6);
    then(&Ends {
        source: &address(source),
        destination: &address(destination),
        source_port: Be16::from_host(PORTS.0),
        destination_port: Be16::from_host(PORTS.1),
    });
}

fn translate_as<F: Family>(frame: &mut [u8], ends: &Ends<'_>) {
    let outline = outline::<F>(&*frame).expect("it has ports");
    let packet = examine::<F>(&*frame, &outline).expect("it is sound");
    translate_both::<F>(frame, &packet, ends).expect("it is long enough");
}

fn translated(sample: &Sample) -> Vec<u8> {
    let mut frame = sample.frame();
    with_ends(sample.is_v6(), |ends| match (sample.is_v6(), sample.options.is_empty()) {
        (true, _) => translate_as::<V6>(&mut frame, ends),
        (false, true) => translate_as::<V4>(&mut frame, ends),
        (false, false) => translate_as::<V4Options>(&mut frame, ends),
    });
    frame
}

#[test]
fn every_checksum_is_brought_along() {
    for value in 0..=0xffffu16 {
        for sample in Sample::every_shape(&value.to_be_bytes()) {
            let frame = translated(&sample);
            assert_valid(&frame);
            if value % 257 == 0 {
                let mut expected = replaced(&sample);
                expected.hop_limit -= 1;
                assert_eq!(frame, expected.frame(), "{value:#06x}");
            }
        }
    }
}

#[test]
fn datagrams_without_a_checksum_stay_without() {
    let mut none = Sample::udp(false, b"payload");
    none.checksum = None;
    assert_eq!(translated(&none)[40..42], [0, 0]);
}

/// An error about `quoted`, cut to `length` bytes.
fn error_about(quoted: &Sample, (from, to): (&'static str, &'static str), length: usize) -> Sample {
    let is_v6 = quoted.is_v6();
    let mut transport = vec![if is_v6 { 2 } else { 3 }, 4, 0, 0, 0, 0, 5, 120];
    let bytes = &quoted.frame()[14..];
    transport.extend_from_slice(&bytes[..length.min(bytes.len())]);
    let mut error = Sample::new(is_v6, if is_v6 { 58 } else { 1 }, transport, Some(2));
    (error.source, error.destination) = (from, to);
    error
}

fn translate_error_as<F: Family>(frame: &mut [u8], ends: &Ends<'_>) {
    let icmp = NETWORK + F::MINIMUM;
    let quote = quote::read::<F::Header>(&*frame, icmp, frame.len()).expect("it is sound");
    translate_error_both::<F>(frame, &quote, ends).expect("it is long enough");
}

#[test]
fn an_error_is_translated_with_what_it_quotes() {
    for value in (0..=0xffffu16).step_by(97) {
        for quoted in Sample::every_shape(&value.to_be_bytes()) {
            let (is_v6, options) = (quoted.is_v6(), quoted.options.len());
            let router = if is_v6 { "2001:db8:e::1" } else { "203.0.113.1" };
            let shortest = if is_v6 { 48 } else { 28 + options };
            for length in [shortest, shortest + 8, shortest + 10, 1_000] {
                let mut frame = error_about(&quoted, (router, quoted.source), length).frame();
                with_ends(is_v6, |ends| match is_v6 {
                    true => translate_error_as::<V6>(&mut frame, ends),
                    false => translate_error_as::<V4>(&mut frame, ends),
                });
                let inner = replaced(&quoted);
                let (source, destination) = ends(is_v6);
                let mut expected = error_about(&inner, (destination, source), length);
                expected.hop_limit -= 1;
                assert_eq!(frame, expected.frame(), "v6 {is_v6}, {length} bytes, {value:#06x}");
                assert_valid(&frame);
            }
        }
    }
}
