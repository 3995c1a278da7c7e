//! Whose packet it is: one probe of a bucket with our own hash, without a helper.

use lb_common::{
    abi::{Address, FlowKey, ServiceEntry, ServiceRow, key_kind, service_flag},
    be::Be16,
};

use crate::{config, maps, packet::XdpFrame, ports};

/// The service of a packet by its destination, if the NIC it came in by may reach it.
#[inline(always)]
pub fn find(frame: &XdpFrame, flow: &FlowKey) -> Option<&'static ServiceRow> {
    let row = lookup(&flow.destination, flow.destination_port, flow.protocol, key_kind::SERVICE)?;
    at(frame, row)
}

/// As [`find`], and services of several ports and of prefixes, too, where there are any.
#[inline(always)]
pub fn find_any(frame: &XdpFrame, flow: &FlowKey) -> Option<&'static ServiceRow> {
    if config::PORTS.load() == 0 {
        return find(frame, flow);
    }
    let row = ports::row_of(flow);
    if row == 0 { None } else { at(frame, row) }
}

/// The service in a row, if the NIC the packet came in by may reach it.
#[inline(always)]
pub fn at(frame: &XdpFrame, row: u32) -> Option<&'static ServiceRow> {
    let service = maps::SERVICES.get(row)?;
    if service.flags & service_flag::INTERFACES != 0
        && !is_reachable(service, frame.context().ingress())
    {
        return None;
    }
    Some(service)
}

/// What is known of an address, one of [`lb_common::abi::address_value`]; 0 = nothing.
#[inline(always)]
pub fn address(address: &Address) -> u32 {
    if config::PORTS.load() == ports::PREFIXES {
        return ports::address(address);
    }
    exact_address(address).unwrap_or(0)
}

/// What `SERVICE_TABLE` says of an address, without a look at prefixes.
#[inline(always)]
pub fn exact_address(address: &Address) -> Option<u32> {
    lookup(address, Be16::from_host(0), 0, key_kind::ADDRESS)
}

/// What `SERVICE_TABLE` says of an address, a port and a protocol, as a kind of key.
#[inline(always)]
pub fn entry(address: &Address, port: Be16, protocol: u8, kind: u8) -> Option<u32> {
    lookup(address, port, protocol, kind)
}

/// The backend whose reply this is, by its source.
#[inline(always)]
pub fn replying_backend(flow: &FlowKey) -> Option<u32> {
    if config::PORTS.load() != 0 {
        return Some(ports::replying_backend(flow)).filter(|id| *id != 0);
    }
    lookup(&flow.source, flow.source_port, flow.protocol, key_kind::REPLY)
}

#[inline(always)]
fn lookup(address: &Address, port: Be16, protocol: u8, kind: u8) -> Option<u32> {
    let selector = ServiceEntry::selector(port, protocol, kind);
    let bucket = ServiceEntry::bucket(address, selector, config::SERVICE_MASK.load());
    maps::find_entry(bucket, address, selector)
}

#[cold]
#[inline(always)]
fn is_reachable(service: &ServiceRow, ingress: u32) -> bool {
    match maps::interface_number(ingress) {
        Some(number) => service.interfaces & (1 << (number & 31)) != 0,
        None => false,
    }
}
