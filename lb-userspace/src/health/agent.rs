//! HAProxy's agent check: a small program beside a backend that says, in one line over TCP, what the backend wants: how much of
//! its weight, new flows or none, up or down. What it does not say stays as it was, and an agent that is silent, gone or
//! beyond understanding changes nothing: whether the backend works is for its health check to find.
//!
//! Words are separated by blanks, tabs and commas, in capital or small letters; of each kind the last one counts:
//!
//! | word | meaning |
//! |---|---|
//! | `75%` | the share of the backend's weight, up to what 256 are of it; 0% = no new flows |
//! | `up` | takes back `down`, `fail` and `stopped`; nothing else does |
//! | `down`, `fail`, `stopped` | as if the checks had found it DOWN |
//! | `drain`, `maint`, `ready` | no new flows; out; neither. An operator's own word is not touched: the stricter one counts |
//! | `maxconn:30` | is for proxies: has no effect, and the output says so |
//! | `# ...` | to the end of the line: for people |

mod watch;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

pub use self::watch::{AgentEvent, AgentKey, Agents};
use super::{CheckCode, Outcome};
use crate::plan::members::{Admin, Agent};

/// Longest line, bytes.
const LONGEST: usize = 1_024;

/// What one line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    percent: Option<u16>,
    admin: Option<Admin>,
    /// `up` = false.
    down: Option<bool>,
}

/// What is known of a backend's agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentHealth {
    /// All that it has said.
    pub says: Agent,
    /// HAProxy's code of the last time it was asked; empty = never.
    pub code: String,
    /// What it said then, or why it did not; no control characters.
    pub output: String,
    /// How long that took.
    pub milliseconds: f64,
}

impl AgentHealth {
    /// Takes in the result of one question.
    pub fn heard(&mut self, event: &AgentEvent) {
        if let Some(answer) = &event.answer {
            let says = &mut self.says;
            says.percent = answer.percent.or(says.percent);
            says.admin = answer.admin.unwrap_or(says.admin);
            says.down = answer.down.unwrap_or(says.down);
        }
        event.outcome.code.name().clone_into(&mut self.code);
        self.output.clone_from(&event.outcome.output);
        self.milliseconds = event.outcome.duration.as_secs_f64() * 1e3;
    }
}

/// All that an agent has said, for people: `down drain 50%`; `up` if that is nothing.
pub fn words(says: &Agent) -> String {
    let admin = Some(says.admin.name()).filter(|_| says.admin != Admin::Ready);
    let down = says.down.then_some("down");
    let percent = says.percent.filter(|percent| *percent != 100);
    let words: Vec<String> = [down, admin]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .chain(percent.map(|percent| format!("{percent}%")))
        .collect();
    if words.is_empty() { "up".to_owned() } else { words.join(" ") }
}

