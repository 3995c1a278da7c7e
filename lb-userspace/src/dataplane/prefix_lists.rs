//! The prefixes of all services that are allowed, or denied, each in a list of its service. A list is filled before a
//! service's row names it, and removed when no packet can see such a row any more: it is replaced as a whole.

use std::{collections::HashMap, io, net::IpAddr};

use aya::maps::{
    Map, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use lb_common::abi::PrefixKey;

use super::{
    batch::BatchWriter,
    prefix::{mapped_length, prefix_of},
};

/// Lists that fit into a map at a time, of the size that the configuration allows all of them together: those in force, those
/// that are to replace them, and those of changes shortly before that are on their way out.
pub(super) const GENERATIONS: u32 = 4;

/// Which lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `ALLOW`.
    Allow,
    /// `DENY`.
    Deny,
}

/// The lists of a map.
pub(super) struct PrefixLists {
    writer: BatchWriter<Key<PrefixKey>, u32>,
    lists: HashMap<u32, Vec<IpNet>>,
}

impl PrefixLists {
    /// Takes over what an earlier daemon has left.
    pub(super) fn adopt(map: MapData) -> Result<Self, MapError> {
        let writer = BatchWriter::new(&map)?;
        let trie: LpmTrie<MapData, PrefixKey, u32> = Map::LpmTrie(map).try_into()?;
        let mut lists: HashMap<u32, Vec<IpNet>> = HashMap::new();
        for key in trie.keys() {
            let key = key?;
            let data = key.data();
            let length = key.prefix_len().saturating_sub(u32::BITS);
            if let Some(prefix) = prefix_of(data.source, length) {
                lists.entry(data.list).or_default().push(prefix);
            }
        }
        lists.values_mut().for_each(|list| list.sort_unstable());
        Ok(Self { writer, lists })
    }

    /// Fills a list that no row names. After an error it holds some of the prefixes, and [`Self::remove`] removes them.
    pub(super) fn fill(&mut self, list: u32, prefixes: &[IpNet]) -> io::Result<()> {
        self.remove(list)?;
        let wanted = normal(prefixes);
        let keys: Vec<Key<PrefixKey>> = wanted.iter().map(|prefix| key(list, prefix)).collect();
        // Known before the first entry is made, and so is one that did not get in as a whole.
        self.lists.insert(list, wanted);
        self.writer.update(&keys, &1)
    }

    /// Whether a list holds exactly these prefixes.
    pub(super) fn is(&self, list: u32, prefixes: &[IpNet]) -> bool {
        self.lists.get(&list).map_or(&[][..], |known| known) == normal(prefixes)
    }

    /// Whether a list has a prefix of this address.
    pub(super) fn has(&self, list: u32, address: &IpAddr) -> bool {
        self.lists
            .get(&list)
            .is_some_and(|prefixes| prefixes.iter().any(|prefix| prefix.contains(address)))
    }

    /// Prefixes of all lists.
    pub(super) fn len(&self) -> usize {
        self.lists.values().map(Vec::len).sum()
    }

    /// Removes all lists but these.
    pub(super) fn keep(&mut self, lists: &[u32]) -> io::Result<()> {
        let gone: Vec<u32> =
            self.lists.keys().filter(|list| !lists.contains(list)).copied().collect();
        gone.into_iter().try_for_each(|list| self.remove(list))
    }

    /// Removes a list.
    pub(super) fn remove(&mut self, list: u32) -> io::Result<()> {
        let Some(known) = self.lists.get(&list) else { return Ok(()) };
        let keys: Vec<Key<PrefixKey>> = known.iter().map(|prefix| key(list, prefix)).collect();
        self.writer.delete(&keys)?;
        self.lists.remove(&list);
        Ok(())
    }
}

/// Sorted, without repetitions, without bits behind the prefix length.
fn normal(prefixes: &[IpNet]) -> Vec<IpNet> {
    let mut normal: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
    normal.sort_unstable();
    normal.dedup();
    normal
}

fn key(list: u32, prefix: &IpNet) -> Key<PrefixKey> {
    let data = PrefixKey { list, source: prefix.network().into() };
    Key::new(u32::BITS + mapped_length(prefix), data)
}
