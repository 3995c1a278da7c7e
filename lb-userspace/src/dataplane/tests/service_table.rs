//! The service table against a model, read as the program reads it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::Path,
};

use aya::{
    Pod,
    maps::{Array, Map, MapData},
};
use lb_common::{
    abi::{PRESENCE_BITS, Presence, SERVICE_BUCKET_ENTRIES, ServiceBucket, ServiceEntry, key_kind},
    be::Be16,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    super::{
        EntryKey, TableFull,
        mapped::{Table, Words},
        table::ServiceTable,
    },
    sandbox::sandbox,
};

const BUCKETS: u32 = 8;
const MMAPABLE: u32 = 1024;

/// A map, and two ways to it.
struct Kernel {
    map: Array<MapData, ServiceBucket>,
    presence: Array<MapData, u64>,
    directory: std::path::PathBuf,
}

impl Kernel {
    fn table(&self) -> ServiceTable {
        let data = |name: &str| MapData::from_pin(self.directory.join(name)).unwrap();
        let presence = Words::of_map(&data("presence")).unwrap();
        ServiceTable::adopt(Table::new(&data("table")).unwrap(), presence)
    }

    /// Bits that the filter has set.
    fn present(&self) -> HashSet<Presence> {
        let words =
            (0..PRESENCE_BITS / 64).map(|word| (word, self.presence.get(&word, 0).unwrap()));
        let bits = words.flat_map(|(word, bits)| (0..64).map(move |bit| (word, bits & 1 << bit)));
        bits.filter(|(_, mask)| *mask != 0).map(|(word, mask)| Presence { word, mask }).collect()
    }

    /// What the program finds; also the place.
    fn lookup(&self, key: EntryKey) -> Option<(u32, (u32, usize))> {
        let selector = ServiceEntry::selector(Be16::from_host(key.port), key.protocol, key.kind);
        let number = ServiceEntry::bucket(&key.address, selector, BUCKETS - 1);
        let bucket = self.map.get(&number, 0).unwrap();
        let end = bucket.entries.iter().position(|entry| entry.word == 0);
        let found =
            bucket.entries[..end.unwrap_or(SERVICE_BUCKET_ENTRIES)].iter().position(|entry| {
                entry.word as u32 == selector
                    && entry.high == key.address.high()
                    && entry.low == key.address.low()
            })?;
        Some(((bucket.entries[found].word >> 32) as u32, (number, found)))
    }
}

fn array<T: Pod>(path: &Path, entries: u32) -> Array<MapData, T> {
    Array::<_, T>::create(entries, MMAPABLE).unwrap().pin(path).unwrap();
    let data = MapData::from_pin(path).unwrap();
    Array::try_from(Map::from_map_data(data).unwrap()).unwrap()
}

fn bucket_of(key: EntryKey) -> u32 {
    let selector = ServiceEntry::selector(Be16::from_host(key.port), key.protocol, key.kind);
    ServiceEntry::bucket(&key.address, selector, BUCKETS - 1)
}

fn keys(random: &mut StdRng) -> Vec<EntryKey> {
    let mut keys = HashSet::new();
    while keys.len() < 90 {
        let address = match random.random() {
            true => IpAddr::from([192, 0, 2, random.random_range(0..9)]),
            false => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, random.random_range(0..9)]),
        };
        keys.insert(match random.random_range(0..3) {
            0 => {
                EntryKey { address: address.into(), port: 0, protocol: 0, kind: key_kind::ADDRESS }
            }
            kind => EntryKey {
                address: address.into(),
                port: [80, 443, 53, 65_535][random.random_range(0..4)],
                protocol: [6, 17][random.random_range(0..2)],
                kind: [key_kind::SERVICE, key_kind::REPLY][kind - 1],
            },
        });
    }
    let mut keys: Vec<EntryKey> = keys.into_iter().collect();
    keys.sort_by_key(|key| format!("{key:?}"));
    keys
}

