//! Who may in, by which NIC, to which ports, and what happens where no next hop is known.

use std::{fs, net::IpAddr, process::Command};

use aya::maps::{RingBuf, xdp::DevMapHash};
use lb_common::abi::{Forward, NeighbourWanted, Reason, backend_flag, map, service_flag};
use lb_tests::kernel::{
    Delta, INGRESS, Kernel, World, action,
    case::{Case, Expected, check, expected_frame},
    packet::{Packet, flag},
    world::{CLIENT, NIC, Route, Service, ip},
};

const VIP_V4: &str = "198.51.100.7";
const VIP_V6: &str = "2001:db8:5::7";

fn v4(forward: Forward) -> Service {
    Service::new(VIP_V4, forward, &["10.1.0.1"])
}

fn v6(forward: Forward) -> Service {
    Service::new(VIP_V6, forward, &["fd01::1"])
}

fn tcp_v4(source: &str) -> Packet {
    Packet::tcp(&format!("{source}@40001"), "198.51.100.7@80", flag::SYN)
}

fn tcp_v6(source: &str) -> Packet {
    Packet::tcp(&format!("{source}@40001"), "2001:db8:5::7@80", flag::SYN)
}

#[test]
fn only_allowed_clients_get_in() {
    let mut kernel = Kernel::shared();
    let mut first = v4(Forward::Nat);
    first.allow = vec![(ip("192.0.2.32"), 28), (ip("203.0.113.9"), 32)];
    let mut second = v6(Forward::Dsr);
    second.allow = vec![(ip("2001:db8:c::"), 48)];
    // Another service's list must not let anybody in here.
    let mut third = v4(Forward::Nat).port(81);
    third.allow = vec![(ip("10.0.0.0"), 8)];
    let world = World::of([first, second, third]);
    kernel.enter(world.clone());
    let mut cases = Vec::new();
    for (source, is_allowed) in [
        ("192.0.2.31", false),
        ("192.0.2.32", true),
        ("192.0.2.47", true),
        ("192.0.2.48", false),
        ("203.0.113.9", true),
        ("203.0.113.8", false),
        ("10.0.0.1", false),
    ] {
        let packet = tcp_v4(source);
        cases.push(match is_allowed {
            true => Case::forwards(source, &world, &packet, 1, 0),
            false => Case::drops(source, packet.bytes(), 1, Reason::NotAllowed),
        });
    }
    for (source, is_allowed) in
        [("2001:db8:c::33", true), ("2001:db8:c:ffff::1", true), ("2001:db8:d::1", false)]
    {
        let packet = tcp_v6(source);
        cases.push(match is_allowed {
            true => Case::forwards(source, &world, &packet, 2, 0),
            false => Case::drops(source, packet.bytes(), 2, Reason::NotAllowed),
        });
    }
    check(&mut kernel, &cases);
}

#[test]
fn denied_clients_do_not_get_in_whatever_else_is_said() {
    let mut kernel = Kernel::shared();
    let mut first = v4(Forward::Nat);
    first.deny = vec![(ip("192.0.2.32"), 28), (ip("203.0.113.9"), 32)];
    let mut second = v6(Forward::Ipip);
    second.deny = vec![(ip("2001:db8:c::"), 48)];
    let mut third = v4(Forward::Dsr).port(81);
    third.allow = vec![(ip("192.0.2.0"), 24)];
    third.deny = vec![(ip("192.0.2.128"), 25)];
    // All backends gone: who is denied gets no reset either.
    let mut fourth = v4(Forward::Nat).port(82);
    fourth.flags = service_flag::REJECT;
    fourth.deny = vec![(ip("192.0.2.32"), 28)];
    let world = World::of([first, second, third, fourth]);
    kernel.enter(world.clone());
    let mut cases = Vec::new();
    for (source, is_denied) in [
        ("192.0.2.31", false),
        ("192.0.2.32", true),
        ("192.0.2.47", true),
        ("192.0.2.48", false),
        ("203.0.113.9", true),
        ("203.0.113.8", false),
    ] {
        let packet = tcp_v4(source);
        cases.push(match is_denied {
            false => Case::forwards(source, &world, &packet, 1, 0),
            true => Case::drops(source, packet.bytes(), 1, Reason::Denied),
        });
        let other = Packet::tcp(&format!("{source}@40001"), "198.51.100.7@82", flag::ACK);
        if is_denied && source != "203.0.113.9" {
            cases.push(Case::drops("no reset", other.bytes(), 4, Reason::Denied));
        }
    }
    for (source, is_denied) in [("2001:db8:c::33", true), ("2001:db8:d::1", false)] {
        let packet = tcp_v6(source);
        cases.push(match is_denied {
            false => Case::forwards(source, &world, &packet, 2, 0),
            true => Case::drops(source, packet.bytes(), 2, Reason::Denied),
        });
    }
    let both = |source: &str| Packet::tcp(&format!("{source}@1"), "198.51.100.7@81", flag::SYN);
    cases.push(Case::forwards("allowed", &world, &both("192.0.2.1"), 3, 0));
    cases.push(Case::drops("both", both("192.0.2.129").bytes(), 3, Reason::Denied));
    cases.push(Case::drops("neither", both("203.0.113.1").bytes(), 3, Reason::NotAllowed));
    check(&mut kernel, &cases);
}

