//! Services of more than one port, or of a prefix of VIPs. Nodes that have any look all services up here: the exact ones first,
//! then the longest prefix, and in its list the first range with the port, by the order that the controller has made. Global
//! functions of plain numbers, which the verifier looks at once: inlined, they would have it follow every way of a packet twice.

use lb_common::{
    abi::{Address, FlowKey, address_value, key_kind},
    be::Be16,
};

use crate::{config, maps, service};

/// The value of [`config::PORTS`] with which there are prefixes.
pub const PREFIXES: u32 = 2;

/// The row of the service that a packet is for; 0 = none.
#[inline(always)]
pub fn row_of(flow: &FlowKey) -> u32 {
    let vip = &flow.destination;
    find_row(vip.high(), vip.low(), flow.protocol as u32, flow.destination_port.raw() as u32)
}

/// The backend whose reply this is, by its source; 0 = none.
#[inline(always)]
pub fn replying_backend(flow: &FlowKey) -> u32 {
    let from = &flow.source;
    find_backend(from.high(), from.low(), flow.protocol as u32, flow.source_port.raw() as u32)
}

/// What an address is, one of [`address_value`]; 0 = none that is known.
#[inline(always)]
pub fn address(address: &Address) -> u32 {
    find_address(address.high(), address.low())
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_row(high: u64, low: u64, protocol: u32, port: u32) -> u32 {
    let (vip, port) = (&Address::from_halves(high, low), Be16::from_raw(port as u16));
    let protocol = protocol as u8;
    let find = || {
        if let Some(row) = service::entry(vip, port, protocol, key_kind::SERVICE) {
            return Some(row);
        }
        let list = match service::entry(vip, ANY, protocol, key_kind::SERVICE_PORTS) {
            Some(list) => list,
            None if config::PORTS.load() == PREFIXES => {
                let list = maps::find_prefix(vip, protocol as u32)?;
                // What is this host's own stays so within a prefix.
                if service::exact_address(vip) == Some(address_value::HOST) {
                    return None;
                }
                list
            }
            None => return None,
        };
        maps::find_port(list, port.to_host())
    };
    find().unwrap_or(0)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_backend(high: u64, low: u64, protocol: u32, port: u32) -> u32 {
    let (from, port) = (&Address::from_halves(high, low), Be16::from_raw(port as u16));
    let protocol = protocol as u8;
    let find = || {
        if let Some(backend) = service::entry(from, port, protocol, key_kind::REPLY) {
            return Some(backend);
        }
        let list = service::entry(from, ANY, protocol, key_kind::REPLY_PORTS)?;
        maps::find_port(list, port.to_host())
    };
    find().unwrap_or(0)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_address(high: u64, low: u64) -> u32 {
    let address = &Address::from_halves(high, low);
    let known = if maps::may_know(address) { service::exact_address(address) } else { None };
    match known {
        Some(value) => value,
        None => maps::find_prefix(address, 0).unwrap_or(0),
    }
}

/// The port of keys that have none.
const ANY: Be16 = Be16::from_host(0);
