//! The `Host` header: by which name a browser believes to speak with us.
//!
//! A foreign page can point its own name at our address and then read what we answer (DNS rebinding), but it cannot
//! change the name in the header. Addresses cannot be pointed anywhere, so they are always right.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, header::HOST};

use crate::api::types::{Failure, FailureKind};

/// The one `Host` header of a request; an error without one, or with several.
pub fn of(headers: &HeaderMap) -> Result<&str, Failure> {
    let mut values = headers.get_all(HOST).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(host)), None) => Ok(host),
        _ => Err(Failure::new(FailureKind::Invalid, "one Host header is needed")),
    }
}

/// An error unless the request is for an address, for `localhost`, or for one of `names` (in small letters).
pub fn check(headers: &HeaderMap, names: &[String], remedy: &str) -> Result<(), Failure> {
    let host = of(headers)?;
    if is_known(host, names) {
        return Ok(());
    }
    let shown: String = host.chars().take(100).collect();
    let error = format!("`{shown}` is no name of this server (DNS rebinding?): {remedy}");
    Err(Failure::new(FailureKind::Forbidden, error))
}

fn is_known(host: &str, names: &[String]) -> bool {
    let (name, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => {
            let port_or_nothing = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return port_or_nothing && address.parse::<Ipv6Addr>().is_ok();
        }
        Some(None) => return false,
        None => host.split_once(':').unwrap_or((host, "0")),
    };
    let name = name.to_ascii_lowercase();
    is_port(port)
        && (name == "localhost" || name.parse::<IpAddr>().is_ok() || names.contains(&name))
}

fn is_port(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_our_names_are_known_and_others_are_not() {
        let names = ["lb1.example.org".to_owned()];
        for good in [
            "127.0.0.1",
            "127.0.0.1:8404",
            "192.0.2.7:80",
            "[::1]",
            "[::1]:8404",
            "localhost",
            "LocalHost:9999",
            "lb1.example.org",
            "LB1.example.org:443",
        ] {
            assert!(is_known(good, &names), "{good}");
        }
        for bad in [
            "",
            ":8404",
            "evil.example",
            "evil.example:8404",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "lb1.example.org.evil.example",
            "127.0.0.1:",
            "127.0.0.1:http",
            "127.0.0.1:99999",
            "127.0.0.1:80:80",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "::1",
            "user@127.0.0.1",
        ] {
            assert!(!is_known(bad, &names), "{bad}");
        }
    }

    #[test]
    fn there_is_exactly_one() {
        let mut headers = HeaderMap::new();
        assert!(of(&headers).is_err());
        headers.append(HOST, "localhost".parse().unwrap());
        assert_eq!(of(&headers), Ok("localhost"));
        headers.append(HOST, "evil.example".parse().unwrap());
        assert!(of(&headers).is_err());
    }
}
