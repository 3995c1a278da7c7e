//! Checks of a configuration against this host: what would lock the operator out, or take an address that is not a
//! service's to take (fault-cases S22, S23).

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;

use crate::{
    config::model::{Config, Listen, Protocol, Service, listen::is_address},
    net::Snapshot,
};

/// A local socket that waits for traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Bound address; unspecified = all.
    pub address: IpAddr,
    /// Bound port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A service that must not be as it is, unless `listen.force` says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index in `services`.
    pub service: usize,
    /// Index of its VIP.
    pub vip: usize,
    /// The sentence.
    pub message: String,
}

/// Conflicts of `config` with the host's own addresses and listening sockets. Addresses in `ours` were put there by lb.
pub fn conflicts(
    config: &Config,
    snapshot: &Snapshot,
    listeners: &HashSet<Listener>,
    ours: &[(String, IpAddr)],
) -> Vec<Conflict> {
    let vips: HashSet<IpAddr> =
        config.services.iter().flat_map(|service| service.listen.addresses()).collect();
    let host = Host { snapshot, listeners, ours, vips };
    let careful = config.services.iter().enumerate().filter(|(_, service)| !service.listen.force);
    let of_service = |(index, service): (usize, &Service)| {
        let listen = &service.listen;
        let conflict = |(vip, prefix): (usize, &IpNet)| {
            let message = match is_address(prefix) {
                true => host.address(listen, prefix.addr()),
                false => host.prefix(prefix),
            };
            message.map(|message| Conflict { service: index, vip, message })
        };
        listen.vips.iter().enumerate().filter_map(conflict).collect::<Vec<_>>()
    };
    careful.flat_map(of_service).collect()
}

/// What there is on this host, and what the configuration has of it.
struct Host<'a> {
    snapshot: &'a Snapshot,
    listeners: &'a HashSet<Listener>,
    ours: &'a [(String, IpAddr)],
    /// VIPs that are written as addresses.
    vips: HashSet<IpAddr>,
}

impl Host<'_> {
    /// What speaks against an address as a VIP.
    fn address(&self, listen: &Listen, vip: IpAddr) -> Option<String> {
        let local = self.snapshot.addresses.iter().find(|entry| entry.address == vip)?;
        let wildcard: IpAddr = match vip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let ports = listen.port.max(1)..=listen.last_port;
        let bound = [vip, wildcard, Ipv6Addr::UNSPECIFIED.into()];
        let taken = self
            .listeners
            .iter()
            .filter(|listener| {
                listener.protocol.number() == listen.protocol.number()
                    && bound.contains(&listener.address)
                    && ports.contains(&listener.port)
            })
            .map(|listener| listener.port)
            .min();
        if let Some(port) = taken {
            return Some(format!(
                "a process of this host listens on {}/{}, and balancing that port would take it from the network; \
                 use another address or port, stop that process, or say `force: true` under `listen`",
                SocketAddr::new(vip, port),
                listen.protocol.name()
            ));
        }
        let host_prefix = if vip.is_ipv4() { 32 } else { 128 };
        let own =
            local.prefix < host_prefix && !self.ours.iter().any(|(_, address)| *address == vip);
        own.then(|| {
            format!(
                "{vip} is this host's own address (/{}), not a service address; use a VIP of its own (/{host_prefix}, \
                 `add_address_to` puts it on a NIC), or say `force: true` under `listen`",
                local.prefix
            )
        })
    }

    /// What speaks against all addresses of a prefix.
    fn prefix(&self, prefix: &IpNet) -> Option<String> {
        let own = self.snapshot.addresses.iter().map(|entry| entry.address);
        let own = own.filter(|address| prefix.contains(address) && !self.vips.contains(address));
        let address = own.min()?;
        Some(format!(
            "{prefix} has this host's own address {address}; use a prefix without it, write those of its addresses that are \
             VIPs one by one, or say `force: true` under `listen`: the host's addresses then stay the host's"
        ))
    }
}

/// Listening TCP and bound UDP sockets of this network namespace.
pub fn listeners() -> io::Result<HashSet<Listener>> {
    let mut found = HashSet::new();
    for (file, protocol, state) in [
        ("/proc/thread-self/net/tcp", Protocol::Tcp, "0A"),
        ("/proc/thread-self/net/tcp6", Protocol::Tcp, "0A"),
        ("/proc/thread-self/net/udp", Protocol::Udp, "07"),
        ("/proc/thread-self/net/udp6", Protocol::Udp, "07"),
    ] {
        match fs::read_to_string(file) {
            Ok(text) => found
                .extend(text.lines().skip(1).filter_map(|line| parse_line(line, protocol, state))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// One line of /proc/net/{tcp,udp}[6] (Documentation/networking/proc_net_tcp.rst).
fn parse_line(line: &str, protocol: Protocol, wanted_state: &str) -> Option<Listener> {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let _remote = fields.next()?;
    if fields.next()? != wanted_state {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let words = (0..address.len() / 8)
        .map(|index| u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let address: IpAddr = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some(Listener { address, port: u16::from_str_radix(port, 16).ok()?, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_proc() {
        let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1";
        let found = parse_line(line, Protocol::Tcp, "0A").unwrap();
        assert_eq!(
            found,
            Listener { address: Ipv4Addr::LOCALHOST.into(), port: 22, protocol: Protocol::Tcp }
        );
        assert_eq!(parse_line(line, Protocol::Tcp, "01"), None);
        let line = "   1: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 0";
        let found = parse_line(line, Protocol::Tcp, "0A").unwrap();
        assert_eq!((found.address, found.port), (Ipv6Addr::LOCALHOST.into(), 443));
    }

    #[test]
    fn sees_a_real_listener() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listeners().unwrap();
        assert!(
            found.contains(&Listener {
                address: Ipv4Addr::LOCALHOST.into(),
                port,
                protocol: Protocol::Tcp
            }),
            "{found:?}"
        );
    }
}
