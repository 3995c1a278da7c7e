use super::*;
use crate::sample::{Sample, address};

fn look<F: Family>(frame: &[u8]) -> Result<Packet, Reason> {
    match outline::<F>(frame) {
        Some(outline) => examine::<F>(frame, &outline),
        None => Err(examine_any::<F>(frame).expect_err("it has no outline, so it has a fault")),
    }
}

/// As the program does it.
fn parse(frame: &[u8]) -> Result<Packet, Reason> {
    match (&frame[12..14], frame.get(14)) {
        ([0x86, 0xdd], _) => look::<V6>(frame),
        (_, Some(0x45)) => look::<V4>(frame),
        _ => look::<V4Options>(frame),
    }
}

fn set_length(frame: &mut [u8], total: u16) {
    match frame[12] {
        0x86 => frame[18..20].copy_from_slice(&total.wrapping_sub(40).to_be_bytes()),
        _ => frame[16..18].copy_from_slice(&total.to_be_bytes()),
    }
}

#[test]
fn a_sound_packet_is_read_in_full() {
    for is_v6 in [false, true] {
        let header = if is_v6 { 40 } else { 20 };
        let frame = Sample::tcp(is_v6, tcp_flag::SYN, b"data").frame();
        let packet = parse(&frame).expect("it is sound");
        let sample = Sample::tcp(is_v6, 0, b"");
        assert_eq!(packet.flow.source, address(sample.source));
        assert_eq!(packet.flow.destination, address(sample.destination));
        assert_eq!(packet.flow.source_port.to_host(), 40_000);
        assert_eq!(packet.flow.destination_port.to_host(), 80);
        assert_eq!((packet.flow.protocol, packet.flow._pad), (6, [0; 3]));
        assert_eq!((packet.transport, packet.length), (14 + header, header as u16 + 24));
        assert_eq!((packet.hop_limit, packet.traffic_class), (64, 0xb9));
        assert!(packet.is_opening());

        let packet = parse(&Sample::udp(is_v6, b"").frame()).expect("it is sound");
        assert_eq!((packet.flow.protocol, packet.flags), (17, 0));
        assert_eq!(packet.length, header as u16 + 8);
        assert!(!packet.is_opening());
    }
}

#[test]
fn a_trailer_is_not_part_of_the_packet() {
    for is_v6 in [false, true] {
        for trailer in [0x00, 0xff] {
            let mut frame = Sample::udp(is_v6, b"x").frame();
            let expected = parse(&frame);
            frame.resize(frame.len() + 17, trailer);
            assert_eq!(parse(&frame), expected);
        }
    }
}

#[test]
fn every_cut_is_found() {
    for is_v6 in [false, true] {
        for sample in [Sample::tcp(is_v6, 0x10, b""), Sample::udp(is_v6, b"")] {
            let frame = sample.frame();
            let header = if is_v6 { 40 } else { 20 };
            for length in 14..frame.len() {
                let expected =
                    if length < 14 + header { Reason::L3Truncated } else { Reason::L3Length };
                assert_eq!(parse(&frame[..length]), Err(expected), "v6 {is_v6}, {length} bytes");
                // The same with a length that says so, as long as there is an IP header.
                if length > 14 + header {
                    let mut frame = frame.clone();
                    set_length(&mut frame, length as u16 - 14);
                    let reason = Err(Reason::L4Truncated);
                    assert_eq!(
                        parse(&frame[..length]),
                        reason,
                        "v6 {is_v6}, {length} bytes, consistent"
                    );
                    assert_eq!(parse(&frame), reason, "v6 {is_v6}, {length} bytes, and a trailer");
                }
            }
        }
    }
}

#[test]
fn lengths_that_contradict_each_other() {
    let frame = Sample::tcp(false, 0x10, b"abc").frame();
    for total in [0, 1, 19, frame.len() as u16 - 13, 0xffff] {
        let mut frame = frame.clone();
        set_length(&mut frame, total);
        assert_eq!(parse(&frame), Err(Reason::L3Length), "total length {total}");
    }
    let frame = Sample::tcp(true, 0x10, b"abc").frame();
    for payload in [0, frame.len() as u16 - 53, 0xffff] {
        let mut frame = frame.clone();
        frame[18..20].copy_from_slice(&payload.to_be_bytes());
        assert_eq!(parse(&frame), Err(Reason::L3Length), "payload length {payload}");
    }
}

#[test]
fn header_lengths_and_versions() {
    let good = Sample::tcp(false, 0x10, b"").frame();
    for words in 0..5 {
        let mut frame = good.clone();
        frame[14] = 0x40 | words;
        assert_eq!(parse(&frame), Err(Reason::IpHeaderLength), "{words} words");
    }
    let mut frame = good.clone();
    frame[14] = 0x4f;
    assert_eq!(parse(&frame), Err(Reason::IpHeaderLength), "60 bytes of header in 40 of packet");
    for version in (0..16).filter(|version| *version != 4) {
        let mut frame = good.clone();
        frame[14] = (version << 4) | 5;
        assert_eq!(destination::<V4Options>(frame.as_slice()), Err(Reason::IpVersion), "{version}");
    }
    for version in (0..16).filter(|version| *version != 6) {
        let mut frame = Sample::tcp(true, 0x10, b"").frame();
        frame[14] = version << 4;
        assert_eq!(destination::<V6>(frame.as_slice()), Err(Reason::IpVersion), "{version}");
        assert_eq!(outline::<V6>(frame.as_slice()), None);
    }
}

