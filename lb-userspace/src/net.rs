//! The host's links, addresses, routes and neighbours by rtnetlink, as one snapshot after the other; and the few things
//! lb asks the kernel to do there.

mod dump;
mod fresh;
mod snapshot;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::StreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
        NeighbourState as State,
    },
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use self::fresh::{Action, Freshness};
pub use self::snapshot::{
    InterfaceAddress, Link, Neighbour, NeighbourState, Path, Route, Snapshot,
};

/// Events that come within this time are one change.
const TOGETHER: Duration = Duration::from_millis(5);
/// How often next hops in use are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Asks the kernel for things.
#[derive(Clone)]
pub struct Net(mpsc::UnboundedSender<Request>);

enum Request {
    Want(u32, IpAddr),
    KeepFresh(Vec<(u32, IpAddr)>),
    AddAddress(String, IpAddr),
    RemoveAddress(String, IpAddr, Option<oneshot::Sender<Result<(), String>>>),
}

impl Net {
    /// Reads everything and follows it from then on, in the network namespace of the calling thread.
    pub async fn start() -> anyhow::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])
        .context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        let first = dump::dump(&handle).await.context("cannot read links and routes")?;
        let (publish, snapshots) = watch::channel(Arc::new(first));
        let (requests, mut inbox) = mpsc::unbounded_channel();
        let mut worker = Worker { handle, publish, fresh: Freshness::default() };
        tokio::spawn(async move {
            let mut look = tokio::time::interval(LOOK);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    message = messages.next() => {
                        if message.is_none() { return }
                        let quiet = Instant::now() + TOGETHER;
                        while let Ok(Some(_)) = tokio::time::timeout_at(quiet, messages.next()).await {}
                        worker.read().await;
                    }
                    request = inbox.recv() => match request {
                        Some(request) => worker.request(request).await,
                        None => return,
                    },
                    _ = look.tick() => worker.look().await,
                }
            }
        });
        Ok((Self(requests), snapshots))
    }

    // Sending fails only when the worker has ended with the runtime.

    /// Has the kernel resolve a neighbour now.
    pub fn want(&self, ifindex: u32, address: IpAddr) {
        let _ = self.0.send(Request::Want(ifindex, address));
    }

    /// The next hops in use: each is confirmed every two seconds, and asked for by broadcast when it stops answering.
    pub fn keep_fresh(&self, next_hops: Vec<(u32, IpAddr)>) {
        let _ = self.0.send(Request::KeepFresh(next_hops));
    }

    /// Puts an address (/32 or /128) on a NIC; nothing happens if it is there.
    pub fn add_address(&self, interface: &str, address: IpAddr) {
        let _ = self.0.send(Request::AddAddress(interface.to_owned(), address));
    }

    /// Takes an address off a NIC; nothing happens if it is not there.
    pub fn remove_address(&self, interface: &str, address: IpAddr) {
        let _ = self.0.send(Request::RemoveAddress(interface.to_owned(), address, None));
    }

    /// As [`Self::remove_address`], and waits for the kernel's word.
    pub async fn remove_address_now(&self, interface: &str, address: IpAddr) -> Result<(), String> {
        let (answer, result) = oneshot::channel();
        let _ = self.0.send(Request::RemoveAddress(interface.to_owned(), address, Some(answer)));
        result.await.unwrap_or_else(|_| Err("the netlink worker has ended".to_owned()))
    }
}

struct Worker {
    handle: Handle,
    publish: watch::Sender<Arc<Snapshot>>,
    fresh: Freshness,
}

impl Worker {
    async fn read(&mut self) {
        match dump::dump(&self.handle).await {
            Ok(snapshot) => {
                let snapshot = Arc::new(snapshot);
                self.publish.send_if_modified(|known| {
                    let changed = *known != snapshot;
                    *known = snapshot;
                    changed
                });
            }
            Err(error) => {
                tracing::warn!(%error, "links and routes could not be read; trying again with the next change")
            }
        }
    }

    async fn request(&mut self, request: Request) {
        match request {
            Request::Want(ifindex, address) => self.act((ifindex, address), Action::Ask).await,
            Request::KeepFresh(next_hops) => {
                self.fresh.set(next_hops);
                self.look().await;
            }
            Request::AddAddress(interface, address) => {
                if let Err(error) = self.add_address(&interface, address).await {
                    tracing::error!(interface, %address, error, "the address could not be put on the NIC");
                }
            }
            Request::RemoveAddress(interface, address, answer) => {
                let result = self.remove_address(&interface, address).await;
                match (answer, result) {
                    // Nobody waits any more when this fails.
                    (Some(answer), result) => drop(answer.send(result)),
                    (None, Err(error)) => {
                        tracing::error!(interface, %address, error, "the address could not be taken off the NIC");
                    }
                    (None, Ok(())) => {}
                }
            }
        }
    }

    async fn look(&mut self) {
        let snapshot = self.publish.borrow().clone();
        let actions: HashMap<_, _> =
            self.fresh.look(std::time::Instant::now(), &snapshot.neighbours);
        for (next_hop, action) in actions {
            self.act(next_hop, action).await;
        }
    }

    async fn act(&self, (ifindex, address): (u32, IpAddr), action: Action) {
        let known = self.publish.borrow().neighbours.get(&(ifindex, address)).copied();
        let result = match action {
            Action::Ask => self.ask(ifindex, address).await,
            Action::AskAnew => {
                // Gone already is as good.
                let _ = self.handle.neighbours().del(message(ifindex, address)).execute().await;
                self.ask(ifindex, address).await
            }
            Action::Probe => match known.and_then(|neighbour| neighbour.mac) {
                Some(mac) => {
                    self.handle
                        .neighbours()
                        .add(ifindex, address)
                        .replace()
                        .state(State::Probe)
                        .link_layer_address(&mac)
                        .execute()
                        .await
                }
                None => self.ask(ifindex, address).await,
            },
        };
        if let Err(error) = result {
            tracing::debug!(%address, ifindex, %error, "a neighbour could not be asked for");
        }
    }

    async fn ask(&self, ifindex: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
        self.handle
            .neighbours()
            .add(ifindex, address)
            .replace()
            .state(State::None)
            .flags(NeighbourFlags::Use)
            .execute()
            .await
    }

    fn ifindex(&self, interface: &str) -> Result<u32, String> {
        let snapshot = self.publish.borrow();
        let link = snapshot.link_by_name(interface);
        link.map(|link| link.ifindex).ok_or_else(|| format!("NIC {interface} does not exist"))
    }

    async fn add_address(&self, interface: &str, address: IpAddr) -> Result<(), String> {
        let ifindex = self.ifindex(interface)?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(ifindex, address, length).replace();
        if address.is_ipv6() {
            // A VIP may be on another node a moment longer: no duplicate address detection.
            request.message_mut().header.flags |=
                netlink_packet_route::address::AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|error| error.to_string())
    }

    async fn remove_address(&self, interface: &str, address: IpAddr) -> Result<(), String> {
        let ifindex = self.ifindex(interface)?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        let there = self
            .publish
            .borrow()
            .addresses
            .iter()
            .any(|entry| entry.ifindex == ifindex && entry.address == address);
        if !there {
            return Ok(());
        }
        let add = self.handle.address().add(ifindex, address, length);
        let mut add = add;
        let message = add.message_mut().clone();
        self.handle.address().del(message).execute().await.map_err(|error| error.to_string())
    }
}

fn message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    let (family, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