#[test]
fn a_service_is_reachable_by_its_nics_only() {
    let mut kernel = Kernel::shared();
    for (number, mask, is_reachable) in
        [(0, 1, true), (0, 2, false), (3, 8, true), (3, 0xffff_fff7, false), (31, 1 << 31, true)]
    {
        let mut service = v4(Forward::Nat);
        service.interfaces = Some(mask);
        let mut world = World::of([service]);
        world.interfaces = vec![(INGRESS, number)];
        kernel.enter(world.clone());
        let packet = tcp_v4("192.0.2.33");
        let name = format!("NIC {number}, mask {mask:#x}");
        let case = match is_reachable {
            true => Case::forwards(name, &world, &packet, 1, 0),
            false => Case::drops(name, packet.bytes(), 0, Reason::NoService),
        };
        check(&mut kernel, &[case]);
    }
    // A NIC that lb does not know reaches nothing that is restricted.
    let mut service = v4(Forward::Nat);
    service.interfaces = Some(u32::MAX);
    kernel.enter(World::of([service]));
    let frame = tcp_v4("192.0.2.33").bytes();
    check(&mut kernel, &[Case::drops("unknown NIC", frame, 0, Reason::NoService)]);
}

#[test]
fn ports_and_protocols_without_a_service() {
    let mut kernel = Kernel::shared();
    for is_local in [false, true] {
        let (v4, v6) = (v4(Forward::Nat), v6(Forward::Ipip));
        let mut services = [v4.clone(), v6.clone(), v4.port(53).udp(), v6.port(53).udp()];
        services.iter_mut().for_each(|service| service.is_local = is_local);
        kernel.enter(World::of(services));
        let mut cases = Vec::new();
        for packet in [
            Packet::tcp("192.0.2.33@40001", "198.51.100.7@22", flag::SYN),
            Packet::tcp("192.0.2.33@40001", "198.51.100.7@81", flag::ACK),
            Packet::udp("192.0.2.33@40001", "198.51.100.7@80"), // B51
            Packet::tcp("2001:db8:c::33@40001", "2001:db8:5::7@22", flag::SYN),
            Packet::udp("2001:db8:c::33@40001", "2001:db8:5::7@80"),
            Packet::tcp("192.0.2.33@40001", "198.51.100.7@53", flag::SYN),
            Packet::tcp("2001:db8:c::33@40001", "2001:db8:5::7@53", flag::SYN),
        ] {
            let frame = packet.bytes();
            let expected = match is_local {
                // S22, S23: ssh to the host goes on working whatever the services say.
                true => Expected::passed_as(&frame, Reason::NoServicePassed),
                false => Expected::dropped(0, Reason::NoService),
            };
            cases.push(Case::new(
                format!("local {is_local}: {:?}", packet.transport),
                frame,
                expected,
            ));
        }
        check(&mut kernel, &cases);
    }
    // B56: a service that is gone is no service.
    kernel.enter(World::default());
    let frame = tcp_v4("192.0.2.33").bytes();
    check(&mut kernel, &[Case::passes("a VIP that is gone", frame)]);
}

