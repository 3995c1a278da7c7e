//! Parts of an HTTP check.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Wrong;

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

/// One header of a request: name and value, as in `X-Checked-By: lb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHeader(pub (String, String));
written_as_text!(HttpHeader, "http-header", "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}: *[ -~]{0,4096}$");

/// HTTP status codes as inclusive ranges: `200`, `200-299`, `"200-299,304"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCodes(pub Vec<(u16, u16)>);

impl StatusCodes {
    /// The `format` of its schema.
    pub const FORMAT: &'static str = "http-status-codes";
}

displayed_as_text!(HttpMethod HttpPath HttpHost);

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

/// Headers that lb writes itself.
const OWN: [&str; 6] =
    ["host", "connection", "content-length", "transfer-encoding", "te", "upgrade"];

impl FromStr for HttpHeader {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let (name, value) = text.split_once(':').unwrap_or((text, "\n"));
        let value = value.trim_matches(' ');
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let valid = (1..=256).contains(&name.len())
            && name.bytes().all(is_token)
            && value.len() <= 4096
            && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !valid {
            return Err(Wrong::new("is not a header", "write `Name: value` in quotes"));
        }
        if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(Wrong::new(
                "is a header that lb writes itself",
                "remove it; `host:` sets Host",
            ));
        }
        Ok(Self((name.to_owned(), value.to_owned())))
    }
}

impl fmt::Display for HttpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = &self.0;
        write!(f, "{name}: {value}")
    }
}

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
