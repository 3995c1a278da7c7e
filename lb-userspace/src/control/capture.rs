//! Captures: one at a time, with a copy of the program that is on the NICs only as long.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use lb_common::abi::{CaptureRule, MAX_SNAPLEN};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{Event, Node, commands::failure};
use crate::{
    api::{
        Answer,
        peer::Peer,
        types::{Failure, FailureKind},
    },
    capture::{
        filter::{Facts, Filter},
        stream::{Counts, End, Packet, Record, encode},
    },
    dataplane::{CaptureProgram, Captured, CapturedPacket},
    events::{Happened, Kind},
    explain::verdict::Names,
};

/// Packets taken from the ring at a time.
const TURN: usize = 256;
/// Turns that wait for the client.
const QUEUE: usize = 16;
/// How often the client hears how it goes.
const EVERY: Duration = Duration::from_millis(250);
/// A client that takes nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(10);

const BEGINS: &str = "capture begins: a copy of the program that shows packets is on the NICs";
const ENDS: &str = "capture ends: the plain program is on the NICs again";

/// What to capture.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which packets.
    pub filter: Filter,
    /// Bytes of each frame, `64..=`[`MAX_SNAPLEN`].
    pub snaplen: u32,
    /// Packets a second of each CPU, above 0.
    pub rate: u32,
    /// How many at most.
    pub count: Option<u64>,
    /// How long at most.
    pub time: Option<Duration>,
}

/// What is sent to the client.
pub type Stream = mpsc::Receiver<Bytes>;

/// The capture there is.
#[derive(Default)]
pub(super) enum Capture {
    /// None.
    #[default]
    Idle,
    /// Its program is being loaded.
    Loading(Peer),
    /// It runs.
    Running(Session),
}

/// A running capture.
pub(super) struct Session {
    peer: Peer,
    number: u64,
    names: Arc<RwLock<Names>>,
    stop: watch::Sender<String>,
}

/// A capture whose program has been loaded, or not.
pub(super) struct Loaded {
    program: Result<(CaptureProgram, Captured), Failure>,
    /// Which of the node's programs it is a copy of.
    of: u64,
    rule: CaptureRule,
    wanted: Wanted,
    peer: Peer,
    reply: Answer<Stream>,
}

impl Node {
    /// `lb capture`
    pub(super) fn start_capture(&mut self, wanted: Wanted, peer: Peer, reply: Answer<Stream>) {
        // Sending fails when the client has gone.
        let rule = match self.check_capture(&wanted) {
            Ok(rule) => rule,
            Err(failure) => {
                let _ = reply.send(Err(failure));
                return;
            }
        };
        self.capture = Capture::Loading(peer.clone());
        let (recipe, events, of) =
            (self.dataplane.recipe(), self.events.clone(), self.program_loads);
        tokio::task::spawn_blocking(move || {
            let program = CaptureProgram::load(&recipe).map_err(failure);
            // Sending fails when the daemon ends.
            let loaded = Loaded { program, of, rule, wanted, peer, reply };
            let _ = events.send(Event::CaptureLoaded(Box::new(loaded)));
        });
    }

    fn check_capture(&self, wanted: &Wanted) -> Result<CaptureRule, Failure> {
        let by = match &self.capture {
            Capture::Idle => None,
            Capture::Loading(peer) => Some(peer),
            Capture::Running(session) => Some(&session.peer),
        };
        if let Some(peer) = by {
            let error = format!("{peer} is capturing already; one capture at a time is possible");
            return Err(Failure::new(FailureKind::Conflict, error));
        }
        let rate = u64::from(wanted.rate.max(1));
        Ok(CaptureRule {
            snaplen: wanted.snaplen.clamp(64, MAX_SNAPLEN),
            interval: 1_000_000_000 / rate,
            burst: (rate / 10).max(1),
            ..wanted.filter.rule(&self.names())?
        })
    }

    /// Puts the program on the NICs and lets it capture.
    pub(super) fn capture_loaded(&mut self, loaded: Loaded) {
        let Loaded { program, of, rule, wanted, peer, reply } = loaded;
        self.capture = Capture::Idle;
        if of != self.program_loads {
            // Meanwhile a program with other features has been loaded: it takes a copy of that.
            self.start_capture(wanted, peer, reply);
            return;
        }
        let begun = program.and_then(|(program, captured)| {
            program.begin(&rule);
            self.dataplane.begin_capture(program).map_err(failure)?;
            Ok(captured)
        });
        let captured = match begun {
            Ok(captured) => captured,
            Err(failure) => {
                tracing::error!(error = %failure, "the capture could not begin");
                let _ = reply.send(Err(failure));
                return;
            }
        };
        self.attached_program_changed(BEGINS, &peer);
        self.captures += 1;
        let number = self.captures;
        let names = Arc::new(RwLock::new(self.names()));
        let (stop, stopped) = watch::channel(String::new());
        let (out, stream) = mpsc::channel(QUEUE);
        let task = Task { captured, wanted, names: names.clone(), out, stopped };
        let events = self.events.clone();
        tokio::spawn(async move {
            task.run().await;
            // Sending fails when the daemon ends.
            let _ = events.send(Event::CaptureOver(number));
        });
        self.capture = Capture::Running(Session { peer, number, names, stop });
        // If the client has gone meanwhile, the task finds nobody to send to, and ends.
        let _ = reply.send(Ok(stream));
    }

