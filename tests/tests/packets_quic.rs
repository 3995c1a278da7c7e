//! QUIC: which datagrams open a flow, and where connection ids lead. Headers are built by hand from RFC 9000, RFC 9369 and
//! draft-ietf-quic-load-balancers.

use std::sync::MutexGuard;

use lb_common::{
    abi::{
        BackendId, BackendRow, FlowKey, Forward, Phase, QuicId, Reason, Slot, backend_flag, map,
        protocol, service_flag,
    },
    be::Be16,
    quic::{Formats, SERVER_ID},
};
use lb_tests::kernel::{
    Delta, Kernel, Options, World, action,
    case::expected_frame,
    packet::Packet,
    world::{MODES, Service, ip},
};

const V1: u32 = 1;
const V2: u32 = 0x6b33_43cf;
const SLOTS: u32 = 1021;
/// The bytes that stand for server ids of backends 1, 2 and 3, in config 0 and (longer) in config 5.
const SHORT: [&[u8]; 3] = [&[0x0a, 1], &[0x0a, 2], &[0, 0]];
const LONG: [&[u8]; 3] = [&[7; 15], &[8; 15], &[0; 15]];

fn kernel() -> MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { quic: true, gue: true, ..Options::default() })
}

fn vip(is_v4: bool) -> &'static str {
    if is_v4 { "198.51.100.7" } else { "2001:db8:5::7" }
}

fn client(is_v4: bool, port: u16) -> String {
    if is_v4 { format!("192.0.2.33@{port}") } else { format!("2001:db8:c::33@{port}") }
}

/// A QUIC service and a plain UDP one of the same backends; every slot of both leads to backend 1 (and 4).
fn enter(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> MutexGuard<'static, Kernel> {
    let backends = match backends_are_v4 {
        true => ["10.1.0.1@6080", "10.1.0.2@6080", "10.1.0.3@6080"],
        false => ["fd01::1@6080", "fd01::2@6080", "fd01::3@6080"],
    };
    let mut service = Service::new(vip(vip_is_v4), forward, &backends).udp().port(443);
    service.ring = vec![0; SLOTS as usize];
    let plain = service.clone().port(53);
    let mut kernel = kernel();
    kernel.enter(World::of([service.flags(service_flag::QUIC), plain]));
    let formats = Formats::default().with(0, 2).with(5, 15);
    kernel.array::<Formats>(map::QUIC_FORMATS).set(1, formats, 0).expect("a service's");
    let mut ids = kernel.hash_map::<QuicId, u32>(map::QUIC_IDS);
    for (number, (short, long)) in (1..).zip(SHORT.into_iter().zip(LONG)) {
        ids.insert(key(0, short), number, 0).expect("room");
        ids.insert(key(5, long), number, 0).expect("room");
    }
    kernel
}

fn key(config: u8, server: &[u8]) -> QuicId {
    let mut id = [0; SERVER_ID];
    id[..server.len()].copy_from_slice(server);
    QuicId { service: 1, config, id }
}

/// A connection id: first byte, server id, nonce.
fn id(config: u8, server: &[u8]) -> Vec<u8> {
    [&[config << 5 | 0x0b], server, &[0xee; 4]].concat()
}

fn long(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
    [&[first], &version.to_be_bytes()[..], &[id.len() as u8], id, &[0; 40]].concat()
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x41], id, &[0x77; 20]].concat()
}

fn datagram(is_v4: bool, payload: &[u8]) -> Packet {
    Packet::udp(&client(is_v4, 40_001), &format!("{}@443", vip(is_v4))).payload(payload)
}

/// What a datagram of the IPv4 service counts as.
fn verdict(kernel: &mut Kernel, payload: &[u8]) -> (u32, Delta) {
    let (outcome, delta) = kernel.count(&datagram(true, payload).bytes());
    (outcome.action, delta)
}

