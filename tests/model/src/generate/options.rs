//! Options of TCP headers.

use super::kinds::World;

impl World<'_> {
    /// As stacks send them; of services that read them, all kinds of others, too. A multiple of four bytes.
    pub(super) fn options(&mut self) -> Vec<u8> {
        let reads = self.in_hand.is_some_and(|service| service.tells || service.mss.is_some());
        if !reads || self.random.one_in(4) {
            return match self.random.one_in(2) {
                true => Vec::new(),
                false => vec![2, 4, 5, 0xb4, 1, 3, 3, 7],
            };
        }
        let mut options = Vec::new();
        for _ in 0..=self.random.index(5) {
            self.option(&mut options);
        }
        if self.random.one_in(8) {
            options.resize(40, 1);
        }
        // The end of the list, or no operation: up to a whole word.
        let padding = self.random.below(2) as u8;
        options.resize(options.len().min(40).next_multiple_of(4), padding);
        options
    }

    fn option(&mut self, options: &mut Vec<u8>) {
        let [high, low] = self.random.pick(&[0u16, 536, 545, 1_360, 1_460, 65_535]).to_be_bytes();
        match self.random.below(12) {
            0..=3 => options.extend([2, 4, high, low]),
            4..=5 => options.resize(options.len() + 1 + self.random.index(4), 1),
            6 => options.extend([254, 8, 1, 2, 10, 0, 0, 1]),
            7 => options.extend([&[253, 20][..], &[7; 18]].concat()),
            8 => options.extend([3, 3, 7]),
            9 => options.extend([self.random.pick(&[2, 253, 254, 8]), self.random.below(12) as u8]),
            10 => options.extend([8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
            _ => options.push(self.random.pick(&[0, 2, 253, 254])),
        }
    }
}
