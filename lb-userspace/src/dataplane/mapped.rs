//! Map values through mapped memory: a change is a store that the next packet sees, without a syscall.
//!
//! The kernel lays out an array's values at `value_size` rounded up to 8, and a mapping holds the map (it stays valid
//! after pins and descriptors are gone). Every access is an aligned 8-byte atomic, so that neither side ever sees a
//! torn word; what must be seen together has to be in one word, or be published by another one afterwards.

use std::{
    io,
    marker::PhantomData,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::Pod;
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
            .map_raw(&RawDescriptor(std::os::fd::AsRawFd::as_raw_fd(&map.as_fd())))?;
        Ok(Self { map: raw, words: bytes / 8 })
    }

    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: the mapping is page-aligned, `words * 8` bytes long at least, readable and writable, lives as long as
        // `self`, and is only ever accessed by atomics of this type (and by the kernel's loads).
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) }
    }
}

struct RawDescriptor(std::os::fd::RawFd);

impl std::os::fd::AsRawFd for RawDescriptor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0
    }
}

/// A mapped array of `T`, whose size is a multiple of 8.
pub struct Table<T> {
    words: Words,
    entries: u32,
    value: PhantomData<T>,
}

impl<T: Pod + Default> Table<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8));
        size_of::<T>() / 8
    };

    pub(super) fn new(map: impl AsFd, entries: u32) -> io::Result<Self> {
        Ok(Self { words: Words::new(map, entries, size_of::<T>())?, entries, value: PhantomData })
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

    /// Writes an entry, first word to last; words that do not change are left alone.
    pub fn set(&self, index: u32, value: &T) {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        let source = (&raw const *value).cast::<u64>();
        for word in 0..Self::WORDS {
            // SAFETY: `value` has `WORDS` words, all initialised (`T: Pod` has no padding).
            let stored = unsafe { source.add(word).read_unaligned() };
            let place = self.words.word(index as usize * Self::WORDS + word);
            if place.load(Ordering::Relaxed) != stored {
                place.store(stored, Ordering::Release);
            }
        }
    }

    /// Writes one 8-byte word of an entry.
    pub(super) fn set_word(&self, index: u32, word: usize, stored: u64) {
        assert!(index < self.entries && word < Self::WORDS);
        self.words.word(index as usize * Self::WORDS + word).store(stored, Ordering::Release);
    }
}

/// The arena of slots.
pub type Arena = Table<lb_common::abi::Slot>;

impl Arena {
    /// One slot.
    pub fn slot(&self, index: u32) -> lb_common::abi::Slot {
        lb_common::abi::Slot(self.words.word(index as usize).load(Ordering::Acquire))
    }

    /// Changes one slot by one store.
    pub fn set_slot(&self, index: u32, slot: lb_common::abi::Slot) {
        self.words.word(index as usize).store(slot.0, Ordering::Release);
    }
}
