//! How the C library's allocator gives memory back.

/// From so many bytes on, a block is mapped by itself, and goes back to the system when it is freed.
const OWN_MAPPING: i32 = 128 << 10;

/// Keeps large blocks out of the heap, for good: by itself the C library takes them into it as soon as the first one has been
/// freed (mallopt(3), `M_MMAP_THRESHOLD`). A configuration is read in a few large blocks that are free afterwards; in the heap,
/// what is loaded meanwhile stands between them, and they stay resident: 54 MiB with 1,000 services, 36 without them.
pub fn keep_large_blocks_apart() {
    // SAFETY: the function takes two numbers. It may be called at any time, and says by its result (which decides
    // nothing here) whether they are known.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING) };
}

/// Gives back to the system what is free in the heap, wherever it stands (malloc_trim(3)): by itself the C library gives back the heap's
/// end alone. Reading a configuration takes three times what is kept of it; with 1,000 services 33 MiB stay resident without this, and
/// 26 with it. It takes some milliseconds, in which other threads wait for memory.
pub fn give_back() {
    // SAFETY: the function takes a number, how much to keep at the heap's end, and may be called at any time by any thread.
    unsafe { libc::malloc_trim(0) };
}
