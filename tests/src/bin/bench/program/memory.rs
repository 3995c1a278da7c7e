//! What it takes to read memory that is in no cache of the core: each place tells the next one, so that no access can begin before the
//! one before it has ended.

use std::{hint::black_box, time::Instant};

use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Words of a line.
const WORDS: usize = LINE / size_of::<usize>();
const ACCESSES: u32 = 1 << 20;

/// Lines in random order, in a ring.
pub struct Memory(Vec<usize>);

impl Memory {
    /// So many bytes.
    pub fn of(bytes: usize) -> Self {
        let lines = bytes / LINE;
        let mut order: Vec<usize> = (0..lines).collect();
        order.shuffle(&mut StdRng::seed_from_u64(1));
        let mut words = vec![0; lines * WORDS];
        for (place, line) in order.iter().enumerate() {
            words[line * WORDS] = order[(place + 1) % lines] * WORDS;
        }
        Self(words)
    }

    /// Nanoseconds of one access.
    pub fn access(&self) -> f64 {
        let mut place = 0;
        let began = Instant::now();
        for _ in 0..ACCESSES {
            place = self.0[place];
        }
        let time = began.elapsed();
        black_box(place);
        time.as_nanos() as f64 / f64::from(ACCESSES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_before_any_is_read_again() {
        let memory = Memory::of(1 << 12);
        let (mut place, mut lines) = (0, std::collections::BTreeSet::new());
        while lines.insert(place) {
            place = memory.0[place];
        }
        assert_eq!((place, lines.len()), (0, (1 << 12) / LINE));
    }
}
