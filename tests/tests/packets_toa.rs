//! Full nat that tells servers the clients' addresses by a TCP option. Packets and expected packets are etherparse's; the option is
//! written out by hand.

use std::{net::IpAddr, sync::MutexGuard};

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, Options, Outcome, World, action,
    bytes::{IP, tagged, with_extension},
    packet::{Packet, flag},
    surroundings::{POOL, of},
    world::{CLIENT, NIC, Service, ip},
};

const VIP: [&str; 2] = ["198.51.100.7", "2001:db8:5::7"];
const CLIENT_ADDRESS: [&str; 2] = ["192.0.2.33", "2001:db8:c::33"];
const SYN_ACK: u8 = flag::SYN | flag::ACK;
const PUSH: u8 = flag::ACK | flag::PSH;

fn kernel() -> MutexGuard<'static, Kernel> {
    Kernel::shared_with(Options { fullnat: 2, toa: true, vlan: true, ..Options::default() })
}

/// Service 1 tells, service 2 (port 81) does not, service 3 is UDP and has the flag in vain.
fn world(is_v4: bool) -> World {
    let backends = if is_v4 { ["10.1.0.1@8001"] } else { ["fd01::1@8001"] };
    let flags = service_flag::FULLNAT | service_flag::TOA;
    let mut service = Service::new(of(&VIP, is_v4), Forward::FullNat, &backends).flags(flags);
    service.backends[0].mtu = 1_500;
    let mut silent = service.clone();
    silent.port = 81;
    silent.flags = service_flag::FULLNAT;
    World::of([service.clone(), silent, service.udp()]).with_pool(is_v4)
}

fn enter(is_v4: bool) -> MutexGuard<'static, Kernel> {
    let mut kernel = kernel();
    kernel.enter(world(is_v4));
    kernel
}

fn tcp(is_v4: bool, client_port: u16, port: u16, flags: u8) -> Packet {
    let client = format!("{}@{client_port}", of(&CLIENT_ADDRESS, is_v4));
    Packet::tcp(&client, &format!("{}@{port}", of(&VIP, is_v4)), flags)
}

/// The option as the modules read it.
fn option(is_v4: bool, client_port: u16) -> Vec<u8> {
    let address = match ip(of(&CLIENT_ADDRESS, is_v4)) {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let head = if is_v4 { [254, 8] } else { [253, 20] };
    [&head[..], &client_port.to_be_bytes(), &address].concat()
}

fn header(is_v4: bool) -> usize {
    if is_v4 { 20 } else { 40 }
}

fn given(is_v4: bool, outcome: &Outcome) -> u16 {
    let at = IP + header(is_v4);
    u16::from_be_bytes([outcome.frame[at], outcome.frame[at + 1]])
}

/// A client's packet on its way to the backend, with these options in front of its own.
fn sent(world: &World, packet: &Packet, port: u16, options: &[u8]) -> Vec<u8> {
    let backend = &world.services[0].backends[0];
    let from = ip(of(&POOL, packet.ip.source.is_ipv4()));
    packet
        .clone()
        .with_tcp(|tcp| tcp.options = [options, &tcp.options].concat())
        .hop(NIC, backend.mac)
        .sourced(from, port)
        .destined(backend.address, backend.port)
        .bytes()
}

fn answer(world: &World, is_v4: bool, port: u16, flags: u8) -> Packet {
    let backend = &world.services[0].backends[0];
    let from = format!("{}@{}", backend.address, backend.port);
    let mut packet = Packet::tcp(&from, &format!("{}@{port}", of(&POOL, is_v4)), flags);
    packet.from = backend.mac;
    packet
}

/// Opens a connection up to the SYN-ACK; its port of the pool.
fn begun(kernel: &mut Kernel, is_v4: bool, client_port: u16) -> u16 {
    let syn = tcp(is_v4, client_port, 80, flag::SYN);
    let outcome = kernel.run(&syn.bytes());
    let port = given(is_v4, &outcome);
    assert_eq!(outcome.frame, sent(kernel.world(), &syn, port, &[]), "a SYN has none");
    let reply = answer(kernel.world(), is_v4, port, SYN_ACK);
    assert_eq!(kernel.run(&reply.bytes()).action, action::TX);
    port
}

#[track_caller]
fn goes(kernel: &mut Kernel, packet: &Packet, port: u16, options: &[u8]) {
    let (outcome, delta) = kernel.count(&packet.bytes());
    assert_eq!(outcome.action, action::TX, "{packet:?}: {delta:?}");
    let expected = sent(kernel.world(), packet, port, options);
    assert_eq!(outcome.frame, expected, "{packet:?}");
}

#[test]
fn the_server_is_told_until_it_has_spoken() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        for client_port in [40_001, 1_025, 65_535] {
            let port = begun(&mut kernel, is_v4, client_port);
            let told = option(is_v4, client_port);
            goes(&mut kernel, &tcp(is_v4, client_port, 80, flag::ACK), port, &told);
            for length in [1, 2, 7, 500, 1_400] {
                let data = tcp(is_v4, client_port, 80, PUSH).filled(length);
                goes(&mut kernel, &data, port, &told);
            }
            // An acknowledgement says nothing that the server could not have said without having heard.
            kernel.run(&answer(kernel.world(), is_v4, port, flag::ACK).bytes());
            goes(&mut kernel, &tcp(is_v4, client_port, 80, PUSH).filled(9), port, &told);
            kernel.run(&answer(kernel.world(), is_v4, port, PUSH).filled(1).bytes());
            for packet in [
                tcp(is_v4, client_port, 80, flag::ACK),
                tcp(is_v4, client_port, 80, PUSH).filled(100),
            ] {
                goes(&mut kernel, &packet, port, &[]);
            }
        }
    }
}

