//! What waits to be sent to one peer: bounded, and what does not fit is not kept but made good by sending everything anew.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{Traffic, message::Message};

/// Most entries that wait.
pub const LIMIT: usize = 65_536;

/// The queue of one peer.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    /// To be dialled at once: the peer is there, as it has dialled itself.
    pub(super) wake: Notify,
    connected: AtomicBool,
    lost: AtomicU64,
    /// What was sent.
    pub traffic: Traffic,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    entries: usize,
    /// When the beat was sent that has not been answered, or how long the last answer took.
    beat: Option<Instant>,
    answered: Option<(Instant, Duration)>,
    /// Something did not fit since everything was sent last.
    gap: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in; what does not fit, or cannot be sent as nobody is connected, is left out.
    pub fn push(&self, message: Message) {
        if !self.connected.load(Ordering::Acquire) {
            return;
        }
        let entries = message.entries();
        let mut queue = self.lock();
        if queue.entries + entries > LIMIT {
            queue.gap = true;
            self.lost.fetch_add(entries as u64, Ordering::Relaxed);
            return;
        }
        queue.entries += entries;
        queue.messages.push_back(message);
        drop(queue);
        self.filled.notify_one();
    }

    /// Entries that wait.
    pub fn waiting(&self) -> usize {
        self.lock().entries
    }

    /// Whether something was left out since this was asked last.
    pub fn take_gap(&self) -> bool {
        std::mem::take(&mut self.lock().gap)
    }

    /// Entries that were left out, in all.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether the peer takes what is sent.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// How long the peer took to answer last, and when that was.
    pub fn answered(&self) -> Option<(Instant, Duration)> {
        self.lock().answered
    }

    pub(super) fn set_connected(&self, connected: bool) {
        *self.lock() = Queue::default();
        self.connected.store(connected, Ordering::Release);
    }

    pub(super) fn beat_sent(&self) {
        self.lock().beat.get_or_insert(Instant::now());
    }

    pub(super) fn beat_answered(&self) {
        let mut queue = self.lock();
        if let Some(sent) = queue.beat.take() {
            queue.answered = Some((Instant::now(), sent.elapsed()));
        }
    }

    /// The next messages, of at most so many entries but at least one message; waits for it.
    pub(super) async fn next(&self, most: usize) -> Vec<Message> {
        loop {
            let filled = self.filled.notified();
            let taken = self.take(most);
            if !taken.is_empty() {
                return taken;
            }
            filled.await;
        }
    }

    fn take(&self, most: usize) -> Vec<Message> {
        let mut queue = self.lock();
        let (mut taken, mut sum) = (Vec::new(), 0);
        while let Some(entries) = queue.messages.front().map(Message::entries)
            && (taken.is_empty() || sum + entries <= most)
        {
            sum += entries;
            taken.extend(queue.messages.pop_front());
        }
        queue.entries -= sum;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_leaves_a_gap() {
        let outbox = Outbox::default();
        outbox.push(Message::Whole);
        assert_eq!(outbox.waiting(), 0, "nobody is connected");
        outbox.set_connected(true);
        for _ in 0..LIMIT + 3 {
            outbox.push(Message::Whole);
        }
        assert_eq!((outbox.waiting(), outbox.lost()), (LIMIT, 3));
        assert!(outbox.take_gap() && !outbox.take_gap());
        assert_eq!(outbox.next(5).await.len(), 5);
        assert_eq!(outbox.waiting(), LIMIT - 5);
        outbox.set_connected(false);
        assert_eq!((outbox.waiting(), outbox.lost()), (0, 3));
    }
}
