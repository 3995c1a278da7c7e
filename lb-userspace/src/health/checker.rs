//! The loops: one task a target, so that nobody waits for anybody else's time-out.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    CheckCode, Health, HealthEvent, Machine, Outcome, Target, TargetKey, probe,
    stall::{ASLEEP, Heartbeat},
};
use crate::{config::model::CheckKind, net::Snapshot};

/// Probes under way at a time: bounds descriptors.
const AT_A_TIME: usize = 512;
/// Programs of `type: exec` under way at a time: bounds processes.
const PROGRAMS_AT_A_TIME: usize = 32;
/// How often in a row a probe is repeated because of our own sleep; a machine that is always asleep must find a backend
/// DOWN some time.
const REPEATS: u32 = 3;
/// What clients say of a target while its probe is under way: more is not heard.
const SUSPICIONS: usize = 4;

/// What clients' failures have a probe do (`on_error:`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The next probe comes at once, or `fastinter` after the last one.
    Hurry,
    /// So it does, and if it fails the target is DOWN.
    Fatal,
    /// The failures count as a failed probe, and the next one comes sooner.
    Failed,
}

/// The running probes.
pub struct Checker {
    shared: Shared,
    running: HashMap<TargetKey, Running>,
    heart: JoinHandle<()>,
}

/// One target's loop.
struct Running {
    task: JoinHandle<()>,
    suspicion: mpsc::Sender<Suspicion>,
}

/// What all loops share.
#[derive(Clone)]
struct Shared {
    events: mpsc::UnboundedSender<HealthEvent>,
    network: watch::Receiver<Arc<Snapshot>>,
    places: Arc<Semaphore>,
    programs: Arc<Semaphore>,
    heartbeat: Heartbeat,
}

impl Checker {
    /// No targets yet; each result will be sent to `events`. Probes by way of a VIP go by what is known of the network. Call it in
    /// a tokio runtime.
    pub fn start(
        events: mpsc::UnboundedSender<HealthEvent>,
        network: watch::Receiver<Arc<Snapshot>>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let programs = Arc::new(Semaphore::new(PROGRAMS_AT_A_TIME));
        let heartbeat = Heartbeat::new();
        let heart = heartbeat.spawn();
        Self {
            shared: Shared { events, network, places, programs, heartbeat },
            running: HashMap::new(),
            heart,
        }
    }

    /// Replaces the whole set: equal targets go on as they are, new ones start, others stop.
    pub fn set_targets(&mut self, targets: Vec<Target>) {
        let mut wanted = HashMap::new();
        for target in targets {
            wanted.insert(target.key, target.restored);
        }
        self.running.retain(|key, task| {
            let keep = wanted.contains_key(key);
            if !keep {
                task.task.abort();
            }
            keep
        });
        for (key, restored) in wanted {
            if !self.running.contains_key(&key) {
                let (suspicion, suspected) = mpsc::channel(SUSPICIONS);
                let task = follow(key.clone(), restored, self.shared.clone(), suspected);
                self.running.insert(key, Running { task: tokio::spawn(task), suspicion });
            }
        }
    }

