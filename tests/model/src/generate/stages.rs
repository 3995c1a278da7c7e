//! SYNs and resets for services with a SYN-flood stage: proofs that are right, of the time before, or nearly right, and SYNs that would take the
//! challenge for an answer.

use std::net::IpAddr;

use super::kinds::World;

const SYN: u8 = 2;
const RST: u8 = 4;

/// Flags, sequence and acknowledgement number of a segment.
type Numbers = (u8, (u32, u32));

impl World<'_> {
    /// What a segment to a stage says, now and then, with so many bytes of data.
    pub(super) fn for_a_stage(
        &mut self,
        (source, vip): (IpAddr, IpAddr),
        payload: usize,
    ) -> Option<Numbers> {
        let service = self.in_hand?;
        let has_stage = service.openings.stage.is_some();
        if !has_stage || vip != service.vip || !self.random.one_in(3) {
            return None;
        }
        let cookies = self.cookies;
        let now = cookies.of(source, vip);
        Some(match self.random.below(6) {
            0..=1 => (RST, (now, 0)),
            2 => (RST, (cookies.former(source, vip), 0)),
            3 => (RST, (now ^ 1 << self.random.below(32), 0)),
            // Around the first and the last number that would be acknowledged.
            4 => (SYN, (now.wrapping_sub(self.random.below(3) as u32), 0)),
            _ => {
                let last = (payload as u32).wrapping_add(self.random.below(3) as u32);
                (SYN, (now.wrapping_sub(last), 0))
            }
        })
    }
}
