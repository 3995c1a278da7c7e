//! What pages look at: one picture for all of them, so that many open pages ask the controller no more than one does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};

use super::super::routes::answer;
use crate::{
    api::{
        Answer, Command,
        types::{Events, Failure, FailureKind, Why},
    },
    events::REMEMBERED,
};

/// How old a picture may be.
const FRESH: Duration = Duration::from_millis(500);

/// The last answers of the controller.
pub struct Feed {
    commands: mpsc::Sender<Command>,
    began: Instant,
    status: Picture<Shot>,
    stats: Picture<Shot>,
    why: Picture<Why>,
    events: Picture<Events>,
}

/// An answer as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// When the controller gave it, milliseconds of a clock that only goes forward; rates are made with it.
    pub taken_milliseconds: u64,
    /// The JSON.
    pub json: Bytes,
}

/// An answer and its age. Whoever finds it too old asks for another while the others wait.
struct Picture<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Picture<T> {
    async fn get(&self, make: impl AsyncFnOnce() -> Result<T, Failure>) -> Result<Arc<T>, Failure> {
        let mut picture = self.0.lock().await;
        if let Some((at, value)) = &*picture
            && at.elapsed() < FRESH
        {
            return Ok(value.clone());
        }
        let value = Arc::new(make().await?);
        *picture = Some((Instant::now(), value.clone()));
        Ok(value)
    }
}

impl Feed {
    /// Nothing seen yet.
    pub fn new(commands: mpsc::Sender<Command>) -> Self {
        fn none<T>() -> Picture<T> {
            Picture(Mutex::new(None))
        }
        let began = Instant::now();
        Self { commands, began, status: none(), stats: none(), why: none(), events: none() }
    }

    /// The controller's inbox, for what is no picture.
    pub fn commands(&self) -> &mpsc::Sender<Command> {
        &self.commands
    }

    /// `types::Status`
    pub async fn status(&self) -> Result<Arc<Shot>, Failure> {
        self.status.get(async || self.shot(Command::Status).await).await
    }

    /// `types::Stats`
    pub async fn stats(&self) -> Result<Arc<Shot>, Failure> {
        self.stats.get(async || self.shot(Command::Stats).await).await
    }

    /// Of one service (by its name), or of all; what belongs to none is always there.
    pub async fn why(&self, service: Option<&str>) -> Result<Why, Failure> {
        let ask = |reply| Command::Why { service: None, reply };
        let all = self.why.get(async || answer(&self.commands, ask).await).await?;
        let Some(name) = service else { return Ok(Why::clone(&all)) };
        let Some(one) = all.services.iter().find(|one| one.name == name) else {
            let known = all.services.iter().map(|one| one.name.as_str());
            return Err(Failure::unknown("service", name, known));
        };
        Ok(Why { services: vec![one.clone()], node: all.node.clone() })
    }

    /// The last `limit` of those after an id, the oldest first.
    pub async fn events(&self, after: u64, limit: usize) -> Result<Events, Failure> {
        let ask = |reply| Command::Events { after: 0, limit: REMEMBERED, reply };
        let all = self.events.get(async || answer(&self.commands, ask).await).await?;
        Ok(last_of(&all, after, limit))
    }

    async fn shot<T: Serialize>(
        &self,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<Shot, Failure> {
        let value = answer(&self.commands, command).await?;
        let taken_milliseconds = self.began.elapsed().as_millis() as u64;
        let json = serde_json::to_vec(&value).map_err(|error| {
            Failure::new(FailureKind::Internal, format!("an answer is no JSON: {error}"))
        })?;
        Ok(Shot { taken_milliseconds, json: json.into() })
    }
}

fn last_of(all: &Events, after: u64, limit: usize) -> Events {
    let first = all.events.partition_point(|event| event.id <= after);
    let first = first.max(all.events.len().saturating_sub(limit));
    let events = all.events[first..].to_vec();
    let oldest = events.first().map_or(all.last + 1, |event| event.id);
    Events { events, last: all.last, lost: oldest.saturating_sub(after + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{Event, Status};

    #[tokio::test]
    async fn many_readers_ask_the_controller_once() {
        let (commands, mut inbox) = mpsc::channel(64);
        let controller = tokio::spawn(async move {
            let mut asked = 0;
            while let Some(command) = inbox.recv().await {
                let Command::Status(reply) = command else { panic!("another command") };
                asked += 1;
                let _ = reply.send(Ok(Status { pid: 7, ..Status::default() }));
            }
            asked
        });
        let feed = Feed::new(commands);
        let answers = futures::future::join_all((0..100).map(|_| feed.status())).await;
        assert!(answers.iter().all(|answer| answer == &answers[0]));
        let status: Status = serde_json::from_slice(&answers[0].as_ref().unwrap().json).unwrap();
        assert_eq!(status.pid, 7);
        drop(feed);
        // A second one only if this machine took half a second to answer a hundred.
        assert!(controller.await.unwrap() <= 2);
    }

    #[tokio::test]
    async fn a_failure_is_no_picture() {
        let (commands, inbox) = mpsc::channel(1);
        drop(inbox);
        let feed = Feed::new(commands);
        assert_eq!(feed.status().await.unwrap_err().kind, FailureKind::Unavailable);
        assert_eq!(feed.events(0, 5).await.unwrap_err().kind, FailureKind::Unavailable);
    }

    #[test]
    fn the_last_events_are_given_and_the_lost_ones_counted() {
        let event = |id| Event { id, ..Event::default() };
        let all = Events { events: (5..=9).map(event).collect(), last: 9, lost: 4 };
        let ids = |events: &Events| events.events.iter().map(|event| event.id).collect::<Vec<_>>();
        let given = last_of(&all, 6, 10);
        assert_eq!((ids(&given), given.last, given.lost), (vec![7, 8, 9], 9, 0));
        let given = last_of(&all, 0, 2);
        assert_eq!((ids(&given), given.last, given.lost), (vec![8, 9], 9, 7));
        let given = last_of(&all, 9, 10);
        assert_eq!((ids(&given), given.last, given.lost), (vec![], 9, 0));
        // An id of an earlier life, after the log was lost.
        assert_eq!(last_of(&all, 99, 10).lost, 0);
    }
}
