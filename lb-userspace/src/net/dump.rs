//! Reads the whole picture: four dumps. After a lost event nothing else would be right, and it costs about a millisecond.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState as State},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType,
    },
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{InterfaceAddress, Link, Neighbour, NeighbourState, Route, Snapshot};

/// Reads everything.
pub(super) async fn dump(handle: &Handle) -> Result<Snapshot, rtnetlink::Error> {
    let mut routes = Vec::new();
    let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    for family in [v4, v6] {
        let mut messages = handle.route().get(family).execute();
        while let Some(message) = messages.try_next().await? {
            routes.extend(route(&message));
        }
    }
    Ok(Snapshot {
        links: links(handle).await?,
        addresses: addresses(handle).await?,
        routes,
        neighbours: neighbours(handle).await?,
    })
}

async fn links(handle: &Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let mut links = BTreeMap::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await? {
        let flags = message.header.flags;
        let mut link = Link {
            ifindex: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(mac) => link.mac = mac.try_into().unwrap_or_default(),
                _ => {}
            }
        }
        links.insert(link.ifindex, link);
    }
    Ok(links)
}

async fn addresses(handle: &Handle) -> Result<Vec<InterfaceAddress>, rtnetlink::Error> {
    let mut addresses = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await? {
        let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
            message.attributes.iter().find_map(wanted)
        };
        // On point-to-point links `Address` is the other end, and `Local` is ours.
        let local = find(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = local.or_else(|| {
            find(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        });
        if let Some(address) = address {
            addresses.push(InterfaceAddress {
                ifindex: message.header.index,
                address,
                prefix: message.header.prefix_len,
            });
        }
    }
    Ok(addresses)
}

async fn neighbours(
    handle: &Handle,
) -> Result<HashMap<(u32, IpAddr), Neighbour>, rtnetlink::Error> {
    let mut neighbours = HashMap::new();
    let mut messages = handle.neighbours().get().execute();
    while let Some(message) = messages.try_next().await? {
        let mut address = None;
        let mut mac = None;
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(v4.into())
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(v6.into())
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
                _ => {}
            }
        }
        let state = match message.header.state {
            State::Incomplete => NeighbourState::Incomplete,
            State::Reachable => NeighbourState::Reachable,
            State::Stale => NeighbourState::Stale,
            State::Delay => NeighbourState::Delay,
            State::Probe => NeighbourState::Probe,
            State::Failed => NeighbourState::Failed,
            State::Permanent | State::Noarp => NeighbourState::Permanent,
            _ => continue,
        };
        if let Some(address) = address {
            neighbours.insert((message.header.ifindex, address), Neighbour { mac, state });
        }
    }
    Ok(neighbours)
}

/// A unicast route of the main table; of several next hops the first that is alive.
fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    if header.kind != RouteType::Unicast
        || table.unwrap_or(header.table as u32) != RouteHeader::RT_TABLE_MAIN as u32
    {
        return None;
    }
    let unspecified: IpAddr = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        netlink_packet_route::AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut destination = unspecified;
    let mut hop = Hop::default();
    let mut metric = 0;
    let mut preferred_source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::PrefSource(from) => preferred_source = address(from),
            RouteAttribute::MultiPath(hops) => {
                let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
                let alive = hops.iter().find(|hop| !hop.flags.intersects(dead))?;
                hop.ifindex = Some(alive.interface_index);
                alive.attributes.iter().for_each(|attribute| hop.read(attribute));
            }
            attribute => hop.read(attribute),
        }
    }
    Some(Route {
        destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
        gateway: hop.gateway,
        ifindex: hop.ifindex?,
        metric,
        preferred_source,
    })
}

#[derive(Default)]
struct Hop {
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
}

impl Hop {
    fn read(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Oif(ifindex) => self.ifindex = Some(*ifindex),
            RouteAttribute::Gateway(gateway) => self.gateway = address(gateway),
            _ => {}
        }
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
