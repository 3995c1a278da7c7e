//! Packets that are broken, hostile or not for us. The numbers in names are those of the catalogue of packet cases.

use lb_common::abi::{Forward, Reason};
use lb_tests::kernel::{
    Kernel, World, action,
    bytes::{
        IP, consistent_cut, cut, header, is_v4, patched, patched_v4, tagged, with_extension,
        with_header_checksum, with_length,
    },
    case::{Case, check, expected_frame},
    packet::{Packet, Transport, flag},
    world::{Service, ip},
};

const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";

/// TCP and UDP over nat, IPv4 and IPv6, one backend each: services 1 to 4.
fn world() -> World {
    let v4 = Service::new(VIP_V4, Forward::Nat, &["10.1.0.1"]);
    let v6 = Service::new(VIP_V6, Forward::Nat, &["fd01::1"]);
    World::of([v4.clone(), v4.port(53).udp(), v6.clone(), v6.port(53).udp()])
}

/// The same with dsr and tunnels: what is dropped does not depend on the mode.
fn worlds() -> Vec<World> {
    let of = |forward| {
        let mut world = world();
        world.services.iter_mut().for_each(|service| service.forward = forward);
        world
    };
    vec![world(), of(Forward::Dsr), of(Forward::Ipip)]
}

fn enter() -> (std::sync::MutexGuard<'static, Kernel>, World) {
    let mut kernel = Kernel::shared();
    kernel.enter(world());
    (kernel, world())
}

fn tcp_v4() -> Packet {
    Packet::tcp("192.0.2.33@40001", "198.51.100.7@80", flag::ACK).filled(20)
}
fn tcp_v6() -> Packet {
    Packet::tcp("2001:db8:c::33@40001", "2001:db8:5::7@80", flag::ACK).filled(20)
}
fn udp_v4() -> Packet {
    Packet::udp("192.0.2.33@40001", "198.51.100.7@53").filled(20)
}
fn udp_v6() -> Packet {
    Packet::udp("2001:db8:c::33@40001", "2001:db8:5::7@53").filled(20)
}
fn echo_v4() -> Packet {
    Packet::echo("192.0.2.33", VIP_V4)
}
fn echo_v6() -> Packet {
    Packet::echo("2001:db8:c::33", VIP_V6)
}

/// Each packet with the number of its service.
fn all() -> [(Packet, u32); 4] {
    [(tcp_v4(), 1), (udp_v4(), 2), (tcp_v6(), 3), (udp_v6(), 4)]
}

