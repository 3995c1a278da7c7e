//! Names of services, backends, NICs and groups.

use std::str::FromStr;

use super::Wrong;

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

/// The name of a host, as in `http://NAME/`, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);
written_as_text!(HostName, "host-name", "^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$");

/// A backend of any service: `SERVICE/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPath {
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: String,
}
written_as_text!(
    BackendPath,
    "lb-backend",
    "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
);

displayed_as_text!(Name GroupName HostName InterfaceName);

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

impl std::fmt::Display for BackendPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.backend)
    }
}

impl FromStr for BackendPath {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.split_once('/') {
            Some((service, backend)) if word(service, 64) && word(backend, 64) => {
                Ok(Self { service: service.to_owned(), backend: backend.to_owned() })
            }
            _ => Err(Wrong::new("is not a backend", "write SERVICE/BACKEND, such as web/web1")),
        }
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

impl FromStr for HostName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if word(text, 253) && !text.ends_with(['-', '.']) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(Wrong::new("is not the name of a host", "write lb1.example.org, without a port"))
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
