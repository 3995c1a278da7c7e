//! What services listen on: which packets are whose where several of them match, and whose the answers of nat backends are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use lb_common::abi::PortEntry;

use super::{Backend, Listen};

impl Listen {
    /// Whether there is one port alone.
    pub fn has_one_port(&self) -> bool {
        self.port == self.last_port
    }

    /// Whether there is one address alone.
    pub fn has_one_address(&self) -> bool {
        self.vips.len() == 1 && is_address(&self.vips[0])
    }

    /// Whether an address is one of its VIPs.
    pub fn has(&self, address: IpAddr) -> bool {
        self.vips.iter().any(|vip| vip.contains(&address))
    }

    /// Whether any of its VIPs is of an address's family.
    pub fn has_family_of(&self, address: IpAddr) -> bool {
        self.vips.iter().any(|vip| vip.addr().is_ipv4() == address.is_ipv4())
    }

    /// The VIPs that are addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips.iter().filter(|vip| is_address(vip)).map(IpNet::addr)
    }

    /// The VIPs that are prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.vips.iter().filter(|vip| !is_address(vip)).copied()
    }

    /// Addresses with a port that no list is needed for.
    pub fn sockets(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.addresses().filter(|_| self.has_one_port()).map(|address| (address, self.port))
    }

    /// VIPs that are found by lists of ports.
    pub fn listed(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.vips.iter().filter(|vip| !is_address(vip) || !self.has_one_port()).copied()
    }

    /// `80`, `8000-8999` or `any`.
    pub fn ports(&self) -> String {
        ports_text(self.port, self.last_port)
    }

    /// The lower, the more exact: one port, a range, all.
    pub fn port_rank(&self) -> u8 {
        match (self.port, self.last_port) {
            (0, _) => 2,
            (first, last) if first < last => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, vip) in self.vips.iter().enumerate() {
            let gap = if index == 0 { "" } else { ", " };
            write!(f, "{gap}{}", socket_text(vip, self.port, self.last_port))?;
        }
        write!(f, "/{}", self.protocol.name())
    }
}

impl Backend {
    /// `10.0.0.11:80`; the address alone where packets keep their ports.
    pub fn place(&self) -> String {
        match self.port {
            0 => self.address.to_string(),
            port => SocketAddr::new(self.address, port).to_string(),
        }
    }
}

/// Whether a prefix is one address.
pub fn is_address(vip: &IpNet) -> bool {
    vip.prefix_len() == vip.max_prefix_len()
}

