//! Floods of made-up packets from made-up sources, sent by a raw socket of a machine.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{kernel::packet::Packet, machine::Machine};

/// A flood that goes on until this is dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    /// Sends TCP packets with these flags to a target, each from another source, about `rate` a second.
    pub fn start(
        machine: &Machine,
        target: SocketAddr,
        flags: u8,
        rate: u64,
    ) -> anyhow::Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = machine.run(move || {
            let socket = raw_socket(target.ip())?;
            // Where it goes; the packets say so themselves. Raw IPv6 sockets want no port here.
            let to = SocketAddr::new(target.ip(), 0).into();
            let began = Instant::now();
            let mut random = StdRng::seed_from_u64(began.elapsed().as_nanos() as u64);
            anyhow::Ok(thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let due = began.elapsed().as_nanos() as u64 * rate / 1_000_000_000;
                    while count.load(Ordering::Relaxed) < due && !stopped.load(Ordering::Relaxed) {
                        let packet = made_up(&mut random, target, flags);
                        // What the kernel has no room for is lost, as in any flood.
                        let _ = socket.send_to(&packet.ip_bytes(), &to);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }))
        })?;
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no other end than this one.
            let _ = thread.join();
        }
    }
}

/// From somewhere in 100.64.0.0/10 or 2001:db8::/32, where nobody in the lab is.
fn made_up(random: &mut StdRng, target: SocketAddr, flags: u8) -> Packet {
    let source = match target.ip() {
        IpAddr::V4(_) => IpAddr::from((0x6440_0000 | random.random::<u32>() >> 10).to_be_bytes()),
        IpAddr::V6(_) => {
            let host = random.random::<u128>() >> 32;
            IpAddr::from((0x2001_0db8_u128 << 96 | host).to_be_bytes())
        }
    };
    let port = random.random_range(1_024..=u16::MAX);
    let sequence = random.random();
    Packet::tcp(&format!("{source}@{port}"), &format!("{}@{}", target.ip(), target.port()), flags)
        .with_tcp(|tcp| tcp.sequence = sequence)
}

/// One whose packets begin with their IP headers.
fn raw_socket(target: IpAddr) -> anyhow::Result<Socket> {
    let domain = if target.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
        .context("a raw socket (is this root?)")
}
