use super::*;
use crate::{
    frame::Frame,
    parse::{Family, V4, V6, examine, outline},
    sample::{BALANCER_MAC, CLIENT_MAC, Sample, address, assert_valid},
};

fn answer<F: Family>(frame: &[u8]) -> Option<Vec<u8>> {
    let outline = outline::<F>(frame).expect("it has ports");
    let packet = examine::<F>(frame, &outline).expect("it is sound");
    let segment = frame.view::<Tcp>(packet.transport).expect("it is there");
    let payload = payload_length(segment, packet.transport, packet.length);
    let ethernet = frame.view::<Ethernet>(0).expect("it is there");
    let reset = reset::<F::Header>(ethernet, &packet.flow, packet.traffic_class, segment, payload)?;
    let mut bytes = vec![0; Segment::<F::Header>::LENGTH];
    *bytes.as_mut_slice().view_mut(0).expect("it is that long") = reset;
    Some(bytes)
}

fn answer_to(sample: &Sample) -> Option<Vec<u8>> {
    let frame = sample.frame();
    if sample.is_v6() { answer::<V6>(&frame) } else { answer::<V4>(&frame) }
}

#[test]
fn a_reset_fits_the_segment() {
    // Flags, payload; flags, sequence and acknowledgement of the reset (the sample's are 0x11223344 and 0x55667788).
    let cases: [(u8, &[u8], u8, u32, u32); 7] = [
        (0x02, b"", 0x14, 0, 0x1122_3345),
        (0x02, b"fast open", 0x14, 0, 0x1122_334e),
        (0x01, b"", 0x14, 0, 0x1122_3345),
        (0x08, b"abc", 0x14, 0, 0x1122_3347),
        (0x10, b"abc", 0x04, 0x5566_7788, 0),
        (0x12, b"", 0x04, 0x5566_7788, 0),
        (0x11, b"abc", 0x04, 0x5566_7788, 0),
    ];
    for is_v6 in [false, true] {
        for (flags, payload, expected, sequence, acknowledgement) in cases {
            let sample = Sample::tcp(is_v6, flags, payload);
            let reset = answer_to(&sample).expect("it gets one");
            assert_valid(&reset);
            let at = if is_v6 { 54 } else { 34 };
            assert_eq!(reset.len(), at + 20);
            assert_eq!(reset[at + 13], expected, "to flags {flags:#x}");
            assert_eq!(reset[at + 4..at + 8], sequence.to_be_bytes(), "to flags {flags:#x}");
            assert_eq!(
                reset[at + 8..at + 12],
                acknowledgement.to_be_bytes(),
                "to flags {flags:#x}"
            );
            assert_eq!(reset[at..at + 4], [0, 80, 0x9c, 0x40]);
            assert_eq!((&reset[..6], &reset[6..12]), (&CLIENT_MAC[..], &BALANCER_MAC[..]));
            let flow = if is_v6 {
                outline::<V6>(reset.as_slice())
            } else {
                outline::<V4>(reset.as_slice())
            };
            let flow = flow.expect("it has ports").flow;
            assert_eq!(flow.source, address(sample.destination));
            assert_eq!(flow.destination, address(sample.source));
        }
    }
}

#[test]
fn a_reset_is_not_answered() {
    for is_v6 in [false, true] {
        for flags in [0x04, 0x14, 0x1c] {
            assert_eq!(answer_to(&Sample::tcp(is_v6, flags, b"x")), None, "flags {flags:#x}");
        }
    }
}

#[test]
fn tcp_options_are_no_payload() {
    let mut sample = Sample::tcp(false, 0x02, &[2, 4, 5, 0xb4, 1, 1, 1, 1]);
    sample.transport[12] = 0x70;
    let reset = answer_to(&sample).expect("it gets one");
    assert_eq!(reset[42..46], 0x1122_3345u32.to_be_bytes());
}

#[test]
fn sequence_numbers_wrap() {
    let mut sample = Sample::tcp(false, 0x02, b"ab");
    sample.transport[4..8].fill(0xff);
    let reset = answer_to(&sample).expect("it gets one");
    assert_eq!(reset[42..46], 2u32.to_be_bytes());
    assert_valid(&reset);
}
