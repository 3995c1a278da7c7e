//! Clients: a load of requests, connections that stay open, datagrams. All run in the client machine, each in a thread
//! of its own with a tokio runtime.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use crate::machine::Machine;

/// Longest time a request may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answered, by the name of who answered.
    pub answered: BTreeMap<String, u64>,
    /// Failed, by reason.
    pub failed: BTreeMap<String, u64>,
}

impl Tally {
    /// Requests answered.
    pub fn ok(&self) -> u64 {
        self.answered.values().sum()
    }

    /// Requests failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn count(&mut self, result: anyhow::Result<String>) {
        match result {
            Ok(name) => *self.answered.entry(name).or_default() += 1,
            Err(error) => *self.failed.entry(format!("{error:#}")).or_default() += 1,
        }
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    ended: mpsc::Receiver<()>,
}

impl Load {
    /// `workers` clients that open a connection, ask, and close, again and again, over all `targets` in turn, pausing
    /// `pause` between requests.
    pub fn start(
        machine: &Machine,
        targets: &[SocketAddr],
        workers: usize,
        pause: Duration,
    ) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::channel();
        let (counted, stopped, targets) = (tally.clone(), stop.clone(), targets.to_vec());
        in_thread(machine, move || async move {
            let mut tasks = tokio::task::JoinSet::new();
            for worker in 0..workers {
                let (tally, stop, targets) = (counted.clone(), stopped.clone(), targets.clone());
                tasks.spawn(async move {
                    let mut turn = worker;
                    while !stop.load(Ordering::Relaxed) {
                        let result = request(targets[turn % targets.len()]).await;
                        turn += 1;
                        lock(&tally).count(result);
                        tokio::time::sleep(pause).await;
                    }
                });
            }
            while tasks.join_next().await.is_some() {}
            drop(end);
        });
        Self { tally, stop, ended }
    }

    /// What became of the requests so far.
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Ends it and tells what became of all requests.
    pub fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        // Fails when the last worker has gone, which is what is waited for.
        let _ = self.ended.recv();
        self.tally()
    }
}

/// `count` requests, each over a new connection, `workers` at a time.
pub fn requests(machine: &Machine, target: SocketAddr, count: usize, workers: usize) -> Tally {
    let (answer, result) = mpsc::channel();
    in_thread(machine, move || async move {
        let mut tally = Tally::default();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            if tasks.len() >= workers
                && let Some(Ok(result)) = tasks.join_next().await
            {
                tally.count(result);
            }
            tasks.spawn(request(target));
        }
        while let Some(Ok(result)) = tasks.join_next().await {
            tally.count(result);
        }
        // The caller waits for exactly this.
        let _ = answer.send(tally);
    });
    result.recv().unwrap_or_default()
}

/// Who answers a connection from each of these ports, asked one after the other: the same flows each time.
pub fn answers_by_port(
    machine: &Machine,
    target: SocketAddr,
    ports: std::ops::Range<u16>,
) -> anyhow::Result<BTreeMap<u16, String>> {
    let (answer, result) = mpsc::channel();
    in_thread(machine, move || async move {
        let mut answers = BTreeMap::new();
        for port in ports {
            match request_from(target, Some(SocketAddr::new(any_address(target), port))).await {
                Ok(name) => drop(answers.insert(port, name)),
                Err(error) => {
                    let _ = answer.send(Err(error.context(format!("port {port}"))));
                    return;
                }
            }
        }
        // The caller waits for exactly this.
        let _ = answer.send(Ok(answers));
    });
    result.recv().context("the client's thread has ended")?
}

/// Whether one request over a new connection is answered within `limit`.
pub fn is_answered(machine: &Machine, target: SocketAddr, limit: Duration) -> bool {
    let (answer, result) = mpsc::channel();
    in_thread(machine, move || async move {
        // The caller waits for exactly this.
        let _ = answer.send(matches!(timeout(limit, request(target)).await, Ok(Ok(_))));
    });
    result.recv().unwrap_or(false)
}

/// `count` datagrams, each from a new socket, each answered before the next, repeated up to three times.
pub fn datagrams(machine: &Machine, target: SocketAddr, count: usize) -> Tally {
    let (answer, result) = mpsc::channel();
    in_thread(machine, move || async move {
        let mut tally = Tally::default();
        for number in 0..count {
            tally.count(datagram(target, number).await);
        }
        // The caller waits for exactly this.
        let _ = answer.send(tally);
    });
    result.recv().unwrap_or_default()
}

