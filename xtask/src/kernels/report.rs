//! What a booted kernel has said.

use std::{fmt::Write as _, time::Duration};

/// The lines that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    release: Option<String>,
    /// Exit code of the suite.
    result: Option<i32>,
    summary: Option<String>,
    /// Program, instructions that the verifier looked at, and the most that it would.
    verified: Vec<(String, u64, u64)>,
}

impl Report {
    /// Reads a machine's output.
    pub fn of(lines: &[String]) -> Self {
        let mut report = Self::default();
        for line in lines {
            let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest.trim().to_owned());
            if let Some(release) = after("lb-kernel ") {
                report.release = Some(release);
            } else if let Some(code) = after("lb-result ") {
                report.result = code.parse().ok();
            } else if let Some(summary) = after("test result: ") {
                report.summary = Some(summary);
            } else if let Some(rest) = after("verified ") {
                report.verified.extend(verified(&rest));
            }
        }
        report
    }

    /// Why this kernel is not good enough.
    pub fn problem(&self) -> Option<String> {
        match (&self.release, self.result, self.verified.is_empty()) {
            (None, _, _) => Some("it did not boot".into()),
            (_, None, _) => Some("the tests did not end".into()),
            (_, Some(0), false) => None,
            (_, Some(0), true) => Some("no program was loaded".into()),
            (_, Some(code), _) => Some(format!(
                "the tests failed ({code}): {}",
                self.summary.as_deref().unwrap_or("")
            )),
        }
    }

    /// For people.
    pub fn text(&self, time: Duration) -> String {
        let release = self.release.as_deref().unwrap_or("?");
        let loaded = if self.verified.is_empty() { "not loaded" } else { "loaded" };
        let summary = self.summary.as_deref().unwrap_or("no result");
        let mut text =
            format!("kernel {release}: {loaded}, {summary} ({:.0} s in all)", time.as_secs_f64());
        for (program, count, limit) in &self.verified {
            let left = 100.0 - *count as f64 * 100.0 / *limit as f64;
            let _ = write!(
                text,
                "\n  {program:<9} the verifier looked at {count} instructions of {limit}: {left:.0} % left"
            );
        }
        text
    }
}

/// `NAME COUNT of LIMIT`
fn verified(text: &str) -> Option<(String, u64, u64)> {
    let mut words = text.split_whitespace();
    let (name, count) = (words.next()?, words.next()?.parse().ok()?);
    let limit = words.nth(1)?.parse().ok()?;
    Some((name.to_owned(), count, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        Report::of(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_good_boot() {
        let report = report(
            "\u{1b}[2Jlb-kernel 6.1.0-53-amd64\nverified balancer 400000 of 1000000\n\
             test result: ok. 7 passed\nlb-result 0",
        );
        assert_eq!(report.problem(), None);
        let text = report.text(Duration::from_secs(9));
        assert!(text.starts_with("kernel 6.1.0-53-amd64: loaded, ok. 7 passed (9 s"), "{text}");
        assert!(text.contains("400000 instructions of 1000000: 60 % left"), "{text}");
    }

    #[test]
    fn whatever_is_missing_is_a_problem() {
        for (text, problem) in [
            ("", "it did not boot"),
            ("lb-kernel 6.1", "the tests did not end"),
            ("lb-kernel 6.1\nlb-result 0", "no program was loaded"),
            ("lb-kernel 6.1\ntest result: FAILED. 1 failed\nlb-result 101", "1 failed"),
        ] {
            let found = report(text).problem().expect(text);
            assert!(found.contains(problem), "{found}");
        }
    }
}
