//! ICMP and ICMPv6 as lb speaks them: echo replies, and the three errors a router owes (RFC 792, RFC 1812, RFC 4443).

use network_types::{icmp::Icmpv4Hdr, ip::Ipv4Hdr};

use crate::{
    abi::Address,
    be::Be32,
    checksum::{Sum, pseudo_header, update},
    frame::{Ethernet, Frame, Pair, Wire},
    ip::IpHeader,
};

/// What an ICMP message is to lb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An echo request.
    EchoRequest,
    /// An error message: it quotes a packet, and is never answered.
    Error,
    /// Anything else: neighbour discovery (ICMPv6 redirects included), echo replies...
    Other,
}

/// Classifies an ICMP or ICMPv6 type.
#[inline(always)]
pub const fn kind(is_v6: bool, message_type: u8) -> Kind {
    match (is_v6, message_type) {
        (false, 8) | (true, 128) => Kind::EchoRequest,
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (false, 3 | 4 | 5 | 11 | 12) | (true, 0..128) => Kind::Error,
        _ => Kind::Other,
    }
}

/// Whether an error of this type is worth telling an endpoint: not source quench (RFC 6633), redirects, which are for
/// the neighbour's ears only (RFC 1122 3.2.2.2), and ICMPv6 types that nobody has defined.
#[inline(always)]
pub const fn concerns_endpoints(is_v6: bool, message_type: u8) -> bool {
    matches!((is_v6, message_type), (false, 3 | 11 | 12) | (true, 1..=4))
}

/// Turns an echo request into its reply: addresses exchanged, a fresh hop limit, and the checksum brought along for the
/// changed type (RFC 1624: with the end-around carry, so that it is right for every value).
#[inline(always)]
pub fn reply_to_echo<H: IpHeader>(ethernet: &mut Ethernet, header: &mut H, icmp: &mut Icmpv4Hdr) {
    *ethernet = ethernet.reversed();
    header.swap_addresses();
    header.set_hop_limit(crate::ip::HOP_LIMIT);
    let reply_type = if H::IS_V6 { 129 } else { 0 };
    let change = Sum::default().change_word(
        u16::from_ne_bytes([icmp.type_, icmp.code]),
        u16::from_ne_bytes([reply_type, icmp.code]),
    );
    icmp.type_ = reply_type;
    icmp.check = update(u16::from_ne_bytes(icmp.check), change).to_ne_bytes();
}

/// The longest ICMP message whose checksum lb verifies: what a jumbo frame holds.
pub const LONGEST_MESSAGE: usize = 9_216;

/// The sum of `length` bytes of a frame from `offset` (at least 1) on; `None` if the frame ends before, or `length` is beyond
/// [`LONGEST_MESSAGE`].
#[inline(always)]
pub fn sum_of_frame(frame: &(impl Frame + ?Sized), offset: usize, length: usize) -> Option<Sum> {
    const STEP: usize = 8;
    if length > LONGEST_MESSAGE {
        return None;
    }
    let mut sum = Sum::default();
    let mut at = 0;
    for _ in 0..LONGEST_MESSAGE / STEP {
        if at + STEP > length {
            break;
        }
        let [a, b, c, d, e, f, g, h] = *frame.view::<[u8; STEP]>(offset + at)?;
        sum = sum.double(u32::from_ne_bytes([a, b, c, d])).double(u32::from_ne_bytes([e, f, g, h]));
        at += STEP;
    }
    for _ in 0..STEP / 2 {
        if at + 2 > length {
            break;
        }
        sum = sum.word(u16::from_ne_bytes(*frame.view::<[u8; 2]>(offset + at)?));
        at += 2;
    }
    if at < length {
        // Two bytes are read even for the last one: a check of one byte alone tells the verifier nothing.
        let [_, last] = *frame.view::<[u8; 2]>(offset + at - 1)?;
        sum = sum.first(last);
        at += 1;
    }
    // 9,216 bytes are 2,304 words of 32 bits: 44 bits at most.
    if at == length { Some(Sum::begun(sum.unfolded())) } else { None }
}

