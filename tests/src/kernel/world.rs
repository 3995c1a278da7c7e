//! Services and backends as a test describes them, and how they are written into the balancer's maps.

use std::{net::IpAddr, ops::Range};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{LpmTrie, lpm_trie::Key},
};
use lb_common::{
    abi::{
        Address, BackendId, BackendLoad, BackendRow, FewRoutes, FewTables, FlowKey, Forward,
        NeighbourKey, NeighbourRow, NextHopRow, OpeningRules, OpeningState, PRESENCE_BITS, Phase,
        Pin, Policy, PortSlot, PrefixKey, Prefixes, Presence, QuicId, RememberedSource, ReplyRow,
        RouteKey, SERVICE_BUCKET_ENTRIES, ServiceBucket, ServiceEntry, ServiceLoad, ServiceRow,
        Slot, SourceKey, SourcePool, address_value, backend_flag, key_kind, map, nexthop_flag,
        policy_flag, protocol, service_flag,
    },
    be::{Be16, Be32},
    quic::{Formats, SERVER_ID},
};
use lb_userspace::config::model::{
    Listen,
    listen::{is_address, lists},
};

use super::{INGRESS, array, clear, hash_map};

/// A MAC address.
pub type Mac = [u8; 6];

/// The NIC's own address in all tests.
pub const NIC: Mac = [0x02, 0, 0, 0, 0, 0x01];
/// The client's (or its router's) MAC address.
pub const CLIENT: Mac = [0x02, 0, 0, 0, 0, 0xc1];

/// The modes of forwarding in each mix of families: name, mode, whether the VIP is an IPv4 address, whether backends have such.
pub const MODES: [(&str, Forward, bool, bool); 8] = [
    ("nat4", Forward::Nat, true, true),
    ("nat6", Forward::Nat, false, false),
    ("dsr4", Forward::Dsr, true, true),
    ("dsr6", Forward::Dsr, false, false),
    ("tunnel-ipip4", Forward::Ipip, true, true),
    ("tunnel-ipip6", Forward::Ipip, false, false),
    ("tunnel-4in6", Forward::Ipip, true, false),
    ("tunnel-6in4", Forward::Ipip, false, true),
];

/// GUE in each mix of families.
pub const GUE_MODES: [(&str, Forward, bool, bool); 4] = [
    ("tunnel-gue4", Forward::Gue, true, true),
    ("tunnel-gue6", Forward::Gue, false, false),
    ("tunnel-gue-4in6", Forward::Gue, true, false),
    ("tunnel-gue-6in4", Forward::Gue, false, true),
];

/// Everything that the maps say.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Ids and rows are 1, 2, 3... in this order.
    pub services: Vec<Service>,
    /// Addresses of this host that are no VIPs.
    pub hosts: Vec<IpAddr>,
    /// Routes for nat replies.
    pub routes: Vec<Route>,
    /// The program asks the trie though the routes are few.
    pub ask_trie: bool,
    /// Resolved on-link neighbours, all on [`INGRESS`].
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// NICs and their numbers.
    pub interfaces: Vec<(u32, u32)>,
    /// Lists of ports.
    pub lists: Vec<List>,
    /// Prefixes whose addresses are VIPs.
    pub prefixes: Vec<(IpAddr, u32)>,
    /// What services without a port listen on; lists and prefixes follow ([`World::listening`]).
    pub listens: Vec<(u32, Listen)>,
    /// Addresses that full nat sends from, and whether they are this host's, too.
    pub pool: Vec<(IpAddr, bool)>,
    /// First and last port of new flows from there.
    pub pool_ports: (u16, u16),
}

