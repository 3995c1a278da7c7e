//! The service table: VIPs, addresses and nat replies in buckets of eight, changed in place.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use lb_common::{
    abi::{Address, SERVICE_BUCKET_ENTRIES, ServiceBucket, ServiceEntry},
    be::Be16,
};

use super::{
    mapped::{Table, Words},
    presence::Filter,
};

/// Words of an entry.
const WORDS: usize = 3;

/// Every entry of the key's bucket is in use (or waits for a grace period).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service table has no room in the bucket of this key")]
pub struct TableFull;

/// What an entry is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryKey {
    /// VIP, host or backend address.
    pub address: Address,
    /// Port; 0 for addresses.
    pub port: u16,
    /// IP protocol; 0 for addresses.
    pub protocol: u8,
    /// One of [`lb_common::abi::key_kind`].
    pub kind: u8,
}

/// Entry number in the table: bucket and place in it.
type Place = (u32, usize);

/// Which places cannot be taken: a bit for each.
struct Used {
    buckets: Vec<u8>,
    count: usize,
}

const _: () = assert!(SERVICE_BUCKET_ENTRIES == u8::BITS as usize);

impl Used {
    fn none(buckets: u32) -> Self {
        Self { buckets: vec![0; buckets as usize], count: 0 }
    }

    fn take(&mut self, (bucket, index): Place) {
        self.buckets[bucket as usize] |= 1 << index;
        self.count += 1;
    }

    fn give_back(&mut self, (bucket, index): Place) {
        self.buckets[bucket as usize] &= !(1 << index);
        self.count -= 1;
    }

    /// The first place of a bucket that can be taken.
    fn free(&self, bucket: u32) -> Option<usize> {
        let index = self.buckets[bucket as usize].trailing_ones() as usize;
        (index < SERVICE_BUCKET_ENTRIES).then_some(index)
    }
}

/// The table, and where each key stands.
pub struct ServiceTable {
    buckets: Table<ServiceBucket>,
    filter: Filter,
    places: HashMap<EntryKey, Place, RandomState>,
    used: Used,
    /// Removed since the last grace period began to be waited for.
    resting: Vec<Place>,
}

impl ServiceTable {
    /// Takes over a table as it stands, and the filter in front of it.
    pub(super) fn adopt(buckets: Table<ServiceBucket>, presence: Words) -> Self {
        let mut places: HashMap<_, _, RandomState> = HashMap::default();
        let mut used = Used::none(buckets.len());
        for number in 0..buckets.len() {
            let bucket = buckets.get(number);
            let end = bucket.entries.iter().rposition(|entry| !entry.is_free());
            for (index, entry) in bucket.entries.iter().enumerate() {
                if !entry.is_free() {
                    places.insert(key_of(entry), (number, index));
                    used.take((number, index));
                } else if entry.word == 0 && end.is_some_and(|end| index < end) {
                    // As another version may have left it, which looked at all entries.
                    buckets.set_word(number, index * WORDS + 2, ServiceEntry::REMOVED);
                }
            }
        }
        let filter = Filter::adopt(presence, places.keys().map(|key| key.address));
        Self { buckets, filter, places, used, resting: Vec::new() }
    }

    /// Adds an entry, or changes its value by one store.
    pub(super) fn publish(&mut self, key: EntryKey, value: u32) -> Result<(), TableFull> {
        let selector = selector(&key);
        let word = ServiceEntry::word(selector, value);
        if let Some(&(bucket, index)) = self.places.get(&key) {
            self.buckets.set_word(bucket, index * WORDS + 2, word);
            return Ok(());
        }
        let bucket = ServiceEntry::bucket(&key.address, selector, self.buckets.len() - 1);
        let index = self.used.free(bucket).ok_or(TableFull)?;
        self.filter.add(&key.address);
        for earlier in (0..index).rev() {
            if self.buckets.get(bucket).entries[earlier].word == 0 {
                self.buckets.set_word(bucket, earlier * WORDS + 2, ServiceEntry::REMOVED);
            }
        }
        self.buckets.set_word(bucket, index * WORDS, key.address.high());
        self.buckets.set_word(bucket, index * WORDS + 1, key.address.low());
        self.buckets.set_word(bucket, index * WORDS + 2, word);
        self.used.take((bucket, index));
        self.places.insert(key, (bucket, index));
        Ok(())
    }

    /// Removes an entry; nothing happens if there is none. Its place rests until [`Self::grace_passed`].
    pub(super) fn remove(&mut self, key: EntryKey) {
        if let Some((bucket, index)) = self.places.remove(&key) {
            self.buckets.set_word(bucket, index * WORDS + 2, ServiceEntry::REMOVED);
            self.shorten(bucket);
            self.filter.remove(&key.address);
            self.resting.push((bucket, index));
        }
    }

    /// Makes the bucket end with its last entry, from the back: what is zero is never in front of an entry.
    fn shorten(&self, bucket: u32) {
        let entries = self.buckets.get(bucket).entries;
        let end = entries.iter().rposition(|entry| !entry.is_free()).map_or(0, |last| last + 1);
        for index in (end..SERVICE_BUCKET_ENTRIES).rev().filter(|index| entries[*index].word != 0) {
            self.buckets.set_word(bucket, index * WORDS + 2, 0);
        }
    }

    /// The value of an entry.
    pub(super) fn get(&self, key: EntryKey) -> Option<u32> {
        let (bucket, index) = *self.places.get(&key)?;
        Some((self.buckets.get(bucket).entries[index].word >> 32) as u32)
    }

    /// All entries.
    pub(super) fn entries(&self) -> Vec<(EntryKey, u32)> {
        self.places.keys().filter_map(|key| Some((*key, self.get(*key)?))).collect()
    }

    /// Places that cannot be taken now.
    pub(super) fn used(&self) -> usize {
        self.used.count
    }

    /// How many places rest.
    pub(super) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// A grace period has passed since the first `count` of the resting places were removed.
    pub(super) fn grace_passed(&mut self, count: usize) {
        for place in self.resting.drain(..count.min(self.resting.len())) {
            self.used.give_back(place);
        }
    }
}

fn selector(key: &EntryKey) -> u32 {
    ServiceEntry::selector(Be16::from_host(key.port), key.protocol, key.kind)
}

fn key_of(entry: &ServiceEntry) -> EntryKey {
    let word = |half: u64, shift: u32| lb_common::be::Be32::from_raw((half >> shift) as u32);
    let (first, second) = if cfg!(target_endian = "little") { (0, 32) } else { (32, 0) };
    EntryKey {
        address: Address::v6([
            word(entry.high, first),
            word(entry.high, second),
            word(entry.low, first),
            word(entry.low, second),
        ]),
        port: Be16::from_raw(entry.word as u16).to_host(),
        protocol: (entry.word >> 16) as u8,
        kind: (entry.word >> 24) as u8,
    }
}
