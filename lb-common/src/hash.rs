//! The flow hash: keyed, so that nobody without the cluster's seed can aim flows at one backend.
//!
//! Multilinear hashing (Lemire and Kaser, "Strongly universal string hashing is fast", 2014): the sum of each 32-bit
//! word times a secret 64-bit key, whose upper half is strongly universal; then one multiply-xorshift round, which
//! breaks up the arithmetic progressions that consecutive ports would otherwise make.

use crate::abi::{Address, FlowKey, Prefixes};

/// Number of 64-bit keys: one added, one for each word of two addresses, one for the ports, one for the protocol.
pub const KEYS: usize = 11;

/// Secret keys of the hash, from [`expand_seed`].
pub type HashKeys = [u64; KEYS];

/// Hash of a flow (client address, VIP, ports, protocol); IPv4 takes three multiplications, IPv6 ten.
#[inline(always)]
pub fn flow_hash(keys: &HashKeys, flow: &FlowKey) -> u32 {
    finish(sum(keys, flow))
}

/// Hash of a client alone, for services that keep each client at one backend: as much of its address as `prefix` says.
#[inline(always)]
pub fn source_hash(keys: &HashKeys, source: &Address, prefix: Prefixes) -> u32 {
    let [a, b, c, d] = prefix.masked(source).words.map(|word| word.raw() as u64);
    let mut sum = keys[2].wrapping_mul(d);
    if !source.is_v4() {
        let high = keys[4].wrapping_mul(a).wrapping_add(keys[5].wrapping_mul(b));
        sum = sum.wrapping_add(high).wrapping_add(keys[6].wrapping_mul(c));
    }
    finish(keys[0].wrapping_add(sum) ^ keys[10])
}

/// By which of the two hashes a service finds its slots: by the client's prefix, if there is one, or by the flow.
#[inline(always)]
pub fn ring_hash(keys: &HashKeys, flow: &FlowKey, by_source: Option<Prefixes>) -> u32 {
    match by_source {
        Some(prefix) => source_hash(keys, &flow.source, prefix),
        None => flow_hash(keys, flow),
    }
}

#[inline(always)]
fn sum(keys: &HashKeys, flow: &FlowKey) -> u64 {
    let ports = (flow.source_port.raw() as u32) | ((flow.destination_port.raw() as u32) << 16);
    let mut sum = keys[0]
        .wrapping_add(keys[1].wrapping_mul(ports as u64))
        .wrapping_add(keys[2].wrapping_mul(flow.source.words[3].raw() as u64))
        .wrapping_add(keys[3].wrapping_mul(flow.destination.words[3].raw() as u64))
        .wrapping_add(flow.protocol as u64);
    if !flow.source.is_v4() {
        sum = sum
            .wrapping_add(prefix(&keys[4..7], &flow.source))
            .wrapping_add(prefix(&keys[7..10], &flow.destination));
    }
    sum ^ keys[10]
}

#[inline(always)]
fn prefix(keys: &[u64], address: &Address) -> u64 {
    keys[0]
        .wrapping_mul(address.words[0].raw() as u64)
        .wrapping_add(keys[1].wrapping_mul(address.words[1].raw() as u64))
        .wrapping_add(keys[2].wrapping_mul(address.words[2].raw() as u64))
}

#[inline(always)]
fn finish(sum: u64) -> u32 {
    let mixed = (sum ^ (sum >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

/// The slot of a hash in a ring of `slots` entries, without a division: `hash * slots / 2^32`.
#[inline(always)]
pub const fn slot_of(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}

/// Expands the cluster's 32-byte seed into the hash keys (SplitMix64 over the seed's words; odd, so that no key is 0).
pub fn expand_seed(seed: &[u8; 32]) -> HashKeys {
    let mut keys = [0u64; KEYS];
    for (index, key) in keys.iter_mut().enumerate() {
        let mut state = (index as u64).wrapping_mul(0xD134_2543_DE82_EF95);
        for word in 0..4 {
            let mut bytes = [0u8; 8];
            bytes.copy_from_slice(&seed[word * 8..word * 8 + 8]);
            state = split_mix(state ^ u64::from_le_bytes(bytes));
        }
        *key = state | 1;
    }
    keys
}

pub(crate) fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