#[test]
fn truncated_frames() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        for (packet, _) in all() {
            let frame = packet.bytes();
            let transport = IP + header(&frame);
            for length in IP..transport {
                // B01 to B03
                let case = Case::drops_somewhere(
                    format!("B01-B03: header cut to {length}"),
                    cut(&frame, length),
                    Reason::L3Truncated,
                );
                cases.push(case);
            }
            for length in transport..frame.len() {
                let name = format!("B04: frame cut to {length}");
                cases.push(Case::drops_somewhere(name, cut(&frame, length), Reason::L3Length));
            }
        }
        for (packet, minimum) in [
            (tcp_v4(), 20),
            (udp_v4(), 8),
            (tcp_v6(), 20),
            (udp_v6(), 8),
            (echo_v4(), 8),
            (echo_v6(), 8),
        ] {
            let frame = packet.bytes();
            // IPv6 with an empty payload is a jumbogram or nothing (B76).
            let first = if is_v4(&frame) { 0 } else { 1 };
            for length in first..minimum {
                let name = format!("B05: {:?} cut to {length}", packet.transport);
                let frame = consistent_cut(&frame, length);
                cases.push(Case::drops_somewhere(name, frame, Reason::L4Truncated));
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn what_is_not_ip_or_not_for_us_passes_untouched() {
    let (mut kernel, _) = enter();
    let mut cases = Vec::new();
    for (packet, _) in all() {
        let frame = packet.bytes();
        for tags in [
            vec![[0x81, 0, 0, 5]],
            vec![[0x81, 0, 0, 0]],
            vec![[0x88, 0xa8, 0, 7], [0x81, 0, 0, 5]],
        ] {
            cases.push(Case::passes(format!("B07: {tags:?}"), tagged(&frame, &tags)));
        }
        for kind in [[0x08, 0x06], [0x88, 0xcc], [0x00, 0x2e], [0x12, 0x34], [0x88, 0x47]] {
            cases.push(Case::passes(format!("B08: {kind:x?}"), patched(&frame, 12, &kind)));
        }
        for to in [[0xff; 6], [0x01, 0, 0x5e, 1, 2, 3], [0x33, 0x33, 0, 0, 0, 1]] {
            cases.push(Case::passes(format!("B09: to group {to:x?}"), patched(&frame, 0, &to)));
        }
    }
    let others = [
        Packet::tcp("192.0.2.33@40001", "198.51.100.8@80", flag::SYN),
        Packet::udp("192.0.2.33@40001", "198.51.100.8@53"),
        Packet::tcp("2001:db8:c::33@40001", "2001:db8:5::8@80", flag::SYN),
        Packet::udp("2001:db8:c::33@40001", "2001:db8:5::8@53"),
        // B57: the subnet's broadcast and network addresses.
        Packet::udp("192.0.2.33@40001", "198.51.100.255@53"),
        Packet::udp("192.0.2.33@40001", "198.51.100.0@53"),
        // B60, B88
        Packet::echo("192.0.2.33", "198.51.100.8"),
        Packet::echo("2001:db8:c::33", "2001:db8:5::8"),
        Packet::echo("fe80::33", "ff02::1"),
    ];
    for packet in others {
        for hop_limit in [0, 1, 2, 255] {
            let frame = packet.clone().ip(|ip| ip.hop_limit = hop_limit).bytes();
            cases.push(Case::passes(format!("{:?}, {hop_limit} hops", packet.ip), frame));
        }
        let frame = packet.bytes();
        for length in IP + header(&frame)..frame.len() {
            cases.push(Case::passes(
                format!("{:?} cut to {length}", packet.ip),
                cut(&frame, length),
            ));
        }
        if is_v4(&frame) {
            for fragment in [[0x20, 0], [0, 1], [0x20, 7], [0x3f, 0xff]] {
                let name = format!("fragment {fragment:x?} of {:?}", packet.ip);
                cases.push(Case::passes(name, patched_v4(&frame, 6, &fragment)));
            }
            let source_route = packet.clone().ip(|ip| ip.options = vec![131, 3, 4, 0]);
            cases.push(Case::passes("source route to another", source_route.bytes()));
        } else {
            for kind in [0, 43, 44, 60, 51] {
                let name = format!("extension {kind} of {:?}", packet.ip);
                cases.push(Case::passes(name, with_extension(&frame, kind, &[0; 6])));
            }
        }
    }
    // B90, B91: any protocol, to another address.
    for protocol in 0..=255 {
        for (source, destination) in
            [("192.0.2.33", "198.51.100.8"), ("2001:db8:c::33", "2001:db8:5::8")]
        {
            let packet = Packet::new(source, destination, Transport::Other(protocol)).filled(64);
            cases.push(Case::passes(format!("protocol {protocol}"), packet.bytes()));
        }
    }
    check(&mut kernel, &cases);
}

#[test]
fn broken_ipv4_headers() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        for packet in [tcp_v4(), udp_v4(), echo_v4()] {
            let frame = packet.bytes();
            let total = frame.len() - IP;
            for version in [0, 1, 5, 6, 7, 15] {
                let frame = patched_v4(&frame, 0, &[version << 4 | 5]);
                let name = format!("B11: version {version}");
                cases.push(Case::drops_somewhere(name, frame, Reason::IpVersion));
            }
            for words in 0..5 {
                let frame = patched_v4(&frame, 0, &[0x40 | words]);
                let name = format!("B12: header of {words} words");
                cases.push(Case::drops_somewhere(name, frame, Reason::IpHeaderLength));
            }
            for length in [0, 1, 19, total + 1, total + 1000, 0xffff] {
                let name = format!("B14: length {length}");
                let frame = with_length(&frame, length);
                cases.push(Case::drops_somewhere(name, frame, Reason::L3Length));
            }
            let minimum = if matches!(packet.transport, Transport::Tcp(_)) { 20 } else { 8 };
            for length in 20..20 + minimum {
                let name = format!("B15: length {length}");
                let frame = with_length(&frame, length);
                cases.push(Case::drops_somewhere(name, frame, Reason::L4Truncated));
            }
        }
        let short = tcp_v4().filled(0).bytes();
        let frame = patched_v4(&short, 0, &[0x4f]);
        cases.push(Case::drops_somewhere(
            "B13: header beyond the packet",
            frame,
            Reason::IpHeaderLength,
        ));
        let padded = tcp_v4().filled(0).trailer(&[0; 60]).bytes();
        let frame = patched_v4(&padded, 0, &[0x4f]);
        cases.push(Case::drops_somewhere("B13: in a longer frame", frame, Reason::IpHeaderLength));
        let with_options = tcp_v4().ip(|ip| ip.options = vec![1; 20]).bytes();
        let frame = with_header_checksum(&with_length(&with_options, 30));
        cases.push(Case::drops_somewhere(
            "B14: length within the options",
            frame,
            Reason::IpHeaderLength,
        ));
        check(&mut kernel, &cases);
    }
}

