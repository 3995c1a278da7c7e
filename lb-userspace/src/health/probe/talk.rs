//! The plain TCP question: what is sent, and what has to be in the answer.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{CheckCode, LIMIT, Outcome, contains};

/// Sends, waits for the text, and gives the verdict by `deadline`. The server may speak first.
pub(super) async fn ask(
    mut stream: TcpStream,
    send: Option<&str>,
    expect: Option<&str>,
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
    let Some(expect) = expect else { return outcome(CheckCode::L7Ok, "sent") };
    let mut answer = Vec::new();
    loop {
        if contains(&answer, expect) {
            return outcome(CheckCode::L7Ok, &shown(&answer));
        }
        if answer.len() >= LIMIT {
            return outcome(CheckCode::L7Rsp, "not in the first 64 KiB of the answer");
        }
        match timeout_at(deadline, stream.read_buf(&mut answer)).await {
            Ok(Ok(0)) => {
                let text = format!("not what is expected: {}", shown(&answer));
                return outcome(CheckCode::L7Rsp, &text);
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return outcome(CheckCode::L7Rsp, &error.to_string()),
            Err(_) if answer.is_empty() => {
                return outcome(CheckCode::L7Tout, "connected, but no answer in time");
            }
            Err(_) => {
                let text = format!("not what is expected in time: {}", shown(&answer));
                return outcome(CheckCode::L7Tout, &text);
            }
        }
    }
}

/// The first line, for people.
fn shown(answer: &[u8]) -> String {
    let line = answer.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(256)]).into_owned()
}
