//! IPv6 extension headers (RFC 8200 4) in front of a TCP or UDP header: hop-by-hop options, routing headers that have done
//! their work, destination options, and the fragment header, where a walk ends. What they say is left for the backend;
//! here they are only passed over, up to a bound.

use network_types::ip::Ipv6Hdr;

use super::NETWORK;
use crate::frame::{Frame, Wire};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// The kind of a fragment header.
pub const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The most headers that are passed over (RFC 8504 5.3 asks for a limit; nobody has been seen to send more than three).
pub const MOST_HEADERS: u32 = 8;
/// The most bytes that they may have together.
pub const MOST_BYTES: usize = 128;

/// Where the first one stands in the frame.
const FIRST: usize = NETWORK + Ipv6Hdr::LENGTH;

/// Whether a header of this kind is one of those above, or an authentication header, which is refused: who balances what
/// is signed breaks it.
#[inline(always)]
pub const fn is_extension(kind: u8) -> bool {
    matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// A place in a walk, in one word: bits 0..8 the offset of a header in the frame, 8..16 its kind, 16..24 whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u32);

const GO_ON: u32 = 0;
const END: u32 = 1;
const REFUSED: u32 = 2;

impl Place {
    #[inline(always)]
    const fn new(offset: usize, kind: u8, state: u32) -> Self {
        Self(offset as u32 & 0xff | (kind as u32) << 8 | state << 16)
    }

    /// Where a walk over a packet with this header begins.
    #[inline(always)]
    pub const fn first(header: &Ipv6Hdr) -> Self {
        Self::new(FIRST, header.next_hdr, GO_ON)
    }

    /// No place: the chain is none that is passed over.
    pub const REFUSED: Self = Self(REFUSED << 16);

    /// Offset of the header in the frame.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Kind of the header: the IP protocol number.
    #[inline(always)]
    pub const fn kind(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Whether the walk is over: at a header that is no extension, at a fragment header, or at one to be refused.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        self.0 >> 16 != GO_ON
    }

    /// Kind and offset of the header behind the chain, or of its fragment header; `None` for a chain that is refused.
    #[inline(always)]
    pub const fn end(self) -> Option<(u8, usize)> {
        if self.0 >> 16 == END { Some((self.kind(), self.offset())) } else { None }
    }
}

/// One step of a walk.
#[inline(always)]
pub fn step(frame: &(impl Frame + ?Sized), place: Place) -> Place {
    /// Deprecated, for it made packets go to and fro (RFC 5095).
    const SOURCE_ROUTE: u8 = 0;
    /// RFC 2675.
    const JUMBO_PAYLOAD: u8 = 0xc2;

    let (offset, kind) = (place.offset(), place.kind());
    if kind == FRAGMENT || !is_extension(kind) {
        return Place::new(offset, kind, END);
    }
    let Some(&[next, length, third, fourth]) = frame.view::<[u8; 4]>(offset) else {
        return Place::REFUSED;
    };
    let is_refused = match kind {
        // It can only be the first one.
        HOP_BY_HOP => offset != FIRST || third == JUMBO_PAYLOAD,
        // While segments are left the packet is not for the VIP, but for somebody beyond it.
        ROUTING => third == SOURCE_ROUTE || fourth != 0,
        DESTINATION_OPTIONS => false,
        _ => true,
    };
    let behind = offset + (length as usize + 1) * 8;
    if is_refused || behind > FIRST + MOST_BYTES {
        return Place::REFUSED;
    }
    Place::new(behind, next, GO_ON)
}

/// The whole walk.
pub fn walk(frame: &(impl Frame + ?Sized)) -> Place {
    let Some(header) = frame.view::<Ipv6Hdr>(NETWORK) else { return Place::REFUSED };
    let mut place = Place::first(header);
    for _ in 0..=MOST_HEADERS {
        place = step(frame, place);
        if place.is_over() {
            return place;
        }
    }
    Place::REFUSED
}

const _: () = assert!(FIRST + MOST_BYTES < 256, "offsets have eight bits");

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with these headers (kind, bytes from the third one on) in front of TCP's.
    fn packet(headers: &[(u8, &[u8])]) -> Vec<u8> {
        let mut frame = vec![0; FIRST];
        frame[NETWORK] = 0x60;
        let kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).chain([6]).collect();
        frame[NETWORK + 6] = kinds[0];
        for (index, (_, body)) in headers.iter().enumerate() {
            let length = (body.len() + 2).next_multiple_of(8);
            let start = frame.len();
            frame.extend([kinds[index + 1], (length / 8 - 1) as u8]);
            frame.extend(*body);
            frame.resize(start + length, 0);
        }
        frame.extend([0; 20]);
        frame
    }

    fn end(headers: &[(u8, &[u8])]) -> Option<(u8, usize)> {
        walk(packet(headers).as_slice()).end()
    }

    #[test]
    fn chains_are_passed_over() {
        let nop: &[u8] = &[1, 4, 0, 0, 0, 0];
        assert_eq!(end(&[]), Some((6, 54)));
        assert_eq!(end(&[(0, nop)]), Some((6, 62)));
        assert_eq!(end(&[(0, nop), (60, nop), (43, &[4, 0]), (60, &[0; 20])]), Some((6, 102)));
        assert_eq!(
            end(&[(60, nop), (44, &[0; 6])]),
            Some((44, 62)),
            "it ends at a fragment header"
        );
        for count in 1..20 {
            let expected = (count <= 8).then_some((6, 54 + count * 8));
            assert_eq!(end(&vec![(60, nop); count]), expected, "{count} headers");
        }
        for length in (6..300).step_by(8) {
            let expected = (length < 128).then_some((6, 54 + length + 2));
            assert_eq!(end(&[(60, &vec![0; length])]), expected, "options of {length} bytes");
        }
    }

    #[test]
    fn what_is_not_passed_over_is_refused() {
        let nop: &[u8] = &[1, 4, 0, 0, 0, 0];
        let refused: [&[(u8, &[u8])]; 7] = [
            &[(43, &[0, 0])], // a source route, even at its end
            &[(43, &[2, 1])], // on its way elsewhere
            &[(43, &[4, 255])],
            &[(51, &[0; 22])],      // authentication
            &[(60, nop), (0, nop)], // hop-by-hop options, but not first
            &[(0, &[0xc2, 4, 0, 1, 0, 0])],
            &[(0, nop), (51, nop)],
        ];
        for headers in refused {
            assert_eq!(end(headers), None, "{headers:?}");
        }
        // Cut anywhere within the chain.
        let whole = packet(&[(0, nop), (60, nop)]);
        for length in 0..FIRST + 12 {
            assert_eq!(walk(&whole[..length]).end(), None, "cut to {length}");
        }
    }
}