#[test]
fn a_wrong_header_checksum_is_not_repaired() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world.clone());
        for (packet, service) in [(tcp_v4(), 1), (udp_v4(), 2)] {
            // B16
            let frame = packet.bytes();
            for bit in 0..16 {
                let mut broken = frame.clone();
                broken[IP + 10 + bit / 8] ^= 1 << (bit % 8);
                let outcome = kernel.run(&broken);
                if outcome.action == action::DROP {
                    continue;
                }
                assert_eq!(outcome.action, action::TX, "bit {bit}");
                let right = expected_frame(&world, &packet, service, 0);
                let inner = right.len() - frame.len() + IP;
                let repaired =
                    outcome.frame[inner + 10..inner + 12] == right[inner + 10..inner + 12];
                assert!(!repaired, "bit {bit}: {outcome:?}");
            }
        }
    }
}

#[test]
fn reserved_bits_are_kept() {
    let (kernel, world) = enter();
    let packet = tcp_v4();
    let frame = packet.bytes();
    // B21: the reserved flag; with and without DF.
    for flags in [0x80, 0xc0] {
        let evil = patched_v4(&frame, 6, &[flags, 0]);
        let expected = patched_v4(&expected_frame(&world, &packet, 1, 0), 6, &[flags, 0]);
        let outcome = kernel.run(&evil);
        assert_eq!((outcome.action, outcome.frame), (action::TX, expected), "{flags:#x}");
    }
}

