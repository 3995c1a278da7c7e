//! Whose packet it is: one probe of a bucket with our own hash, without a helper.

use lb_common::{
    abi::{Address, FlowKey, ServiceEntry, ServiceRow, key_kind, service_flag},
    be::Be16,
};

use crate::{config, maps, packet::XdpFrame};

/// The service of a packet by its destination, if the NIC it came in by may reach it.
#[inline(always)]
pub fn find(frame: &XdpFrame, flow: &FlowKey) -> Option<&'static ServiceRow> {
    let row = lookup(&flow.destination, flow.destination_port, flow.protocol, key_kind::SERVICE)?;
    let service = maps::SERVICES.get(row)?;
    if service.flags & service_flag::INTERFACES != 0
        && !is_reachable(service, frame.context().ingress())
    {
        return None;
    }
    Some(service)
}

/// What `SERVICE_TABLE` says of an address, one of [`lb_common::abi::address_value`].
#[inline(always)]
pub fn address(address: &Address) -> Option<u32> {
    lookup(address, Be16::from_host(0), 0, key_kind::ADDRESS)
}

/// The backend whose reply this is, by its source.
#[inline(always)]
pub fn replying_backend(flow: &FlowKey) -> Option<u32> {
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
