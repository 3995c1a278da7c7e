//! `lb decap`'s program: what comes out of a tunnel, byte for byte, and what does not come out.

use std::net::IpAddr;

use lb_tests::kernel::{
    action,
    bytes::{IP, patched},
    decap::Decap,
    packet::{Packet, Transport, flag},
    world::ip,
};

const PORT: u16 = 6080;
const LOCAL: [&str; 2] = ["10.1.0.1", "fd01::1"];
const BALANCERS: [&str; 2] = ["10.0.0.9", "fd00::9"];

fn decap() -> Decap {
    let addresses = |texts: [&str; 2]| texts.map(ip);
    Decap::load(&addresses(LOCAL), &addresses(BALANCERS), PORT).expect("root, and a built object")
}

/// The ways into the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ipip,
    Gue,
    /// GUE's variant 1: no header of its own.
    GueDirect,
}

fn wrapped(inner: &Packet, way: Way, from: IpAddr, to: IpAddr) -> Packet {
    match way {
        Way::Ipip => inner.clone().tunnelled(from, to),
        Way::Gue => inner.clone().in_gue(from, to, PORT),
        Way::GueDirect => {
            let mut outer = inner.clone().in_gue(from, to, PORT);
            outer.payload.drain(..4);
            outer
        }
    }
}

fn inners() -> Vec<Packet> {
    let mut inners = Vec::new();
    for (client, vip) in
        [("192.0.2.1@1025", "198.51.100.7@80"), ("2001:db8:c::1@1025", "2001:db8:5::7@80")]
    {
        inners.push(Packet::tcp(client, vip, flag::SYN));
        inners.push(Packet::tcp(client, vip, flag::ACK).filled(1381));
        inners.push(Packet::udp(client, vip).ip(|ip| ip.class = 0xb8));
    }
    inners
}

/// Each way between both ends of each family.
fn each(mut what: impl FnMut(&Packet, Way, IpAddr, IpAddr)) {
    for inner in inners() {
        for way in [Way::Ipip, Way::Gue, Way::GueDirect] {
            for (from, to) in BALANCERS.into_iter().zip(LOCAL) {
                what(&inner, way, ip(from), ip(to));
            }
        }
    }
}

#[test]
fn what_a_balancer_has_wrapped_comes_out_as_it_was() {
    let mut decap = decap();
    each(|inner, way, from, to| {
        let frame = wrapped(inner, way, from, to).bytes();
        let (outcome, counts) = decap.count(&frame);
        let name = format!("{way:?} {from}: {outcome:?}");
        assert_eq!((outcome.action, counts), (action::PASS, [1, 0, 0]), "{name}");
        assert_eq!(outcome.frame, inner.bytes(), "{name}");
    });
}

#[test]
fn s07_strangers_are_refused() {
    let mut decap = decap();
    each(|inner, way, from, to| {
        let stranger = if from.is_ipv4() { ip("10.0.0.8") } else { ip("fd00::8") };
        let (outcome, counts) = decap.count(&wrapped(inner, way, stranger, to).bytes());
        assert_eq!((outcome.action, counts), (action::DROP, [0, 1, 0]), "{way:?} {stranger}");
    });
}

