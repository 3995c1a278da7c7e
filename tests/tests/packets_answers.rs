//! Packets that lb answers itself: echo, resets, ICMP errors.

use lb_common::abi::{Forward, Reason, service_flag};
use lb_tests::kernel::{
    Delta, Kernel, World, action,
    answer::{error, reset, time_exceeded, too_big},
    bytes::{IP, consistent_cut, cut, header, patched},
    case::{Case, Expected, check},
    packet::{Packet, Transport, flag},
    world::{NIC, Service},
};

const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";
const CLIENT_V4: &str = "192.0.2.33";
const CLIENT_V6: &str = "2001:db8:c::33";

/// TCP and UDP, IPv4 and IPv6: services 1 to 4.
fn services(forward: Forward) -> Vec<Service> {
    let v4 = Service::new(VIP_V4, forward, &["10.1.0.1"]);
    let v6 = Service::new(VIP_V6, forward, &["fd01::1"]);
    vec![v4.clone(), v4.port(53).udp(), v6.clone(), v6.port(53).udp()]
}

fn tcp(is_v4: bool, flags: u8) -> Packet {
    match is_v4 {
        true => Packet::tcp(&format!("{CLIENT_V4}@40001"), &format!("{VIP_V4}@80"), flags),
        false => Packet::tcp(&format!("{CLIENT_V6}@40001"), &format!("{VIP_V6}@80"), flags),
    }
}

fn udp(is_v4: bool) -> Packet {
    match is_v4 {
        true => Packet::udp(&format!("{CLIENT_V4}@40001"), &format!("{VIP_V4}@53")),
        false => Packet::udp(&format!("{CLIENT_V6}@40001"), &format!("{VIP_V6}@53")),
    }
}

fn echo(is_v4: bool) -> Packet {
    if is_v4 { Packet::echo(CLIENT_V4, VIP_V4) } else { Packet::echo(CLIENT_V6, VIP_V6) }
}

#[test]
fn echo_is_answered_for_every_checksum() {
    let mut kernel = Kernel::shared();
    kernel.enter(World::of(services(Forward::Nat)));
    for is_v4 in [true, false] {
        let before = kernel.counts();
        for value in 0..=u16::MAX {
            // B59, B88: the identifier runs through all values, and so does the checksum.
            let [a, b] = value.to_be_bytes();
            let mut request = echo(is_v4);
            let Transport::Icmp { rest, .. } = &mut request.transport else { panic!("no echo") };
            *rest = [a, b, 0, 1];
            let outcome = kernel.run(&request.bytes());
            let expected = request.echo_reply().bytes();
            assert!(
                outcome.action == action::TX && outcome.frame == expected,
                "identifier {value:#06x}: {outcome:?}"
            );
        }
        let delta = kernel.counts().since(&before);
        assert_eq!(delta.total(Reason::Echo), 65_536, "{delta:?}");
        assert_eq!(delta.reasons.len(), 1, "{delta:?}");
    }
}

#[test]
fn s06_echo_is_answered_at_every_length_and_with_as_many_bytes() {
    let mut kernel = Kernel::shared();
    kernel.enter(World::of(services(Forward::Dsr)));
    let mut cases = Vec::new();
    for is_v4 in [true, false] {
        for length in (0..=1472).chain([2000, 3000]) {
            let request = echo(is_v4).filled(length);
            let delta = Delta::reason(0, Reason::Echo);
            let expected = Expected::answered(request.echo_reply().bytes(), delta);
            cases.push(Case::new(format!("echo of {length}"), request.bytes(), expected));
        }
        let odd = echo(is_v4).filled(13).trailer(&[0xee; 9]);
        let delta = Delta::reason(0, Reason::Echo);
        let expected = Expected::answered(odd.echo_reply().bytes(), delta);
        cases.push(Case::new("B06: echo with a trailer", odd.bytes(), expected));
        for hop_limit in [1, 2, 255] {
            // It has arrived: the hop limit does not matter any more.
            let request = echo(is_v4).ip(|ip| (ip.hop_limit, ip.class) = (hop_limit, 0xb9));
            let delta = Delta::reason(0, Reason::Echo);
            let expected = Expected::answered(request.echo_reply().bytes(), delta);
            cases.push(Case::new(format!("echo, {hop_limit} hops"), request.bytes(), expected));
        }
    }
    check(&mut kernel, &cases);
}

