//! The kernel's sockets below the stack.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use crate::net::packet_address;

/// Takes IP packets to the backend.
pub(super) enum Wire {
    /// The kernel puts a header before them. The same socket twice: to send, and to hear of ICMP errors.
    Tunnel(Socket, UdpSocket),
    /// The kernel puts a UDP header before them, we GUE's.
    Gue(UdpSocket, [u8; 4]),
    /// The kernel puts MAC addresses before them.
    Link(Socket, SockAddr),
}

/// RFC 2003, RFC 2473.
const IP_IN_IP: i32 = 4;
const IPV6_IN_IP: i32 = 41;

impl Wire {
    /// IP in IP to a backend.
    pub(super) fn tunnel(backend: IpAddr, inner_v4: bool) -> io::Result<Self> {
        let domain = if backend.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let protocol = Protocol::from(if inner_v4 { IP_IN_IP } else { IPV6_IN_IP });
        let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
        // Only for sending: what comes in tunnels is not for us.
        socket.attach_filter(&[DROP])?;
        // Connected, so that ICMP errors arrive as the socket's own.
        socket.connect(&SocketAddr::new(backend, 0).into())?;
        // Any datagram socket receives as a UDP socket does.
        let errors = UdpSocket::from_std(socket.try_clone()?.into())?;
        Ok(Self::Tunnel(socket, errors))
    }

    /// GUE to a backend's port.
    pub(super) fn gue(backend: SocketAddr, inner_v4: bool) -> io::Result<Self> {
        let any: IpAddr = match backend {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        // Connected, so that ICMP errors arrive as the socket's own; nothing else comes.
        socket.connect(backend)?;
        socket.set_nonblocking(true)?;
        let carried = if inner_v4 { IP_IN_IP } else { IPV6_IN_IP };
        Ok(Self::Gue(UdpSocket::from_std(socket)?, [0, carried as u8, 0, 0]))
    }

    /// Frames to a MAC address.
    pub(super) fn link(ifindex: u32, mac: [u8; 6], is_v4: bool) -> io::Result<Self> {
        let socket = packet_socket()?;
        Ok(Self::Link(socket, link_address(ifindex, is_v4, mac)))
    }

    /// Sends a packet. One that does not fit into a full queue is lost, as on any wire.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let sent = match self {
            Self::Tunnel(socket, _) => socket.send(packet),
            Self::Gue(socket, header) => socket.try_send(&[header, packet].concat()),
            Self::Link(socket, to) => socket.send_to(packet, to),
        };
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits for an ICMP error that a packet has brought about: nobody opens the tunnel there, or nobody is there.
    pub(super) async fn failure(&self) -> io::Error {
        match self {
            Self::Tunnel(_, errors) | Self::Gue(errors, _) => loop {
                if let Err(error) = errors.recv(&mut [0; 1]).await {
                    return error;
                }
            },
            Self::Link(..) => std::future::pending().await,
        }
    }
}

/// Holds a port of ours, and hears nothing; the port.
pub(super) fn sink(source: IpAddr, protocol: Protocol) -> io::Result<(Socket, u16)> {
    let at = SocketAddr::new(source, 0);
    let is_tcp = protocol == Protocol::TCP;
    let kind = if is_tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(at), kind.cloexec(), Some(protocol))?;
    socket.attach_filter(&[DROP])?;
    socket.bind(&at.into())?;
    if is_tcp {
        socket.listen(1)?;
    }
    let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
    Ok((socket, port))
}

/// Lets pass what comes from the VIP's port to ours.
pub(super) fn tap(vip: SocketAddr, us: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let socket = packet_socket()?;
    socket.attach_filter(&filter(vip, us, i32::from(protocol) as u32))?;
    // Nothing comes before this: a packet socket without a protocol receives nothing.
    socket.bind(&link_address(0, vip.is_ipv4(), [0; 6]))?;
    Ok(socket)
}

fn packet_socket() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), None)
}

/// The address of a packet socket: a NIC (0 = all), a protocol, and to whom.
fn link_address(ifindex: u32, is_v4: bool, mac: [u8; 6]) -> SockAddr {
    let protocol = if is_v4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16;
    packet_address(ifindex, protocol, mac)
}

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const LOAD: u16 = (libc::BPF_LD | libc::BPF_ABS) as u16;
const WORD: u16 = libc::BPF_W as u16;
const HALF: u16 = libc::BPF_H as u16;
const BYTE: u16 = libc::BPF_B as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;

/// Lets nothing pass.
const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

/// A test: what is loaded, and what it has to be.
enum Step {
    /// `size` at an offset in the packet.
    At(u16, u32, u32),
    /// IPv4: no fragment.
    Whole,
    /// IPv4: a half word behind the header, whose length varies.
    Behind(u32, u32),
}

/// A classic filter of IP packets (without link header): from the VIP's address and port, to our own.
fn filter(vip: SocketAddr, us: SocketAddr, protocol: u32) -> Vec<SockFilter> {
    let mut steps = Vec::new();
    let address = |steps: &mut Vec<Step>, at: u32, address: IpAddr| {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        for (index, word) in bytes.chunks_exact(4).enumerate() {
            let value = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
            steps.push(Step::At(WORD, at + 4 * index as u32, value));
        }
    };
    let (theirs, ours) = (u32::from(vip.port()), u32::from(us.port()));
    if vip.is_ipv4() {
        steps.extend([Step::At(BYTE, 9, protocol), Step::Whole]);
        address(&mut steps, 12, vip.ip());
        address(&mut steps, 16, us.ip());
        steps.extend([Step::Behind(0, theirs), Step::Behind(2, ours)]);
    } else {
        steps.push(Step::At(BYTE, 6, protocol));
        address(&mut steps, 8, vip.ip());
        address(&mut steps, 24, us.ip());
        steps.extend([Step::At(HALF, 40, theirs), Step::At(HALF, 42, ours)]);
    }
    let mut program = Vec::new();
    for step in steps {
        match step {
            Step::At(size, at, value) => {
                program.push(SockFilter::new(LOAD | size, 0, 0, at));
                program.push(SockFilter::new(IF_EQUAL, 1, 0, value));
            }
            Step::Whole => {
                let any_bit = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
                program.push(SockFilter::new(LOAD | HALF, 0, 0, 6));
                program.push(SockFilter::new(any_bit, 0, 1, 0x3fff));
            }
            Step::Behind(at, value) => {
                let header = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
                let indirect = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
                program.push(SockFilter::new(header, 0, 0, 0));
                program.push(SockFilter::new(indirect, 0, 0, at));
                program.push(SockFilter::new(IF_EQUAL, 1, 0, value));
            }
        }
        // Skipped by the jump if the test holds.
        program.push(DROP);
    }
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program
}
