//! Exit codes that scripts can rely on.

use std::{io, process::ExitCode};

use crate::{
    api::{
        client::ClientError,
        server::ServeError,
        types::{Failure, FailureKind},
    },
    config,
    control::ReloadError,
    dataplane::{LoadError, LockError},
};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done, for a reason that has no number of its own.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration is invalid.
    Configuration = 3,
    /// The daemon is not running.
    NotRunning = 4,
    /// A permission or capability is missing.
    Permission = 5,
    /// No such service or backend.
    NotFound = 6,
    /// The daemon is running already.
    AlreadyRunning = 7,
    /// `lb doctor` has found something that needs attention.
    Findings = 8,
    /// `lb drain --wait`, `lb node drain --wait`: the deadline has passed, and something is left.
    Deadline = 9,
}

/// For `lb --help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  usage: the command line makes no sense
  3  the configuration is invalid
  4  the daemon is not running
  5  a permission or capability is missing
  6  no such service or backend
  7  the daemon is running already
  8  lb doctor: there are warnings or errors
  9  lb drain --wait, lb node drain --wait: the deadline has passed, and something is left
(`lb health` has its own: see `lb health --help`.)

Colours are used on a terminal only, and not if NO_COLOR is set.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of the CLI itself that has a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Coded {
    /// The code.
    pub exit: Exit,
    /// What to print.
    pub message: String,
}

impl Coded {
    /// As an error.
    pub fn error(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self { exit, message: message.into() }.into()
    }
}

/// The code for an error: the first cause that has one.
pub fn classify(error: &anyhow::Error) -> Exit {
    error.chain().find_map(classify_one).unwrap_or(Exit::Failure)
}

fn classify_one(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(coded) = cause.downcast_ref::<Coded>() {
        return Some(coded.exit);
    }
    if cause.is::<config::Errors>() {
        return Some(Exit::Configuration);
    }
    if let Some(ReloadError::Config(_) | ReloadError::Host(_)) = cause.downcast_ref() {
        return Some(Exit::Configuration);
    }
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(of_failure(failure));
    }
    if let Some(error) = cause.downcast_ref::<ClientError>() {
        return match error {
            ClientError::NotRunning { .. } => Some(Exit::NotRunning),
            ClientError::Permission { .. } => Some(Exit::Permission),
            ClientError::Refused(failure) => Some(of_failure(failure)),
            _ => None,
        };
    }
    if let Some(ServeError::Running(_)) = cause.downcast_ref() {
        return Some(Exit::AlreadyRunning);
    }
    if let Some(LockError::Running { .. }) = cause.downcast_ref() {
        return Some(Exit::AlreadyRunning);
    }
    if let Some(LoadError::Capability { .. }) = cause.downcast_ref() {
        return Some(Exit::Permission);
    }
    let error = cause.downcast_ref::<io::Error>()?;
    (error.kind() == io::ErrorKind::PermissionDenied).then_some(Exit::Permission)
}

fn of_failure(failure: &Failure) -> Exit {
    match failure.kind {
        FailureKind::NotFound => Exit::NotFound,
        FailureKind::Forbidden => Exit::Permission,
        FailureKind::Configuration => Exit::Configuration,
        _ => Exit::Failure,
    }
}

/// Whether the reader of our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(broken)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn codes_are_found_under_context() {
        let refused = |kind| ClientError::Refused(Failure::new(kind, "no"));
        let not_running = ClientError::NotRunning { socket: "/s".into(), why: "" };
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let cases: Vec<(anyhow::Error, Exit)> = vec![
            (not_running.into(), Exit::NotRunning),
            (refused(FailureKind::NotFound).into(), Exit::NotFound),
            (refused(FailureKind::Configuration).into(), Exit::Configuration),
            (refused(FailureKind::Conflict).into(), Exit::Failure),
            (ServeError::Running("/s".into()).into(), Exit::AlreadyRunning),
            (denied().into(), Exit::Permission),
            (LockError::Io { path: "/l".into(), source: denied() }.into(), Exit::Permission),
            (LoadError::Capability { missing: "CAP_BPF".into() }.into(), Exit::Permission),
            (Coded::error(Exit::NotFound, "x"), Exit::NotFound),
            (anyhow::anyhow!("x"), Exit::Failure),
        ];
        for (error, exit) in cases {
            let text = format!("{error:#}");
            let error = Err::<(), _>(error).context("while testing").unwrap_err();
            assert_eq!(classify(&error), exit, "{text}");
        }
    }

    /// Scripts rely on them: a number never changes its meaning.
    #[test]
    fn codes_are_stable() {
        let codes = [
            Exit::Ok,
            Exit::Failure,
            Exit::Usage,
            Exit::Configuration,
            Exit::NotRunning,
            Exit::Permission,
            Exit::NotFound,
            Exit::AlreadyRunning,
            Exit::Findings,
            Exit::Deadline,
        ];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn help_names_every_code() {
        for exit in 0..=Exit::Deadline as u8 {
            assert!(HELP.contains(&format!("\n  {exit}  ")), "{exit}");
        }
    }
}