    /// Clients say that a target does not work. All that share its probe learn what comes of it.
    pub fn suspect(&self, key: &TargetKey, suspicion: Suspicion) {
        if let Some(running) = self.running.get(key) {
            // Full, or the loop has ended: enough has been said.
            let _ = running.suspicion.try_send(suspicion);
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.heart.abort();
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

async fn follow(
    key: TargetKey,
    restored: Option<Health>,
    shared: Shared,
    mut suspected: mpsc::Receiver<Suspicion>,
) {
    // Whoever is not asked for his weight any more has all of it.
    let restored = restored.map(|mut health| {
        health.weight_percent = health.weight_percent.filter(|_| key.check.asks_weight());
        health
    });
    let mut machine = Machine::new(key.timing, restored.as_ref());
    let spread = spread(&key, restored.is_some());
    let mut due = Instant::now() + spread;
    let mut last = None;
    let mut last_began: Option<Instant> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            Some(suspicion) = suspected.recv() => {
                let after = last_began.map_or_else(Instant::now, |at| at + key.timing.fastinter);
                due = due.min(after.max(Instant::now()));
                if let Some(health) = machine.on_suspicion(unix_seconds(), suspicion)
                    && shared.events.send(HealthEvent { key: key.clone(), health }).is_err()
                {
                    return;
                }
                continue;
            }
        }
        if due.elapsed() > ASLEEP {
            // After a sleep all loops are late together: spread them again.
            tokio::time::sleep(spread.min(key.timing.fastinter)).await;
        }
        let began = Instant::now();
        last_began = Some(began);
        let Some(outcome) = result(&key, &shared).await else { return };
        if outcome.code == CheckCode::SockErr && last != Some(CheckCode::SockErr) {
            tracing::warn!(
                address = %key.address,
                port = key.port,
                output = outcome.output,
                "a probe could not be made; the backend keeps its state"
            );
        }
        last = Some(outcome.code);
        let health = machine.on_result(unix_seconds(), &outcome);
        if shared.events.send(HealthEvent { key: key.clone(), health }).is_err() {
            return;
        }
        due = began + machine.interval();
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A result that says something about the backend; `None` = the checker has ended.
async fn result(key: &TargetKey, shared: &Shared) -> Option<Outcome> {
    let mut repeats = 0;
    loop {
        let places = match key.check.kind {
            CheckKind::Exec { .. } => &shared.programs,
            _ => &shared.places,
        };
        // Whoever waits here has not begun: his time runs from when he has his place.
        let place = places.acquire().await.ok()?;
        let began = Instant::now();
        // In a box: what a probe needs at most (a TLS session, a database's answer) is held only by those that probe now.
        let outcome = Box::pin(probe::probe(key, &shared.network)).await;
        drop(place);
        let slept = shared.heartbeat.slept_since(began, Instant::now());
        if !(slept && outcome.may_be_our_delay()) || repeats == REPEATS {
            return Some(outcome);
        }
        repeats += 1;
    }
}

/// First probes are spread by a hash of the target, so that they do not all go at once: over `fastinter` for a new
/// target (whose state is wanted soon), over `inter` for one that goes on.
fn spread(key: &TargetKey, restored: bool) -> Duration {
    let range =
        if restored { key.timing.inter } else { key.timing.fastinter.min(key.timing.inter) };
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    range.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::model::{Check, Http, HttpVersion, InitState, Timing};

    /// More than anything takes on a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    fn target(port: u16, restored: Option<Health>) -> Target {
        let timing = Timing {
            inter: Duration::from_millis(20),
            fastinter: Duration::from_millis(10),
            downinter: Duration::from_millis(20),
            rise: 2,
            fall: 2,
            timeout: LONG,
            init_state: InitState::Down,
        };
        let check = Check::direct(CheckKind::Tcp { send: None, expect: Vec::new() }, None);
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        Target { key: TargetKey { address, port, check, timing, served: None }, restored }
    }

    fn http(port: u16, timeout: Duration) -> Target {
        let mut target = target(port, None);
        target.key.check.kind = CheckKind::Http(Http {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            version: HttpVersion::H1,
            status: vec![(200, 200)],
            expect: Vec::new(),
            weight_header: false,
            tls: None,
        });
        target.key.timing.timeout = timeout;
        target
    }

    async fn until(
        events: &mut mpsc::UnboundedReceiver<HealthEvent>,
        wanted: impl Fn(&Health) -> bool,
    ) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let next = tokio::time::timeout(LONG, events.recv()).await;
            let event =
                next.unwrap_or_else(|_| panic!("nothing more came after {seen:?}")).unwrap();
            seen.push(event.health.display.clone());
            if wanted(&event.health) {
                return seen;
            }
        }
    }