#[test]
fn options_move_the_transport_header_only() {
    let plain = parse(&Sample::tcp(false, 0x10, b"abc").frame()).expect("it is sound");
    for words in 1..=10 {
        let mut sample = Sample::tcp(false, 0x10, b"abc");
        sample.options = vec![1; words * 4];
        let packet = parse(&sample.frame()).expect("it is sound");
        assert_eq!(packet.flow, plain.flow);
        assert_eq!(packet.transport, plain.transport + words * 4);
        assert_eq!(packet.length, plain.length + words as u16 * 4);
    }
}

fn has_source_route(frame: &[u8]) -> bool {
    let mut at = options::FIRST;
    for _ in 0..options::MOST {
        match options::step(frame, at) {
            options::Step::Next(next) => at = next,
            options::Step::End => return false,
            options::Step::SourceRoute => return true,
        }
    }
    false
}

#[test]
fn source_routes_are_found_wherever_they_stand() {
    let with = |options: &[u8]| {
        let mut sample = Sample::udp(false, b"payload");
        sample.options = options.to_vec();
        has_source_route(&sample.frame())
    };
    for kind in [131, 137] {
        assert!(with(&[kind, 7, 4, 10, 0, 0, 1, 0]));
        assert!(with(&[1, 1, 1, kind, 7, 4, 10, 0, 0, 1, 0, 0]));
        assert!(with(&[68, 8, 5, 0, 0, 0, 0, 0, kind, 7, 4, 1, 2, 3, 4, 0]), "behind a timestamp");
        let mut last = vec![1; 39];
        last.push(kind);
        assert!(with(&last), "in the last byte");
        assert!(!with(&[0, kind, 7, 4]), "behind the end of the list");
        assert!(!with(&[7, 4, kind, kind]), "as data of another option");
        assert!(!with(&[7, 0, kind, 7]), "behind an option without a length");
        assert!(!with(&[7, 255, kind, 7]), "behind an option that is too long");
    }
    assert!(!with(&[1; 40]));
    assert!(!with(&[]));
    // A header that claims more options than there is frame.
    let mut frame = Sample::udp(false, b"").frame();
    frame[14] = 0x4f;
    frame.truncate(34);
    assert!(!has_source_route(&frame));
    assert!(!has_source_route(&frame[..20]));
}

#[test]
fn fragments_have_no_ports() {
    for (first, second, is_fragment) in [
        (0x20, 0x00, true),
        (0x00, 0x01, true),
        (0x1f, 0xff, true),
        (0x60, 0x00, true),
        (0x80, 0x00, false),
        (0xc0, 0x00, false),
    ] {
        let mut frame = Sample::udp(false, b"12345678").frame();
        frame[20..22].copy_from_slice(&[first, second]);
        if is_fragment {
            assert_eq!(parse(&frame), Err(Reason::FragmentDropped), "{first:#x} {second:#x}");
        } else {
            assert!(parse(&frame).is_ok(), "{first:#x} {second:#x}");
        }
    }
}

#[test]
fn extension_headers_are_not_ports() {
    for (next, reason) in [
        (0, Reason::ExtensionHeader),
        (43, Reason::ExtensionHeader),
        (44, Reason::FragmentDropped),
        (51, Reason::ExtensionHeader),
        (60, Reason::ExtensionHeader),
    ] {
        let frame =
            Sample::new(true, next, vec![17, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], None).frame();
        assert_eq!(parse(&frame), Err(reason), "next header {next}");
    }
}

#[test]
fn tcp_offsets_and_flags() {
    for is_v6 in [false, true] {
        for words in 0..16usize {
            let mut sample = Sample::tcp(is_v6, 0x10, &[0; 12]);
            sample.transport[12] = (words as u8) << 4;
            let result = parse(&sample.frame());
            match words {
                5..=8 => assert!(result.is_ok(), "{words} words"),
                _ => assert_eq!(result, Err(Reason::TcpOffset), "{words} words"),
            }
        }
        for flags in 0..=255u8 {
            let result = parse(&Sample::tcp(is_v6, flags, b"").frame());
            let none = flags & 0x3f == 0;
            let contradiction = flags & 2 != 0 && flags & 5 != 0;
            if none || contradiction {
                assert_eq!(result, Err(Reason::TcpFlags), "flags {flags:#x}");
            } else {
                assert_eq!(result.map(|packet| packet.flags), Ok(flags));
            }
        }
    }
}