/// Who answers datagrams to `target` from each of the client's addresses 10.77.1.N, by the N.
///
/// # Panics
/// If one gets no answer to three datagrams.
pub fn by_client(
    machine: &Machine,
    target: SocketAddr,
    clients: std::ops::Range<u8>,
) -> Vec<String> {
    let clients: Vec<u8> = clients.collect();
    machine.run(move || {
        let ask = |last: &u8| {
            let socket =
                std::net::UdpSocket::bind(("10.77.1.".to_owned() + &last.to_string(), 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.connect(target).unwrap();
            let mut answer = [0u8; 64];
            for _ in 0..3 {
                socket.send(b"who").unwrap();
                if let Ok(length) = socket.recv(&mut answer) {
                    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
                    return text.split(' ').next().unwrap_or_default().to_owned();
                }
            }
            panic!("10.77.1.{last} gets no answer");
        };
        clients.iter().map(ask).collect()
    })
}

async fn datagram(target: SocketAddr, number: usize) -> anyhow::Result<String> {
    let socket = UdpSocket::bind(SocketAddr::new(any_address(target), 0)).await?;
    socket.connect(target).await?;
    let question = format!("datagram {number}");
    let mut reply = [0u8; 256];
    for _ in 0..3 {
        socket.send(question.as_bytes()).await?;
        if let Ok(length) = timeout(Duration::from_secs(2), socket.recv(&mut reply)).await {
            let text = String::from_utf8_lossy(&reply[..length?]).into_owned();
            let (name, echo) = text.split_once(' ').context("no name in the answer")?;
            anyhow::ensure!(echo == question, "asked {question:?}, got {echo:?}");
            return Ok(name.to_owned());
        }
    }
    bail!("no answer")
}

/// The unspecified address of the target's family.
fn any_address(target: SocketAddr) -> IpAddr {
    match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// One request over a new connection. A failure tells how far it came, and from which port, so that its packets can be
/// found.
pub async fn request(target: SocketAddr) -> anyhow::Result<String> {
    request_from(target, None).await
}

/// The same, from one of the machine's addresses; port 0 = any.
pub async fn request_from(
    target: SocketAddr,
    source: Option<SocketAddr>,
) -> anyhow::Result<String> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        socket.set_reuseaddr(true)?;
        socket.bind(source).context("bind")?;
    }
    let mut step = "connecting".to_owned();
    let work = async {
        let mut stream = socket.connect(target).await?;
        let port = stream.local_addr()?.port();
        step = format!("asking from port {port}");
        let name = ask(&mut stream, true).await?;
        step = format!("closing from port {port}");
        // Its end has come by now, or comes at once.
        let mut rest = [0u8; 1];
        let _ = stream.read(&mut rest).await;
        anyhow::Ok(name)
    };
    let result = timeout(PATIENCE, work).await;
    match result {
        Ok(result) => result.context(step),
        Err(_) => bail!("{step}: timed out"),
    }
}

async fn ask(stream: &mut TcpStream, close: bool) -> anyhow::Result<String> {
    let connection = if close { "close" } else { "keep-alive" };
    let question = format!("GET / HTTP/1.1\r\nHost: lab\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(question.as_bytes()).await.context("send")?;
    let mut reply = Vec::new();
    let mut buffer = [0u8; 512];
    loop {
        if let Some(name) = complete(&reply)? {
            return Ok(name);
        }
        match stream.read(&mut buffer).await.context("receive")? {
            0 => bail!("closed before the answer was complete"),
            length => reply.extend(&buffer[..length]),
        }
    }
}

/// The body of a complete answer.
fn complete(reply: &[u8]) -> anyhow::Result<Option<String>> {
    let text = String::from_utf8_lossy(reply);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.parse::<usize>().ok())
        .context("no Content-Length")?;
    if body.len() < length {
        return Ok(None);
    }
    anyhow::ensure!(
        head.starts_with("HTTP/1.1 200"),
        "status {}",
        head.lines().next().unwrap_or("")
    );
    Ok(Some(body.to_owned()))
}

enum Order {
    /// Every connection asks once; the broken and the moved ones are told.
    Ask(mpsc::Sender<Vec<String>>),
    /// How many connections each backend has.
    Count(mpsc::Sender<BTreeMap<String, usize>>),
}

/// Connections that stay open, each of which has to reach the backend it began with. They speak by themselves
/// every second, as long as this lives.
pub struct Held {
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
}

impl Held {
    /// Opens `count` connections.
    pub fn open(machine: &Machine, target: SocketAddr, count: usize) -> anyhow::Result<Self> {
        Self::open_calm(machine, target, count, 1)
    }

    /// The same for so many that speaking is work: each speaks once in `seconds`, some of them every second.
    pub fn open_calm(
        machine: &Machine,
        target: SocketAddr,
        count: usize,
        seconds: usize,
    ) -> anyhow::Result<Self> {
        let (orders, mut inbox) = tokio::sync::mpsc::unbounded_channel();
        let (ready, started) = mpsc::channel();
        in_thread(machine, move || async move {
            let opened = open_all(target, count).await;
            let (mut held, result) = match opened {
                Ok(held) => (held, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            };
            // The caller waits for exactly this.
            let _ = ready.send(result);
            let mut broken = Vec::new();
            let mut every = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    order = inbox.recv() => match order {
                        None => return,
                        Some(Order::Ask(answer)) => {
                            let all = held.len();
                            speak(&mut held, all, &mut broken).await;
                            let _ = answer.send(broken.clone());
                        }
                        Some(Order::Count(answer)) => {
                            let mut count = BTreeMap::new();
                            for (_, name) in &held {
                                *count.entry(name.clone()).or_default() += 1;
                            }
                            let _ = answer.send(count);
                        }
                    },
                    _ = every.tick() => {
                        let some = held.len().div_ceil(seconds);
                        speak(&mut held, some, &mut broken).await;
                    }
                }
            }
        });
        started.recv().context("the client's thread has ended")??;
        Ok(Self { orders })
    }

    /// Has every connection ask once more; what is broken or has moved since the beginning, in words.
    pub fn broken(&self) -> Vec<String> {
        let (answer, result) = mpsc::channel();
        let sent = self.orders.send(Order::Ask(answer));
        assert!(sent.is_ok(), "the client's thread has ended");
        result.recv().expect("the client's thread answers")
    }

    /// How many connections live at each backend.
    pub fn count(&self) -> BTreeMap<String, usize> {
        let (answer, result) = mpsc::channel();
        let sent = self.orders.send(Order::Count(answer));
        assert!(sent.is_ok(), "the client's thread has ended");
        result.recv().expect("the client's thread answers")
    }
}