/// Asks an agent once.
async fn ask(key: &AgentKey) -> (Outcome, Option<Answer>) {
    let began = Instant::now();
    let deadline = began + key.timeout;
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    let mut stream = match timeout_at(deadline, TcpStream::connect(key.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return (Outcome::connect_failed(&error, began.elapsed()), None),
        Err(_) => return (outcome(CheckCode::L4Tout, "no connection in time"), None),
    };
    let mut line = Vec::new();
    let talking = async {
        if let Some(text) = &key.send {
            stream.write_all(text.as_bytes()).await?;
        }
        while !line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) && line.len() < LONGEST {
            if stream.read_buf(&mut line).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    match timeout_at(deadline, talking).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return (outcome(CheckCode::L7Rsp, &error.to_string()), None),
        Err(_) => return (outcome(CheckCode::L7Tout, "connected, but no line in time"), None),
    }
    let line = line.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    judge(line.trim(), began.elapsed())
}

/// A line's meaning, and the code that HAProxy has for it.
fn judge(line: &str, duration: Duration) -> (Outcome, Option<Answer>) {
    let (words, description) = line.split_once('#').unwrap_or((line, ""));
    let mut answer = Answer::default();
    let mut notes = Vec::new();
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let small = word.to_ascii_lowercase();
        match small.as_str() {
            "up" => answer.down = Some(false),
            "down" | "fail" | "stopped" => answer.down = Some(true),
            "ready" => answer.admin = Some(Admin::Ready),
            "drain" => answer.admin = Some(Admin::Drain),
            "maint" => answer.admin = Some(Admin::Maint),
            _ if small.starts_with("maxconn:") => notes.push(format!("{word} has no effect")),
            _ => match percent(&small) {
                Some(percent) => answer.percent = Some(percent),
                None => notes.push(format!("{word} is not understood")),
            },
        }
    }
    let said = answer != Answer::default();
    let code = match answer.down {
        Some(true) => CheckCode::L7Sts,
        _ if !said
            && (notes.is_empty() || notes.iter().any(|note| note.ends_with("understood"))) =>
        {
            CheckCode::L7Rsp
        }
        _ => CheckCode::L7Ok,
    };
    let mut output = match (line.is_empty(), description.trim()) {
        (true, _) => "an empty line".to_owned(),
        (false, "") => words.trim().to_owned(),
        (false, description) => format!("{}: {description}", words.trim()),
    };
    if !notes.is_empty() {
        output = format!("{output} ({})", notes.join("; "));
    }
    (Outcome::new(code, &output, duration), said.then_some(answer))
}

/// `75%`, as HAProxy reads it: at most 25600.
fn percent(word: &str) -> Option<u16> {
    let digits = word.strip_suffix('%')?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse::<u32>().map_or(25_600, |number| number.min(25_600) as u16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(lines: &[&str]) -> AgentHealth {
        let mut health = AgentHealth::default();
        for line in lines {
            let (outcome, answer) = judge(line, Duration::ZERO);
            health.heard(&AgentEvent { key: watch::tests::key(1), outcome, answer });
        }
        health
    }

    #[test]
    fn lines_mean_what_they_mean_to_haproxy() {
        let cases: [(&str, &str, &str); 14] = [
            ("up", "up", "L7OK"),
            ("UP 75%", "75%", "L7OK"),
            ("50%, drain", "drain 50%", "L7OK"),
            ("down # out of disk", "down", "L7STS"),
            ("fail", "down", "L7STS"),
            ("stopped", "down", "L7STS"),
            ("maint", "maint", "L7OK"),
            ("maint ready", "up", "L7OK"),
            ("10%\t20%", "20%", "L7OK"),
            ("0%", "0%", "L7OK"),
            ("maxconn:30", "up", "L7OK"),
            ("99999999999%", "25600%", "L7OK"),
            ("", "up", "L7RSP"),
            ("hello -5% %", "up", "L7RSP"),
        ];
        for (line, meaning, code) in cases {
            let health = after(&[line]);
            assert_eq!(
                (words(&health.says).as_str(), health.code.as_str()),
                (meaning, code),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_not_said_stays() {
        assert_eq!(words(&after(&["down 50%", "drain", "ready"]).says), "down 50%");
        assert_eq!(words(&after(&["down 50%", "", "what?", "100%"]).says), "down");
        assert_eq!(words(&after(&["down", "up"]).says), "up");
    }

    #[test]
    fn people_are_told_what_it_said() {
        assert_eq!(after(&["down # out of disk"]).output, "down: out of disk");
        assert_eq!(after(&["up maxconn:30"]).output, "up maxconn:30 (maxconn:30 has no effect)");
        assert_eq!(after(&["upp"]).output, "upp (upp is not understood)");
        assert_eq!(after(&[""]).output, "an empty line");
    }

    proptest! {
        #[test]
        fn no_line_makes_it_fall_over(line in "\\PC{0,40}|[0-9%a-z#, ]{0,20}") {
            let (outcome, answer) = judge(&line, Duration::ZERO);
            prop_assert_eq!(answer.is_none(), answer.is_none_or(|answer| answer == Answer::default()));
            prop_assert!(!outcome.output.chars().any(char::is_control));
        }
    }
}
