//! The entry of a tracked flow.

use crate::slots::{Tail, follows, touch};

/// Where a flow lives, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The backend's index.
    pub backend: usize,
    /// Sequence number of the client's SYN.
    pub client: u32,
    /// That of another SYN, which came while the first one was young.
    pub second: Option<u32>,
    /// That of the backend's SYN-ACK.
    pub server: Option<u32>,
    /// Somebody closes the connection: the sequence number that follows.
    pub closing: Option<u32>,
    /// Confirmed, but there was no room in the table of those.
    pub promoted: bool,
}

impl Entry {
    /// A flow that begins.
    pub fn new(backend: usize, client: u32) -> Self {
        Self { backend, client, second: None, server: None, closing: None, promoted: false }
    }

    /// Whether it stands for an open connection.
    pub fn is_open(&self) -> bool {
        self.closing.is_none()
    }

    /// Whether a SYN of this number is one that it stands for.
    pub fn was_opened_by(&self, sequence: u32) -> bool {
        self.client == sequence || self.second == Some(sequence)
    }

    /// Whether the client's SYN may be what comes before this number.
    pub fn follows(&self, sequence: u32) -> bool {
        follows(sequence, self.client)
    }

    /// Whether a packet fits the handshake: the client's half, and where replies are seen the backend's, too.
    pub fn completed_by(
        &self,
        (sequence, acknowledgement): (u32, u32),
        sees_replies: bool,
    ) -> bool {
        let is_clients =
            self.follows(sequence) || self.second.is_some_and(|second| follows(sequence, second));
        let is_servers = self.server.is_some_and(|server| follows(acknowledgement, server));
        is_clients && (is_servers || !sees_replies)
    }

    /// Notes whether the connection is being closed. True if something has changed.
    pub fn touch(&mut self, tail: Tail) -> bool {
        touch(&mut self.closing, tail)
    }
}
