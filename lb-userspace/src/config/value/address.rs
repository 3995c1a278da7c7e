//! Addresses, alone, with a port, or as a network.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::Wrong;

/// An address with an optional port: `10.0.0.11:443`, `10.0.0.11`, `[2001:db8::1]:443`, `2001:db8::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port, if one is written; never 0.
    pub port: Option<u16>,
}
written_as_text!(
    Endpoint,
    "ip-with-optional-port",
    r"^[0-9A-Fa-f.:]+$|^\[[0-9A-Fa-f.:]+\](:[0-9]+)?$"
);

/// A network: `198.51.100.0/24`, or an address alone for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub IpNet);
written_as_text!(Prefix, "ip-prefix", "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$");

/// The texts of [`IpAddr`], the one type here that is not ours.
pub fn refuse_address(text: &str) -> Option<Wrong> {
    let help = match (text.parse::<IpAddr>(), Endpoint::from_str(text)) {
        (Ok(_), _) => return None,
        (Err(_), Ok(_)) => "write the address alone, and the port under `port:`",
        (Err(_), Err(_)) if text.contains('/') => "write one address, without a prefix length",
        (Err(_), Err(_)) => "write 192.0.2.10 or 2001:db8::10 (names are not resolved)",
    };
    Some(Wrong::new("is not an IP address", help))
}

impl FromStr for Endpoint {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |help: String| Wrong::new("is not an address with a port", help);
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { address, port: None });
        }
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => (host, rest.strip_prefix(':').or(Some(""))),
            Some(None) => return Err(wrong("the `]` after the address is missing".into())),
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let Ok(address) = host.parse::<IpAddr>() else {
            return Err(wrong(
                "write 10.0.0.11:443, 10.0.0.11, \"[2001:db8::11]:443\" or 2001:db8::11 \
                 (names are not resolved)"
                    .into(),
            ));
        };
        if address.is_ipv6() && !text.starts_with('[') {
            return Err(wrong("put an IPv6 address with a port in brackets and quotes".into()));
        }
        let port = match port {
            None => None,
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => {
                    Some(number)
                }
                _ => return Err(wrong("the port is a number from 1 to 65535".into())),
            },
        };
        Ok(Self { address, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (address, None) => address.fmt(f),
            (address, Some(port)) => std::net::SocketAddr::new(address, port).fmt(f),
        }
    }
}

impl FromStr for Prefix {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        let prefix: IpNet = text.parse().map_err(|_| {
            Wrong::new("is not a network", "write 198.51.100.0/24, 2001:db8::/32 or one address")
        })?;
        if prefix.trunc() != prefix {
            return Err(Wrong::new(
                "is not a network: it has bits behind its prefix length",
                format!("write {} or {}", prefix.trunc(), prefix.addr()),
            ));
        }
        Ok(Self(prefix))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
