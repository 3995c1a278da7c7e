//! The loops: one task a target, so that nobody waits for anybody else's time-out.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};

use super::{Health, HealthEvent, Machine, Outcome, Target, TargetKey, probe};

/// Probes under way at a time: bounds descriptors.
const AT_A_TIME: usize = 512;
/// A probe whose answer came this much later than its time-out says nothing: we were asleep (SIGSTOP, suspend, starved).
const ASLEEP: Duration = Duration::from_millis(500);

/// The running probes.
pub struct Checker {
    events: mpsc::UnboundedSender<HealthEvent>,
    running: HashMap<TargetKey, JoinHandle<()>>,
    places: Arc<Semaphore>,
}

impl Checker {
    /// No targets yet; each result will be sent to `events`.
    pub fn start(events: mpsc::UnboundedSender<HealthEvent>) -> Self {
        Self { events, running: HashMap::new(), places: Arc::new(Semaphore::new(AT_A_TIME)) }
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
                task.abort();
            }
            keep
        });
        for (key, restored) in wanted {
            if !self.running.contains_key(&key) {
                let task = tokio::spawn(watch(
                    key.clone(),
                    restored,
                    self.events.clone(),
                    self.places.clone(),
                ));
                self.running.insert(key, task);
            }
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

async fn watch(
    key: TargetKey,
    restored: Option<Health>,
    events: mpsc::UnboundedSender<HealthEvent>,
    places: Arc<Semaphore>,
) {
    let mut machine = Machine::new(key.timing, restored.as_ref());
    let mut due = Instant::now() + spread(&key, restored.is_some());
    loop {
        tokio::time::sleep_until(due).await;
        let Ok(place) = places.acquire().await else { return };
        let began = Instant::now();
        let outcome = probe::probe(&key).await;
        drop(place);
        if overslept(&key, &outcome) {
            due = Instant::now();
            continue;
        }
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let health = machine.on_result(unix.as_secs(), &outcome);
        if events.send(HealthEvent { key: key.clone(), health }).is_err() {
            return;
        }
        due = began + machine.interval();
    }
}

/// Whether a bad answer is our own sleep's fault.
fn overslept(key: &TargetKey, outcome: &Outcome) -> bool {
    outcome.good == Some(false) && outcome.duration > key.timing.timeout + ASLEEP
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
    use crate::config::model::{Check, CheckKind, InitState, Timing};

    fn target(port: u16, restored: Option<Health>) -> Target {
        let timing = Timing {
            inter: Duration::from_millis(20),
            fastinter: Duration::from_millis(10),
            downinter: Duration::from_millis(20),
            rise: 2,
            fall: 2,
            timeout: Duration::from_millis(500),
            init_state: InitState::Down,
        };
        let check = Check { kind: CheckKind::Tcp, port: None };
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        Target { key: TargetKey { address, port, check, timing }, restored }
    }

    async fn until(
        events: &mut mpsc::UnboundedReceiver<HealthEvent>,
        wanted: impl Fn(&Health) -> bool,
    ) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
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
        let mut checker = Checker::start(events);
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
}
