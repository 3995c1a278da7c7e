//! The services that packets are made for.

use std::net::IpAddr;

use lb_common::abi::{
    BackendId, FlowKey, Forward, OpeningRules, Phase, Pin, Slot, algorithm, map, protocol,
    service_flag,
};
use lb_tests::kernel::{
    Kernel, World,
    packet::{Packet, Transport, flag},
    world::{Backend, CLIENT, Route, Service, ip},
};
use lb_userspace::plan::ring::{Member, owners, ring_length};

/// Backends of a service.
pub const BACKENDS: usize = 100;
/// Clients of services with lists: more would meet the prefixes around them.
pub const DENY_FLOWS: u32 = 1 << 10;

/// Services that do not let everybody in, all dsr and IPv4, by what they have.
pub const GUARDS: [(&str, Guard); 7] = [
    ("deny-0", Guard::Deny(0)),
    ("deny-1", Guard::Deny(1)),
    ("deny-1000", Guard::Deny(1_000)),
    ("deny-100000", Guard::Deny(100_000)),
    ("limits", Guard::Limits),
    ("syn-flood-idle", Guard::Stage(u32::MAX)),
    ("syn-flood-challenge", Guard::Stage(1)),
];

/// What keeps clients out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// So many prefixes (or a few less), none of which is the clients'.
    Deny(u32),
    /// Limits of rate, none of which is reached.
    Limits,
    /// The SYN-flood stage, engaged by so many SYNs.
    Stage(u32),
}

/// Digit of the first service of [`guarded`].
pub const GUARDED_DIGIT: u8 = 21;

/// One service for each guard.
pub fn guarded() -> World {
    let services = GUARDS.iter().enumerate().map(|(index, (_, guard))| {
        let mut service = dsr(index as u8 + GUARDED_DIGIT);
        match *guard {
            Guard::Deny(count) => {
                // All over the clients' 10.0.0.0/8 but for those who are measured, so that the way through the trie is long.
                let gap = (1 << 24) / count.max(1);
                let prefix = |number: u32| (0x0a00_0000 + number * gap, 28 + number % 5);
                let network = |(address, length): (u32, u32)| {
                    (IpAddr::from((address & u32::MAX << (32 - length)).to_be_bytes()), length)
                };
                let clients = 0x0a40_0000..0x0a40_0000 + DENY_FLOWS;
                let is_other = |(address, _): &(u32, u32)| !clients.contains(address);
                service.deny = (0..count).map(prefix).filter(is_other).map(network).collect();
            }
            Guard::Limits => {
                service.flags |= service_flag::LIMIT_OPENINGS;
                service.openings = OpeningRules {
                    interval: 1,
                    burst: u64::from(u32::MAX),
                    source_interval: 1,
                    source_burst: u64::from(u32::MAX),
                    ..OpeningRules::default()
                };
            }
            Guard::Stage(engage) => {
                service.flags |= service_flag::SYN_FLOOD;
                service.openings = OpeningRules { engage, release: 1, ..OpeningRules::default() };
            }
        }
        service
    });
    World::of(services)
}

/// A service of dsr for IPv4.
pub fn dsr(digit: u8) -> Service {
    let mut service = Service::new(&vip(true, digit), Forward::Dsr, &[]);
    service.backends = (0..BACKENDS).map(|n| backend(true, digit, n)).collect();
    service
}

/// Backend `number` of the service with this digit in its addresses.
pub fn backend(is_v4: bool, service: u8, number: usize) -> Backend {
    let (high, low) = (number / 250, number % 250 + 1);
    let address = match is_v4 {
        true => format!("10.{service}.{high}.{low}"),
        false => format!("fd{service:02x}::{high:x}:{low:x}"),
    };
    Backend::new(&address, number as u8)
}

/// VIP of the service with this digit.
pub fn vip(is_v4: bool, service: u8) -> String {
    if is_v4 { format!("198.51.100.{service}") } else { format!("2001:db8:5::{service}") }
}

/// One service a mode, with 100 backends of equal weight on the ring that lb would make; their digits begin with `first`.
pub fn of_modes(modes: &[(&str, Forward, bool, bool)], first: u8) -> World {
    let services =
        modes.iter().enumerate().map(|(index, (_, forward, vip_is_v4, backend_is_v4))| {
            let digit = index as u8 + first;
            let mut service = Service::new(&vip(*vip_is_v4, digit), *forward, &[]);
            // First fragments of UDP go the same way.
            service.flags |= service_flag::FRAGMENTS;
            service.backends = (0..BACKENDS).map(|n| backend(*backend_is_v4, digit, n)).collect();
            service.ring = ring(&service.backends);
            service
        });
    let services: Vec<Service> = services.collect();
    let udp: Vec<Service> = services.iter().map(|service| service.clone().udp()).collect();
    let mut world = World::of(services.into_iter().chain(udp));
    let gateway = |address: &str| Some((ip(address), Some(CLIENT)));
    world.routes = vec![
        Route { prefix: (ip("0.0.0.0"), 0), gateway: gateway("10.1.0.254"), mtu: 1500 },
        Route { prefix: (ip("::"), 0), gateway: gateway("fd01::fe"), mtu: 1500 },
    ];
    world
}