#[test]
fn connection_ids_lead_to_their_backends_in_every_mode_and_family() {
    for (name, forward, vip_is_v4, backends_are_v4) in MODES {
        let mut kernel = enter(forward, vip_is_v4, backends_are_v4);
        for backend in 1..=3u32 {
            let index = backend as usize - 1;
            for (what, payload) in [
                ("a short header", short(&id(0, SHORT[index]))),
                ("a short header of another config", short(&id(5, LONG[index]))),
                ("a Handshake packet", long(0xe0, V1, &id(0, SHORT[index]))),
                ("a Handshake packet of version 2", long(0xf0, V2, &id(5, LONG[index]))),
                ("a Retry of version 1", long(0xf0, V1, &id(0, SHORT[index]))),
            ] {
                let packet = datagram(vip_is_v4, &payload);
                let expected = expected_frame(kernel.world(), &packet, 1, index);
                let (outcome, delta) = kernel.count(&packet.bytes());
                assert_eq!(outcome.action, action::TX, "{name}, {what}: {outcome:?}");
                assert_eq!(outcome.frame, expected, "{name}, {what}");
                assert_eq!(
                    delta,
                    Delta::request(backend, packet.length(), false),
                    "{name}, {what}"
                );
            }
        }
    }
}

#[test]
fn first_packets_follow_their_flow_whatever_their_id_says() {
    let mut kernel = enter(Forward::Nat, true, true);
    let chosen = id(0, SHORT[1]);
    for (what, payload, opens) in [
        ("Initial", long(0xc0, V1, &chosen), true),
        ("0-RTT", long(0xd0, V1, &chosen), true),
        ("Initial of version 2", long(0xd0, V2, &chosen), true),
        ("0-RTT of version 2", long(0xe0, V2, &chosen), true),
        ("a version of the future", long(0xe0, 0x1a2a_3a4a, &chosen), true),
    ] {
        let packet = datagram(true, &payload);
        let (outcome, delta) = kernel.count(&packet.bytes());
        assert_eq!(outcome.action, action::TX, "{what}");
        assert_eq!(delta, Delta::request(1, packet.length(), opens), "{what}");
    }
}

#[test]
fn what_has_no_usable_id_follows_its_flow_and_is_counted() {
    let mut kernel = enter(Forward::Dsr, true, true);
    let unknown = [
        ("a server id that nobody has", short(&id(0, &[9, 9]))),
        ("a config id that is not used", short(&id(3, SHORT[1]))),
        ("an id that names no server", short(&id(7, SHORT[1]))),
        ("an id that ends before the server id does", short(&[0x0b, 0x0a])[..2].to_vec()),
        ("a Handshake packet with too short an id", long(0xe0, V1, &[0x0b, 0x0a])),
        ("a Handshake packet with an id of another config", long(0xe0, V1, &id(5, SHORT[1]))),
    ];
    for (what, payload) in unknown {
        let length = datagram(true, &payload).length();
        let expected = Delta::request(1, length, false).and(1, Reason::QuicUnknown);
        assert_eq!(verdict(&mut kernel, &payload), (action::TX, expected), "{what}");
    }
    let strange = [
        ("no payload", vec![]),
        ("a Handshake packet without an id", long(0xe0, V1, &[])),
        ("a long header of one byte", vec![0xe0]),
        ("a long header cut before its length", long(0xe0, V1, &id(0, SHORT[1]))[..5].to_vec()),
        ("a version negotiation", long(0xe0, 0, &id(0, SHORT[1]))),
        ("a short header of one byte", vec![0x41]),
        ("a Handshake packet whose id is cut off", long(0xe0, V1, &[0; 9])[..6].to_vec()),
    ];
    for (what, payload) in strange {
        let length = datagram(true, &payload).length();
        let expected = Delta::request(1, length, false).and(1, Reason::QuicFallback);
        assert_eq!(verdict(&mut kernel, &payload), (action::TX, expected), "{what}");
    }
}

