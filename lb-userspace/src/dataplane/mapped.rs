//! Map values through mapped memory: a change is a store that the next packet sees, without a syscall.
//!
//! The kernel lays out an array's values at `value_size` rounded up to 8, and a mapping holds the map (it stays valid
//! after pins and descriptors are gone). Every access is an aligned 8-byte atomic, so that neither side ever sees a
//! torn word; what must be seen together has to be in one word, or be published by another one afterwards.

use std::{
    io,
    marker::PhantomData,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Pod, maps::MapData};
use lb_common::abi::{
    BackendLoad, BackendRow, CaptureRule, CookieKeys, FewTables, ListenRow, NextHopRow,
    ObservedCounters, OpeningRules, OpeningState, Policy, PortList, PortSlot, ReplyRow,
    ServiceBucket, ServiceLoad, ServiceRow, Slot, SourcePool, Trace,
};
use memmap2::{MmapOptions, MmapRaw};

/// All words of one array map.
pub(super) struct Words {
    map: MmapRaw,
    words: usize,
}

impl Words {
    /// Maps `entries` values of `size` bytes (a multiple of 8) of an array with `BPF_F_MMAPABLE`.
    pub(super) fn new(map: impl AsFd, entries: u32, size: usize) -> io::Result<Self> {
        let bytes = entries as usize * size;
        let page = 4096;
        let raw = MmapOptions::new()
            .len(bytes.next_multiple_of(page))
            .map_raw(&RawDescriptor(map.as_fd().as_raw_fd()))?;
        Ok(Self { map: raw, words: bytes / 8 })
    }

    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: the mapping is page-aligned, `words * 8` bytes long at least, readable and writable, lives as long as
        // `self`, and is only ever accessed by atomics of this type (and by the kernel's loads).
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) }
    }
}

impl Words {
    /// Maps an array of words.
    pub(super) fn of_map(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if info.value_size() != 8 {
            let size = info.value_size();
            return Err(io::Error::other(format!("the map has values of {size} bytes, not 8")));
        }
        Self::new(map.fd(), info.max_entries(), 8)
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.words
    }

    /// Sets bits of a word, or clears them. Nobody else writes it.
    pub(super) fn set(&self, index: usize, mask: u64, on: bool) {
        let before = self.word(index).load(Ordering::Relaxed);
        self.store(index, if on { before | mask } else { before & !mask });
    }

    /// Writes one word, if it changes.
    pub(super) fn store(&self, index: usize, value: u64) {
        let word = self.word(index);
        if word.load(Ordering::Relaxed) != value {
            word.store(value, Ordering::Release);
        }
    }
}

struct RawDescriptor(RawFd);

impl AsRawFd for RawDescriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// A map value whose size is a multiple of 8.
pub trait Row: Pod + Default {
    /// The word that is written after all others: it says that they are valid.
    const LAST: usize;
}

impl Row for BackendLoad {
    const LAST: usize = offset_of!(BackendLoad, weight) / 8;
}

impl Row for Policy {
    const LAST: usize = offset_of!(Policy, schedule) / 8;
}

impl Row for ServiceLoad {
    const LAST: usize = 0;
}

impl Row for ListenRow {
    const LAST: usize = 0;
}

impl Row for PortList {
    const LAST: usize = 0;
}

impl Row for BackendRow {
    const LAST: usize = offset_of!(BackendRow, flags) / 8;
}

impl Row for FewTables {
    const LAST: usize = offset_of!(FewTables, active) / 8;
}

impl Row for NextHopRow {
    const LAST: usize = offset_of!(NextHopRow, flags) / 8;
}

impl Row for ObservedCounters {
    const LAST: usize = size_of::<ObservedCounters>() / 8 - 1;
}

impl Row for OpeningRules {
    const LAST: usize = size_of::<OpeningRules>() / 8 - 1;
}

impl Row for OpeningState {
    const LAST: usize = size_of::<OpeningState>() / 8 - 1;
}

impl Row for CookieKeys {
    const LAST: usize = offset_of!(CookieKeys, current) / 8;
}

