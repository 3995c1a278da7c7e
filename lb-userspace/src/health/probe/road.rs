//! How a question gets to the backend: sockets that are bound to the address wanted.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// A connection; from `source` if there is one (port 0 = any).
pub(super) async fn connect(
    address: SocketAddr,
    source: Option<SocketAddr>,
) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if source.port() == 0 {
        // The port is chosen once both ends are known: thousands of probes do not use up those of one address.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    } else {
        // Several backends at a time from the same port, and again right after the last connection: that one must
        // leave nothing behind, so it ends by a reset.
        socket.set_reuse_address(true)?;
        socket.set_linger(Some(std::time::Duration::ZERO))?;
    }
    socket.bind(&source.into())?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

/// A datagram socket that knows only `address`.
pub(super) async fn datagrams(
    address: SocketAddr,
    source: Option<SocketAddr>,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    let any = if address.is_ipv4() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let source = source.unwrap_or(SocketAddr::new(any, 0));
    // Several backends at a time from the same port.
    socket.set_reuse_address(source.port() != 0)?;
    socket.bind(&source.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_backend_sees_the_source_that_is_wanted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        for source in ["127.0.0.5:0", "127.0.0.6:12345", "127.0.0.6:12345"] {
            let source: SocketAddr = source.parse().unwrap();
            let stream = connect(at, Some(source)).await.unwrap();
            let (_, seen) = listener.accept().await.unwrap();
            assert_eq!(seen.ip(), source.ip());
            assert!(source.port() == 0 || seen == source, "{seen}");
            drop(stream);
        }
        let error = connect(at, Some("192.0.2.1:0".parse().unwrap())).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let source: SocketAddr = "127.0.0.7:12346".parse().unwrap();
        let socket = datagrams(server.local_addr().unwrap(), Some(source)).await.unwrap();
        socket.send(b"x").await.unwrap();
        assert_eq!(server.recv_from(&mut [0; 8]).await.unwrap().1, source);
    }
}
