//! QUIC by a real implementation (quinn): connections through nat and a tunnel, clients that change their address, and backends that
//! come and go.

use std::{
    collections::BTreeSet,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lb_tests::{
    daemon::Daemon,
    lab::{Arms, Lab, Return, VIP4, VIP6, backend4, backend6},
    machine::Machine,
};
use quinn::{
    ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{sync::watch, time::timeout};

const PORT: u16 = 443;
/// How long a question may go unanswered: several of QUIC's own timeouts for a lost packet.
const PATIENCE: Duration = Duration::from_secs(8);

/// Gives out connection ids by which lb finds the server: config 0, two bytes of server id, a nonce.
struct Named([u8; 2]);

impl ConnectionIdGenerator for Named {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        rand::fill(&mut id);
        id[0] &= 0x1f;
        id[1..3].copy_from_slice(&self.0);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Servers of a lab's backends; dropping it ends them.
struct Servers {
    certificate: CertificateDer<'static>,
    _stop: watch::Sender<bool>,
}

impl Servers {
    /// One on each backend, which answers "how many bytes?" with its name and so many.
    fn start(lab: &Lab, are_direct: bool) -> anyhow::Result<Self> {
        let pair = rcgen::generate_simple_self_signed(["lb.test".to_owned()])?;
        let certificate = pair.cert.der().clone();
        let (stop, stopped) = watch::channel(false);
        for (number, machine) in (1..).zip(&lab.backends) {
            let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
            let config =
                quinn::ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
            let mut addresses = vec![backend4(number), backend6(number)];
            if are_direct {
                addresses.extend([VIP4, VIP6]);
            }
            let stopped = stopped.clone();
            let (ready, started) = mpsc::channel();
            in_machine(machine, move || async move {
                let bound: anyhow::Result<Vec<Endpoint>> = addresses
                    .iter()
                    .map(|address| server(number as u8, SocketAddr::new(*address, PORT), &config))
                    .collect();
                let endpoints = bound.as_ref().map(Clone::clone).unwrap_or_default();
                let _ = ready.send(bound.map(drop));
                for endpoint in endpoints {
                    tokio::spawn(serve(endpoint, format!("web{number}")));
                }
                let mut stopped = stopped;
                // The sender's end is the order to stop.
                let _ = stopped.changed().await;
            });
            started.recv().context("the server's thread has ended")??;
        }
        Ok(Self { certificate, _stop: stop })
    }

    fn client(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(ClientConfig::with_root_certificates(Arc::new(roots))?)
    }
}

fn server(
    number: u8,
    address: SocketAddr,
    config: &quinn::ServerConfig,
) -> anyhow::Result<Endpoint> {
    let mut endpoint = EndpointConfig::default();
    endpoint.cid_generator(move || Box::new(Named([0x0a, number])));
    let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(Endpoint::new(endpoint, Some(config.clone()), socket, runtime)?)
}

async fn serve(endpoint: Endpoint, name: String) {
    while let Some(incoming) = endpoint.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            let connection = incoming.await?;
            while let Ok((mut answer, mut question)) = connection.accept_bi().await {
                let length: usize = String::from_utf8(question.read_to_end(20).await?)?.parse()?;
                answer.write_all(format!("{name} ").as_bytes()).await?;
                answer.write_all(&vec![7; length]).await?;
                answer.finish()?;
            }
            anyhow::Ok(())
        });
    }
}

/// Runs a future in a thread of a machine.
fn in_machine<F: Future<Output = ()>>(
    machine: &Machine,
    make: impl FnOnce() -> F + Send + 'static,
) {
    machine.run(move || {
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(make());
        });
    });
}

/// Runs a client's story in the client's machine, and returns what came of it.
fn as_client<T: Send + 'static, F: Future<Output = anyhow::Result<T>>>(
    lab: &Lab,
    make: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<T> {
    let (tell, told) = mpsc::channel();
    in_machine(&lab.client, move || async move {
        // Who waits for it is there.
        let _ = tell.send(make().await);
    });
    told.recv().context("the client's thread has ended")?
}

fn socket(vip: IpAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match vip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind(SocketAddr::new(any, 0))
}

async fn connect(vip: IpAddr, config: &ClientConfig) -> anyhow::Result<(Endpoint, Connection)> {
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket(vip)?, runtime)?;
    let connecting =
        endpoint.connect_with(config.clone(), SocketAddr::new(vip, PORT), "lb.test")?;
    let connection = timeout(PATIENCE, connecting).await.context("no handshake")??;
    Ok((endpoint, connection))
}

