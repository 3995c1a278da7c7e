//! Composes the next frame of a stream of flows.
//!
//! BPF_PROG_TEST_RUN with `repeat` gives a program its own output back. So before each round the head is moved to where
//! it was and the headers are written anew, with a client's address and port that follow from a counter. Checksums are
//! right in every frame.
//!
//! All this is the floor that programs are compared with, so it is kept short, and it must not overlap with what is
//! measured: it composes in registers and ends with an atomic addition, which waits until the packet is in the cache,
//! where a NIC would have put it.

use core::arch::asm;

use aya_ebpf::{bindings::xdp_md, macros::map, maps::Array};

use crate::{
    abi::{self, QUOTING_WORDS, Template, WORDS, layout},
    frame,
};

#[map]
static TEMPLATE: Array<Template> = Array::with_max_entries(2, 0);

#[map]
static DRAWN: Array<u32> = Array::with_max_entries(abi::DRAWN, 0);

const PORT_BITS: u32 = 14;
const PORT_MASK: u32 = (1 << PORT_BITS) - 1;
/// The offset of what a packet does not have.
const NOWHERE: usize = QUOTING_WORDS * 8;

/// Writes the next frame; the index of the program under test, or `None` if the frame is too short.
#[inline(always)]
pub fn next(ctx: *mut xdp_md) -> Option<u32> {
    let template = TEMPLATE.get_ptr_mut(0)?;
    // SAFETY: an array's entry always exists, and by the rule of `Template` one run at a time uses it.
    let (fields, counter) = unsafe { (&*template, &raw mut (*template).counter) };
    // An odd factor: floods come in between, not in a row.
    let is_flood = (fields.counter.wrapping_mul(167) as u32 & 0xff) < fields.flooded;
    let is_second = fields.counter as u32 & fields.paired != 0;
    let content = if is_flood | is_second { TEMPLATE.get(1)? } else { fields };
    let flow = flow(content, (fields.counter >> fields.paired) as u32);
    // Also where nothing moves, so that the floor pays for it like a program that moves the head.
    frame::move_head(ctx, fields.moved as i32)?;
    let packet = match frame::bytes::<[u64; WORDS]>(ctx) {
        Some(packet) => packet,
        // An answer may be shorter than what it answers.
        None => {
            frame::lengthen(ctx, WORDS * 8)?;
            frame::bytes::<[u64; WORDS]>(ctx)?
        }
    };
    match fields.layout {
        layout::V4_TCP_SOURCE => compose::<26, 34, 24, 50, true>(content, flow, packet),
        layout::V4_TCP_DESTINATION => compose::<30, 36, 24, 50, true>(content, flow, packet),
        layout::V4_UDP_SOURCE => compose::<26, 34, 24, 40, true>(content, flow, packet),
        layout::V6_TCP_SOURCE => compose::<34, 54, NOWHERE, 70, true>(content, flow, packet),
        layout::V6_TCP_DESTINATION => compose::<50, 56, NOWHERE, 70, true>(content, flow, packet),
        layout::V6_UDP_SOURCE => compose::<34, 54, NOWHERE, 60, true>(content, flow, packet),
        layout::V6_TCP_NETWORK => compose::<26, 54, NOWHERE, 70, true>(content, flow, packet),
        // What the address adds to the message's sum, the quoted header's checksum takes away.
        layout::V4_QUOTE => compose::<58, 64, 52, 36, false>(content, flow, packet),
        layout::V6_QUOTE => {
            let packet = frame::bytes_anew::<[u64; QUOTING_WORDS]>(ctx)?;
            compose_words::<98, 104, NOWHERE, 56, true, QUOTING_WORDS>(content, flow, flow, packet);
        }
        layout::V4_TCP_POOL => {
            compose_words::<30, 36, 24, 50, true, WORDS>(content, flow >> PORT_BITS, flow, packet);
        }
        layout::V6_TCP_POOL => {
            let address = flow >> PORT_BITS;
            compose_words::<50, 56, NOWHERE, 70, true, WORDS>(content, address, flow, packet);
        }
        layout::V6_FRAGMENT_SOURCE => compose::<34, 62, NOWHERE, 68, true>(content, flow, packet),
        _ => return None,
    }
    let program = fields.program;
    // SAFETY: adds to the map's entry, which is 8-byte aligned.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64) };
    Some(program)
}

/// [`compose_words`] of as many as nearly all packets have.
#[inline(always)]
fn compose<
    const ADDRESS: usize,
    const PORT: usize,
    const NETWORK_CHECKSUM: usize,
    const TRANSPORT_CHECKSUM: usize,
    const OF_ADDRESS: bool,
>(
    template: &Template,
    flow: u32,
    packet: *mut [u64; WORDS],
) {
    compose_words::<ADDRESS, PORT, NETWORK_CHECKSUM, TRANSPORT_CHECKSUM, OF_ADDRESS, WORDS>(
        template, flow, flow, packet,
    );
}

/// Writes the packet with address, port and the two checksums at these offsets; the second checksum is of the address, too, or not.
/// `of_address` is what the flow adds to the address.
#[inline(always)]
fn compose_words<
    const ADDRESS: usize,
    const PORT: usize,
    const NETWORK_CHECKSUM: usize,
    const TRANSPORT_CHECKSUM: usize,
    const OF_ADDRESS: bool,
    const COUNT: usize,
>(
    template: &Template,
    of_address: u32,
    flow: u32,
    packet: *mut [u64; COUNT],
) {
    let address = template.address.wrapping_add(of_address).to_be();
    let port = (template.port.wrapping_add(flow & PORT_MASK) as u16).to_be();
    let sum = (address & 0xffff) + (address >> 16);
    let network = checksum(template.network_sum + sum);
    let address_sum = if OF_ADDRESS { sum } else { 0 };
    let transport = checksum(template.transport_sum + address_sum + port as u32);
    for index in 0..COUNT {
        let word = template.frame[index]
            | part(address as u64, 4, ADDRESS, index)
            | part(port as u64, 2, PORT, index)
            | part(network as u64, 2, NETWORK_CHECKSUM, index)
            | part(transport as u64, 2, TRANSPORT_CHECKSUM, index);
        // SAFETY: the caller has checked that the packet has all words.
        unsafe { packet.cast::<u64>().add(index).write_unaligned(word) };
    }
}

#[inline(always)]
fn flow(template: &Template, place: u32) -> u32 {
    match template.drawn {
        0 => {
            let flow = place & template.mask;
            if flow >= template.flows { flow - template.flows } else { flow }
        }
        _ => DRAWN.get(place & (abi::DRAWN - 1)).copied().unwrap_or(0),
    }
}

/// What of a value of `length` bytes (in memory order) at `offset` falls into the word at `index`.
#[inline(always)]
const fn part(value: u64, length: usize, offset: usize, index: usize) -> u64 {
    let (first, shift) = (offset / 8, offset % 8 * 8);
    if index == first {
        value << shift
    } else if index == first + 1 && shift + length * 8 > 64 {
        value >> (64 - shift)
    } else {
        0
    }
}

/// Folds and complements a sum (RFC 1071); never 0, which UDP reserves (RFC 768) and which means the same as 0xffff to
/// everybody else.
#[inline(always)]
fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    match !(folded as u16) {
        0 => 0xffff,
        checksum => checksum,
    }
}