/// Short frames are padded, and what they are padded with is no part of the datagram.
#[test]
fn padding_of_a_frame_is_not_read() {
    let mut kernel = enter(Forward::Nat, true, true);
    let named = short(&id(0, SHORT[1]));
    for length in 0..named.len() {
        let packet = datagram(true, &named[..length]);
        let frame = [&packet.bytes()[..], &named[length..]].concat();
        let (outcome, delta) = kernel.count(&frame);
        let expected = match length {
            0 | 1 => Delta::request(1, packet.length(), false).and(1, Reason::QuicFallback),
            2 | 3 => Delta::request(1, packet.length(), false).and(1, Reason::QuicUnknown),
            _ => Delta::request(2, packet.length(), false),
        };
        assert_eq!((outcome.action, delta), (action::TX, expected), "{length} bytes");
    }
}

#[test]
fn every_first_byte_and_every_length_is_forwarded_to_somebody() {
    let mut kernel = enter(Forward::Ipip, true, true);
    for first in 0..=u8::MAX {
        for version in [0, V1, V2, u32::MAX] {
            let (action, delta) = verdict(&mut kernel, &long(first, version, &id(0, SHORT[1])));
            assert_eq!((action, delta.forwarded()), (action::TX, 1), "{first:#x} {version:#x}");
        }
        let (action, delta) = verdict(&mut kernel, &short(&[&[first][..], &[0x0a, 2]].concat()));
        let named = if first >> 5 == 0 { 2 } else { 1 };
        assert_eq!((action, delta.packets(named)), (action::TX, 1), "config of {first:#x}");
        let mut header = long(0xe0, V1, &id(0, SHORT[1]));
        header[5] = first;
        let (action, delta) = verdict(&mut kernel, &header);
        let named = if first > 2 { 2 } else { 1 };
        assert_eq!((action, delta.packets(named)), (action::TX, 1), "an id of {first} bytes");
    }
    let whole = short(&id(5, LONG[1]));
    for length in 0..whole.len() {
        let (action, delta) = verdict(&mut kernel, &whole[..length]);
        let named = if length >= 17 { 2 } else { 1 };
        assert_eq!((action, delta.packets(named)), (action::TX, 1), "{length} bytes");
    }
}

#[test]
fn backends_that_are_down_or_anothers_are_not_meant() {
    let mut kernel = enter(Forward::Nat, true, true);
    let payload = short(&id(0, SHORT[1]));
    let length = datagram(true, &payload).length();
    let set = |kernel: &mut Kernel, flags, service| {
        let mut rows = kernel.array::<BackendRow>(map::BACKENDS);
        let mut row = rows.get(&2, 0).expect("within");
        (row.flags, row.service) = (flags, service);
        rows.set(2, row, 0).expect("within");
    };
    let lost = Delta::request(1, length, false).and(1, Reason::QuicUnknown);
    set(&mut kernel, backend_flag::RESOLVED | backend_flag::DOWN, 1);
    assert_eq!(verdict(&mut kernel, &payload), (action::TX, lost.clone()), "it is down");
    set(&mut kernel, backend_flag::RESOLVED, 2);
    assert_eq!(verdict(&mut kernel, &payload), (action::TX, lost), "it is another service's");
    set(&mut kernel, backend_flag::RESOLVED | backend_flag::REMOVED, 1);
    let kept = Delta::request(2, length, false);
    assert_eq!(verdict(&mut kernel, &payload), (action::TX, kept), "it keeps what it has");
}

#[test]
fn a_plain_udp_service_reads_no_ids() {
    let mut kernel = enter(Forward::Nat, true, true);
    for payload in [short(&id(0, SHORT[1])), long(0xc0, V1, &id(0, SHORT[1])), vec![]] {
        let packet = Packet::udp("192.0.2.33@40001", "198.51.100.7@53").payload(&payload);
        let (outcome, delta) = kernel.count(&packet.bytes());
        assert_eq!(outcome.action, action::TX);
        assert_eq!(delta, Delta::request(4, packet.length(), false));
    }
}