#[test]
fn broken_tcp_headers() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        for (packet, service) in [(tcp_v4().filled(8), 1), (tcp_v6().filled(8), 3)] {
            let frame = packet.bytes();
            let tcp = IP + header(&frame);
            for words in (0..5).chain(8..16u8) {
                // B33: the segment has 28 bytes, 7 words.
                let frame = patched(&frame, tcp + 12, &[words << 4]);
                let name = format!("B33: offset {words}");
                cases.push(Case::drops(name, frame, service, Reason::TcpOffset));
            }
            for flags in [0, 0x03, 0x06, 0x07, 0x13, 0x16, 0x3f, 0xff, 0xc0] {
                // B34
                let frame = patched(&frame, tcp + 13, &[flags]);
                let name = format!("B34: flags {flags:#04x}");
                cases.push(Case::drops(name, frame, service, Reason::TcpFlags));
            }
            // B38
            let frame = patched(&frame, tcp, &[0, 0]);
            cases.push(Case::drops("B38: source port 0", frame, service, Reason::PortZero));
        }
        for packet in [tcp_v4(), udp_v4(), tcp_v6(), udp_v6()] {
            let frame = packet.bytes();
            let frame = patched(&frame, IP + header(&frame) + 2, &[0, 0]);
            cases.push(Case::drops("B38: destination port 0", frame, 0, Reason::NoService));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn broken_udp_headers() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        for (packet, service) in [(udp_v4(), 2), (udp_v6(), 4)] {
            let frame = packet.bytes();
            let udp = IP + header(&frame);
            for length in (0..8u16).chain([29, 30, 1000, 0xffff]) {
                // B44: the datagram has 28 bytes.
                let frame = patched(&frame, udp + 4, &length.to_be_bytes());
                let name = format!("B44: length {length}");
                cases.push(Case::drops(name, frame, service, Reason::UdpLength));
            }
            let frame = patched(&frame, udp, &[0, 0]);
            cases.push(Case::drops("B38: source port 0", frame, service, Reason::PortZero));
        }
        let frame = udp_v6().bytes();
        let frame = patched(&frame, IP + 40 + 6, &[0, 0]);
        cases.push(Case::drops("B42: no checksum", frame, 4, Reason::UdpNoChecksum));
        check(&mut kernel, &cases);
    }
}

#[test]
fn bytes_between_the_datagram_and_the_packets_end_are_kept() {
    let (kernel, world) = enter();
    for (packet, service) in [(udp_v4(), 2), (udp_v6(), 4)] {
        // B44: the UDP length is less than the IP payload.
        let longer = |frame: Vec<u8>| {
            let frame = [frame, vec![0xee; 4]].concat();
            let length = frame.len() - IP;
            with_length(&frame, length)
        };
        let expected = longer(expected_frame(&world, &packet, service, 0));
        let outcome = kernel.run(&longer(packet.bytes()));
        assert_eq!(outcome.action, action::TX);
        assert_eq!(outcome.frame, expected, "{outcome:?}");
    }
}

