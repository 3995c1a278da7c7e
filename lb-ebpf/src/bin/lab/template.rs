//! Composes the next frame of a stream of flows.
//!
//! BPF_PROG_TEST_RUN with `repeat` gives a program its own output back. So before each round the head is moved to where
//! it was and the headers are written anew, with a client's address and port that follow from a counter. Checksums are
//! right in every frame.

use aya_ebpf::{bindings::xdp_md, macros::map, maps::Array};

use crate::{
    abi::{COPIED, FRAME, Template},
    frame,
};

#[map]
static TEMPLATE: Array<Template> = Array::with_max_entries(1, 0);

/// Keeps an offset and what is stored there within [`Template::frame`], visibly for the verifier.
const OFFSET_MASK: u32 = 0x7f;
const _: () = assert!(OFFSET_MASK as usize + size_of::<u32>() <= FRAME);

const PORT_MASK: u32 = 0x3fff;

/// Writes the next frame; the index of the program under test, or `None` if the frame is not one of ours.
#[inline(always)]
pub fn next(ctx: *mut xdp_md) -> Option<u32> {
    let template = TEMPLATE.get_ptr_mut(0)?;
    // SAFETY: an array's entry always exists, and by the rule of `Template` one run at a time uses it.
    let template = unsafe { &mut *template };
    let surplus = frame::length(ctx).wrapping_sub(template.length) as i32;
    if surplus != 0 {
        frame::move_head(ctx, surplus)?;
    }
    compose(template);
    let packet = frame::bytes::<[u64; COPIED / 8]>(ctx)?;
    // SAFETY: `bytes` has checked the bounds; the template's frame is longer than what is copied.
    unsafe {
        packet.write_unaligned(template.frame.as_ptr().cast::<[u64; COPIED / 8]>().read_unaligned())
    };
    Some(template.program)
}

#[inline(always)]
fn compose(template: &mut Template) {
    let flow = template.counter as u32 & template.mask;
    template.counter += 1;
    let word = template.word.wrapping_add(flow).to_be();
    let port = (template.port.wrapping_add(flow & PORT_MASK) as u16).to_be();
    let sum = (word & 0xffff) + (word >> 16);
    let network = checksum(template.network_sum + sum);
    let transport = checksum(template.transport_sum + sum + port as u32);
    put(template, template.word_offset, word);
    put(template, template.port_offset, port);
    put(template, template.network_checksum_offset, network);
    put(template, template.transport_checksum_offset, transport);
}

/// Folds and complements a sum of at most 2^16 words (RFC 1071); never 0, which UDP reserves (RFC 768) and which means
/// the same as 0xffff to everybody else.
#[inline(always)]
fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    match !(folded as u16) {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[inline(always)]
fn put<T>(template: &mut Template, offset: u32, value: T) {
    let at = template.frame.as_mut_ptr().wrapping_add((offset & OFFSET_MASK) as usize);
    // SAFETY: the mask and the size of T (at most four) keep the store within the frame.
    unsafe { at.cast::<T>().write_unaligned(value) };
}
