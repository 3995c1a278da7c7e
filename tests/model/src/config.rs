//! The model's world.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    address::is_within,
    bytes::Mac,
    fullnat::Pool,
    openings::{Cookies, Openings},
    outcome::reason,
    quic::ServerIds,
    slots::Slot,
    track::Track,
    transport::Flow,
};

/// Everything that is configured or resolved; built by [`Config::new`].
#[derive(Debug)]
pub struct Config {
    /// The NIC that frames come in by.
    pub ingress: u32,
    /// Frames with VLAN tags are not left to the host.
    pub takes_tagged: bool,
    /// NICs that frames may leave by, beside that one.
    pub attached: HashSet<u32>,
    /// Addresses of this host that are no VIPs.
    pub hosts: HashSet<IpAddr>,
    /// Ways to clients.
    pub routes: Vec<Route>,
    /// What full nat sends from.
    pub pool: Pool,
    /// Room in each table of pins.
    pub most_pins: usize,
    /// Connections that can be counted.
    pub most_connections: usize,
    /// Keys of the SYN-flood stage's cookies.
    pub cookies: Cookies,
    services: Vec<Service>,
    by_end: HashMap<End, usize>,
    /// What is not an address with a port, and whose it is.
    wide: Vec<(Listen, usize)>,
    vips: HashMap<IpAddr, Vip>,
    by_backend: HashMap<End, (usize, usize)>,
}

/// An address with port and protocol.
type End = (IpAddr, u16, u8);

/// What is known of a VIP's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// It is this host's address, too.
    pub is_local: bool,
}

/// The way to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Destination rewritten; replies come back.
    Nat,
    /// Sent on as it is, to another MAC address.
    Dsr,
    /// IP in IP.
    Tunnel,
    /// In UDP, by Generic UDP Encapsulation.
    Gue,
    /// Both ends rewritten; the source becomes a port of the pool.
    FullNat,
}

/// What a service without a usable backend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Resets and port unreachables.
    Reject,
    /// Nothing.
    Drop,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its number, at least 1.
    pub id: u32,
    /// Address.
    pub vip: IpAddr,
    /// Whether that is this host's address, too.
    pub is_local: bool,
    /// Port; 0 = several, and packets keep theirs.
    pub port: u16,
    /// What it listens on beside its VIP and port.
    pub listens: Vec<Listen>,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// The way to the backends.
    pub mode: Mode,
    /// Backends.
    pub backends: Vec<Backend>,
    /// Whose each slot is.
    pub ring: Vec<Slot>,
    /// Keys of the hash by which slots are found.
    pub keys: [u64; 11],
    /// The slot is found by this much of a client's address (bits of IPv4, of IPv6), not by the flow.
    pub by_source: Option<(u32, u32)>,
    /// It is QUIC's, and its connection ids may name backends.
    pub quic: Option<ServerIds>,
    /// Packets in fragments are taken.
    pub fragments: bool,
    /// Later ones of unknown packets go by the client's address.
    pub stateless_fragments: bool,
    /// It refuses packets,
    pub refuses: Option<Refusal>,
    /// but only those that open a connection.
    pub only_new: bool,
    /// The client's address is told to its backends (full nat of TCP).
    pub tells: bool,
    /// The greatest segment that handshakes may offer.
    pub mss: Option<u16>,
    /// Limits of openings, and the SYN-flood stage.
    pub openings: Openings,
    /// Its connections are counted (nat).
    pub counts: bool,
    /// It remembers every flow.
    pub track: Option<Track>,
    /// NICs (numbers) it can be reached by; none = all.
    pub interfaces: Option<HashSet<u32>>,
    /// Who may in; empty = everybody.
    pub allow: Vec<(IpAddr, u32)>,
    /// Who may not.
    pub deny: Vec<(IpAddr, u32)>,
}

