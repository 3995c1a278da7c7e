//! ICMP errors about balanced flows: they reach the flow's backend in every mode, and in nat the client that a backend's
//! path complains about.

use lb_common::abi::{BackendId, Forward, Phase, Reason, Slot, backend_flag, map};
use lb_tests::kernel::{
    Delta, Kernel, World, action,
    bytes::{IP, patched, with_extension},
    case::{Case, Expected, check},
    packet::{Packet, Transport, checksum, flag},
    world::{CLIENT, NIC, Service, ip},
};

const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";
const BACKENDS_V4: [&str; 3] = ["10.1.0.1@8001", "10.1.0.2@8002", "10.1.0.3@8003"];
const BACKENDS_V6: [&str; 3] = ["fd01::1@8001", "fd01::2@8002", "fd01::3@8003"];
/// Everything goes to this backend of each service, counted from 0.
const SECOND: usize = 1;

fn service(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> Service {
    let backends = if backends_are_v4 { &BACKENDS_V4 } else { &BACKENDS_V6 };
    let mut service = Service::new(if vip_is_v4 { VIP_V4 } else { VIP_V6 }, forward, backends);
    service.ring = vec![SECOND as u32; 1021];
    service
}

/// TCP (service 1) and UDP (service 2) on port 80 of the VIP.
fn world(forward: Forward, vip_is_v4: bool, backends_are_v4: bool) -> World {
    let service = service(forward, vip_is_v4, backends_are_v4);
    World::of([service.clone(), service.udp()]).with_gateway(vip_is_v4)
}

fn worlds() -> Vec<(&'static str, World)> {
    vec![
        ("nat v4", world(Forward::Nat, true, true)),
        ("nat v6", world(Forward::Nat, false, false)),
        ("dsr v4", world(Forward::Dsr, true, true)),
        ("dsr v6", world(Forward::Dsr, false, false)),
        ("ipip v4 in v4", world(Forward::Ipip, true, true)),
        ("ipip v6 in v6", world(Forward::Ipip, false, false)),
        ("ipip v4 in v6", world(Forward::Ipip, true, false)),
        ("ipip v6 in v4", world(Forward::Ipip, false, true)),
    ]
}

fn is_v4(world: &World) -> bool {
    world.services[0].vip.is_ipv4()
}

/// What the VIP has sent to the client: TCP for service 1, UDP for service 2.
fn answer(world: &World, service: u32) -> Packet {
    let (vip, client) = match is_v4(world) {
        true => (format!("{VIP_V4}@80"), "192.0.2.33@40001"),
        false => (format!("{VIP_V6}@80"), "2001:db8:c::33@40001"),
    };
    match service {
        1 => Packet::tcp(&vip, client, flag::ACK).filled(1300),
        _ => Packet::udp(&vip, client).filled(1300),
    }
}

/// A router's error about a packet, to its sender.
fn error(kind: u8, code: u8, quoted: &Packet, length: usize) -> Packet {
    about(kind, code, quoted, &quoted.ip_bytes()[..length])
}

fn about(kind: u8, code: u8, quoted: &Packet, bytes: &[u8]) -> Packet {
    let router = if quoted.ip.source.is_ipv4() { "203.0.113.1" } else { "2001:db8:e::1" };
    let transport = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
    Packet::new(router, &quoted.ip.source.to_string(), transport).payload(bytes)
}

/// What an error about `quoted` looks like on its way to the backend.
fn expected(
    world: &World,
    service: u32,
    error: &Packet,
    quoted: &Packet,
    length: usize,
) -> Expected {
    let delta =
        Delta::request(world.first_backend(service as usize - 1) + 1, error.length(), false)
            .and(service, Reason::IcmpErrorForwarded);
    let service = &world.services[service as usize - 1];
    let backend = &service.backends[SECOND];
    let mut frame = error.clone().hop(NIC, backend.mac);
    match service.forward {
        Forward::Nat => {
            let inner = quoted.clone().sourced(backend.address, backend.port);
            frame.ip.destination = backend.address;
            frame.payload = inner.ip_bytes()[..length].to_vec();
        }
        Forward::Dsr => {}
        Forward::Ipip => {
            frame = frame.tunnelled(backend.source.expect("a tunnel"), backend.address);
        }
        Forward::Gue | Forward::FullNat => panic!("has a suite of its own"),
    }
    Expected::answered(frame.bytes(), delta)
}

/// Every type and code that endpoints have to hear of.
fn types(world: &World) -> Vec<(u8, u8)> {
    let codes: &[(u8, u8)] =
        if is_v4(world) { &[(3, 15), (11, 1), (12, 2)] } else { &[(1, 8), (2, 0), (3, 1), (4, 2)] };
    codes.iter().flat_map(|&(kind, last)| (0..=last).map(move |code| (kind, code))).collect()
}

/// The quoted IP header and eight bytes.
fn shortest(world: &World) -> usize {
    if is_v4(world) { 28 } else { 48 }
}

#[test]
fn errors_reach_the_backend_in_every_mode() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for service in [1, 2] {
            let quoted = answer(&world, service);
            // B63, B64, B65, B86; 16 and 18 bytes of TCP end before and behind its checksum.
            let most = if is_v4(&world) { 548 } else { 1232 };
            for (kind, code) in types(&world) {
                for more in [0, 8, 10, 12, 100] {
                    let length = shortest(&world) + more;
                    let error = error(kind, code, &quoted, length);
                    let name =
                        format!("{mode}: B63 {kind}/{code}, service {service}, {length} bytes");
                    let expected = expected(&world, service, &error, &quoted, length);
                    cases.push(Case::new(name, error.bytes(), expected));
                }
            }
            let (kind, code) = if is_v4(&world) { (3, 4) } else { (2, 0) };
            let error = error(kind, code, &quoted, most);
            let expected = expected(&world, service, &error, &quoted, most);
            cases.push(Case::new(format!("{mode}: B65"), error.bytes(), expected));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn options_inside_and_outside_are_passed_over() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(_, world)| is_v4(world)) {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (inner, outer) in [(4, 0), (8, 0), (40, 0), (0, 4), (0, 40), (40, 40)] {
            // B68
            let quoted = answer(&world, 1).ip(|ip| ip.options = vec![1; inner]);
            let length = 28 + inner;
            let error = error(3, 4, &quoted, length).ip(|ip| ip.options = vec![1; outer]);
            let expected = expected(&world, 1, &error, &quoted, length);
            cases.push(Case::new(format!("{mode}: B68 {inner}, {outer}"), error.bytes(), expected));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn s02_bad_quotes_are_dropped_and_counted() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        let v4 = is_v4(&world);
        let (kind, code) = if v4 { (3, 4) } else { (2, 0) };
        let sound = answer(&world, 1);
        let mut bad = |name: &str, error: Packet, service| {
            let name = format!("{mode}: {name}");
            cases.push(Case::drops(name, error.bytes(), service, Reason::IcmpErrorBad));
        };
        for length in 0..shortest(&world) {
            bad(&format!("B67: cut to {length}"), error(kind, code, &sound, length), 0);
        }
        let patched = |at: usize, value: u8| {
            let mut bytes = sound.ip_bytes()[..100].to_vec();
            bytes[at] = value;
            if v4 {
                bytes[10..12].fill(0);
                let sum = checksum(&bytes[..20]).to_be_bytes();
                bytes[10..12].copy_from_slice(&sum);
            }
            about(kind, code, &sound, &bytes)
        };
        bad("B67: version", patched(0, 0x75), 0);
        bad("B72: about ICMP", patched(if v4 { 9 } else { 6 }, if v4 { 1 } else { 58 }), 0);
        if v4 {
            for words in 0..5 {
                bad("B67: IHL", patched(0, 0x40 | words), 0);
            }
            bad("B69: a later fragment", patched(7, 1), 0);
            let mut bytes = sound.ip_bytes()[..100].to_vec();
            bytes[10] ^= 0x10;
            bad("B67: checksum", about(kind, code, &sound, &bytes), 0);
        }
        // B70: somebody else's packet, the reversed direction, a port without a service.
        let stranger = if v4 { ip("198.51.100.8") } else { ip("2001:db8:5::8") };
        let bytes = sound.clone().sourced(stranger, 80).ip_bytes();
        bad("B70: a stranger's", about(kind, code, &sound, &bytes[..100]), 0);
        let (vip, client) = (sound.ip.source, sound.ip.destination);
        let bytes = sound.clone().sourced(client, 40001).destined(vip, 80).ip_bytes();
        bad("B70: reversed", about(kind, code, &sound, &bytes[..100]), 0);
        bad("B70: port", error(kind, code, &sound.clone().sourced(vip, 81), 100), 0);
        // B74 and types that do not exist.
        let others: &[u8] = if v4 { &[4, 5] } else { &[0, 5, 100, 127] };
        for &kind in others {
            bad(&format!("B74: type {kind}"), error(kind, 0, &sound, 100), 1);
        }
        let last_hop = error(kind, code, &sound, 100).ip(|ip| ip.hop_limit = 1);
        cases.push(Case::drops(format!("{mode}: hops"), last_hop.bytes(), 1, Reason::Ttl));
        check(&mut kernel, &cases);
    }
}

/// B87: ports are looked for behind a fragment header, but behind no other extension header of a quoted packet.
#[test]
fn what_is_behind_quoted_extension_headers_is_not_read() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds().into_iter().filter(|(_, world)| !is_v4(world)) {
        kernel.enter(world.clone());
        let sound = answer(&world, 1);
        let mut cases = Vec::new();
        for (kind, code) in types(&world) {
            for (what, header) in [("hop-by-hop", 0), ("routing", 43), ("destination", 60)] {
                let quoted = with_extension(&sound.bytes(), header, &[1, 4, 0, 0, 0, 0]);
                let frame = about(kind, code, &sound, &quoted[IP..IP + 100]).bytes();
                let name = format!("{mode}: B87: {kind}/{code}, {what}");
                cases.push(Case::drops(name, frame, 0, Reason::IcmpErrorBad));
            }
            // A later fragment has no ports.
            let quoted = with_extension(&sound.bytes(), 44, &[0, 8, 0, 0, 0, 1]);
            let frame = about(kind, code, &sound, &quoted[IP..IP + 100]).bytes();
            let name = format!("{mode}: B87: {kind}/{code}, a later fragment");
            cases.push(Case::drops(name, frame, 0, Reason::IcmpErrorBad));
        }
        check(&mut kernel, &cases);
        // A first one has them.
        let quoted = with_extension(&sound.bytes(), 44, &[0, 1, 0, 0, 0, 1]);
        let first = about(2, 0, &sound, &quoted[IP..IP + 100]);
        let (outcome, delta) = kernel.count(&first.bytes());
        assert_eq!(outcome.action, action::TX, "{mode}: {outcome:?}");
        let forwarded = Delta::request(world.first_backend(0) + 1, first.length(), false);
        assert_eq!(delta, forwarded.and(1, Reason::IcmpErrorForwarded), "{mode}");
    }
}

