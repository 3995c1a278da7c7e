//! A machine that is thousands of backends: it has all addresses of 10.96.0.0/12, where the lab has none, and one server on
//! all of them whose health page says of each what it is told to say.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Instant,
};

use anyhow::Context as _;
use aya::Ebpf;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    client::in_thread,
    lab::{Lab, PORT, pass_on},
    machine::Machine,
};

/// The crowd. Dropping it ends its server with its machine.
pub struct Crowd {
    machine: Machine,
    answers: Arc<Mutex<Answers>>,
    _pass: Option<Ebpf>,
}

#[derive(Default)]
struct Answers {
    /// Whose health page says no.
    sick: std::collections::HashSet<IpAddr>,
    /// What each one's page said last, and since when it says so.
    said: HashMap<IpAddr, (bool, Instant)>,
}

impl Answers {
    fn note(&mut self, address: IpAddr, healthy: bool) {
        let now = Instant::now();
        let said = self.said.entry(address).or_insert((healthy, now));
        if said.0 != healthy {
            *said = (healthy, now);
        }
    }
}

impl Crowd {
    /// At the other end of a NIC `lb0` of lb's machine, which is the gateway of both.
    pub fn beside(lb: &Machine) -> anyhow::Result<Self> {
        let machine = Machine::new("crowd")?;
        lb.connect("lb0", &machine, "c0", 1500)?;
        lb.ip("addr add 10.77.0.1/24 dev lb0")?;
        let pass = pass_on(&machine, &["c0".to_owned()])?;
        Self::start(machine, lb, Some(pass))
    }

    /// On the segment of the backends of a one-armed lab.
    pub fn among(lab: &Lab) -> anyhow::Result<Self> {
        let machine = Machine::new("crowd")?;
        machine.connect("c0", &lab.switch, "p-crowd", 1600)?;
        lab.switch.ip("link set p-crowd master br0")?;
        Self::start(machine, &lab.lb, None)
    }

    fn start(machine: Machine, lb: &Machine, pass: Option<Ebpf>) -> anyhow::Result<Self> {
        machine.sh("ip addr add 10.77.0.2/24 dev c0; ip route add default via 10.77.0.1; \
             ip route add local 10.96.0.0/12 dev lo")?;
        lb.ip("route add 10.96.0.0/12 via 10.77.0.2")?;
        let answers = Arc::new(Mutex::new(Answers::default()));
        let (ready, started) = mpsc::channel();
        let shared = answers.clone();
        in_thread(&machine, move || async move {
            let listener = TcpSocket::new_v4().and_then(|socket| {
                socket.set_reuseaddr(true)?;
                socket.bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT))?;
                socket.listen(16_384)
            });
            let listener = match listener {
                Ok(listener) => listener,
                Err(error) => {
                    // The caller waits for exactly this.
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            // Ends with the machine: its sockets are gone then.
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, shared.clone()));
            }
        });
        started.recv().context("the server's thread has ended")??;
        Ok(Self { machine, answers, _pass: pass })
    }

    /// Address of a backend, from 0.
    pub fn address(number: usize) -> IpAddr {
        Ipv4Addr::new(
            10,
            96 + (number / 62_500) as u8,
            (number / 250 % 250) as u8,
            (number % 250) as u8 + 1,
        )
        .into()
    }

    /// What the health page of a backend says from now on.
    pub fn set_healthy(&self, number: usize, healthy: bool) {
        let mut answers = lock(&self.answers);
        match healthy {
            true => answers.sick.remove(&Self::address(number)),
            false => answers.sick.insert(Self::address(number)),
        };
    }

    /// When the page of a backend began to say this; `None` = it has not said so last.
    pub fn said(&self, number: usize, healthy: bool) -> Option<Instant> {
        let answers = lock(&self.answers);
        let said = answers.said.get(&Self::address(number))?;
        (said.0 == healthy).then_some(said.1)
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

fn lock(answers: &Mutex<Answers>) -> MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(mut stream: TcpStream, answers: Arc<Mutex<Answers>>) {
    let Ok(local) = stream.local_addr() else { return };
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let healthy = !lock(&answers).sick.contains(&local.ip());
    let (status, body) =
        if healthy { ("200 OK", "crowd") } else { ("503 Service Unavailable", "sick") };
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    lock(&answers).note(local.ip(), healthy);
    // Who asked has gone if this fails.
    let _ = stream.write_all(reply.as_bytes()).await;
}
