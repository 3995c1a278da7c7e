//! The host's routes and on-link neighbours as the program sees them for nat replies, changed by difference.

use std::{
    collections::{HashMap as Std, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::maps::{
    HashMap, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use lb_common::abi::{NeighbourKey, NeighbourRow, NextHopRow, RouteKey};

use super::{
    few_routes::Few,
    mapped::Table,
    prefix::{mapped_length, prefix_of},
    remove::missing_is_fine,
};

/// A packet that has looked up a row's number has left the program long before this.
const REST: Duration = Duration::from_secs(1);

/// Routes, and the rows they name.
pub(super) struct Routes {
    trie: LpmTrie<MapData, RouteKey, u32>,
    rows: Table<NextHopRow>,
    few: Few,
    known: Std<IpNet, u32>,
    /// Rows that no packet can know.
    free: VecDeque<u32>,
    /// Rows whose routes were removed then.
    resting: VecDeque<(Instant, u32)>,
    overflowing: bool,
}

impl Routes {
    /// Takes over what an earlier daemon has left.
    pub(super) fn adopt(
        trie: LpmTrie<MapData, RouteKey, u32>,
        rows: Table<NextHopRow>,
        few: Few,
    ) -> Result<Self, MapError> {
        let mut known = Std::new();
        for entry in trie.iter() {
            let (key, number) = entry?;
            if let Some(prefix) = prefix_of(key.data().destination, key.prefix_len()) {
                known.insert(prefix, number);
            }
        }
        let used: HashSet<u32> = known.values().copied().collect();
        let free = (1..rows.len()).filter(|number| !used.contains(number)).collect();
        Ok(Self { trie, rows, few, known, free, resting: VecDeque::new(), overflowing: false })
    }

    /// Makes the maps hold exactly these routes (the first of each prefix). A row in use changes in place, its flags
    /// last; a new one is whole before its prefix can be found.
    ///
    /// Of more routes than fit, none is kept: a trie that misses some would answer with a shorter prefix, which is wrong,
    /// while an empty one makes the program ask the kernel.
    pub(super) fn set(&mut self, routes: Vec<(IpNet, NextHopRow)>) -> Result<(), MapError> {
        let mut wanted: Std<IpNet, NextHopRow> = Std::with_capacity(routes.len());
        for (prefix, row) in routes {
            wanted.entry(prefix.trunc()).or_insert(row);
        }
        let limit = self.rows.len() as usize - 1;
        let overflowing = wanted.len() > limit;
        if overflowing {
            if !self.overflowing {
                tracing::warn!(
                    routes = wanted.len(),
                    limit,
                    "more routes than lb mirrors: nat replies ask the kernel for their way, which costs more"
                );
            }
            wanted.clear();
        }
        self.overflowing = overflowing;
        let gone: Vec<IpNet> =
            self.known.keys().filter(|prefix| !wanted.contains_key(*prefix)).copied().collect();
        // New before old, where there is room for both: a reply between two versions of a route finds one of them.
        let (before, after) = match wanted.len() + gone.len() <= limit {
            true => (Vec::new(), gone),
            false => (gone, Vec::new()),
        };
        if !before.is_empty() {
            self.few.stop();
        }
        self.remove(before)?;
        for (prefix, row) in wanted {
            self.put(prefix, &row)?;
        }
        // Rows that only the few routes named may be used again only once those do not name them any more.
        let staying = self.known.iter().filter(|(prefix, _)| !after.contains(prefix));
        self.few.set(staying);
        self.remove(after)
    }

    /// Routes mirrored.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// To be called now and then.
    pub(super) fn settle(&mut self) {
        self.few.settle();
    }

    fn put(&mut self, prefix: IpNet, row: &NextHopRow) -> Result<(), MapError> {
        if let Some(number) = self.known.get(&prefix) {
            self.rows.set(*number, row);
            return Ok(());
        }
        let Some(number) = self.allocate() else {
            return Err(MapError::OutOfBounds {
                index: self.rows.len(),
                max_entries: self.rows.len(),
            });
        };
        self.rows.set(number, row);
        if let Err(error) = self.trie.insert(&key(&prefix), number, 0) {
            self.free.push_front(number);
            return Err(error);
        }
        self.known.insert(prefix, number);
        Ok(())
    }

    fn remove(&mut self, prefixes: Vec<IpNet>) -> Result<(), MapError> {
        for prefix in prefixes {
            missing_is_fine(self.trie.remove(&key(&prefix)))?;
            if let Some(number) = self.known.remove(&prefix) {
                self.resting.push_back((Instant::now(), number));
            }
        }
        Ok(())
    }

    /// A row that no packet knows; one that may still be known only where there is no other.
    fn allocate(&mut self) -> Option<u32> {
        while self.resting.front().is_some_and(|(since, _)| since.elapsed() >= REST) {
            self.free.extend(self.resting.pop_front().map(|(_, number)| number));
        }
        let resting = &mut self.resting;
        self.free.pop_front().or_else(|| resting.pop_front().map(|(_, number)| number))
    }
}

fn key(prefix: &IpNet) -> Key<RouteKey> {
    Key::new(mapped_length(prefix), RouteKey { destination: prefix.network().into() })
}

/// On-link neighbours.
pub(super) struct Neighbours {
    map: HashMap<MapData, NeighbourKey, NeighbourRow>,
    known: Std<(u32, IpAddr), [u8; 6]>,
}

impl Neighbours {
    /// Takes over what an earlier daemon has left.
    pub(super) fn adopt(
        map: HashMap<MapData, NeighbourKey, NeighbourRow>,
    ) -> Result<Self, MapError> {
        let mut known = Std::new();
        for entry in map.iter() {
            let (key, row) = entry?;
            known.insert((key.ifindex, key.address.into()), row.mac);
        }
        Ok(Self { map, known })
    }

    /// Neighbours mirrored.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Makes the map hold exactly these (ifindex, address, MAC address); for what does not fit the program asks the
    /// kernel.
    pub(super) fn set(&mut self, neighbours: Vec<(u32, IpAddr, [u8; 6])>) -> Result<(), MapError> {
        let key =
            |(ifindex, address): (u32, IpAddr)| NeighbourKey { address: address.into(), ifindex };
        let wanted: Std<(u32, IpAddr), [u8; 6]> = neighbours
            .into_iter()
            .map(|(ifindex, address, mac)| ((ifindex, address), mac))
            .collect();
        let gone: Vec<(u32, IpAddr)> =
            self.known.keys().filter(|place| !wanted.contains_key(*place)).copied().collect();
        for place in gone {
            missing_is_fine(self.map.remove(&key(place)))?;
            self.known.remove(&place);
        }
        for (place, mac) in wanted {
            if self.known.get(&place) == Some(&mac) {
                continue;
            }
            match self.map.insert(&key(place), &NeighbourRow { mac, _pad: 0 }, 0) {
                Ok(()) => {
                    self.known.insert(place, mac);
                }
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::E2BIG) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