/// B73, RFC 5508 REQ-3 a): an error whose own checksum is wrong goes on, with its checksum wrong by as much.
#[test]
fn an_errors_own_checksum_stays_as_wrong_as_it_was() {
    let mut kernel = Kernel::shared();
    for (mode, world) in worlds() {
        kernel.enter(world.clone());
        let quoted = answer(&world, 1);
        let (kind, code) = types(&world)[0];
        let sound = error(kind, code, &quoted, 100).bytes();
        let at = IP + if is_v4(&world) { 20 } else { 40 } + 2;
        let right = kernel.run(&sound);
        assert_eq!(right.action, action::TX, "{mode}: {right:?}");
        // Where the message is in what leaves.
        let there = right.frame.len() - sound.len() + at;
        let number = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        for wrong_by in [1, 0x8000, 0x1234, 0xfffe] {
            // In one's complement; 0xffff would be right again.
            let plus = |number: u16| {
                let sum = u32::from(number) + wrong_by;
                (sum % 0xffff) as u16
            };
            let sent = patched(&sound, at, &plus(number(&sound, at)).to_be_bytes());
            let (outcome, delta) = kernel.count(&sent);
            assert_eq!(outcome.action, action::TX, "{mode}: {outcome:?}");
            assert_eq!(delta.forwarded(), 1, "{mode}: {delta:?}");
            let expected = plus(number(&right.frame, there));
            assert_eq!(number(&outcome.frame, there) % 0xffff, expected, "{mode}: {wrong_by:#x}");
            let others = patched(&outcome.frame, there, &right.frame[there..there + 2]);
            assert_eq!(others, right.frame, "{mode}: nothing else differs");
        }
    }
}

