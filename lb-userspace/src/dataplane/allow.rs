//! The `allow` prefixes of all services, each in the list of its service.

use std::collections::{HashMap, HashSet};

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use lb_common::abi::AllowKey;

use super::{
    prefix::{mapped_length, prefix_of},
    remove::missing_is_fine,
};

/// The lists.
pub(super) struct Allow {
    trie: LpmTrie<MapData, AllowKey, u32>,
    lists: HashMap<u32, HashSet<IpNet>>,
}

impl Allow {
    /// Takes over what an earlier daemon has left.
    pub(super) fn adopt(trie: LpmTrie<MapData, AllowKey, u32>) -> Result<Self, MapError> {
        let mut lists: HashMap<u32, HashSet<IpNet>> = HashMap::new();
        for entry in trie.iter() {
            let (key, _) = entry?;
            let data = key.data();
            let length = key.prefix_len().saturating_sub(u32::BITS);
            if let Some(prefix) = prefix_of(data.source, length) {
                lists.entry(data.list).or_default().insert(prefix);
            }
        }
        Ok(Self { trie, lists })
    }

    /// Makes a list hold exactly these prefixes. After an error it holds some of them, and [`Self::remove`] still removes
    /// them all.
    pub(super) fn set(&mut self, list: u32, prefixes: &[IpNet]) -> Result<(), MapError> {
        let wanted: HashSet<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        let known = self.lists.entry(list).or_default();
        for prefix in &wanted {
            if !known.contains(prefix) {
                self.trie.insert(&key(list, prefix), 1, 0)?;
                known.insert(*prefix);
            }
        }
        let gone: Vec<IpNet> = known.difference(&wanted).copied().collect();
        for prefix in gone {
            missing_is_fine(self.trie.remove(&key(list, &prefix)))?;
            known.remove(&prefix);
        }
        Ok(())
    }

    /// Prefixes of all lists.
    pub(super) fn len(&self) -> usize {
        self.lists.values().map(HashSet::len).sum()
    }

    /// Removes a list.
    pub(super) fn remove(&mut self, list: u32) -> Result<(), MapError> {
        self.set(list, &[])?;
        self.lists.remove(&list);
        Ok(())
    }
}

fn key(list: u32, prefix: &IpNet) -> Key<AllowKey> {
    Key::new(u32::BITS + mapped_length(prefix), AllowKey { list, source: prefix.network().into() })
}
