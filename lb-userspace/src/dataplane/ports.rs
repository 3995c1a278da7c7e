//! Services of several ports or of prefixes, and their replies: lists of port ranges, which the service table names for an
//! address, and `VIP_PREFIXES` for a prefix. A list that a packet may see changes in whole words only, each of which keeps its
//! ports; one with other ports is another list, and the old one's number rests for a grace period.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use lb_common::abi::{
    Address, PORT_LIST_ENTRIES, PORT_LISTS, PortEntry, PortList, PrefixKey, key_kind,
};

use super::{
    mapped::Table,
    prefix::{mapped_length, prefix_of},
    table::{EntryKey, ServiceTable, TableFull},
};

/// What a list is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListKey {
    /// VIP or prefix of VIPs, and IP protocol; values are rows of services.
    Service(IpNet, u8),
    /// A backend's address, and IP protocol; values are backend ids.
    Reply(IpAddr, u8),
}

/// Why lists cannot be as they should be.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// The service table.
    #[error(transparent)]
    Table(#[from] TableFull),
    /// Too many keys.
    #[error(
        "{needed} VIPs, prefixes of VIPs and nat backends of services with several ports, and there is room for {}: make them fewer", PORT_LISTS - 1
    )]
    Lists {
        /// How many.
        needed: usize,
    },
    /// A list is too long.
    #[error("{count} ranges of ports at {key:?}, and {PORT_LIST_ENTRIES} are possible")]
    Length {
        /// How many.
        count: usize,
        /// Whose.
        key: ListKey,
    },
    /// `VIP_PREFIXES`.
    #[error("cannot write the prefixes of VIPs: {0}")]
    Prefixes(#[from] MapError),
}

/// The lists, and who names them.
pub struct Ports {
    lists: Table<PortList>,
    prefixes: LpmTrie<MapData, PrefixKey, u32>,
    known: BTreeMap<ListKey, u32>,
    /// Prefixes whose addresses are VIPs.
    vips: BTreeMap<IpNet, u32>,
    used: BTreeSet<u32>,
    resting: Vec<u32>,
    /// How many of them rest since before the grace period began.
    graced: usize,
}

impl Ports {
    /// Takes over what an earlier daemon has left.
    pub(super) fn adopt(
        lists: Table<PortList>,
        prefixes: LpmTrie<MapData, PrefixKey, u32>,
        table: &ServiceTable,
    ) -> Result<Self, MapError> {
        let mut known = BTreeMap::new();
        for (key, value) in table.entries() {
            let address = IpAddr::from(key.address);
            match key.kind {
                key_kind::SERVICE_PORTS => {
                    known.insert(ListKey::Service(address.into(), key.protocol), value);
                }
                key_kind::REPLY_PORTS => {
                    known.insert(ListKey::Reply(address, key.protocol), value);
                }
                _ => {}
            }
        }
        let mut vips = BTreeMap::new();
        for entry in prefixes.iter() {
            let (key, value) = entry?;
            let (data, length) = (key.data(), key.prefix_len().saturating_sub(u32::BITS));
            let Some(prefix) = prefix_of(data.source, length) else { continue };
            match u8::try_from(data.list) {
                Ok(0) | Err(_) => vips.insert(prefix, value),
                Ok(protocol) => known.insert(ListKey::Service(prefix, protocol), value),
            };
        }
        let used = known.values().copied().collect();
        Ok(Self { lists, prefixes, known, vips, used, resting: Vec::new(), graced: 0 })
    }

