//! Which parts of a packet's data its fragments have brought so far. Fragments that overlap are an attack on whoever looks at less
//! than all of them: RFC 5722 forbids them in IPv6, and no stack sends any in IPv4 (RFC 1858 3.1, RFC 8900 3.6).

use core::hint::black_box;

use super::Fragment;

/// Runs of data with gaps between them that one packet may have at a time: fragments come in order, but for those that took
/// another way.
pub const RUNS: usize = 5;

/// What is there of a packet's data. In units of 8 bytes, of which there are at most 8,192.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Runs without a gap, in no order: the first unit in the upper half, the one behind the last in the lower. 0 = none.
    runs: [u32; RUNS],
    /// How many units the whole packet has; 0 = its last fragment is not there yet.
    whole: u32,
}

const _: () = assert!(size_of::<Covered>() == 24);

/// What a fragment is, beside those that were there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It brings what nobody has brought.
    New,
    /// Some of what it brings is there.
    Overlap,
    /// There would be more than [`RUNS`] runs.
    Scattered,
}

/// The units that a fragment brings, as a run.
#[inline(always)]
pub const fn run(fragment: &Fragment) -> u32 {
    let start = (fragment.offset >> 3) as u32;
    let units = (fragment.data() as u32 + 7) >> 3;
    start << 16 | (start + units)
}

impl Covered {
    /// What the first fragment brings.
    #[inline(always)]
    pub const fn first(run: u32) -> Self {
        let mut runs = [0; RUNS];
        runs[0] = run;
        Self { runs, whole: 0 }
    }

    /// Whether all of the packet is there.
    #[inline(always)]
    pub fn is_complete(&self) -> bool {
        // The run from 0 to the end.
        self.whole != 0 && self.runs.contains(&self.whole)
    }

    /// Adds a fragment that is not the first: what it brings, and whether none comes behind it.
    #[inline(always)]
    pub fn add(&mut self, run: u32, is_last: bool) -> Fit {
        let (start, end) = (run >> 16, run & 0xffff);
        // Without branches, of each of which the verifier would follow both ways; one look at each run, so that few are kept
        // at a time (and a loop that stays one): there is little room on the stack. In these sets of places each bit is one.
        let (mut overlaps, mut before, mut behind, mut free) = (0, 0, 0, 0);
        let (mut joined_start, mut joined_end) = (start, end);
        for (place, other) in self.runs.iter().enumerate().take(black_box(RUNS)) {
            let (its_start, its_end) = (*other >> 16, *other & 0xffff);
            overlaps |= is_below(start, its_end) & is_below(its_start, end);
            let (is_before, is_behind) = (is_equal(its_end, start), is_equal(its_start, end));
            joined_start = select(is_before, its_start, joined_start);
            joined_end = select(is_behind, its_end, joined_end);
            before |= is_before << place;
            behind |= is_behind << place;
            free |= is_equal(*other, 0) << place;
        }
        if overlaps != 0 {
            return Fit::Overlap;
        }
        let any = if before | behind != 0 { before | behind } else { free };
        let to = any & any.wrapping_neg();
        if to == 0 {
            return Fit::Scattered;
        }
        let joined = joined_start << 16 | joined_end;
        for (place, other) in self.runs.iter_mut().enumerate() {
            let kept = select((before | behind) >> place & 1, 0, *other);
            *other = select(to >> place & 1, joined, kept);
        }
        if is_last {
            self.whole = run & 0xffff;
        }
        Fit::New
    }
}

/// 1 if they are equal, else 0.
#[inline(always)]
const fn is_equal(a: u32, b: u32) -> u32 {
    (((a ^ b) as u64).wrapping_sub(1) >> 63) as u32
}

/// The one if `condition` is 1, the other if it is 0.
#[inline(always)]
const fn select(condition: u32, one: u32, other: u32) -> u32 {
    let mask = condition.wrapping_neg();
    (one & mask) | (other & !mask)
}

/// 1 if `a` is less than `b`, else 0; both are far below 2^31.
#[inline(always)]
const fn is_below(a: u32, b: u32) -> u32 {
    a.wrapping_sub(b) >> 31
}

#[cfg(test)]
mod tests;
