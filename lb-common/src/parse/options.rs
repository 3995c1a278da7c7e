//! IPv4 options (RFC 791 3.1), of which only source routes matter: they are refused (RFC 7126 4.3, 4.4). Others pass
//! unread, and a list that makes no sense is left for the backend to judge.

use network_types::ip::Ipv4Hdr;

use super::{Family, NETWORK, V4Options};
use crate::frame::{Frame, Wire};

/// Where a walk begins: the offset of the first option in the IP header.
pub const FIRST: u32 = Ipv4Hdr::LENGTH as u32;

/// The most steps that a walk takes: a header has room for 40 bytes of options.
pub const MOST: u32 = 40;

/// What stands at one place in the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An option; the next one stands at this offset in the IP header.
    Next(u32),
    /// Nothing more.
    End,
    /// A loose or strict source route.
    SourceRoute,
}

/// Reads the option at an offset in the IP header.
#[inline(always)]
pub fn step(frame: &(impl Frame + ?Sized), at: u32) -> Step {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;

    let Some(header) = frame.view::<Ipv4Hdr>(NETWORK) else { return Step::End };
    if at < FIRST || at as usize >= V4Options::header_length(header) {
        return Step::End;
    }
    // An option in the very last byte of a frame has no length, and is no source route.
    // Kernels before 6.8 do not conclude that an offset below a length is as small as that; the mask tells them, and the compiler,
    // which would conclude it, does not see that nothing is masked.
    let offset = core::hint::black_box(at) & 63;
    let option = frame.view::<[u8; 2]>(NETWORK + offset as usize);
    match option.copied() {
        None | Some([END, _]) => Step::End,
        Some([NO_OPERATION, _]) => Step::Next(at + 1),
        Some([LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, _]) => Step::SourceRoute,
        Some([_, length]) if length < 2 => Step::End,
        Some([_, length]) => Step::Next(at + length as u32),
    }
}
