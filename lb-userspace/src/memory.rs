//! Memory that is free goes back to the system.

/// Gives back what the allocator keeps of memory that nothing uses. Reading a large configuration takes several times what
/// is kept of it, in pieces that lie between those that stay: without this, that much would stay resident.
pub fn give_back() {
    // Other C libraries than glibc have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer, changes no memory that is in use, and may be called from any thread
    // (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}
