//! How a question gets to the backend: straight to its address, or to the VIP there; from the address wanted.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    time::Instant,
};

use super::{CheckCode, Outcome, stream::Stream, vip};
use crate::{health::Served, net::Snapshot};

/// The way to one backend.
pub(super) struct Road<'a> {
    /// What is asked.
    pub(super) address: SocketAddr,
    /// Where from; port 0 = any. `None` = as the routes say.
    pub(super) source: Option<SocketAddr>,
    /// For `via: vip`: whose VIP, and what is known of the network.
    pub(super) vip: Option<(&'a Served, Arc<Snapshot>)>,
}

/// Why there is no way.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The kernel's word.
    Io(io::Error),
    /// Here, in words: not the backend's fault.
    Ours(String),
    /// There, in words.
    Theirs(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trouble {
    /// As the result of a probe.
    pub(super) fn outcome(&self, began: Instant) -> Outcome {
        match self {
            Self::Io(error) => Outcome::connect_failed(error, began.elapsed()),
            Self::Ours(text) => Outcome::new(CheckCode::SockErr, text, began.elapsed()),
            Self::Theirs(text) => Outcome::new(CheckCode::L4Con, text, began.elapsed()),
        }
    }
}

impl Road<'_> {
    /// A connection.
    pub(super) async fn connect(&self) -> Result<Stream, Trouble> {
        match &self.vip {
            None => Ok(Stream::Direct(connect(self.address, self.source).await?)),
            Some((served, network)) => {
                let way = vip::Way::find(served, self.address, self.source, network)?;
                Ok(Stream::Vip(vip::connect(way).await?))
            }
        }
    }

    /// A socket for datagrams that go there and come from there alone.
    pub(super) async fn datagrams(&self) -> Result<Datagrams, Trouble> {
        match &self.vip {
            None => Ok(Datagrams::Direct(datagrams(self.address, self.source).await?)),
            Some((served, network)) => {
                let way = vip::Way::find(served, self.address, self.source, network)?;
                Ok(Datagrams::Vip(Box::new(vip::Datagrams::open(way)?)))
            }
        }
    }
}

/// A socket for datagrams.
pub(super) enum Datagrams {
    /// The kernel's own.
    Direct(UdpSocket),
    /// To the VIP on the backend.
    Vip(Box<vip::Datagrams>),
}

impl Datagrams {
    /// Sends one.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Direct(socket) => socket.send(bytes).await.map(drop),
            Self::Vip(socket) => socket.send(bytes),
        }
    }

    /// Waits for one; its length.
    pub(super) async fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Direct(socket) => socket.recv(buffer).await,
            Self::Vip(socket) => socket.recv(buffer).await,
        }
    }
}

async fn connect(address: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if source.port() == 0 {
        // The port is chosen once both ends are known: thousands of probes do not use up those of one address.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    } else {
        // Several backends at a time from the same port, and again right after the last connection: that one must
        // leave nothing behind, so it ends by a reset.
        socket.set_reuse_address(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
    }
    socket.bind(&source.into())?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

async fn datagrams(address: SocketAddr, source: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
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
