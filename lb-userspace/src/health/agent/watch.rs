//! The loops that ask agents: one task each.

use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};

use super::{Answer, ask};
use crate::health::Outcome;

/// Agents that are asked at a time: bounds descriptors.
const AT_A_TIME: usize = 256;

/// An agent: equal keys share one loop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentKey {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is said to it once connected.
    pub send: Option<String>,
    /// How often.
    pub inter: Duration,
    /// Time it may take.
    pub timeout: Duration,
}

/// The result of one question.
#[derive(Clone, Debug)]
pub struct AgentEvent {
    /// Who was asked.
    pub key: AgentKey,
    /// How that went.
    pub outcome: Outcome,
    /// What it said; `None` = nothing that changes anything.
    pub answer: Option<Answer>,
}

/// The running loops.
pub struct Agents {
    events: mpsc::UnboundedSender<AgentEvent>,
    places: Arc<Semaphore>,
    running: HashMap<AgentKey, JoinHandle<()>>,
}

impl Agents {
    /// None yet; each result will be sent to `events`.
    pub fn start(events: mpsc::UnboundedSender<AgentEvent>) -> Self {
        Self { events, places: Arc::new(Semaphore::new(AT_A_TIME)), running: HashMap::new() }
    }

    /// Replaces the whole set: equal ones go on as they are, new ones start, others stop. Call it in a tokio runtime.
    pub fn set(&mut self, wanted: HashSet<AgentKey>) {
        self.running.retain(|key, task| {
            let keep = wanted.contains(key);
            if !keep {
                task.abort();
            }
            keep
        });
        for key in wanted {
            if !self.running.contains_key(&key) {
                let watching = watch(key.clone(), self.events.clone(), self.places.clone());
                self.running.insert(key, tokio::spawn(watching));
            }
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

async fn watch(key: AgentKey, events: mpsc::UnboundedSender<AgentEvent>, places: Arc<Semaphore>) {
    // Not all at once.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let mut due = Instant::now() + key.inter.mul_f64((hasher.finish() % 1000) as f64 / 1000.0);
    loop {
        tokio::time::sleep_until(due).await;
        let Ok(place) = places.acquire().await else { return };
        let began = Instant::now();
        let (outcome, answer) = ask(&key).await;
        drop(place);
        if events.send(AgentEvent { key: key.clone(), outcome, answer }).is_err() {
            return;
        }
        due = began + key.inter;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    /// An agent of this host.
    pub fn key(port: u16) -> AgentKey {
        AgentKey {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            send: Some("web1\n".to_owned()),
            inter: Duration::from_millis(10),
            timeout: Duration::from_millis(500),
        }
    }

    #[tokio::test]
    async fn an_agent_is_asked_again_and_again_with_or_without_a_line_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for line in ["up 50%\n", "drain", "up\r\nmore", ""] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut said = [0; 5];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut said).await.unwrap();
                assert_eq!(&said, b"web1\n");
                stream.write_all(line.as_bytes()).await.unwrap();
            }
            let _hanging = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
        });
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut agents = Agents::start(events);
        agents.set(HashSet::from([key(port)]));
        for expected in ["L7OK up 50%", "L7OK drain", "L7OK up", "L7RSP an empty line", "L7TOUT"] {
            let event = inbox.recv().await.unwrap();
            let found = format!("{} {}", event.outcome.code, event.outcome.output);
            assert!(found.starts_with(expected), "{found}, not {expected}");
        }
        agents.set(HashSet::new());
        assert!(agents.running.is_empty());
    }
}
