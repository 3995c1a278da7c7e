//! One picture of the network, and the pure questions to it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

/// A NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// MAC address; zero if it has none.
    pub mac: [u8; 6],
    /// MTU, bytes of layer 3.
    pub mtu: u32,
    /// Administratively up, and with carrier.
    pub up: bool,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// NIC.
    pub ifindex: u32,
    /// Address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub destination: IpNet,
    /// Gateway; `None` = on link.
    pub gateway: Option<IpAddr>,
    /// NIC.
    pub ifindex: u32,
    /// Metric; lower wins.
    pub metric: u32,
    /// Source address it prefers.
    pub preferred_source: Option<IpAddr>,
}

/// NUD state (neighbour unreachability detection, RFC 4861 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Being asked for, nothing known.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Known, not confirmed lately.
    Stale,
    /// Known, about to be probed.
    Delay,
    /// Known, being probed.
    Probe,
    /// Asked for in vain.
    Failed,
    /// Set by hand, or the NIC needs none.
    Permanent,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// MAC address.
    pub mac: Option<[u8; 6]>,
    /// State.
    pub state: NeighbourState,
}

impl Neighbour {
    /// Whether packets may be sent to its MAC address.
    pub fn usable(&self) -> bool {
        self.mac.is_some()
            && !matches!(self.state, NeighbourState::Incomplete | NeighbourState::Failed)
    }
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Egress NIC.
    pub ifindex: u32,
    /// Gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// The destination is the next hop.
    pub on_link: bool,
    /// Source address of packets that start here.
    pub source: IpAddr,
    /// Egress NIC's MAC address.
    pub src_mac: [u8; 6],
    /// Next hop's MAC address, if it is known.
    pub dst_mac: Option<[u8; 6]>,
    /// Egress NIC's MTU.
    pub mtu: u32,
}

/// Links, addresses, routes and neighbours at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By index.
    pub links: BTreeMap<u32, Link>,
    /// All.
    pub addresses: Vec<InterfaceAddress>,
    /// Main table, unicast.
    pub routes: Vec<Route>,
    /// By NIC and address.
    pub neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl Snapshot {
    /// The way to a destination: longest prefix, then lowest metric, over links that are up.
    pub fn resolve(&self, destination: IpAddr) -> Option<Path> {
        let route = self
            .routes
            .iter()
            .filter(|route| route.destination.contains(&destination))
            .filter(|route| self.links.get(&route.ifindex).is_some_and(|link| link.up))
            .max_by_key(|route| {
                (route.destination.prefix_len(), std::cmp::Reverse(route.metric))
            })?;
        let link = self.links.get(&route.ifindex)?;
        let next_hop = route.gateway.unwrap_or(destination);
        let neighbour = self.neighbours.get(&(route.ifindex, next_hop));
        Some(Path {
            ifindex: route.ifindex,
            next_hop,
            on_link: route.gateway.is_none(),
            source: route.preferred_source.or_else(|| self.source(route.ifindex, destination))?,
            src_mac: link.mac,
            dst_mac: neighbour.filter(|neighbour| neighbour.usable()).and_then(|n| n.mac),
            mtu: link.mtu,
        })
    }

    /// An address of the NIC for packets to a destination: one of its subnet, else any that is not link-local, of the
    /// NIC, else of the host (unnumbered links).
    fn source(&self, ifindex: u32, destination: IpAddr) -> Option<IpAddr> {
        let family = |entry: &&InterfaceAddress| entry.address.is_ipv4() == destination.is_ipv4();
        let score = |entry: &&InterfaceAddress| {
            let net = IpNet::new(entry.address, entry.prefix).ok();
            let link_local = match entry.address {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
                IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
            };
            let whole = if entry.address.is_ipv4() { 32 } else { 128 };
            (
                entry.ifindex == ifindex,
                !link_local,
                net.is_some_and(|net| net.contains(&destination)),
                entry.prefix < whole,
            )
        };
        let best = self.addresses.iter().filter(family).max_by_key(score)?;
        Some(best.address)
    }

    /// Whether an address is this host's.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|entry| entry.address == address)
    }

    /// A NIC by name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let link = |ifindex: u32, up| Link {
            ifindex,
            name: format!("eth{ifindex}"),
            mac: [ifindex as u8; 6],
            mtu: 1500,
            up,
        };
        let route = |destination: &str, gateway: Option<&str>, ifindex, metric| Route {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            ifindex,
            metric,
            preferred_source: None,
        };
        let address = |ifindex, address: &str, prefix| InterfaceAddress {
            ifindex,
            address: address.parse().unwrap(),
            prefix,
        };
        Snapshot {
            links: [(1, link(1, true)), (2, link(2, true)), (3, link(3, false))].into(),
            addresses: vec![
                address(1, "10.0.0.100", 32),
                address(1, "10.0.0.9", 24),
                address(2, "fe80::1", 64),
                address(2, "2001:db8::9", 64),
            ],
            routes: vec![
                route("0.0.0.0/0", Some("10.0.0.1"), 1, 100),
                route("10.0.0.0/24", None, 1, 0),
                route("10.9.0.0/16", Some("10.0.0.2"), 1, 20),
                route("10.9.0.0/16", Some("10.0.0.3"), 1, 10),
                route("10.9.9.0/24", None, 3, 0),
                route("2001:db8::/64", None, 2, 0),
            ],
            neighbours: [(
                (1, "10.0.0.3".parse().unwrap()),
                Neighbour { mac: Some([9; 6]), state: NeighbourState::Stale },
            )]
            .into(),
        }
    }

    #[test]
    fn takes_the_longest_prefix_then_the_lowest_metric_over_links_that_are_up() {
        let snapshot = snapshot();
        let path = |to: &str| snapshot.resolve(to.parse().unwrap());
        assert_eq!(path("10.0.0.7").unwrap().next_hop, "10.0.0.7".parse::<IpAddr>().unwrap());
        assert!(path("10.0.0.7").unwrap().on_link);
        assert_eq!(path("8.8.8.8").unwrap().next_hop, "10.0.0.1".parse::<IpAddr>().unwrap());
        let routed = path("10.9.9.1").unwrap();
        assert_eq!(routed.next_hop, "10.0.0.3".parse::<IpAddr>().unwrap());
        assert_eq!(routed.dst_mac, Some([9; 6]));
        assert_eq!(path("2001:db9::1"), None);
    }

    #[test]
    fn prefers_the_subnets_own_address_as_source() {
        let snapshot = snapshot();
        let source = |to: &str| snapshot.resolve(to.parse().unwrap()).unwrap().source.to_string();
        assert_eq!(source("10.0.0.7"), "10.0.0.9");
        assert_eq!(source("8.8.8.8"), "10.0.0.9");
        assert_eq!(source("2001:db8::7"), "2001:db8::9");
    }
}
