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

displayed_as_text!(Phrase FilePath);

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
