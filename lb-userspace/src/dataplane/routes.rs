//! The host's routes and neighbours as the program sees them for nat replies, and the allow lists: maps with keys,
//! changed by difference.

use std::{
    collections::{HashMap as Std, HashSet},
    net::IpAddr,
};

use aya::maps::{
    HashMap, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use lb_common::abi::{Address, AllowKey, NeighbourKey, NeighbourRow, NextHopRow, RouteKey};

use super::{mapped::Table, missing_is_fine};

/// The maps and what is in them.
pub(super) struct Routes {
    pub(super) trie: LpmTrie<MapData, RouteKey, u32>,
    pub(super) rows: Table<NextHopRow>,
    pub(super) neighbours: HashMap<MapData, NeighbourKey, NeighbourRow>,
    pub(super) allow: LpmTrie<MapData, AllowKey, u32>,
    pub(super) known: Std<IpNet, u32>,
    pub(super) known_neighbours: Std<(u32, IpAddr), [u8; 6]>,
    pub(super) known_allow: Std<u32, Vec<IpNet>>,
}

/// Prefix length in the v4-mapped form.
fn mapped_length(prefix: &IpNet) -> u32 {
    prefix.prefix_len() as u32 + if prefix.addr().is_ipv4() { 96 } else { 0 }
}

fn route_key(prefix: &IpNet) -> Key<RouteKey> {
    Key::new(mapped_length(prefix), RouteKey { destination: Address::from(prefix.network()) })
}

fn allow_key(list: u32, prefix: &IpNet) -> Key<AllowKey> {
    Key::new(32 + mapped_length(prefix), AllowKey { list, source: Address::from(prefix.network()) })
}

impl Routes {
    /// Makes the maps hold exactly these routes. A row in use changes in place, its resolved flag last.
    pub(super) fn set(&mut self, routes: Vec<(IpNet, NextHopRow)>) -> Result<(), MapError> {
        let limit = self.rows.len() - 1;
        if routes.len() as u32 > limit {
            // A trie that misses some routes would answer with a shorter prefix: wrong. None at all makes the program
            // ask the kernel.
            tracing::warn!(
                routes = routes.len(),
                limit,
                "too many routes to mirror; replies ask the kernel"
            );
            return self.set(Vec::new());
        }
        let wanted: HashSet<IpNet> = routes.iter().map(|(prefix, _)| *prefix).collect();
        let gone: Vec<IpNet> =
            self.known.keys().filter(|prefix| !wanted.contains(*prefix)).copied().collect();
        for prefix in gone {
            missing_is_fine(self.trie.remove(&route_key(&prefix)))?;
            self.known.remove(&prefix);
        }
        let mut used: HashSet<u32> = self.known.values().copied().collect();
        for (prefix, row) in routes {
            let number = match self.known.get(&prefix) {
                Some(number) => *number,
                None => (1..=limit).find(|number| !used.contains(number)).unwrap_or(limit),
            };
            used.insert(number);
            if self.rows.get(number) != row {
                self.rows.set(number, &row);
            }
            if self.known.insert(prefix, number).is_none() {
                self.trie.insert(&route_key(&prefix), number, 0)?;
            }
        }
        Ok(())
    }

    /// Makes the map hold exactly these neighbours; beyond its size the program asks the kernel.
    pub(super) fn set_neighbours(
        &mut self,
        neighbours: Vec<(u32, IpAddr, [u8; 6])>,
    ) -> Result<(), MapError> {
        let key = |ifindex: u32, address: IpAddr| NeighbourKey { address: address.into(), ifindex };
        let wanted: Std<(u32, IpAddr), [u8; 6]> = neighbours
            .into_iter()
            .map(|(ifindex, address, mac)| ((ifindex, address), mac))
            .collect();
        let gone: Vec<(u32, IpAddr)> = self
            .known_neighbours
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .copied()
            .collect();
        for (ifindex, address) in gone {
            missing_is_fine(self.neighbours.remove(&key(ifindex, address)))?;
            self.known_neighbours.remove(&(ifindex, address));
        }
        for ((ifindex, address), mac) in wanted {
            if self.known_neighbours.get(&(ifindex, address)) == Some(&mac) {
                continue;
            }
            let row = NeighbourRow { mac, _pad: 0 };
            match self.neighbours.insert(key(ifindex, address), row, 0) {
                Ok(()) => {
                    self.known_neighbours.insert((ifindex, address), mac);
                }
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::E2BIG) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills an allow list that no service refers to yet.
    pub(super) fn set_allow(&mut self, list: u32, prefixes: &[IpNet]) -> Result<(), MapError> {
        for prefix in prefixes {
            self.allow.insert(&allow_key(list, prefix), 1, 0)?;
        }
        self.known_allow.insert(list, prefixes.to_vec());
        Ok(())
    }

    /// Removes an allow list that no service refers to any more.
    pub(super) fn remove_allow(&mut self, list: u32) -> Result<(), MapError> {
        for prefix in self.known_allow.remove(&list).unwrap_or_default() {
            missing_is_fine(self.allow.remove(&allow_key(list, &prefix)))?;
        }
        Ok(())
    }

    /// Reads back what an earlier daemon has left.
    pub(super) fn adopt(&mut self) -> Result<(), MapError> {
        for entry in self.trie.iter() {
            let (key, number) = entry?;
            if let Some(prefix) = prefix_of(key.data().destination, key.prefix_len()) {
                self.known.insert(prefix, number);
            }
        }
        for entry in self.neighbours.iter() {
            let (key, row) = entry?;
            self.known_neighbours.insert((key.ifindex, key.address.into()), row.mac);
        }
        for entry in self.allow.iter() {
            let (key, _) = entry?;
            let data = key.data();
            if let Some(prefix) = prefix_of(data.source, key.prefix_len().saturating_sub(32)) {
                self.known_allow.entry(data.list).or_default().push(prefix);
            }
        }
        Ok(())
    }
}

fn prefix_of(address: Address, length: u32) -> Option<IpNet> {
    let address: IpAddr = address.into();
    let length = if address.is_ipv4() { length.checked_sub(96)? } else { length };
    IpNet::new(address, length as u8).ok()
}
