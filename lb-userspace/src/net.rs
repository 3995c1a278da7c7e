//! What the kernel knows about the way to a backend: links, addresses, routes and neighbours, followed by rtnetlink.
//!
//! [`Snapshot`] is plain data with pure questions ([`Snapshot::resolve`]); [`Net`] is the shell that keeps it current
//! (`follow`) and keeps the neighbours in use confirmed (`freshness` decides, `neighbour` asks the kernel). Interfaces
//! are looked up by netlink only, never by /sys: a mount namespace may show another network namespace's /sys there.

mod addresses;
pub mod claims;
mod decode;
mod dump;
mod follow;
mod freshness;
mod neighbour;
mod packet;
mod resolve;
mod snapshot;

#[cfg(test)]
mod namespace_tests;

use std::{net::IpAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

pub use packet::packet_address;
pub use resolve::Path;
pub use snapshot::{InterfaceAddress, Link, Neighbour, NeighbourState, Route, Snapshot};

/// What can go wrong with netlink.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A netlink socket could not be opened or set up.
    #[error("cannot open a netlink socket ({what}): {source}")]
    Socket {
        /// The step that failed.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The kernel refused a request.
    #[error("netlink: cannot {what}: {source}")]
    Request {
        /// What was asked.
        what: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// There is no interface of this name.
    #[error("no interface {name:?} in this network namespace; `ip link` lists those there are")]
    NoInterface {
        /// The name asked for.
        name: String,
    },
}

impl NetError {
    fn request(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |source| Self::Request { what, source }
    }

    /// The errno (positive) the kernel answered with.
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Request { source: rtnetlink::Error::NetlinkError(message), .. } => {
                Some(message.raw_code().abs())
            }
            Self::Socket { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// The handle to the network of one namespace. Clones share everything; the last one dropped ends the tasks.
#[derive(Clone)]
pub struct Net {
    commands: mpsc::UnboundedSender<follow::Command>,
    addresses: mpsc::UnboundedSender<addresses::Request>,
}

impl Net {
    /// Reads everything, then follows every change in tasks of the current tokio runtime.
    ///
    /// The namespace is that of the thread which first polls this: all sockets are opened before the first wait. The
    /// receiver holds a complete snapshot already and gets a new one for every change that [`Snapshot::resolve`] could
    /// notice (a neighbour that is merely probed and answers is no change).
    ///
    /// # Errors
    /// If a socket cannot be opened or the first dump fails.
    pub async fn start() -> Result<(Self, watch::Receiver<Arc<Snapshot>>), NetError> {
        let events = follow::Events::open()?;
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetError::Socket { what: "requests", source })?;
        tokio::spawn(connection);
        let (commands, receiver) = mpsc::unbounded_channel();
        let snapshots = follow::start(events, handle.clone(), receiver).await?;
        let (addresses, requests) = mpsc::unbounded_channel();
        tokio::spawn(addresses::serve(handle, requests));
        Ok((Self { commands, addresses }, snapshots))
    }

    // Sending fails only when the tasks have ended with their runtime; there is nobody left to tell then.

    /// Makes the kernel resolve this neighbour now. The answer arrives as a new snapshot.
    pub fn want(&self, ifindex: u32, address: IpAddr) {
        let _ = self.commands.send(follow::Command::Want { ifindex, address });
    }

    /// Replaces the set of next hops in use (interface, address). Each is resolved if need be and confirmed every
    /// two seconds from now on; one whose MAC address moved without a word is found again within five.
    pub fn keep_fresh(&self, next_hops: Vec<(u32, IpAddr)>) {
        let _ = self.commands.send(follow::Command::KeepFresh(next_hops));
    }

    /// Puts an address (/32 or /128, without duplicate address detection) on an interface. One that is there already,
    /// with whatever prefix, is left alone. A failure is logged.
    pub fn add_address(&self, interface: &str, address: IpAddr) {
        let interface = interface.to_owned();
        let _ = self.addresses.send(addresses::Request::Add { interface, address });
    }

    /// Takes a /32 or /128 off an interface; nothing happens if it, or the interface, is not there. A failure is
    /// logged.
    pub fn remove_address(&self, interface: &str, address: IpAddr) {
        let interface = interface.to_owned();
        let _ =
            self.addresses.send(addresses::Request::Remove { interface, address, answer: None });
    }

    /// As [`Self::remove_address`], after all that was asked before, and waits for the kernel's word.
    ///
    /// # Errors
    /// The sentence that says what the kernel refused.
    pub async fn remove_address_now(&self, interface: &str, address: IpAddr) -> Result<(), String> {
        let (answer, result) = oneshot::channel();
        let interface = interface.to_owned();
        let answer = Some(answer);
        let _ = self.addresses.send(addresses::Request::Remove { interface, address, answer });
        result
            .await
            .unwrap_or_else(|_| Err("the task that talks to the kernel has ended".to_owned()))
    }
}
