//! Longest-prefix matches with keys that the verifier accepts on the stack.

use aya_ebpf::maps::{LpmTrie, lpm_trie::Key};

/// Looks up a key that is given by its words, the first of which is the prefix length.
#[inline(always)]
pub fn longest_match<K, V: Copy, const N: usize>(
    map: &LpmTrie<K, V>,
    words: [u32; N],
) -> Option<V> {
    #[repr(C, align(8))]
    struct Aligned<const N: usize>([u32; N]);
    const { assert!(size_of::<Key<K>>() == N * 4) };

    let mut key = Aligned([0; N]);
    for (index, word) in words.into_iter().enumerate() {
        // Volatile, lest the compiler store two words at once where the second is not aligned to eight bytes: the
        // verifier refuses that on the stack.
        // SAFETY: `index` is within the array.
        unsafe { (&raw mut key.0[index]).write_volatile(word) };
    }
    // SAFETY: aya's key is packed and as long as the words, and any words are one.
    map.get(unsafe { &*(&raw const key).cast::<Key<K>>() }).copied()
}