    /// A capture has ended.
    pub(super) fn capture_over(&mut self, number: u64) {
        if matches!(&self.capture, Capture::Running(session) if session.number == number) {
            self.end_capture("");
        }
    }

    /// Ends the capture, if there is one, and puts the plain program back.
    pub(super) fn end_capture(&mut self, why: &str) {
        let Capture::Running(session) = std::mem::take(&mut self.capture) else { return };
        // Sending fails if it has ended by itself.
        let _ = session.stop.send(why.to_owned());
        match self.dataplane.end_capture() {
            Ok(()) => self.attached_program_changed(ENDS, &session.peer),
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the plain program could not be put back"
                );
            }
        }
    }

    /// New names are known to a running capture.
    pub(super) fn tell_capture(&self) {
        if let Capture::Running(session) = &self.capture {
            *session.names.write().unwrap_or_else(PoisonError::into_inner) = self.names();
        }
    }

    fn attached_program_changed(&mut self, text: &str, peer: &Peer) {
        self.log.add(Happened::to_node(Kind::Program, text, format!("lb capture by {peer}")));
        self.record(Vec::new(), false);
    }
}

/// Fetches packets and sends them.
struct Task {
    captured: Captured,
    wanted: Wanted,
    names: Arc<RwLock<Names>>,
    out: mpsc::Sender<Bytes>,
    stopped: watch::Receiver<String>,
}

impl Task {
    async fn run(mut self) {
        let mut counts = Counts::default();
        let why = self.fetch(&mut counts).await;
        self.look(&mut counts);
        let end = Record::End(End { counts, why });
        // Whoever does not take it has gone.
        let _ = timeout(PATIENCE, self.out.send(encode(&end, [&[], &[]]))).await;
    }

    /// Until it is over; returns why.
    async fn fetch(&mut self, counts: &mut Counts) -> String {
        let offset = unix_nanoseconds().saturating_sub(monotonic_nanoseconds());
        let end = self.wanted.time.map(|time| Instant::now() + time);
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let at = end.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            let chunk = tokio::select! {
                biased;
                () = self.out.closed() => return "the client has gone".to_owned(),
                changed = self.stopped.changed() => {
                    let why = self.stopped.borrow().clone();
                    return if changed.is_err() || why.is_empty() { "stopped".to_owned() } else { why };
                }
                () = sleep_until(at), if end.is_some() => return "time".to_owned(),
                _ = tick.tick() => {
                    self.look(counts);
                    encode(&Record::Counts(*counts), [&[], &[]])
                }
                packets = self.captured.next(TURN) => match packets {
                    Some(packets) => self.wanted_of(packets, offset, counts),
                    None => return "the ring of packets cannot be read".to_owned(),
                }
            };
            if !chunk.is_empty()
                && !matches!(timeout(PATIENCE, self.out.send(chunk)).await, Ok(Ok(())))
            {
                return "the client does not read".to_owned();
            }
            if self.wanted.count.is_some_and(|count| counts.sent >= count) {
                return "count".to_owned();
            }
        }
    }

    fn look(&self, counts: &mut Counts) {
        match self.captured.counts() {
            Ok([matched, over_rate, lost]) => {
                *counts = Counts { matched, over_rate, lost, ..*counts };
            }
            Err(error) => tracing::warn!(%error, "the counters of a capture cannot be read"),
        }
    }

    /// Those that the whole filter wants, as they are sent.
    fn wanted_of(&self, packets: Vec<CapturedPacket>, offset: u64, counts: &mut Counts) -> Bytes {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = BytesMut::new();
        for packet in packets {
            let head = &packet.head;
            let verdict = names.verdict(&head.trace);
            let interface = names.interface(head.ingress);
            let facts = Facts {
                interface: &interface,
                before: &packet.before,
                after: &packet.after,
                verdict: &verdict,
            };
            if !self.wanted.filter.wants(&facts) {
                counts.filtered += 1;
                continue;
            }
            if self.wanted.count.is_some_and(|count| counts.sent >= count) {
                break;
            }
            counts.sent += 1;
            let record = Record::Packet(Packet {
                number: counts.sent,
                unix_nanoseconds: head.trace.time + offset,
                interface,
                length: head.length_before,
                captured: head.captured_before,
                length_after: head.length_after,
                captured_after: head.captured_after,
                verdict,
            });
            chunk.extend_from_slice(&encode(&record, [&packet.before, &packet.after]));
        }
        chunk.freeze()
    }
}

fn unix_nanoseconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// The clock of `bpf_ktime_get_ns`.
fn monotonic_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
