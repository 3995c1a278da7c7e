//! Values that are written as text: durations, addresses with ports, prefixes, names. Each says what it wants.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a value of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Completes "`text` ...": `is not a duration`.
    pub what: String,
    /// What would be right.
    pub help: String,
}

impl Wrong {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.help)
    }
}

/// Checks a text against the `format` of its schema; formats that are not ours accept everything.
pub fn refuse(format: &str, text: &str) -> Option<Wrong> {
    match format {
        "ip" => refuse_address(text),
        Period::FORMAT => Period::from_str(text).err(),
        Endpoint::FORMAT => Endpoint::from_str(text).err(),
        Prefix::FORMAT => Prefix::from_str(text).err(),
        Name::FORMAT => Name::from_str(text).err(),
        InterfaceName::FORMAT => InterfaceName::from_str(text).err(),
        GroupName::FORMAT => GroupName::from_str(text).err(),
        StatusCodes::FORMAT => StatusCodes::from_str(text).err(),
        HttpMethod::FORMAT => HttpMethod::from_str(text).err(),
        HttpPath::FORMAT => HttpPath::from_str(text).err(),
        HttpHost::FORMAT => HttpHost::from_str(text).err(),
        _ => None,
    }
}

/// serde and schemars for a type that is written as text.
macro_rules! written_as_text {
    ($type:ident, $format:literal, $pattern:literal) => {
        impl $type {
            const FORMAT: &'static str = $format;
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format, "pattern": $pattern})
            }
        }
    };
}

/// A length of time: a whole number with one of the units `ms`, `s`, `m`, `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);
written_as_text!(Period, "duration-with-unit", "^[0-9]+(ms|s|m|h)$");

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

/// The name of a service or backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);
written_as_text!(Name, "lb-name", "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$");

/// The name of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(pub String);
written_as_text!(InterfaceName, "interface-name", "^[^/:\\s]{1,15}$");

/// The name of a group of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName(pub String);
written_as_text!(GroupName, "group-name", "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$");

/// `GET`, `HEAD`...
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMethod(pub String);
written_as_text!(HttpMethod, "http-method", "^[A-Z]{1,16}$");

/// Path and query of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPath(pub String);
written_as_text!(HttpPath, "http-path", "^/[!-\"$-~]*$");

/// A `Host` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHost(pub String);
written_as_text!(HttpHost, "http-host", "^[A-Za-z0-9._:\\[\\]-]{1,255}$");

/// HTTP status codes as inclusive ranges: `200`, `200-299`, `"200-299,304"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCodes(pub Vec<(u16, u16)>);

impl StatusCodes {
    const FORMAT: &'static str = "http-status-codes";
}

/// The texts of [`IpAddr`], the one type here that is not ours.
fn refuse_address(text: &str) -> Option<Wrong> {
    let help = match (text.parse::<IpAddr>(), Endpoint::from_str(text)) {
        (Ok(_), _) => return None,
        (Err(_), Ok(_)) => "write the address alone, and the port under `port:`",
        (Err(_), Err(_)) if text.contains('/') => "write one address, without a prefix length",
        (Err(_), Err(_)) => "write 192.0.2.10 or 2001:db8::10 (names are not resolved)",
    };
    Some(Wrong::new("is not an IP address", help))
}

impl FromStr for Period {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |help: &str| Wrong::new("is not a duration", help);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" => return Err(wrong(&format!("write a unit: {text}s or {text}ms"))),
            _ => {
                return Err(wrong("write a whole number and a unit: 500ms, 2s, 5m or 1h"));
            }
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(milliseconds))
            .filter(|&number| number <= 365 * 24 * 3_600_000)
            .map(|number| Self(Duration::from_millis(number)))
            .ok_or_else(|| wrong("write a whole number and a unit: 500ms, 2s, 5m or 1h"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        for (length, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if milliseconds > 0 && milliseconds.is_multiple_of(length) {
                return write!(f, "{}{unit}", milliseconds / length);
            }
        }
        write!(f, "{milliseconds}ms")
    }
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

impl FromStr for Name {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if word(text, 64) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(
            "is not a name",
            "write 1 to 64 letters, digits, `_`, `.` and `-`, beginning with a letter, digit or `_`",
        ))
    }
}

impl FromStr for GroupName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if word(text, 32) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(
            "is not the name of a group",
            "write 1 to 32 letters, digits, `_`, `.` and `-`, beginning with a letter, digit or `_`",
        ))
    }
}

