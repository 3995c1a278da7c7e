//! Whole packets of every kind: requests, replies, ICMP errors in both directions, echoes, fragments, what is for nobody, and
//! what nobody should send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Learned, People, Random,
    build::{Draft, icmp, tcp, udp},
    flows, pool, quic,
};
use crate::{
    Config,
    config::{Listen, Mode, Service},
    ip::{FRAGMENT, TCP, UDP},
    openings::{Cookies, Openings},
};

/// A frame of any kind.
pub fn any(config: &Config, people: &People, learned: &Learned, random: &mut Random) -> Vec<u8> {
    let mut world = World { config, people, random, cookies: &learned.cookies, in_hand: None };
    if pool::wanted(&learned.translated, world.random) {
        let draft = world.translated(&learned.translated);
        return world.dressed(draft).frame();
    }
    // What is about flows is mostly in what clients send.
    let is_of_flows = config.services().iter().any(|service| service.few_ports().is_some());
    if is_of_flows && world.random.one_in(3) {
        let draft = world.request();
        return world.dressed(draft).frame();
    }
    let has_tracked = config.services().iter().any(|service| service.track.is_some());
    if has_tracked && world.random.one_in(3) {
        let draft = world.reply();
        return world.dressed(draft).frame();
    }
    let draft = match world.random.below(16) {
        0..=4 => world.request(),
        5..=6 => world.reply(),
        7..=8 => world.error_to_vip(),
        9 => world.error_to_client(),
        10 => world.echo(),
        11..=12 => world.fragment(),
        13 => world.unserved(),
        14 => world.stray(),
        _ => return world.foreign(),
    };
    world.dressed(draft).frame()
}

pub(super) struct World<'a> {
    pub(super) config: &'a Config,
    pub(super) people: &'a People,
    pub(super) random: &'a mut Random,
    pub(super) cookies: &'a Cookies,
    /// The service that the packet has to do with.
    pub(super) in_hand: Option<&'a Service>,
}

