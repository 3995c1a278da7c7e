//! The DNS query: does the server answer with the code, and with the record that is expected?

use std::{str::FromStr as _, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, Query},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};

use super::{
    CheckCode, Outcome,
    road::{Road, Trouble},
};
use crate::config::{model::Dns, value::dns_code};

/// Longest answer in a datagram that is asked for: fits every link.
const DATAGRAM: usize = 1_232;

/// One query.
pub(super) struct Question<'a> {
    dns: &'a Dns,
    message: Message,
    began: Instant,
    deadline: Instant,
}

impl<'a> Question<'a> {
    /// A query with a number of its own. An error is the prober's fault.
    pub(super) fn new(dns: &'a Dns, began: Instant, deadline: Instant) -> Result<Self, Outcome> {
        let ours = |error: hickory_proto::ProtoError| {
            let text = format!("cannot write the query: {error}");
            Outcome::new(CheckCode::SockErr, &text, Duration::ZERO)
        };
        let mut name = Name::from_ascii(&dns.name).map_err(ours)?;
        name.set_fqdn(true);
        let record = RecordType::from_str(&dns.record).map_err(ours)?;
        let mut message = Message::new();
        message.set_id(number()).set_recursion_desired(true).add_query(Query::query(name, record));
        Ok(Self { dns, message, began, deadline })
    }

    /// Asks by datagram.
    pub(super) async fn by_udp(&self, road: &Road<'_>) -> Outcome {
        let asking = async {
            let mut socket = road.datagrams().await?;
            socket.send(&self.bytes()?).await?;
            let mut answer = vec![0; 65_535];
            loop {
                let length = socket.recv(&mut answer).await?;
                // Whoever knows neither our port nor the query's number can say what he likes.
                match self.read(&answer[..length]) {
                    Ok(Some(message)) => return Result::<_, Trouble>::Ok(Ok(message)),
                    Ok(None) => {}
                    Err(error) => return Ok(Err(error)),
                }
            }
        };
        match timeout_at(self.deadline, asking).await {
            Err(_) => self.outcome(CheckCode::L7Tout, "no answer in time"),
            Ok(Err(trouble)) => trouble.outcome(self.began),
            Ok(Ok(Err(error))) => self.outcome(CheckCode::L7Rsp, &error),
            Ok(Ok(Ok(message))) => self.judge(&message),
        }
    }

    /// Asks over a connection.
    pub(super) async fn by_tcp(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome {
        let asking = async {
            let bytes = self.bytes()?;
            let length = (bytes.len() as u16).to_be_bytes();
            stream.write_all(&[&length[..], &bytes].concat()).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(self.read(&answer))
        };
        match timeout_at(self.deadline, asking).await {
            Err(_) => self.outcome(CheckCode::L7Tout, "connected, but no complete answer in time"),
            Ok(Err(error)) => self.outcome(CheckCode::L7Rsp, &error.to_string()),
            Ok(Ok(Err(error))) => self.outcome(CheckCode::L7Rsp, &error),
            Ok(Ok(Ok(None))) => self.outcome(CheckCode::L7Rsp, "the answer is to another question"),
            Ok(Ok(Ok(Some(message)))) => self.judge(&message),
        }
    }

    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let mut message = self.message.clone();
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(DATAGRAM as u16);
        message.set_edns(edns);
        message.to_vec().map_err(std::io::Error::other)
    }

    /// A message that answers this question; `None` = it answers another one.
    fn read(&self, bytes: &[u8]) -> Result<Option<Message>, String> {
        if bytes.get(..2) != Some(&self.message.id().to_be_bytes()) {
            return Ok(None);
        }
        let message =
            Message::from_vec(bytes).map_err(|error| format!("the answer is not DNS: {error}"))?;
        // A server that refuses may leave the question out.
        let same = message.queries().is_empty() || message.queries() == self.message.queries();
        Ok(Some(message).filter(|message| message.message_type() == MessageType::Response && same))
    }

