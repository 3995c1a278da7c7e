//! Questions to the VIP on one backend (`via: vip`), which go there as clients' packets do: in the tunnel, or with the
//! backend's MAC address (dsr). A backend that has lost its VIP or its tunnel device answers at its own address all the same,
//! and only this notices.
//!
//! The kernel cannot be asked for that: the route to the VIP is another, or the VIP is this host's own, and answers from it
//! would be thrown away. So a small TCP/IP stack (smoltcp) talks for one probe, over three sockets of the kernel:
//!
//! * a raw one, to which it hands its packets: the kernel puts the tunnel's header before them, or the backend's MAC address;
//! * a packet socket whose filter lets pass just the answers: from the VIP, to our address and port;
//! * a listener at that port which hears nothing (its filter drops everything): without it the kernel would answer with a
//!   reset what comes for a port that nobody has.
//!
//! Nothing of it outlives the process, and the host's routes, rules and devices are not touched.

mod session;
mod sockets;

use std::net::{IpAddr, SocketAddr};

use tokio::io::DuplexStream;

pub(super) use self::session::Datagrams;
use self::{session::Session, sockets::Wire};
use super::road::Trouble;
use crate::{config::model::Forward, health::Served, net::Snapshot};

/// Bytes that may wait between the stack and the probe, each way.
const WAITING: usize = 64 << 10;

/// The way to a VIP on one backend.
pub(super) struct Way {
    /// The VIP, and the port that is asked.
    vip: SocketAddr,
    /// An address of this host, of the VIP's family.
    source: IpAddr,
    wire: Wire,
}

impl Way {
    /// Finds it.
    pub(super) fn find(
        served: &Served,
        backend: SocketAddr,
        source: Option<SocketAddr>,
        network: &Snapshot,
    ) -> Result<Self, Trouble> {
        let vip = SocketAddr::new(served.vip.ip(), backend.port());
        let path = network.resolve(backend.ip());
        let path =
            path.ok_or_else(|| Trouble::Theirs(format!("there is no route to {}", backend.ip())))?;
        let source = match source {
            Some(source) => source.ip(),
            None if vip.is_ipv4() == backend.is_ipv4() => path.source,
            None => own_address(network, vip.ip()).ok_or_else(|| {
                let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
                Trouble::Ours(format!("this host has no {family} address to ask from: `source:`"))
            })?,
        };
        let wire = match served.forward {
            Forward::Ipip => Wire::tunnel(backend.ip(), vip.is_ipv4())?,
            Forward::Gue { port } => Wire::gue(SocketAddr::new(backend.ip(), port), vip.is_ipv4())?,
            Forward::Dsr => match path.dst_mac {
                Some(mac) => Wire::link(path.ifindex, mac, vip.is_ipv4())?,
                None => {
                    let text = format!("no MAC address of {} is known", path.next_hop);
                    return Err(Trouble::Theirs(text));
                }
            },
            // The configuration's rules keep this from happening.
            Forward::Nat | Forward::FullNat => {
                return Err(Trouble::Ours("nat has no VIP on backends".to_owned()));
            }
        };
        Ok(Self { vip, source, wire })
    }
}

/// An address of this host of the VIP's family that others can answer to, and that is not made for one service as a /32 is.
fn own_address(network: &Snapshot, vip: IpAddr) -> Option<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let all = network.addresses.iter();
    all.filter(|own| own.address.is_ipv4() == vip.is_ipv4() && own.address != vip)
        .filter(|own| usable(&own.address))
        .min_by_key(|own| own.prefix >= if vip.is_ipv4() { 32 } else { 128 })
        .map(|own| own.address)
}

/// Connects to the VIP. What is written to the result reaches the backend while this runtime lives; dropped, the connection ends.
pub(super) async fn connect(way: Way) -> Result<DuplexStream, Trouble> {
    let mut session = Session::tcp(way)?;
    session.connect().await?;
    let (near, far) = tokio::io::duplex(WAITING);
    tokio::spawn(session.carry(far));
    Ok(near)
}
