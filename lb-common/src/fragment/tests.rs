use super::*;
use crate::{
    parse::{V4, V4Options, V6},
    sample::{Sample, address},
};

/// A frame with its fragment field set; IPv6 gets a fragment header.
fn fragment(sample: &Sample, field: u16) -> Vec<u8> {
    let mut frame = sample.frame();
    let [high, low] = field.to_be_bytes();
    if !sample.is_v6() {
        frame[20..22].copy_from_slice(&[high, low]);
        return frame;
    }
    let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame[20] = 44;
    frame.splice(54..54, [sample.protocol, 0xff, high, low, 0x11, 0x22, 0x33, 0x44]);
    frame
}

fn read_frame(is_v6: bool, frame: &[u8]) -> Result<Fragment, Reason> {
    if is_v6 { read::<V6>(frame) } else { read::<V4>(frame) }
}

fn flow_of(is_v6: bool, frame: &[u8]) -> Result<FlowKey, Reason> {
    let fragment = read_frame(is_v6, frame)?;
    if is_v6 { flow::<V6>(frame, &fragment) } else { flow::<V4>(frame, &fragment) }
}

/// More fragments, at an offset in units of eight bytes.
fn field(is_v6: bool, offset: u16, more: bool) -> u16 {
    match (is_v6, more) {
        (false, more) => offset | if more { 0x2000 } else { 0 },
        (true, more) => offset << 3 | u16::from(more),
    }
}

#[test]
fn a_fragment_says_what_packet_it_is_of() {
    for is_v6 in [false, true] {
        let sample = Sample::udp(is_v6, &[7; 40]);
        for (offset, more) in [(0, true), (6, true), (6, false), (0, false)] {
            let frame = fragment(&sample, field(is_v6, offset, more));
            let fragment = read_frame(is_v6, &frame).expect("it is sound");
            assert_eq!((fragment.offset, fragment.more), (offset * 8, more));
            assert_eq!(fragment.key.source, address(sample.source));
            assert_eq!(fragment.key.destination, address(sample.destination));
            assert_eq!(fragment.key.protocol, 17);
            let id = if is_v6 { 0x1122_3344 } else { 0xbeef };
            let raw = if is_v6 {
                u32::from_be(fragment.key.id)
            } else {
                u32::from(u16::from_be(fragment.key.id as u16))
            };
            assert_eq!(raw, id);
            assert_eq!(fragment.transport, if is_v6 { 62 } else { 34 });
            assert_eq!(fragment.length as usize, frame.len() - 14);
        }
    }
}

#[test]
fn the_first_one_has_the_ports() {
    for is_v6 in [false, true] {
        for sample in [Sample::udp(is_v6, &[7; 40]), Sample::tcp(is_v6, 0x10, &[7; 44])] {
            let flow = flow_of(is_v6, &fragment(&sample, field(is_v6, 0, true))).expect("it has");
            assert_eq!(flow.source, address(sample.source));
            assert_eq!(flow.source_port.to_host(), 40_000);
            assert_eq!(flow.destination_port.to_host(), 80);
        }
        // Eight and sixteen bytes of a TCP header.
        for length in [8, 16] {
            let mut sample = Sample::tcp(is_v6, 0x10, b"");
            sample.transport.truncate(length);
            sample.checksum = None;
            let flow = flow_of(is_v6, &fragment(&sample, field(is_v6, 0, true)));
            assert_eq!(flow, Err(Reason::FragmentTiny), "{length} bytes");
        }
        let echo = Sample::echo(is_v6, &[7; 40]);
        let flow = flow_of(is_v6, &fragment(&echo, field(is_v6, 0, true)));
        assert_eq!(flow, Err(Reason::FragmentDropped));
    }
}

#[test]
fn options_stand_before_the_data() {
    let mut sample = Sample::udp(false, &[7; 40]);
    sample.options = vec![1; 12];
    let frame = fragment(&sample, 0x2000);
    let fragment = read::<V4Options>(frame.as_slice()).expect("it is sound");
    assert_eq!(fragment.transport, 46);
    assert!(flow::<V4Options>(frame.as_slice(), &fragment).is_ok());
}

#[test]
fn offsets_that_make_no_sense_are_refused() {
    for is_v6 in [false, true] {
        let sound = Sample::udp(is_v6, &[7; 40]);
        let odd = Sample::udp(is_v6, &[7; 41]);
        let empty = Sample::new(is_v6, 17, Vec::new(), None);
        let dropped = Err(Reason::FragmentDropped);
        let last = |offset| read_frame(is_v6, &fragment(&sound, field(is_v6, offset, false)));
        assert!(last(8_100).is_ok());
        assert_eq!(last(8_191), dropped, "beyond 64 KiB");
        assert_eq!(read_frame(is_v6, &fragment(&odd, field(is_v6, 0, true))), dropped);
        assert!(read_frame(is_v6, &fragment(&odd, field(is_v6, 9, false))).is_ok());
        assert_eq!(read_frame(is_v6, &fragment(&empty, field(is_v6, 2, true))), dropped);
        let tcp = Sample::tcp(is_v6, 0x10, &[7; 44]);
        let second = read_frame(is_v6, &fragment(&tcp, field(is_v6, 1, true)));
        assert_eq!(second, Err(Reason::FragmentTiny));
    }
}
