//! Forged VRRP advertisements: what a host in the segment of the VIPs can send (RFC 5798, version 3 over IPv4).

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

use crate::machine::Machine;

/// Where advertisements go.
const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const VRRP: u8 = 112;
const EVERY: Duration = Duration::from_millis(100);

/// What is sent.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// Who seems to send it.
    pub source: Ipv4Addr,
    /// TTL of the packet; what has come through a router has less than 255.
    pub ttl: u8,
    /// Number of the virtual router.
    pub router: u8,
    /// 255 is that of an owner of the addresses, who goes before everybody.
    pub priority: u8,
    /// The virtual addresses.
    pub vips: Vec<Ipv4Addr>,
}

impl Advertisement {
    /// The whole packet; the kernel fills in the length and checksum of its header.
    fn packet(&self) -> Vec<u8> {
        let mut message =
            vec![0x31, self.router, self.priority, self.vips.len() as u8, 0, 100, 0, 0];
        message.extend(self.vips.iter().flat_map(Ipv4Addr::octets));
        let pseudo = [self.source.octets(), ROUTERS.octets(), [0, VRRP, 0, message.len() as u8]];
        let sum = checksum(&[pseudo.concat(), message.clone()].concat());
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, self.ttl, VRRP, 0, 0];
        packet.extend(self.source.octets());
        packet.extend(ROUTERS.octets());
        packet.extend(message);
        packet
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Sends an advertisement every 100 ms, until it is dropped.
pub struct Forger {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forger {
    /// Begins to, from a machine by the NIC that has this address.
    pub fn start(
        machine: &Machine,
        by: Ipv4Addr,
        advertisement: &Advertisement,
    ) -> anyhow::Result<Self> {
        let packet = advertisement.packet();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = machine.run(move || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))
                .context("a raw socket")?;
            socket.set_header_included_v4(true).context("IP_HDRINCL")?;
            socket.set_multicast_if_v4(&by).context("IP_MULTICAST_IF")?;
            let to = SocketAddrV4::new(ROUTERS, 0).into();
            socket.send_to(&packet, &to).context("send an advertisement")?;
            anyhow::Ok(thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    // The first one could be sent; a full queue is no reason to end.
                    let _ = socket.send_to(&packet, &to);
                    thread::sleep(EVERY);
                }
            }))
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It cannot panic.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_right() {
        let forged = Advertisement {
            source: Ipv4Addr::new(10, 0, 0, 1),
            ttl: 255,
            router: 51,
            priority: 255,
            vips: vec![Ipv4Addr::new(10, 0, 0, 9)],
        };
        let packet = forged.packet();
        let pseudo = [&packet[12..20], &[0, VRRP, 0, 12]].concat();
        assert_eq!(checksum(&[pseudo, packet[20..].to_vec()].concat()), 0, "{packet:?}");
    }
}
