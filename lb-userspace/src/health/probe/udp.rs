//! The datagram: is it answered as expected, or at least not refused?

use tokio::time::{Instant, timeout_at};

use super::{
    CheckCode, Outcome,
    expect::{LIMIT, first_line, found},
    road::{Road, Trouble},
};
use crate::config::model::Expect;

/// Sends one datagram, and gives the verdict by `deadline`. The first answer decides.
pub(super) async fn ask(
    road: &Road<'_>,
    (send, expect): (&[u8], &[Expect]),
    began: Instant,
    deadline: Instant,
) -> Outcome {
    let outcome = |code, output: &str| Outcome::new(code, output, began.elapsed());
    let mut answer = vec![0; LIMIT];
    let asking = async {
        let mut socket = road.datagrams().await?;
        socket.send(send).await?;
        // ICMP port unreachable comes as an error of the socket.
        socket.recv(&mut answer).await.map_err(Trouble::Io)
    };
    let length = match timeout_at(deadline, asking).await {
        Ok(Ok(length)) => length,
        Ok(Err(trouble)) => return trouble.outcome(began),
        Err(_) if expect.is_empty() => {
            return outcome(CheckCode::L4Ok, "no answer, and no refusal");
        }
        Err(_) => return outcome(CheckCode::L7Tout, "no answer in time"),
    };
    let answer = &answer[..length];
    match found(answer, expect) {
        true if expect.is_empty() => {
            outcome(CheckCode::L7Ok, &format!("answered with {length} bytes"))
        }
        true => outcome(CheckCode::L7Ok, &first_line(answer)),
        false => {
            let text = format!("not what is expected: {}", first_line(answer));
            outcome(CheckCode::L7Rsp, &text)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn silence_is_good_unless_an_answer_is_expected_and_a_refusal_is_bad() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut bytes = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut bytes).await {
                if &bytes[..length] == b"ping" {
                    let _ = server.send_to(b"pong\nmore", from).await;
                }
            }
        });
        let ask = async |send: &'static [u8], expect: Option<&str>, port: u16| {
            let expect: Vec<_> = expect.into_iter().map(|text| Expect::Text(text.into())).collect();
            let began = Instant::now();
            let deadline = began + Duration::from_millis(300);
            let address = SocketAddr::new(at.ip(), port);
            let road = Road { address, source: None, vip: None };
            ask(&road, (send, &expect), began, deadline).await
        };
        let good = ask(b"ping", Some("pong"), at.port()).await;
        assert_eq!((good.code, good.output.as_str()), (CheckCode::L7Ok, "pong"));
        assert_eq!(ask(b"ping", None, at.port()).await.code, CheckCode::L7Ok);
        assert_eq!(ask(b"ping", Some("peng"), at.port()).await.code, CheckCode::L7Rsp);
        assert_eq!(ask(b"", Some("pong"), at.port()).await.code, CheckCode::L7Tout);
        assert_eq!(ask(b"", None, at.port()).await.code, CheckCode::L4Ok);
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let refused = ask(b"", None, closed).await;
        assert_eq!((refused.code, refused.good), (CheckCode::L4Con, Some(false)), "{refused:?}");
    }
}
