//! Connections from peers: accepted in a bounded number, read no faster than the controller takes what they say.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{
    Event, Outbox, PATIENCE, SILENCE,
    channel::{self, Sender},
    message::{Hello, Message},
    outgoing::{Unfit, unfit},
};

/// Connections from the addresses of peers beside those that they need: a node may dial anew before the old one has ended.
const SPARE: usize = 16;
/// Connections from elsewhere: nodes that dial from an address that is not in the file, and strangers.
const OTHERS: usize = 8;
/// Messages of one connection that wait for the controller.
const WAITING: usize = 8;
/// Entries a second that one connection may bring, twice what a node sends.
const RATE: f64 = 100_000.0;

/// What all connections share.
pub struct Listener {
    /// The cluster's.
    pub secret: super::Secret,
    /// What this node says of itself.
    pub hello: Hello,
    /// Where peers are, as the file says.
    pub addresses: HashSet<IpAddr>,
    /// Of the peers that are dialled.
    pub outboxes: Vec<Arc<Outbox>>,
    /// Whoever wants to know.
    pub events: mpsc::UnboundedSender<Event>,
}

/// A socket that listens.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(64)
}

/// Accepts for as long as it is polled.
pub async fn listen(listener: TcpListener, shared: Listener) {
    // Strangers cannot take the room of nodes.
    let room = Arc::new(Semaphore::new(shared.outboxes.len() + SPARE));
    let room_for_others = Arc::new(Semaphore::new(OTHERS));
    let shared = Arc::new(shared);
    let numbers = AtomicU64::new(0);
    // Ends with the listener.
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let known = shared.addresses.contains(&from.ip().to_canonical());
                let room = if known { &room } else { &room_for_others };
                // Without room it is closed at once.
                let Ok(permit) = room.clone().try_acquire_owned() else { continue };
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let one = Incoming { shared: shared.clone(), from, number };
                tasks.spawn(one.run(stream, permit));
            }
            // Out of file descriptors, most likely.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

struct Incoming {
    shared: Arc<Listener>,
    from: SocketAddr,
    number: u64,
}

impl Incoming {
    async fn run(self, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let events = &self.shared.events;
        let from = self.from;
        let greeted = match timeout(PATIENCE, self.greet(stream)).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(None)) => return,
            Ok(Err(Some(why))) => {
                let _ = events.send(Event::Refused { from, why });
                return;
            }
            Err(_) => {
                let why = format!("it said nothing within {} s", PATIENCE.as_secs());
                let _ = events.send(Event::Refused { from, why });
                return;
            }
        };
        let (sender, receiver, hello) = greeted;
        let connection = self.number;
        // The controller has gone if one of these fails.
        let _ = events.send(Event::Joined { connection, hello, from });
        for outbox in &self.shared.outboxes {
            outbox.wake.notify_one();
        }
        let why = self.receive(sender, receiver).await;
        let _ = events.send(Event::Left { connection, why });
    }

    async fn greet(
        &self,
        stream: TcpStream,
    ) -> Result<(Sender, channel::Receiver, Hello), Option<String>> {
        let because = |what: &dyn std::fmt::Display| Some(what.to_string());
        stream.set_nodelay(true).map_err(|error| because(&error))?;
        let channel = channel::accept(stream, &self.shared.secret).await;
        let (mut sender, mut receiver) = channel.map_err(|error| because(&error))?;
        let hello = receiver.receive().await.map_err(|error| because(&error))?.0;
        let Message::Hello(hello) = hello else { return Err(because(&"it did not greet")) };
        // Also to who does not fit: both sides can tell why.
        let answer = Message::Hello(self.shared.hello.clone());
        sender.send(&[answer]).await.map_err(|error| because(&error))?;
        match unfit(&self.shared.hello, &hello) {
            None => {}
            Some(Unfit::Itself) => return Err(None),
            Some(Unfit::Namesake(why) | Unfit::Because(why)) => return Err(Some(why)),
        }
        Ok((sender, receiver, hello))
    }

    async fn receive(&self, mut sender: Sender, mut receiver: channel::Receiver) -> String {
        let waiting = Arc::new(Semaphore::new(WAITING));
        let mut may = Instant::now();
        loop {
            let message = match timeout(SILENCE, receiver.receive()).await {
                Ok(Ok((message, _))) => message,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("silent for {} s", SILENCE.as_secs()),
            };
            let pause = Duration::from_secs_f64(message.entries() as f64 / RATE);
            may = may.max(Instant::now()) + pause;
            let beat = match message {
                Message::Beat(number) => Some(number),
                Message::Hello(_) | Message::Heard(_) => return "it greets twice".to_owned(),
                _ => None,
            };
            // Never closed.
            let Ok(permit) = waiting.clone().acquire_owned().await else {
                return "the daemon ends".to_owned();
            };
            let connection = self.number;
            if self.shared.events.send(Event::Received { connection, message, permit }).is_err() {
                return "the daemon ends".to_owned();
            }
            if let Some(number) = beat {
                let answer = [Message::Heard(number)];
                match timeout(SILENCE, sender.send(&answer)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "it takes no answer".to_owned(),
                }
            }
            tokio::time::sleep_until(may).await;
        }
    }
}
