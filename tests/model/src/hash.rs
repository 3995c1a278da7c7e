//! The hash by which a flow finds its slot: multilinear (Lemire and Kaser, "Strongly universal string hashing is fast",
//! 2014) over 32-bit words as they stand in memory of a little-endian machine, then one multiply-xorshift round.
//!
//! Key 0 is added; 1 is for the ports, 2 and 3 for the last words of source and destination, 4 to 6 and 7 to 9 for the
//! others of IPv6 addresses, 10 is mixed in; the protocol is added as it is.

use std::net::IpAddr;

use crate::{address::network, bytes::octets, transport::Flow};

/// The hash of a flow.
pub fn of_flow(keys: &[u64; 11], flow: &Flow) -> u32 {
    let [a, b] = flow.source_port.to_be_bytes();
    let [c, d] = flow.destination_port.to_be_bytes();
    let (source, destination) = (words(flow.source), words(flow.destination));
    let mut sum = keys[0]
        .wrapping_add(times(keys[1], u32::from_le_bytes([a, b, c, d])))
        .wrapping_add(times(keys[2], source[source.len() - 1]))
        .wrapping_add(times(keys[3], destination[destination.len() - 1]))
        .wrapping_add(u64::from(flow.protocol));
    for index in 0..source.len() - 1 {
        sum = sum.wrapping_add(times(keys[4 + index], source[index]));
        sum = sum.wrapping_add(times(keys[7 + index], destination[index]));
    }
    mixed(sum ^ keys[10])
}

/// The hash of the first bits of a client's address.
pub fn of_client(keys: &[u64; 11], client: IpAddr, lengths: (u32, u32)) -> u32 {
    let words = words(network(client, lengths));
    let mut sum = keys[0].wrapping_add(times(keys[2], words[words.len() - 1]));
    for index in 0..words.len() - 1 {
        sum = sum.wrapping_add(times(keys[4 + index], words[index]));
    }
    mixed(sum ^ keys[10])
}

fn times(key: u64, word: u32) -> u64 {
    key.wrapping_mul(u64::from(word))
}

fn mixed(sum: u64) -> u32 {
    ((sum ^ (sum >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

fn words(address: IpAddr) -> Vec<u32> {
    let words = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    octets(address).chunks_exact(4).map(words).collect()
}
