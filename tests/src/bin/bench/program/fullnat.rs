//! Full nat: flows have a port of the pool each, so there are as many as ports. The pool here is as large as one can be, 64 addresses,
//! which has room for four million flows; a stream has 16,384 ports of each address, which makes 1 Mi. So there are no rows of 10 Mi.

use std::net::IpAddr;

use lb_common::{
    abi::{BackendId, Clock, FlowKey, Forward, PortSlot, map, protocol, service_flag},
    be::Be16,
    fullnat::{State, state_flag},
};
use lb_tests::kernel::{
    Kernel, World,
    lab::{Stream, Varied},
    packet::{Packet, flag},
    world::{CLIENT, Route, Service, ip},
};

use super::{
    subjects::{FLOWS, Subject, Way, program, subject},
    worlds::{BACKENDS, backend, request, ring, stranger, vip},
};

/// Addresses.
pub const POOL: u32 = 64;
/// Flows of a stream.
const MOST: u32 = 1 << 20;
/// First port of the flows whose clients speak, 16,384 in all; they are spread over all backends.
const ASKED: u16 = 20_000;
/// The same of the flows whose backend speaks; it is always the same one.
const ANSWERED: u16 = 1_024;
/// The backend that speaks.
const SPEAKER: usize = 7;
/// Ports of flows that begin: what is left.
const NEW: (u16, u16) = (36_384, 65_535);
/// Packets of a round in which each begins a flow: not more rounds than there is room for.
const OPENINGS: u32 = 1 << 15;

const fn digit(is_v4: bool) -> u8 {
    if is_v4 { 83 } else { 84 }
}

/// The pool's address of a number.
fn of_pool(is_v4: bool, number: u32) -> IpAddr {
    match is_v4 {
        true => IpAddr::from((0x0a09_0001 + number).to_be_bytes()),
        false => IpAddr::from(((0xfd09_u128 << 112) + 1 + u128::from(number)).to_be_bytes()),
    }
}

/// One service, and the pool.
pub fn world(is_v4: bool) -> World {
    let digit = digit(is_v4);
    let mut service = Service::new(&vip(is_v4, digit), Forward::FullNat, &[]);
    service.flags |= service_flag::FULLNAT;
    service.backends = (0..BACKENDS).map(|number| backend(is_v4, digit, number)).collect();
    service.ring = ring(&service.backends);
    let (net, gateway) = if is_v4 { ("0.0.0.0", "10.1.0.254") } else { ("::", "fd01::fe") };
    World {
        routes: vec![Route {
            prefix: (ip(net), 0),
            gateway: Some((ip(gateway), Some(CLIENT))),
            mtu: 1500,
        }],
        pool: (0..POOL).map(|number| (of_pool(is_v4, number), false)).collect(),
        pool_ports: NEW,
        ..World::of([service])
    }
}

/// The same, and servers are told the clients' addresses.
pub fn telling_world() -> World {
    let mut world = world(true);
    world.services[0].flags |= service_flag::TOA;
    world
}

/// The flows of both streams, established.
pub fn fill(kernel: &mut Kernel, is_v4: bool, flows: u32) {
    kernel.jiffies();
    let now = kernel.array::<Clock>(map::CLOCK).get(&0, 0).expect("one entry").nanoseconds;
    let state = State::default().begun(protocol::TCP).0;
    let state = state | state_flag::ANSWERED | state_flag::ESTABLISHED;
    let vip = ip(&vip(is_v4, digit(is_v4)));
    for flow in 0..flows.min(MOST) {
        let client: IpAddr = match is_v4 {
            true => IpAddr::from((0x0a40_0000 + flow).to_be_bytes()),
            false => IpAddr::from(((0x2001_0db8_000c_u128 << 80) + u128::from(flow)).to_be_bytes()),
        };
        let (number, place) = (flow >> 14, (flow & 0x3fff) as u16);
        let client_port = Be16::from_host(1024 + place);
        for (first, backend) in [(ASKED, flow as usize % BACKENDS), (ANSWERED, SPEAKER)] {
            let slot = PortSlot {
                client: client.into(),
                vip: vip.into(),
                last_seen: now,
                state,
                client_port,
                vip_port: Be16::from_host(80),
                backend: BackendId(1 + backend as u32),
                service: 1,
                idle_seconds: u16::MAX,
                closed_seconds: 120,
            };
            kernel.set_port_slot(number, first + place, slot);
        }
        let key = FlowKey {
            source: client.into(),
            destination: vip.into(),
            source_port: client_port,
            destination_port: Be16::from_host(80),
            protocol: protocol::TCP,
            _pad: [0; 3],
        };
        let index = PortSlot::index(number, ASKED + place);
        kernel.hash_map(map::PORT_FLOWS).insert(key, index, 0).expect("there is room");
    }
}

/// All rows.
pub fn subjects(subjects: &mut Vec<Subject>) {
    /// Kind, length, port and address.
    const OPTION: u32 = 8;
    let told = Way::tx(program::FULLNAT4_TOA, OPTION);
    for (flows, text) in FLOWS.into_iter().filter(|(flows, _)| *flows <= MOST) {
        let packet = request(true, &vip(true, digit(true)), flag::ACK);
        let stream = Stream::new(&packet, Varied::Source, flows);
        subjects.push(subject(("fullnat4-toa", "established", text), told, stream));
    }
    for (program, is_v4) in [(program::FULLNAT4, true), (program::FULLNAT6, false)] {
        let way = Way::tx(program, 0);
        let (mode, replies) =
            if is_v4 { ("fullnat4", "fullnat4-reply") } else { ("fullnat6", "fullnat6-reply") };
        let vip = vip(is_v4, digit(is_v4));
        let speaker = backend(is_v4, digit(is_v4), SPEAKER);
        let from = format!("{}@{}", speaker.address, speaker.port);
        let to = format!("{}@{ANSWERED}", of_pool(is_v4, 0));
        let reply = Packet::tcp(&from, &to, flag::ACK);
        for (flows, text) in FLOWS.into_iter().filter(|(flows, _)| *flows <= MOST) {
            let mut add =
                |mode, state, stream| subjects.push(subject((mode, state, text), way, stream));
            let of_clients =
                |flags| Stream::new(&request(is_v4, &vip, flags), Varied::Source, flows);
            add(mode, "established", of_clients(flag::ACK));
            // Of flows that are known: a repeated SYN.
            add(mode, "syn", of_clients(flag::SYN));
            add(replies, "established", Stream::new(&reply, Varied::Pool, flows));
        }
        if is_v4 {
            let all = 1 << 24;
            let stream = Stream::new(&stranger(&vip), Varied::Source, all);
            let mut one = subject((mode, "opening", "new"), way, stream);
            one.packets = Some(OPENINGS);
            subjects.push(one);
        }
    }
}
