//! Full nat: which addresses it sends from, and who has their ports.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::abi::{Address, BackendId, SourcePool, address_value};

use super::{Node, apply::ApplyError, monotonic_milliseconds};
use crate::{
    api::types::Connections,
    config::model::{self, Config, Forward},
};

/// How often the ports are counted; longer if that takes long.
const EVERY: Duration = Duration::from_secs(1);

/// What the controller knows of the pool.
#[derive(Debug, Default)]
pub struct Ports {
    /// Addresses by their numbers: those in the file, and those whose flows go on.
    addresses: Vec<(IpAddr, u32)>,
    /// Of them, those in the file.
    wanted: Vec<IpAddr>,
    /// Ports of each address.
    each: u64,
    /// At the last look, by backend id.
    backends: HashMap<u32, Connections>,
    /// At the last look, all of them.
    taken: u64,
    due: Option<Instant>,
}

impl Ports {
    /// Addresses, and what the table of services says of each; `is_local` tells which are this host's, too.
    pub fn entries(
        &self,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = (IpAddr, u32)> {
        self.addresses.iter().map(move |&(address, number)| {
            (address, address_value::of_pool(number, is_local(address)))
        })
    }

    /// Ports that flows have, and how many there are; `None` = nobody does full nat.
    pub fn fill(&self) -> Option<(u64, u64)> {
        let all = self.wanted.len() as u64 * self.each;
        (all > 0).then_some((self.taken, all))
    }
}

/// Whether a configuration has a service that does full nat.
pub fn wanted(config: &Config) -> bool {
    config.services.iter().any(|service| service.forward == Forward::FullNat)
}

/// The number of every address that has one or is to have one; `None` = there is no room. Those that have one keep it.
fn numbered(
    before: &SourcePool,
    wanted: &[IpAddr],
    capacity: usize,
) -> Option<(SourcePool, Vec<(IpAddr, u32)>)> {
    let mut pool = *before;
    let free = Address::default();
    for address in wanted {
        let address = Address::from(*address);
        if pool.addresses.contains(&address) {
            continue;
        }
        let place = pool.addresses[..capacity].iter_mut().find(|place| **place == free)?;
        *place = address;
    }
    let mut numbers = Vec::new();
    for (number, address) in pool.addresses.iter().enumerate() {
        if *address != free {
            numbers.push((IpAddr::from(*address), number as u32));
        }
    }
    for family in [0, 1] {
        let of_family = wanted.iter().filter(|address| address.is_ipv6() == (family == 1));
        let mut count = 0;
        for address in of_family {
            let number = numbers.iter().find(|(known, _)| known == address)?.1;
            pool.order[family][count] = number as u8;
            count += 1;
        }
        pool.counts[family] = count as u32;
    }
    Some((pool, numbers))
}

impl Node {
    /// Says what new flows are sent from. An address that is gone from the file stays known for as long as a flow has a port of it.
    pub(super) fn apply_pool(&mut self, config: &Config) -> Result<(), ApplyError> {
        let nothing = model::SourcePool { addresses: Vec::new(), first_port: 0, last_port: 0 };
        let spec = config.source_pool.as_ref().filter(|_| wanted(config)).unwrap_or(&nothing);
        let table = self.dataplane.fullnat();
        let capacity = table.capacity();
        let before = table.pool();
        let (mut pool, addresses) =
            numbered(&before, &spec.addresses, capacity as usize).ok_or(ApplyError::Limit {
                what: "addresses of `source_pool`, those whose flows go on counted,",
                key: "source_addresses",
                needed: spec.addresses.len() as u64,
                left: capacity.into(),
            })?;
        (pool.first_port, pool.last_port) = (spec.first_port, spec.last_port);
        table.set_pool(&pool);
        self.ports.addresses = addresses;
        self.ports.wanted.clone_from(&spec.addresses);
        self.ports.each = match spec.first_port {
            0 => 0,
            first => u64::from(spec.last_port - first) + 1,
        };
        self.ports.due = None;
        Ok(())
    }

    /// Counts who has which port if it is time.
    pub(super) fn count_ports(&mut self) {
        let began = Instant::now();
        if self.ports.addresses.is_empty() || self.ports.due.is_some_and(|due| began < due) {
            return;
        }
        let now = monotonic_milliseconds() * 1_000_000;
        let mut backends: HashMap<u32, Connections> = HashMap::new();
        let mut taken = 0;
        let mut idle = Vec::new();
        for (address, number) in &self.ports.addresses {
            let before = taken;
            for port in self.dataplane.fullnat().taken(*number, now) {
                taken += 1;
                let count = backends.entry(port.slot.backend.0).or_default();
                let state = port.state();
                match state.is_established() && !state.is_closing() {
                    true => count.active += 1,
                    false => count.inactive += 1,
                }
            }
            if taken == before && !self.ports.wanted.contains(address) {
                idle.push(*address);
            }
        }
        (self.ports.backends, self.ports.taken) = (backends, taken);
        self.release(&idle);
        self.ports.due = Some(Instant::now() + EVERY.max(began.elapsed() * 20));
    }

    /// Forgets addresses that nobody wants and no flow has a port of.
    fn release(&mut self, idle: &[IpAddr]) {
        if idle.is_empty() {
            return;
        }
        let mut pool = self.dataplane.fullnat().pool();
        for address in idle {
            let address = Address::from(*address);
            for place in pool.addresses.iter_mut().filter(|place| **place == address) {
                *place = Address::default();
            }
        }
        self.ports.addresses.retain(|(address, _)| !idle.contains(address));
        if let Err(error) = self.publish_addresses() {
            tracing::error!(%error, "addresses of the pool could not be withdrawn");
        }
        self.dataplane.fullnat().set_pool(&pool);
    }

    /// Whether a flow of full nat is a backend's.
    pub(super) fn has_ports(&self, id: BackendId) -> bool {
        self.ports.backends.contains_key(&id.0)
    }

    /// Connections of a backend of a service that does full nat; `None` = it does not.
    pub(super) fn translated_connections_of(
        &self,
        service: usize,
        backend: u32,
    ) -> Option<Connections> {
        if self.services[service].spec.forward != Forward::FullNat {
            return None;
        }
        Some(self.ports.backends.get(&backend).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_keep_their_numbers() {
        let first = addresses(&["10.0.0.1", "fd00::1", "10.0.0.2"]);
        let (pool, numbers) = numbered(&SourcePool::default(), &first, 4).unwrap();
        assert_eq!(numbers.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(pool.counts, [2, 1]);
        assert_eq!((pool.order[0][..2].to_vec(), pool.order[1][0]), (vec![0, 2], 1));

        // One goes, one comes: nobody else's number changes, and the one that goes keeps its place.
        let second = addresses(&["10.0.0.2", "fd00::1", "10.0.0.3"]);
        let (pool, numbers) = numbered(&pool, &second, 4).unwrap();
        assert_eq!(numbers.len(), 4);
        assert_eq!(pool.counts, [2, 1]);
        assert_eq!(pool.order[0][..2].to_vec(), [2, 3]);

        let third = addresses(&["10.0.0.2", "fd00::1", "10.0.0.3", "10.0.0.4"]);
        assert!(numbered(&pool, &third, 4).is_none(), "four places, five addresses");
        assert!(numbered(&SourcePool::default(), &first, 0).is_none(), "no table");
        assert!(numbered(&SourcePool::default(), &[], 0).is_some(), "nothing needs none");
    }
}
