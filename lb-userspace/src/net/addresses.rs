//! Putting a VIP on an interface, and taking it off.

use std::net::IpAddr;

use futures::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
};
use rtnetlink::Handle;
use tokio::sync::{mpsc, oneshot};

use super::{NetError, decode, dump};

/// What [`super::Net`] asks for.
pub(super) enum Request {
    Add {
        interface: String,
        address: IpAddr,
    },
    Remove {
        interface: String,
        address: IpAddr,
        answer: Option<oneshot::Sender<Result<(), String>>>,
    },
}

/// Does what is asked, one after the other: an address that is put on and taken off again must end up off.
pub(super) async fn serve(handle: Handle, mut requests: mpsc::UnboundedReceiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Add { interface, address } => match add(&handle, &interface, address).await {
                Ok(()) => {}
                Err(error) => tracing::error!(%error, interface, %address, "address not added"),
            },
            Request::Remove { interface, address, answer } => {
                let result = remove(&handle, &interface, address).await;
                match answer {
                    // Nobody waits for it any more if this fails.
                    Some(answer) => drop(answer.send(result.map_err(|error| error.to_string()))),
                    None => {
                        if let Err(error) = result {
                            tracing::error!(%error, interface, %address, "address not removed");
                        }
                    }
                }
            }
        }
    }
}

async fn add(handle: &Handle, interface: &str, address: IpAddr) -> Result<(), NetError> {
    // The kernel is asked, not the latest snapshot: an interface may be a millisecond old.
    let Some(ifindex) = ifindex(handle, interface).await? else {
        return Err(NetError::NoInterface { name: interface.to_owned() });
    };
    let mut existing = handle.address().get().set_link_index_filter(ifindex).execute();
    let what = format!("list the addresses of {interface}");
    while let Some(message) = existing.try_next().await.map_err(NetError::request(&what))? {
        if decode::own_address(&message) == Some(address) {
            return Ok(());
        }
    }
    let mut request = handle.address().add(ifindex, address, host_prefix(address));
    if address.is_ipv6() {
        let message = request.message_mut();
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    let what = format!("add {address} to {interface}");
    match request.execute().await.map_err(NetError::request(what)) {
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        answer => answer,
    }
}

async fn remove(handle: &Handle, interface: &str, address: IpAddr) -> Result<(), NetError> {
    let Some(ifindex) = ifindex(handle, interface).await? else { return Ok(()) };
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.prefix_len = host_prefix(address);
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    let what = format!("remove {address} from {interface}");
    match handle.address().del(message).execute().await.map_err(NetError::request(what)) {
        Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
        answer => answer,
    }
}

async fn ifindex(handle: &Handle, interface: &str) -> Result<Option<u32>, NetError> {
    let links = dump::links(handle).await?;
    Ok(links.into_values().find(|link| link.name == interface).map(|link| link.ifindex))
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
