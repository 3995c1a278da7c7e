//! The channel between the nodes of a cluster: authenticated and encrypted by a shared secret, bounded in memory and traffic.
//!
//! Each node dials all others and sends on what it has dialled; on what it has accepted it receives. So each direction has its own
//! connection, which fails and comes back by itself. What is sent and what becomes of it is the controller's
//! (`control/cluster`); here are bytes, queues and time-outs. A peer that is silent, slow, or talks garbage costs its own
//! connection and nothing else.

mod channel;
mod incoming;
pub mod message;
mod outbox;
mod outgoing;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};

use self::message::{Hello, Message};
pub use self::{
    channel::Secret,
    outbox::{LIMIT, Outbox},
};

/// Time that a connection, a handshake and a greeting may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// From one sign of life to the next.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which a connection is given up.
pub const SILENCE: Duration = Duration::from_secs(5);

/// What is the same for all connections of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where others are listened for.
    pub listen: SocketAddr,
    /// Where others listen; this node may be among them.
    pub peers: Vec<SocketAddr>,
    /// Holds the secret.
    pub secret_file: PathBuf,
    /// The secret that was in it.
    pub secret: Secret,
    /// What this node says of itself.
    pub hello: Hello,
}

/// What has happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// A peer that was dialled takes what is sent.
    Connected {
        /// Its place in [`Settings::peers`].
        peer: usize,
        /// What it says of itself.
        hello: Hello,
    },
    /// It does so no more, or not at all.
    Lost {
        /// Its place in [`Settings::peers`].
        peer: usize,
        /// Why.
        why: String,
        /// It is another node with this one's name.
        is_namesake: bool,
    },
    /// The peer is this node itself.
    Itself {
        /// Its place in [`Settings::peers`].
        peer: usize,
    },
    /// A peer has dialled and begins to send.
    Joined {
        /// Number of the connection.
        connection: u64,
        /// What it says of itself.
        hello: Hello,
        /// From where.
        from: SocketAddr,
    },
    /// A peer has sent something.
    Received {
        /// Number of the connection.
        connection: u64,
        /// What.
        message: Message,
        /// Given back when it has been dealt with: only so many wait at a time.
        permit: OwnedSemaphorePermit,
    },
    /// A peer that has dialled sends no more.
    Left {
        /// Number of the connection.
        connection: u64,
        /// Why.
        why: String,
    },
    /// Somebody has dialled and is no peer.
    Refused {
        /// From where.
        from: SocketAddr,
        /// Why.
        why: String,
    },
}

/// Numbers of one direction to or from a peer, added to by its connection.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes on the wire, without TCP's.
    pub bytes: AtomicU64,
    /// Entries in messages.
    pub entries: AtomicU64,
}

/// The connections of a node. Dropping it ends them.
pub struct Cluster {
    settings: Settings,
    outboxes: Vec<Arc<Outbox>>,
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// Listens and dials. Must be called inside a runtime.
    pub fn start(
        settings: Settings,
        events: mpsc::UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let socket = incoming::bind(settings.listen)?;
        let mut tasks = JoinSet::new();
        let outboxes: Vec<Arc<Outbox>> =
            settings.peers.iter().map(|_| Arc::new(Outbox::default())).collect();
        for (peer, outbox) in outboxes.iter().enumerate() {
            let dialer = outgoing::Dialer {
                peer,
                address: settings.peers[peer],
                secret: settings.secret.clone(),
                hello: settings.hello.clone(),
                outbox: outbox.clone(),
                events: events.clone(),
            };
            tasks.spawn(dialer.run());
        }
        let listener = incoming::Listener {
            secret: settings.secret.clone(),
            hello: settings.hello.clone(),
            addresses: settings.peers.iter().map(|peer| peer.ip()).collect(),
            outboxes: outboxes.clone(),
            events,
        };
        tasks.spawn(incoming::listen(socket, listener));
        Ok(Self { settings, outboxes, _tasks: tasks })
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What waits to be sent to a peer, by its place in [`Settings::peers`].
    pub fn outbox(&self, peer: usize) -> &Outbox {
        &self.outboxes[peer]
    }
}
