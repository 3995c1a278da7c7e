//! Values that are written as text: durations, addresses with ports, prefixes, names. Each says what it wants.

use std::{fmt, str::FromStr};

/// serde and schemars for a type that is written as text.
macro_rules! written_as_text {
    ($type:ident, $format:literal, $pattern:literal) => {
        impl $type {
            /// The `format` of its schema.
            pub const FORMAT: &'static str = $format;
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "format": $format, "pattern": $pattern})
            }
        }
    };
}

/// The types that are their text.
macro_rules! displayed_as_text {
    ($($type:ident)+) => {
        $(impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        })+
    };
}

mod address;
mod dns;
mod http;
mod listen;
mod name;
mod period;
mod rate;
mod text;

pub use self::{
    address::{Endpoint, Host, Prefix},
    dns::{DnsName, RecordType, ResponseCode, dns_code},
    http::{HttpHeader, HttpHost, HttpMethod, HttpPath, StatusCodes},
    listen::{Ports, Vip, Vips},
    name::{BackendPath, GroupName, HostName, InterfaceName, Name},
    period::Period,
    rate::Rate,
    text::{FilePath, HexBytes, Pattern, Phrase, UserName},
};

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

/// Checks a text against the `format` of its schema. A test in `shape` holds that each format of the schema is here.
pub fn refuse(format: &str, text: &str) -> Option<Wrong> {
    match format {
        "ip" => address::refuse_address(text),
        Period::FORMAT => Period::from_str(text).err(),
        Endpoint::FORMAT => Endpoint::from_str(text).err(),
        Host::FORMAT => Host::from_str(text).err(),
        Rate::FORMAT => Rate::from_str(text).err(),
        Prefix::FORMAT => Prefix::from_str(text).err(),
        Vip::FORMAT => Vip::from_str(text).err(),
        Ports::FORMAT => Ports::from_str(text).err(),
        Name::FORMAT => Name::from_str(text).err(),
        BackendPath::FORMAT => BackendPath::from_str(text).err(),
        InterfaceName::FORMAT => InterfaceName::from_str(text).err(),
        HostName::FORMAT => HostName::from_str(text).err(),
        GroupName::FORMAT => GroupName::from_str(text).err(),
        StatusCodes::FORMAT => StatusCodes::from_str(text).err(),
        HttpMethod::FORMAT => HttpMethod::from_str(text).err(),
        HttpPath::FORMAT => HttpPath::from_str(text).err(),
        HttpHost::FORMAT => HttpHost::from_str(text).err(),
        HttpHeader::FORMAT => HttpHeader::from_str(text).err(),
        DnsName::FORMAT => DnsName::from_str(text).err(),
        RecordType::FORMAT => RecordType::from_str(text).err(),
        ResponseCode::FORMAT => ResponseCode::from_str(text).err(),
        HexBytes::FORMAT => HexBytes::from_str(text).err(),
        Pattern::FORMAT => Pattern::from_str(text).err(),
        Phrase::FORMAT => Phrase::from_str(text).err(),
        UserName::FORMAT => UserName::from_str(text).err(),
        FilePath::FORMAT => FilePath::from_str(text).err(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

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
    fn hosts_are_addresses_or_names() {
        for (text, host, port) in [
            ("app.internal", "app.internal", None),
            ("App.Internal.:8080", "app.internal.", Some(8_080)),
            ("web1", "web1", None),
        ] {
            let name = Host::Name { name: host.to_owned(), port };
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        let endpoint = "10.0.0.11:443".parse().unwrap();
        assert_eq!("10.0.0.11:443".parse(), Ok(Host::Address(endpoint)));
        for text in [
            "10.0.0.300",
            "10.0.0",
            "10.0.0.1/24",
            "app.internal:0",
            "app.internal:",
            "app:http",
            "-a.b",
            "a..b",
            "http://app",
            "2001:db8::11:80x",
            "*.internal",
            "a b",
        ] {
            let wrong = text.parse::<Host>();
            assert!(wrong.is_err(), "{text}: {wrong:?}");
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
            for format in ["ip", Host::FORMAT, BackendPath::FORMAT, Period::FORMAT, Rate::FORMAT, Endpoint::FORMAT, Prefix::FORMAT, Name::FORMAT,
                InterfaceName::FORMAT, GroupName::FORMAT, StatusCodes::FORMAT, HttpMethod::FORMAT,
                HttpPath::FORMAT, HttpHost::FORMAT, Phrase::FORMAT, FilePath::FORMAT, UserName::FORMAT,
                HttpHeader::FORMAT, DnsName::FORMAT, RecordType::FORMAT, ResponseCode::FORMAT, HexBytes::FORMAT,
                Pattern::FORMAT, Vip::FORMAT, Ports::FORMAT]
            {
                if let Some(wrong) = refuse(format, &text) {
                    prop_assert!(!wrong.what.is_empty() && !wrong.help.is_empty());
                }
            }
        }
    }
}