/// Names stand in commands, URLs and metrics: nothing that has to be quoted there, nothing like an option.
fn word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !text.starts_with(['-', '.'])
}

impl FromStr for InterfaceName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        // The kernel's dev_valid_name().
        let valid = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text
                .contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(
            "is not the name of a NIC",
            "write a name as `ip link` shows it, at most 15 bytes",
        ))
    }
}

impl FromStr for HttpMethod {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let valid = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase());
        if valid && text != "CONNECT" {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new("is not a method a check can use", "write GET, HEAD or OPTIONS"))
    }
}

impl FromStr for HttpPath {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(
            "is not a path",
            "begin with `/`, and write blanks and other special characters as %20 and so on",
        ))
    }
}

impl FromStr for HttpHost {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let valid = (1..=255).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:[]-".contains(&b));
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new("is not a host", "write example.org or example.org:8080"))
    }
}

/// The types that are their text.
macro_rules! displayed_as_text {
    ($($type:ident)+) => {
        $(impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        })+
    };
}

displayed_as_text!(Name GroupName InterfaceName HttpMethod HttpPath HttpHost);

impl FromStr for StatusCodes {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let code = |text: &str| match text.trim().parse::<u16>() {
                Ok(code @ 100..=599) => Some(code),
                _ => None,
            };
            match (code(low)?, code(high)?) {
                (low, high) if low <= high => Some((low, high)),
                _ => None,
            }
        };
        text.split(',').map(range).collect::<Option<_>>().map(Self).ok_or_else(|| {
            Wrong::new(
                "is not a list of HTTP status codes",
                "write codes from 100 to 599: 200, 200-299 or \"200-299,304\"",
            )
        })
    }
}

impl fmt::Display for StatusCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (low, high)) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            match low == high {
                true => write!(f, "{low}")?,
                false => write!(f, "{low}-{high}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for StatusCodes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusCodes {
    /// A single code may be written as a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u16),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(code) => code.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
        .map_err(de::Error::custom)
    }
}

impl JsonSchema for StatusCodes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StatusCodes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "format": StatusCodes::FORMAT,
            "minimum": 100,
            "maximum": 599,
            "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?(,[1-5][0-9]{2}(-[1-5][0-9]{2})?)*$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn endpoints_with_and_without_ports() {
        for (text, address, port) in [
            ("10.0.0.11", "10.0.0.11", None),
            ("10.0.0.11:443", "10.0.0.11", Some(443)),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:65535", "2001:db8::1", Some(65_535)),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(text.parse(), Ok(Endpoint { address, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            "10.0.0.11:",
            "10.0.0.11:0",
            "10.0.0.11:+5",
            "10.0.0.11:65536",
            "[::1",
            "[::1]x",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn periods_need_a_unit_and_a_sane_number() {
        for text in
            ["", "5", "s", "-5s", "1.5s", "5 s", "5S", "5d", "99999999999999999999s", "9000h"]
        {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert_eq!("1500ms".parse(), Ok(Period(Duration::from_millis(1_500))));
        assert_eq!("2h".parse(), Ok(Period(Duration::from_secs(7_200))));
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_read_again(
            milliseconds in 0_u64..31_536_000_000,
            v6: bool,
            bits: u128,
            port in proptest::option::of(1_u16..),
            codes in proptest::collection::vec((100_u16..600, 100_u16..600), 1..5),
        ) {
            let period = Period(Duration::from_millis(milliseconds));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
            let address = match v6 {
                true => IpAddr::from(bits.to_be_bytes()),
                false => IpAddr::from((bits as u32).to_be_bytes()),
            };
            let endpoint = Endpoint { address, port };
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            let codes = codes.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
            let codes = StatusCodes(codes);
            prop_assert_eq!(codes.to_string().parse(), Ok(codes));
        }

        #[test]
        fn no_text_makes_a_type_panic(text in "\\PC{0,30}|[0-9a-f:.\\[\\]/,msh-]{0,20}") {
            for format in ["ip", Period::FORMAT, Endpoint::FORMAT, Prefix::FORMAT, Name::FORMAT,
                InterfaceName::FORMAT, GroupName::FORMAT, StatusCodes::FORMAT, HttpMethod::FORMAT,
                HttpPath::FORMAT, HttpHost::FORMAT]
            {
                if let Some(wrong) = refuse(format, &text) {
                    prop_assert!(!wrong.what.is_empty() && !wrong.help.is_empty());
                }
            }
        }
    }
}