    /// The rows of services that are in lists, each as often as it is.
    pub fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        let lists = self.known.iter().filter(|(key, _)| matches!(key, ListKey::Service(..)));
        lists
            .flat_map(|(_, number)| self.lists.get(*number).entries)
            .filter(|entry| entry.0 != 0)
            .map(PortEntry::value)
    }

    /// Makes the lists what they should be; whether any has gone, whose number rests from now on.
    pub(super) fn publish(
        &mut self,
        table: &mut ServiceTable,
        wanted: &BTreeMap<ListKey, Vec<PortEntry>>,
    ) -> Result<bool, PortsError> {
        if let Some((key, list)) = wanted.iter().find(|(_, list)| list.len() > PORT_LIST_ENTRIES) {
            return Err(PortsError::Length { count: list.len(), key: *key });
        }
        let resting = self.resting.len();
        for (key, entries) in wanted {
            let number = self.known.get(key).copied();
            if let Some(number) = number
                && self.change_values(number, entries)
            {
                continue;
            }
            let fresh = (1..PORT_LISTS).find(|number| !self.used.contains(number));
            let fresh = fresh.ok_or(PortsError::Lists { needed: wanted.len() })?;
            let mut list = PortList::default();
            list.entries[..entries.len()].copy_from_slice(entries);
            self.lists.set(fresh, &list);
            self.used.insert(fresh);
            if let Err(error) = self.name(table, key, fresh) {
                self.used.remove(&fresh);
                return Err(error);
            }
            self.known.insert(*key, fresh);
            self.resting.extend(number);
        }
        let stale: Vec<ListKey> =
            self.known.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in stale {
            self.forget(table, &key)?;
            self.resting.extend(self.known.remove(&key));
        }
        Ok(self.resting.len() > resting)
    }

    /// Writes other values for the same ports; false if the ports are others.
    fn change_values(&self, number: u32, entries: &[PortEntry]) -> bool {
        let list = self.lists.get(number);
        let ports = |entry: &PortEntry| entry.0 as u32;
        let used = list.entries.iter().take_while(|entry| entry.0 != 0);
        if !used.map(ports).eq(entries.iter().map(ports)) {
            return false;
        }
        for (index, entry) in entries.iter().enumerate() {
            if list.entries[index] != *entry {
                self.lists.set_word(number, index, entry.0);
            }
        }
        true
    }

    fn name(
        &mut self,
        table: &mut ServiceTable,
        key: &ListKey,
        number: u32,
    ) -> Result<(), PortsError> {
        match place(key) {
            Place::Table(key) => table.publish(key, number)?,
            Place::Prefix(key) => self.prefixes.insert(&key, number, 0)?,
        }
        Ok(())
    }

    fn forget(&mut self, table: &mut ServiceTable, key: &ListKey) -> Result<(), PortsError> {
        match place(key) {
            Place::Table(key) => table.remove(key),
            Place::Prefix(key) => self.prefixes.remove(&key)?,
        }
        Ok(())
    }

    /// Says what the addresses of prefixes are: values of [`lb_common::abi::address_value`].
    pub(super) fn publish_vips(&mut self, wanted: &BTreeMap<IpNet, u32>) -> Result<(), PortsError> {
        for (prefix, value) in wanted {
            if self.vips.get(prefix) != Some(value) {
                self.prefixes.insert(&prefix_key(prefix, 0), *value, 0)?;
                self.vips.insert(*prefix, *value);
            }
        }
        let stale: Vec<IpNet> =
            self.vips.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        for prefix in stale {
            self.prefixes.remove(&prefix_key(&prefix, 0))?;
            self.vips.remove(&prefix);
        }
        Ok(())
    }

    /// A grace period begins.
    pub(super) fn grace_begins(&mut self) {
        self.graced = self.resting.len();
    }

    /// It has passed.
    pub(super) fn grace_passed(&mut self) {
        for number in self.resting.drain(..std::mem::take(&mut self.graced)) {
            self.used.remove(&number);
        }
    }
}

enum Place {
    Table(EntryKey),
    Prefix(Key<PrefixKey>),
}

fn place(key: &ListKey) -> Place {
    let entry = |address: IpAddr, protocol, kind| {
        Place::Table(EntryKey { address: address.into(), port: 0, protocol, kind })
    };
    match key {
        ListKey::Reply(address, protocol) => entry(*address, *protocol, key_kind::REPLY_PORTS),
        ListKey::Service(vip, protocol) if vip.prefix_len() == vip.max_prefix_len() => {
            entry(vip.addr(), *protocol, key_kind::SERVICE_PORTS)
        }
        ListKey::Service(vip, protocol) => Place::Prefix(prefix_key(vip, *protocol)),
    }
}

fn prefix_key(prefix: &IpNet, protocol: u8) -> Key<PrefixKey> {
    let data = PrefixKey { list: protocol.into(), source: Address::from(prefix.network()) };
    Key::new(u32::BITS + mapped_length(prefix), data)
}