#[test]
fn broken_echo_requests_are_dropped() {
    let mut kernel = Kernel::shared();
    kernel.enter(World::of(services(Forward::Ipip)));
    let mut cases = Vec::new();
    for is_v4 in [true, false] {
        let frame = echo(is_v4).filled(31).bytes();
        let icmp = IP + header(&frame);
        for length in icmp..frame.len() {
            // B61
            let name = format!("B61: cut to {length}");
            cases.push(Case::drops(name, cut(&frame, length), 0, Reason::L3Length));
        }
        for length in 8..frame.len() - icmp {
            let name = format!("B61: cut to {length}, the IP length too");
            let cut = consistent_cut(&frame, length);
            cases.push(Case::drops(name, cut, 0, Reason::IcmpChecksum));
        }
        for bit in 0..(frame.len() - icmp) * 8 {
            if bit / 8 == 0 {
                continue; // another type
            }
            let byte = icmp + bit / 8;
            let broken = patched(&frame, byte, &[frame[byte] ^ 1 << (bit % 8)]);
            cases.push(Case::drops(format!("bit {bit}"), broken, 0, Reason::IcmpChecksum));
        }
    }
    check(&mut kernel, &cases);
}

#[test]
fn the_last_hop_is_told() {
    let mut kernel = Kernel::shared();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        kernel.enter(World::of(services(forward)));
        let mut cases = Vec::new();
        for is_v4 in [true, false] {
            for length in [0, 1, 100, 1400] {
                let tcp = (tcp(is_v4, flag::ACK), if is_v4 { 1 } else { 3 });
                let udp = (udp(is_v4), if is_v4 { 2 } else { 4 });
                for (packet, service) in [tcp, udp] {
                    // B20, B77
                    let packet = packet.filled(length).ip(|ip| ip.hop_limit = 1);
                    let delta =
                        Delta::reason(service, Reason::Ttl).and(service, Reason::TimeExceededSent);
                    let frame = time_exceeded(&packet).bytes();
                    let expected = Expected::answered(frame, delta);
                    let name = format!("{forward:?}: {length} bytes");
                    cases.push(Case::new(name, packet.bytes(), expected));
                }
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn no_hop_at_all_is_never_forwarded() {
    let mut kernel = Kernel::shared();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        kernel.enter(World::of(services(forward)));
        let mut cases = Vec::new();
        for (packet, service) in
            [(tcp(true, flag::SYN), 1), (udp(true), 2), (tcp(false, flag::SYN), 3), (udp(false), 4)]
        {
            // B19: the sender is told as by any last hop.
            let packet = packet.ip(|ip| ip.hop_limit = 0);
            let delta = Delta::reason(service, Reason::Ttl).and(service, Reason::TimeExceededSent);
            let expected = Expected::answered(time_exceeded(&packet).bytes(), delta);
            cases.push(Case::new(format!("{forward:?}: no hop"), packet.bytes(), expected));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn s06_errors_are_rate_limited() {
    let mut kernel = Kernel::shared();
    kernel.enter(World::of(services(Forward::Nat)));
    let frame = tcp(true, flag::ACK).ip(|ip| ip.hop_limit = 1).bytes();
    let before = kernel.counts();
    let rounds = 5000;
    let answered = (0..rounds).filter(|_| kernel.run(&frame).action == action::TX).count() as u64;
    let delta = kernel.counts().since(&before);
    // R8: 100 a second and a burst; 5000 packets take far less than a second's worth of seconds.
    assert!((1..1000).contains(&answered), "{answered} of {rounds} answered");
    assert_eq!(delta.total(Reason::TimeExceededSent), answered, "{delta:?}");
    assert_eq!(delta.total(Reason::Ttl), rounds, "{delta:?}");
    assert_eq!(delta.total(Reason::IcmpLimited), rounds - answered, "{delta:?}");
}

#[test]
fn what_does_not_fit_the_tunnel_is_answered() {
    let mut kernel = Kernel::shared();
    let with_outer = |backends: [&str; 2]| {
        let [for_v4, for_v6] = backends;
        let v4 = Service::new(VIP_V4, Forward::Ipip, &[for_v4]);
        let v6 = Service::new(VIP_V6, Forward::Ipip, &[for_v6]);
        World::of([v4.clone(), v4.port(53).udp(), v6.clone(), v6.port(53).udp()])
    };
    for (backends, overhead) in [(["10.1.0.1", "10.1.0.1"], 20u16), (["fd01::1", "fd01::1"], 40)] {
        let world = with_outer(backends);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        let room = 1500 - overhead;
        for is_v4 in [true, false] {
            for fragmentable in [false, true] {
                let packet = tcp(is_v4, flag::ACK).ip(|ip| ip.dont_fragment = !fragmentable);
                let (service, bare) = (if is_v4 { 1 } else { 3 }, packet.length());
                let fitting = packet.clone().filled(usize::from(room) - bare);
                let name = format!("{room} bytes in {backends:?}");
                cases.push(Case::forwards(name, &world, &fitting, service, 0));
                for length in [room + 1, 1500] {
                    // B93, B94, B96
                    let packet = packet.clone().filled(usize::from(length) - bare);
                    let frame = too_big(&packet, room).bytes();
                    let delta =
                        Delta::reason(service, Reason::TooBig).and(service, Reason::TooBigSent);
                    let expected = Expected::answered(frame, delta);
                    let name = format!("{length} bytes, room for {room}");
                    cases.push(Case::new(name, packet.bytes(), expected));
                }
            }
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn what_does_not_fit_the_link_is_answered() {
    let mut kernel = Kernel::shared();
    for forward in [Forward::Nat, Forward::Dsr] {
        let services = services(forward).into_iter().map(|s| s.each(|backend| backend.mtu = 1400));
        let world = World::of(services);
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for is_v4 in [true, false] {
            let (packet, service) = (udp(is_v4), if is_v4 { 2 } else { 4 });
            let bare = packet.clone().filled(0).length();
            let fitting = packet.clone().filled(1400 - bare);
            cases.push(Case::forwards("1400 bytes", &world, &fitting, service, 0));
            // B95
            let packet = packet.filled(1401 - bare);
            let frame = too_big(&packet, 1400).bytes();
            let delta = Delta::reason(service, Reason::TooBig).and(service, Reason::TooBigSent);
            let expected = Expected::answered(frame, delta);
            cases.push(Case::new(format!("{forward:?}: 1401 bytes"), packet.bytes(), expected));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn on_all_down_reject_refuses_at_once() {
    let mut kernel = Kernel::shared();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        let services =
            services(forward).into_iter().map(|service| service.flags(service_flag::REJECT));
        kernel.enter(World::of(services));
        let mut cases = Vec::new();
        for is_v4 in [true, false] {
            let (tcp_service, udp_service) = if is_v4 { (1, 2) } else { (3, 4) };
            for (flags, length) in [
                (flag::SYN, 0),
                (flag::SYN, 20),
                (flag::ACK, 0),
                (flag::ACK | flag::PSH, 700),
                (flag::FIN | flag::ACK, 0),
                (flag::FIN, 3),
                (flag::SYN | flag::ACK, 0),
            ] {
                let packet = tcp(is_v4, flags)
                    .filled(length)
                    .ip(|ip| ip.class = 0x4a)
                    .with_tcp(|tcp| tcp.options = vec![1; 12]);
                let delta = Delta::reason(tcp_service, Reason::Reject);
                let expected = Expected::answered(reset(&packet).bytes(), delta);
                let name = format!("{forward:?}: flags {flags:#x}, {length} bytes");
                cases.push(Case::new(name, packet.bytes(), expected));
            }
            // A reset is never answered.
            let name = format!("{forward:?}: RST");
            let frame = tcp(is_v4, flag::RST).bytes();
            cases.push(Case::drops(name, frame, tcp_service, Reason::NoBackend));
            let packet = udp(is_v4);
            let code = if is_v4 { (3, 3) } else { (1, 4) };
            let delta = Delta::reason(udp_service, Reason::Reject);
            let expected = Expected::answered(error(&packet, code, [0; 4]).bytes(), delta);
            cases.push(Case::new(format!("{forward:?}: UDP"), packet.bytes(), expected));
            // What is broken is dropped, not answered.
            let wrong = patched(&udp(is_v4).bytes(), IP + if is_v4 { 24 } else { 44 }, &[0, 1]);
            let name = format!("{forward:?}: broken UDP");
            cases.push(Case::drops(name, wrong, udp_service, Reason::UdpLength));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn on_all_down_drop_drops() {
    let mut kernel = Kernel::shared();
    let services =
        services(Forward::Nat).into_iter().map(|service| service.flags(service_flag::DROP));
    kernel.enter(World::of(services));
    let mut cases = Vec::new();
    for (packet, service) in
        [(tcp(true, flag::SYN), 1), (udp(true), 2), (tcp(false, flag::ACK), 3), (udp(false), 4)]
    {
        cases.push(Case::drops("drop", packet.bytes(), service, Reason::NoBackend));
    }
    check(&mut kernel, &cases);
}

#[test]
fn drained_services_refuse_new_flows_only() {
    let mut kernel = Kernel::shared();
    for (flags, refused) in
        [(service_flag::REJECT, Reason::Reject), (service_flag::DROP, Reason::NoBackend)]
    {
        let flags = flags | service_flag::NEW_ONLY;
        let world = World::of(services(Forward::Nat).into_iter().map(|s| s.flags(flags)));
        kernel.enter(world.clone());
        let mut cases = Vec::new();
        for (is_v4, service) in [(true, 1), (false, 3)] {
            let old = tcp(is_v4, flag::ACK).filled(10);
            cases.push(Case::forwards("an old flow", &world, &old, service, 0));
            let new = tcp(is_v4, flag::SYN);
            let expected = match refused {
                Reason::Reject => {
                    let delta = Delta::reason(service, Reason::Reject);
                    Expected::answered(reset(&new).bytes(), delta)
                }
                reason => Expected::dropped(service, reason),
            };
            cases.push(Case::new("a new flow", new.bytes(), expected));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    // The reply's source MAC is the one the request was sent to, whichever the NIC's is.
    let mut kernel = Kernel::shared();
    kernel.enter(World::of(services(Forward::Nat)));
    let request = echo(true);
    let outcome = kernel.run(&request.bytes());
    assert_eq!(outcome.frame[6..12], NIC);
}