#[test]
fn sources_that_nobody_has() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        let v4 = [
            VIP_V4,
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ];
        let v6 = [
            VIP_V6,
            "::",
            "::1",
            "ff02::1",
            "ff0e::1",
            "::ffff:192.0.2.1",
            "::ffff:10.1.0.1",
            "fe80::1",
            "febf:ffff::1",
        ];
        for (sources, packets) in
            [(&v4, [(tcp_v4(), 1), (udp_v4(), 2)]), (&v6, [(tcp_v6(), 3), (udp_v6(), 4)])]
        {
            for source in sources {
                for (packet, service) in &packets {
                    // B52 to B54, B89
                    let frame = packet.clone().ip(|header| header.source = ip(source)).bytes();
                    let name = format!("B52-B54, B89: {source}");
                    cases.push(Case::drops(name, frame, *service, Reason::Martian));
                }
            }
        }
        // B52: not only the address but the port is the VIP's (LAND).
        for (packet, service) in all() {
            let frame = packet.clone().sourced(packet.ip.destination, packet.port()).bytes();
            cases.push(Case::drops("B52: LAND", frame, service, Reason::Martian));
        }
        for source in v4 {
            let frame = echo_v4().ip(|header| header.source = ip(source)).bytes();
            cases.push(Case::drops_somewhere(format!("B61: {source}"), frame, Reason::Martian));
        }
        for source in v6.into_iter().filter(|source| !source.starts_with("fe")) {
            let frame = echo_v6().ip(|header| header.source = ip(source)).bytes();
            cases.push(Case::drops_somewhere(format!("B61: {source}"), frame, Reason::Martian));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn unusual_sources_that_somebody_has() {
    let (mut kernel, world) = enter();
    let mut cases = Vec::new();
    for source in
        ["1.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255", "10.1.0.1", "169.254.3.4"]
    {
        // B55: a backend (10.1.0.1) may be a client, too.
        let packet = tcp_v4().ip(|header| header.source = ip(source));
        cases.push(Case::forwards(source, &world, &packet, 1, 0));
    }
    for source in
        ["2002:c000:221::1", "2001::1", "64:ff9b::c000:221", "fd01::1", "fec0::1", "::2:0:0:1"]
    {
        // B89: 6to4, Teredo, NAT64.
        let packet = tcp_v6().ip(|header| header.source = ip(source));
        cases.push(Case::forwards(source, &world, &packet, 3, 0));
    }
    check(&mut kernel, &cases);
}

#[test]
fn a_mapped_address_on_the_wire_is_not_the_ipv4_service() {
    let (mut kernel, _) = enter();
    for source in ["2001:db8:c::c000:221", "::ffff:192.0.2.33", "2001:db8:c::33"] {
        for destination in ["::ffff:198.51.100.7@80", "::ffff:198.51.100.7@9"] {
            let packet = Packet::tcp(&format!("{source}@40001"), destination, flag::SYN);
            let frame = packet.bytes();
            let (outcome, delta) = kernel.count(&frame);
            let untouched = outcome.action == action::PASS && outcome.frame == frame;
            assert!(
                untouched || outcome.action == action::DROP,
                "{source} to {destination}: {outcome:?}, {delta:?}"
            );
            assert_eq!(delta.forwarded(), 0, "{delta:?}");
        }
        let echo = Packet::echo(source, "::ffff:198.51.100.7").bytes();
        let outcome = kernel.run(&echo);
        assert_ne!(outcome.action, action::TX, "{outcome:?}");
    }
}

#[test]
fn broken_ipv6_headers() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        for packet in [tcp_v6(), udp_v6(), echo_v6()] {
            let frame = packet.bytes();
            let payload = frame.len() - IP - 40;
            for version in [0, 4, 5, 7, 15] {
                let name = format!("B75: version {version}");
                let frame = patched(&frame, IP, &[version << 4]);
                cases.push(Case::drops_somewhere(name, frame, Reason::IpVersion));
            }
            for length in [payload + 1, payload + 1000, 0xffff, 0] {
                let frame = patched(&frame, IP + 4, &(length as u16).to_be_bytes());
                let name = format!("B76: payload length {length}");
                cases.push(Case::drops_somewhere(name, frame, Reason::L3Length));
            }
            let minimum = if matches!(packet.transport, Transport::Tcp(_)) { 20 } else { 8 };
            for length in 1..minimum {
                let frame = patched(&frame, IP + 4, &(length as u16).to_be_bytes());
                let name = format!("B76: payload length {length}");
                cases.push(Case::drops_somewhere(name, frame, Reason::L4Truncated));
            }
        }
        // B75: an IPv4 packet under IPv6's EtherType.
        let v4 = patched(&tcp_v4().filled(60).bytes(), 12, &[0x86, 0xdd]);
        cases.push(Case::drops_somewhere("B75: IPv4", v4, Reason::IpVersion));
        check(&mut kernel, &cases);
    }
}