#[test]
fn udp_lengths_and_checksums() {
    for is_v6 in [false, true] {
        for length in 0..=20u16 {
            let mut sample = Sample::udp(is_v6, b"12345678");
            sample.transport[4..6].copy_from_slice(&length.to_be_bytes());
            let result = parse(&sample.frame());
            match length {
                8..=16 => assert!(result.is_ok(), "length {length}"),
                _ => assert_eq!(result, Err(Reason::UdpLength), "length {length}"),
            }
        }
        let mut sample = Sample::udp(is_v6, b"no checksum");
        sample.checksum = None;
        match is_v6 {
            true => assert_eq!(parse(&sample.frame()), Err(Reason::UdpNoChecksum)),
            false => assert!(parse(&sample.frame()).is_ok()),
        }
    }
}

#[test]
fn port_zero_is_nobody() {
    for is_v6 in [false, true] {
        let mut sample = Sample::udp(is_v6, b"");
        sample.transport[..2].fill(0);
        assert_eq!(parse(&sample.frame()), Err(Reason::PortZero));
    }
}

#[test]
fn martians() {
    let vip = address("198.51.100.80");
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.51.100.80",
    ] {
        assert!(is_martian(&address(source), &vip), "{source}");
    }
    for source in
        ["1.0.0.1", "10.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255", "198.51.100.81"]
    {
        assert!(!is_martian(&address(source), &vip), "{source}");
    }
    let vip = address("2001:db8:f::80");
    let mapped = Address::v6(address("10.0.0.1").words);
    assert!(is_martian(&mapped, &vip), "::ffff:10.0.0.1");
    for source in ["::", "::1", "ff02::1", "ffff::1", "fe80::1", "febf::1", "2001:db8:f::80"] {
        assert!(is_martian(&address(source), &vip), "{source}");
    }
    for source in ["::2", "2001:db8::1", "fd00::1", "fec0::1", "2002::1", "::1:0:0:0", "64:ff9b::1"]
    {
        assert!(!is_martian(&address(source), &vip), "{source}");
    }
    assert!(!is_martian(&address("fe80::1"), &address("fe80::2")), "link-local among themselves");

    let mut sample = Sample::udp(false, b"");
    sample.source = "127.0.0.1";
    let frame = sample.frame();
    assert_eq!(parse(&frame), Err(Reason::Martian));
    let outline = outline::<V4>(frame.as_slice()).expect("it has ports");
    assert!(examine_reply::<V4>(frame.as_slice(), &outline).is_ok(), "a reply's source is known");
}

#[test]
fn carriers_of_other_protocols() {
    for (is_v6, protocol) in [(false, 50), (false, 132), (true, 59), (true, 132)] {
        let frame = Sample::new(is_v6, protocol, vec![0; 8], None).frame();
        let carrier = if is_v6 {
            examine_any::<V6>(frame.as_slice())
        } else {
            examine_any::<V4>(frame.as_slice())
        };
        let carrier = carrier.expect("it is sound");
        assert_eq!(carrier.protocol, protocol);
        assert_eq!(carrier.transport, if is_v6 { 54 } else { 34 });
    }
    for is_v6 in [false, true] {
        let frame = Sample::echo(is_v6, b"").frame();
        for length in 1..8 {
            let header = if is_v6 { 40 } else { 20 };
            let mut frame = frame.clone();
            set_length(&mut frame, header + length);
            let result = match is_v6 {
                true => examine_any::<V6>(frame.as_slice()),
                false => examine_any::<V4>(frame.as_slice()),
            };
            assert_eq!(result, Err(Reason::L4Truncated), "ICMP of {length} bytes");
        }
    }
}

mod never_panics {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 14..120), head in 0..3u8) {
            let mut bytes = bytes;
            // Steer to the three shapes; random bytes alone would rarely get past the version.
            if bytes.len() > 14 {
                bytes[14] = match head { 0 => 0x45, 1 => 0x40 | (bytes[14] & 15), _ => 0x60 };
            }
            if bytes.len() > 23 {
                bytes[if head == 2 { 20 } else { 23 }] = if bytes[22] & 1 == 0 { 6 } else { 17 };
            }
            let frame = bytes.as_slice();
            let results = [
                outline::<V4>(frame).map(|outline| examine::<V4>(frame, &outline)),
                outline::<V4Options>(frame).map(|outline| examine::<V4Options>(frame, &outline)),
                outline::<V6>(frame).map(|outline| examine::<V6>(frame, &outline)),
            ];
            for packet in results.into_iter().flatten().flatten() {
                // What passed lies within the frame.
                prop_assert!(packet.length as usize + 14 <= frame.len());
                let minimum = if packet.flow.protocol == 6 { 20 } else { 8 };
                prop_assert!(packet.transport + minimum <= packet.length as usize + 14);
            }
            let _ = (examine_any::<V4>(frame), examine_any::<V4Options>(frame), examine_any::<V6>(frame));
            let _ = has_source_route(frame);
        }
    }
}
