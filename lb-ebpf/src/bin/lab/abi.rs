//! Map entries of the lab's helper programs. The tests compile this very file, too; it depends on nothing.

/// Bytes of [`Template::frame`] that are written into the packet: an Ethernet, an IPv6 and a TCP header, rounded up.
/// Frames are at least that long; what lies beyond comes from `data_in` and is not touched.
pub const COPIED: usize = 80;

/// Length of [`Template::frame`].
pub const FRAME: usize = 136;

/// Offset within [`Template::frame`] that is never copied: where a checksum goes that the packet does not have.
#[cfg_attr(target_arch = "bpf", expect(dead_code, reason = "only user space writes it"))]
pub const NOWHERE: u32 = 126;

/// The one entry of `TEMPLATE`: a frame, and how the address and port that vary are put into it. One test run at a time
/// uses it: the frame is composed in place.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Template {
    /// Packets made so far; the flow's number is this modulo `flows`.
    pub counter: u64,
    /// Number of flows minus one; the number is a power of two.
    pub mask: u32,
    /// Length of the whole frame.
    pub length: u32,
    /// Index into `PROGRAMS` of the program under test.
    pub program: u32,
    /// Offset of the 32-bit word (of an address) that varies: `word` plus the flow's number.
    pub word_offset: u32,
    /// Its first value, host order.
    pub word: u32,
    /// Offset of the port that varies: `port` plus the lower 14 bits of the flow's number.
    pub port_offset: u32,
    /// Its first value, host order.
    pub port: u32,
    /// Offset of the IPv4 header's checksum, or [`NOWHERE`].
    pub network_checksum_offset: u32,
    /// Unfolded one's-complement sum (native byte order) of the IPv4 header without the word and the checksum.
    pub network_sum: u32,
    /// Offset of the TCP or UDP checksum.
    pub transport_checksum_offset: u32,
    /// Unfolded sum of pseudo header and segment without the word, the port and the checksum.
    pub transport_sum: u32,
    /// Zero.
    pub _pad: u32,
    /// The frame's first bytes.
    pub frame: [u8; FRAME],
}

const _: () = assert!(size_of::<Template>() == 8 + 12 * 4 + FRAME);

/// Key of the comparison program's flow table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompareFlow {
    /// Client, raw.
    pub source: u32,
    /// VIP, raw.
    pub destination: u32,
    /// Both ports, raw.
    pub ports: u32,
    /// IP protocol.
    pub protocol: u32,
}

const _: () = assert!(size_of::<CompareFlow>() == 16);

/// Key of the comparison program's services.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompareVip {
    /// VIP, raw.
    pub address: u32,
    /// Port, raw.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub _pad: u8,
}

const _: () = assert!(size_of::<CompareVip>() == 8);

/// Value of the comparison program's flow table.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct ComparePin {
    /// Backend's number.
    pub backend: u32,
    /// Zero.
    pub _pad: u32,
    /// Time of the flow's first packet, nanoseconds.
    pub created: u64,
}

const _: () = assert!(size_of::<ComparePin>() == 16);

/// A backend of the comparison program.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct CompareBackend {
    /// Address, raw.
    pub address: u32,
    /// Next hop's MAC address.
    pub mac: [u8; 6],
    /// Zero.
    pub _pad: [u8; 6],
}

const _: () = assert!(size_of::<CompareBackend>() == 16);

/// Per-CPU counters of the comparison program, one entry a backend.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct CompareCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes of layer 3.
    pub bytes: u64,
}

const _: () = assert!(size_of::<CompareCounters>() == 16);