/// Has a server send so many bytes, and returns who has.
async fn ask(connection: &Connection, length: usize) -> anyhow::Result<String> {
    let asking = async {
        let (mut question, mut answer) = connection.open_bi().await?;
        question.write_all(length.to_string().as_bytes()).await?;
        question.finish()?;
        anyhow::Ok(answer.read_to_end(length + 100).await?)
    };
    let bytes = timeout(PATIENCE, asking).await.context("no answer")??;
    let space = bytes.iter().position(|byte| *byte == b' ').context("an answer without a name")?;
    let body = &bytes[space + 1..];
    ensure!(body.len() == length && body.iter().all(|byte| *byte == 7), "{} bytes", body.len());
    Ok(String::from_utf8(bytes[..space].to_vec())?)
}

/// Services on both VIPs; backends with `weights`.
fn yaml(forward: &str, quic_lb: &str, weights: &[u32]) -> String {
    let mut yaml = "services:\n".to_owned();
    for (name, vip, backend) in
        [("v4", VIP4, backend4 as fn(usize) -> IpAddr), ("v6", VIP6, backend6)]
    {
        yaml += &format!(
            "  - name: {name}\n    listen: {{address: \"{vip}\", port: {PORT}, protocol: quic}}\n    {forward}\n{quic_lb}    backends:\n"
        );
        for (number, weight) in (1..).zip(weights) {
            let id = if quic_lb.is_empty() {
                String::new()
            } else {
                format!(", server_id: 0a{number:02x}")
            };
            let address = backend(number);
            yaml += &format!(
                "      - {{name: web{number}, address: \"{address}\", weight: {weight}{id}}}\n"
            );
        }
    }
    yaml
}

const QUIC_LB: &str = "    quic_lb: 2\n";

/// Clients change their port again and again, and stay with their server.
fn migration(way: Return, forward: &str) {
    const MOVES: usize = 12;
    let lab = Lab::new(Arms::One, way, 3).unwrap();
    if way == Return::Direct {
        lab.decapsulate();
    }
    let servers = Servers::start(&lab, way == Return::Direct).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml(forward, QUIC_LB, &[100; 3])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    for vip in [VIP4, VIP6] {
        let config = servers.client().unwrap();
        let story = as_client(&lab, move || async move {
            let mut servers = BTreeSet::new();
            for number in 0..6 {
                let (endpoint, connection) = connect(vip, &config).await?;
                let name = ask(&connection, 100_000).await?;
                for step in 0..MOVES {
                    endpoint.rebind(socket(vip)?)?;
                    let found = ask(&connection, 20_000).await.with_context(|| {
                        format!("connection {number} to {vip} ({name}), move {step}")
                    })?;
                    ensure!(found == name, "connection {number} went from {name} to {found}");
                }
                servers.insert(name);
            }
            Ok(servers)
        });
        let servers = story.unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log_tail()));
        assert!(servers.len() > 1, "all went to {servers:?}: nothing is shown");
    }
}

#[test]
fn clients_that_change_their_address_stay_with_their_server_in_nat() {
    migration(Return::ThroughLb, "forward: nat");
}

#[test]
fn clients_that_change_their_address_stay_with_their_server_behind_a_tunnel() {
    migration(Return::Direct, "forward: tunnel\n    encap: ipip");
}

/// Without connection ids: connections stay where they are while one server drains and comes back, and large answers arrive whole.
#[test]
fn open_connections_outlive_changes_of_backends() {
    const CONNECTIONS: usize = 40;
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let servers = Servers::start(&lab, false).unwrap();
    let mut daemon =
        Daemon::new(&lab.lb, &lab.nics, &yaml("forward: nat", "", &[100, 100, 0])).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let config = servers.client().unwrap();
    let (next, steps) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    in_machine(&lab.client, move || async move {
        let story = async {
            let mut open = Vec::new();
            for number in 0..CONNECTIONS {
                let vip = [VIP4, VIP6][number % 2];
                let (endpoint, connection) = connect(vip, &config).await?;
                let name = ask(&connection, 10).await?;
                open.push((endpoint, connection, name));
            }
            loop {
                let _ = tell.send(Ok(()));
                // Nobody asks any more: the end.
                if steps.recv().is_err() {
                    return anyhow::Ok(());
                }
                for (number, (_, connection, name)) in open.iter().enumerate() {
                    let length = if number < 2 { 5_000_000 } else { 1_000 };
                    let found = ask(connection, length)
                        .await
                        .with_context(|| format!("connection {number} ({name})"))?;
                    ensure!(found == *name, "connection {number} went from {name} to {found}");
                }
            }
        };
        if let Err(error) = story.await {
            let _ = tell.send(Err(error));
        }
    });
    let settled =
        || told.recv().unwrap().unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log_tail()));
    settled();
    for weights in [[100, 100, 100], [0, 100, 100], [100, 0, 100], [100, 100, 100]] {
        daemon.write(&yaml("forward: nat", "", &weights)).unwrap();
        daemon.must(&["reload"]);
        next.send(()).unwrap();
        settled();
    }
    let flows: u64 = daemon.stats().services.iter().map(|service| service.total.flows).sum();
    assert!(flows >= CONNECTIONS as u64, "{flows} first packets were counted");
}
