//! Numbers and ranges that packets may still be looking at: what is given back can be taken again only once a grace
//! period has passed, so that no packet meets another meaning under a number it has just read.

/// Hands out the numbers `1..limit`, lowest first.
#[derive(Debug, Default)]
pub struct Numbers {
    limit: u32,
    used: Vec<bool>,
    /// No number below it is free.
    lowest: usize,
}

impl Numbers {
    /// Numbers `1..limit`.
    pub fn new(limit: u32) -> Self {
        Self { limit, used: vec![true], lowest: 1 }
    }

    /// Marks a number found in a map as used.
    pub fn adopt(&mut self, number: u32) {
        if self.used.len() <= number as usize {
            self.used.resize(number as usize + 1, false);
        }
        self.used[number as usize] = true;
    }

    /// A free number, or `None` if all are used.
    pub fn take(&mut self) -> Option<u32> {
        let start = self.lowest.min(self.used.len());
        let free = self.used[start..].iter().position(|used| !used);
        let free = free.map_or(self.used.len(), |further| start + further) as u32;
        self.lowest = free as usize;
        if free >= self.limit {
            return None;
        }
        self.adopt(free);
        Some(free)
    }

    /// Gives a number back.
    pub fn free(&mut self, number: u32) {
        if number != 0
            && let Some(used) = self.used.get_mut(number as usize)
        {
            *used = false;
            self.lowest = self.lowest.min(number as usize);
        }
    }

    /// How many can still be taken.
    pub fn left(&self) -> u32 {
        let taken = self.used.iter().filter(|used| **used).count() as u32;
        self.limit.saturating_sub(taken)
    }
}

/// A range of the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First slot.
    pub offset: u32,
    /// Number of slots.
    pub slots: u32,
}

impl Span {
    const fn end(self) -> u64 {
        self.offset as u64 + self.slots as u64
    }
}

/// Hands out ranges of the arena, first fit.
#[derive(Debug, Default)]
pub struct Spans {
    length: u32,
    used: Vec<Span>,
}

impl Spans {
    /// An arena of `length` slots.
    pub fn new(length: u32) -> Self {
        Self { length, used: Vec::new() }
    }

    /// Marks a range found in a map as used.
    pub fn adopt(&mut self, span: Span) {
        self.used.push(span);
        self.used.sort_by_key(|span| span.offset);
    }

    /// A free range of `slots`, or `None` if no gap is long enough.
    pub fn take(&mut self, slots: u32) -> Option<Span> {
        let mut start = 0u64;
        for span in &self.used {
            if span.offset as u64 >= start + slots as u64 {
                break;
            }
            start = start.max(span.end());
        }
        if start + slots as u64 > self.length as u64 {
            return None;
        }
        let span = Span { offset: start as u32, slots };
        self.adopt(span);
        Some(span)
    }

    /// Gives a range back.
    pub fn free(&mut self, span: Span) {
        self.used.retain(|used| *used != span);
    }

    /// Slots in no range.
    pub fn left(&self) -> u32 {
        self.length - self.used.iter().map(|span| span.slots).sum::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_skip_what_is_adopted_and_end_at_the_limit() {
        let mut numbers = Numbers::new(5);
        numbers.adopt(2);
        assert_eq!(numbers.left(), 3);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [Some(1), Some(3), Some(4)]);
        assert_eq!(numbers.take(), None);
        numbers.free(3);
        numbers.free(0);
        assert_eq!(numbers.take(), Some(3));
    }

    #[test]
    fn spans_never_overlap() {
        let mut spans = Spans::new(100);
        spans.adopt(Span { offset: 10, slots: 20 });
        assert_eq!(spans.take(10), Some(Span { offset: 0, slots: 10 }));
        assert_eq!(spans.take(11), Some(Span { offset: 30, slots: 11 }));
        assert_eq!(spans.take(60), None);
        assert_eq!(spans.take(59), Some(Span { offset: 41, slots: 59 }));
        assert_eq!(spans.left(), 0);
        spans.free(Span { offset: 10, slots: 20 });
        assert_eq!(spans.take(20), Some(Span { offset: 10, slots: 20 }));
    }
}
