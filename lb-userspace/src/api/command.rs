//! What the server asks the controller to do.

use tokio::sync::oneshot;

use super::{
    Change,
    peer::Peer,
    types::{
        Done, Draft, Events, Failure, LogLevel, Lookup, PacketVerdict, Plan, SetBackend, SetNode,
        Stats, Status, Why,
    },
};
use crate::{
    control::{
        capture::{Stream, Wanted},
        dry_run::{Batch, Question},
    },
    metrics::Snapshot,
};

/// Where the controller puts its answer.
pub type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// One request, with the place for its answer. A controller that drops the place has the client told that the daemon
/// is stopping.
#[derive(Debug)]
pub enum Command {
    /// `GET /v1/status`
    Status(Answer<Status>),
    /// `GET /v1/stats`
    Stats(Answer<Stats>),
    /// `GET /metrics` of the listener for Prometheus
    Measures(Answer<Box<Snapshot>>),
    /// `GET /v1/lookup`
    Lookup {
        /// What is asked.
        question: Question,
        /// The answer.
        reply: Answer<Lookup>,
    },
    /// `POST /v1/replay`
    Replay {
        /// Packets.
        batch: Batch,
        /// A verdict for each.
        reply: Answer<Vec<PacketVerdict>>,
    },
    /// `GET /v1/capture`
    Capture {
        /// What to capture.
        wanted: Wanted,
        /// Who asks.
        peer: Peer,
        /// What is captured, when it has begun.
        reply: Answer<Stream>,
    },
    /// `GET /v1/why`
    Why {
        /// A service's name, VIP or `VIP:port`, not known to exist; `None` = all.
        service: Option<String>,
        /// The answer.
        reply: Answer<Why>,
    },
    /// `GET /v1/events`
    Events {
        /// Only those after the event with this id; 0 = all.
        after: u64,
        /// At most so many, the oldest of them.
        limit: usize,
        /// The answer.
        reply: Answer<Events>,
    },
    /// `POST /v1/log`
    Log {
        /// The new level.
        level: LogLevel,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Done>,
    },
    /// `POST /v1/node`
    SetNode {
        /// What to make of the node.
        set: SetNode,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Done>,
    },
    /// `POST /v1/plan`
    Plan {
        /// What to compare with what is loaded.
        draft: Draft,
        /// The answer.
        reply: Answer<Plan>,
    },
    /// `POST /v1/backends/{service}/{backend}`
    SetBackend {
        /// Name of the service, not known to exist.
        service: String,
        /// Name of the backend, not known to exist.
        backend: String,
        /// At least one of its fields is set; words and ranges are checked.
        set: SetBackend,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Done>,
    },
    /// `POST /v1/reload`
    Reload {
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Done>,
    },
    /// Configurations as a whole
    Change(Change),
    /// `POST /v1/detach`; the daemon ends after a good answer.
    Detach(Answer<Done>),
}
