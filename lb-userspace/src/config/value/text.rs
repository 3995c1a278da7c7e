//! Texts of checks: what is said and expected, and names of files.

use std::str::FromStr;

use super::Wrong;

/// What a check sends or expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrase(pub String);
written_as_text!(Phrase, "phrase", "^[^\\u0000-\\u0008]{1,4096}$");

/// The absolute path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub String);
written_as_text!(FilePath, "file-path", "^/[ -~]{1,4095}$");

/// The name of a user or of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);
written_as_text!(UserName, "user-name", "^[A-Za-z0-9_.@-]{1,64}$");

/// A regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub String);
written_as_text!(Pattern, "regex", "^[^\\u0000-\\u001f]{1,1024}$");

/// Bytes, as pairs of hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HexBytes(pub Vec<u8>);
written_as_text!(HexBytes, "hex-bytes", "^([0-9A-Fa-f]{2}){1,4096}$");

displayed_as_text!(Phrase FilePath UserName Pattern);

impl FromStr for HexBytes {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let pair = |pair: &[u8]| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(pair[0])? * 16 + digit(*pair.get(1)?)?) as u8)
        };
        let bytes = text.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>();
        bytes.filter(|bytes| (1..=4096).contains(&bytes.len())).map(Self).ok_or_else(|| {
            Wrong::new(
                "is not bytes",
                "write pairs of hexadecimal digits, as in ffff0a, at most 4096",
            )
        })
    }
}

impl std::fmt::Display for HexBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Pattern {
    /// Ready for use. Its size is bounded; its time is, by the crate's nature, linear in the answer's length.
    pub fn compile(text: &str) -> Result<regex::bytes::Regex, regex::Error> {
        regex::bytes::RegexBuilder::new(text).size_limit(1 << 20).build()
    }
}

impl FromStr for Pattern {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let help = "write one of Rust's regex crate, without look-around and back references";
        if !(1..=1024).contains(&text.len()) || text.contains(char::is_control) {
            return Err(Wrong::new("is not a regular expression", help));
        }
        match Self::compile(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => {
                // The crate's drawing of the place is several lines; its last line has the words.
                let words = error.to_string();
                let words = words.lines().last().unwrap_or_default().replace("error: ", "");
                Err(Wrong::new(format!("is not a regular expression ({words})"), help))
            }
        }
    }
}

impl FromStr for UserName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let valid = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte));
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new("is not a name", "write letters, digits, `_`, `.`, `@` and `-`, at most 64"))
    }
}

impl FromStr for Phrase {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let strange =
            |character: char| character.is_control() && !matches!(character, '\r' | '\n' | '\t');
        if (1..=4096).contains(&text.len()) && !text.contains(strange) {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new(
            "is nothing that a check can say or expect",
            "write 1 to 4096 bytes of text; line ends as \"\\r\\n\" in double quotes",
        ))
    }
}

impl FromStr for FilePath {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if text.starts_with('/') && (2..=4096).contains(&text.len()) && printable {
            return Ok(Self(text.to_owned()));
        }
        Err(Wrong::new("is not the path of a file", "write an absolute path: /etc/lb/ca.pem"))
    }
}