#[test]
fn extension_headers_that_are_not_passed_over_are_dropped() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        for packet in [tcp_v6(), udp_v6(), echo_v6()] {
            let frame = packet.bytes();
            for (kind, body) in [
                (0, vec![0xc2, 4, 0, 1, 0, 0]), // B84: jumbo payload
                (60, vec![1; 200]),             // B79: too long
                (43, vec![0, 0, 0, 0, 0, 0]),   // B78: RH0
                (43, vec![2, 1, 0, 0, 0, 0]),   // on its way to somebody else
                (43, vec![4, 1, 0, 0, 0, 0]),
                (51, vec![0; 22]), // B80
            ] {
                let name = format!("B78, B80, B84: {kind}, {body:?}");
                let once = with_extension(&frame, kind, &body);
                for (name, frame) in [
                    (format!("B79: {name}"), with_extension(&once, 60, &[0; 6])),
                    (format!("cut {name}"), consistent_cut(&once, 8)),
                    (name, once),
                ] {
                    cases.push(Case::drops_somewhere(name, frame, Reason::ExtensionHeader));
                }
            }
            let chain = |count| {
                (0..count).fold(frame.clone(), |frame, _| with_extension(&frame, 60, &[0; 6]))
            };
            for count in [9, 10, 40] {
                let name = format!("B79: {count} headers");
                cases.push(Case::drops_somewhere(name, chain(count), Reason::ExtensionHeader));
            }
            let late = with_extension(&with_extension(&frame, 0, &[0; 6]), 60, &[0; 6]);
            cases.push(Case::drops_somewhere("hop-by-hop, second", late, Reason::ExtensionHeader));
            // B79: the chain ends with the frame, or with the packet.
            for length in 0..8 {
                let cut = consistent_cut(&with_extension(&frame, 60, &[0; 6]), length);
                let reason = match length {
                    0 => Reason::L3Length,
                    1..4 => Reason::ExtensionHeader,
                    _ => Reason::L4Truncated,
                };
                cases.push(Case::drops_somewhere(format!("cut to {length}"), cut, reason));
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn s08_other_protocols_to_a_vip_are_never_forwarded() {
    let mut kernel = Kernel::shared();
    for world in worlds() {
        kernel.enter(world);
        let mut cases = Vec::new();
        // An inner packet for a service: it must not come out of a tunnel (B90).
        for (source, destination, inner) in [
            ("192.0.2.33", VIP_V4, tcp_v4().ip_bytes()),
            ("2001:db8:c::33", VIP_V6, tcp_v6().ip_bytes()),
        ] {
            // ICMP, TCP, UDP and IPv6's extension headers have tests of their own.
            let is_v6 = destination == VIP_V6;
            let apart = |p: u8| {
                matches!(p, 6 | 17)
                    || if is_v6 { matches!(p, 0 | 43 | 44 | 51 | 58 | 60) } else { p == 1 }
            };
            for protocol in (0..=255).filter(|protocol| !apart(*protocol)) {
                let packet =
                    Packet::new(source, destination, Transport::Other(protocol)).payload(&inner);
                let name = format!("B83, B90, B91: protocol {protocol}");
                cases.push(Case::drops(name, packet.bytes(), 0, Reason::NoService));
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn icmp_to_a_vip() {
    let (mut kernel, _) = enter();
    let mut cases = Vec::new();
    let quoted = tcp_v4().ip_bytes();
    let icmp = |source, destination, kind, code| {
        let rest = [0, 0, 5, 0];
        Packet::new(source, destination, Transport::Icmp { kind, code, rest }).payload(&quoted)
    };
    // B62: replies, timestamps, redirects...
    for kind in [0, 9, 10, 13, 14, 15, 16, 17, 18, 30, 40, 42, 255] {
        let frame = icmp("192.0.2.33", VIP_V4, kind, 0).bytes();
        let expected = lb_tests::kernel::case::Expected::passed_as(&frame, Reason::NoServicePassed);
        cases.push(Case::new(format!("B62: type {kind}"), frame, expected));
    }
    // B85: neighbour discovery, multicast listeners, redirects; and what is new.
    for kind in [129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 143, 155, 200, 255] {
        let frame = icmp("2001:db8:c::33", VIP_V6, kind, 0).bytes();
        let expected = lb_tests::kernel::case::Expected::passed_as(&frame, Reason::NoServicePassed);
        cases.push(Case::new(format!("B85: type {kind}"), frame, expected));
    }
    // B67, B70: errors about nothing.
    for (kind, code) in [(3, 0), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)] {
        let frame = icmp("192.0.2.33", VIP_V4, kind, code).bytes();
        cases.push(Case::drops(format!("B67: {kind}/{code}"), frame, 0, Reason::IcmpErrorBad));
    }
    for (kind, code) in [(1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 2), (100, 0), (127, 0)]
    {
        let frame = icmp("2001:db8:c::33", VIP_V6, kind, code).bytes();
        cases.push(Case::drops(format!("B67: v6 {kind}/{code}"), frame, 0, Reason::IcmpErrorBad));
    }
    check(&mut kernel, &cases);
}
