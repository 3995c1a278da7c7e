//! SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012) of whole 64-bit words: nobody without the
//! key can say what the hash of one message is, however many others he has seen.

/// The hash of words, as of their bytes in little-endian order.
#[inline(always)]
pub const fn siphash<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut index = 0;
    while index < N {
        state = compress(state, words[index]);
        index += 1;
    }
    state = compress(state, ((N as u64 * 8) & 0xff) << 56);
    state[2] ^= 0xff;
    state = round(round(round(round(state))));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
const fn compress(mut state: [u64; 4], word: u64) -> [u64; 4] {
    state[3] ^= word;
    state = round(round(state));
    state[0] ^= word;
    state
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the paper's vectors.
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn the_vectors_of_the_authors() {
        assert_eq!(siphash(KEY, []), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(KEY, [KEY[0]]), 0x93f5_f579_9a93_2462);
        assert_eq!(siphash(KEY, KEY), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    #[expect(
        deprecated,
        reason = "the standard library's SipHash-2-4, whose default is another one"
    )]
    fn as_the_standard_library() {
        use std::hash::{Hasher as _, SipHasher};
        for seed in 0..50u64 {
            let key = [seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), !seed];
            let words = [seed, seed << 40, u64::MAX - seed, 7, key[0]];
            let mut standard = SipHasher::new_with_keys(key[0], key[1]);
            words.iter().for_each(|word| standard.write(&word.to_le_bytes()));
            assert_eq!(siphash(key, words), standard.finish());
        }
    }
}