/// Ports of an address or a prefix, the best match first.
#[derive(Clone, Debug)]
pub struct List {
    /// The VIP; of answers, the backend.
    pub address: IpAddr,
    /// Length of the prefix; `None` = one address.
    pub prefix: Option<u32>,
    /// IP protocol.
    pub protocol: u8,
    /// Of answers: values are ids of backends, and not of services.
    pub answers: bool,
    /// First and last port, and whose they are.
    pub ports: Vec<(u16, u16, u32)>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct Service {
    /// The VIP.
    pub vip: IpAddr,
    /// Its port; 0 = it is found by lists alone.
    pub port: u16,
    /// More VIPs with the same port.
    pub more: Vec<IpAddr>,
    /// The VIP is the beginning of a prefix, and no VIP by itself.
    pub is_prefix: bool,
    /// IP protocol.
    pub protocol: u8,
    /// The way to the backends.
    pub forward: Forward,
    /// Ids go on from those of earlier services, starting at 1.
    pub backends: Vec<Backend>,
    /// Owner of each slot as an index into `backends`; empty = all in turn, 1,021 slots.
    pub ring: Vec<u32>,
    /// What each slot goes through, and who had it before (an index into `backends`), over and over; empty = they are settled.
    pub phases: Vec<(Phase, Option<u32>)>,
    /// Server ids of QUIC: config, id, and the index of the backend that they name.
    pub server_ids: Vec<(u8, Vec<u8>, u32)>,
    /// Bits of [`service_flag`]; ALLOW, DENY and INTERFACES follow from the fields below.
    pub flags: u32,
    /// Clients that may in; empty = all. (address, prefix length)
    pub allow: Vec<(IpAddr, u32)>,
    /// Clients that may not in. (address, prefix length)
    pub deny: Vec<(IpAddr, u32)>,
    /// Limits of rate and thresholds of the SYN-flood stage; the flags say whether there are any.
    pub openings: OpeningRules,
    /// Fragments of which nothing is known go by the client's address.
    pub stateless_fragments: bool,
    /// Mask of NIC numbers.
    pub interfaces: Option<u32>,
    /// Whether the VIP is an address of this host.
    pub is_local: bool,
    /// How much of a client's address counts, with [`service_flag::BY_SOURCE`].
    pub prefix: Prefixes,
    /// How it chooses, if it tracks its flows; places in the arena follow from `choices`.
    pub policy: Option<Policy>,
    /// Whose turn it is, or who is compared, as indexes into `backends`.
    pub choices: Vec<u32>,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Next hop.
    pub mac: Mac,
    /// Egress NIC.
    pub ifindex: u32,
    /// MTU of the egress NIC.
    pub mtu: u16,
    /// Bits of [`backend_flag`].
    pub flags: u32,
    /// Outer source of tunnels.
    pub source: Option<IpAddr>,
    /// Bits at its end that tell flows apart.
    pub source_bits: u32,
    /// Its weight where that decides about a choice.
    pub weight: u64,
}

/// One route for nat replies.
#[derive(Clone, Debug)]
pub struct Route {
    /// Destination prefix.
    pub prefix: (IpAddr, u32),
    /// The gateway and its MAC address, if that is known; `None` = on link.
    pub gateway: Option<(IpAddr, Option<Mac>)>,
    /// MTU of the egress NIC.
    pub mtu: u16,
}

impl Service {
    /// A TCP service on port 80 with resolved backends.
    pub fn new(vip: &str, forward: Forward, backends: &[&str]) -> Self {
        Self {
            vip: ip(vip),
            port: 80,
            more: Vec::new(),
            is_prefix: false,
            protocol: protocol::TCP,
            forward,
            backends: backends.iter().enumerate().map(|(i, b)| Backend::new(b, i as u8)).collect(),
            ring: Vec::new(),
            phases: Vec::new(),
            server_ids: Vec::new(),
            flags: 0,
            allow: Vec::new(),
            deny: Vec::new(),
            openings: OpeningRules::default(),
            stateless_fragments: false,
            interfaces: None,
            is_local: false,
            prefix: Prefixes::default(),
            policy: None,
            choices: Vec::new(),
        }
    }

    /// It remembers every flow, and chooses by an algorithm ([`lb_common::abi::algorithm`]) among `choices` (indexes of
    /// backends: the schedule, or the members).
    pub fn tracked(mut self, algorithm: u32, choices: impl IntoIterator<Item = u32>) -> Self {
        let (flows, flows_unconfirmed) = (u32::MAX, u32::MAX);
        self.policy = Some(Policy { algorithm, flows, flows_unconfirmed, ..Policy::default() });
        self.choices = choices.into_iter().collect();
        self.flags |= service_flag::TRACK;
        self
    }

    /// With its policy changed; it has one.
    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(self.policy.as_mut().expect("tracked"));
        self
    }

    /// With these weights of its backends.
    pub fn weights(mut self, weights: &[u64]) -> Self {
        self.backends
            .iter_mut()
            .zip(weights)
            .for_each(|(backend, weight)| backend.weight = *weight);
        self
    }

    /// The same for UDP.
    pub fn udp(mut self) -> Self {
        self.protocol = protocol::UDP;
        self
    }