/// VIPs and ports of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// VIPs: an address and how many of its bits count.
    pub prefix: (IpAddr, u32),
    /// First and last port; 0 to 65535 = every one.
    pub ports: (u16, u16),
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its number, at least 1, over all services.
    pub id: u32,
    /// Address.
    pub address: IpAddr,
    /// Port; 0 = packets keep theirs.
    pub port: u16,
    /// Nothing is sent to it unless nobody else is left.
    pub is_down: bool,
    /// Outer source of tunnels to it.
    pub tunnel_source: Option<IpAddr>,
    /// Next hop; none = nobody knows it.
    pub hop: Option<Hop>,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its MAC address.
    pub to: Mac,
    /// That of the NIC that the frame leaves by.
    pub from: Mac,
    /// That NIC.
    pub nic: u32,
    /// Its MTU, 0 = not known.
    pub mtu: u16,
}

impl Backend {
    /// Its port, or that which a packet has.
    pub(crate) fn port_or(&self, own: u16) -> u16 {
        if self.port == 0 { own } else { self.port }
    }
}

/// The way to some clients.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which ones.
    pub prefix: (IpAddr, u32),
    /// Next hop; none = nobody knows it.
    pub hop: Option<Hop>,
}

impl Config {
    /// A world of services, without anything else.
    pub fn new(ingress: u32, services: Vec<Service>) -> Self {
        let (mut by_end, mut wide) = (HashMap::new(), Vec::new());
        let (mut vips, mut by_backend) = (HashMap::new(), HashMap::new());
        for (index, service) in services.iter().enumerate() {
            for listen in service.listens() {
                let (address, port) = (listen.prefix.0, listen.ports.0);
                if listen.is_address() {
                    let vip: &mut Vip = vips.entry(address).or_insert(Vip { is_local: false });
                    vip.is_local |= service.is_local;
                }
                match listen.is_address() && port == listen.ports.1 {
                    true => drop(by_end.insert((address, port, service.protocol), index)),
                    false => wide.push((listen, index)),
                }
            }
            if service.mode == Mode::Nat {
                let with_port =
                    service.backends.iter().enumerate().filter(|(_, backend)| backend.port != 0);
                for (number, backend) in with_port {
                    let end = (backend.address, backend.port, service.protocol);
                    by_backend.insert(end, (index, number));
                }
            }
        }
        let (attached, hosts, routes) = (HashSet::new(), HashSet::new(), Vec::new());
        Self {
            ingress,
            takes_tagged: false,
            attached,
            hosts,
            routes,
            pool: Pool::default(),
            most_pins: usize::MAX,
            most_connections: usize::MAX,
            cookies: Cookies::default(),
            services,
            by_end,
            wide,
            vips,
            by_backend,
        }
    }

    /// All services.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service of a client's packet, if the NIC may reach it: of those that listen there, the one with the longest prefix;
    /// of those, one port goes before a range, that before every port, and a smaller range before a larger one.
    pub(crate) fn service_of(&self, flow: &Flow) -> Option<&Service> {
        let end = (flow.destination, flow.destination_port, flow.protocol);
        let index = match self.by_end.get(&end) {
            Some(index) => *index,
            None => self.wide_service_of(flow)?,
        };
        let service = &self.services[index];
        let may = service.interfaces.as_ref().is_none_or(|nics| nics.contains(&self.ingress));
        may.then_some(service)
    }

    /// The service that takes fragments of unknown packets to an address, if the NIC may reach it.
    pub(crate) fn stateless_service(&self, vip: IpAddr, protocol: u8) -> Option<&Service> {
        let is_its = |service: &&Service| {
            service.stateless_fragments && (service.vip, service.protocol) == (vip, protocol)
        };
        let service = self.services.iter().find(is_its)?;
        let may = service.interfaces.as_ref().is_none_or(|nics| nics.contains(&self.ingress));
        may.then_some(service)
    }

    fn wide_service_of(&self, flow: &Flow) -> Option<usize> {
        // An address of the host's own is no VIP for being in a prefix.
        let is_host = self.hosts.contains(&flow.destination);
        let fitting = self.wide.iter().filter(|(listen, index)| {
            self.services[*index].protocol == flow.protocol
                && listen.has(flow.destination, flow.destination_port)
                && (listen.is_address() || !is_host)
        });
        Some(fitting.min_by_key(|(listen, _)| listen.rank())?.1)
    }

