//! Numbers in network order, and the Internet checksum (RFC 1071) over whole ranges of bytes.

use std::net::IpAddr;

/// A MAC address.
pub type Mac = [u8; 6];

/// Two bytes as a number.
pub fn number16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Replaces two bytes by a number.
pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Four bytes as a number.
pub fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The one's-complement sum of ranges of bytes, each of which begins a new 16-bit word.
pub fn sum(ranges: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for range in ranges {
        let mut pairs = range.chunks_exact(2);
        for pair in &mut pairs {
            sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        if let [last] = pairs.remainder() {
            sum += u64::from(*last) << 8;
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of ranges in which the checksum's own field is zero.
pub fn checksum(ranges: &[&[u8]]) -> u16 {
    !sum(ranges)
}

/// The pseudo header of an upper layer's `length` bytes (RFC 9293 3.1, RFC 8200 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = [octets(source), octets(destination)].concat();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// What stands in a checksum field after a change of what it covers. `before` and `after` are the sums of everything covered, the
/// field itself included in the one and zero in the other. A sum that was right is right again; one that was wrong is
/// wrong by as much (R6). Of the two zeros of the one's complement, the field holds the positive one.
pub fn carried_over(before: u16, after: u16) -> u16 {
    let modulus = 0xffff;
    let (before, after) = (u32::from(before) % modulus, u32::from(after) % modulus);
    ((before + modulus - after) % modulus) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), 0xddf2);
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), 0x220d);
    }

    #[test]
    fn a_right_sum_becomes_right_and_a_wrong_one_stays_as_wrong() {
        let after = sum(&[&[0x12, 0x34, 0x56, 0x78]]);
        assert_eq!(carried_over(0xffff, after), !after);
        assert_eq!(carried_over(0, after), !after);
        assert_eq!(carried_over(1, after), !after + 1);
    }
}