#[test]
fn every_number_of_options_up_to_what_fits() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let port = begun(&mut kernel, is_v4, 40_001);
        let told = option(is_v4, 40_001);
        for words in 0..=10 {
            let options = vec![1; 4 * words];
            let packet =
                tcp(is_v4, 40_001, 80, PUSH).with_tcp(|tcp| tcp.options = options).filled(33);
            let fits = 4 * words + told.len() <= 40;
            goes(&mut kernel, &packet, port, if fits { &told } else { &[] });
        }
    }
}

#[test]
fn what_does_not_fit_goes_without_and_is_counted() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let port = begun(&mut kernel, is_v4, 40_001);
        let told = option(is_v4, 40_001);
        let most = 1_500 - header(is_v4) - 20 - told.len();
        let whole = |length: usize| tcp(is_v4, 40_001, 80, PUSH).filled(length);
        goes(&mut kernel, &whole(most), port, &told);
        let full = tcp(is_v4, 40_001, 80, flag::ACK).with_tcp(|tcp| tcp.options = vec![1; 40]);
        for packet in [whole(most + 1), whole(most + told.len()), full] {
            let (outcome, delta) = kernel.count(&packet.bytes());
            assert_eq!(outcome.frame, sent(kernel.world(), &packet, port, &[]), "{packet:?}");
            assert_eq!(delta.total(Reason::ToaOmitted), 1, "{delta:?}");
        }
        let (_, delta) = kernel.count(&whole(most).bytes());
        assert_eq!(delta.total(Reason::ToaOmitted), 0, "{delta:?}");
        // Beyond the link as before: told.
        let (outcome, delta) = kernel.count(&whole(most + told.len() + 1).bytes());
        assert_eq!((outcome.action, delta.total(Reason::TooBigSent)), (action::TX, 1), "{delta:?}");
        // IP options and extension headers: as they came.
        let strange = match is_v4 {
            true => whole(10).ip(|ip| ip.options = vec![1; 8]).bytes(),
            false => with_extension(&whole(10).bytes(), 60, &[1, 4, 0, 0, 0, 0]),
        };
        let (outcome, delta) = kernel.count(&strange);
        assert_eq!((outcome.action, outcome.frame.len()), (action::TX, strange.len()), "{delta:?}");
        assert_eq!(delta.total(Reason::ToaOmitted), 1, "{delta:?}");
    }
}

#[test]
fn ends_and_other_services_have_none() {
    for is_v4 in [true, false] {
        let mut kernel = enter(is_v4);
        let port = begun(&mut kernel, is_v4, 40_001);
        for flags in [flag::FIN | flag::ACK, flag::RST | flag::ACK, flag::RST] {
            goes(&mut kernel, &tcp(is_v4, 40_001, 80, flags), port, &[]);
        }
        let silent = tcp(is_v4, 40_002, 81, flag::SYN);
        let port = given(is_v4, &kernel.run(&silent.bytes()));
        for packet in [tcp(is_v4, 40_002, 81, flag::ACK), tcp(is_v4, 40_002, 81, PUSH).filled(10)] {
            let outcome = kernel.run(&packet.bytes());
            let backend = kernel.world().services[1].backends[0].clone();
            let expected = packet
                .clone()
                .hop(NIC, backend.mac)
                .sourced(ip(of(&POOL, is_v4)), port)
                .destined(backend.address, backend.port);
            assert_eq!(outcome.frame, expected.bytes());
        }
        let client = format!("{}@40003", of(&CLIENT_ADDRESS, is_v4));
        let datagram = Packet::udp(&client, &format!("{}@80", of(&VIP, is_v4))).filled(20);
        let outcome = kernel.run(&datagram.bytes());
        assert_eq!((outcome.action, outcome.frame.len()), (action::TX, datagram.bytes().len()));
    }
}

