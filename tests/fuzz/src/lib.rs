//! What has to hold for any frame, of the pure functions that the packet path is made of. Each function is the body of a
//! fuzz target, and panics where something does not hold. A frame's first fourteen bytes are its Ethernet header.

use lb_common::{
    abi::{Address, FlowKey},
    be::Be16,
    encap, fragment as fragments,
    frame::{Ethernet, Frame as _, Tcp},
    icmp::{self, Error, sum_of_frame},
    ip::IpHeader,
    parse::{self, Family, NETWORK, Packet, V4, V4Options, V6, options},
    quic as datagrams, quote as quotes,
    rewrite::{End, translate, translate_error},
    tcp_reset,
};
use lb_model::bytes::{checksum, pseudo_header, sum};

/// Runs a function for the family that the packet path would choose.
macro_rules! by_family {
    ($frame:expr, $function:ident) => {
        match ($frame.get(12..14), $frame.get(14)) {
            (Some([0x08, 0x00]), Some(0x45)) => $function::<V4>($frame),
            (Some([0x08, 0x00]), _) => $function::<V4Options>($frame),
            (Some([0x86, 0xdd]), _) => $function::<V6>($frame),
            _ => {}
        }
    };
}

/// What is taken for a packet lies within its frame, and is read from where it says.
pub fn parse(frame: &[u8]) {
    by_family!(frame, parse_as);
}

fn parse_as<F: Family>(frame: &[u8]) {
    if let Some(outline) = parse::outline::<F>(frame) {
        let ports = &frame[outline.transport..outline.transport + 4];
        assert_eq!(outline.flow.source_port.to_host(), u16::from_be_bytes([ports[0], ports[1]]));
        assert_eq!(
            outline.flow.destination_port.to_host(),
            u16::from_be_bytes([ports[2], ports[3]])
        );
        if let Ok(packet) = parse::examine::<F>(frame, &outline) {
            let least = if packet.flow.protocol == 6 { 20 } else { 8 };
            assert!(packet.transport + least <= NETWORK + usize::from(packet.length));
            assert!(NETWORK + usize::from(packet.length) <= frame.len());
            assert_ne!(packet.flow.source_port.to_host(), 0);
            assert!(!parse::is_martian(&packet.flow.source, &packet.flow.destination));
            assert_eq!(parse::examine_reply::<F>(frame, &outline), Ok(packet));
        }
    }
    if let Ok(carrier) = parse::examine_any::<F>(frame) {
        assert!(carrier.transport <= NETWORK + usize::from(carrier.length));
        assert!(NETWORK + usize::from(carrier.length) <= frame.len());
    }
    walk(frame);
}

/// A walk over options ends, and goes on only within the header.
fn walk(frame: &[u8]) {
    let mut at = options::FIRST;
    for _ in 0..options::MOST {
        match options::step(frame, at) {
            options::Step::Next(next) => {
                assert!(next > at && at < 60, "from {at} to {next}");
                at = next;
            }
            options::Step::End | options::Step::SourceRoute => return,
        }
    }
    assert!(at >= 60, "after {} steps at {at}", options::MOST);
}

/// A packet there and back again is what it was, with two hops less; its checksums are right if they were, and as wrong
/// as they were if not.
pub fn rewrite(frame: &[u8]) {
    by_family!(frame, rewrite_as);
}

fn rewrite_as<F: Family>(frame: &[u8]) {
    let Some(outline) = parse::outline::<F>(frame) else { return };
    let Ok(packet) = parse::examine_reply::<F>(frame, &outline) else { return };
    if packet.hop_limit < 3 {
        return;
    }
    let (address, port) = elsewhere(&packet.flow.source);
    for end in [End::Source, End::Destination] {
        let mut there = frame.to_vec();
        translate::<F>(&mut there[..], &packet, end, &address, port).expect("it was examined");
        assert_eq!(transport_error(frame, &packet), transport_error(&there, &packet), "{end:?}");
        assert_eq!(header_error::<F>(frame), header_error::<F>(&there), "{end:?}");
        let moved = parse::outline::<F>(&there[..]).expect("still a packet");
        let moved = parse::examine_reply::<F>(&there[..], &moved).expect("still sound");
        assert_eq!((moved.hop_limit, moved.length), (packet.hop_limit - 1, packet.length));
        let (old, old_port) = match end {
            End::Source => (packet.flow.source, packet.flow.source_port),
            End::Destination => (packet.flow.destination, packet.flow.destination_port),
        };
        translate::<F>(&mut there[..], &moved, end, &old, old_port).expect("it was examined");
        let back = parse::outline::<F>(&there[..]).expect("still a packet");
        assert_eq!(back.flow, packet.flow);
        let checksum = packet.transport + if packet.flow.protocol == 6 { 16 } else { 6 };
        assert_eq!(there[checksum + 2..], frame[checksum + 2..], "what follows is nobody's");
    }
}