    /// What is known of an address, if it is a VIP.
    pub(crate) fn vip(&self, address: IpAddr) -> Option<Vip> {
        if let Some(vip) = self.vips.get(&address) {
            return Some(*vip);
        }
        let is_in = self.wide.iter().any(|(listen, _)| is_within(address, listen.prefix));
        (is_in && !self.hosts.contains(&address)).then_some(Vip { is_local: false })
    }

    /// The nat service and its backend whose reply comes from this address and port; of several, that with the fewest ports.
    pub(crate) fn replying(
        &self,
        source: IpAddr,
        port: u16,
        protocol: u8,
    ) -> Option<(&Service, &Backend)> {
        if let Some((service, backend)) = self.by_backend.get(&(source, port, protocol)) {
            let service = &self.services[*service];
            return Some((service, &service.backends[*backend]));
        }
        let answering = self.wide.iter().filter_map(|(listen, index)| {
            let service = &self.services[*index];
            let is_nat = (service.mode, service.protocol) == (Mode::Nat, protocol);
            if !is_nat || !contains(listen.ports, port) {
                return None;
            }
            let keeps = |backend: &&Backend| (backend.address, backend.port) == (source, 0);
            Some((width(&listen.ports), service, service.backends.iter().find(keeps)?))
        });
        answering.min_by_key(|(width, ..)| *width).map(|(_, service, backend)| (service, backend))
    }

    /// The next hop to a client: that of the longest prefix.
    pub(crate) fn hop_to(&self, client: IpAddr) -> Option<Hop> {
        let routes = self.routes.iter().filter(|route| is_within(client, route.prefix));
        routes.max_by_key(|route| route.prefix.1)?.hop
    }
}

fn contains((first, last): (u16, u16), port: u16) -> bool {
    (first.max(1)..=last).contains(&port)
}

fn width((first, last): &(u16, u16)) -> u16 {
    last - first
}

impl Listen {
    fn is_address(&self) -> bool {
        self.prefix.1 == if self.prefix.0.is_ipv4() { 32 } else { 128 }
    }

    fn has(&self, address: IpAddr, port: u16) -> bool {
        contains(self.ports, port) && is_within(address, self.prefix)
    }

    /// The lower, the sooner it is taken.
    fn rank(&self) -> (i64, u8, u16) {
        let kind = match self.ports {
            (first, last) if first == last => 0,
            (0, _) => 2,
            _ => 1,
        };
        (-i64::from(self.prefix.1), kind, width(&self.ports))
    }
}

impl Service {
    /// Everything that it listens on.
    pub fn listens(&self) -> impl Iterator<Item = Listen> + '_ {
        let whole = if self.vip.is_ipv4() { 32 } else { 128 };
        let own = Listen { prefix: (self.vip, whole), ports: (self.port, self.port) };
        (self.port != 0).then_some(own).into_iter().chain(self.listens.iter().copied())
    }

    /// Its port, or that which a packet has.
    pub(crate) fn port_or(&self, own: u16) -> u16 {
        if self.port == 0 { own } else { self.port }
    }

    /// Whether its lists let a client in; who is denied and allowed is denied.
    pub(crate) fn check_lists(&self, client: IpAddr) -> Result<(), &'static str> {
        let is_in = |list: &[(IpAddr, u32)]| list.iter().any(|prefix| is_within(client, *prefix));
        if is_in(&self.deny) {
            return Err(reason::DENIED);
        }
        if !self.allow.is_empty() && !is_in(&self.allow) {
            return Err(reason::NOT_ALLOWED);
        }
        Ok(())
    }

    /// Whether nobody may in, be it with an old flow: for packets that say nothing about a flow's age.
    pub(crate) fn refuses_all(&self) -> bool {
        self.refuses.is_some() && !self.only_new
    }
}
