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

displayed_as_text!(Phrase FilePath UserName);

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
