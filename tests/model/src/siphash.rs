//! SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).

/// The hash of bytes.
pub fn of(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut state = State {
        v0: key[0] ^ u64::from_be_bytes(*b"somepseu"),
        v1: key[1] ^ u64::from_be_bytes(*b"dorandom"),
        v2: key[0] ^ u64::from_be_bytes(*b"lygenera"),
        v3: key[1] ^ u64::from_be_bytes(*b"tedbytes"),
    };
    let words = bytes.chunks_exact(8);
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    last[7] = bytes.len() as u8;
    for word in words {
        state.take(u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    state.take(u64::from_le_bytes(last));
    state.v2 ^= 0xff;
    (0..4).for_each(|_| state.round());
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn take(&mut self, word: u64) {
        self.v3 ^= word;
        (0..2).for_each(|_| self.round());
        self.v0 ^= word;
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    /// Appendix A of the paper: key 00 01 .. 0f, message 00 01 .. 0e.
    #[test]
    fn the_example_of_the_paper() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(super::of(key, &bytes), 0xa129_ca61_49be_45e5);
    }
}
