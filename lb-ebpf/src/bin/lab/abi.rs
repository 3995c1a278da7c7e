//! Map entries of the lab's helper programs. The tests compile this very file, too; it depends on nothing.

/// Words of a frame that are written anew for each packet: an Ethernet, an IPv6 and a TCP header, rounded up. Frames are
/// at least that long; what lies beyond comes from `data_in` and is not touched.
pub const WORDS: usize = 10;

/// The same of an ICMPv6 error: it quotes as much.
pub const QUOTING_WORDS: usize = 14;

/// Where in a frame the things are that vary from flow to flow.
pub mod layout {
    /// IPv4, TCP, the client is the source.
    pub const V4_TCP_SOURCE: u32 = 0;
    /// IPv4, TCP, the client is the destination.
    pub const V4_TCP_DESTINATION: u32 = 1;
    /// IPv4, UDP, the client is the source.
    pub const V4_UDP_SOURCE: u32 = 2;
    /// IPv6, TCP, the client is the source.
    pub const V6_TCP_SOURCE: u32 = 3;
    /// IPv6, TCP, the client is the destination.
    pub const V6_TCP_DESTINATION: u32 = 4;
    /// IPv6, UDP, the client is the source.
    pub const V6_UDP_SOURCE: u32 = 5;
    /// IPv6, TCP, the client is the source, and each is in a /64 of its own.
    pub const V6_TCP_NETWORK: u32 = 6;
    /// IPv4, an ICMP error: the client is the destination of the quoted TCP packet.
    pub const V4_QUOTE: u32 = 7;
    /// IPv6, an ICMP error: the same.
    pub const V6_QUOTE: u32 = 8;
    /// IPv6, a fragment of a UDP datagram, the client is the source. What the first one has of ports and checksum, others have of data.
    pub const V6_FRAGMENT_SOURCE: u32 = 9;
    /// IPv4, TCP, the destination is a port of a pool: each address has 16,384 flows before the next one follows.
    pub const V4_TCP_POOL: u32 = 10;
    /// IPv6, the same.
    pub const V6_TCP_POOL: u32 = 11;
}

/// Entries of `DRAWN`: a sequence of flow numbers that is gone through again and again.
pub const DRAWN: u32 = 1 << 16;

/// Entry 0 of `TEMPLATE`, and entry 1, the flood that is mixed in or the second of each pair: a frame, and how the address and port that vary are put into it. One test run at a time
/// uses it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Template {
    /// Packets made so far; the flow's number is this (half of it, if `paired`) modulo `mask + 1` (less `flows`, if it is not below),
    /// or what `DRAWN` has there.
    pub counter: u64,
    /// The frame's first bytes, zero where something varies.
    pub frame: [u64; QUOTING_WORDS],
    /// The power of two that is not below the number of flows, minus one.
    pub mask: u32,
    /// One of [`layout`].
    pub layout: u32,
    /// By how many bytes the program under test moves the frame's start forward (a tunnel's overhead): so far each
    /// round moves it back. The frame that the test run begins with has that many bytes in front.
    pub moved: u32,
    /// Index into `PROGRAMS` of the program under test.
    pub program: u32,
    /// First value of the client address's last 32 bits (of its bytes 4 to 7 where networks vary), host order; each flow adds its number.
    pub address: u32,
    /// First value of the client's port, host order; each flow adds the lower 14 bits of its number.
    pub port: u32,
    /// Folded one's-complement sum (native byte order) of the IPv4 header without what varies.
    pub network_sum: u32,
    /// Folded sum of pseudo header and segment without what varies.
    pub transport_sum: u32,
    /// 1: flows come as `DRAWN` says.
    pub drawn: u32,
    /// Of entry 0: of 256 packets, how many are entry 1's, whose layout is the same.
    pub flooded: u32,
    /// Number of flows; what exceeds it begins anew, so that of other numbers than powers of two some come twice as often.
    pub flows: u32,
    /// Of entry 0: 1 = two packets in a row of each flow, the second one entry 1's, whose layout is the same (`flooded` is 0). Else 0.
    pub paired: u32,
}

const _: () = assert!(size_of::<Template>() == 8 + 8 * QUOTING_WORDS + 12 * 4);

/// The one entry of `CONSTANT`: what `constant` forwards, and where to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Constant {
    /// Destination address, raw.
    pub address: u32,
    /// The backend's MAC address.
    pub mac: [u8; 6],
    /// Zero.
    pub _pad: [u8; 2],
}

const _: () = assert!(size_of::<Constant>() == 12);

/// Key of the comparison program's flow table: of both families, as that of Katran is (`flow_key`, 40 bytes).
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompareFlow {
    /// Client, raw; IPv4 in the first word.
    pub source: [u64; 2],
    /// VIP, raw.
    pub destination: [u64; 2],
    /// Both ports, raw.
    pub ports: u32,
    /// IP protocol.
    pub protocol: u32,
}

const _: () = assert!(size_of::<CompareFlow>() == 40);

/// Key of the comparison program's services.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompareVip {
    /// VIP, raw; IPv4 in the first word.
    pub address: [u64; 2],
    /// Port, raw.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub _pad: [u8; 5],
}

const _: () = assert!(size_of::<CompareVip>() == 24);

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
