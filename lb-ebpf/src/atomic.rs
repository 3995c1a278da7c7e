//! Changing a word that several CPUs change. Rust's atomics have no such operations for this target.

/// Adds to the word, and gives what it was before (Linux 5.12).
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, more: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the instruction reads and writes the eight bytes at `word`, which the caller vouches for, and nothing else.
    unsafe {
        let mut value = more;
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
            options(nostack, preserves_flags),
        );
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word)
            .fetch_add(more, core::sync::atomic::Ordering::Relaxed)
    }
}

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

/// Sets bits of the word.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn or(word: *mut u64, bits: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the instruction reads and writes the eight bytes at `word`, which the caller vouches for, and nothing else.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({word} + 0) |= {bits}",
            word = in(reg) word,
            bits = in(reg) bits,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word)
            .fetch_or(bits, core::sync::atomic::Ordering::Relaxed);
    }
}

/// Writes `new` if the word is `old`. Returns what it was.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn compare_and_swap(word: *mut u64, old: u64, new: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the instruction (Linux 5.12) reads and writes the eight bytes at `word`, which the caller vouches for, and r0.
    unsafe {
        let was;
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => was,
            options(nostack, preserves_flags),
        );
        was
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
        AtomicU64::from_ptr(word)
            .compare_exchange(old, new, Relaxed, Relaxed)
            .unwrap_or_else(|was| was)
    }
}