type Connection = (TcpStream, String);

async fn open_all(target: SocketAddr, count: usize) -> anyhow::Result<Vec<Connection>> {
    let mut held = Vec::with_capacity(count);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        if tasks.len() >= 100
            && let Some(opened) = tasks.join_next().await
        {
            held.push(opened??);
        }
        tasks.spawn(async move {
            let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            let connect = timeout(PATIENCE, socket.connect(target));
            let mut stream = connect.await.context("connect timed out")?.context("connect")?;
            let name = timeout(PATIENCE, ask(&mut stream, false)).await.context("timed out")??;
            anyhow::Ok((stream, name)).with_context(|| format!("connection {number}"))
        });
    }
    while let Some(opened) = tasks.join_next().await {
        held.push(opened??);
    }
    Ok(held)
}

/// Those that have been silent longest, which are the first.
async fn speak(held: &mut Vec<Connection>, some: usize, broken: &mut Vec<String>) {
    let mut tasks = tokio::task::JoinSet::new();
    for (mut stream, name) in held.drain(..some) {
        tasks.spawn(async move {
            let result = timeout(PATIENCE, ask(&mut stream, false)).await.context("timed out");
            (stream, name, result.and_then(|result| result))
        });
    }
    while let Some(Ok((stream, name, result))) = tasks.join_next().await {
        match result {
            Ok(now) if now == name => held.push((stream, name)),
            Ok(now) => broken.push(format!("a connection of {name} was answered by {now}")),
            Err(error) => broken.push(format!("a connection of {name} is broken: {error:#}")),
        }
    }
}

pub(crate) fn in_thread<F: Future<Output = ()>>(
    machine: &Machine,
    work: impl FnOnce() -> F + Send + 'static,
) {
    machine.run(move || {
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(work());
        });
    });
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits for a condition, looking without a pause; panics when it takes longer than `limit`.
#[track_caller]
pub fn wait_at_once(what: &str, limit: Duration, mut good: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !good() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::yield_now();
    }
}

/// How many times longer to wait for things than elsewhere: LB_SLOW says so in an emulated machine.
pub fn slowness() -> u32 {
    std::env::var("LB_SLOW").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Waits for a condition; panics with the last thing seen when it takes longer than `limit` (LB_SLOW times that, if it is set).
#[track_caller]
pub fn wait_for<T: std::fmt::Debug>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let limit = limit * slowness();
    let deadline = Instant::now() + limit;
    loop {
        let seen = look();
        if good(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}; last seen: {seen:#?}");
        thread::sleep(Duration::from_millis(50));
    }
}
