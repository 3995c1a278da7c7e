//! Which addresses cannot be a client's.

use std::net::{IpAddr, Ipv6Addr};

/// Whether no client can have this source (RFC 1812 5.3.7, RFC 6890, RFC 4291 2.5; packet cases B52 to B54, B89): the
/// destination itself, "this network", loopback, groups and reserved space; of IPv6 ::, ::1, groups, mapped addresses,
/// and link-local ones unless the destination is one, too.
pub fn is_martian(source: IpAddr, destination: IpAddr) -> bool {
    if source == destination {
        return true;
    }
    match source {
        IpAddr::V4(source) => matches!(source.octets()[0], 0 | 127 | 224..=255),
        IpAddr::V6(source) => {
            let to_link_local = matches!(destination, IpAddr::V6(v6) if is_link_local(v6));
            source.is_unspecified()
                || source.is_loopback()
                || source.is_multicast()
                || source.to_ipv4_mapped().is_some()
                || (is_link_local(source) && !to_link_local)
        }
    }
}

/// Whether an IPv6 address is an IPv4 address in disguise (::ffff:0:0/96): never seen on a wire, and never to be taken for
/// the IPv4 address.
pub fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// Whether the address is in a prefix of the same family.
pub fn is_within(address: IpAddr, (prefix, length): (IpAddr, u32)) -> bool {
    let lengths = (length, length);
    address.is_ipv4() == prefix.is_ipv4() && network(address, lengths) == network(prefix, lengths)
}

/// The first bits of an address: so many of IPv4, and so many of IPv6.
pub fn network(address: IpAddr, (v4, v6): (u32, u32)) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - v4).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - v6).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}
