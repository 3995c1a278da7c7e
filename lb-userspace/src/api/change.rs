//! Requests that are about configurations as a whole.

use super::{
    Answer,
    peer::Peer,
    types::{
        Applied, Apply, Done, Drain, RevisionText, Revisions, Rollback, Save, Saved, Setting, Unset,
    },
};

/// One of them, with the place for its answer.
#[derive(Debug)]
pub enum Change {
    /// `POST /v1/apply`
    Apply {
        /// What is to be in force.
        apply: Apply,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Applied>,
    },
    /// `POST /v1/confirm`
    Confirm {
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Done>,
    },
    /// `POST /v1/rollback`
    Rollback {
        /// Back to what.
        rollback: Rollback,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Applied>,
    },
    /// `POST /v1/backends/{service}/{backend}/drain`
    Drain {
        /// Name of the service, not known to exist.
        service: String,
        /// Name of the backend, not known to exist.
        backend: String,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Drain>,
    },
    /// `GET /v1/backends/{service}/{backend}`
    Drained {
        /// Name of the service, not known to exist.
        service: String,
        /// Name of the backend, not known to exist.
        backend: String,
        /// The answer.
        reply: Answer<Drain>,
    },
    /// `POST /v1/set`
    Set {
        /// What.
        setting: Setting,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Done>,
    },
    /// `POST /v1/unset`
    Unset {
        /// What.
        unset: Unset,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Done>,
    },
    /// `POST /v1/save`
    Save {
        /// How.
        save: Save,
        /// Who asks.
        peer: Peer,
        /// The answer.
        reply: Answer<Saved>,
    },
    /// `GET /v1/revisions`
    Revisions(Answer<Revisions>),
    /// `GET /v1/revisions/{number}`
    Revision {
        /// Its number; `None` = the one in force.
        number: Option<u64>,
        /// The answer.
        reply: Answer<RevisionText>,
    },
}
