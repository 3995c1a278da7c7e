//! Reading everything the kernel has of one kind.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use futures::TryStreamExt as _;
use netlink_packet_route::{AddressFamily, address::AddressFlags, route::RouteMessage};
use rtnetlink::Handle;

use super::{
    NetError, decode,
    snapshot::{Link, Neighbour, Snapshot},
};

/// Links, addresses and routes. The snapshot's neighbours are left empty.
pub(super) async fn topology(handle: &Handle) -> Result<Snapshot, NetError> {
    let mut snapshot = Snapshot { links: links(handle).await?, ..Snapshot::default() };
    let mut deprecated = Vec::new();
    let mut addresses = handle.address().get().execute();
    while let Some(message) =
        addresses.try_next().await.map_err(NetError::request("list the addresses"))?
    {
        let flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        let list = match flags.contains(AddressFlags::Deprecated) {
            true => &mut deprecated,
            false => &mut snapshot.addresses,
        };
        list.extend(decode::address(&message));
    }
    // Last, because of equally good sources the first is chosen (RFC 6724, rule 3).
    snapshot.addresses.append(&mut deprecated);
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let mut answers = handle.route().get(request).execute();
        while let Some(message) =
            answers.try_next().await.map_err(NetError::request("list the routes"))?
        {
            routes.extend(decode::route(&message));
        }
    }
    snapshot.set_routes(routes);
    Ok(snapshot)
}

/// The interfaces by index.
pub(super) async fn links(handle: &Handle) -> Result<BTreeMap<u32, Link>, NetError> {
    let mut links = BTreeMap::new();
    let mut answers = handle.link().get().execute();
    while let Some(message) =
        answers.try_next().await.map_err(NetError::request("list the interfaces"))?
    {
        if let Some(link) = decode::link(&message) {
            links.insert(link.ifindex, link);
        }
    }
    Ok(links)
}

/// The IPv4 and IPv6 neighbours.
pub(super) async fn neighbours(
    handle: &Handle,
) -> Result<HashMap<(u32, IpAddr), Neighbour>, NetError> {
    let mut neighbours = HashMap::new();
    let mut entries = handle.neighbours().get().execute();
    while let Some(message) =
        entries.try_next().await.map_err(NetError::request("list the neighbours"))?
    {
        neighbours.extend(decode::neighbour(&message));
    }
    Ok(neighbours)
}
