//! Limits of rate for each source of a service, in a table of fixed size.
//!
//! A source has its place to itself, so none pays for another. A source that is not in the table takes the place in its
//! bucket that has most of its burst left: a flood of sources of one packet each takes places from one another, and hardly
//! ever from those that are near their limit. Who has lost his place begins with a whole burst again; what bounds a flood of
//! many sources is the limit of the service, which is counted apart from this table, and the SYN-flood stage.

use crate::{
    abi::{Address, SourceRates},
    hash::HashKeys,
    observe::network,
};

/// Entries of `SOURCE_RATES`: places for 65,536 sources in 1 MiB.
pub const BUCKETS: u32 = 16_384;

/// What a source of a service is called: a keyed number, and never 0. Sources are IPv4 addresses and /64 networks of IPv6.
#[inline(always)]
pub const fn name(keys: &HashKeys, source: &Address, service: u32) -> u64 {
    let network = network(source);
    let sum = keys[0]
        .wrapping_add(keys[1].wrapping_mul(network & 0xffff_ffff))
        .wrapping_add(keys[2].wrapping_mul(network >> 32))
        .wrapping_add(keys[3].wrapping_mul(service as u64));
    let mixed = (sum ^ (sum >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)) | 1
}

/// The bucket of a name.
#[inline(always)]
pub const fn bucket(name: u64) -> u32 {
    (name >> 20) as u32 & (BUCKETS - 1)
}

/// Where in a bucket a source is, or where it is to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in the bucket.
    pub index: usize,
    /// It is there already.
    pub known: bool,
}

impl SourceRates {
    /// The place of a source.
    #[inline(always)]
    pub const fn place(&self, name: u64) -> Place {
        let mut idlest = 0;
        let mut index = 0;
        while index < self.sources.len() {
            if self.sources[index].name == name {
                return Place { index, known: true };
            }
            if self.sources[index].state < self.sources[idlest].state {
                idlest = index;
            }
            index += 1;
        }
        Place { index: idlest, known: false }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::IpAddr};

    use super::*;
    use crate::{hash::expand_seed, limit::Limit, sample::address};

    const LIMIT: Limit = Limit { interval: 100, burst: 10 };

    /// One connection of a source; whether it is admitted.
    fn opens(table: &mut [SourceRates], name: u64, now: u64) -> bool {
        let entry = &mut table[bucket(name) as usize % 64];
        let place = entry.place(name);
        let source = &mut entry.sources[place.index];
        if !place.known {
            *source = Default::default();
            source.name = name;
        }
        match LIMIT.admit(source.state, now) {
            Some(next) => {
                source.state = next;
                true
            }
            None => false,
        }
    }

    fn v4(number: u32) -> Address {
        IpAddr::from(number.to_be_bytes()).into()
    }

    #[test]
    fn a_flood_of_sources_blocks_nobody_and_hides_few() {
        let keys = expand_seed(&[7; 32]);
        let mut table = vec![SourceRates::default(); 64];
        let (greedy, modest) = (name(&keys, &v4(1), 1), name(&keys, &v4(2), 1));
        let (mut taken, mut refused) = (0, 0);
        for step in 0..20_000u32 {
            let now = 1_000_000 + u64::from(step) * 10;
            // Three made-up sources for each packet of the greedy one, which sends ten times its rate.
            for part in 0..3 {
                let made_up = name(&keys, &v4(0x1000_0000 + step * 3 + part), 1);
                assert!(opens(&mut table, made_up, now), "a new source is admitted");
            }
            taken += u32::from(opens(&mut table, greedy, now));
            if step % 10 == 0 {
                refused += u32::from(!opens(&mut table, modest, now));
            }
        }
        assert_eq!(refused, 0, "who keeps to the rate is never refused");
        assert!((2_000..2_100).contains(&taken), "{taken} of 20000 at a tenth of that rate");
    }

    #[test]
    fn names_differ_by_source_and_service() {
        let keys = expand_seed(&[5; 32]);
        let names: HashSet<u64> = (0..30_000).map(|number| name(&keys, &v4(number), 1)).collect();
        assert!(names.len() > 29_990, "{}", names.len());
        assert_ne!(name(&keys, &v4(1), 1), name(&keys, &v4(1), 2));
        let host = |text| name(&keys, &address(text), 1);
        assert_eq!(host("2001:db8::1"), host("2001:db8::2:1"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        let buckets: HashSet<u32> = names.iter().map(|name| bucket(*name)).collect();
        assert!(buckets.len() > BUCKETS as usize * 3 / 4, "{}", buckets.len());
    }
}