/// Another address of the same family, and a port.
fn elsewhere(like: &Address) -> (Address, Be16) {
    let text = if like.is_v4() { "10.255.254.253" } else { "fd01:2345:6789::fffe" };
    let address: std::net::IpAddr = text.parse().expect("an address");
    (address.into(), Be16::from_host(0xfffe))
}

/// How wrong the transport checksum is: 0 if it is right, or if there is none.
fn transport_error(frame: &[u8], packet: &Packet) -> u16 {
    let segment = &frame[packet.transport..NETWORK + usize::from(packet.length)];
    if packet.flow.protocol == 17 && segment[6..8] == [0, 0] {
        return 0;
    }
    let (source, destination) = match frame[12] {
        0x08 => (ip_at(&frame[26..30]), ip_at(&frame[30..34])),
        _ => (ip_at(&frame[22..38]), ip_at(&frame[38..54])),
    };
    let pseudo = pseudo_header(source, destination, packet.flow.protocol, segment.len());
    sum(&[&pseudo, segment]) % 0xffff
}

fn ip_at(bytes: &[u8]) -> std::net::IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => v4.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).expect("an address").into(),
    }
}

fn header_error<F: Family>(frame: &[u8]) -> u16 {
    if F::Header::IS_V6 { 0 } else { sum(&[&frame[NETWORK..NETWORK + 20]]) % 0xffff }
}

/// A quote that is read is the beginning of a TCP or UDP packet within the message, and its translation leaves the error's
/// checksum as right or wrong as it was.
pub fn quote(frame: &[u8]) {
    by_family!(frame, quote_as);
}

fn quote_as<F: Family>(frame: &[u8]) {
    let Ok(carrier) = parse::examine_any::<F>(frame) else { return };
    if carrier.protocol != F::Header::ICMP {
        return;
    }
    let end = NETWORK + usize::from(carrier.length);
    let Some(quote) = quotes::read::<F::Header>(frame, carrier.transport, end) else { return };
    assert!(quote.network == carrier.transport + 8 && quote.transport + 8 <= end);
    let hops = if F::Header::IS_V6 { frame[NETWORK + 7] } else { frame[NETWORK + 8] };
    if hops < 2 {
        return;
    }
    let (address, port) = elsewhere(&quote.flow.source);
    for way in [End::Source, End::Destination] {
        let mut there = frame.to_vec();
        translate_error::<F>(&mut there[..], &quote, way, &address, port).expect("it was read");
        let again = quotes::read::<F::Header>(&there[..], quote.icmp, end).expect("still a quote");
        let (kept, moved) = match way {
            End::Source => (again.flow.source == quote.flow.source, again.flow.destination),
            End::Destination => {
                (again.flow.destination == quote.flow.destination, again.flow.source)
            }
        };
        assert!(kept && moved == address, "{way:?}");
        let error = |frame: &[u8]| message_error::<F>(frame, carrier.transport, end);
        assert_eq!(error(frame), error(&there), "{way:?}");
        assert_eq!(header_error::<F>(frame), header_error::<F>(&there), "{way:?}");
    }
}

fn message_error<F: Family>(frame: &[u8], at: usize, end: usize) -> u16 {
    let message = &frame[at..end];
    let pseudo = if F::Header::IS_V6 {
        pseudo_header(ip_at(&frame[22..38]), ip_at(&frame[38..54]), 58, message.len())
    } else {
        Vec::new()
    };
    sum(&[&pseudo, message]) % 0xffff
}

/// A fragment that is read has data, within its frame and within the longest packet.
pub fn fragment(frame: &[u8]) {
    by_family!(frame, fragment_as);
}

fn fragment_as<F: Family>(frame: &[u8]) {
    let Ok(fragment) = fragments::read::<F>(frame) else { return };
    let end = NETWORK + usize::from(fragment.length);
    assert!(fragment.transport < end && end <= frame.len(), "{fragment:?}");
    assert!(fragment.offset % 8 == 0);
    assert!(usize::from(fragment.offset) + (end - fragment.transport) <= 0xffff, "{fragment:?}");
    if fragment.more {
        assert_eq!((end - fragment.transport) % 8, 0, "{fragment:?}");
    }
    if let Ok(FlowKey { protocol, source_port, .. }) = fragments::flow::<F>(frame, &fragment) {
        let least = if protocol == 6 { 20 } else { 8 };
        assert!(end - fragment.transport >= least && source_port.to_host() != 0, "{fragment:?}");
    }
}