#[test]
fn a_local_vip_leaves_its_own_errors_to_the_host() {
    let mut kernel = Kernel::shared();
    let mut world = world(Forward::Nat, true, true);
    world.services.iter_mut().for_each(|service| service.is_local = true);
    kernel.enter(world.clone());
    let quoted = answer(&world, 1);
    let ours = error(3, 4, &quoted, 28);
    let of_host = error(3, 4, &quoted.clone().sourced(quoted.ip.source, 22), 28).bytes();
    let passed = Expected::passed_as(&of_host, Reason::NoServicePassed);
    let to_backend = expected(&world, 1, &ours, &quoted, 28);
    check(
        &mut kernel,
        &[Case::new("ours", ours.bytes(), to_backend), Case::new("the host's", of_host, passed)],
    );
}

#[test]
fn it_is_the_client_who_has_to_be_allowed() {
    let mut kernel = Kernel::shared();
    let mut world = world(Forward::Dsr, true, true);
    world.services[0].allow = vec![(ip("192.0.2.0"), 24)];
    world.services[1].allow = vec![(ip("203.0.113.0"), 24)];
    kernel.enter(world.clone());
    let (tcp, udp) = (answer(&world, 1), answer(&world, 2));
    let allowed = error(3, 4, &tcp, 28);
    let expected = expected(&world, 1, &allowed, &tcp, 28);
    check(
        &mut kernel,
        &[
            Case::new("the client is", allowed.bytes(), expected),
            Case::drops("the router is", error(3, 4, &udp, 28).bytes(), 2, Reason::NotAllowed),
        ],
    );
}

