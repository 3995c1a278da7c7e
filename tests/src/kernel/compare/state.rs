//! What the program remembers from packet to packet: how it is made the same as the model's, and what of it the model is told.

use std::{borrow::BorrowMut, net::IpAddr};

use aya::maps::{HashMap, MapData};
use lb_common::{
    abi::{BackendId, FlowKey, Pin, PortSlot, map, pin_flag},
    be::Be16,
};
use lb_model::{Model, fullnat::Port, generate::Prepared, slots, transport::Flow};

use super::super::{Kernel, clear};

/// So long ago that a SYN of another number is another flow's, jiffies.
const LONG_AGO: u64 = 100_000;

/// Makes both forget all packets, and gives them these pins.
pub fn forget(kernel: &mut Kernel, model: &mut Model, prepared: &[Prepared]) {
    model.forget();
    kernel.forget_fragments();
    forget_ports(kernel);
    if prepared.is_empty() {
        return;
    }
    clear(&mut kernel.hash_map::<FlowKey, Pin>(map::PINS)).expect("removing pins");
    clear(&mut kernel.hash_map::<FlowKey, Pin>(map::PINS_NEW)).expect("removing pins");
    let now = kernel.jiffies();
    for name in [map::PINS, map::PINS_NEW] {
        let is_confirmed = name == map::PINS;
        let mut table = kernel.hash_map::<FlowKey, Pin>(name);
        for prepared in prepared.iter().filter(|pin| pin.is_confirmed == is_confirmed) {
            put(&mut table, prepared, now);
            let pins = model.pins();
            let pins = if is_confirmed { &mut pins.confirmed } else { &mut pins.unconfirmed };
            pins.insert(prepared.flow, prepared.pin);
        }
    }
}

fn put<T: BorrowMut<MapData>>(table: &mut HashMap<T, FlowKey, Pin>, prepared: &Prepared, now: u64) {
    let slots::Pin { client, second, server, is_old, .. } = prepared.pin;
    let flag = |is: bool, flag: u32| if is { flag } else { 0 };
    let seen = if is_old { now - LONG_AGO } else { now };
    let pin = Pin {
        backend: BackendId(prepared.backend),
        flags: flag(second.is_some(), pin_flag::SECOND_ISN)
            | flag(server.is_some(), pin_flag::SERVER_ISN),
        last_seen: seen,
        created: seen,
        client_isn: client,
        server_isn: server.unwrap_or_default(),
        closing_sequence: second.unwrap_or_default(),
        service: prepared.service,
    };
    table.insert(key(&prepared.flow), pin, 0).expect("room");
}

fn forget_ports(kernel: &mut Kernel) {
    let (count, ports) = (kernel.world().pool.len() as u32, kernel.world().pool_ports);
    for address in 0..count {
        for port in ports.0..=ports.1 {
            kernel.set_port_slot(address, port, PortSlot::default());
        }
    }
    if count > 0 {
        let mut flows = kernel.hash_map::<FlowKey, u32>(map::PORT_FLOWS);
        clear(&mut flows).expect("removing flows");
    }
}

/// Makes all flows that have a port look as if nothing was heard of them for so many nanoseconds.
pub fn age_ports(kernel: &mut Kernel, by: u64) {
    let (count, ports) = (kernel.world().pool.len() as u32, kernel.world().pool_ports);
    for address in 0..count {
        for port in ports.0..=ports.1 {
            let slot = kernel.port_slot(address, port);
            let last_seen = slot.last_seen.saturating_sub(by);
            kernel.set_port_slot(address, port, PortSlot { last_seen, ..slot });
        }
    }
}

/// The port that the program has for a flow.
pub fn port_of(kernel: &mut Kernel, flow: &Flow) -> Option<Port> {
    let flows = kernel.hash_map::<FlowKey, u32>(map::PORT_FLOWS);
    let index = flows.get(&key(flow), 0).ok()?;
    Some((PortSlot::address(index) as usize, PortSlot::port(index)))
}

fn key(flow: &Flow) -> FlowKey {
    let address = |address: IpAddr| address.into();
    FlowKey {
        source: address(flow.source),
        destination: address(flow.destination),
        source_port: Be16::from_host(flow.source_port),
        destination_port: Be16::from_host(flow.destination_port),
        protocol: flow.protocol,
        _pad: [0; 3],
    }
}
