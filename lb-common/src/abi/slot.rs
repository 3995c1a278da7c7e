//! One entry of a ring: 8 bytes, changed in place by one aligned store, so that every packet sees a whole slot.

use super::BackendId;

/// What a slot is going through; the rule itself is in [`crate::select`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The owner gets every packet; no pin is read or written.
    Settled = 0,
    /// The owner has changed: opening packets go to the owner and are pinned, unpinned flows stay with the base.
    Window = 1,
    /// As `Window`, and every unpinned flow that speaks is pinned to the base.
    Harvest = 2,
    /// The base is dropped: pinned flows follow their pin, everything else goes to the owner.
    Pinned = 3,
}

impl Phase {
    /// From the two bits of a slot.
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Settled,
            1 => Self::Window,
            2 => Self::Harvest,
            _ => Self::Pinned,
        }
    }
}

/// Longest time a phase can be timed over: [`Slot::since`] has 14 bits of seconds, half of which tell "before".
pub const MAX_PHASE_SECONDS: u64 = 8_000;

const ID_BITS: u32 = 24;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
const PHASE_SHIFT: u32 = 48;
const SINCE_SHIFT: u32 = 50;
const SINCE_MASK: u64 = (1 << 14) - 1;

/// One slot: bits 0..24 owner, 24..48 base, 48..50 phase, 50..64 the second (modulo 2^14 of CLOCK_MONOTONIC) in which
/// the phase began. Zero is "no backend".
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Slot(pub u64);

const _: () = assert!(size_of::<Slot>() == 8);

impl Slot {
    /// A slot in its normal state.
    pub const fn settled(owner: BackendId) -> Self {
        Self(owner.0 as u64 & ID_MASK)
    }

    /// A slot in any state. `since` is in seconds of CLOCK_MONOTONIC.
    pub const fn new(owner: BackendId, base: BackendId, phase: Phase, since: u64) -> Self {
        Self(
            (owner.0 as u64 & ID_MASK)
                | ((base.0 as u64 & ID_MASK) << ID_BITS)
                | ((phase as u64) << PHASE_SHIFT)
                | ((since & SINCE_MASK) << SINCE_SHIFT),
        )
    }

    /// The backend of new flows (DESIGN: `c`).
    pub const fn owner(self) -> BackendId {
        BackendId((self.0 & ID_MASK) as u32)
    }

    /// The owner before the window began; meaningful in `Window` and `Harvest`.
    pub const fn base(self) -> BackendId {
        BackendId(((self.0 >> ID_BITS) & ID_MASK) as u32)
    }

    /// The phase.
    pub const fn phase(self) -> Phase {
        Phase::from_bits(self.0 >> PHASE_SHIFT)
    }

    /// The second, modulo 2^14, in which the phase began.
    pub const fn since(self) -> u64 {
        self.0 >> SINCE_SHIFT
    }
}

/// Seconds from `since` (modulo 2^14, from a slot) to `now` (seconds of CLOCK_MONOTONIC); 0 if `since` lies ahead.
pub const fn elapsed_seconds(since: u64, now: u64) -> u64 {
    let difference = now.wrapping_sub(since) & SINCE_MASK;
    if difference >= 1 << 13 { 0 } else { difference }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:?}(owner {}, base {}, since {})",
            self.phase(),
            self.owner().0,
            self.base().0,
            self.since()
        )
    }
}
