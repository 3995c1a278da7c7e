//! Adding to a word that several CPUs add to. Rust's atomics have no such operation for this target.

/// Adds to the word.
///
/// # Safety
/// `word` is aligned and valid for reads and writes, and nobody uses it but by atomic operations.
#[inline(always)]
pub unsafe fn add(word: *mut u64, more: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the instruction reads and writes the eight bytes at `word`, which the caller vouches for, and nothing else.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({word} + 0) += {more}",
            word = in(reg) word,
            more = in(reg) more,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word)
            .fetch_add(more, core::sync::atomic::Ordering::Relaxed);
    }
}
