//! Other hosts that say an address of this one is theirs: heard in ARP and neighbour advertisements, and asked for.
//!
//! Who has the address does not hear its rival by itself: answers go to whoever asks. So this host asks as one would before taking the
//! address (RFC 5227 2.1.1, RFC 4862 5.4.2), which changes nobody's tables.

mod frame;

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, SockFilter, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
};

use super::{Snapshot, packet::packet_address};

/// Claims that are told in a second; more of them tell nothing new.
const MOST: u32 = 100;
/// Longest frame that is read: what is beyond is of no interest.
const FRAME: usize = 256;

/// Somebody says that an address is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The MAC address they give.
    pub mac: [u8; 6],
}

/// Asks who has an address.
#[derive(Debug)]
pub struct Asker {
    arp: Socket,
    nd: Socket,
}

/// Listens on all NICs from now on, for claims to addresses of this host with other MAC addresses than its own.
///
/// # Errors
/// If the sockets cannot be had (CAP_NET_RAW).
pub fn start(
    snapshots: &watch::Receiver<Arc<Snapshot>>,
    heard: &mpsc::UnboundedSender<Claim>,
) -> io::Result<Asker> {
    let arp = listen(libc::ETH_P_ARP as u16, &[], snapshots, heard)?;
    let nd = listen(libc::ETH_P_IPV6 as u16, &ADVERTISEMENTS, snapshots, heard)?;
    Ok(Asker { arp, nd })
}

impl Asker {
    /// Asks in the segment of a NIC. A question that finds no room is lost, as on any wire.
    pub fn ask(&self, ifindex: u32, own: [u8; 6], address: IpAddr) {
        let (socket, ethertype) = match address {
            IpAddr::V4(_) => (&self.arp, libc::ETH_P_ARP),
            IpAddr::V6(_) => (&self.nd, libc::ETH_P_IPV6),
        };
        let (to, frame) = frame::question(own, address);
        if let Err(error) = socket.send_to(&frame, &packet_address(ifindex, ethertype as u16, to)) {
            tracing::debug!(%address, %error, "cannot ask who has an address");
        }
    }
}

fn listen(
    ethertype: u16,
    filter: &[SockFilter],
    snapshots: &watch::Receiver<Arc<Snapshot>>,
    heard: &mpsc::UnboundedSender<Claim>,
) -> io::Result<Socket> {
    // A packet socket without a protocol hears nothing; so nothing comes before the filter.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
    }
    socket.bind(&packet_address(0, ethertype, [0; 6]))?;
    // Any datagram socket receives as a UDP socket does.
    let listener = UdpSocket::from_std(socket.try_clone()?.into())?;
    tokio::spawn(forward(listener, snapshots.clone(), heard.clone()));
    Ok(socket)
}

async fn forward(
    listener: UdpSocket,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    heard: mpsc::UnboundedSender<Claim>,
) {
    let mut frame = [0; FRAME];
    let (mut second, mut told) = (Instant::now(), 0);
    loop {
        let length = match listener.recv(&mut frame).await {
            Ok(length) => length,
            // A NIC went down: the others are still heard.
            Err(error) => {
                tracing::debug!(%error, "listening for other hosts' claims");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(claim) = frame::claim(&frame[..length]) else { continue };
        if !is_rival(&snapshots.borrow(), &claim) {
            continue;
        }
        if second.elapsed() >= Duration::from_secs(1) {
            (second, told) = (Instant::now(), 0);
        }
        told += 1;
        if told <= MOST && heard.send(claim).is_err() {
            return;
        }
    }
}

/// Whether it is about an address of this host, and of somebody else.
fn is_rival(snapshot: &Snapshot, claim: &Claim) -> bool {
    snapshot.is_local(claim.address)
        && !is_virtual_router(claim.mac)
        && !snapshot.links.values().any(|link| link.mac == claim.mac)
}

/// The MAC addresses that VRRP gives to virtual routers (RFC 9568 7.3): whoever is master has them.
fn is_virtual_router(mac: [u8; 6]) -> bool {
    matches!(mac, [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, _])
}

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_ABS | libc::BPF_B) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Of IPv6, neighbour advertisements alone.
const ADVERTISEMENTS: [SockFilter; 6] = [
    SockFilter::new(LOAD_BYTE, 0, 0, frame::NEXT_HEADER as u32),
    SockFilter::new(IF_EQUAL, 0, 3, frame::ICMPV6 as u32),
    SockFilter::new(LOAD_BYTE, 0, 0, frame::ICMPV6_TYPE as u32),
    SockFilter::new(IF_EQUAL, 0, 1, frame::ADVERTISEMENT as u32),
    SockFilter::new(RETURN, 0, 0, FRAME as u32),
    SockFilter::new(RETURN, 0, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_routers_are_nobodys_rivals() {
        assert!(is_virtual_router([0, 0, 0x5e, 0, 1, 80]));
        assert!(is_virtual_router([0, 0, 0x5e, 0, 2, 80]));
        assert!(!is_virtual_router([0, 0, 0x5e, 0, 3, 80]));
        assert!(!is_virtual_router([2, 0, 0, 0, 0, 1]));
    }
}
