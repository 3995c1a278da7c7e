//! The maximum segment size that a SYN or SYN-ACK offers (RFC 9293 3.7.1), made smaller where packets of that size would not fit.
//! Never greater: that is for the sender to know.

use crate::{
    checksum::{Sum, update},
    frame::{Frame, Tcp, Wire},
};

/// Options that are looked at: stacks send five or six, the one that is looked for first.
pub const MOST_OPTIONS: u32 = 16;

const END: u8 = 0;
pub(crate) const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// A place in a walk over the options, in one word: bits 0..8 the offset of an option in the frame, above them whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u32);

impl Place {
    const FOUND: u32 = 1 << 8;
    /// There is no such option, or the options are broken.
    pub const NONE: Self = Self(2 << 8);

    /// An option at this offset, below 256.
    #[inline(always)]
    pub const fn at(offset: u32) -> Self {
        Self(offset & 0xff)
    }

    /// Whether the walk is over.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        self.0 >> 8 != 0
    }

    /// The offset of the option that was looked for.
    #[inline(always)]
    pub const fn found(self) -> Option<usize> {
        if self.0 & Self::FOUND == 0 { None } else { Some((self.0 & 0xff) as usize) }
    }
}

/// One step of the walk over options that end at `end`.
#[inline(always)]
pub fn step(frame: &(impl Frame + ?Sized), place: Place, end: u32) -> Place {
    let offset = place.0 & 0xff;
    let Some([kind]) = frame.view::<[u8; 1]>(offset as usize) else { return Place::NONE };
    if offset >= end || *kind == END {
        return Place::NONE;
    }
    if *kind == NO_OPERATION {
        return next(offset + 1, end);
    }
    let Some([kind, length]) = frame.view::<[u8; 2]>(offset as usize) else { return Place::NONE };
    match (*kind, *length) {
        (_, 0 | 1) => Place::NONE,
        (MAXIMUM_SEGMENT_SIZE, 4) if offset + 4 <= end => Place(offset | Place::FOUND),
        (MAXIMUM_SEGMENT_SIZE, _) => Place::NONE,
        (_, length) => next(offset + length as u32, end),
    }
}

#[inline(always)]
pub(crate) const fn next(offset: u32, end: u32) -> Place {
    if offset < end && offset < 0x100 { Place::at(offset) } else { Place::NONE }
}

/// Makes the option at `at` say `most` bytes if it says more, and brings the checksum of the segment at `transport` along (RFC 1624: a wrong one
/// stays wrong). True if it has changed.
#[inline(always)]
pub fn clamp(
    frame: &mut (impl Frame + ?Sized),
    transport: usize,
    at: usize,
    most: u16,
) -> Option<bool> {
    let option = frame.view_mut::<[u8; 4]>(at)?;
    let [_, _, high, low] = *option;
    if u16::from_be_bytes([high, low]) <= most {
        return Some(false);
    }
    let [new_high, new_low] = most.to_be_bytes();
    option[2] = new_high;
    option[3] = new_low;
    // Behind an odd number of bytes the two stand in two words of the sum.
    let change = if at.wrapping_sub(transport) & 1 == 0 {
        Sum::default().change_word(word(high, low), word(new_high, new_low))
    } else {
        Sum::default()
            .change_word(word(0, high), word(0, new_high))
            .change_word(word(low, 0), word(new_low, 0))
    };
    let tcp = frame.view_mut::<Tcp>(transport)?;
    tcp.checksum = update(u16::from_ne_bytes(tcp.checksum), change).to_ne_bytes();
    Some(true)
}

/// No stack sends smaller segments than this (RFC 791: 576 bytes less the headers).
const LEAST: u16 = 536;

/// Makes the option at `at` say `by` bytes less, as [`clamp`] does; never less than any path can carry.
#[inline(always)]
pub fn lower(
    frame: &mut (impl Frame + ?Sized),
    transport: usize,
    at: usize,
    by: u16,
) -> Option<bool> {
    let [_, _, high, low] = *frame.view::<[u8; 4]>(at)?;
    let size = u16::from_be_bytes([high, low]);
    if size <= LEAST + by {
        return Some(false);
    }
    clamp(frame, transport, at, size - by)
}

#[inline(always)]
const fn word(first: u8, second: u8) -> u16 {
    u16::from_ne_bytes([first, second])
}

/// Where the options of a TCP header at `transport` begin and end.
#[inline(always)]
pub fn options(frame: &(impl Frame + ?Sized), transport: usize) -> Option<(u32, u32)> {
    let header = frame.view::<Tcp>(transport)?;
    let end = transport as u32 + (header.offset >> 4) as u32 * 4;
    Some(((transport + Tcp::LENGTH) as u32, end))
}

#[cfg(test)]
mod tests;
