//! The task that keeps the snapshot current.
//!
//! A change of links, addresses or routes re-reads all three: Linux does not report every route that goes with a
//! link, and a re-read cannot drift. Neighbours change often and are reported completely, so each report is applied
//! as it comes. After an overrun of the socket everything is read again.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tracing::{debug, warn};

use super::{
    NetError, decode, dump,
    freshness::{Action, Freshness, Key},
    neighbour,
    snapshot::Snapshot,
};

/// Changes that come together are published together.
const COALESCE: Duration = Duration::from_millis(4);
/// Pause after a failed read of the kernel's tables.
const RETRY: Duration = Duration::from_millis(200);
/// How often neighbours in use are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Room for reports: some 10,000.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What [`super::Net`] asks of the task.
pub(super) enum Command {
    /// Resolve it now.
    Want { ifindex: u32, address: IpAddr },
    /// The next hops in use.
    KeepFresh(Vec<Key>),
}

/// The socket that receives the kernel's reports.
pub(super) struct Events(TokioSocket);

impl Events {
    /// Opens it in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, NetError> {
        let error = |what| move |source| NetError::Socket { what, source };
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(error("events"))?;
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ];
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        let inner = socket.socket_mut();
        inner.bind(&SocketAddr::new(0, mask)).map_err(error("join the groups"))?;
        inner
            .add_membership(MulticastGroup::Nexthop as u32)
            .map_err(error("join the next hop group"))?;
        // Without CAP_NET_ADMIN, as much as everybody may have.
        if setsockopt(&*inner, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            inner.set_rx_buf_sz(RECEIVE_BUFFER).map_err(error("receive buffer"))?;
        }
        Ok(Self(socket))
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let (datagram, _) = self.0.recv_from_full().await?;
        Ok(datagram)
    }
}