/// Where a backend's path complains: `from` says that a packet from the client to the backend did not arrive.
fn complaint(
    world: &World,
    service: u32,
    from: std::net::IpAddr,
    length: usize,
) -> (Packet, Packet) {
    let answer = answer(world, service);
    let backend = &world.services[service as usize - 1].backends[SECOND];
    let (vip, client) = (answer.ip.source, answer.ip.destination);
    let request = answer.sourced(client, 40001).destined(vip, 80);
    let delivered = request.clone().destined(backend.address, backend.port);
    let (kind, code) = if is_v4(world) { (3, 3) } else { (1, 4) };
    let mut error = error(kind, code, &delivered, length);
    (error.from, error.ip.source) = (backend.mac, from);
    let mut expected = error.clone().hop(NIC, CLIENT);
    if from == backend.address {
        expected.ip.source = vip;
    }
    expected.payload = request.ip_bytes()[..length].to_vec();
    (error, expected)
}

#[test]
fn in_nat_a_backends_errors_name_the_vip() {
    let mut kernel = Kernel::shared();
    for world in [world(Forward::Nat, true, true), world(Forward::Nat, false, false)] {
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        let router = if is_v4(&world) { ip("10.3.0.1") } else { ip("fd03::1") };
        for service in [1, 2] {
            let backend = world.services[service as usize - 1].backends[SECOND].address;
            for from in [backend, router] {
                for length in [shortest(&world), shortest(&world) + 500] {
                    let (error, expected) = complaint(&world, service, from, length);
                    let id = world.first_backend(service as usize - 1) + 1;
                    let delta = Delta::reply(id, error.length(), false)
                        .and(service, Reason::IcmpErrorForwarded);
                    let expected = Expected::answered(expected.bytes(), delta);
                    let name = format!("service {service} from {from}, {length} bytes");
                    cases.push(Case::new(name, error.bytes(), expected));
                }
            }
        }
        // Nobody's: a port without a service, and errors about what the backend itself has sent.
        let (mut error, _) = complaint(&world, 1, router, 100);
        let header = shortest(&world) - 8;
        error.payload[header + 2] ^= 0x40;
        cases.push(Case::passes("another port", error.bytes()));
        check(&mut kernel, &cases);
    }
}

#[test]
fn errors_follow_pins_and_write_none() {
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        let mut kernel = Kernel::shared();
        let world = world(forward, true, true);
        kernel.enter(world.clone());
        let quoted = answer(&world, 1);
        let error = error(3, 4, &quoted, 28).bytes();
        let (old, new) = (BackendId(1), BackendId(3));
        let go = |kernel: &Kernel| {
            let outcome = kernel.run(&error);
            assert_eq!(outcome.action, action::TX);
            BackendId(u32::from(outcome.frame[5]) + 1)
        };
        let set_all = |kernel: &mut Kernel, slot| {
            (0..1021).for_each(|index| kernel.set_slot(1, index, slot));
        };
        for phase in [Phase::Window, Phase::Harvest] {
            set_all(&mut kernel, Slot::new(new, old, phase, 0));
            assert_eq!(go(&kernel), old, "{forward:?} {phase:?}: a flow from before");
            assert_eq!(kernel.pin_counts(), (0, 0), "{forward:?} {phase:?}");
        }
        set_all(&mut kernel, Slot::new(new, old, Phase::Window, 0));
        let (vip, client) = (quoted.ip.source, quoted.ip.destination);
        let syn = Packet::tcp("192.0.2.33@40001", &format!("{VIP_V4}@80"), flag::SYN);
        assert_eq!((syn.ip.source, syn.ip.destination), (client, vip));
        assert_eq!(kernel.run(&syn.bytes()).action, action::TX);
        assert_eq!(kernel.pin_counts(), (0, 1), "{forward:?}");
        // The owner changes again; the pin keeps the flow, and its errors, where the SYN went.
        set_all(&mut kernel, Slot::new(BackendId(2), old, Phase::Window, 0));
        assert_eq!(go(&kernel), new, "{forward:?}: an opening flow");
        assert_eq!(kernel.pin_counts(), (0, 1), "{forward:?}");
        let mut rows = kernel.array::<lb_common::abi::BackendRow>(map::BACKENDS);
        let mut row = rows.get(&new.0, 0).expect("within");
        row.flags = backend_flag::RESOLVED | backend_flag::DOWN;
        rows.set(new.0, row, 0).expect("within");
        assert_eq!(go(&kernel), BackendId(2), "{forward:?}: its backend is DOWN");
    }
}
