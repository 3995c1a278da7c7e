//! Single packets of the catalogue (docs/packet-cases.md) that no other suite is about: Ethernet and IP headers, tunnels that are not
//! ours to open, and sizes.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, World,
    bytes::{IP, fragment, patched, patched_v4, pieces, with_extension},
    case::{Case, Expected, check, expected_frame},
    packet::{Packet, flag},
    surroundings::{FROM, SECOND, VIP, datagram, of, segment},
    world::{CLIENT, MODES, NIC, ip},
};

/// The packets of both services, with their numbers.
fn both(is_v4: bool) -> [(Packet, u32); 2] {
    [(segment(is_v4, flag::ACK).filled(20), 1), (datagram(is_v4).filled(20), 2)]
}

/// The backend that service `service` of a plain world chooses.
fn chosen(world: &World, service: u32) -> u32 {
    world.first_backend(service as usize - 1) + SECOND as u32
}

/// A packet that leaves as `frame`.
fn forwards(name: String, world: &World, sent: Vec<u8>, service: u32, frame: Vec<u8>) -> Case {
    let length = sent.len() - IP;
    let delta = Delta::request(chosen(world, service), length, false);
    Case::new(name, sent, Expected::answered(frame, delta))
}

/// B09: addresses are not compared, or virtual ones (VRRP) would have to be known (docs/decisions.md).
#[test]
fn frames_for_another_unicast_address_are_balanced() {
    let mut kernel = Kernel::shared();
    for mode in MODES {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for to in [[0x02, 0, 0, 0, 0, 0x77], [0, 0, 0x5e, 0, 1, 7]] {
            for (packet, service) in both(mode.2) {
                let sent = patched(&packet.bytes(), 0, &to);
                let leaves = expected_frame(&world, &packet, service, SECOND);
                let name = format!("{}: to {to:x?}", mode.0);
                cases.push(forwards(name, &world, sent, service, leaves));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B16: a header checksum that is wrong leaves wrong by as much, and in a tunnel that of the inner header.
#[test]
fn a_wrong_header_checksum_leaves_as_wrong() {
    let mut kernel = Kernel::shared();
    for mode in MODES.into_iter().filter(|mode| mode.2) {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (packet, service) in both(true) {
            let frame = packet.bytes();
            let right = expected_frame(&world, &packet, service, SECOND);
            let inner = right.len() - frame.len() + IP + 10;
            for wrong_by in (0..16).map(|bit| 1u16 << bit).chain([0x1234, 0xfffe]) {
                // In one's complement.
                let wrong = |bytes: &[u8], at: usize| {
                    let sum = u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
                        + u32::from(wrong_by);
                    patched(bytes, at, &((sum % 0xffff) as u16).to_be_bytes())
                };
                let name = format!("{}: wrong by {wrong_by:#x}", mode.0);
                let sent = wrong(&frame, IP + 10);
                cases.push(forwards(name, &world, sent, service, wrong(&right, inner)));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B21: the reserved flag is nobody's business, and a fragment that must not be fragmented is a fragment.
#[test]
fn flags_that_say_nothing_are_kept() {
    const EVIL: u8 = 0x80;
    const DONT: u8 = 0x40;
    let mut kernel = Kernel::shared();
    for mode in MODES.into_iter().filter(|mode| mode.2 && mode.1 != Forward::Ipip) {
        let mut world = World::plain(mode);
        world.services.iter_mut().for_each(|service| service.flags |= service_flag::FRAGMENTS);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (packet, service) in both(true) {
            let leaves = expected_frame(&world, &packet, service, SECOND);
            for flags in [EVIL, EVIL | DONT, DONT, 0] {
                let with = |frame: &[u8]| patched_v4(frame, 6, &[flags, 0]);
                let name = format!("{}: flags {flags:#x}", mode.0);
                cases.push(forwards(name, &world, with(&packet.bytes()), service, with(&leaves)));
            }
            let packet = packet.filled(100);
            let leaves = expected_frame(&world, &packet, service, SECOND);
            for (id, flags) in [(71, DONT), (72, EVIL), (73, DONT | EVIL)] {
                let sent = pieces(&packet.bytes(), id, 64);
                for (number, (sent, leaves)) in sent.iter().zip(pieces(&leaves, id, 64)).enumerate()
                {
                    let with = |frame: &[u8]| patched_v4(frame, 6, &[frame[IP + 6] | flags]);
                    let name = format!("{}: fragment {number}, flags {flags:#x}", mode.0);
                    cases.push(forwards(name, &world, with(sent), service, with(&leaves)));
                }
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B81: what is reserved in a fragment header is ignored (RFC 8200 4.5), and stays.
#[test]
fn reserved_bits_of_an_atomic_fragment_are_kept() {
    let mut kernel = Kernel::shared();
    for mode in MODES.into_iter().filter(|mode| !mode.2 && mode.1 != Forward::Ipip) {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (packet, service) in both(false) {
            for (reserved, bits) in [(0, 0), (0xff, 0), (0, 6), (0x5a, 2)] {
                let atomic = |frame: &[u8]| {
                    let whole = fragment(frame, 9, 0, frame.len() - 54, false);
                    patched(&whole, 55, &[reserved, 0, bits])
                };
                let leaves = atomic(&expected_frame(&world, &packet, service, SECOND));
                let name = format!("{}: reserved {reserved:#x}, {bits}", mode.0);
                let sent = atomic(&packet.bytes());
                cases.push(forwards(name, &world, sent, service, leaves));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B82: a first fragment has all headers (RFC 7112): one whose chain goes on behind the fragment header has no ports to be found.
#[test]
fn first_fragments_without_the_whole_chain_are_dropped() {
    let mut kernel = Kernel::shared();
    for mode in MODES.into_iter().filter(|mode| !mode.2) {
        let mut world = World::plain(mode);
        world.services.iter_mut().for_each(|service| service.flags |= service_flag::FRAGMENTS);
        kernel.enter(world);
        let mut cases = Vec::new();
        for (packet, _) in both(false) {
            let packet = packet.filled(200);
            for kind in [0, 43, 60] {
                // The extension header is the first eight bytes of the data that is in fragments.
                let whole = with_extension(&packet.bytes(), kind, &[1, 4, 0, 0, 0, 0]);
                for length in [8, 16, 24, 64] {
                    let first = fragment(&whole, 5, 0, length, true);
                    let name = format!("{}: {kind}, {length} bytes", mode.0);
                    cases.push(Case::drops(name, first, 0, Reason::FragmentDropped));
                }
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B55: a backend may be a client of its VIP; where it is the one that is chosen, its packets come back to it.
#[test]
fn a_backends_own_packets_come_back_to_it() {
    let mut kernel = Kernel::shared();
    for mode in MODES.into_iter().filter(|mode| mode.2 == mode.3) {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (packet, service) in both(mode.2) {
            let backend = world.services[0].backends[SECOND].clone();
            let mut packet = packet.sourced(backend.address, 40_001);
            packet.from = backend.mac;
            cases.push(Case::forwards(mode.0, &world, &packet, service, SECOND));
        }
        check(&mut kernel, &cases);
    }
}

/// UDP ports of GUE, VXLAN, Geneve, Teredo and GTP.
const ENCAPSULATIONS: [u16; 5] = [6080, 4789, 6081, 3544, 2152];

/// B90: what clients wrap is never unwrapped: to a VIP it is a datagram for a port without a service, or the payload of a service that
/// has the port; to this host's own address it is the host's.
#[test]
fn tunnels_of_clients_are_not_opened() {
    let mut kernel = Kernel::shared();
    for is_v4 in [true, false] {
        let mut world = World::plain(("nat", Forward::Nat, is_v4, is_v4));
        let own = if is_v4 { "10.1.0.253" } else { "fd01::fd" };
        world.hosts = vec![ip(own)];
        // The first port is a service's.
        world.services[1].port = ENCAPSULATIONS[0];
        kernel.enter(world.clone());
        let inner = segment(is_v4, flag::SYN).bytes();
        let mut cases = Vec::new();
        for port in ENCAPSULATIONS {
            for payload in [
                [&[0, 4, 0, 0][..], &inner[IP..]].concat(),
                [&[8, 0, 0, 0, 0, 0, 7, 0][..], &inner].concat(),
            ] {
                let to = |address: &str| {
                    let (from, to) = (of(&FROM, is_v4), format!("{address}@{port}"));
                    Packet::udp(&format!("{from}@40001"), &to).payload(&payload)
                };
                let packet = to(of(&VIP, is_v4));
                cases.push(match port == ENCAPSULATIONS[0] {
                    true => Case::forwards("a service's", &world, &packet, 2, SECOND),
                    false => Case::drops(
                        format!("to the VIP, {port}"),
                        packet.bytes(),
                        0,
                        Reason::NoService,
                    ),
                });
                cases.push(Case::passes(format!("to the host, {port}"), to(own).bytes()));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B92: what has left in a tunnel and comes back is for the backend, no VIP: the host's routing has it, which counts hops.
#[test]
fn what_our_tunnels_send_passes_when_it_comes_back() {
    let mut kernel = Kernel::shared();
    for mode in MODES.into_iter().filter(|mode| mode.1 == Forward::Ipip) {
        let world = World::plain(mode);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (packet, service) in both(mode.2) {
            let sent = expected_frame(&world, &packet, service, SECOND);
            // By way of a router.
            let back = patched(&sent, 0, &[NIC, CLIENT].concat());
            cases.push(Case::passes(mode.0, back));
        }
        check(&mut kernel, &cases);
    }
}

/// B95: the MTU towards the backend decides, not Ethernet's 1,500 bytes: as much as fits into XDP's one buffer.
#[test]
fn jumbo_packets_are_forwarded_where_they_fit() {
    /// BPF_PROG_TEST_RUN's buffer: a page without headroom and tailroom.
    const LARGEST: usize = 4096 - 256 - 320;
    let mut kernel = Kernel::shared();
    for mode in MODES {
        let mut world = World::plain(mode);
        for service in &mut world.services {
            service.backends.iter_mut().for_each(|backend| backend.mtu = 9000);
        }
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (packet, service) in both(mode.2) {
            let bare = packet.clone().filled(0).bytes().len();
            for length in [1501 + IP, 2000, 3000, LARGEST] {
                let packet = packet.clone().filled(length - bare);
                let name = format!("{}: {length} bytes", mode.0);
                cases.push(Case::forwards(name, &world, &packet, service, SECOND));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B98: of a frame in several buffers, which no NIC gives to a program that does not say it can have them, only the first one is
/// there; the IP header promises more.
#[test]
fn frames_in_several_buffers_are_dropped() {
    let mut kernel = Kernel::shared();
    for mode in MODES {
        let mut world = World::plain(mode);
        for service in &mut world.services {
            service.backends.iter_mut().for_each(|backend| backend.mtu = u16::MAX);
        }
        kernel.enter(world);
        let mut cases = Vec::new();
        for (packet, _) in both(mode.2) {
            for length in [4000, 9000, 40_000] {
                let frame = packet.clone().filled(length).bytes();
                let name = format!("{}: {length} bytes", mode.0);
                cases.push(Case::drops_somewhere(name, frame, Reason::L3Length));
            }
        }
        check(&mut kernel, &cases);
    }
}

/// B38: what is from port 0 of a backend answers nobody.
#[test]
fn a_backends_packets_with_port_zero_are_nobodys() {
    let mut kernel = Kernel::shared();
    for is_v4 in [true, false] {
        let world = World::plain(("nat", Forward::Nat, is_v4, is_v4));
        kernel.enter(world.clone());
        let backend = &world.services[0].backends[SECOND];
        let reply = segment(is_v4, flag::ACK).sourced(backend.address, 0);
        let reply = reply.destined(ip(of(&FROM, is_v4)), 40_001);
        check(&mut kernel, &[Case::passes("from port 0", reply.bytes())]);
    }
}
