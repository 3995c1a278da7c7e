//! The echo request (ping).
//!
//! The kernel's ping sockets, which need no privilege, where `net.ipv4.ping_group_range` lets us have them; else a raw
//! socket (CAP_NET_RAW), which sees only what comes from the backend.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::{CheckCode, Outcome};

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// One echo request.
struct Echo {
    is_v4: bool,
    /// Kernel's and ours: a ping socket has its own.
    identifier: [u8; 2],
    /// Tells the answer from that to an earlier request.
    nonce: [u8; 8],
}

/// Asks once; the verdict comes by `deadline`.
pub(super) async fn ask(
    address: IpAddr,
    source: Option<SocketAddr>,
    began: Instant,
    deadline: Instant,
) -> Outcome {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    let process = u64::from(std::process::id()) << 40;
    let echo = Echo {
        is_v4: address.is_ipv4(),
        identifier: (number as u16).to_be_bytes(),
        nonce: (process ^ number).to_be_bytes(),
    };
    match timeout_at(deadline, echo.exchange(address, source)).await {
        Ok(Ok(())) => Outcome::new(CheckCode::L4Ok, "echo reply", began.elapsed()),
        Ok(Err(error)) => Outcome::connect_failed(&error, began.elapsed()),
        Err(_) => Outcome::new(CheckCode::L4Tout, "no echo reply in time", began.elapsed()),
    }
}

impl Echo {
    async fn exchange(&self, address: IpAddr, source: Option<SocketAddr>) -> io::Result<()> {
        let (socket, is_raw) = self.socket(source)?;
        // Any datagram socket sends and receives as a UDP socket does.
        let socket = UdpSocket::from_std(socket.into())?;
        socket.connect(SocketAddr::new(address, 0)).await?;
        socket.send(&self.request()).await?;
        let mut packet = [0; 512];
        loop {
            let length = socket.recv(&mut packet).await?;
            if self.is_answer(&packet[..length], is_raw) {
                return Ok(());
            }
        }
    }

    /// A socket, and whether it is a raw one.
    fn socket(&self, source: Option<SocketAddr>) -> io::Result<(Socket, bool)> {
        let (domain, protocol) = match self.is_v4 {
            true => (Domain::IPV4, Protocol::ICMPV4),
            false => (Domain::IPV6, Protocol::ICMPV6),
        };
        let open = |kind: Type| Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol));
        let (socket, is_raw) = match open(Type::DGRAM) {
            Ok(socket) => (socket, false),
            Err(_) => (open(Type::RAW)?, true),
        };
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source.ip(), 0).into())?;
        }
        Ok((socket, is_raw))
    }

    fn request(&self) -> [u8; HEADER + 8] {
        let mut packet = [0; HEADER + 8];
        packet[0] = if self.is_v4 { 8 } else { 128 };
        packet[4..6].copy_from_slice(&self.identifier);
        packet[HEADER..].copy_from_slice(&self.nonce);
        // The kernel does it for ICMPv6, which includes addresses that only it knows.
        if self.is_v4 {
            let sum: u32 =
                packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    /// Raw IPv4 sockets give the IP header, too; nothing but ping sockets looks at the identifier.
    fn is_answer(&self, packet: &[u8], is_raw: bool) -> bool {
        let start = match packet.first() {
            Some(first) if is_raw && self.is_v4 => usize::from(first & 15) * 4,
            _ => 0,
        };
        let Some(message) = packet.get(start..) else { return false };
        let kind = if self.is_v4 { 0 } else { 129 };
        message.len() >= HEADER + 8
            && message[..2] == [kind, 0]
            && (!is_raw || message[4..6] == self.identifier)
            && message[HEADER..HEADER + 8] == self.nonce
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn this_host_answers_itself() {
        for address in ["127.0.0.1", "::1"] {
            let began = Instant::now();
            let found =
                ask(address.parse().unwrap(), None, began, began + Duration::from_secs(20)).await;
            assert_eq!(
                (found.code, found.output.as_str()),
                (CheckCode::L4Ok, "echo reply"),
                "{address}"
            );
        }
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let echo = Echo { is_v4: true, identifier: [1, 2], nonce: [7; 8] };
        let mut answer = echo.request();
        answer[0] = 0;
        let with_header = [&[0x45; 20][..], &answer].concat();
        assert!(echo.is_answer(&answer, false) && echo.is_answer(&with_header, true));
        assert!(!echo.is_answer(&echo.request(), false), "the request itself");
        let other = Echo { nonce: [8; 8], ..echo };
        assert!(!other.is_answer(&answer, false));
        for length in 0..with_header.len() {
            assert!(!other.is_answer(&with_header[..length], true));
        }
    }
}