/// The ring that lb makes for backends of equal weight, as indexes.
pub fn ring(backends: &[Backend]) -> Vec<u32> {
    ring_of(backends, None)
}

/// The same of so many slots, if it is not to be as long as lb would make it.
pub fn ring_of(backends: &[Backend], slots: Option<u32>) -> Vec<u32> {
    let members: Vec<Member> = (backends.iter().enumerate())
        .map(|(index, backend)| Member {
            id: BackendId(index as u32 + 1),
            address: backend.address,
            port: backend.port,
            configured: 100,
            effective: 100,
            percent: 100,
            ramp: 100,
        })
        .collect();
    let slots = ring_length(members.iter().map(|member| member.configured), slots);
    let keys = lb_tests::kernel::hash_keys();
    owners(slots, &keys, &members).iter().map(|owner| owner.0 - 1).collect()
}

/// A service that remembers every flow.
pub fn tracked(digit: u8) -> World {
    let service = dsr(digit).tracked(algorithm::TURN, 0..BACKENDS as u32);
    World::of([service])
}

/// Puts every slot of a world's services into a phase, a service each: `phases` again and again.
pub fn change_slots(kernel: &mut Kernel, phases: &[Phase]) {
    let services = kernel.world().services.clone();
    for (index, (service, phase)) in services.iter().zip(phases.iter().cycle()).enumerate() {
        let first = kernel.world().first_backend(index);
        let count = service.backends.len() as u32;
        for place in 0..service.slots() {
            let (owner, base) =
                (BackendId(first + place % count), BackendId(first + (place + 1) % count));
            kernel.set_slot(index as u32 + 1, place, Slot::new(owner, base, *phase, 0));
        }
    }
}

/// Confirmed pins of a stream's flows, as if the SYN had met the base.
pub fn pin_flows(kernel: &mut Kernel, service: usize, flows: u32) {
    let now = kernel.jiffies();
    let (vip, is_v4) =
        (kernel.world().services[service].vip, kernel.world().services[service].vip.is_ipv4());
    let backend = BackendId(kernel.world().first_backend(service));
    let mut pins = kernel.hash_map::<FlowKey, Pin>(map::PINS);
    for flow in 0..flows {
        let source: IpAddr = if is_v4 {
            IpAddr::from((0x0a40_0000_u32 + flow).to_be_bytes())
        } else {
            IpAddr::from((0x2001_0db8_000c_u128 << 80 | u128::from(flow)).to_be_bytes())
        };
        let key = FlowKey {
            source: source.into(),
            destination: vip.into(),
            source_port: lb_common::be::Be16::from_host((1024 + (flow & 0x3fff)) as u16),
            destination_port: lb_common::be::Be16::from_host(80),
            protocol: protocol::TCP,
            _pad: [0; 3],
        };
        let pin = Pin {
            backend,
            last_seen: now,
            created: now,
            client_isn: 0x1000_0000,
            service: service as u32 + 1,
            ..Pin::default()
        };
        if pins.insert(key, pin, 0).is_err() {
            break;
        }
    }
}

fn client(is_v4: bool) -> &'static str {
    if is_v4 { "10.64.0.0@1024" } else { "2001:db8:c::@1024" }
}

/// A client's packet.
pub fn request(is_v4: bool, vip: &str, flags: u8) -> Packet {
    Packet::tcp(client(is_v4), &format!("{vip}@80"), flags)
}

/// A client's datagram without DF.
pub fn datagram(is_v4: bool, vip: &str) -> Packet {
    Packet::udp(client(is_v4), &format!("{vip}@80")).ip(|ip| ip.dont_fragment = false)
}

/// Somebody else's SYN.
pub fn stranger(vip: &str) -> Packet {
    Packet::tcp("44.0.0.0@1024", &format!("{vip}@80"), flag::SYN)
}

/// A backend's reply.
pub fn reply(backend: &Backend) -> Packet {
    let client = client(backend.address.is_ipv4());
    Packet::tcp(&format!("{}@{}", backend.address, backend.port), client, flag::ACK)
}

/// A router has no room for what the VIP has sent to a client.
pub fn error(is_v4: bool, vip: &str) -> Packet {
    let about = Packet::tcp(&format!("{vip}@80"), client(is_v4), flag::ACK).ip_bytes();
    let (router, kind, code) = if is_v4 { ("203.0.113.9", 3, 4) } else { ("2001:db8:e::", 2, 0) };
    let error = Transport::Icmp { kind, code, rest: [0, 0, 5, 120] };
    Packet::new(router, vip, error).payload(&about)
}
