//! From rtnetlink messages to the types of a snapshot. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{self, NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType,
        RouteVia,
    },
};

use super::snapshot::{InterfaceAddress, Link, Neighbour, NeighbourState, Route};

/// An interface; `None` for a bridge port's message (its family is not "unspecified").
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.as_slice().try_into().unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// An address; `None` while duplicate address detection has not accepted it.
pub(super) fn address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let optimistic = flags.contains(AddressFlags::Optimistic);
    if flags.contains(AddressFlags::Dadfailed)
        || (flags.contains(AddressFlags::Tentative) && !optimistic)
    {
        return None;
    }
    Some(InterfaceAddress {
        ifindex: message.header.index,
        address: own_address(message)?,
        prefix: message.header.prefix_len,
    })
}

/// The host's address in a message, in whatever state it is.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let find =
        |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // On a point-to-point interface IFA_ADDRESS is the peer's; IPv6 leaves IFA_LOCAL out when they are the same.
    find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// A route of the main table; of several next hops the first that is alive.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let refuses = refuses(message.header.kind)?;
    let mut table = u32::from(message.header.table);
    let mut destination = unspecified(message.header.address_family)?;
    let mut hop = NextHop::default();
    let (mut metric, mut preferred_source) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => destination = plain(address)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::PrefSource(address) => preferred_source = plain(address),
            RouteAttribute::Oif(ifindex) => hop.ifindex = *ifindex,
            RouteAttribute::MultiPath(hops) => {
                let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
                let alive = hops.iter().find(|hop| !hop.flags.intersects(dead))?;
                hop = NextHop {
                    ifindex: alive.interface_index,
                    gateway: alive.attributes.iter().find_map(gateway),
                };
            }
            other => hop.gateway = gateway(other).or(hop.gateway),
        }
    }
    if refuses {
        // IPv6 names the loopback interface in such a route.
        hop = NextHop::default();
    } else if hop.ifindex == 0 {
        return None;
    }
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(Route {
        destination: IpNet::new(destination, message.header.destination_prefix_length).ok()?,
        gateway: hop.gateway,
        ifindex: hop.ifindex,
        metric,
        preferred_source,
    })
}

#[derive(Clone, Copy, Default)]
struct NextHop {
    ifindex: u32,
    gateway: Option<IpAddr>,
}

/// A neighbour and its key (interface index, address); `None` for anything but IPv4 and IPv6 (a bridge's table).
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), Neighbour)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok();
            }
            _ => {}
        }
    }
    let state = match message.header.state {
        neighbour::NeighbourState::Incomplete => NeighbourState::Incomplete,
        neighbour::NeighbourState::Reachable => NeighbourState::Reachable,
        neighbour::NeighbourState::Stale => NeighbourState::Stale,
        neighbour::NeighbourState::Delay => NeighbourState::Delay,
        neighbour::NeighbourState::Probe => NeighbourState::Probe,
        neighbour::NeighbourState::Failed => NeighbourState::Failed,
        neighbour::NeighbourState::Noarp => NeighbourState::NoArp,
        neighbour::NeighbourState::Permanent => NeighbourState::Permanent,
        _ => NeighbourState::None,
    };
    Some(((message.header.ifindex, address?), Neighbour { mac, state }))
}

/// Whether a route of this kind refuses; `None` if it is neither that nor an ordinary one. `throw` counts as absent:
/// with the main table alone the search ends there, but rules may continue it elsewhere.
fn refuses(kind: RouteType) -> Option<bool> {
    match kind {
        RouteType::Unicast => Some(false),
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Some(true),
        _ => None,
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => plain(address),
        // An IPv4 route by an IPv6 router (RFC 8950).
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}
