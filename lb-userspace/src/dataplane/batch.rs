//! Many entries by one system call: `BPF_MAP_LOOKUP_BATCH`, `BPF_MAP_UPDATE_BATCH` and `BPF_MAP_DELETE_BATCH`, which aya
//! does not have (Linux 5.6 for hash maps, 5.13 for per-CPU arrays, 5.14 for tries). A table of 100,000 pins takes 25 calls.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::{
    Pod,
    maps::{MapData, MapType},
};

use super::syscall;

/// Entries asked for at a time.
const CHUNK: usize = 4096;
/// Entries asked for when those of one hash bucket do not fit.
const LARGEST_CHUNK: usize = 1 << 20;

/// A map of `K` to `V`; for a per-CPU map, `V` is what one CPU has, a multiple of 8 bytes.
pub(super) struct Batch<K, V> {
    map: OwnedFd,
    /// Values of one key: the number of possible CPUs for per-CPU maps, else 1.
    per_key: usize,
    types: PhantomData<(K, V)>,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a lookup goes on, in the first 4 bytes: a hash bucket, or the index of the last entry of an array.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(super) struct Cursor([u32; 2]);

/// What one call has found.
struct Found {
    count: usize,
    /// No entries are left; else where to go on.
    next: Option<Cursor>,
}

impl<K: Pod + Default, V: Pod + Default> Batch<K, V> {
    /// For a map, if it is one of `K` and `V`.
    pub(super) fn new(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        let per_cpu = matches!(info.map_type(), Ok(MapType::PerCpuArray | MapType::PerCpuHash));
        if info.key_size() as usize != size_of::<K>()
            || info.value_size() as usize != size_of::<V>()
            || (per_cpu && !size_of::<V>().is_multiple_of(8))
        {
            return Err(io::Error::other(format!(
                "the map has keys of {} and values of {} bytes, not {} and {}",
                info.key_size(),
                info.value_size(),
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        let per_key = if per_cpu { aya::util::nr_cpus().map_err(|(_, error)| error)? } else { 1 };
        let map = map.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { map, per_key, types: PhantomData })
    }

    /// One call: fills `keys` and `values` from `cursor` on.
    fn lookup(
        &self,
        cursor: Option<Cursor>,
        keys: &mut [K],
        values: &mut [V],
    ) -> io::Result<Found> {
        assert_eq!(keys.len() * self.per_key, values.len());
        let mut next = Cursor::default();
        let mut attributes = BatchAttributes {
            in_batch: cursor.as_ref().map_or(0, |cursor| (&raw const *cursor) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len() as u32,
            map_fd: self.map.as_raw_fd() as u32,
            ..BatchAttributes::default()
        };
        // SAFETY: the attributes are those of the command. `new` has compared the sizes of key and value with the map's,
        // so that `count` entries fit the buffers; both take every bit pattern (`Pod`). Array keys and the positions in
        // a hash map are the 4 bytes that the cursors have room for.
        let result = unsafe { syscall::bpf(syscall::MAP_LOOKUP_BATCH, &mut attributes) };
        let count = attributes.count as usize;
        match result {
            Ok(_) => Ok(Found { count, next: Some(next) }),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(Found { count, next: None })
            }
            Err(error) => Err(error),
        }
    }

    /// All entries of a hash map, each as it is when the call passes it. Entries that packets add or remove meanwhile may
    /// be among them or not; every other is, once.
    pub(super) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut cursor = None;
        let mut all = self.page(&mut cursor)?;
        while cursor.is_some() {
            all.extend(self.page(&mut cursor)?);
        }
        Ok(all)
    }

    /// Some entries from `cursor` (`None` = the beginning) on, which is left where the next page begins, or `None` behind the
    /// last. Together, the pages are as [`Self::entries`].
    pub(super) fn page(&self, cursor: &mut Option<Cursor>) -> io::Result<Vec<(K, V)>> {
        assert_eq!(self.per_key, 1);
        let mut chunk = CHUNK;
        loop {
            let mut keys = vec![K::default(); chunk];
            let mut values = vec![V::default(); chunk];
            match self.lookup(*cursor, &mut keys, &mut values) {
                Ok(found) => {
                    *cursor = found.next;
                    return Ok(keys.into_iter().zip(values).take(found.count).collect());
                }
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSPC) && chunk < LARGEST_CHUNK =>
                {
                    chunk *= 4;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes and removes entries of a map of `K` to `V` that has one value a key.
pub(super) struct BatchWriter<K, V> {
    map: OwnedFd,
    types: PhantomData<(K, V)>,
}

impl<K, V: Copy> BatchWriter<K, V> {
    /// For a map, if its keys and values are as long as `K` and `V`.
    pub(super) fn new(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if info.key_size() as usize != size_of::<K>()
            || info.value_size() as usize != size_of::<V>()
        {
            return Err(io::Error::other(format!(
                "the map has keys of {} and values of {} bytes, not {} and {}",
                info.key_size(),
                info.value_size(),
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        Ok(Self { map: map.fd().as_fd().try_clone_to_owned()?, types: PhantomData })
    }

    /// Gives each of the keys the value; after an error, some of them.
    pub(super) fn update(&self, keys: &[K], value: &V) -> io::Result<()> {
        let values = vec![*value; keys.len().min(CHUNK)];
        for chunk in keys.chunks(CHUNK) {
            self.call(syscall::MAP_UPDATE_BATCH, chunk, Some(&values)).1?;
        }
        Ok(())
    }

    /// Removes the keys; one that is not there is no error.
    pub(super) fn delete(&self, keys: &[K]) -> io::Result<()> {
        let mut done = 0;
        while done < keys.len() {
            let chunk = &keys[done..keys.len().min(done + CHUNK)];
            let (count, result) = self.call(syscall::MAP_DELETE_BATCH, chunk, None);
            match result {
                Ok(()) => done += chunk.len(),
                // The call ends at a key that is not there, and counts those before it.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done += count + 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The result, and how many keys were dealt with before an error.
    fn call(
        &self,
        command: libc::c_int,
        keys: &[K],
        values: Option<&[V]>,
    ) -> (usize, io::Result<()>) {
        assert!(values.is_none_or(|values| values.len() >= keys.len()));
        let mut attributes = BatchAttributes {
            keys: keys.as_ptr() as u64,
            values: values.map_or(0, |values| values.as_ptr() as u64),
            count: keys.len() as u32,
            map_fd: self.map.as_raw_fd() as u32,
            ..BatchAttributes::default()
        };
        // SAFETY: the attributes are those of the commands, which only read keys and values. `new` has compared their sizes
        // with the map's, and there are `count` keys and at least as many values.
        let result = unsafe { syscall::bpf(command, &mut attributes) };
        (attributes.count as usize, result.map(|_| ()))
    }
}

impl<V: Pod + Default> Batch<u32, V> {
    /// The values of `count` entries of an array from `first` on, one entry (all its CPUs) after the other.
    pub(super) fn range(&self, first: u32, count: usize) -> io::Result<Vec<V>> {
        let mut keys = vec![0u32; count];
        let mut values = vec![V::default(); count * self.per_key];
        let cursor = first.checked_sub(1).map(|last| Cursor([last, 0]));
        let found = self.lookup(cursor, &mut keys, &mut values)?;
        if found.count != count {
            return Err(io::Error::other(format!(
                "{} of {count} entries from {first} on exist",
                found.count
            )));
        }
        Ok(values)
    }

    /// Writes the default value, on all CPUs, to these entries of an array.
    pub(super) fn zero(&self, keys: &[u32]) -> io::Result<()> {
        for keys in keys.chunks(CHUNK) {
            let values = vec![V::default(); keys.len() * self.per_key];
            let mut attributes = BatchAttributes {
                keys: keys.as_ptr() as u64,
                values: values.as_ptr() as u64,
                count: keys.len() as u32,
                map_fd: self.map.as_raw_fd() as u32,
                ..BatchAttributes::default()
            };
            // SAFETY: the attributes are those of the command, which only reads the buffers. `new` has compared the sizes
            // of key and value with the map's: the values of `count` keys on all CPUs are there.
            unsafe { syscall::bpf(syscall::MAP_UPDATE_BATCH, &mut attributes)? };
        }
        Ok(())
    }

    /// Values of each entry.
    pub(super) fn per_key(&self) -> usize {
        self.per_key
    }
}
