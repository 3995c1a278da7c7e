//! Which backend a new flow gets where that depends on turns or on loads. Pure: the program brings the numbers.

use crate::hash::slot_of;

/// Backends that an algorithm may have whose choice reads the load of each: `leastconn`, `wlc`, and a bounded load's last resort.
pub const MEMBERS: u32 = 256;

/// Slots of the ring that a bounded load walks over before it takes the least loaded backend.
pub const STEPS: u32 = 16;

/// A backend that might be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number; 0 = nobody.
    pub id: u32,
    /// Its open connections.
    pub connections: u64,
    /// Its weight; 0 = it takes no new flows.
    pub weight: u64,
}

impl Candidate {
    /// Nobody: everybody with a weight is better.
    pub const NOBODY: Self = Self { id: 0, connections: 0, weight: 0 };

    /// Whether it is to be preferred, strictly: the one that has fewer connections for its weight once it gets this one (IPVS's and
    /// HAProxy's rule, which spares a backend without any no weight's worth of them).
    #[inline(always)]
    pub const fn is_better_than(&self, other: &Self) -> bool {
        self.has_less_than(other, 1)
    }

    /// Whether it has fewer connections for its weight, strictly. By this rule, the least of all has room
    /// ([`Self::has_room`]) whatever the factor; by that of [`Self::is_better_than`] it may have none.
    #[inline(always)]
    pub const fn is_emptier_than(&self, other: &Self) -> bool {
        self.has_less_than(other, 0)
    }

    #[inline(always)]
    const fn has_less_than(&self, other: &Self, coming: u64) -> bool {
        if self.id == 0 || self.weight == 0 {
            return false;
        }
        if other.id == 0 || other.weight == 0 {
            return true;
        }
        let (mine, others) =
            (self.connections.wrapping_add(coming), other.connections.wrapping_add(coming));
        mine.wrapping_mul(other.weight) < others.wrapping_mul(self.weight)
    }

    /// Whether one connection more leaves it within `factor` percent of its share of all connections, this one included:
    /// `ceil(factor / 100 * (all + 1) * weight / total_weight)` is as many as it may have.
    #[inline(always)]
    pub const fn has_room(&self, factor: u32, all: u64, total_weight: u32) -> bool {
        if self.id == 0 || self.weight == 0 {
            return false;
        }
        // The number that it has now is below the bound, rounded up, if it is below the exact one.
        let held = self.connections.wrapping_mul(100).wrapping_mul(total_weight as u64);
        let bound = (factor as u64).wrapping_mul(all.wrapping_add(1)).wrapping_mul(self.weight);
        held < bound
    }
}

/// Two places of a schedule of `length` entries for the draw of random2. `turn` makes draws differ, and `hash`, which is keyed,
/// makes them unpredictable.
#[inline(always)]
pub const fn draw(turn: u64, hash: u32, length: u32) -> (u32, u32) {
    let mut state = turn.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(hash as u64);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^= state >> 31;
    (slot_of(state as u32, length), slot_of((state >> 32) as u32, length))
}

#[cfg(test)]
mod tests;
