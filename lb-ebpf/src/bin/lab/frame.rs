//! Access to the packet's bytes.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};

/// The frame's first bytes as a `T`, if it has that many. The pointer dies with the next [`move_head`].
#[inline(always)]
pub fn bytes<T>(ctx: *mut xdp_md) -> Option<*mut T> {
    // SAFETY: the kernel gives every XDP program a valid context.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    (data + size_of::<T>() <= end).then_some(data as *mut T)
}

/// As [`bytes`], where that has been asked before: with the pointers read anew, because the verifier loses sight of the longer
/// of two bounds that the compiler has derived from the same ones.
#[inline(always)]
pub fn bytes_anew<T>(ctx: *mut xdp_md) -> Option<*mut T> {
    // SAFETY: the kernel gives every XDP program a valid context.
    let (data, end) = unsafe {
        (
            (&raw const (*ctx).data).read_volatile() as usize,
            (&raw const (*ctx).data_end).read_volatile() as usize,
        )
    };
    (data + size_of::<T>() <= end).then_some(data as *mut T)
}

/// Moves the frame's start: negative values make room.
#[inline(always)]
pub fn move_head(ctx: *mut xdp_md, by: i32) -> Option<()> {
    // SAFETY: the kernel gives every XDP program a valid context; no pointer into the packet is alive.
    (unsafe { bpf_xdp_adjust_head(ctx, by) } == 0).then_some(())
}

/// Makes a shorter frame this long.
#[inline(always)]
pub fn lengthen(ctx: *mut xdp_md, length: usize) -> Option<()> {
    // SAFETY: the kernel gives every XDP program a valid context.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    let missing = (data + length).wrapping_sub(end) as i32;
    // SAFETY: as above; no pointer into the packet is alive.
    (unsafe { bpf_xdp_adjust_tail(ctx, missing) } == 0).then_some(())
}