/// Whoever could say it himself would be whoever he likes.
#[test]
fn what_a_client_says_of_itself_is_hidden() {
    for is_v4 in [true, false] {
        let kernel = enter(is_v4);
        let forged = [[254, 8, 1, 2, 10, 0, 0, 1].to_vec(), [&[253, 20][..], &[7; 18]].concat()];
        for (number, lie) in forged.iter().enumerate() {
            let client_port = 50_000 + number as u16;
            for padding in [0, 4, 12] {
                let with = |packet: Packet, kind: Option<u8>| {
                    let mut option = lie.clone();
                    option[0] = kind.unwrap_or(option[0]);
                    packet.with_tcp(|tcp| tcp.options = [vec![1; padding], option].concat())
                };
                let syn = tcp(is_v4, client_port, 80, flag::SYN);
                let outcome = kernel.run(&with(syn.clone(), None).bytes());
                let port = given(is_v4, &outcome);
                let expected = sent(kernel.world(), &with(syn, Some(255)), port, &[]);
                assert_eq!(outcome.frame, expected, "a SYN");
                for length in [0, 1, 100] {
                    let packet = tcp(is_v4, client_port, 80, flag::ACK).filled(length);
                    let outcome = kernel.run(&with(packet.clone(), None).bytes());
                    let told = option(is_v4, client_port);
                    let fits = padding + lie.len() + told.len() <= 40;
                    let told = if fits { &told[..] } else { &[] };
                    let expected = sent(kernel.world(), &with(packet, Some(255)), port, told);
                    assert_eq!(outcome.frame, expected, "{lie:?} behind {padding}");
                }
            }
        }
    }
}

#[test]
fn servers_offer_room_for_it() {
    for is_v4 in [true, false] {
        let kernel = enter(is_v4);
        let syn = tcp(is_v4, 40_001, 80, flag::SYN);
        let port = given(is_v4, &kernel.run(&syn.bytes()));
        let by = option(is_v4, 1).len() as u16;
        for offered in [1_460_u16, 1_440, 9_000, 537 + by] {
            let with = |size: u16| {
                let [high, low] = size.to_be_bytes();
                let reply = answer(&world(is_v4), is_v4, port, SYN_ACK);
                reply.with_tcp(|tcp| tcp.options = vec![4, 2, 2, 4, high, low, 1, 1])
            };
            let outcome = kernel.run(&with(offered).bytes());
            let expected = with(offered - by)
                .hop(NIC, CLIENT)
                .sourced(ip(of(&VIP, is_v4)), 80)
                .destined(ip(of(&CLIENT_ADDRESS, is_v4)), 40_001);
            assert_eq!(outcome.frame, expected.bytes(), "{offered}");
        }
    }
}

#[test]
fn tagged_frames_are_told_as_well() {
    let mut kernel = enter(true);
    let port = begun(&mut kernel, true, 40_001);
    let told = option(true, 40_001);
    let packet = tcp(true, 40_001, 80, PUSH).filled(77);
    for tags in [&[[0x81, 0, 0, 5]][..], &[[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6]]] {
        let outcome = kernel.run(&tagged(&packet.bytes(), tags));
        let expected = tagged(&sent(kernel.world(), &packet, port, &told), tags);
        assert_eq!(outcome.frame, expected, "{tags:x?}");
    }
}

/// The byte counters are of what is sent to the backend.
#[test]
fn it_is_counted_as_what_it_has_become() {
    let mut kernel = enter(true);
    begun(&mut kernel, true, 40_001);
    let packet = tcp(true, 40_001, 80, PUSH).filled(77);
    let (_, delta) = kernel.count(&packet.bytes());
    assert_eq!(delta, Delta::request(1, packet.length() + 8, false));
}

#[test]
fn its_program_is_within_the_verifiers_limit() {
    let kernel = kernel();
    let info = kernel.fullnat().info().expect("the kernel tells");
    let verified = info.verified_instruction_count().expect("since Linux 5.16");
    println!("verified fullnat {verified}");
    assert!(verified < 855_000, "{verified}");
}
