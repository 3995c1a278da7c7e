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

/// Where a backend is: an [`Endpoint`], or a DNS name with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(Endpoint),
    /// A name.
    Name {
        /// In small letters.
        name: String,
        /// The port, if one is written; never 0.
        port: Option<u16>,
    },
}
written_as_text!(
    Host,
    "host-with-optional-port",
    r"^[0-9A-Fa-f.:]+$|^\[[0-9A-Fa-f.:]+\](:[0-9]+)?$|^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[0-9]+)?$"
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
        (Err(_), Err(_)) => {
            "write 192.0.2.10 or 2001:db8::10 (names are resolved for backends only)"
        }
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
                 (names are resolved for backends only)"
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

impl FromStr for Host {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = match Endpoint::from_str(text) {
            Ok(endpoint) => return Ok(Self::Address(endpoint)),
            Err(wrong) => wrong,
        };
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
        let is_label = |label: &&str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len())
                && label.bytes().all(letter)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // What ends in a number is a mistyped address: no domain does.
        let is_number = |label: &&str| label.bytes().all(|byte| byte.is_ascii_digit());
        if name.len() > 253 || !labels.iter().all(is_label) || labels.last().is_some_and(is_number)
        {
            let help = "write 10.0.0.11:443, 10.0.0.11, \"[2001:db8::11]:443\", 2001:db8::11, or a DNS name such as app.internal:8080";
            let help = match labels.iter().all(is_number)
                || name.is_empty()
                || name.contains(['[', ':'])
            {
                true => wrong.help,
                false => help.to_owned(),
            };
            return Err(Wrong::new("is not an address or name with a port", help));
        }
        let port = match port.map(|port| (port, port.parse::<u16>())) {
            None => None,
            Some((text, Ok(port))) if port > 0 && !text.starts_with('+') => Some(port),
            Some(_) => {
                let help = "the port is a number from 1 to 65535";
                return Err(Wrong::new("is not an address or name with a port", help));
            }
        };
        Ok(Self::Name { name: name.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(endpoint) => endpoint.fmt(f),
            Self::Name { name, port: None } => f.write_str(name),
            Self::Name { name, port: Some(port) } => write!(f, "{name}:{port}"),
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
