//! The client's address for a server that full nat hides it from: an option in the TCP header, as LVS and its kin send it and the kernel
//! modules named `toa` read it. Kind, length, the client's port, the client's address; 8 bytes for IPv4, 20 for IPv6.
//!
//! Whoever reads it trusts it, so one that a client sends is made unreadable.

use crate::{
    be::Be16,
    checksum::{Sum, update},
    frame::{Frame, Tcp, Wire},
    ip::IpHeader,
    mss::{NO_OPERATION, Place, next},
    parse::{Family, NETWORK},
};

/// The option's kind with an IPv4 address (RFC 4727: for experiments).
pub const KIND_V4: u8 = 254;

/// With an IPv6 address.
pub const KIND_V6: u8 = 253;

/// What a client's own option of these kinds becomes: a reserved kind, which everybody passes over.
const HIDDEN: u8 = 255;

/// Bytes of options that a TCP header can have, and so the most steps of a walk over them.
pub const MOST_BYTES: u32 = 40;

/// Bytes that the option takes.
#[inline(always)]
pub const fn length(is_v6: bool) -> u16 {
    if is_v6 { 20 } else { 8 }
}

/// One step of the walk over a client's options, which begin behind the header at `transport` and end at `end`: hides what only lb may
/// say. A checksum that was right stays right (RFC 1624).
#[inline(always)]
pub fn hide(frame: &mut (impl Frame + ?Sized), transport: usize, place: Place, end: u32) -> Place {
    let offset = place.0 & 0xff;
    if offset + 1 >= end {
        return Place::NONE;
    }
    let Some(option) = frame.view_mut::<[u8; 2]>(offset as usize) else { return Place::NONE };
    let [kind, length] = *option;
    match kind {
        0 => return Place::NONE,
        NO_OPERATION => return next(offset + 1, end),
        KIND_V4 | KIND_V6 => option[0] = HIDDEN,
        _ if length < 2 => return Place::NONE,
        _ => return next(offset + length as u32, end),
    }
    let change = match offset.wrapping_sub(transport as u32) & 1 {
        0 => Sum::default()
            .change_word(u16::from_ne_bytes([kind, 0]), u16::from_ne_bytes([HIDDEN, 0])),
        _ => Sum::default()
            .change_word(u16::from_ne_bytes([0, kind]), u16::from_ne_bytes([0, HIDDEN])),
    };
    let Some(tcp) = frame.view_mut::<Tcp>(transport) else { return Place::NONE };
    tcp.checksum = update(u16::from_ne_bytes(tcp.checksum), change).to_ne_bytes();
    if length < 2 { Place::NONE } else { next(offset + length as u32, end) }
}

/// Whether the option fits: the header has at most 60 bytes, the packet at most `mtu` (0 = not known). Packets with IP options or
/// extension headers go without.
#[inline(always)]
pub fn fits<F: Family>(tcp: &Tcp, packet_length: u16, mtu: u16) -> bool {
    let more = length(F::Header::IS_V6) as u32;
    let header = (tcp.offset >> 4) as u32 * 4 + more;
    let packet = packet_length as u32 + more;
    let most = if mtu == 0 { u16::MAX } else { mtu };
    F::FIXED && header <= 60 && packet <= most as u32
}

/// Writes the option into a segment whose frame has been moved by [`length`] bytes to the front already: what stands before the options
/// moves up, and the option becomes the first. What the headers and their checksums say follows.
#[inline(always)]
pub fn insert<F: Family>(frame: &mut (impl Frame + ?Sized)) -> Option<()> {
    let is_v6 = F::Header::IS_V6;
    let more = length(is_v6) as usize;
    let transport = NETWORK + F::MINIMUM;
    let begin = transport + Tcp::LENGTH;
    let mut at = 0;
    while at < begin {
        let bytes = *frame.view::<[u8; 2]>(at + more)?;
        *frame.view_mut::<[u8; 2]>(at)? = bytes;
        at += 2;
    }
    let header = frame.view_mut::<F::Header>(NETWORK)?;
    let client = header.source();
    let old = header.length() as u16;
    header.grow(more as u16);
    let segment = old.wrapping_sub(F::MINIMUM as u16);

    let tcp = frame.view_mut::<Tcp>(transport)?;
    let port = tcp.source;
    let (offset, flags) = (tcp.offset, tcp.flags);
    tcp.offset = offset.wrapping_add((more as u8 / 4) << 4);
    let kind = if is_v6 { KIND_V6 } else { KIND_V4 };
    let head = [kind, more as u8, port[0], port[1]];
    let sum = Sum::default()
        .change_word(u16::from_ne_bytes([offset, flags]), u16::from_ne_bytes([tcp.offset, flags]))
        .change_word(
            Be16::from_host(segment).raw(),
            Be16::from_host(segment.wrapping_add(more as u16)).raw(),
        )
        .double(u32::from_ne_bytes(head))
        .address(&client);
    tcp.checksum = update(u16::from_ne_bytes(tcp.checksum), sum).to_ne_bytes();

    *frame.view_mut::<[u8; 4]>(begin)? = head;
    let [a, b, c, d] = client.words.map(|word| word.raw().to_ne_bytes());
    if is_v6 {
        let words = [a, b, c, d];
        let mut word = 0;
        while word < 4 {
            *frame.view_mut::<[u8; 4]>(begin + 4 + 4 * word)? = words[word];
            word += 1;
        }
    } else {
        *frame.view_mut::<[u8; 4]>(begin + 4)? = d;
    }
    Some(())
}

#[cfg(test)]
mod tests;
