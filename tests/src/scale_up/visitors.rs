//! Visitors who stay: TLS connections that are open all the time and ask for a static file again and again.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    ScaleUp,
    load::{self, header},
};
use crate::client;

/// Longest time for an answer; a connection outlives a failover by repeating its packets.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every connection speaks once in so many seconds, some of them each second: a thousand at once would be work for whoever is measured.
const TURNS: usize = 5;

/// The connections. They speak by themselves, as long as this lives.
pub struct Visitors {
    orders: tokio::sync::mpsc::UnboundedSender<mpsc::Sender<usize>>,
}

/// Whose connection, the connection, and the web server that it has to stay with.
type Visitor = (usize, TlsStream<TcpStream>, String);

impl Visitors {
    /// Opens so many connections.
    pub fn start(lab: &ScaleUp, count: usize) -> anyhow::Result<Self> {
        let connector = Arc::new(load::connector(lab)?);
        let (orders, mut inbox) = tokio::sync::mpsc::unbounded_channel::<mpsc::Sender<usize>>();
        let (ready, started) = mpsc::channel();
        client::in_thread(&lab.client, move || async move {
            let mut visitors = open(&connector, 0..count).await;
            // The caller waits for exactly this.
            let _ = ready.send(visitors.len());
            let mut broken = 0;
            let mut speak = tokio::time::interval(Duration::from_secs(1));
            let mut turn = 0;
            loop {
                let order = tokio::select! {
                    order = inbox.recv() => match order {
                        Some(order) => Some(order),
                        None => return,
                    },
                    _ = speak.tick() => None,
                };
                turn += 1;
                let is_asking =
                    |(number, ..): &Visitor| order.is_some() || number % TURNS == turn % TURNS;
                let (asking, silent): (Vec<_>, Vec<_>) = visitors.into_iter().partition(is_asking);
                let before = asking.len();
                visitors = everybody_asks(asking).await;
                broken += before - visitors.len();
                visitors.extend(silent);
                // Who was cut off comes again.
                let known: BTreeSet<usize> = visitors.iter().map(|(number, ..)| *number).collect();
                let absent: Vec<usize> =
                    (0..count).filter(|number| !known.contains(number)).collect();
                visitors.extend(open(&connector, absent).await);
                if let Some(answer) = order {
                    let _ = answer.send(std::mem::take(&mut broken));
                }
            }
        });
        let opened = started.recv().context("the visitors' thread has ended")?;
        ensure!(opened == count, "only {opened} of {count} visitors could connect");
        Ok(Self { orders })
    }

    /// Has everybody ask once more; how many connections have broken, or have been answered by another server than the
    /// one they began with, since the last call.
    pub fn broken(&self) -> usize {
        let (answer, result) = mpsc::channel();
        let sent = self.orders.send(answer);
        assert!(sent.is_ok(), "the visitors' thread has ended");
        result.recv().expect("the visitors' thread answers")
    }
}

async fn open(
    connector: &Arc<TlsConnector>,
    numbers: impl IntoIterator<Item = usize>,
) -> Vec<Visitor> {
    let mut tasks = JoinSet::new();
    for number in numbers {
        let connector = connector.clone();
        tasks.spawn(async move {
            let first = async {
                let mut stream = load::connect(&connector, load::regular(number)).await?;
                let web = ask(&mut stream).await?;
                anyhow::Ok((number, stream, web))
            };
            timeout(PATIENCE, first).await.ok()?.ok()
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn everybody_asks(visitors: Vec<Visitor>) -> Vec<Visitor> {
    let mut tasks = JoinSet::new();
    for (number, mut stream, web) in visitors {
        tasks.spawn(async move {
            let now = timeout(PATIENCE, ask(&mut stream)).await.ok()?.ok()?;
            (now == web).then_some((number, stream, web))
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Fetches the style sheet, which the web server has itself; returns the web server's name.
async fn ask(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<String> {
    let question = format!("GET /static/style.css HTTP/1.1\r\nHost: {}\r\n\r\n", load::NAME);
    stream.write_all(question.as_bytes()).await?;
    let mut reply = Vec::new();
    let mut buffer = [0u8; 2048];
    loop {
        let text = String::from_utf8_lossy(&reply);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            ensure!(head.contains(" 200 "), "{head}");
            let length: usize = header(head, "Content-Length").context("no length")?.parse()?;
            if body.len() >= length {
                return Ok(header(head, "X-Web-Server").context("no name")?.to_owned());
            }
        }
        let length = stream.read(&mut buffer).await?;
        ensure!(length > 0, "closed");
        reply.extend(&buffer[..length]);
    }
}
