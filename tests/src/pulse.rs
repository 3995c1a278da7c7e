//! A pulse: requests that start at even times, whatever becomes of those before, so that an interruption shows in full.
//! (Clients that wait for each answer stop asking just while nobody answers.)

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{client, machine::Machine};

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Beats {
    /// Answered, by what `ask` said.
    pub answered: BTreeMap<String, u64>,
    /// Failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// The longest time between two answers.
    pub longest_gap: Duration,
    last: Option<Instant>,
    /// Numbers of those that have not ended.
    waiting: BTreeSet<usize>,
}

impl Beats {
    /// Requests answered.
    pub fn ok(&self) -> u64 {
        self.answered.values().sum()
    }

    /// Requests failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn count(&mut self, number: usize, result: anyhow::Result<String>) {
        self.waiting.remove(&number);
        match result {
            Ok(name) => {
                *self.answered.entry(name).or_default() += 1;
                self.close_gap();
                self.last = Some(Instant::now());
            }
            Err(error) => *self.failed.entry(format!("{error:#}")).or_default() += 1,
        }
    }

    fn close_gap(&mut self) {
        if let Some(last) = self.last {
            self.longest_gap = self.longest_gap.max(last.elapsed());
        }
    }
}

/// The requests.
pub struct Pulse {
    beats: Arc<Mutex<Beats>>,
    stop: Arc<AtomicBool>,
    ended: mpsc::Receiver<()>,
}

impl Pulse {
    /// Calls `ask` (with 0, 1, 2...) in the client machine, one time in every `interval`; an answer that takes longer
    /// than `patience` has failed.
    pub fn start<F, A>(machine: &Machine, interval: Duration, patience: Duration, ask: F) -> Self
    where
        F: Fn(usize) -> A + Send + 'static,
        A: Future<Output = anyhow::Result<String>> + Send + 'static,
    {
        let beats = Arc::new(Mutex::new(Beats::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = mpsc::channel();
        let (counted, stopped) = (beats.clone(), stop.clone());
        client::in_thread(machine, move || async move {
            let mut tasks = tokio::task::JoinSet::new();
            let mut ticks = tokio::time::interval(interval);
            for number in 0.. {
                ticks.tick().await;
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (beats, answer) = (counted.clone(), ask(number));
                lock(&beats).waiting.insert(number);
                tasks.spawn(async move {
                    let result = match tokio::time::timeout(patience, answer).await {
                        Ok(result) => result,
                        Err(_) => Err(anyhow::anyhow!("timed out")),
                    };
                    lock(&beats).count(number, result);
                });
                while tasks.try_join_next().is_some() {}
            }
            while tasks.join_next().await.is_some() {}
            drop(end);
        });
        Self { beats, stop, ended }
    }

    /// What became of the requests since the last call, or since the beginning. Waits for those that are on their way,
    /// so that none is counted to what comes next.
    pub fn take(&self) -> Beats {
        let on_their_way = lock(&self.beats).waiting.clone();
        while !lock(&self.beats).waiting.is_disjoint(&on_their_way) {
            thread::sleep(Duration::from_millis(5));
        }
        let mut beats = lock(&self.beats);
        beats.close_gap();
        let (last, waiting) = (beats.last, beats.waiting.clone());
        std::mem::replace(&mut *beats, Beats { last, waiting, ..Beats::default() })
    }

    /// What became of them so far.
    pub fn look(&self) -> Beats {
        lock(&self.beats).clone()
    }

    /// Ends it and tells what became of the requests since the last [`take`](Self::take).
    pub fn finish(self) -> Beats {
        self.stop.store(true, Ordering::Relaxed);
        // Fails when the last request has ended, which is what is waited for.
        let _ = self.ended.recv();
        self.take()
    }
}

fn lock(beats: &Mutex<Beats>) -> std::sync::MutexGuard<'_, Beats> {
    beats.lock().unwrap_or_else(PoisonError::into_inner)
}