    fn judge(&self, message: &Message) -> Outcome {
        let code = u16::from(message.response_code());
        let answers: Vec<String> =
            message.answers().iter().map(|record| record.data().to_string()).collect();
        let words = format!("{}, {} records", dns_code(code), answers.len());
        if dns_code(code) != self.dns.rcode {
            return self.outcome(CheckCode::L7Sts, &words);
        }
        match &self.dns.expect {
            None => self.outcome(CheckCode::L7Ok, &words),
            Some(text) => match answers.iter().find(|answer| answer.contains(text)) {
                Some(answer) => self.outcome(CheckCode::L7Ok, &format!("{words}: {answer}")),
                None if message.truncated() => {
                    let text = format!("{words}, cut short: write `transport: tcp`");
                    self.outcome(CheckCode::L7Rsp, &text)
                }
                None => {
                    let text = format!("{words}, none as expected: {}", answers.join("; "));
                    self.outcome(CheckCode::L7Rsp, &text)
                }
            },
        }
    }

    fn outcome(&self, code: CheckCode, output: &str) -> Outcome {
        Outcome::new(code, output, self.began.elapsed())
    }
}

/// A number that nobody can guess who has not seen the query.
fn number() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(Instant::now()) as u16
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::ResponseCode,
        rr::{RData, Record, rdata::A},
    };
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::config::model::DnsTransport;

    fn dns(rcode: &str, expect: Option<&str>) -> Dns {
        Dns {
            name: "shop.example".into(),
            record: "A".into(),
            rcode: rcode.into(),
            expect: expect.map(str::to_owned),
            transport: DnsTransport::Udp,
        }
    }

    /// What a server with one record says.
    fn answer(query: &[u8], code: ResponseCode) -> Vec<u8> {
        let query = Message::from_vec(query).unwrap();
        let mut message = Message::new();
        message.set_id(query.id()).set_message_type(MessageType::Response);
        message.set_response_code(code).add_queries(query.queries().to_vec());
        if code == ResponseCode::NoError {
            let record = RData::A(A::new(192, 0, 2, 7));
            let name = query.queries()[0].name().clone();
            message.add_answer(Record::from_rdata(name, 60, record));
        }
        message.to_vec().unwrap()
    }

    async fn ask(dns: &Dns, server: ResponseCode) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut bytes = [0; 512];
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            let mut other = answer(&bytes[..length], server);
            other[0] ^= 0xff;
            socket.send_to(&other, from).await.unwrap();
            socket.send_to(&answer(&bytes[..length], server), from).await.unwrap();
        });
        let began = Instant::now();
        let question = Question::new(dns, began, began + Duration::from_secs(60)).unwrap();
        let found = question.by_udp(&Road { address: at, source: None, vip: None }).await;
        task.await.unwrap();
        format!("{} {}", found.code, found.output)
    }

    #[tokio::test]
    async fn code_and_record_decide() {
        use ResponseCode::{NXDomain, NoError, Refused};
        let good = dns("noerror", Some("192.0.2.7"));
        assert_eq!(ask(&good, NoError).await, "L7OK noerror, 1 records: 192.0.2.7");
        assert_eq!(ask(&dns("noerror", None), NoError).await, "L7OK noerror, 1 records");
        let other = dns("noerror", Some("192.0.2.9"));
        assert_eq!(
            ask(&other, NoError).await,
            "L7RSP noerror, 1 records, none as expected: 192.0.2.7"
        );
        assert_eq!(ask(&good, Refused).await, "L7STS refused, 0 records");
        assert_eq!(ask(&dns("nxdomain", None), NXDomain).await, "L7OK nxdomain, 0 records");
    }

    #[tokio::test]
    async fn over_a_connection_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            let answer = answer(&query, ResponseCode::NoError);
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        });
        let dns = dns("noerror", Some("192.0.2.7"));
        let began = Instant::now();
        let question = Question::new(&dns, began, began + Duration::from_secs(60)).unwrap();
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let found = question.by_tcp(stream).await;
        assert_eq!(found.code, CheckCode::L7Ok, "{found:?}");
    }

    #[test]
    fn no_bytes_make_it_fall_over() {
        let dns = dns("noerror", None);
        let question = Question::new(&dns, Instant::now(), Instant::now()).unwrap();
        let query = question.bytes().unwrap();
        for length in 0..query.len() {
            let mut bytes = query[..length].to_vec();
            let _ = question.read(&bytes);
            bytes.iter_mut().skip(2).for_each(|byte| *byte ^= 0xc3);
            let _ = question.read(&bytes);
        }
        assert_eq!(question.read(&query), Ok(None), "the query itself is no answer");
    }
}