impl Row for ReplyRow {
    const LAST: usize = offset_of!(ReplyRow, row) / 8;
}

impl Row for ServiceBucket {
    const LAST: usize = size_of::<ServiceBucket>() / 8 - 1;
}

impl Row for ServiceRow {
    const LAST: usize = offset_of!(ServiceRow, flags) / 8;
}

impl Row for CaptureRule {
    const LAST: usize = offset_of!(CaptureRule, flags) / 8;
}

impl Row for Trace {
    const LAST: usize = offset_of!(Trace, verdict) / 8;
}

impl Row for SourcePool {
    const LAST: usize = 0;
}

impl Row for PortSlot {
    const LAST: usize = offset_of!(PortSlot, state) / 8;
}

impl Row for Slot {
    const LAST: usize = 0;
}

/// A mapped array of `T`.
pub struct Table<T> {
    words: Words,
    entries: u32,
    value: PhantomData<T>,
}

impl<T: Row> Table<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8) && T::LAST < size_of::<T>() / 8);
        size_of::<T>() / 8
    };

    /// Maps an array of `T`.
    pub(super) fn new(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(io::Error::other(format!(
                "the map has values of {} bytes, not {}",
                info.value_size(),
                size_of::<T>()
            )));
        }
        let entries = info.max_entries();
        let words = Words::new(map.fd(), entries, size_of::<T>())?;
        Ok(Self { words, entries, value: PhantomData })
    }

    /// Number of entries.
    #[expect(clippy::len_without_is_empty, reason = "a map is never empty")]
    pub fn len(&self) -> u32 {
        self.entries
    }

    /// An entry as it stands.
    pub fn get(&self, index: u32) -> T {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        let mut value = T::default();
        let target = (&raw mut value).cast::<u64>();
        for word in 0..Self::WORDS {
            let loaded =
                self.words.word(index as usize * Self::WORDS + word).load(Ordering::Acquire);
            // SAFETY: `value` has `WORDS` words, and `T: Pod` takes every bit pattern.
            unsafe { target.add(word).write_unaligned(loaded) };
        }
        value
    }

    /// Writes an entry, its words in order but [`Row::LAST`] after all others; words that do not change are left alone.
    /// A packet on its way may see some words old and some new.
    pub fn set(&self, index: u32, value: &T) {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        let source = (&raw const *value).cast::<u64>();
        let others = (0..Self::WORDS).filter(|word| *word != T::LAST);
        for word in others.chain([T::LAST]) {
            // SAFETY: `value` has `WORDS` words, all initialised (`T: Pod` has no padding).
            let stored = unsafe { source.add(word).read_unaligned() };
            let place = self.words.word(index as usize * Self::WORDS + word);
            if place.load(Ordering::Relaxed) != stored {
                place.store(stored, Ordering::Release);
            }
        }
    }

    /// One word of all entries in a row.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words.word(index).load(Ordering::Acquire)
    }

    /// Writes one 8-byte word of an entry.
    pub(super) fn set_word(&self, index: u32, word: usize, stored: u64) {
        assert!(index < self.entries && word < Self::WORDS);
        self.words.word(index as usize * Self::WORDS + word).store(stored, Ordering::Release);
    }
}

impl<T: Row> Table<T> {
    /// Adds to a word of an entry that packets add to, too; `offset` in bytes.
    pub(super) fn add(&self, index: u32, offset: usize, more: i64) {
        assert!(index < self.entries && offset / 8 < Self::WORDS);
        let word = self.words.word(index as usize * Self::WORDS + offset / 8);
        word.fetch_add(more as u64, Ordering::Relaxed);
    }
}

/// The arena of slots.
pub type Arena = Table<Slot>;

impl Arena {
    /// One slot.
    pub fn slot(&self, index: u32) -> Slot {
        Slot(self.words.word(index as usize).load(Ordering::Acquire))
    }

    /// Changes one slot by one store.
    pub fn set_slot(&self, index: u32, slot: Slot) {
        self.words.word(index as usize).store(slot.0, Ordering::Release);
    }
}
