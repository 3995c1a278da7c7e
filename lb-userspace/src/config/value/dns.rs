//! Parts of a DNS check.

use std::str::FromStr;

use super::Wrong;

/// A name that a DNS server is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName(pub String);
written_as_text!(DnsName, "dns-name", "^(\\.|[A-Za-z0-9_*-]{1,63}(\\.[A-Za-z0-9_*-]{1,63})*\\.?)$");

/// Type of a DNS record: `A`, `AAAA`, `SOA`...
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordType(pub String);
written_as_text!(RecordType, "dns-record-type", "^[A-Z0-9]{1,10}$");

/// Response code of DNS in small letters: `noerror`, `nxdomain`...
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseCode(pub String);
written_as_text!(ResponseCode, "dns-response-code", "^[a-z]{1,10}$");

displayed_as_text!(DnsName RecordType ResponseCode);

/// Types of records that can be asked for.
const TYPES: [&str; 14] = [
    "A", "AAAA", "ANY", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV",
    "TXT",
];

/// Response codes (RFC 1035 4.1.1, RFC 2136 2.2) with their numbers.
const CODES: [(&str, u16); 11] = [
    ("noerror", 0),
    ("formerr", 1),
    ("servfail", 2),
    ("nxdomain", 3),
    ("notimp", 4),
    ("refused", 5),
    ("yxdomain", 6),
    ("yxrrset", 7),
    ("nxrrset", 8),
    ("notauth", 9),
    ("notzone", 10),
];

/// The name of a response code; `rcode 16` and the like for those without.
pub fn dns_code(code: u16) -> String {
    match CODES.iter().find(|(_, number)| *number == code) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("rcode {code}"),
    }
}

impl FromStr for DnsName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let is_label = |label: &str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(letter)
        };
        let plain = text.strip_suffix('.').unwrap_or(text);
        if text == "." || plain.len() <= 253 && plain.split('.').all(is_label) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new("is not a name that DNS knows", "write example.org, or `.` for the root"))
    }
}

impl FromStr for RecordType {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let upper = text.to_ascii_uppercase();
        if TYPES.contains(&upper.as_str()) {
            return Ok(Self(upper));
        }
        let help = format!("write one of {}", TYPES.join(", "));
        Err(Wrong::new("is not a type of DNS record that lb can ask for", help))
    }
}

impl FromStr for ResponseCode {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if CODES.iter().any(|(name, _)| *name == text) {
            return Ok(Self(text.to_owned()));
        }
        let names: Vec<&str> = CODES.iter().map(|(name, _)| *name).collect();
        let help = format!("write one of {}", names.join(", "));
        Err(Wrong::new("is not a response code of DNS", help))
    }
}
