//! A small real server: HTTP/1.1 with keep-alive over TCP that answers with its name, and a UDP echo that does.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
};

use crate::machine::Machine;

/// A running server. Dropping it closes its listener and all its connections.
pub struct Server {
    /// Requests answered (other than `/healthz`).
    pub requests: Arc<AtomicU64>,
    /// What `/healthz` says: 200 or 503.
    pub healthy: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
}

impl Server {
    /// Starts it in a machine, on TCP and UDP of every address.
    pub fn start(machine: &Machine, name: &str, addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let requests = Arc::new(AtomicU64::new(0));
        let healthy = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let shared =
            Shared { name: name.to_owned(), requests: requests.clone(), healthy: healthy.clone() };
        let addresses = addresses.to_vec();
        machine.run(move || {
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let result = match runtime {
                    Ok(runtime) => runtime.block_on(serve(shared, addresses, stopped, &ready)),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = result {
                    // Nobody waits any more if it had started.
                    let _ = ready.send(Err(error));
                }
                drop(end);
            });
        });
        started.recv().context("the server's thread has ended")??;
        Ok(Self { requests, healthy, stop, ended })
    }

    /// Stops it: connections are reset or closed, new ones refused.
    pub fn stop(self) {
        drop(self);
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the server has ended already.
        let _ = self.stop.send(true);
        let _ = self.ended.recv();
    }
}

#[derive(Clone)]
struct Shared {
    name: String,
    requests: Arc<AtomicU64>,
    healthy: Arc<AtomicBool>,
}

async fn serve(
    shared: Shared,
    addresses: Vec<SocketAddr>,
    mut stopped: watch::Receiver<bool>,
    ready: &mpsc::Sender<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    for address in addresses {
        let listener = listen(address).with_context(|| format!("listen on {address}"))?;
        let udp = UdpSocket::bind(address).await.with_context(|| format!("bind {address}"))?;
        let tcp = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, tcp.clone()));
            }
        });
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut datagram = [0u8; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut datagram).await {
                let reply = [shared.name.as_bytes(), b" ", &datagram[..length]].concat();
                shared.requests.fetch_add(1, Ordering::Relaxed);
                // An answer that cannot be sent is the client's to miss.
                let _ = udp.send_to(&reply, from).await;
            }
        });
    }
    let _ = ready.send(Ok(()));
    // The sender's end counts as the order to stop.
    let _ = stopped.changed().await;
    Ok(())
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn answer(mut stream: TcpStream, shared: Shared) {
    let mut request = Vec::new();
    let mut buffer = [0u8; 1024];
    loop {
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => request.extend(&buffer[..length]),
            }
        }
        let probe = request.starts_with(b"GET /healthz ");
        // Who speaks HTTP/1.0 reads to the end of the connection.
        let close = request.windows(17).any(|w| w.eq_ignore_ascii_case(b"connection: close"))
            || request.windows(11).any(|w| w == b" HTTP/1.0\r\n");
        request.clear();
        let (status, body) = match (probe, shared.healthy.load(Ordering::Relaxed)) {
            (true, false) => ("503 Service Unavailable", "sick"),
            _ => ("200 OK", shared.name.as_str()),
        };
        if !probe {
            shared.requests.fetch_add(1, Ordering::Relaxed);
        }
        let connection = if close { "close" } else { "keep-alive" };
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(reply.as_bytes()).await.is_err() || close {
            return;
        }
    }
}
