//! The state of a network namespace as plain data.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

/// Everything needed to find the way to an address, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of interfaces, as the kernel lists them (primary before secondary); those that duplicate address
    /// detection has not accepted are left out.
    pub addresses: Vec<InterfaceAddress>,
    /// Of the main table: for each prefix the one route in use, sorted by prefix. (Tables made by hand may hold
    /// several of one prefix; [`Snapshot::resolve`] chooses.)
    pub routes: Vec<Route>,
    /// ARP and neighbour discovery entries by (interface index, address).
    pub neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl Snapshot {
    /// Keeps, for each prefix, the route that [`Snapshot::resolve`] would choose; over links that are up only.
    pub(super) fn set_routes(&mut self, mut routes: Vec<Route>) {
        routes.retain(|route| self.can_use(route));
        // Stable: of equal metrics the first listed stays, which is the kernel's order.
        routes.sort_by_key(|route| (route.destination, route.metric));
        routes.dedup_by_key(|route| route.destination);
        self.routes = routes;
    }

    /// Whether a route leads over a link that is up, or refuses (which it does in any case).
    pub(super) fn can_use(&self, route: &Route) -> bool {
        route.ifindex == 0 || self.links.get(&route.ifindex).is_some_and(|link| link.up)
    }

    /// Whether the address belongs to an interface of this host.
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|own| own.address == address)
    }

    /// Addresses of neighbours with another usable MAC address in `other`, or with one in only one of both.
    pub fn changed_neighbours(&self, other: &Self) -> HashSet<IpAddr> {
        let differs = |key: &(u32, IpAddr)| self.usable_mac(key) != other.usable_mac(key);
        let keys = self.neighbours.keys().chain(other.neighbours.keys());
        keys.filter(|key| differs(key)).map(|(_, address)| *address).collect()
    }

    fn usable_mac(&self, key: &(u32, IpAddr)) -> Option<[u8; 6]> {
        self.neighbours.get(key).and_then(Neighbour::usable_mac)
    }

    /// The interface of this name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index; never reused for another interface while this one lives.
    pub ifindex: u32,
    /// Its present name.
    pub name: String,
    /// Its MAC address; zeros where it has none (a tunnel, a loopback).
    pub mac: [u8; 6],
    /// Largest network-layer packet, bytes.
    pub mtu: u32,
    /// Administratively up and with carrier.
    pub up: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface.
    pub ifindex: u32,
    /// The host's own address there.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// A unicast route of the main table, or one that refuses. Of several next hops the first that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// The router; `None` = the destination is on link.
    pub gateway: Option<IpAddr>,
    /// The interface out; 0 = the route refuses (`blackhole`, `unreachable`, `prohibit`).
    pub ifindex: u32,
    /// The lower the better among routes of one prefix.
    pub metric: u32,
    /// The source address asked for (`src`).
    pub preferred_source: Option<IpAddr>,
}

/// A neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its link-layer address as far as known; it may be outdated unless [`Neighbour::usable`].
    pub mac: Option<[u8; 6]>,
    /// What the kernel makes of it.
    pub state: NeighbourState,
}

impl Neighbour {
    /// Where packets may be sent to.
    pub fn usable_mac(&self) -> Option<[u8; 6]> {
        self.mac.filter(|_| self.usable())
    }

    /// Whether packets may be sent to `mac` (the kernel's `NUD_VALID`: also while it is being confirmed).
    pub fn usable(&self) -> bool {
        self.mac.is_some() && self.state.is_valid()
    }
}

/// The kernel's `NUD_*` states (RFC 4861, 7.3.2, and Linux' additions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Just created.
    None,
    /// Asked for, no answer yet.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Not confirmed lately, and not in use.
    Stale,
    /// In use, to be confirmed soon.
    Delay,
    /// Being confirmed.
    Probe,
    /// Nobody answered.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by an administrator; never touched here.
    Permanent,
}

impl NeighbourState {
    /// The kernel's `NUD_VALID`: the address may be used.
    pub fn is_valid(self) -> bool {
        !matches!(self, Self::None | Self::Incomplete | Self::Failed)
    }

    /// Whether the kernel never asks for it, so that there is nothing to confirm.
    pub fn is_fixed(self) -> bool {
        matches!(self, Self::NoArp | Self::Permanent)
    }
}
