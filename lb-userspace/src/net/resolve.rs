//! From a destination to the frame's addresses: longest prefix, source address, neighbour. Pure.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::snapshot::{Route, Snapshot};

/// How a packet for one destination leaves this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The interface out.
    pub ifindex: u32,
    /// Whom to hand the frame to: the gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// The destination is on this link.
    pub on_link: bool,
    /// The source address the kernel would choose; unspecified (`0.0.0.0`, `::`) if the host has none of the family.
    pub source: IpAddr,
    /// The interface's MAC address.
    pub src_mac: [u8; 6],
    /// The next hop's MAC address; `None` until it is resolved.
    pub dst_mac: Option<[u8; 6]>,
    /// The interface's MTU, bytes.
    pub mtu: u32,
}

impl Snapshot {
    /// The way to `destination`: the longest prefix, among those the lowest metric, among those the first listed whose
    /// interface is up. `None` if there is none, if the route refuses, or if the address is this host's own.
    ///
    /// Linear in the number of routes: made for a host with a default route and some more, not for a full BGP table.
    pub fn resolve(&self, destination: IpAddr) -> Option<Path> {
        if self.is_local(destination) {
            return None;
        }
        let route = self
            .routes
            .iter()
            .filter(|route| route.destination.contains(&destination) && self.can_use(route))
            // `min_by_key` keeps the first of equals, which is the kernel's order.
            .min_by_key(|route| (Reverse(route.destination.prefix_len()), route.metric))?;
        let link = self.links.get(&route.ifindex)?;
        let next_hop = route.gateway.unwrap_or(destination);
        let neighbour = self.neighbours.get(&(route.ifindex, next_hop));
        Some(Path {
            ifindex: route.ifindex,
            next_hop,
            on_link: route.gateway.is_none(),
            source: self.source(route, destination, next_hop),
            src_mac: link.mac,
            dst_mac: neighbour.filter(|neighbour| neighbour.usable()).and_then(|found| found.mac),
            mtu: link.mtu,
        })
    }