/// Reads everything once and spawns the task.
pub(super) async fn start(
    events: Events,
    handle: Handle,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Result<watch::Receiver<Arc<Snapshot>>, NetError> {
    let mut snapshot = dump::topology(&handle).await?;
    snapshot.neighbours = dump::neighbours(&handle).await?;
    let (publisher, receiver) = watch::channel(Arc::new(snapshot.clone()));
    let follower = Follower {
        events,
        handle,
        publisher,
        snapshot,
        freshness: Freshness::default(),
        stale: Stale::default(),
        publish_at: None,
        not_before: Instant::now(),
    };
    tokio::spawn(follower.run(commands));
    Ok(receiver)
}

/// What of the snapshot has to be read again, or published.
#[derive(Default)]
struct Stale {
    topology: bool,
    neighbours: bool,
    unpublished: bool,
}

struct Follower {
    events: Events,
    handle: Handle,
    publisher: watch::Sender<Arc<Snapshot>>,
    snapshot: Snapshot,
    freshness: Freshness,
    stale: Stale,
    publish_at: Option<Instant>,
    /// No re-read before this: re-reading takes half of the time at most, however large the tables are.
    not_before: Instant,
}

impl Follower {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let publish_at = self.publish_at;
            let publish = async move {
                match publish_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Reports before ticks: see `Freshness::due`.
            tokio::select! {
                biased;
                () = publish => self.refresh().await,
                datagram = self.events.receive() => self.receive(datagram).await,
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                _ = tick.tick() => self.confirm(),
            }
        }
    }

    async fn receive(&mut self, datagram: io::Result<Vec<u8>>) {
        match datagram {
            Ok(datagram) => messages(&datagram).for_each(|message| self.apply(message)),
            Err(error) => {
                if error.raw_os_error() == Some(libc::ENOBUFS) {
                    debug!("more netlink reports than the socket holds; reading all tables again");
                } else {
                    warn!(%error, "netlink reports cannot be read; reading all tables again");
                    tokio::time::sleep(RETRY).await;
                }
                self.stale = Stale { topology: true, neighbours: true, ..self.stale };
            }
        }
        if self.publish_at.is_none() && self.stale.any() {
            let at = Instant::now() + COALESCE;
            self.publish_at = Some(if self.stale.tables() { at.max(self.not_before) } else { at });
        }
    }

    fn apply(&mut self, message: &[u8]) {
        if !is_neighbour(message) {
            self.stale.topology = true;
            return;
        }
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
            self.stale.neighbours = true;
            return;
        };
        let (message, gone) = match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                (message, false)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
                (message, true)
            }
            _ => return,
        };
        let Some((key, neighbour)) = decode::neighbour(&message) else { return };
        let now = Instant::now();
        let before = match gone {
            true => {
                self.freshness.observe(&key, None, now);
                self.snapshot.neighbours.remove(&key)
            }
            false => {
                self.freshness.observe(&key, Some(&neighbour), now);
                self.snapshot.neighbours.insert(key, neighbour)
            }
        };
        let after = (!gone).then_some(neighbour);
        // Who is not usable might as well not be there.
        let visible = |entry: Option<super::Neighbour>| entry.and_then(|one| one.usable_mac());
        self.stale.unpublished |= visible(before) != visible(after);
    }

    /// Reads again what is stale and publishes the result if a path may have changed.
    async fn refresh(&mut self) {
        self.publish_at = None;
        let begin = Instant::now();
        if let Err(error) = self.read_stale().await {
            warn!(%error, "the kernel's tables cannot be read; trying again");
            self.publish_at = Some(Instant::now() + RETRY);
            return;
        }
        let end = Instant::now();
        self.not_before = end + (end - begin);
        if std::mem::take(&mut self.stale.unpublished) {
            self.publisher.send_replace(Arc::new(self.snapshot.clone()));
        }
    }

    async fn read_stale(&mut self) -> Result<(), NetError> {
        if self.stale.topology {
            let topology = dump::topology(&self.handle).await?;
            let same = topology.links == self.snapshot.links
                && topology.addresses == self.snapshot.addresses
                && topology.routes == self.snapshot.routes;
            if !same {
                self.stale.unpublished = true;
                let neighbours = std::mem::take(&mut self.snapshot.neighbours);
                self.snapshot = Snapshot { neighbours, ..topology };
            }
            self.stale.topology = false;
        }
        if self.stale.neighbours {
            let neighbours = dump::neighbours(&self.handle).await?;
            let now = Instant::now();
            for key in self.snapshot.neighbours.keys().filter(|key| !neighbours.contains_key(key)) {
                self.freshness.observe(key, None, now);
            }
            for (key, neighbour) in &neighbours {
                self.freshness.observe(key, Some(neighbour), now);
            }
            let fresh = Snapshot { neighbours, ..Snapshot::default() };
            self.stale.unpublished |= !self.snapshot.changed_neighbours(&fresh).is_empty();
            self.snapshot.neighbours = fresh.neighbours;
            self.stale.neighbours = false;
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Want { ifindex, address } => {
                let key = (ifindex, address);
                if self.freshness.may_want(&key, Instant::now()) {
                    self.act(key, Action::Resolve);
                }
            }
            Command::KeepFresh(keys) => {
                let neighbours = &self.snapshot.neighbours;
                let state = |key: &Key| neighbours.get(key).map(|neighbour| neighbour.state);
                self.freshness.watch(keys, Instant::now(), state);
                self.confirm();
            }
        }
    }

    fn confirm(&mut self) {
        for (key, action) in self.freshness.due(Instant::now()) {
            self.act(key, action);
        }
    }

    fn act(&self, key: Key, action: Action) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let done = match action {
                Action::Probe => neighbour::probe(&handle, key).await,
                Action::Replace => neighbour::replace(&handle, key).await,
                Action::Resolve => neighbour::resolve(&handle, key).await,
            };
            // An interface that has just gone or is down: the next snapshot tells, and the next tick asks again.
            if let Err(error) = done {
                debug!(%error, "neighbour");
            }
        });
    }
}

impl Stale {
    fn tables(&self) -> bool {
        self.topology || self.neighbours
    }

    fn any(&self) -> bool {
        self.tables() || self.unpublished
    }
}

/// The messages of a datagram (`struct nlmsghdr`: length first, aligned to 4, host byte order).
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
        let message = datagram.get(..length).filter(|message| message.len() >= 16)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn is_neighbour(message: &[u8]) -> bool {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    kind == libc::RTM_NEWNEIGH || kind == libc::RTM_DELNEIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: usize) -> Vec<u8> {
        let length = 16 + body;
        let mut bytes = vec![0; length.next_multiple_of(4)];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_datagram_is_cut_into_its_messages() {
        let datagram = [message(libc::RTM_NEWLINK, 3), message(libc::RTM_DELNEIGH, 0)].concat();
        let found: Vec<_> = messages(&datagram).map(|one| (one.len(), is_neighbour(one))).collect();
        assert_eq!(found, [(19, false), (16, true)]);
    }

    #[test]
    fn a_damaged_datagram_ends_the_iteration() {
        let whole = message(libc::RTM_NEWNEIGH, 8);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length} bytes");
        }
        for claimed in [0_u32, 1, 15, 25, u32::MAX] {
            let mut damaged = whole.clone();
            damaged[..4].copy_from_slice(&claimed.to_ne_bytes());
            assert_eq!(messages(&damaged).count(), 0, "claims {claimed}");
        }
    }
}
