//! QUIC datagrams of the catalogue (docs/packet-cases.md, B45 to B50), in every mode and family, byte for byte. What connection ids
//! mean is tested in packets_quic.rs; here, that nothing is lost whatever they say.

use std::sync::MutexGuard;

use lb_common::{
    abi::{BackendRow, QuicId, Reason, backend_flag, map, service_flag},
    quic::{Formats, SERVER_ID},
};
use lb_tests::kernel::{
    Delta, Kernel, Options, World,
    case::{Case, Expected, check, expected_frame},
    packet::Packet,
    surroundings::{FROM, VIP, datagram, of},
    world::MODES,
};

const V1: u32 = 1;
/// A server id of two bytes, in config 2.
const CONFIG: u8 = 2;
/// The backend that it names: the third, by number and from 0. Addresses and ports lead to the second one.
const NAMED: (u32, usize) = (6, 2);
const SERVER: [u8; 2] = [0x31, 0x07];
/// Where addresses and ports lead.
const HASHED: (u32, usize) = (5, 1);

type Mode = (&'static str, lb_common::abi::Forward, bool, bool);

/// The UDP service is QUIC's.
fn enter(mode: Mode) -> MutexGuard<'static, Kernel> {
    let mut kernel = Kernel::shared_with(Options { quic: true, ..Options::default() });
    let mut world = World::plain(mode);
    world.services[1].flags |= service_flag::QUIC;
    kernel.enter(world);
    let formats = Formats::default().with(u32::from(CONFIG), SERVER.len() as u32);
    kernel.array::<Formats>(map::QUIC_FORMATS).set(2, formats, 0).expect("a service's");
    let mut id = [0; SERVER_ID];
    id[..SERVER.len()].copy_from_slice(&SERVER);
    let key = QuicId { service: 2, config: CONFIG, id };
    kernel.hash_map::<QuicId, u32>(map::QUIC_IDS).insert(key, NAMED.0, 0).expect("room");
    kernel
}

/// A connection id that names a server.
fn id(server: [u8; 2]) -> Vec<u8> {
    [&[CONFIG << 5 | 9][..], &server, &[0xee; 5]].concat()
}

fn long(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
    [&[first], &version.to_be_bytes()[..], &[id.len() as u8], id, &[8], &[0x5c; 8], &[0; 30]]
        .concat()
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x41], id, &[0x77; 22]].concat()
}

/// A datagram that goes to a backend, and what is counted beside that.
fn goes(
    kernel: &Kernel,
    what: &str,
    packet: &Packet,
    (backend, number): (u32, usize),
    (opens, reason): (bool, Option<Reason>),
) -> Case {
    let frame = expected_frame(kernel.world(), packet, 2, number);
    let delta = Delta::request(backend, packet.length(), opens);
    let delta = match reason {
        Some(reason) => delta.and(2, reason),
        None => delta,
    };
    Case::new(what, packet.bytes(), Expected::answered(frame, delta))
}

const STRANGE: (bool, Option<Reason>) = (false, Some(Reason::QuicFallback));
const UNKNOWN: (bool, Option<Reason>) = (false, Some(Reason::QuicUnknown));
const OPENS: (bool, Option<Reason>) = (true, None);
const PLAIN: (bool, Option<Reason>) = (false, None);

