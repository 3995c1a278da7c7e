//! `BPF_MAP_LOOKUP_BATCH` (Linux 5.6), which aya does not have: a table of 100,000 entries in 25 syscalls.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use aya::Pod;

/// Entries asked for at a time.
const CHUNK: u32 = 4096;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// The part of `union bpf_attr` for batch commands (include/uapi/linux/bpf.h).
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

/// All entries of a map as they are while the call goes through them. `values_per_key` is the number of possible CPUs
/// for per-CPU maps, else 1; `V`'s size is a multiple of 8 there.
pub(super) fn lookup_all<K: Pod + Default, V: Pod + Default>(
    map: impl AsFd,
    values_per_key: usize,
) -> io::Result<Vec<(K, Vec<V>)>> {
    let mut found = Vec::new();
    let mut chunk = CHUNK;
    // The kernel's cursor: the size of a key for arrays, 4 bytes for hash maps.
    let mut cursor = vec![0u8; size_of::<K>().max(8)];
    let mut first = true;
    loop {
        let mut next = vec![0u8; cursor.len()];
        let mut keys = vec![K::default(); chunk as usize];
        let mut values = vec![V::default(); chunk as usize * values_per_key];
        let mut attributes = BatchAttributes {
            in_batch: if first { 0 } else { cursor.as_ptr() as u64 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: chunk,
            map_fd: map.as_fd().as_raw_fd() as u32,
            ..BatchAttributes::default()
        };
        // SAFETY: every pointer is to a buffer of the size that `count`, the key and the value size of this map (checked
        // against the program's when it was opened) need, and they outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<BatchAttributes>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let count = attributes.count as usize;
        match error.as_ref().and_then(io::Error::raw_os_error) {
            None | Some(libc::ENOENT) => {}
            // One bucket has more entries than the chunk.
            Some(libc::ENOSPC) if chunk < 1 << 20 => {
                chunk *= 4;
                continue;
            }
            Some(_) => return Err(error.unwrap_or_else(io::Error::last_os_error)),
        }
        let mut values = values.into_iter();
        for key in keys.into_iter().take(count) {
            found.push((key, values.by_ref().take(values_per_key).collect()));
        }
        if error.is_some() {
            return Ok(found);
        }
        cursor = next;
        first = false;
    }
}