/// `80`, `8000-8999` or `any`.
pub fn ports_text(first: u16, last: u16) -> String {
    match (first, last) {
        (0, u16::MAX) => "any".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// `192.0.2.10:80`, `[2001:db8::/64]:8000-8999`
pub fn socket_text(vip: &IpNet, first: u16, last: u16) -> String {
    let ports = ports_text(first, last);
    match (vip, is_address(vip)) {
        (IpNet::V4(v4), true) => format!("{}:{ports}", v4.addr()),
        (IpNet::V4(v4), false) => format!("{v4}:{ports}"),
        (IpNet::V6(v6), true) => format!("[{}]:{ports}", v6.addr()),
        (IpNet::V6(v6), false) => format!("[{v6}]:{ports}"),
    }
}

/// Ranges of ports by what they are looked up by, the best match first: what a shorter prefix has is in the lists of the longer
/// ones within it, too, since packets see one list. Keys: VIP or prefix, and IP protocol.
pub fn lists<'a>(
    services: impl IntoIterator<Item = (&'a Listen, u32)>,
) -> BTreeMap<(IpNet, u8), Vec<PortEntry>> {
    let services: Vec<(&Listen, u32)> =
        services.into_iter().filter(|(listen, _)| listen.listed().next().is_some()).collect();
    let keys = services
        .iter()
        .flat_map(|(listen, _)| listen.listed().map(|vip| (vip, listen.protocol.number())))
        .collect::<BTreeSet<_>>();
    let list = |(vip, protocol): (IpNet, u8)| {
        let mut found: Vec<_> = services
            .iter()
            .filter(|(listen, _)| listen.protocol.number() == protocol)
            .filter_map(|(listen, value)| {
                let around = listen.listed().filter(|other| other.contains(&vip));
                let longest = around.map(|other| other.prefix_len()).max()?;
                let width = listen.last_port - listen.port;
                let entry = PortEntry::new(listen.port.max(1), listen.last_port, *value);
                Some((std::cmp::Reverse(longest), listen.port_rank(), width, listen.port, entry))
            })
            .collect();
        found.sort_unstable_by_key(|(longest, rank, width, port, _)| {
            (*longest, *rank, *width, *port)
        });
        found.into_iter().map(|(.., entry)| entry).collect()
    };
    keys.into_iter().map(|key| (key, list(key))).collect()
}

/// The ports from which a nat backend answers for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerPorts {
    vip: IpAddr,
    first: u16,
    last: u16,
    /// Packets have there the port that they were sent to.
    kept: bool,
}

impl AnswerPorts {
    /// Of a backend with this port; 0 = each packet's own is kept.
    pub fn of(listen: &Listen, port: u16) -> Self {
        let (first, last) = match port {
            0 => (listen.port.max(1), listen.last_port),
            port => (port, port),
        };
        let kept = port == 0 || (listen.has_one_port() && listen.port == port);
        Self { vip: listen.address, first, last, kept }
    }

    /// Whether an answer could be either's. Of two services of one VIP, each keeping the ports, the packets are only ever one's.
    pub fn clashes(&self, other: &Self) -> bool {
        let overlap = self.first <= other.last && other.first <= self.last;
        overlap && !(self.kept && other.kept && self.vip == other.vip)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Protocol, *};

    fn listen(vips: &[&str], port: u16, last_port: u16) -> Listen {
        let vips: Vec<IpNet> = vips.iter().map(|vip| vip.parse().expect("a prefix")).collect();
        Listen {
            address: vips[0].network(),
            vips,
            port,
            last_port,
            protocol: Protocol::Tcp,
            interfaces: Vec::new(),
            add_address_to: None,
            force: false,
        }
    }

    fn values(entries: &[PortEntry]) -> Vec<u32> {
        entries.iter().map(|entry| entry.value()).collect()
    }

    #[test]
    fn the_longest_prefix_comes_first_then_the_fewest_ports() {
        let all = [
            listen(&["10.0.0.0/8"], 0, u16::MAX),
            listen(&["10.1.0.0/24"], 80, 80),
            listen(&["10.1.0.0/24", "2001:db8::/64"], 8_000, 8_999),
            listen(&["10.1.0.0/24"], 0, u16::MAX),
            listen(&["10.1.0.7/32"], 0, u16::MAX),
            listen(&["10.1.0.7/32"], 443, 443),
        ];
        let found = lists(all.iter().zip(1..));
        let of = |vip: &str| &found[&(vip.parse().expect("a prefix"), 6)];
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(values(of("10.0.0.0/8")), [1]);
        assert_eq!(values(of("10.1.0.0/24")), [2, 3, 4, 1]);
        assert_eq!(values(of("10.1.0.7/32")), [5, 2, 3, 4, 1]);
        assert_eq!(values(of("2001:db8::/64")), [3]);
        assert_eq!(of("10.1.0.0/24")[1], PortEntry::new(8_000, 8_999, 3));
        assert_eq!(of("10.0.0.0/8")[0], PortEntry::new(1, 65_535, 1));
    }

    #[test]
    fn what_is_listened_on_is_said_in_one_line() {
        for (listen, said) in [
            (listen(&["192.0.2.10/32"], 80, 80), "192.0.2.10:80/tcp"),
            (
                listen(&["192.0.2.10/32", "2001:db8::10/128"], 80, 80),
                "192.0.2.10:80, [2001:db8::10]:80/tcp",
            ),
            (listen(&["10.1.0.0/24"], 8_000, 8_999), "10.1.0.0/24:8000-8999/tcp"),
            (listen(&["2001:db8::/64"], 0, u16::MAX), "[2001:db8::/64]:any/tcp"),
        ] {
            assert_eq!(listen.to_string(), said);
        }
    }

    #[test]
    fn answers_are_told_apart_or_not() {
        let one =
            |vip: &str, port, last, backend| AnswerPorts::of(&listen(&[vip], port, last), backend);
        let any = one("192.0.2.1/32", 0, u16::MAX, 0);
        let range = one("192.0.2.1/32", 8_000, 8_999, 0);
        for (other, clashes) in [
            (range, false),
            (one("192.0.2.1/32", 80, 80, 80), false),
            (one("192.0.2.1/32", 80, 80, 8_080), true),
            (one("192.0.2.2/32", 80, 80, 80), true),
            (one("192.0.2.2/32", 0, u16::MAX, 0), true),
        ] {
            assert_eq!((any.clashes(&other), other.clashes(&any)), (clashes, clashes), "{other:?}");
        }
        assert!(!range.clashes(&one("192.0.2.2/32", 80, 80, 80)));
        assert!(range.clashes(&one("192.0.2.2/32", 80, 80, 8_080)));
    }
}