#[test]
fn b45_short_datagrams_follow_addresses_and_ports() {
    for mode in MODES {
        let mut kernel = enter(mode);
        let mut cases = vec![goes(
            &kernel,
            &format!("{}: empty", mode.0),
            &datagram(mode.2).payload(&[]),
            HASHED,
            STRANGE,
        )];
        for first in 0..=u8::MAX {
            let packet = datagram(mode.2).payload(&[first]);
            cases.push(goes(&kernel, &format!("{}: {first:#x}", mode.0), &packet, HASHED, STRANGE));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn b46_long_headers_of_all_kinds_are_forwarded() {
    /// Handshake.
    const FIRST: u8 = 0xe0;
    for mode in MODES {
        let mut kernel = enter(mode);
        let whole = long(FIRST, V1, &id(SERVER));
        let mut cases = Vec::new();
        let mut add = |what: String, payload: &[u8], to, counted| {
            let packet = datagram(mode.2).payload(payload);
            cases.push(goes(&kernel, &format!("{}: {what}", mode.0), &packet, to, counted));
        };
        for length in 1..whole.len() {
            // First byte, version, length of the id, its first byte and the server id.
            let (to, counted) = match length {
                ..7 => (HASHED, STRANGE),
                7..9 => (HASHED, UNKNOWN),
                _ => (NAMED, PLAIN),
            };
            add(format!("cut to {length}"), &whole[..length], to, counted);
        }
        // An Initial that is cut opens a flow as soon as there is room for an id's length.
        for length in 1..20 {
            let counted = if length < 6 { STRANGE } else { OPENS };
            let initial = &long(0xc0, V1, &id(SERVER))[..length];
            add(format!("an Initial cut to {length}"), initial, HASHED, counted);
        }
        add("no id".into(), &long(FIRST, V1, &[]), HASHED, STRANGE);
        let longest = [&id(SERVER)[..], &[0xee; 247]].concat();
        add("an id of 255 bytes".into(), &long(FIRST, V1, &longest), NAMED, PLAIN);
        let mut beyond = long(FIRST, V1, &id(SERVER));
        beyond[5] = 255;
        add("an id longer than the datagram".into(), &beyond, NAMED, PLAIN);
        add("version 0".into(), &long(FIRST, 0, &id(SERVER)), HASHED, STRANGE);
        for version in [2, 0xff00_001d, 0x1a2a_3a4a, u32::MAX] {
            for id in [id(SERVER), vec![], longest.clone()] {
                let payload = long(FIRST, version, &id);
                add(format!("version {version:#x}"), &payload, HASHED, OPENS);
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn b47_ids_that_name_nobody_usable_follow_addresses_and_ports() {
    for mode in MODES {
        let mut kernel = enter(mode);
        let name = |what: &str| format!("{}: {what}", mode.0);
        let packet = |payload: &[u8]| datagram(mode.2).payload(payload);
        let named = packet(&short(&id(SERVER)));
        let unknown = packet(&short(&id([0x31, 0x08])));
        let cases = [
            goes(&kernel, &name("known"), &named, NAMED, PLAIN),
            goes(&kernel, &name("unknown"), &unknown, HASHED, UNKNOWN),
        ];
        check(&mut kernel, &cases);
        for (what, flags, to, counted) in [
            ("down", backend_flag::DOWN, HASHED, UNKNOWN),
            // Whoever drains, or is gone from the file, keeps the connections that it has.
            ("removed", backend_flag::REMOVED, NAMED, PLAIN),
            ("up again", 0, NAMED, PLAIN),
        ] {
            let mut rows = kernel.array::<BackendRow>(map::BACKENDS);
            let mut row = rows.get(&NAMED.0, 0).expect("within");
            row.flags = backend_flag::RESOLVED | flags;
            rows.set(NAMED.0, row, 0).expect("within");
            let case = goes(&kernel, &name(what), &named, to, counted);
            check(&mut kernel, &[case]);
        }
    }
}

#[test]
fn b48_the_smallest_and_the_largest_server_id_name_nobody() {
    for mode in MODES {
        let mut kernel = enter(mode);
        let mut cases = Vec::new();
        for server in [[0, 0], [0, 1], [0x7f, 0xff], [0x80, 0], [0xff, 0xff]] {
            for payload in [short(&id(server)), long(0xe0, V1, &id(server))] {
                let packet = datagram(mode.2).payload(&payload);
                let name = format!("{}: {server:x?}", mode.0);
                cases.push(goes(&kernel, &name, &packet, HASHED, UNKNOWN));
            }
        }
        // Every config id, the one that says "none" among them.
        for config in (0..8).filter(|config| *config != CONFIG) {
            let mut id = id(SERVER);
            id[0] = config << 5 | 9;
            let packet = datagram(mode.2).payload(&short(&id));
            let name = format!("{}: config {config}", mode.0);
            cases.push(goes(&kernel, &name, &packet, HASHED, UNKNOWN));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn b49_what_a_client_has_chosen_is_not_read() {
    for mode in MODES {
        let mut kernel = enter(mode);
        let mut cases = Vec::new();
        // The id would name a server.
        for (what, first) in [("Initial", 0xc0), ("0-RTT", 0xd0)] {
            let packet = datagram(mode.2).payload(&long(first, V1, &id(SERVER)));
            cases.push(goes(&kernel, &format!("{}: {what}", mode.0), &packet, HASHED, OPENS));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn b50_a_connection_stays_with_its_backend_when_its_client_moves() {
    for mode in MODES {
        let mut kernel = enter(mode);
        let mut cases = Vec::new();
        let others: [&str; 4] = match mode.2 {
            true => ["192.0.2.33", "192.0.2.34", "203.0.113.200", "100.64.3.9"],
            false => [of(&FROM, false), "2001:db8:c::34", "2001:db8:ffff::1", "2002:c000:201::1"],
        };
        for address in others {
            for port in [1, 1024, 40_001, 65_535] {
                let to = format!("{}@80", of(&VIP, mode.2));
                let packet = Packet::udp(&format!("{address}@{port}"), &to);
                let packet = packet.payload(&short(&id(SERVER)));
                let name = format!("{}: from {address}, {port}", mode.0);
                cases.push(goes(&kernel, &name, &packet, NAMED, PLAIN));
            }
        }
        check(&mut kernel, &cases);
    }
}
