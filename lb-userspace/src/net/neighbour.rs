//! Asking the kernel to resolve, confirm or forget a neighbour.

use std::net::IpAddr;

use futures::StreamExt as _;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as KernelState,
    },
};
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};

use super::NetError;

/// Resolves it now as if a packet were waiting (`NTF_USE`). An entry that is valid becomes DELAY at most.
pub(super) async fn resolve(handle: &Handle, key: (u32, IpAddr)) -> Result<(), NetError> {
    let mut message = message(key);
    message.header.flags = NeighbourFlags::Use;
    let request = RouteNetlinkMessage::NewNeighbour(message);
    send(handle, request, NLM_F_CREATE, || format!("resolve {} on interface {}", key.1, key.0))
        .await
}

/// Starts a unicast confirmation of the MAC address known (`NUD_PROBE`); resolves it if there is no entry.
pub(super) async fn probe(handle: &Handle, key: (u32, IpAddr)) -> Result<(), NetError> {
    let mut message = message(key);
    // No link-layer address goes with it: the kernel keeps the one it has learnt in the meantime.
    message.header.state = KernelState::Probe;
    let request = RouteNetlinkMessage::NewNeighbour(message);
    let what = || format!("confirm {} on interface {}", key.1, key.0);
    match send(handle, request, 0, what).await {
        Err(error) if error.errno() == Some(libc::ENOENT) => resolve(handle, key).await,
        answer => answer,
    }
}

/// Forgets the entry and resolves it afresh, so that the question goes to everybody (ARP broadcast, solicited-node
/// multicast) and finds an address that has moved to another MAC.
pub(super) async fn replace(handle: &Handle, key: (u32, IpAddr)) -> Result<(), NetError> {
    let request = RouteNetlinkMessage::DelNeighbour(message(key));
    let what = || format!("forget {} on interface {}", key.1, key.0);
    match send(handle, request, 0, what).await {
        Err(error) if error.errno() != Some(libc::ENOENT) => Err(error),
        _ => resolve(handle, key).await,
    }
}

fn message((ifindex, address): (u32, IpAddr)) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

async fn send(
    handle: &Handle,
    request: RouteNetlinkMessage,
    flags: u16,
    what: impl FnOnce() -> String,
) -> Result<(), NetError> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let answer = async {
        let mut answers = handle.clone().request(request)?;
        while let Some(message) = answers.next().await {
            if let NetlinkPayload::Error(error) = message.payload
                && error.code.is_some()
            {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
        }
        Ok(())
    };
    answer.await.map_err(|source| NetError::Request { what: what(), source })
}