#[test]
fn the_hosts_own_addresses_pass_everything() {
    let mut kernel = Kernel::shared();
    let mut world = World::of([v4(Forward::Nat), v6(Forward::Nat)]);
    world.hosts = vec![ip("10.1.0.254"), ip("fd01::fe")];
    kernel.enter(world);
    let packets = [
        Packet::tcp("192.0.2.33@40001", "10.1.0.254@22", flag::SYN),
        Packet::tcp("10.1.0.1@8080", "10.1.0.254@50000", flag::SYN | flag::ACK),
        Packet::udp("192.0.2.33@40001", "10.1.0.254@53"),
        Packet::echo("192.0.2.33", "10.1.0.254"),
        Packet::tcp("fd01::1@8080", "fd01::fe@50000", flag::SYN | flag::ACK),
        Packet::echo("2001:db8:c::33", "fd01::fe"),
    ];
    let cases: Vec<Case> =
        packets.iter().map(|p| Case::passes(format!("{:?}", p.ip), p.bytes())).collect();
    check(&mut kernel, &cases);
}

#[test]
fn a_ring_without_a_backend_drops() {
    let mut kernel = Kernel::shared();
    let none = |vip| Service::new(vip, Forward::Nat, &[]);
    kernel.enter(World::of([none(VIP_V4), none(VIP_V6)]));
    let cases = [
        Case::drops("v4", tcp_v4("192.0.2.33").bytes(), 1, Reason::NoBackend),
        Case::drops("v6", tcp_v6("2001:db8:c::33").bytes(), 2, Reason::NoBackend),
    ];
    check(&mut kernel, &cases);
}

/// The backend's next hop is not resolved.
fn unresolved(service: Service) -> Service {
    service.each(|backend| backend.flags &= !backend_flag::RESOLVED)
}

fn wanted(kernel: &mut Kernel) -> Vec<IpAddr> {
    let map = kernel.ebpf().map_mut(map::WANTED).expect("the program declares it");
    let mut ring = RingBuf::try_from(map).expect("its type");
    let mut addresses = Vec::new();
    while let Some(record) = ring.next() {
        assert_eq!(record.len(), size_of::<NeighbourWanted>());
        // SAFETY: the program's record, of the length just checked; integers take any value.
        let record = unsafe { record.as_ptr().cast::<NeighbourWanted>().read_unaligned() };
        addresses.push(record.address.into());
    }
    addresses
}

#[test]
fn unknown_next_hops_drop_and_are_asked_for() {
    let mut kernel = Kernel::shared();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        kernel.enter(World::of([unresolved(v4(forward)), unresolved(v6(forward))]));
        wanted(&mut kernel);
        let cases = [
            Case::drops("v4", tcp_v4("192.0.2.33").bytes(), 1, Reason::NoNextHop),
            Case::drops("v6", tcp_v6("2001:db8:c::33").bytes(), 2, Reason::NoNextHop),
        ];
        check(&mut kernel, &cases);
        assert_eq!(wanted(&mut kernel), [ip("10.1.0.1"), ip("fd01::1")], "{forward:?}");
        // A flood of packets makes no flood of wishes.
        let frame = tcp_v4("192.0.2.33").bytes();
        for _ in 0..5000 {
            assert_eq!(kernel.run(&frame).action, action::DROP);
        }
        let wishes = wanted(&mut kernel).len();
        assert!(wishes < 200, "{wishes} wishes for 5000 packets");
    }
}

#[test]
fn replies_without_a_route_ask_for_the_gateway() {
    let mut kernel = Kernel::shared();
    let mut world = World::of([v4(Forward::Nat)]);
    let gateway = ip("10.1.0.253");
    world.routes =
        vec![Route { prefix: (ip("0.0.0.0"), 0), gateway: Some((gateway, None)), mtu: 1500 }];
    kernel.enter(world);
    wanted(&mut kernel);
    // A client who has not been seen: by its requests lb would know a way back.
    let reply = Packet::tcp("10.1.0.1@8080", "192.0.2.234@40001", flag::ACK);
    check(&mut kernel, &[Case::drops("no MAC", reply.bytes(), 1, Reason::NoNextHop)]);
    assert_eq!(wanted(&mut kernel), [gateway]);
}

