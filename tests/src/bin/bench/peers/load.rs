//! Clients that ask: as fast as they are answered, or at even times; and the CPU that all of it took.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::lab::Lab;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(5);
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const LAST_QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";

/// Connections of requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One each.
    New,
    /// One for all requests of a worker.
    Kept,
}

/// What a load came to.
pub struct Outcome {
    latencies: Vec<Duration>,
    time: Duration,
    cpu: Duration,
}

impl Outcome {
    /// Microseconds.
    pub fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }

    /// Microseconds; `share` of all requests took no longer.
    pub fn percentile(&self, share: f64) -> f64 {
        percentile(&self.latencies, share)
    }

    /// What each request took.
    pub fn latencies(&self) -> &[Duration] {
        &self.latencies
    }
}

/// Microseconds; `share` of all took no longer.
pub fn percentile(latencies: &[Duration], share: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted[place].as_secs_f64() * 1e6
}

/// Waits until next to nothing runs, as what was set up just now or taken away before would be counted for the requests; for some
/// seconds at most.
pub fn settle() -> Result<()> {
    const LONGEST: Duration = Duration::from_secs(3);
    const WINDOW: Duration = Duration::from_millis(100);
    /// Of CPU in a window, of all CPUs: two of the units that it is told in.
    const QUIET: Duration = Duration::from_millis(20);
    let began = Instant::now();
    while began.elapsed() < LONGEST {
        let before = busy()?;
        thread::sleep(WINDOW);
        if busy()?.saturating_sub(before) <= QUIET {
            break;
        }
    }
    Ok(())
}

/// `workers` that ask one request after the other, `requests` in all.
pub fn saturated(
    lab: &Lab,
    target: SocketAddr,
    kind: Kind,
    workers: usize,
    requests: usize,
) -> Result<Outcome> {
    run(lab, workers, move |_| {
        let mut kept = None;
        let mut latencies = Vec::with_capacity(requests / workers);
        for _ in 0..requests / workers {
            let began = Instant::now();
            ask(target, kind, &mut kept)?;
            latencies.push(began.elapsed());
        }
        Ok(latencies)
    })
}

/// `workers` that ask at even times, together `rate` requests a second on new connections. A late request counts from when it
/// was due.
pub fn paced(
    lab: &Lab,
    target: SocketAddr,
    workers: usize,
    rate: u32,
    time: Duration,
) -> Result<Outcome> {
    let pause = Duration::from_secs(1) * workers as u32 / rate;
    run(lab, workers, move |worker| {
        let first = Instant::now() + pause * worker as u32 / workers as u32;
        let mut latencies = Vec::new();
        for number in 0..(time.as_secs_f64() / pause.as_secs_f64()) as u32 {
            let due = first + pause * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            ask(target, Kind::New, &mut None)?;
            latencies.push(due.elapsed());
        }
        Ok(latencies)
    })
}

/// `workers` that begin requests at even times without waiting for the ones before, together `rate` a second, each with so much time
/// as `patience`: what part of them is answered, and how many that is a second.
pub fn overloaded(
    lab: &Lab,
    target: SocketAddr,
    rate: u32,
    time: Duration,
    patience: Duration,
) -> Result<(f64, f64)> {
    const WORKERS: u32 = 64;
    let pause = Duration::from_secs(1) * WORKERS / rate;
    let began = Instant::now();
    let answered: Vec<bool> = lab.client.run(move || {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                thread::spawn(move || {
                    let first = Instant::now() + pause * worker / WORKERS;
                    let count = (time.as_secs_f64() / pause.as_secs_f64()) as u32;
                    // One that is still waited for takes the place of those that were due meanwhile: they are not answered.
                    let ask = |number: u32| {
                        let due = first + pause * number;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        due.elapsed() < patience
                            && ask(target, Kind::New, &mut None).is_ok()
                            && due.elapsed() < patience
                    };
                    (0..count).map(ask).collect::<Vec<bool>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
        }
        anyhow::Ok(all)
    })?;
    ensure!(!answered.is_empty(), "no requests");
    let good = answered.iter().filter(|answered| **answered).count() as f64;
    Ok((good / answered.len() as f64, good / began.elapsed().as_secs_f64()))
}

fn run(
    lab: &Lab,
    workers: usize,
    work: impl Fn(usize) -> Result<Vec<Duration>> + Clone + Send + 'static,
) -> Result<Outcome> {
    let before = busy()?;
    let began = Instant::now();
    let latencies = lab.client.run(move || {
        let workers: Vec<_> = (0..workers)
            .map(|worker| {
                let work = work.clone();
                thread::spawn(move || work(worker))
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    let time = began.elapsed();
    ensure!(!latencies.is_empty(), "no requests");
    Ok(Outcome { latencies, time, cpu: busy()?.saturating_sub(before) })
}

fn ask(target: SocketAddr, kind: Kind, kept: &mut Option<TcpStream>) -> Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&target, PATIENCE).context("connecting")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream
        }
    };
    let mut buffer = [0; 4_096];
    match kind {
        Kind::New => {
            stream.write_all(LAST_QUESTION)?;
            let mut length = 0;
            // To the end of the connection, so that the server has closed it first.
            loop {
                match stream.read(&mut buffer[length..]).context("reading")? {
                    0 => break,
                    more => length += more,
                }
            }
            ensure!(
                buffer.starts_with(b"HTTP/1.1 200"),
                "an answer of {length} bytes that is none"
            );
        }
        Kind::Kept => {
            stream.write_all(QUESTION)?;
            let length = stream.read(&mut buffer).context("reading")?;
            ensure!(
                buffer[..length].starts_with(b"HTTP/1.1 200"),
                "an answer of {length} bytes that is none"
            );
            *kept = Some(stream);
        }
    }
    Ok(())
}

/// CPU time of everything in this system since it was started, softirqs included.
fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .context("/proc/stat")?;
    let [user, nice, system, _idle, _wait, irq, softirq, ..] = fields[..] else {
        anyhow::bail!("/proc/stat has {} fields", fields.len())
    };
    // Hundredths of a second, whatever the kernel's tick (USER_HZ).
    Ok(Duration::from_millis(10 * (user + nice + system + irq + softirq)))
}
