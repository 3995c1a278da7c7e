//! `lb doctor`: what about this host, its NICs and the running daemon keeps lb from doing well, and what to do about it.
//!
//! `gather` reads facts and judges nothing; each check is a pure function from [`Facts`] to findings.

mod counted;
mod daemon;
pub mod facts;
pub mod gather;
mod kernel;
mod mtu;
mod nic;
mod offload;
mod process;
mod queues;
mod routing;

use serde::Serialize;

pub use self::facts::Facts;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is wrong, or it cannot be known from here.
    Note,
    /// It costs speed or safety, or will fail under some traffic.
    Warning,
    /// lb does not work, or not as configured.
    Error,
}

impl Severity {
    /// In lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What can be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// A line for the shell, as root.
    Command(String),
    /// Something that is no single command.
    Advice(String),
}

/// One result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Heading: `kernel`, `process`, `eth0`, `routing`, `daemon`.
    pub group: String,
    /// Name of the check; stable.
    pub check: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// Why it matters; empty if all is well.
    pub why: &'static str,
    /// What to do; `None` if all is well.
    pub remedy: Option<Remedy>,
}

impl Finding {
    fn ok(group: &str, check: &'static str, found: impl Into<String>) -> Self {
        let (group, found) = (group.to_owned(), found.into());
        Self { group, check, severity: Severity::Ok, found, why: "", remedy: None }
    }

    fn bad(
        severity: Severity,
        group: &str,
        check: &'static str,
        found: impl Into<String>,
        why: &'static str,
        remedy: Remedy,
    ) -> Self {
        let (group, found) = (group.to_owned(), found.into());
        Self { group, check, severity, found, why, remedy: Some(remedy) }
    }
}

fn command(line: impl Into<String>) -> Remedy {
    Remedy::Command(line.into())
}

fn advice(text: impl Into<String>) -> Remedy {
    Remedy::Advice(text.into())
}

/// A word as the shell takes it: names of NICs and files may hold almost anything.
fn shell_word(word: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "_-./@:+,".contains(character);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// All findings, in the order in which they are best read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Number of checks that found everything as it should be.
    pub ok: usize,
    /// Number of notes.
    pub notes: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// Number of errors.
    pub errors: usize,
    /// The findings, grouped.
    pub findings: Vec<Finding>,
}

/// Judges the facts.
pub fn examine(facts: &Facts) -> Report {
    let mut findings = Vec::new();
    findings.extend(kernel::check(&facts.kernel));
    findings.extend(process::check(facts));
    for nic in &facts.nics {
        findings.extend(nic::check(nic, facts));
        // Nothing more is known about a NIC that is not there.
        if nic.ifindex.is_some() {
            findings.extend(mtu::check(nic, facts));
            findings.extend(offload::check(nic));
            findings.extend(queues::check(nic, facts));
        }
    }
    findings.extend(routing::check(facts));
    findings.extend(daemon::check(facts));
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    Report {
        ok: count(Severity::Ok),
        notes: count(Severity::Note),
        warnings: count(Severity::Warning),
        errors: count(Severity::Error),
        findings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        for word in ["eth0.7", "a;reboot", "$(x)", "it's", ""] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", shell_word(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
        assert_eq!(shell_word("eth0.7"), "eth0.7");
    }
}

#[cfg(test)]
mod testing {
    //! What the tests of checks share.

    use super::*;

    /// The only finding of a check.
    #[track_caller]
    pub fn only<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        let found: Vec<&Finding> =
            findings.iter().filter(|finding| finding.check == check).collect();
        assert_eq!(found.len(), 1, "{check}: {findings:#?}");
        found[0]
    }

    /// Asserts how bad a check finds it, and what its remedy contains.
    #[track_caller]
    pub fn assert_finds(findings: &[Finding], check: &str, severity: Severity, remedy: &str) {
        let finding = only(findings, check);
        assert_eq!(finding.severity, severity, "{finding:#?}");
        assert_eq!(finding.remedy.is_some(), severity != Severity::Ok, "{finding:#?}");
        assert_eq!(finding.why.is_empty(), severity == Severity::Ok, "{finding:#?}");
        if let Some(Remedy::Command(text) | Remedy::Advice(text)) = &finding.remedy {
            assert!(text.contains(remedy), "`{remedy}` is missing: {finding:#?}");
        }
    }

    /// A configuration with one service.
    pub fn config(settings: &str, backend: &str) -> crate::config::model::Config {
        let text = format!(
            "interfaces: [eth0]\nservices:\n  - name: web\n    listen: {{address: 192.0.2.10, port: 80}}\n    {settings}\n    \
             backends: [{{name: web1, address: \"{backend}\"}}]\n"
        );
        let source = crate::config::model::Source { path: "lb.yaml".into(), text };
        match crate::config::parse(&source) {
            Ok(parsed) => parsed.config,
            Err(errors) => panic!("{errors}"),
        }
    }
}