    /// The route's preferred source, else the interface's best address of the destination's family, else another
    /// interface's (as Linux does).
    fn source(&self, route: &Route, destination: IpAddr, next_hop: IpAddr) -> IpAddr {
        if let Some(preferred) = route.preferred_source {
            return preferred;
        }
        let wants_link_local = is_link_local(destination);
        self.addresses
            .iter()
            .filter(|own| own.address.is_ipv4() == destination.is_ipv4())
            .filter(|own| !own.address.is_loopback())
            .min_by_key(|own| {
                let elsewhere = own.ifindex != route.ifindex;
                let wrong_scope = is_link_local(own.address) != wants_link_local;
                // A /32 is a VIP as a rule: right for nothing but its own service.
                let covers = IpNet::new(own.address, own.prefix)
                    .is_ok_and(|network| network.contains(&next_hop));
                let host_only = own.prefix == own.address_bits();
                (wrong_scope, elsewhere, !covers, host_only)
            })
            .map_or_else(|| unspecified(destination), |own| own.address)
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl super::InterfaceAddress {
    fn address_bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{InterfaceAddress, Link, Neighbour, NeighbourState};
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn link(ifindex: u32, up: bool) -> (u32, Link) {
        let mac = [2, 0, 0, 0, 0, ifindex as u8];
        (ifindex, Link { ifindex, name: format!("eth{ifindex}"), mac, mtu: 1500, up })
    }

    fn own(ifindex: u32, network: &str) -> InterfaceAddress {
        let network: IpNet = network.parse().unwrap();
        InterfaceAddress { ifindex, address: network.addr(), prefix: network.prefix_len() }
    }

    fn route(destination: &str, gateway: Option<&str>, ifindex: u32, metric: u32) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(ip),
            ifindex,
            metric,
            preferred_source: None,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// eth1 is 10.0.1.1/24 with a default route, eth2 is 10.0.2.1/24, eth3 is down.
    fn host() -> Snapshot {
        Snapshot {
            links: [link(1, true), link(2, true), link(3, false)].into(),
            addresses: vec![
                own(1, "192.0.2.10/32"),
                own(1, "10.0.1.1/24"),
                own(2, "10.0.2.1/24"),
                own(1, "fe80::1/64"),
                own(1, "2001:db8::1/64"),
            ],
            routes: vec![
                route("0.0.0.0/0", Some("10.0.1.254"), 1, 0),
                route("10.0.1.0/24", None, 1, 0),
                route("10.0.2.0/24", None, 2, 0),
                route("2001:db8::/64", None, 1, 256),
                route("fe80::/64", None, 1, 256),
                route("::/0", Some("fe80::ff"), 1, 1024),
            ],
            neighbours: [(
                (1, ip("10.0.1.254")),
                Neighbour { mac: Some(MAC), state: NeighbourState::Stale },
            )]
            .into(),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_the_next_hop_is_the_gateway_or_the_destination() {
        let host = host();
        let near = host.resolve(ip("10.0.2.7")).unwrap();
        assert_eq!((near.ifindex, near.next_hop, near.on_link), (2, ip("10.0.2.7"), true));
        assert_eq!((near.source, near.dst_mac, near.mtu), (ip("10.0.2.1"), None, 1500));
        let far = host.resolve(ip("203.0.113.5")).unwrap();
        assert_eq!((far.ifindex, far.next_hop, far.on_link), (1, ip("10.0.1.254"), false));
        assert_eq!((far.source, far.src_mac), (ip("10.0.1.1"), [2, 0, 0, 0, 0, 1]));
        assert_eq!(far.dst_mac, Some(MAC));
    }

    #[test]
    fn the_lower_metric_wins_and_of_equals_the_first() {
        let mut host = host();
        host.routes.push(route("0.0.0.0/0", Some("10.0.2.254"), 2, 50));
        assert_eq!(host.resolve(ip("203.0.113.5")).unwrap().ifindex, 1);
        host.routes[0].metric = 100;
        assert_eq!(host.resolve(ip("203.0.113.5")).unwrap().ifindex, 2);
        host.routes[0].metric = 50;
        assert_eq!(host.resolve(ip("203.0.113.5")).unwrap().ifindex, 1);
    }

    #[test]
    fn a_route_over_a_link_that_is_down_is_skipped() {
        let mut host = host();
        host.routes.push(route("203.0.113.0/24", Some("10.0.3.254"), 3, 0));
        assert_eq!(host.resolve(ip("203.0.113.5")).unwrap().ifindex, 1);
        host.links.get_mut(&3).unwrap().up = true;
        assert_eq!(host.resolve(ip("203.0.113.5")).unwrap().ifindex, 3);
        host.links.clear();
        assert_eq!(host.resolve(ip("203.0.113.5")), None);
    }

    #[test]
    fn a_refusing_route_refuses_although_a_shorter_one_would_do() {
        let mut host = host();
        host.routes.push(route("203.0.113.0/24", None, 0, 0));
        assert_eq!(host.resolve(ip("203.0.113.5")), None);
        assert!(host.resolve(ip("203.0.114.5")).is_some());
    }

    #[test]
    fn reading_the_table_keeps_the_route_in_use_of_each_prefix() {
        let mut host = host();
        let routes = vec![
            route("0.0.0.0/0", Some("10.0.1.254"), 1, 100),
            route("0.0.0.0/0", Some("10.0.2.254"), 2, 50),
            route("0.0.0.0/0", Some("10.0.2.253"), 2, 50),
            route("0.0.0.0/0", Some("10.0.3.254"), 3, 1),
            route("10.9.0.0/16", None, 3, 0),
            route("10.8.0.0/16", None, 0, 0),
        ];
        host.set_routes(routes.clone());
        assert_eq!(host.routes, [routes[1], routes[5]]);
    }

    #[test]
    fn own_addresses_have_no_path() {
        let host = host();
        for own in ["10.0.1.1", "192.0.2.10", "127.0.0.1", "::1"] {
            assert!(host.is_local(ip(own)), "{own}");
            assert_eq!(host.resolve(ip(own)), None, "{own}");
        }
        assert!(!host.is_local(ip("10.0.1.2")));
    }

    #[test]
    fn only_usable_neighbours_give_a_mac() {
        use NeighbourState::*;
        let mut host = host();
        for (state, usable) in [
            (None, false),
            (Incomplete, false),
            (Reachable, true),
            (Stale, true),
            (Delay, true),
            (Probe, true),
            (Failed, false),
            (NoArp, true),
            (Permanent, true),
        ] {
            host.neighbours.get_mut(&(1, ip("10.0.1.254"))).unwrap().state = state;
            let path = host.resolve(ip("203.0.113.5")).unwrap();
            assert_eq!(path.dst_mac.is_some(), usable, "{state:?}");
        }
    }

    #[test]
    fn ipv6_takes_the_global_source_for_global_destinations_and_link_local_for_link_local() {
        let host = host();
        assert_eq!(host.resolve(ip("2001:db8::7")).unwrap().source, ip("2001:db8::1"));
        let far = host.resolve(ip("2001:db8:1::7")).unwrap();
        assert_eq!((far.next_hop, far.source), (ip("fe80::ff"), ip("2001:db8::1")));
        assert_eq!(host.resolve(ip("fe80::7")).unwrap().source, ip("fe80::1"));
    }

    #[test]
    fn the_source_is_the_preferred_one_then_another_interface_s_then_unspecified() {
        let mut host = host();
        host.routes.push(route("198.51.100.0/24", None, 2, 0));
        host.routes.last_mut().unwrap().preferred_source = Some(ip("192.0.2.10"));
        assert_eq!(host.resolve(ip("198.51.100.1")).unwrap().source, ip("192.0.2.10"));
        host.addresses.retain(|own| own.ifindex != 2);
        assert_eq!(host.resolve(ip("10.0.2.7")).unwrap().source, ip("10.0.1.1"));
        host.addresses.clear();
        assert_eq!(host.resolve(ip("10.0.2.7")).unwrap().source, ip("0.0.0.0"));
        assert_eq!(host.resolve(ip("2001:db8::7")).unwrap().source, ip("::"));
    }
}