/// Slots change hands: old flows stay, new ones go to the new owner and stay there, and a second connection of a flow stays with the
/// first.
#[test]
fn flows_outlive_a_change_of_their_slot() {
    let mut kernel = enter(Forward::Nat, true, true);
    let opening = |port: u16| packet(port, &long(0xc0, V1, &[1, 2, 3, 4, 5, 6, 7, 8]));
    // Ids that name nobody: it is the pins that decide.
    let later = |port: u16| packet(port, &short(&id(7, &[0; 2])));
    let to = |kernel: &mut Kernel, packet: &Packet| {
        let (outcome, delta) = kernel.count(&packet.bytes());
        assert_eq!(outcome.action, action::TX);
        (1..=3).find(|&backend| delta.packets(backend) == 1).expect("a backend")
    };
    assert_eq!(to(&mut kernel, &opening(1)), 1);
    let set_all = |kernel: &mut Kernel, slot| {
        (0..SLOTS).for_each(|index| kernel.set_slot(1, index, slot));
    };
    let (old, new) = (BackendId(1), BackendId(2));
    set_all(&mut kernel, Slot::new(new, old, Phase::Window, 0));
    assert_eq!(to(&mut kernel, &later(1)), 1, "an old flow stays");
    assert_eq!(to(&mut kernel, &opening(2)), 2, "a new one goes to the new owner");
    assert_eq!(kernel.pin_counts(), (0, 1), "confirmed and not");
    assert_eq!(to(&mut kernel, &opening(2)), 2, "its first packet once more");
    assert_eq!(to(&mut kernel, &later(2)), 2);
    assert_eq!(kernel.pin_counts(), (1, 0), "the second packet confirms it");
    set_all(&mut kernel, Slot::new(BackendId(3), new, Phase::Window, 0));
    assert_eq!(to(&mut kernel, &later(2)), 2, "pinned");
    assert_eq!(to(&mut kernel, &opening(2)), 2, "a second connection of the same flow stays");
    set_all(&mut kernel, Slot::new(BackendId(3), new, Phase::Harvest, 0));
    assert_eq!(to(&mut kernel, &later(4)), 2, "an old flow is harvested");
    set_all(&mut kernel, Slot::new(BackendId(3), BackendId::NONE, Phase::Pinned, 0));
    assert_eq!(to(&mut kernel, &later(4)), 2);
    assert_eq!(to(&mut kernel, &opening(5)), 3, "new flows need no pin any more");
    assert_eq!(to(&mut kernel, &later(5)), 3);
    let (pinned, _) = kernel.pins(&flow(4));
    assert_eq!(pinned.map(|pin| pin.backend), Some(new));
}

fn packet(port: u16, payload: &[u8]) -> Packet {
    Packet::udp(&client(true, port), &format!("{}@443", vip(true))).payload(payload)
}

fn flow(port: u16) -> FlowKey {
    FlowKey {
        source: ip("192.0.2.33").into(),
        destination: ip(vip(true)).into(),
        source_port: Be16::from_host(port),
        destination_port: Be16::from_host(443),
        protocol: protocol::UDP,
        _pad: [0; 3],
    }
}

/// Drained backends that work keep the flows they have: only what opens one is refused.
#[test]
fn a_drained_service_refuses_first_packets_only() {
    let mut kernel = kernel();
    let mut service = Service::new(vip(true), Forward::Nat, &["10.1.0.1"]).udp().port(443);
    service.ring = vec![0; SLOTS as usize];
    let flags = service_flag::QUIC | service_flag::DROP | service_flag::NEW_ONLY;
    kernel.enter(World::of([service.flags(flags)]));
    kernel.array::<Formats>(map::QUIC_FORMATS).set(1, Formats::default(), 0).expect("a service's");
    let (action, delta) = verdict(&mut kernel, &long(0xc0, V1, &[0; 8]));
    assert_eq!((action, delta), (action::DROP, Delta::reason(1, Reason::NoBackend)));
    let (action, delta) = verdict(&mut kernel, &short(&[0; 8]));
    assert_eq!((action, delta.packets(1)), (action::TX, 1));
}
