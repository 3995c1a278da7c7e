//! Per-CPU counters.

/// One CPU's counters of one backend; a service's are the sum of its backends'. All host order, never reset.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Packets sent to the backend.
    pub packets: u64,
    /// Their bytes, layer 3 (IP total length as received, before encapsulation).
    pub bytes: u64,
    /// Opening packets (TCP SYN without ACK) among them.
    pub flows: u64,
    /// Packets from the backend (nat: lb sees them).
    pub reply_packets: u64,
    /// Their bytes, layer 3.
    pub reply_bytes: u64,
    /// TCP resets from the backend (nat).
    pub reply_resets: u64,
    /// Zero; room for later counters without a new layout.
    pub _reserved: [u64; 2],
}

const _: () = assert!(size_of::<BackendCounters>() == 64);