#[test]
fn few_routes_and_the_trie_give_replies_the_same_way() {
    let mut kernel = Kernel::shared();
    let route = |prefix: &str, bits, last| Route {
        prefix: (ip(prefix), bits),
        gateway: Some((
            ip(if prefix.contains(':') { "fd01::fe" } else { "10.1.0.254" }),
            Some([2, 0, 0, 0, 0, last]),
        )),
        mtu: 1500,
    };
    let mut world = World::of([v4(Forward::Nat), v6(Forward::Nat)]);
    world.routes = vec![
        route("0.0.0.0", 0, 1),
        route("192.0.0.0", 9, 2),
        route("192.0.2.128", 25, 3),
        route("192.0.2.200", 32, 4),
        route("2001:db8::", 33, 5),
        route("2001:db8:c:1::", 64, 6),
    ];
    let replies = [
        ("10.1.0.1", "192.0.2.200", Some(4)),
        ("10.1.0.1", "192.0.2.201", Some(3)),
        ("10.1.0.1", "192.0.2.7", Some(2)),
        ("10.1.0.1", "192.128.0.1", Some(1)),
        ("fd01::1", "2001:db8:c:1::9", Some(6)),
        ("fd01::1", "2001:db8:c:2::9", Some(5)),
        ("fd01::1", "2001:db8:8000::9", None),
    ];
    for ask_trie in [false, true] {
        world.ask_trie = ask_trie;
        kernel.enter(world.clone());
        for (backend, client, last) in replies {
            let reply =
                Packet::tcp(&format!("{backend}@8080"), &format!("{client}@1024"), flag::ACK);
            let sent = kernel.run(&reply.bytes());
            let way = (sent.action == action::TX).then(|| sent.frame[5]);
            assert_eq!(way, last, "to {client}, trie: {ask_trie}");
        }
    }
}

#[test]
fn the_first_reply_to_a_new_neighbour_goes_the_way_its_request_came() {
    let mut kernel = Kernel::shared();
    let mut world = World::of([v4(Forward::Nat), v6(Forward::Nat)]);
    let on_link = |prefix: &str| Route { prefix: (ip(prefix), 24), gateway: None, mtu: 1500 };
    world.routes = vec![on_link("192.0.2.0"), on_link("2001:db8:c::")];
    kernel.enter(world);
    for (request, client, backend) in [
        (tcp_v4("192.0.2.201"), "192.0.2.201", "10.1.0.1"),
        (tcp_v6("2001:db8:c::201"), "2001:db8:c::201", "fd01::1"),
    ] {
        let reply = Packet::tcp(&format!("{backend}@8080"), &format!("{client}@1024"), flag::ACK);
        wanted(&mut kernel);
        assert_eq!(kernel.run(&reply.bytes()).action, action::DROP, "nobody knows {client}");
        assert_eq!(wanted(&mut kernel), [ip(client)]);
        let request = request.bytes();
        assert_eq!(kernel.run(&request).action, action::TX);
        let sent = kernel.run(&reply.bytes());
        assert_eq!(sent.action, action::TX, "{client} has been seen");
        assert_eq!(sent.frame[..6], request[6..12], "to the MAC address its request came from");
    }
}

fn command(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let status = Command::new(program).args(words).status().expect("it starts");
    assert!(status.success(), "`{line}`: {status}");
}