    #[tokio::test]
    async fn follows_a_server_down_and_up_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut checker = Checker::start(events, watch::channel(Arc::default()).1);
        checker.set_targets(vec![target(address.port(), None), target(address.port(), None)]);
        assert_eq!(checker.running.len(), 1, "equal targets share one probe");
        until(&mut inbox, |health| health.up).await;
        drop(listener);
        let seen = until(&mut inbox, |health| !health.up).await;
        assert!(seen.ends_with(&["UP 1/2".to_owned(), "DOWN".to_owned()]), "{seen:?}");
        let _listener = TcpListener::bind(address).await.unwrap();
        let seen = until(&mut inbox, |health| health.up).await;
        assert!(seen.ends_with(&["DOWN 1/2".to_owned(), "UP".to_owned()]), "{seen:?}");
        checker.set_targets(Vec::new());
        assert!(checker.running.is_empty());
    }

    #[tokio::test]
    async fn a_restored_backend_stays_up_until_fall_failures() {
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let up = Health { up: true, changed_unix: 7, ..Health::default() };
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut checker = Checker::start(events, watch::channel(Arc::default()).1);
        checker.set_targets(vec![target(closed, Some(up))]);
        let first = inbox.recv().await.unwrap().health;
        assert_eq!((first.display.as_str(), first.up, first.changed_unix), ("UP 1/2", true, 7));
        assert_eq!(until(&mut inbox, |health| !health.up).await, ["DOWN"]);
    }

    #[tokio::test]
    async fn a_new_set_leaves_equal_targets_running_and_stops_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other_port = other.local_addr().unwrap().port();
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut checker = Checker::start(events, watch::channel(Arc::default()).1);
        checker.set_targets(vec![target(port, None), target(other_port, None)]);
        let mut up = std::collections::HashSet::new();
        while up.len() < 2 {
            let event = inbox.recv().await.unwrap();
            up.extend(event.health.up.then_some(event.key.port));
        }
        let before = checker.running[&target(port, None).key].task.id();
        checker.set_targets(vec![target(port, None)]);
        assert_eq!(checker.running[&target(port, None).key].task.id(), before, "the same loop");
        assert_eq!(checker.running.len(), 1);
        // What was on its way when the loop was stopped may still come; then only one target is left.
        let mut in_a_row = 0;
        while in_a_row < 20 {
            let event = inbox.recv().await.unwrap();
            in_a_row = if event.key.port == port { in_a_row + 1 } else { 0 };
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_a_backend_that_hangs() {
        let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut checker = Checker::start(events, watch::channel(Arc::default()).1);
        let mut targets: Vec<Target> = (0..100)
            .map(|number| {
                let mut target = http(hanging.local_addr().unwrap().port(), LONG * 10);
                target.key.timing.rise = 2 + number;
                target
            })
            .collect();
        targets.push(target(good.local_addr().unwrap().port(), None));
        checker.set_targets(targets);
        let seen = until(&mut inbox, |health| health.up).await;
        assert_eq!(seen, ["UP"]);
    }

    /// The process sleeps (SIGSTOP) in the middle of a probe, longer than its timeout.
    #[tokio::test]
    async fn a_probe_that_timed_out_because_we_slept_is_repeated() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, mut asleep) = mpsc::unbounded_channel();
        // The server has a thread of its own, and lives on. To the first question it never answers.
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                use std::io::{Read as _, Write as _};
                let mut stream = stream.unwrap();
                // Nobody listens any more when the test is over.
                let _ = accepted.send(());
                let mut request = [0; 1024];
                if number == 0 {
                    while stream.read(&mut request).is_ok_and(|length| length > 0) {}
                } else {
                    let _ = stream.read(&mut request);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                }
            }
        });
        let timeout = Duration::from_secs(1);
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut checker = Checker::start(events, watch::channel(Arc::default()).1);
        checker.set_targets(vec![http(port, timeout)]);
        asleep.recv().await.unwrap();
        std::thread::sleep(timeout + 2 * ASLEEP);
        let first = inbox.recv().await.unwrap().health;
        assert_eq!((first.code.as_str(), first.up), ("L7OK", true), "{first:?}");
    }
}
