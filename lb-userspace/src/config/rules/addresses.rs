//! Which addresses can be balanced at all.

use std::net::{IpAddr, Ipv4Addr};

/// Why an address can be neither a VIP nor a backend: what it is, and what would be right.
pub fn refuse(address: IpAddr) -> Option<(&'static str, String)> {
    let unicast = "write the unicast address of a machine".to_owned();
    match address {
        _ if address.is_unspecified() => Some(("unspecified", unicast)),
        _ if address.is_loopback() => Some((
            "a loopback address",
            "write an address that other machines can reach".to_owned(),
        )),
        _ if address.is_multicast() => Some(("a multicast address", unicast)),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some(("the broadcast address", unicast)),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some((
            "a link-local address, which means something else on every link",
            "write a global (2000::/3) or unique local (fd00::/8) address".to_owned(),
        )),
        IpAddr::V6(v6) => {
            v6.to_ipv4_mapped().map(|v4| ("an IPv4 address in IPv6 clothes", format!("write {v4}")))
        }
        IpAddr::V4(_) => None,
    }
}

/// `IPv4` or `IPv6`.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
