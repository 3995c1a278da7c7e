//! What a service listens on: addresses and prefixes, ports.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Wrong, address::refuse_address};

/// A VIP, or all addresses of a prefix: `192.0.2.10`, `10.1.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip(pub IpNet);
written_as_text!(Vip, "vip", "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$");

/// One VIP or several; one alone may stand without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vips(pub Vec<Vip>);

/// VIPs of a service at most.
pub const MOST_VIPS: usize = 256;

/// Ports: one, `8000-8999`, or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// These, the first and the last one. Never 0, and the first is not above the last.
    Range(u16, u16),
    /// All.
    Any,
}

impl Ports {
    /// The `format` of its schema.
    pub const FORMAT: &'static str = "ports";
}

impl FromStr for Vip {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if !text.contains('/') {
            return match text.parse::<IpAddr>() {
                Ok(address) => Ok(Self(address.into())),
                Err(_) => Err(refuse_address(text).unwrap_or_else(|| {
                    Wrong::new("is not an IP address", "write 192.0.2.10 or 2001:db8::10")
                })),
            };
        }
        let prefix: IpNet = text.parse().map_err(|_| {
            Wrong::new("is not a prefix", "write 192.0.2.0/24, 2001:db8::/64 or one address")
        })?;
        if prefix.trunc() != prefix {
            return Err(Wrong::new(
                "is not a prefix: it has bits behind its length",
                format!("write {} or {}", prefix.trunc(), prefix.addr()),
            ));
        }
        Ok(Self(prefix))
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.addr().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

impl JsonSchema for Vips {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Vips".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = Vip::json_schema(generator);
        json_schema!({
            "anyOf": [{"type": "array", "items": one, "minItems": 1, "maxItems": MOST_VIPS}, one]
        })
    }
}

impl FromStr for Ports {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let port = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port > 0)
        };
        let ends = match text.split_once('-') {
            Some((first, last)) => port(first).zip(port(last)),
            None => port(text).map(|port| (port, port)),
        };
        match ends {
            Some((first, last)) if first <= last => Ok(Self::Range(first, last)),
            Some((first, last)) => Err(Wrong::new(
                "is not a range of ports: it ends before it begins",
                format!("write {last}-{first}"),
            )),
            None => Err(Wrong::new(
                "is not a port",
                "write a number from 1 to 65535, a range as in 8000-8999, or any",
            )),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Range(first, last) if first == last => first.fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Ports {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Ports".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "format": Ports::FORMAT,
            "minimum": 1,
            "maximum": 65_535,
            "pattern": "^([0-9]{1,5}(-[0-9]{1,5})?|any)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_some_or_all() {
        for (text, ports) in [
            ("1", Ports::Range(1, 1)),
            ("65535", Ports::Range(65_535, 65_535)),
            ("8000-8999", Ports::Range(8_000, 8_999)),
            ("any", Ports::Any),
        ] {
            assert_eq!(text.parse(), Ok(ports), "{text}");
            assert_eq!(ports.to_string(), text);
        }
        for text in ["", "0", "65536", "-1", "+1", "1-", "0-5", "9-8", "1-2-3", "all", "http"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn vips_are_addresses_or_prefixes() {
        for (text, shown) in [
            ("192.0.2.10", "192.0.2.10"),
            ("192.0.2.10/32", "192.0.2.10"),
            ("10.1.0.0/24", "10.1.0.0/24"),
            ("2001:db8::/64", "2001:db8::/64"),
            ("2001:DB8::1", "2001:db8::1"),
        ] {
            assert_eq!(text.parse::<Vip>().expect(text).to_string(), shown);
        }
        for text in ["10.1.0.1/24", "10.1.0.0/33", "example.org", "192.0.2.10:80", "10.1.0.0/"] {
            assert!(text.parse::<Vip>().is_err(), "{text}");
        }
    }
}