impl<'a> World<'a> {
    fn service(&mut self) -> &'a Service {
        let services = self.config.services();
        let service = &services[self.random.index(services.len())];
        self.in_hand = Some(service);
        service
    }

    /// How many ports clients of the service in hand have, if they are few.
    fn few_ports(&self) -> Option<u16> {
        self.in_hand?.few_ports()
    }

    pub(super) fn client(&mut self, like: IpAddr) -> IpAddr {
        loop {
            let client = self.random.pick(&self.people.clients);
            if client.is_ipv4() == like.is_ipv4() {
                let is_few = self.few_ports().is_some();
                return if is_few { client } else { self.nearby(client) };
            }
        }
    }

    /// A client, or one of those who never send.
    fn receiver(&mut self, like: IpAddr) -> IpAddr {
        let listener = self.random.pick(&self.people.listeners);
        if self.random.one_in(12) && listener.is_ipv4() == like.is_ipv4() {
            return self.nearby(listener);
        }
        self.client(like)
    }

    /// The same network, another host.
    fn nearby(&mut self, address: IpAddr) -> IpAddr {
        let host = self.random.number() as u8;
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Ipv4Addr::new(a, b, c, host).into()
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6) & !0xff | u128::from(host);
                Ipv6Addr::from(bits).into()
            }
        }
    }

    /// Mostly short, sometimes around an MTU, sometimes longer.
    fn payload(&mut self) -> Vec<u8> {
        if let Some(ids) = self.in_hand.and_then(|service| service.quic.as_ref())
            && !self.random.one_in(8)
        {
            return quic::payload(ids, self.random);
        }
        // Servers that are told of clients have not spoken for a while.
        if self.in_hand.is_some_and(|service| service.tells) && !self.random.one_in(4) {
            return Vec::new();
        }
        let length = match self.random.below(32) {
            0 => 1_380 + self.random.index(140),
            1 => self.random.index(3_000),
            2..=9 => self.random.index(200),
            _ => self.random.index(24),
        };
        self.random.bytes(length)
    }

    fn flags(&mut self) -> u8 {
        const FLAGS: [u8; 10] = [0x02, 0x10, 0x18, 0x11, 0x04, 0x14, 0x12, 0xc2, 0x02, 0x10];
        // Handshakes.
        const OF_FEW: [u8; 8] = [0x02, 0x02, 0x12, 0x12, 0x10, 0x18, 0x11, 0x04];
        let limits = |service: &Service| service.openings != Openings::default();
        if self.in_hand.is_some_and(limits) && self.random.one_in(2) {
            return 0x02;
        }
        if self.few_ports().is_some() {
            self.random.pick(&OF_FEW)
        } else {
            self.random.pick(&FLAGS)
        }
    }

    /// A segment or datagram of a flow.
    pub(super) fn transport(
        &mut self,
        protocol: u8,
        ends: (IpAddr, IpAddr),
        ports: (u16, u16),
    ) -> Vec<u8> {
        let payload = self.payload();
        if protocol == UDP {
            let mut datagram = udp(ends, ports, &payload);
            if self.random.one_in(if ends.0.is_ipv4() { 8 } else { 40 }) {
                datagram[6..8].fill(0);
            }
            return datagram;
        }
        let options = self.options();
        let flags = self.flags();
        let numbers = match self.few_ports() {
            Some(_) => (flows::number(self.random), flows::number(self.random)),
            None => (self.random.number() as u32, self.random.number() as u32),
        };
        let (flags, numbers) = self.for_a_stage(ends, payload.len()).unwrap_or((flags, numbers));
        tcp(ends, ports, flags, numbers, &options, &payload)
    }

    pub(super) fn draft(&self, ends: (IpAddr, IpAddr), protocol: u8, body: Vec<u8>) -> Draft {
        Draft::new((self.people.nic, self.people.neighbour), ends, protocol, body)
    }

    fn client_port(&mut self) -> u16 {
        if let Some(ports) = self.few_ports() {
            return flows::port(self.random, ports);
        }
        if self.random.one_in(200) { 0 } else { 1_024 + self.random.below(60_000) as u16 }
    }

    fn request(&mut self) -> Draft {
        let service = self.service();
        let protocol = service.protocol;
        let (vip, port) = self.listening(service);
        let ends = (self.client(vip), vip);
        let ports = (self.client_port(), port);
        let body = self.transport(protocol, ends, ports);
        self.draft(ends, protocol, body)
    }

    /// A VIP and a port that a service listens on, or nearly.
    fn listening(&mut self, service: &Service) -> (IpAddr, u16) {
        let all: Vec<Listen> = service.listens().collect();
        let listen = all[self.random.number() as usize % all.len()];
        let (first, last) = listen.ports;
        let port = match self.random.below(16) {
            _ if first == last => first,
            0 => first,
            1 => last,
            2 => first.wrapping_sub(1),
            3 => last.wrapping_add(1),
            _ => first + self.random.below(u64::from(last - first) + 1) as u16,
        };
        (self.within(listen.prefix), port)
    }

    /// Some address within a prefix; now and then one beside it.
    fn within(&mut self, (address, bits): (IpAddr, u32)) -> IpAddr {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        if bits == whole {
            return address;
        }
        // The hosts of a world and other VIPs are among the first.
        let host = match self.random.one_in(2) {
            true => u128::from(self.random.below(8)),
            false => u128::from(self.random.number()),
        };
        let bits = if self.random.one_in(32) { bits - 1 } else { bits };
        let host = host & ((1 << (whole - bits)) - 1);
        match address {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ host as u32).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) ^ host).into()),
        }
    }

    /// Some nat service's backend, and a client of its.
    fn nat_flow(&mut self) -> (IpAddr, u16, u8, IpAddr, u16) {
        loop {
            let pick = self.random.number() as usize;
            let service = self.service();
            if service.mode == Mode::Nat && !service.backends.is_empty() {
                let backend = &service.backends[pick % service.backends.len()];
                let (address, protocol) = (backend.address, service.protocol);
                let port = match backend.port {
                    0 => self.listening(service).1,
                    port => port,
                };
                let client = self.receiver(address);
                return (address, port, protocol, client, self.client_port());
            }
        }
    }

    fn reply(&mut self) -> Draft {
        let (backend, port, protocol, client, client_port) = self.nat_flow();
        let body = self.transport(protocol, (backend, client), (port, client_port));
        self.draft((backend, client), protocol, body)
    }

    fn error_to_vip(&mut self) -> Draft {
        let service = self.service();
        let protocol = service.protocol;
        let (vip, port) = self.listening(service);
        let client = self.client(vip);
        let ports = (port, self.client_port());
        self.error((vip, client), ports, protocol)
    }

    fn error_to_client(&mut self) -> Draft {
        let (backend, port, protocol, client, client_port) = self.nat_flow();
        self.error((client, backend), (client_port, port), protocol)
    }

    /// An error about a packet, sent to its source: by a router, or by its destination.
    pub(super) fn error(
        &mut self,
        quoted: (IpAddr, IpAddr),
        ports: (u16, u16),
        protocol: u8,
    ) -> Draft {
        let body = self.transport(protocol, quoted, ports);
        let mut about = self.draft(quoted, protocol, body);
        if quoted.0.is_ipv4() && self.random.one_in(6) {
            about.options = vec![1; 4 * (1 + self.random.index(10))];
        }
        if self.random.one_in(8) {
            self.fragmented(&mut about);
        }
        let packet = about.packet();
        let least = packet.len() - about.body.len() + 8;
        let most = packet.len().min(1_232);
        let length = match self.random.below(3) {
            0 => least.min(most),
            1 => most,
            _ => least.min(most) + self.random.index(most.saturating_sub(least).max(1)),
        };
        let from = if self.random.one_in(3) { quoted.1 } else { self.client(quoted.0) };
        let v4: &[u8] = &[3, 3, 3, 11, 12, 3, 4, 5];
        let kinds = if from.is_ipv4() { v4 } else { &[1, 2, 2, 3, 4, 1, 5, 100] };
        let kind = self.random.pick(kinds);
        let code = self.random.below(6) as u8;
        let mtu = self.random.pick(&[0u16, 67, 552, 1_280, 1_400, 65_535]).to_be_bytes();
        let ends = (from, quoted.0);
        let message = icmp(ends, [kind, code], [0, 0, mtu[0], mtu[1]], &packet[..length]);
        self.draft(ends, if from.is_ipv4() { 1 } else { 58 }, message)
    }

    fn echo(&mut self) -> Draft {
        let vip = self.service().vip;
        let ends = (self.client(vip), vip);
        let payload = self.payload();
        let kind = match (vip.is_ipv4(), self.random.one_in(5)) {
            (true, false) => 8,
            (true, true) => self.random.pick(&[0, 9, 10, 13, 15, 17]),
            (false, false) => 128,
            (false, true) => self.random.pick(&[129, 133, 134, 135, 136, 137]),
        };
        let rest = (self.random.number() as u32).to_be_bytes();
        let message = icmp(ends, [kind, 0], rest, &payload);
        self.draft(ends, if vip.is_ipv4() { 1 } else { 58 }, message)
    }

    /// First and later fragments of few packets, so that they meet.
    fn fragment(&mut self) -> Draft {
        let mut draft = if self.random.one_in(3) { self.reply() } else { self.request() };
        let host: IpAddr = self.random.pick(&self.people.clients);
        let is_request = self.config.vip(draft.destination).is_some();
        let client = if is_request { &mut draft.source } else { &mut draft.destination };
        if host.is_ipv4() == client.is_ipv4() {
            *client = host;
        }
        self.fragmented(&mut draft);
        draft
    }

    /// Makes it a fragment. The checksum stays that of the whole.
    pub(super) fn fragmented(&mut self, draft: &mut Draft) {
        let more = !self.random.one_in(3);
        // As many units as it brings itself, so that fragments adjoin.
        let own = draft.body.len().div_ceil(8) as u16;
        let offset = match self.random.below(9) {
            0..=3 => 0,
            4 => 1,
            5 => self.random.below(0x2000) as u16,
            6 | 7 => own * self.random.pick(&[1, 2, 3]),
            _ => self.random.pick(&[10, 100, 185]),
        };
        if more {
            let whole = draft.body.len().next_multiple_of(8);
            draft.body.resize(whole, 0);
        }
        let id = self.random.below(4) as u32;
        if draft.source.is_ipv4() {
            draft.label = id;
            draft.fragment = offset | if more { 0x2000 } else { 0 };
            return;
        }
        let [a, b] = ((offset << 3) | u16::from(more)).to_be_bytes();
        draft.options = [&[draft.protocol, 0, a, b][..], &id.to_be_bytes()].concat();
        draft.protocol = FRAGMENT;
    }

    /// To a VIP, but for no service of it.
    fn unserved(&mut self) -> Draft {
        const PROTOCOLS: [u8; 12] = [4, 41, 47, 50, 51, 89, 132, 136, 0, 59, 255, 58];
        let vip = self.service().vip;
        let ends = (self.client(vip), vip);
        let ports = (self.client_port(), self.random.number() as u16);
        let protocol = self.random.pick(&[TCP, UDP]);
        let body = self.transport(protocol, ends, ports);
        let protocol = if self.random.one_in(2) { protocol } else { self.random.pick(&PROTOCOLS) };
        self.draft(ends, protocol, body)
    }

    /// Between clients, hosts and backends.
    fn stray(&mut self) -> Draft {
        let to = self.service().vip;
        let hosts: Vec<IpAddr> = self.config.hosts.iter().copied().collect();
        let (backend, port, protocol, client, client_port) = self.nat_flow();
        let host = hosts.iter().find(|host| host.is_ipv4() == backend.is_ipv4());
        let (ends, ports) = match (self.random.below(4), host) {
            (0, Some(host)) => ((backend, *host), (port, client_port)),
            (1, _) => ((backend, client), (self.client_port(), client_port)),
            (2, _) => ((self.client(backend), backend), (client_port, port)),
            _ => ((self.client(to), self.client(to)), (port, client_port)),
        };
        let body = self.transport(protocol, ends, ports);
        self.draft(ends, protocol, body)
    }

    /// No IP, or not at once.
    fn foreign(&mut self) -> Vec<u8> {
        let mut frame = self.request().frame();
        match self.random.below(4) {
            0 => frame[12..14].copy_from_slice(&[0x08, 0x06]),
            1 => drop(frame.splice(12..12, [0x81, 0x00, 0x00, 0x05])),
            2 => drop(frame.splice(12..12, [0x88, 0xa8, 0, 7, 0x81, 0, 0, 5])),
            _ => {
                let other = self.random.number() as u16;
                frame[12..14].copy_from_slice(&other.to_be_bytes());
            }
        }
        frame
    }
}
