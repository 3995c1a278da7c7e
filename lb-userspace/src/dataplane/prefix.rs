//! Prefixes as the tries have them: of v4-mapped addresses (an IPv4 prefix of length n has length 96 + n).

use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::abi::Address;

/// Length of a prefix in the v4-mapped form.
pub(super) fn mapped_length(prefix: &IpNet) -> u32 {
    u32::from(prefix.prefix_len()) + if prefix.addr().is_ipv4() { 96 } else { 0 }
}

/// The prefix of a key; `None` if no prefix of ours has this key.
pub(super) fn prefix_of(address: Address, length: u32) -> Option<IpNet> {
    let address: IpAddr = address.into();
    let length = if address.is_ipv4() { length.checked_sub(96)? } else { length };
    IpNet::new(address, u8::try_from(length).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_survive_the_map() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "::/0", "2001:db8::/32", "::1/128"]
        {
            let prefix: IpNet = text.parse().unwrap();
            let found = prefix_of(prefix.network().into(), mapped_length(&prefix));
            assert_eq!(found, Some(prefix), "{text}");
        }
    }
}
