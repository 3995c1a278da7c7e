//! How long backends take to accept connections, as the packet path of nat sees it.

/// Buckets of [`HandshakeTimes`].
pub const HANDSHAKE_BUCKETS: usize = 22;

/// Value of `HANDSHAKE_TIMES`: times from a client's SYN to the backend's SYN-ACK, in powers of two. Host order, never
/// reset; added to by atomic operations, as both directions may be handled on different CPUs.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeTimes {
    /// Bucket i counts times of at most 16 µs * 2^i, the last one all others; see [`crate::handshake::bucket`].
    pub buckets: [u64; HANDSHAKE_BUCKETS],
    /// Sum of all times, microseconds.
    pub sum: u64,
    /// Zero.
    pub _reserved: u64,
}

const _: () = assert!(size_of::<HandshakeTimes>() == 192);
