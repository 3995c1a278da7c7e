//! The connection to one peer: dialled for as long as the daemon runs, with pauses.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    BEAT, Event, Outbox, PATIENCE, SILENCE,
    channel::{self, Receiver, Secret, Sender},
    message::{Hello, Message, VERSION, is_name},
};

/// From one attempt to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Entries of one write.
const BATCH: usize = 2_048;
/// Entries a second at most: 20,000 new flows are some 5 megabit a second.
const RATE: f64 = 50_000.0;

/// What it takes to reach one peer.
pub struct Dialer {
    /// Its place in the settings.
    pub peer: usize,
    /// Where it listens.
    pub address: SocketAddr,
    /// The cluster's.
    pub secret: Secret,
    /// What this node says of itself.
    pub hello: Hello,
    /// What is to be sent.
    pub outbox: Arc<Outbox>,
    /// Whoever wants to know.
    pub events: mpsc::UnboundedSender<Event>,
}

/// Why a connection has ended.
enum End {
    /// It is no other node.
    Itself,
    /// In words.
    Because(String),
    /// It is another node with this one's name, in words.
    Namesake(String),
}

impl Dialer {
    /// Dials, sends, and dials again.
    pub async fn run(self) {
        let mut said = None;
        loop {
            let end = self.talk().await;
            let was_connected = self.outbox.is_connected();
            self.outbox.set_connected(false);
            let (why, is_namesake) = match end {
                End::Itself => {
                    // The controller has gone if this fails, and the task goes with it.
                    let _ = self.events.send(Event::Itself { peer: self.peer });
                    return;
                }
                End::Because(why) => (why, false),
                End::Namesake(why) => (why, true),
            };
            if was_connected || said.as_ref() != Some(&why) {
                let event = Event::Lost { peer: self.peer, why: why.clone(), is_namesake };
                if self.events.send(event).is_err() {
                    return;
                }
            }
            said = Some(why);
            tokio::select! {
                () = sleep(PAUSE) => {}
                // Who wakes has been let in: that does not happen more often than nodes greet each other.
                () = self.outbox.wake.notified() => sleep(PAUSE / 10).await,
            }
        }
    }

    async fn talk(&self) -> End {
        match timeout(PATIENCE, self.greet()).await {
            Err(_) => End::Because(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(Err(end)) => end,
            Ok(Ok((sender, receiver))) => {
                let why = tokio::select! {
                    why = self.send(sender) => why,
                    why = self.hear(receiver) => why,
                };
                End::Because(why)
            }
        }
    }

    async fn greet(&self) -> Result<(Sender, Receiver), End> {
        let because = |what: &dyn std::fmt::Display| End::Because(what.to_string());
        let stream = TcpStream::connect(self.address).await.map_err(|error| because(&error))?;
        stream.set_nodelay(true).map_err(|error| because(&error))?;
        let channel = channel::connect(stream, &self.secret).await;
        let (mut sender, mut receiver) = channel.map_err(|error| match error {
            // Who has another secret ends the connection without a word.
            channel::ChannelError::Io(error) => {
                End::Because(format!("{error}: another secret there, or no lb"))
            }
            error => because(&error),
        })?;
        let hello = Message::Hello(self.hello.clone());
        sender.send(&[hello]).await.map_err(|error| because(&error))?;
        let answer = receiver.receive().await.map_err(|error| because(&error))?.0;
        let Message::Hello(hello) = answer else {
            return Err(End::Because("it did not greet".to_owned()));
        };
        match unfit(&self.hello, &hello) {
            None => {}
            Some(Unfit::Itself) => return Err(End::Itself),
            Some(Unfit::Namesake(why)) => return Err(End::Namesake(why)),
            Some(Unfit::Because(why)) => return Err(End::Because(why)),
        }
        self.outbox.set_connected(true);
        if self.events.send(Event::Connected { peer: self.peer, hello }).is_err() {
            return Err(End::Because("the daemon ends".to_owned()));
        }
        Ok((sender, receiver))
    }

    async fn send(&self, mut sender: Sender) -> String {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        let mut may = Instant::now();
        loop {
            let messages = tokio::select! {
                biased;
                _ = beats.tick() => {
                    number += 1;
                    self.outbox.beat_sent();
                    vec![Message::Beat(number)]
                }
                messages = async {
                    sleep_until(may).await;
                    self.outbox.next(BATCH).await
                } => messages,
            };
            let entries: usize = messages.iter().map(Message::entries).sum();
            may = may.max(Instant::now()) + Duration::from_secs_f64(entries as f64 / RATE);
            match timeout(SILENCE, sender.send(&messages)).await {
                Ok(Ok(bytes)) => {
                    let traffic = &self.outbox.traffic;
                    traffic.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    traffic.entries.fetch_add(entries as u64, Ordering::Relaxed);
                }
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("it takes nothing for {} s", SILENCE.as_secs()),
            }
        }
    }

    async fn hear(&self, mut receiver: Receiver) -> String {
        loop {
            match timeout(SILENCE, receiver.receive()).await {
                Ok(Ok((Message::Heard(_), _))) => self.outbox.beat_answered(),
                Ok(Ok(_)) => return "it answers what nobody has asked".to_owned(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("silent for {} s", SILENCE.as_secs()),
            }
        }
    }
}

/// Why two nodes cannot talk.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// They are one.
    Itself,
    /// They have the same name, in words.
    Namesake(String),
    /// In words.
    Because(String),
}

/// Why two nodes cannot talk, if they cannot.
pub fn unfit(own: &Hello, other: &Hello) -> Option<Unfit> {
    if other.version != VERSION {
        return Some(Unfit::Because(format!(
            "it speaks version {} of the cluster's protocol, this node {VERSION}: update the older of the two",
            other.version
        )));
    }
    if other.instance == own.instance {
        return Some(Unfit::Itself);
    }
    if ![&other.node, &other.seed, &other.release].into_iter().all(|text| is_name(text)) {
        return Some(Unfit::Because("its name, seed or release is no such thing".to_owned()));
    }
    if other.node == own.node {
        return Some(Unfit::Namesake(format!(
            "it is called {}, as this node is: give one of them another name (`lb run --node`)",
            own.node
        )));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_names_have_to_fit() {
        let hello = |version, node: &str, instance| Hello {
            version,
            node: node.to_owned(),
            instance,
            seed: "a1b2c3d4".to_owned(),
            release: "0.1.0".to_owned(),
        };
        let own = hello(VERSION, "a", 1);
        assert_eq!(unfit(&own, &hello(VERSION, "b", 2)), None);
        assert_eq!(unfit(&own, &hello(VERSION, "a", 1)), Some(Unfit::Itself), "this node itself");
        let namesake = unfit(&own, &hello(VERSION, "a", 2));
        assert!(
            matches!(&namesake, Some(Unfit::Namesake(why)) if why.contains("is called a")),
            "{namesake:?}"
        );
        let why = |other: Hello| match unfit(&own, &other) {
            Some(Unfit::Because(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(hello(VERSION, "b\"", 2)).contains("its name"));
        assert!(why(hello(VERSION + 1, "b", 2)).contains("update the older"));
    }
}