/// A connection id lies within its datagram; what follows that in the frame changes nothing.
pub fn quic(frame: &[u8]) {
    by_family!(frame, quic_as);
}

fn quic_as<F: Family>(frame: &[u8]) {
    let Some(outline) = parse::outline::<F>(frame) else { return };
    if outline.flow.protocol != 17 || parse::examine_reply::<F>(frame, &outline).is_err() {
        return;
    }
    let udp = outline.transport;
    let end = udp + usize::from(u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]));
    let header = datagrams::Header::read(frame, udp);
    let id = usize::from(header.id);
    assert_eq!(id == 0, header.length == 0, "{header:?}");
    assert!(id == 0 || id > udp + 8 && id + usize::from(header.length) <= end, "{header:?}");
    assert!(!(header.opens && id != 0), "{header:?}");
    let mut padded = frame[..end].to_vec();
    padded.extend([0x5a; 64]);
    assert_eq!(datagrams::Header::read(&padded[..], udp), header);
}

/// Whatever lb says itself has right checksums, and says how long it is.
pub fn answer(frame: &[u8]) {
    by_family!(frame, answer_as);
}

fn answer_as<F: Family>(frame: &[u8]) {
    let Some(outline) = parse::outline::<F>(frame) else { return };
    let Ok(packet) = parse::examine_reply::<F>(frame, &outline) else { return };
    let ethernet = *frame.view::<Ethernet>(0).expect("it has one");
    let header = *frame.view::<F::Header>(NETWORK).expect("it has one");
    if packet.flow.protocol == 6 {
        let tcp = *frame.view::<Tcp>(packet.transport).expect("it has one");
        let payload = tcp_reset::payload_length(&tcp, packet.transport, packet.length);
        let reset: Option<tcp_reset::Segment<F::Header>> =
            tcp_reset::reset(&ethernet, &packet.flow, packet.traffic_class, &tcp, payload);
        if let Some(reset) = reset {
            let mut bytes = vec![0; size_of_val(&reset)];
            *bytes[..].view_mut(0).expect("as long") = reset;
            let at = bytes.len() - 20;
            let (from, to) = (&packet.flow.destination, &packet.flow.source);
            let pseudo = pseudo_header((*from).into(), (*to).into(), 6, 20);
            assert_eq!(checksum(&[&pseudo, &bytes[at..]]), 0, "{bytes:?}");
            assert_eq!(header_error::<F>(&bytes), 0, "{bytes:?}");
        }
    }
    let quoted = icmp::quoted_length(F::Header::IS_V6, packet.length);
    let quote = &frame[NETWORK..NETWORK + usize::from(quoted)];
    let summed = sum_of_frame(frame, NETWORK, usize::from(quoted)).expect("it is within the frame");
    assert_eq!(summed.checksum(), u16::from_ne_bytes(checksum(&[quote]).to_be_bytes()));
    for error in [Error::TIME_EXCEEDED, Error::too_big(1_400), Error::PORT_UNREACHABLE] {
        let from = packet.flow.destination;
        let front = icmp::error_headers(&ethernet, &header, &from, error, summed, quoted);
        let mut bytes = vec![0; size_of_val(&front)];
        *bytes[..].view_mut(0).expect("as long") = front;
        bytes.extend(quote);
        let at = size_of_val(&front) - 8;
        let end = bytes.len();
        assert_eq!(message_error::<F>(&bytes, at, end), 0, "{error:?}: {bytes:?}");
        assert_eq!(header_error::<F>(&bytes), 0, "{error:?}: {bytes:?}");
    }
    outer(&packet, F::Header::IS_V6);
}

/// The outer header of a tunnel.
fn outer(packet: &Packet, inner_is_v6: bool) {
    let v4 = |last| Address::from(std::net::IpAddr::from([10, 255, 254, last]));
    let (source, destination) = (v4(1), v4(2));
    let begun = encap::outer_sum(&source, &destination);
    let (class, length) = (packet.traffic_class, packet.length);
    let outer = encap::outer_v4(&source, &destination, inner_is_v6, class, length, begun);
    let mut bytes = [0; 20];
    *bytes[..].view_mut(0).expect("as long") = outer;
    assert_eq!(checksum(&[&bytes]), 0, "{bytes:?}");
}

/// Name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("parse", parse),
    ("rewrite", rewrite),
    ("quote", quote),
    ("fragment", fragment),
    ("quic", quic),
    ("answer", answer),
];
