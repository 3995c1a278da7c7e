//! Whether an answer is what is expected.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use regex::bytes::Regex;

use crate::config::{model::Expect, value::Pattern};

/// Limit of what is read of an answer, bytes; of HTTP, of its head and of its body.
pub(super) const LIMIT: usize = 64 << 10;

/// Most expressions that are kept compiled; more than one configuration has, so that old ones go some time.
const KEPT: usize = 4_096;

/// Whether all of it is somewhere in the answer.
pub(super) fn found(answer: &[u8], expect: &[Expect]) -> bool {
    expect.iter().all(|one| match one {
        Expect::Text(text) => contains(answer, text.as_bytes()),
        Expect::Regex(text) => compiled(text).is_some_and(|regex| regex.is_match(answer)),
    })
}

fn contains(answer: &[u8], text: &[u8]) -> bool {
    text.is_empty() || answer.windows(text.len()).any(|window| window == text)
}

/// Compiling takes longer than matching: done once. `None` cannot be: the configuration's types have compiled it, too.
fn compiled(text: &str) -> Option<Regex> {
    static MADE: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = made.get(text) {
        return Some(regex.clone());
    }
    let regex = Pattern::compile(text).ok()?;
    if made.len() >= KEPT {
        made.clear();
    }
    made.insert(text.to_owned(), regex.clone());
    Some(regex)
}

/// The first line, for people.
pub(super) fn first_line(answer: &[u8]) -> String {
    let line = answer.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(256)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_expressions_are_found() {
        let regex = |text: &str| Expect::Regex(text.to_owned());
        let text = Expect::Text("+OK".into());
        let found = |answer: &[u8], one: &Expect| super::found(answer, std::slice::from_ref(one));
        assert!(found(b"HTTP +OK", &text) && !found(b"+O", &text));
        let both = [text, regex("[0-9]")];
        assert!(super::found(b"+OK 3", &both) && !super::found(b"+OK", &both));
        assert!(found(b"\xff\x00 Status:  READY\n", &regex("(?i)status: *(ok|ready)")));
        assert!(!found(b"status: bad", &regex("(?i)status: *(ok|ready)")));
        assert!(found(b"\xff\xfe", &regex("(?-u)^\\xff\\xfe$")));
        for _ in 0..2 {
            assert!(found(b"ok", &regex("^ok$")), "compiled once, used twice");
        }
    }
}
