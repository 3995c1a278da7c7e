//! The stack for one probe, and what moves bytes between it, the kernel's sockets and the probe.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::{tcp, udp},
    time::Instant as StackTime,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint},
};
use socket2::{Protocol, Socket};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::UdpSocket,
    time::Instant,
};

use super::{Way, sockets};

/// Largest packet of ours, bytes: what every IPv6 link carries, less both kinds of tunnel header.
const MTU: usize = 1_240;
/// Buffers of a connection, bytes.
const BUFFER: usize = 64 << 10;
/// How long the backend may take to end a connection; then it is reset.
const LINGER: Duration = Duration::from_millis(200);

/// One probe's stack with its socket.
pub(super) struct Session {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    queues: Queues,
    wire: sockets::Wire,
    tap: UdpSocket,
    /// Keeps the port.
    _sink: Socket,
    vip: SocketAddr,
    port: u16,
    began: Instant,
    is_tcp: bool,
}

impl Session {
    /// With a TCP socket.
    pub(super) fn tcp(way: Way) -> io::Result<Self> {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        Self::new(way, Protocol::TCP, |sockets| sockets.add(socket))
    }

    fn udp(way: Way) -> io::Result<Self> {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; BUFFER]);
        let socket = udp::Socket::new(buffer(), buffer());
        Self::new(way, Protocol::UDP, |sockets| sockets.add(socket))
    }

    fn new(
        way: Way,
        protocol: Protocol,
        add: impl FnOnce(&mut SocketSet<'static>) -> SocketHandle,
    ) -> io::Result<Self> {
        let Way { vip, source, wire } = way;
        let (sink, port) = sockets::sink(source, protocol)?;
        let tap = sockets::tap(vip, SocketAddr::new(source, port), protocol)?;
        // Any datagram socket receives as a UDP socket does.
        let tap = UdpSocket::from_std(tap.into())?;
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random();
        let mut interface = Interface::new(config, &mut queues, StackTime::ZERO);
        let whole = if source.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| {
            // There is room: it is the only one.
            let _ = addresses.push(IpCidr::new(IpAddress::from(source), whole));
        });
        let routes = interface.routes_mut();
        let full = match vip.ip() {
            IpAddr::V4(vip) => routes.add_default_ipv4_route(vip).is_err(),
            IpAddr::V6(vip) => routes.add_default_ipv6_route(vip).is_err(),
        };
        debug_assert!(!full, "the only route");
        let mut sockets = SocketSet::new(Vec::new());
        let handle = add(&mut sockets);
        let (began, is_tcp) = (Instant::now(), protocol == Protocol::TCP);
        Ok(Self {
            interface,
            sockets,
            handle,
            queues,
            wire,
            tap,
            _sink: sink,
            vip,
            port,
            began,
            is_tcp,
        })
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn now(&self) -> StackTime {
        StackTime::from_micros(self.began.elapsed().as_micros() as i64)
    }

    /// Lets the stack work on what has come, and sends what it wants to send.
    fn turn(&mut self) -> io::Result<()> {
        let now = self.now();
        self.interface.poll(now, &mut self.queues, &mut self.sockets);
        while let Some(packet) = self.queues.out.pop_front() {
            self.wire.send(&packet)?;
        }
        Ok(())
    }

    /// Until when nothing is to be done unless something comes.
    fn delay(&mut self) -> Duration {
        let now = self.now();
        let delay = self.interface.poll_delay(now, &self.sockets);
        delay.map_or(Duration::from_secs(1), |delay| Duration::from_micros(delay.total_micros()))
    }

    /// Waits for a packet, or until it is time to repeat one.
    async fn wait(&mut self) -> io::Result<()> {
        let delay = self.delay();
        tokio::select! {
            packet = receive(&self.tap) => self.queues.inside.push_back(packet?),
            error = self.wire.failure() => return Err(error),
            () = tokio::time::sleep(delay) => {}
        }
        Ok(())
    }

    /// Shakes hands. A refusal, and ICMP errors that the tunnel's packets bring about, are errors.
    pub(super) async fn connect(&mut self) -> io::Result<()> {
        let (vip, port) = (self.vip, self.port);
        let context = self.interface.context();
        let socket: &mut tcp::Socket<'static> = self.sockets.get_mut(self.handle);
        socket.connect(context, vip, port).map_err(io::Error::other)?;
        loop {
            self.turn()?;
            match self.socket().state() {
                tcp::State::Closed => return Err(io::ErrorKind::ConnectionRefused.into()),
                tcp::State::SynSent | tcp::State::SynReceived => self.wait().await?,
                _ => return Ok(()),
            }
        }
    }

    /// Moves bytes between the connection and `far`, until either end has closed. An error ends both.
    pub(super) async fn carry(mut self, far: DuplexStream) {
        let (mut reader, mut writer) = tokio::io::split(far);
        let (mut piece, mut arrived) = (vec![0; 4_096], Vec::new());
        let (mut reads, mut writes) = (true, true);
        let mut end = None;
        loop {
            if self.turn().is_err() {
                return;
            }
            let socket = self.socket();
            if arrived.is_empty() && socket.can_recv() {
                arrived.resize(piece.len(), 0);
                let length = socket.recv_slice(&mut arrived).unwrap_or(0);
                arrived.truncate(length);
            }
            if arrived.is_empty() && writes && !socket.may_recv() {
                // The other end may have gone; nobody is left to be told.
                let _ = writer.shutdown().await;
                writes = false;
            }
            if !socket.is_active() {
                return;
            }
            let room = socket.send_capacity().saturating_sub(socket.send_queue());
            let room = if reads && socket.may_send() { room.min(piece.len()) } else { 0 };
            let delay = self.delay();
            let over = end.unwrap_or_else(|| Instant::now() + LINGER);
            tokio::select! {
                packet = receive(&self.tap) => match packet {
                    Ok(packet) => self.queues.inside.push_back(packet),
                    Err(_) => return,
                },
                read = reader.read(&mut piece[..room]), if room > 0 => match read {
                    Ok(length @ 1..) => drop(self.socket().send_slice(&piece[..length])),
                    _ => {
                        reads = false;
                        self.socket().close();
                        end = Some(Instant::now() + LINGER);
                    }
                },
                written = writer.write(&arrived), if !arrived.is_empty() => match written {
                    Ok(length @ 1..) => drop(arrived.drain(..length)),
                    // Nobody reads any more.
                    _ => arrived.clear(),
                },
                () = tokio::time::sleep(delay) => {}
                () = tokio::time::sleep_until(over), if end.is_some() => return,
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_tcp && self.socket().is_open() {
            // The backend need not wait for us. If it cannot be told, it finds out.
            self.socket().abort();
            let _ = self.turn();
        }
    }
}

/// The next packet.
async fn receive(tap: &UdpSocket) -> io::Result<Vec<u8>> {
    tap.readable().await?;
    let mut packet = vec![0; 65_535];
    let length = tap.recv(&mut packet).await?;
    packet.truncate(length);
    Ok(packet)
}

/// Nobody can guess where sequence numbers begin.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(Instant::now())
}

/// Datagrams to a VIP. (That its port is refused is not seen: ICMP errors do not come from it.)
pub(in super::super) struct Datagrams(Session);

impl Datagrams {
    /// A socket of its own.
    pub(in super::super) fn open(way: Way) -> io::Result<Self> {
        let mut session = Session::udp(way)?;
        let port = session.port;
        let socket: &mut udp::Socket<'static> = session.sockets.get_mut(session.handle);
        socket.bind(port).map_err(io::Error::other)?;
        Ok(Self(session))
    }

    fn socket(&mut self) -> &mut udp::Socket<'static> {
        self.0.sockets.get_mut(self.0.handle)
    }

    /// Sends one.
    pub(in super::super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let to = IpEndpoint::from(self.0.vip);
        self.socket().send_slice(bytes, to).map_err(io::Error::other)?;
        self.0.turn()
    }

    /// Waits for one; its length.
    pub(in super::super) async fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.0.turn()?;
            if self.socket().can_recv() {
                let received = self.socket().recv_slice(buffer);
                return received.map(|(length, _)| length).map_err(io::Error::other);
            }
            self.0.wait().await?;
        }
    }
}

/// What the stack takes for its NIC.
#[derive(Default)]
struct Queues {
    inside: VecDeque<Vec<u8>>,
    out: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: StackTime) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.inside.pop_front()?), Sending(&mut self.out)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Sending<'_>> {
        Some(Sending(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // The NIC looks at those of what comes; between machines of one host there may be none yet.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}
