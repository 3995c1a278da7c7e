//! The plain TCP question: what is sent, and what has to be in the answer.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};

use super::{
    CheckCode, Outcome,
    expect::{LIMIT, first_line, found},
    stream::Stream,
};
use crate::config::model::Expect;

/// Sends, waits for the text, and gives the verdict by `deadline`. The server may speak first.
pub(super) async fn ask(
    mut stream: Stream,
    send: Option<&str>,
    expect: &[Expect],
    began: Instant,
    deadline: Instant,
) -> Outcome {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    if let Some(text) = send {
        match timeout_at(deadline, stream.write_all(text.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return outcome(CheckCode::L7Rsp, &error.to_string()),
            Err(_) => return outcome(CheckCode::L7Tout, "connected, but takes no bytes"),
        }
    }
    if expect.is_empty() {
        return outcome(CheckCode::L7Ok, "sent");
    }
    let mut answer = Vec::new();
    loop {
        if found(&answer, expect) {
            return outcome(CheckCode::L7Ok, &first_line(&answer));
        }
        if answer.len() >= LIMIT {
            return outcome(CheckCode::L7Rsp, "not in the first 64 KiB of the answer");
        }
        match timeout_at(deadline, stream.read_buf(&mut answer)).await {
            Ok(Ok(0)) => {
                let text = format!("not what is expected: {}", first_line(&answer));
                return outcome(CheckCode::L7Rsp, &text);
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return outcome(CheckCode::L7Rsp, &error.to_string()),
            Err(_) if answer.is_empty() => {
                return outcome(CheckCode::L7Tout, "connected, but no answer in time");
            }
            Err(_) => {
                let text = format!("not what is expected in time: {}", first_line(&answer));
                return outcome(CheckCode::L7Tout, &text);
            }
        }
    }
}
