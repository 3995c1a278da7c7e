//! What is remembered of packets in fragments: where the first one went, and what has come since. Global functions of plain numbers,
//! which the verifier looks at once; key and row stand beside the stack.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated};
use lb_common::{
    abi::{BackendId, Forward, FragmentEntry, FragmentKey, FragmentRow, Reason},
    fragment::{
        Fragment,
        covered::{self, Covered, Fit},
    },
};

use crate::{
    maps::{self, FRAGMENT_IN_HAND, FRAGMENTS},
    verdict::Verdict,
};

/// How long a first fragment is remembered, nanoseconds: receivers wait 30 s and more for the rest (RFC 1122 3.3.2), but
/// identifications come again much earlier, and the rest of a packet is there within milliseconds.
const LIFETIME: u64 = 15_000_000_000;
/// How long the rest of a packet is waited for before another first fragment of the same identification begins a new one,
/// nanoseconds. Senders write an identification again after 65,536 packets to the same address.
const MOMENT: u64 = 2_000_000_000;

/// The fragment that a CPU has in hand.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct InHand {
    key: FragmentKey,
    entry: FragmentEntry,
}

impl InHand {
    /// What its fragments have in common.
    #[inline(always)]
    pub fn key(&self) -> &FragmentKey {
        &self.key
    }

    /// Where they go.
    #[inline(always)]
    pub fn row(&self) -> &FragmentRow {
        &self.entry.row
    }

    /// Takes it in hand.
    #[inline(always)]
    pub fn put_key(&mut self, fragment: &Fragment) {
        self.key = fragment.key;
    }

    /// Says where they go.
    #[inline(always)]
    pub fn put_row(&mut self, backend: BackendId, service: u32, forward: u8) {
        self.entry.row = row(backend, service, forward);
    }
}

/// A row without a port of full nat.
#[inline(always)]
pub fn row(backend: BackendId, service: u32, forward: u8) -> FragmentRow {
    FragmentRow { backend, service, forward: forward as u16, generation: 0, slot: 0, seen: 0 }
}

/// This CPU's.
#[inline(always)]
pub fn in_hand() -> Option<*mut InHand> {
    FRAGMENT_IN_HAND.get_ptr_mut(0)
}

/// Remembers a first fragment as of now.
#[inline(always)]
pub fn remember(fragment: &Fragment, row: FragmentRow) -> Result<(), Verdict> {
    if !fragment.more {
        return Ok(());
    }
    let drop = |reason| Verdict::drop(reason, row.service);
    let hand = in_hand().ok_or(drop(Reason::FragmentDropped))?;
    // SAFETY: the entry is this CPU's own, XDP programs do not preempt one another on a CPU, and nothing refers to it for longer than a
    // statement.
    unsafe { ((*hand).key, (*hand).entry.row) = (fragment.key, row) };
    match remember_fragment(covered::run(fragment)) {
        FOUND => Ok(()),
        reason => Err(Verdict::drop_as(reason as u8, row.service)),
    }
}

/// Where the packet of a later fragment went, if its backend is still that of the same service. What the fragment brings is noted, but for
/// full nat's only in its own program, which comes after.
#[inline(always)]
pub fn recall(
    fragment: &Fragment,
    is_fullnat: bool,
) -> Result<Option<&'static FragmentRow>, Verdict> {
    let Some(hand) = in_hand() else { return Ok(None) };
    // SAFETY: as in `remember`.
    unsafe { (*hand).key = fragment.key };
    let (run, is_last) = (covered::run(fragment), !fragment.more as u32);
    found(hand, recall_fragment(run, is_last, is_fullnat as u32))
}

/// What has been found for what is in hand: the row in it, nothing, or a reason to drop the fragment.
#[inline(always)]
pub(super) fn found(hand: *mut InHand, code: u32) -> Result<Option<&'static FragmentRow>, Verdict> {
    if code == NOTHING {
        return Ok(None);
    }
    // SAFETY: as in `remember`; a packet recalls no other, and remembers nothing afterwards.
    let row = unsafe { &(*hand).entry.row };
    match code {
        FOUND => Ok(Some(row)),
        reason => Err(Verdict::drop_as(reason as u8, row.service)),
    }
}

/// No number of a reason: all is well.
pub const FOUND: u32 = 0x100;
/// No number of a reason: nothing is known.
pub const NOTHING: u32 = 0x101;

/// Stores what is in hand; [`FOUND`], or why the fragment is dropped.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn remember_fragment(run: u32) -> u32 {
    let Some(hand) = in_hand() else { return Reason::FragmentDropped as u32 };
    // SAFETY: as in `remember`; the reference ends with this function.
    let hand = unsafe { &mut *hand };
    let (key, entry) = (&hand.key, &mut hand.entry);
    entry.row.seen = now();
    if let Some(earlier) = FRAGMENTS.get_ptr(key) {
        // SAFETY: the pointer is to a map's value. Should it be reused in between, it is another packet's of a full table.
        let earlier = unsafe { &*earlier };
        if entry.row.seen.wrapping_sub(earlier.row.seen) < MOMENT && !earlier.covered.is_complete()
        {
            return Reason::FragmentOverlap as u32;
        }
    }
    entry.covered = Covered::first(run);
    match FRAGMENTS.insert(key, &*entry, BPF_ANY as u64) {
        Ok(()) => FOUND,
        Err(_) => Reason::FragmentDropped as u32,
    }
}

/// Fetches what is known of the packet in hand, and notes a fragment of it; [`FOUND`], [`NOTHING`] or why the fragment is dropped.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn recall_fragment(run: u32, is_last: u32, is_fullnat: u32) -> u32 {
    let Some(hand) = in_hand() else { return NOTHING };
    // SAFETY: as in `remember`; the reference ends with this function.
    let hand = unsafe { &mut *hand };
    let Some(entry) = FRAGMENTS.get_ptr_mut(&hand.key) else { return NOTHING };
    // SAFETY: the pointer is to a map's value, copied at once; an entry reused in between is another packet's of a full
    // table, and the receiver's checksum refuses the mixture. No copy of what might overlap: that would be a call, for which there is
    // no room on the stack before Linux 6.8.
    unsafe { (&raw mut hand.entry.row).copy_from_nonoverlapping(&raw const (*entry).row, 1) };
    let row = &hand.entry.row;
    let Some(backend) = maps::backend(row.backend) else { return NOTHING };
    if now().wrapping_sub(row.seen) >= LIFETIME || backend.service != row.service {
        return NOTHING;
    }
    if row.forward == Forward::FullNat as u16 && is_fullnat == 0 {
        return FOUND;
    }
    // SAFETY: as above. Another CPU with a fragment of the same packet may write at the same time: then of two that overlap both may go
    // on, but no run holds what neither has brought.
    match unsafe { (*entry).covered.add(run, is_last != 0) } {
        Fit::New => FOUND,
        Fit::Overlap => Reason::FragmentOverlap as u32,
        Fit::Scattered => Reason::FragmentDropped as u32,
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { generated::bpf_ktime_get_coarse_ns() }
}