    /// On another port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With flags.
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// With each backend changed.
    pub fn each(mut self, change: impl Fn(&mut Backend)) -> Self {
        self.backends.iter_mut().for_each(change);
        self
    }

    /// A slot of its ring; ids of its backends begin with `first`.
    fn slot(&self, index: u32, owner: BackendId, first: u32) -> Slot {
        if self.phases.is_empty() {
            return Slot::settled(owner);
        }
        let (phase, base) = self.phases[index as usize % self.phases.len()];
        let base = base.map_or(BackendId::NONE, |base| BackendId(first + base));
        Slot::new(owner, base, phase, 0)
    }

    /// Slots of its ring.
    pub fn slots(&self) -> u32 {
        if self.ring.is_empty() { 1021 } else { self.ring.len() as u32 }
    }
}

impl Backend {
    /// `address` or `address@port` (port 8080 otherwise), resolved.
    pub fn new(text: &str, number: u8) -> Self {
        let (address, port) = text.split_once('@').unwrap_or((text, "8080"));
        let address = ip(address);
        let source = if address.is_ipv4() { ip("10.9.0.1") } else { ip("fd09::1") };
        Self {
            address,
            port: port.parse().expect("a port"),
            mac: [0x02, 0, 0, 0, 0xbb, number],
            ifindex: INGRESS,
            mtu: 1500,
            flags: backend_flag::RESOLVED,
            source: Some(source),
            source_bits: 0,
            weight: 100,
        }
    }
}

impl World {
    /// With these services only.
    pub fn of(services: impl IntoIterator<Item = Service>) -> Self {
        Self { services: services.into_iter().collect(), ..Self::default() }
    }

    /// With the lists and prefixes that the controller would make of `listens`.
    pub fn listening(mut self) -> Self {
        let bits = |vip: &ipnet::IpNet| u32::from(vip.prefix_len());
        for ((vip, protocol), ports) in lists(self.listens.iter().map(|(id, listen)| (listen, *id)))
        {
            let prefix = (!is_address(&vip)).then_some(bits(&vip));
            let ports = ports.iter().map(|entry| (entry.first(), entry.last(), entry.value()));
            let (address, ports) = (vip.addr(), ports.collect());
            self.lists.push(List { address, prefix, protocol, answers: false, ports });
        }
        for (id, listen) in &self.listens {
            for vip in listen.prefixes() {
                if !self.prefixes.contains(&(vip.addr(), bits(&vip))) {
                    self.prefixes.push((vip.addr(), bits(&vip)));
                }
            }
            let first = self.first_backend(*id as usize - 1);
            let service = &mut self.services[*id as usize - 1];
            service.is_prefix = listen.addresses().next().is_none();
            service.more = listen.addresses().filter(|vip| *vip != service.vip).collect();
            for (number, backend) in (first..).zip(&service.backends) {
                if service.forward == Forward::Nat && backend.port == 0 {
                    self.lists.push(List {
                        address: backend.address,
                        prefix: None,
                        protocol: service.protocol,
                        answers: true,
                        ports: vec![(listen.port.max(1), listen.last_port, number)],
                    });
                }
            }
        }
        self
    }

    /// Id of the first backend of a service.
    pub fn first_backend(&self, service: usize) -> u32 {
        1 + self.services[..service].iter().map(|s| s.backends.len() as u32).sum::<u32>()
    }

    /// Number of backends of all services.
    pub fn backends(&self) -> u32 {
        self.first_backend(self.services.len()) - 1
    }
}

/// An address from its text.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no address"))
}

/// What was written, so that it can be erased.
#[derive(Default)]
pub struct Written {
    /// The arena's range of each service.
    pub rings: Vec<Range<u32>>,
    routes: Vec<Key<RouteKey>>,
    allow: Vec<Key<PrefixKey>>,
    deny: Vec<Key<PrefixKey>>,
    prefixes: Vec<Key<PrefixKey>>,
    backends: u32,
}