/// Whether an ICMP message of `length` bytes, whose own sum is `message`, has a right checksum.
#[inline(always)]
pub fn is_intact<H: IpHeader>(header: &H, message: Sum, length: u16) -> bool {
    let pseudo = if H::IS_V6 {
        pseudo_header(&header.source(), &header.destination(), H::ICMP, length as u32)
    } else {
        Sum::default()
    };
    message.plus(pseudo).checksum() == 0
}

/// An error that lb sends. No enum: a kind without an MTU would leave that undefined, which the compiler then carries about, and the
/// verifier refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Type and code in IPv4, type and code in IPv6.
    types: u32,
    mtu: u16,
}

impl Error {
    /// The hop limit ran out.
    pub const TIME_EXCEEDED: Self = Self::of([11, 0], [3, 0]);
    /// Nobody serves the port.
    pub const PORT_UNREACHABLE: Self = Self::of([3, 3], [1, 4]);
    /// Administratively prohibited: there is no room for it (RFC 5508 REQ-8).
    pub const PROHIBITED: Self = Self::of([3, 13], [1, 1]);

    /// The packet does not fit a link of this many bytes (layer 3).
    #[inline(always)]
    pub const fn too_big(mtu: u16) -> Self {
        Self { mtu, ..Self::of([3, 4], [2, 0]) }
    }

    /// In one word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.types as u64 | (self.mtu as u64) << 32
    }

    /// From [`Self::word`].
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        Self { types: word as u32, mtu: (word >> 32) as u16 }
    }

    const fn of([a, b]: [u8; 2], [c, d]: [u8; 2]) -> Self {
        Self { types: u32::from_be_bytes([a, b, c, d]), mtu: 0 }
    }

    /// Type and code in a family.
    #[inline(always)]
    const fn type_and_code(self, is_v6: bool) -> (u8, u8) {
        let [a, b, c, d] = self.types.to_be_bytes();
        if is_v6 { (c, d) } else { (a, b) }
    }
}

/// How much of the packet an error quotes, bytes: an ICMP error has at most 576 bytes (RFC 1812 4.3.2.3), an ICMPv6
/// error 1280 (RFC 4443 2.4).
#[inline(always)]
pub const fn quoted_length(is_v6: bool, length: u16) -> u16 {
    let most = if is_v6 { 1280 - 48 } else { 576 - 28 };
    if length < most { length } else { most }
}

/// The headers of an error message.
pub type ErrorHeaders<H> = Pair<Ethernet, Pair<H, Icmpv4Hdr>>;

/// Makes the headers that go in front of the quoted packet. `from` is the VIP, `quote` the sum of the `quoted` bytes
/// that follow.
#[inline(always)]
pub fn error_headers<H: IpHeader>(
    ethernet: &Ethernet,
    header: &H,
    from: &Address,
    error: Error,
    quote: Sum,
    quoted: u16,
) -> ErrorHeaders<H> {
    /// Internetwork control, as RFC 1812 4.3.2.5 asks for.
    const PRECEDENCE: u8 = 0xc0;
    let to = header.source();
    let length = quoted.wrapping_add(Icmpv4Hdr::LENGTH as u16);
    let (message_type, code) = error.type_and_code(H::IS_V6);
    // The MTU stands in the last two of four bytes (RFC 1191) or in all four (RFC 4443): the same bytes.
    let data = Be32::from_host(error.mtu as u32).raw();
    let mut sum = quote.word(u16::from_ne_bytes([message_type, code])).double(data);
    if H::IS_V6 {
        sum = sum.plus(pseudo_header(from, &to, H::ICMP, length as u32));
    }
    Pair {
        first: ethernet.reversed(),
        second: Pair {
            first: H::compose(from, &to, H::ICMP, PRECEDENCE, length),
            second: Icmpv4Hdr {
                type_: message_type,
                code,
                check: sum.checksum().to_ne_bytes(),
                data: data.to_ne_bytes(),
            },
        },
    }
}

const _: () = assert!(size_of::<ErrorHeaders<Ipv4Hdr>>() == 42);

#[cfg(test)]
mod tests;
