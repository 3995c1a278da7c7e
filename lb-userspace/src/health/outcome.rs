//! What one probe found, by HAProxy's codes.

use std::{fmt, io, time::Duration};

/// The longest `output`, characters.
const OUTPUT_CHARACTERS: usize = 256;

/// HAProxy's check results: layer and finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckCode {
    /// The connection was accepted.
    L4Ok,
    /// No answer to the connection request in time.
    L4Tout,
    /// The connection was refused, or the backend is unreachable.
    L4Con,
    /// The TLS handshake succeeded.
    L6Ok,
    /// Connected, but no complete handshake in time.
    L6Tout,
    /// The handshake failed, or the certificate is not accepted.
    L6Rsp,
    /// The answer is the one wanted.
    L7Ok,
    /// Connected, but no complete answer in time.
    L7Tout,
    /// The answer is not of the protocol, too long, broke off, or has not what is expected.
    L7Rsp,
    /// The protocol's own way to say no: another status than wanted, a refused login, a replica.
    L7Sts,
    /// The program ended with 0.
    ProcOk,
    /// The program did not end in time.
    ProcTout,
    /// The program ended with another code, or was killed.
    ProcErr,
    /// No probe at all: clients' connections failed (HAProxy: health analyze).
    Hana,
    /// The prober's own fault (no descriptors, ports, memory or permission): says nothing about the backend.
    SockErr,
}

impl CheckCode {
    /// All of them, in their order.
    pub const ALL: [Self; 15] = [
        Self::L4Ok,
        Self::L4Tout,
        Self::L4Con,
        Self::L6Ok,
        Self::L6Tout,
        Self::L6Rsp,
        Self::L7Ok,
        Self::L7Tout,
        Self::L7Rsp,
        Self::L7Sts,
        Self::ProcOk,
        Self::ProcTout,
        Self::ProcErr,
        Self::Hana,
        Self::SockErr,
    ];

    /// As HAProxy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L4Ok => "L4OK",
            Self::L4Tout => "L4TOUT",
            Self::L4Con => "L4CON",
            Self::L6Ok => "L6OK",
            Self::L6Tout => "L6TOUT",
            Self::L6Rsp => "L6RSP",
            Self::L7Ok => "L7OK",
            Self::L7Tout => "L7TOUT",
            Self::L7Rsp => "L7RSP",
            Self::L7Sts => "L7STS",
            Self::ProcOk => "PROCOK",
            Self::ProcTout => "PROCTOUT",
            Self::ProcErr => "PROCERR",
            Self::Hana => "HANA",
            Self::SockErr => "SOCKERR",
        }
    }

    /// Good, bad, or (the prober's own fault) neither.
    pub const fn good(self) -> Option<bool> {
        match self {
            Self::L4Ok | Self::L6Ok | Self::L7Ok | Self::ProcOk => Some(true),
            Self::SockErr => None,
            _ => Some(false),
        }
    }
}

impl fmt::Display for CheckCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Layer and finding.
    pub code: CheckCode,
    /// Whether it counts for or against the backend; `None` = it does not count.
    pub good: Option<bool>,
    /// For people: at most 256 characters, no control characters, whatever the backend sent.
    pub output: String,
    /// From the start of the probe to the decision.
    pub duration: Duration,
    /// The share of its weight that the backend wants, percent; `None` = it was not asked, or did not say.
    pub weight_percent: Option<u8>,
}

impl Outcome {
    /// A result after `duration`; `output` is escaped and cut here.
    pub fn new(code: CheckCode, output: &str, duration: Duration) -> Self {
        Self { code, good: code.good(), output: escape(output), duration, weight_percent: None }
    }

    /// The result of a connection attempt that failed with `error`.
    pub(super) fn connect_failed(error: &io::Error, duration: Duration) -> Self {
        Self::new(connect_code(error), &describe(error), duration)
    }

    /// Whether a process that was asleep during the probe would see this of a healthy backend as well: its time ran
    /// out, or the backend lost patience.
    pub(super) fn may_be_our_delay(&self) -> bool {
        matches!(
            self.code,
            CheckCode::L4Tout
                | CheckCode::L6Tout
                | CheckCode::L6Rsp
                | CheckCode::L7Tout
                | CheckCode::L7Rsp
                | CheckCode::ProcTout
        )
    }
}

/// Everything that could play with a terminal or a log (control and formatting characters, bidirectional overrides,
/// line separators) as `\n` or `\u{..}`; cut to 256 characters.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    let mut room = OUTPUT_CHARACTERS;
    for character in text.chars() {
        let harmless = character == ' ' || character.is_ascii_graphic() && character != '\\';
        let piece = match character {
            _ if harmless || character.is_alphanumeric() => character.to_string(),
            // Escapes what is not printable, and combining characters; keeps the rest.
            _ => character.escape_debug().to_string(),
        };
        let length = piece.chars().count();
        if length > room {
            break;
        }
        room -= length;
        escaped.push_str(&piece);
    }
    escaped
}

/// The operating system's words without Rust's "(os error 111)".
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn connect_code(error: &io::Error) -> CheckCode {
    match error.raw_os_error() {
        // Out of descriptors, memory or ports; forbidden by a local firewall rule; a family this host has not got.
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOBUFS
            | libc::EAGAIN
            | libc::EADDRINUSE
            | libc::EADDRNOTAVAIL
            | libc::EACCES
            | libc::EPERM
            | libc::EAFNOSUPPORT
            | libc::EPROTONOSUPPORT
            | libc::EINVAL,
        ) => CheckCode::SockErr,
        Some(libc::ETIMEDOUT) => CheckCode::L4Tout,
        _ => CheckCode::L4Con,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_backend_sends_cannot_play_with_a_terminal_or_a_log() {
        assert_eq!(escape("500 Internal Server Error"), "500 Internal Server Error");
        assert_eq!(escape("a\nb\r\t\u{1b}[31m\0"), "a\\nb\\r\\t\\u{1b}[31m\\0");
        assert_eq!(escape("\u{202e}x\u{2028}\u{9b}"), "\\u{202e}x\\u{2028}\\u{9b}");
        assert_eq!(escape("Zürich \\n"), "Zürich \\\\n");
    }

    #[test]
    fn errors_are_the_backend_s_or_our_own() {
        for (errno, code, good) in [
            (libc::ECONNREFUSED, "L4CON", Some(false)),
            (libc::EHOSTUNREACH, "L4CON", Some(false)),
            (libc::ENETUNREACH, "L4CON", Some(false)),
            (libc::ETIMEDOUT, "L4TOUT", Some(false)),
            (libc::EMFILE, "SOCKERR", None),
            (libc::EADDRNOTAVAIL, "SOCKERR", None),
            (libc::EPERM, "SOCKERR", None),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let outcome = Outcome::connect_failed(&error, Duration::ZERO);
            assert_eq!((outcome.code.to_string().as_str(), outcome.good), (code, good), "{error}");
        }
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(describe(&refused), "Connection refused");
    }

    proptest! {
        #[test]
        fn output_is_short_and_printable(text in proptest::collection::vec(any::<char>(), 0..600)) {
            let text: String = text.into_iter().collect();
            let escaped = escape(&text);
            prop_assert!(escaped.chars().count() <= 256);
            prop_assert!(!escaped.chars().any(char::is_control), "{:?}", escaped);
        }
    }
}