impl Written {
    /// Writes a world into empty maps.
    pub fn write(ebpf: &mut Ebpf, world: &World) -> Result<Self> {
        let mut written = Self { backends: world.backends(), ..Self::default() };
        let buckets = array::<ServiceBucket>(ebpf, map::SERVICE_TABLE).len();
        let mut table = vec![ServiceBucket::default(); buckets as usize];
        let mut start = 0;
        for (index, service) in world.services.iter().enumerate() {
            let ring = start..start + service.slots();
            start = ring.end + service.choices.len() as u32;
            written.service(ebpf, world, index, service, &ring)?;
            tracking(ebpf, world, index, service, ring.end)?;
            written.rings.push(ring);
            entries(&mut table, world, index, service);
        }
        for host in &world.hosts {
            put(&mut table, *host, 0, 0, key_kind::ADDRESS, address_value::HOST);
        }
        let mut pool = SourcePool {
            first_port: world.pool_ports.0,
            last_port: world.pool_ports.1,
            ..SourcePool::default()
        };
        for (number, (address, is_local)) in world.pool.iter().enumerate() {
            let value = address_value::of_pool(number as u32, *is_local);
            put(&mut table, *address, 0, 0, key_kind::ADDRESS, value);
            let family = usize::from(address.is_ipv6());
            pool.addresses[number] = (*address).into();
            pool.order[family][pool.counts[family] as usize] = number as u8;
            pool.counts[family] += 1;
        }
        array(ebpf, map::SOURCE_POOL).set(0, pool, 0)?;
        for (list, number) in world.lists.iter().zip(1..) {
            written.list(ebpf, &mut table, list, number)?;
        }
        for (prefix, length) in &world.prefixes {
            put_prefix(ebpf, &mut written.prefixes, (*prefix, *length), 0, address_value::VIP)?;
        }
        presence(ebpf, &table)?;
        for (index, bucket) in table.iter().enumerate() {
            array::<ServiceBucket>(ebpf, map::SERVICE_TABLE).set(index as u32, bucket, 0)?;
        }
        for (index, route) in world.routes.iter().enumerate() {
            written.route(ebpf, index as u32 + 1, route)?;
        }
        few_routes(ebpf, world)?;
        for (address, mac) in &world.neighbours {
            let key = NeighbourKey { address: (*address).into(), ifindex: INGRESS };
            hash_map(ebpf, map::NEIGHBOURS).insert(key, NeighbourRow { mac: *mac, _pad: 0 }, 0)?;
        }
        for (ifindex, number) in &world.interfaces {
            hash_map::<u32, u32>(ebpf, map::INTERFACES).insert(ifindex, number, 0)?;
        }
        Ok(written)
    }