#[test]
fn random_changes_agree_with_a_model() {
    sandbox(|sandbox| {
        let kernel = Kernel {
            map: array(&sandbox.bpffs.join("table"), BUCKETS),
            presence: array(&sandbox.bpffs.join("presence"), PRESENCE_BITS / 64),
            directory: sandbox.bpffs.clone(),
        };
        let mut random = StdRng::seed_from_u64(11);
        let keys = keys(&mut random);
        let mut table = kernel.table();
        let mut model: HashMap<EntryKey, u32> = HashMap::new();
        // Places of removed entries: those before a grace period began, and all.
        let mut resting: Vec<(u32, usize)> = Vec::new();
        let (mut full, mut waiting) = (0, None);
        for step in 0..20_000 {
            let key = keys[random.random_range(0..keys.len())];
            match random.random_range(0..100) {
                0..55 => {
                    let value = random.random();
                    let bucket = bucket_of(key);
                    let used = model.keys().filter(|other| bucket_of(**other) == bucket).count()
                        + resting.iter().filter(|(number, _)| *number == bucket).count();
                    let room = model.contains_key(&key) || used < SERVICE_BUCKET_ENTRIES;
                    match table.publish(key, value) {
                        Ok(()) => {
                            assert!(room, "step {step}: {key:?} got a place that rests");
                            model.insert(key, value);
                        }
                        Err(TableFull) => {
                            assert!(!room, "step {step}: {key:?} found no place of {used} used");
                            full += 1;
                        }
                    }
                }
                55..90 => {
                    let place = kernel.lookup(key).map(|(_, place)| place);
                    table.remove(key);
                    assert_eq!(model.remove(&key).is_some(), place.is_some(), "step {step}");
                    resting.extend(place);
                }
                90..94 => waiting = Some(table.resting()),
                94..98 => {
                    if let Some(count) = waiting.take() {
                        table.grace_passed(count);
                        resting.drain(..count);
                    }
                }
                _ => {
                    // The daemon is killed; starting takes longer than any packet.
                    table = kernel.table();
                    resting.clear();
                    waiting = None;
                }
            }
            assert_eq!(kernel.lookup(key).map(|(value, _)| value), model.get(&key).copied());
            assert_eq!(table.get(key), model.get(&key).copied(), "step {step}");
            if step % 100 == 0 {
                let entries: HashMap<EntryKey, u32> = table.entries().into_iter().collect();
                assert_eq!(entries, model, "step {step}");
                let present = model.keys().map(|key| Presence::of(&key.address)).collect();
                assert_eq!(kernel.present(), present, "step {step}");
                for key in &keys {
                    let found = kernel.lookup(*key).map(|(value, _)| value);
                    assert_eq!(found, model.get(key).copied(), "step {step}: {key:?}");
                }
            }
        }
        assert!(full > 100, "buckets were full {full} times");
    });
}

#[test]
fn a_table_with_gaps_is_taken_over() {
    sandbox(|sandbox| {
        let mut kernel = Kernel {
            map: array(&sandbox.bpffs.join("table"), BUCKETS),
            presence: array(&sandbox.bpffs.join("presence"), PRESENCE_BITS / 64),
            directory: sandbox.bpffs.clone(),
        };
        let keys: Vec<EntryKey> = keys(&mut StdRng::seed_from_u64(12))
            .into_iter()
            .filter(|key| bucket_of(*key) == 3)
            .collect();
        let mut bucket = ServiceBucket::default();
        for (place, key) in [1, 4].into_iter().zip(&keys) {
            let selector =
                ServiceEntry::selector(Be16::from_host(key.port), key.protocol, key.kind);
            bucket.entries[place] = ServiceEntry {
                high: key.address.high(),
                low: key.address.low(),
                word: ServiceEntry::word(selector, 7),
            };
        }
        kernel.map.set(3, bucket, 0).unwrap();
        assert_eq!(kernel.lookup(keys[0]), None, "it stands behind a gap");
        let mut table = kernel.table();
        assert_eq!(kernel.lookup(keys[0]), Some((7, (3, 1))));
        assert_eq!(kernel.lookup(keys[1]), Some((7, (3, 4))));
        assert_eq!((table.used(), table.get(keys[1])), (2, Some(7)));
        table.publish(keys[2], 8).unwrap();
        assert_eq!(kernel.lookup(keys[2]), Some((8, (3, 0))));
        for key in &keys[..3] {
            table.remove(*key);
        }
        let left = kernel.map.get(&3, 0).unwrap().entries.map(|entry| entry.word);
        assert_eq!(left, [0; SERVICE_BUCKET_ENTRIES], "whoever misses need not look further");
    });
}

#[test]
fn no_packet_misses_an_address_while_a_daemon_starts() {
    sandbox(|sandbox| {
        let kernel = Kernel {
            map: array(&sandbox.bpffs.join("table"), BUCKETS),
            presence: array(&sandbox.bpffs.join("presence"), PRESENCE_BITS / 64),
            directory: sandbox.bpffs.clone(),
        };
        let mut table = kernel.table();
        // Addresses whose bits stand in few words, where one could take another's away.
        let shared = |address: &IpAddr| Presence::of(&(*address).into()).word < 8;
        let addresses = (0..=u16::MAX).map(|n| IpAddr::from([10, 1, (n >> 8) as u8, n as u8]));
        let addresses: Vec<IpAddr> = addresses.filter(shared).take(40).collect();
        assert_eq!(addresses.len(), 40);
        let published = addresses.iter().filter(|address| {
            let key = EntryKey {
                address: (**address).into(),
                port: 80,
                protocol: 6,
                kind: key_kind::REPLY,
            };
            table.publish(key, 7).is_ok()
        });
        let places: HashSet<Presence> =
            published.map(|address| Presence::of(&(*address).into())).collect();
        assert!(places.len() > 20, "{} places", places.len());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let packets = scope.spawn(|| {
                let mut looks = 0u64;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for place in &places {
                        let word = kernel.presence.get(&place.word, 0).unwrap();
                        assert_ne!(word & place.mask, 0, "{place:?} was gone for a moment");
                        looks += 1;
                    }
                }
                looks
            });
            for _ in 0..60 {
                kernel.table();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(packets.join().unwrap() > 1_000);
        });
    });
}