#[test]
fn what_is_for_somebody_else_is_not_touched() {
    let mut decap = decap();
    let mut passes = |name: &str, frame: Vec<u8>| {
        let (outcome, counts) = decap.count(&frame);
        assert_eq!((outcome.action, counts), (action::PASS, [0; 3]), "{name}");
        assert_eq!(outcome.frame, frame, "{name}");
    };
    each(|inner, way, from, to| {
        let other = if to.is_ipv4() { ip("10.1.0.2") } else { ip("fd01::2") };
        passes("another address", wrapped(inner, way, from, other).bytes());
        let frame = wrapped(inner, way, from, to).bytes();
        passes("another EtherType", patched(&frame, 12, &[0x12, 0x34]));
        passes("a group", patched(&frame, 0, &[0xff; 6]));
        if way == Way::Ipip {
            return;
        }
        let udp = IP + if from.is_ipv4() { 20 } else { 40 };
        passes("another port", patched(&frame, udp + 2, &[0x17, 0xc1]));
        if from.is_ipv4() {
            passes("a fragment", patched(&frame, IP + 6, &[0x20, 0]));
        }
        if way == Way::Gue {
            // A longer header, a control message, flags, and other protocols than IP.
            for header in [[1, 4, 0, 0], [0x20, 4, 0, 0], [0, 4, 0x80, 0], [0, 6, 0, 0]] {
                passes("another kind of GUE", patched(&frame, udp + 8, &header));
            }
        }
    });
    passes("no tunnel", Packet::udp("10.0.0.9@1", "10.1.0.1@53").bytes());
    passes("no tunnel", Packet::echo("10.0.0.9", "10.1.0.1").bytes());
}

#[test]
fn what_is_broken_is_dropped() {
    let mut decap = decap();
    each(|inner, way, from, to| {
        let whole = wrapped(inner, way, from, to);
        let frame = whole.bytes();
        let mut broken = |name: &str, frame: Vec<u8>| {
            let (outcome, counts) = decap.count(&frame);
            let found = (outcome.action, counts);
            assert_eq!(found, (action::DROP, [0, 0, 1]), "{way:?} {from}: {name}");
        };
        let network = if from.is_ipv4() { 20 } else { 40 };
        let inside = frame.len() - inner.ip_bytes().len();
        broken("its end is missing", frame[..frame.len() - 1].to_vec());
        if way != Way::GueDirect {
            broken("the version inside", patched(&frame, inside, &[0x75]));
        }
        let length = inside + if inner.ip.source.is_ipv4() { 2 } else { 4 };
        broken("the length inside", patched(&frame, length, &[0xff, 0xff]));
        if way != Way::Ipip {
            let shorter = (frame.len() - IP - network - 1) as u16;
            broken("UDP's length", patched(&frame, IP + network + 4, &shorter.to_be_bytes()));
        }
        if from.is_ipv4() {
            broken("the outer checksum", patched(&frame, IP + 10, &[frame[IP + 10] ^ 1]));
        }
    });
}

/// RFC 6040, figure 4.
#[test]
fn congestion_marks_come_out_of_the_tunnel() {
    let mut decap = decap();
    each(|inner, way, from, to| {
        for (mark, outer_mark, expected) in
            [(2, 3, Some(3)), (1, 3, Some(3)), (2, 1, Some(1)), (3, 0, Some(3)), (0, 3, None)]
        {
            let inner = inner.clone().ip(|ip| ip.class = ip.class & !3 | mark);
            let outer =
                wrapped(&inner, way, from, to).ip(|ip| ip.class = ip.class & !3 | outer_mark);
            let (outcome, counts) = decap.count(&outer.bytes());
            match expected {
                None => assert_eq!((outcome.action, counts), (action::DROP, [0, 0, 1])),
                Some(mark) => {
                    let inner = inner.ip(|ip| ip.class = ip.class & !3 | mark);
                    assert_eq!((outcome.action, counts), (action::PASS, [1, 0, 0]));
                    assert_eq!(outcome.frame, inner.bytes(), "{way:?}");
                }
            }
        }
    });
}

#[test]
fn cut_frames_do_no_harm() {
    let mut decap = decap();
    each(|inner, way, from, to| {
        let frame = wrapped(inner, way, from, to).bytes();
        for length in 14..frame.len().min(160) {
            let (outcome, counts) = decap.count(&frame[..length]);
            assert_ne!(outcome.action, action::ABORTED);
            assert_eq!(counts[0], 0, "{way:?} cut to {length} was taken for whole");
        }
    });
    let transport = Transport::Other(17);
    let mut short = Packet::new(BALANCERS[0], LOCAL[0], transport).filled(4);
    short.trailer = vec![0; 30];
    assert_eq!(decap.count(&short.bytes()).1[0], 0, "a datagram shorter than its header");
}
