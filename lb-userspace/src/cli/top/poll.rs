//! What the daemon is asked, in tasks of their own: the view never waits for an answer.

use std::time::Instant;

use tokio::sync::mpsc;

use super::model::{Change, Message, Sample};
use crate::{
    api::{
        client::{Client, ClientError},
        types::{Events, Why},
    },
    cli::output::clean_lines,
};

/// Events of one answer.
const PAGE: usize = 1_000;

/// What to ask beside status and counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Events after this one.
    pub events_after: u64,
    /// Why this service drops packets.
    pub why: Option<String>,
}

/// One look at everything.
pub async fn ask(client: &Client, question: Question) -> Message {
    match look(client, &question).await {
        Ok(sample) => Message::Sample(Box::new(sample)),
        Err(error) => Message::Away(clean_lines(&error.to_string())),
    }
}

async fn look(client: &Client, question: &Question) -> Result<Sample, ClientError> {
    let status = client.status().await?;
    let (stats, at) = (client.stats().await?, Instant::now());
    let events = match client.events(question.events_after, PAGE).await {
        Ok(events) => events,
        // A daemon of an older version has none.
        Err(ClientError::Refused(_)) => Events::default(),
        Err(error) => return Err(error),
    };
    let why = match &question.why {
        None => None,
        Some(service) => match client.why(Some(service)).await {
            Ok(why) => Some(why),
            // The service went between two answers.
            Err(ClientError::Refused(_)) => Some(Why::default()),
            Err(error) => return Err(error),
        },
    };
    Ok(Sample { at, status, stats, events, why })
}

/// Changes a backend.
pub fn set(client: &Client, change: Change, messages: &mpsc::UnboundedSender<Message>) {
    let (client, messages) = (client.clone(), messages.clone());
    tokio::spawn(async move {
        let Change { service, backend, set } = change;
        let result = match client.set_backend(&service, &backend, &set).await {
            Ok(done) => Ok(clean_lines(&done.changes.join("; "))),
            Err(error) => Err(clean_lines(&error.to_string())),
        };
        // The view has gone when this fails.
        let _ = messages.send(Message::Done(result));
    });
}