    fn service(
        &mut self,
        ebpf: &mut Ebpf,
        world: &World,
        index: usize,
        service: &Service,
        ring: &Range<u32>,
    ) -> Result<()> {
        let id = index as u32 + 1;
        let first = world.first_backend(index);
        let mut flags = service.flags;
        flags |= if service.allow.is_empty() { 0 } else { service_flag::ALLOW };
        flags |= if service.deny.is_empty() { 0 } else { service_flag::DENY };
        flags |= if service.interfaces.is_none() { 0 } else { service_flag::INTERFACES };
        let row = ServiceRow {
            ring: ring.start,
            slots: service.slots(),
            id,
            flags,
            interfaces: service.interfaces.unwrap_or_default(),
            allow_list: id,
            deny_list: id,
            vip: service.vip.into(),
            port: Be16::from_host(service.port),
            protocol: service.protocol,
            forward: match service.backends.iter().any(|backend| backend.source_bits > 0) {
                true => Forward::Gue,
                false => service.forward,
            } as u8,
            idle_seconds: 900,
            closed_seconds: 120,
            prefix: service.prefix,
            ..ServiceRow::default()
        };
        array(ebpf, map::SERVICES).set(id, row, 0)?;
        let count = service.backends.len() as u32;
        let mut arena = array::<u64>(ebpf, map::ARENA);
        for slot in 0..service.slots() {
            let owner = service.ring.get(slot as usize).copied().unwrap_or(slot % count.max(1));
            let owner = if count == 0 { BackendId::NONE } else { BackendId(first + owner) };
            arena.set(ring.start + slot, service.slot(slot, owner, first).0, 0)?;
        }
        for (number, backend) in service.backends.iter().enumerate() {
            let backend_id = first + number as u32;
            array(ebpf, map::BACKENDS).set(backend_id, backend_row(service, backend, id), 0)?;
            if service.forward == Forward::Nat {
                let vip = service.vip.into();
                let reply = ReplyRow { vip, port: Be16::from_host(service.port), _pad: 0, row: id };
                array(ebpf, map::REPLIES).set(backend_id, reply, 0)?;
            }
        }
        let mut formats = Formats::default();
        for (config, server, backend) in &service.server_ids {
            formats = formats.with(u32::from(*config), server.len() as u32);
            let mut key = QuicId { service: id, config: *config, id: [0; SERVER_ID] };
            key.id[..server.len()].copy_from_slice(server);
            hash_map::<QuicId, u32>(ebpf, map::QUIC_IDS).insert(key, first + backend, 0)?;
        }
        array(ebpf, map::QUIC_FORMATS).set(id, formats, 0)?;
        array(ebpf, map::OPENING_RULES).set(id, service.openings, 0)?;
        array(ebpf, map::OPENING_STATES).set(id, OpeningState::default(), 0)?;
        for (name, prefixes, written) in [
            (map::ALLOW, &service.allow, &mut self.allow),
            (map::DENY, &service.deny, &mut self.deny),
        ] {
            for (prefix, length) in prefixes {
                let bits = length + if prefix.is_ipv4() { 96 } else { 0 };
                let key = Key::new(32 + bits, PrefixKey { list: id, source: (*prefix).into() });
                list(ebpf, name)?.insert(&key, 1, 0)?;
                written.push(key);
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        ebpf: &mut Ebpf,
        table: &mut [ServiceBucket],
        list: &List,
        number: u32,
    ) -> Result<()> {
        let mut entries = [0u64; 16];
        for (word, (first, last, value)) in entries.iter_mut().zip(&list.ports) {
            *word = u64::from(*first) | u64::from(*last) << 16 | u64::from(*value) << 32;
        }
        array::<[u64; 16]>(ebpf, map::PORT_LISTS).set(number, entries, 0)?;
        match list.prefix {
            Some(length) => {
                let prefix = (list.address, length);
                put_prefix(ebpf, &mut self.prefixes, prefix, list.protocol.into(), number)?;
            }
            None => {
                let kind =
                    if list.answers { key_kind::REPLY_PORTS } else { key_kind::SERVICE_PORTS };
                put(table, list.address, 0, list.protocol, kind, number);
            }
        }
        Ok(())
    }

    fn route(&mut self, ebpf: &mut Ebpf, index: u32, route: &Route) -> Result<()> {
        let (gateway, mac) = match route.gateway {
            None => (None, None),
            Some((gateway, mac)) => (Some(gateway), mac),
        };
        let mut flags = if gateway.is_none() { nexthop_flag::ON_LINK } else { 0 };
        flags |= if mac.is_some() { nexthop_flag::RESOLVED } else { 0 };
        let row = NextHopRow {
            dst_mac: mac.unwrap_or_default(),
            mtu: route.mtu,
            src_mac: NIC,
            _pad: 0,
            ifindex: INGRESS,
            flags,
            gateway: gateway.map(Address::from).unwrap_or_default(),
        };
        array(ebpf, map::NEXTHOPS).set(index, row, 0)?;
        let bits = route.prefix.1 + if route.prefix.0.is_ipv4() { 96 } else { 0 };
        let key = Key::new(bits, RouteKey { destination: route.prefix.0.into() });
        routes(ebpf)?.insert(&key, index, 0)?;
        self.routes.push(key);
        Ok(())
    }

    /// Removes what was written, and all pins.
    pub fn erase(&mut self, ebpf: &mut Ebpf, world: &World) -> Result<()> {
        for address in 0..world.pool.len() as u32 {
            for port in world.pool_ports.0..=world.pool_ports.1 {
                let index = PortSlot::index(address, port);
                array(ebpf, map::PORT_SLOTS).set(index, PortSlot::default(), 0)?;
            }
        }
        let buckets = array::<ServiceBucket>(ebpf, map::SERVICE_TABLE).len();
        for index in 0..buckets {
            array(ebpf, map::SERVICE_TABLE).set(index, ServiceBucket::default(), 0)?;
        }
        for key in self.routes.drain(..) {
            routes(ebpf)?.remove(&key)?;
        }
        for (name, written) in [
            (map::ALLOW, &mut self.allow),
            (map::DENY, &mut self.deny),
            (map::VIP_PREFIXES, &mut self.prefixes),
        ] {
            for key in written.drain(..) {
                list(ebpf, name)?.remove(&key)?;
            }
        }
        for id in 0..=self.backends {
            array(ebpf, map::BACKENDS).set(id, BackendRow::default(), 0)?;
            array(ebpf, map::REPLIES).set(id, ReplyRow::default(), 0)?;
        }
        clear(&mut hash_map::<NeighbourKey, NeighbourRow>(ebpf, map::NEIGHBOURS))?;
        clear(&mut hash_map::<u32, u32>(ebpf, map::INTERFACES))?;
        clear(&mut hash_map::<QuicId, u32>(ebpf, map::QUIC_IDS))?;
        clear(&mut hash_map::<FlowKey, Pin>(ebpf, map::PINS))?;
        clear(&mut hash_map::<FlowKey, u32>(ebpf, map::PORT_FLOWS))?;
        clear(&mut hash_map::<FlowKey, Pin>(ebpf, map::PINS_NEW))?;
        clear(&mut hash_map::<FlowKey, Pin>(ebpf, map::FLOWS))?;
        clear(&mut hash_map::<FlowKey, Pin>(ebpf, map::FLOWS_NEW))?;
        clear(&mut hash_map::<SourceKey, RememberedSource>(ebpf, map::SOURCES))?;
        for id in 0..=self.backends {
            array(ebpf, map::LOADS).set(id, BackendLoad::default(), 0)?;
        }
        for id in 0..=self.rings.len() as u32 {
            array(ebpf, map::POLICIES).set(id, Policy::default(), 0)?;
            array(ebpf, map::SERVICE_LOADS).set(id, ServiceLoad::default(), 0)?;
        }
        Ok(())
    }
}

/// Policy, choices and weights of a service that tracks its flows; the choices stand at `place`.
fn tracking(
    ebpf: &mut Ebpf,
    world: &World,
    index: usize,
    service: &Service,
    place: u32,
) -> Result<()> {
    let first = world.first_backend(index);
    for (number, backend) in (first..).zip(&service.backends) {
        let load = BackendLoad { connections: 0, weight: backend.weight };
        array(ebpf, map::LOADS).set(number, load, 0)?;
    }
    let Some(policy) = service.policy else { return Ok(()) };
    for (place, choice) in (place..).zip(&service.choices) {
        let slot = Slot::settled(BackendId(first + choice));
        array::<u64>(ebpf, map::ARENA).set(place, slot.0, 0)?;
    }
    let length = service.choices.len() as u32;
    let total: u64 = service.backends.iter().map(|backend| backend.weight).sum();
    let policy = Policy {
        schedule: place,
        schedule_length: length,
        members: place,
        members_length: length,
        total_weight: total as u32,
        prefix: service.prefix,
        flags: policy.flags
            | if service.forward == Forward::Nat { policy_flag::SEES_REPLIES } else { 0 },
        ..policy
    };
    array(ebpf, map::POLICIES).set(index as u32 + 1, policy, 0)?;
    Ok(())
}

fn backend_row(service: &Service, backend: &Backend, id: u32) -> BackendRow {
    let is_tunnel = matches!(service.forward, Forward::Ipip | Forward::Gue);
    let source = backend.source.filter(|_| is_tunnel);
    let outer_sum = match (source, backend.address) {
        (Some(IpAddr::V4(source)), IpAddr::V4(destination)) => {
            // As if for IPv4, whatever is inside.
            let inner = protocol::IPIP;
            let [a, b] = [source.octets(), destination.octets()];
            // As in RFC 791: version and length, DF, TTL 64, the addresses.
            let constant = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, inner, 0, 0];
            sum(&[constant.as_slice(), &a, &b].concat())
        }
        _ => 0,
    };
    BackendRow {
        address: backend.address.into(),
        source: source.map(Address::from).unwrap_or_default(),
        dst_mac: backend.mac,
        port: Be16::from_host(backend.port),
        src_mac: NIC,
        mtu: backend.mtu,
        ifindex: backend.ifindex,
        flags: backend.flags
            | backend.source_bits << 8
            | if service.forward == Forward::Ipip { backend_flag::IPIP } else { 0 },
        service: id,
        outer_sum,
    }
}

/// Unfolded one's-complement sum of 16-bit words in native byte order.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}

fn entries(table: &mut [ServiceBucket], world: &World, index: usize, service: &Service) {
    let id = index as u32 + 1;
    if service.port != 0 {
        put(table, service.vip, service.port, service.protocol, key_kind::SERVICE, id);
    }
    for vip in &service.more {
        if service.port != 0 {
            put(table, *vip, service.port, service.protocol, key_kind::SERVICE, id);
        }
        put(table, *vip, 0, 0, key_kind::ADDRESS, address_value::VIP);
    }
    if service.stateless_fragments {
        put(table, service.vip, 0, service.protocol, key_kind::FRAGMENTS, id);
    }
    if service.is_prefix {
        return;
    }
    let value = if service.is_local { address_value::VIP_LOCAL } else { address_value::VIP };
    put(table, service.vip, 0, 0, key_kind::ADDRESS, value);
    if service.forward == Forward::Nat {
        for (number, backend) in service.backends.iter().enumerate() {
            let backend_id = world.first_backend(index) + number as u32;
            let (address, port) = (backend.address, backend.port);
            if port == 0 {
                continue;
            }
            put(table, address, port, service.protocol, key_kind::REPLY, backend_id);
        }
    }
}

/// The filter in front of the table.
fn presence(ebpf: &mut Ebpf, table: &[ServiceBucket]) -> Result<()> {
    let mut words = vec![0u64; PRESENCE_BITS as usize / 64];
    for entry in table.iter().flat_map(|bucket| &bucket.entries).filter(|entry| entry.word != 0) {
        let word = |half: u64, shift: u32| Be32::from_raw((half >> shift) as u32);
        let (high, low) = (entry.high, entry.low);
        let address = [word(high, 0), word(high, 32), word(low, 0), word(low, 32)];
        let place = Presence::of(&Address::v6(address));
        words[place.word as usize] |= place.mask;
    }
    for (index, word) in words.iter().enumerate() {
        array::<u64>(ebpf, map::PRESENCE).set(index as u32, word, 0)?;
    }
    Ok(())
}

/// The routes once more, unless the world wants the trie to be asked.
fn few_routes(ebpf: &mut Ebpf, world: &World) -> Result<()> {
    for family in 0..2 {
        let mut routes: Vec<_> = (world.routes.iter().enumerate())
            .filter(|(_, route)| route.prefix.0.is_ipv6() == (family == 1))
            .map(|(index, route)| {
                let bits = route.prefix.1 + if family == 0 { 96 } else { 0 };
                (route.prefix.0.into(), bits, index as u32 + 1)
            })
            .collect();
        let table = FewRoutes::of(&mut routes).filter(|_| !world.ask_trie);
        let tables = match table {
            Some(table) => FewTables { active: 2, tables: [FewRoutes::default(), table] },
            None => FewTables::default(),
        };
        array(ebpf, map::FEW_ROUTES).set(family, tables, 0)?;
    }
    Ok(())
}

fn put_prefix(
    ebpf: &mut Ebpf,
    written: &mut Vec<Key<PrefixKey>>,
    (prefix, length): (IpAddr, u32),
    number: u32,
    value: u32,
) -> Result<()> {
    let bits = length + if prefix.is_ipv4() { 96 } else { 0 };
    let key = Key::new(32 + bits, PrefixKey { list: number, source: prefix.into() });
    list(ebpf, map::VIP_PREFIXES)?.insert(&key, value, 0)?;
    written.push(key);
    Ok(())
}

/// Adds an entry unless its key is there.
fn put(
    table: &mut [ServiceBucket],
    address: IpAddr,
    port: u16,
    protocol: u8,
    kind: u8,
    value: u32,
) {
    let address = Address::from(address);
    let selector = ServiceEntry::selector(Be16::from_host(port), protocol, kind);
    let bucket = ServiceEntry::bucket(&address, selector, table.len() as u32 - 1);
    let entries = &mut table[bucket as usize].entries;
    let word = ServiceEntry::word(selector, value);
    let entry = ServiceEntry { high: address.high(), low: address.low(), word };
    let is_same = |other: &ServiceEntry| {
        (other.high, other.low, other.word as u32) == (entry.high, entry.low, selector)
    };
    if entries.iter().any(is_same) {
        return;
    }
    let free = entries.iter_mut().find(|entry| entry.word == 0);
    *free.unwrap_or_else(|| panic!("more than {SERVICE_BUCKET_ENTRIES} entries in a bucket")) =
        entry;
}

fn routes(ebpf: &mut Ebpf) -> Result<LpmTrie<&mut aya::maps::MapData, RouteKey, u32>> {
    Ok(LpmTrie::try_from(ebpf.map_mut(map::ROUTES).context("no map ROUTES")?)?)
}

fn list<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<LpmTrie<&'a mut aya::maps::MapData, PrefixKey, u32>> {
    Ok(LpmTrie::try_from(ebpf.map_mut(name).with_context(|| format!("no map {name}"))?)?)
}