/// In this thread's network namespace: a NIC `out` with 10.1.0.254 and fd01::fe; its index.
fn make_nic() -> u32 {
    command("ip link add out type veth peer name far");
    command("ip link set out address 02:00:00:00:00:0e up");
    command("ip link set far up");
    command("ip link set lo up");
    command("ip address add 10.1.0.254/24 dev out");
    command("ip address add fd01::fe/64 dev out nodad");
    command("ip neighbour add 10.1.0.1 lladdr 02:00:00:00:bb:00 dev out nud permanent");
    command("ip neighbour add fd01::1 lladdr 02:00:00:00:bb:00 dev out nud permanent");
    for family in ["ipv4", "ipv6"] {
        let path = format!("/proc/thread-self/root/proc/sys/net/{family}/conf/all/forwarding");
        fs::write(&path, "1").unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    nix::net::if_::if_nametoindex("out").expect("it was just made")
}

#[test]
fn another_nic_is_reached_by_redirect() {
    let mut kernel = Kernel::shared();
    let index = make_nic();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        let by_out = |service: Service| service.each(|backend| backend.ifindex = index);
        let world = World::of([by_out(v4(forward)), by_out(v6(forward))]);
        kernel.enter(world.clone());
        let packets = [(tcp_v4("192.0.2.33"), 1), (tcp_v6("2001:db8:c::33"), 2)];
        let drops = packets.iter().map(|(packet, service)| {
            Case::drops(
                format!("{forward:?}: not attached"),
                packet.bytes(),
                *service,
                Reason::EgressFailed,
            )
        });
        check(&mut kernel, &drops.collect::<Vec<_>>());
        let map = kernel.ebpf().map_mut(map::DEVICES).expect("the program declares it");
        let mut devices = DevMapHash::try_from(map).expect("its type");
        devices.insert(index, index, None, 0).expect("the NIC exists");
        let redirects = packets.iter().map(|(packet, service)| {
            let frame = expected_frame(&world, packet, *service, 0);
            let expected = Expected::forwarded(packet, *service, true, frame).redirected();
            Case::new(format!("{forward:?}"), packet.bytes(), expected)
        });
        check(&mut kernel, &redirects.collect::<Vec<_>>());
        let map = kernel.ebpf().map_mut(map::DEVICES).expect("the program declares it");
        DevMapHash::try_from(map).expect("its type").remove(index).expect("it is there");
    }
}

#[test]
fn unresolved_next_hops_are_looked_up_in_the_kernels_tables() {
    let mut kernel = Kernel::shared();
    let index = make_nic();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        let world = World::of([unresolved(v4(forward)), unresolved(v6(forward))]);
        kernel.enter(world.clone());
        let map = kernel.ebpf().map_mut(map::DEVICES).expect("the program declares it");
        let mut devices = DevMapHash::try_from(map).expect("its type");
        devices.insert(index, index, None, 0).expect("the NIC exists");
        for (packet, service) in [(tcp_v4("192.0.2.33"), 1), (tcp_v6("2001:db8:c::33"), 2)] {
            let mut frame = expected_frame(&world, &packet, service, 0);
            // The kernel's own answer: the NIC's address as the source.
            frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x0e]);
            let expected = Expected::forwarded(&packet, service, true, frame).redirected();
            check(&mut kernel, &[Case::new(format!("{forward:?}"), packet.bytes(), expected)]);
        }
        let map = kernel.ebpf().map_mut(map::DEVICES).expect("the program declares it");
        DevMapHash::try_from(map).expect("its type").remove(index).expect("it is there");
    }
}

#[test]
fn our_own_frames_are_dropped() {
    let mut kernel = Kernel::shared();
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        kernel.enter(World::of([v4(forward), v6(forward)]));
        let mut cases = Vec::new();
        for (packet, service) in [(tcp_v4("192.0.2.33"), 1), (tcp_v6("2001:db8:c::33"), 2)] {
            // B10: they come from the NIC that they would leave by.
            let mut frame = packet.bytes();
            frame[6..12].copy_from_slice(&NIC);
            cases.push(Case::drops(format!("{forward:?}"), frame, service, Reason::LoopSourceMac));
        }
        check(&mut kernel, &cases);
    }
}

#[test]
fn a_loop_is_broken() {
    // B92: a frame of ours comes back by way of a router.
    let mut kernel = Kernel::shared();
    let world = World::of([v4(Forward::Dsr)]);
    kernel.enter(world);
    let mut frame = tcp_v4("192.0.2.33").bytes();
    for round in 0..64 {
        let (outcome, delta) = kernel.count(&frame);
        if outcome.frame[26..30] != frame[26..30] {
            // The client is told that the hop limit of 61 ran out.
            let told = Delta::reason(1, Reason::Ttl).and(1, Reason::TimeExceededSent);
            assert_eq!((round, outcome.action, delta), (60, action::TX, told));
            return;
        }
        assert_eq!(outcome.action, action::TX, "round {round}");
        assert!(outcome.frame[22] < frame[22], "round {round}: the hop limit does not fall");
        frame = outcome.frame;
        frame[6..12].copy_from_slice(&CLIENT);
    }
    panic!("the frame went round 64 times");
}
