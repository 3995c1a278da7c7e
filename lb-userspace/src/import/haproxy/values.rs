//! HAProxy's ways to write addresses, names and times.

use std::net::IpAddr;

use crate::config::value::{DnsName, Host};

/// The value behind a parameter.
pub(super) fn after<'w>(words: &[&'w str], parameter: &str) -> Option<&'w str> {
    let at = words.iter().position(|word| *word == parameter)?;
    words.get(at + 1).copied()
}

/// `app.internal:80`, `app.internal` (the bind's port), `_http._tcp.app.internal` (SRV records).
pub(super) fn name_of(text: &str, port: u16) -> Option<String> {
    if text.starts_with('_') {
        return text.parse::<DnsName>().ok().map(|name| name.0);
    }
    match text.trim_start_matches("ipv4@").trim_start_matches("ipv6@").parse() {
        Ok(Host::Name { name, port: own }) => Some(format!("{name}:{}", own.unwrap_or(port))),
        _ => None,
    }
}

/// `10.0.0.1:80`, `10.0.0.1` (the bind's port), `[2001:db8::1]:80`, `2001:db8::1:80`.
pub(super) fn address_of(text: &str, port: u16) -> Option<String> {
    let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.to_string());
    }
    if let Ok(IpAddr::V4(address)) = text.parse::<IpAddr>() {
        return Some(std::net::SocketAddr::new(address.into(), port).to_string());
    }
    let (host, port) = text.rsplit_once(':')?;
    let address = host.parse::<IpAddr>().ok()?;
    Some(std::net::SocketAddr::new(address, port.parse().ok()?).to_string())
}

/// An address without a port: packets keep theirs.
pub(super) fn host_of(text: &str) -> Option<String> {
    let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
    text.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|address| address.to_string())
}

/// HAProxy's times (manual 2.5): milliseconds unless a unit says otherwise.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "us" => return Some(number.div_ceil(1000)),
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}
