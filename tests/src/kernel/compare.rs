//! The packet path beside the reference model ([`lb_model`]): the same world, the same frames, and no difference in what becomes
//! of them, in the bytes that leave, or in what is counted.

mod openings;
mod state;
mod tracked;
mod world;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use aya::maps::{PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_common::abi::{BackendCounters, Reason};
use lb_model::{
    Action, Config, Limit, Model,
    generate::{Prepared, Translated, shrink},
};

use super::{Delta, Kernel, Outcome, World, action, packet::hex};

pub use world::{ENGAGED, REFILLED_NEVER, config_of};

/// Frames between two looks at the counters.
const BATCH: usize = 8_192;
/// The same where flows are remembered, which are forgotten then.
const BATCH_OF_FLOWS: usize = 2_048;
/// No flow is remembered for longer: the model has no clock. (What grows old first is an entry that is written again after 256 jiffies.)
const MOMENT: Duration = Duration::from_millis(120);

/// So much older flows of full nat get at once, nanoseconds: more than the five seconds for which an unanswered one keeps its port in
/// any case, and so little that no flow's time is over within a batch.
const AGE: u64 = 6_000_000_000;

/// The same of packets in fragments, whose identifications come again after two seconds.
const MOMENT_OF_FRAGMENTS: Duration = Duration::from_millis(800);

/// The program and the model, in the same world.
pub struct Comparison {
    kernel: Kernel,
    model: Model,
    limit: Limit,
    before: super::Counts,
    expected: Delta,
    batch: Vec<(Vec<u8>, Limit)>,
    /// Pins that are there when a batch begins.
    prepared: Vec<Prepared>,
    began: Instant,
    has_pool: bool,
    /// Some service limits openings.
    has_openings: bool,
    /// Some service remembers every flow.
    has_tracked: bool,
    numbers: BTreeMap<&'static str, Reason>,
    /// What the packets met so far.
    pub tally: Tally,
}

/// What packets met.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// By what became of them.
    pub actions: BTreeMap<&'static str, u64>,
    /// By reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// By the parts of lb that they met.
    pub parts: BTreeMap<&'static str, u64>,
    /// Batches that were left out because the machine stood still.
    pub late: u64,
}

impl Comparison {
    /// Both in a world; `config` is that of [`config_of`].
    pub fn new(mut kernel: Kernel, world: World, config: Config) -> Self {
        let has_pool = !config.pool.addresses.is_empty();
        let has_openings = openings::are_limited(&config);
        let has_tracked = config.services().iter().any(|service| service.track.is_some());
        let cookies = config.cookies;
        let model = Model::new(config);
        kernel.enter(world);
        openings::set_keys(&mut kernel, &cookies);
        let before = kernel.counts();
        let numbers = Reason::ALL.iter().map(|reason| (reason.name(), *reason)).collect();
        let mut new = Self {
            kernel,
            model,
            limit: Limit::Open,
            before,
            expected: Delta::default(),
            batch: Vec::new(),
            prepared: Vec::new(),
            began: Instant::now(),
            has_pool,
            has_openings,
            has_tracked,
            numbers,
            tally: Tally::default(),
        };
        new.forget();
        new
    }

    /// Runs a frame through both. `limit` is how the rate limit of ICMP errors stands, should it be asked.
    ///
    /// # Panics
    /// If they differ, with everything that is needed to see why.
    pub fn frame(&mut self, frame: Vec<u8>, limit: Limit) {
        if self.began.elapsed() > self.moment() {
            self.flush();
        }
        let (judged, outcome, _) = self.both(&frame, limit, false);
        if !is_same(&judged, &outcome, &frame) {
            if self.is_late() {
                self.tally.packets += 1;
                return self.give_up();
            }
            self.fail(&frame, limit, &judged, &outcome);
        }
        self.expect(&judged);
        self.batch.push((frame, limit));
        if self.batch.len() == self.batch_length() {
            self.flush();
        }
    }

    fn moment(&self) -> Duration {
        if self.is_of_flows() { MOMENT } else { MOMENT_OF_FRAGMENTS }
    }

    /// Whether this machine has stood still for so long that what is remembered may have grown old.
    fn is_late(&self) -> bool {
        self.began.elapsed() > 2 * self.moment()
    }

    /// Leaves the batch in hand out, and counts it as such.
    fn give_up(&mut self) {
        self.before = self.kernel.counts();
        self.expected = Delta::default();
        self.batch.clear();
        self.tally.late += 1;
        self.forget();
    }

    /// Whether the next frame begins a batch: then its pins can be prepared.
    pub fn is_between_batches(&mut self) -> bool {
        if self.began.elapsed() > self.moment() {
            self.flush();
        }
        self.batch.is_empty()
    }

    /// The pins that are there when the batch begins.
    pub fn prepare(&mut self, prepared: Vec<Prepared>) {
        assert!(self.batch.is_empty(), "between batches");
        self.prepared = prepared;
        self.forget();
    }

    /// Flows of full nat that have a port.
    pub fn translated(&self) -> Vec<Translated> {
        self.model.translated()
    }

    /// The epoch that cookies are of, for the next packet of all: both have it.
    pub fn epoch(&mut self) -> u64 {
        let epoch = openings::epoch();
        self.model.set_epoch(epoch);
        epoch
    }

    /// Some seconds go by for flows of full nat.
    pub fn grow_old(&mut self) {
        state::age_ports(&mut self.kernel, AGE);
        self.model.grow_old();
    }

    fn is_of_flows(&self) -> bool {
        let has_memory = self.has_pool || self.has_openings || self.has_tracked;
        has_memory || !self.prepared.is_empty()
    }

    fn batch_length(&self) -> usize {
        if self.is_of_flows() { BATCH_OF_FLOWS } else { BATCH }
    }

    /// What both make of a frame, and (if that is wanted) what the program counts.
    fn both(
        &mut self,
        frame: &[u8],
        limit: Limit,
        counts: bool,
    ) -> (lb_model::Outcome, Outcome, Option<Delta>) {
        let run = |kernel: &mut Kernel| match counts {
            true => {
                let (outcome, delta) = kernel.count(frame);
                (outcome, Some(delta))
            }
            false => (kernel.run(frame), None),
        };
        if self.has_pool {
            // The model has to be told which port was given.
            self.set_limit(limit);
            let (outcome, delta) = run(&mut self.kernel);
            if let Some(flow) = self.model.flow_with_a_port(frame) {
                self.model.tell_port(state::port_of(&mut self.kernel, &flow));
            }
            return (self.model.judge(frame, limit), outcome, delta);
        }
        let judged = self.model.judge(frame, limit);
        if judged.asked_limit {
            self.set_limit(limit);
        }
        let (outcome, delta) = run(&mut self.kernel);
        (judged, outcome, delta)
    }

    /// Compares the counters of what has run since the last time, and forgets all packets.
    pub fn flush(&mut self) {
        let counts = self.kernel.counts();
        let delta = counts.since(&self.before);
        if delta != self.expected {
            if self.is_late() {
                return self.give_up();
            }
            self.find_miscounted(&delta);
        }
        if self.has_tracked && !self.is_late() {
            tracked::compare(&mut self.kernel, &self.model);
        }
        self.before = counts;
        self.expected = Delta::default();
        self.batch.clear();
        self.forget();
    }

    fn forget(&mut self) {
        if self.has_openings {
            openings::forget(&mut self.kernel, &mut self.model);
        }
        if self.has_tracked {
            tracked::forget(&mut self.kernel, &self.model);
        }
        state::forget(&mut self.kernel, &mut self.model, &self.prepared);
        self.began = Instant::now();
    }

    /// A limit that has just been asked is exhausted only for a moment, or for ever.
    fn set_limit(&mut self, limit: Limit) {
        if limit == Limit::Exhausted && self.limit == limit {
            return;
        }
        let state = if limit == Limit::Open { 0 } else { u64::MAX / 2 };
        let map = self.kernel.ebpf().map_mut("LIMITS").expect("the program declares it");
        let mut limits: PerCpuArray<_, u64> = PerCpuArray::try_from(map).expect("its type");
        let states = vec![state; nr_cpus().expect("the kernel says it")];
        limits.set(0, PerCpuValues::try_from(states).expect("one a CPU"), 0).expect("within");
        self.limit = limit;
    }

    fn expect(&mut self, judged: &lb_model::Outcome) {
        let tally = &mut self.tally;
        tally.packets += 1;
        *tally.actions.entry(action_name(judged.action)).or_default() += 1;
        for part in &judged.parts {
            *tally.parts.entry(part).or_default() += 1;
        }
        for (service, name) in &judged.counted.reasons {
            *tally.reasons.entry(name).or_default() += 1;
            let reason = self.numbers.get(name).unwrap_or_else(|| panic!("no reason {name}"));
            *self.expected.reasons.entry((*service, *reason as u32)).or_default() += 1;
        }
        if let Some((backend, traffic)) = judged.counted.backend {
            add(self.expected.backends.entry(backend).or_default(), traffic);
        }
    }

    /// Runs the batch again, packet by packet with a look at the counters.
    fn find_miscounted(&mut self, delta: &Delta) -> ! {
        let whole = format!("counted {delta:?}\n instead of {:?}", self.expected);
        self.forget();
        for (frame, limit) in std::mem::take(&mut self.batch) {
            let (judged, outcome, delta) = self.both(&frame, limit, true);
            self.expected = Delta::default();
            self.expect(&judged);
            // Counting takes so long that young pins grow old.
            let is_late = self.is_of_flows() && !is_same(&judged, &outcome, &frame);
            if !is_late && delta.as_ref() != Some(&self.expected) {
                let counted = format!("{delta:?} instead of {:?}", self.expected);
                panic!(
                    "counters differ: {counted}\n  in      {}\n  program {outcome:?}\n  model   {}",
                    hex(&frame),
                    told(&judged)
                );
            }
        }
        panic!("the counters of a batch differ, but those of none of its packets: {whole}");
    }

    fn fail(
        &mut self,
        frame: &[u8],
        limit: Limit,
        judged: &lb_model::Outcome,
        outcome: &Outcome,
    ) -> ! {
        let mut text = format!(
            "packet {}: the program and the model differ\n  in      {}\n  program {outcome:?}\n  model   {}\n",
            self.tally.packets,
            hex(frame),
            told(judged)
        );
        let mut differs = |frame: &[u8]| {
            self.forget();
            let (judged, outcome, _) = self.both(frame, limit, false);
            !is_same(&judged, &outcome, frame)
        };
        if !differs(frame) {
            panic!("{text}only after the packets before it");
        }
        let least = shrink(frame, differs);
        self.forget();
        let (judged, outcome, delta) = self.both(&least, limit, true);
        let _ = write!(
            text,
            "shrunk to\n  in      {}\n  program {outcome:?}, {delta:?}\n  model   {}",
            hex(&least),
            told(&judged)
        );
        panic!("{text}");
    }
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.late += other.late;
        for (mine, others) in [
            (&mut self.actions, &other.actions),
            (&mut self.reasons, &other.reasons),
            (&mut self.parts, &other.parts),
        ] {
            for (name, count) in others {
                *mine.entry(name).or_default() += count;
            }
        }
    }

    /// One line each.
    pub fn table(&self) -> String {
        let mut text = format!("{:>12}  packets\n", self.packets);
        if self.late > 0 {
            let _ = writeln!(text, "{:>12}  batches left out: the machine stood still", self.late);
        }
        for (name, count) in &self.actions {
            let _ = writeln!(text, "{count:>12}  {name}");
        }
        for (name, count) in &self.reasons {
            let _ = writeln!(text, "{count:>12}    {name}");
        }
        for (name, count) in &self.parts {
            let _ = writeln!(text, "{count:>12}      {name}");
        }
        text
    }
}

fn is_same(judged: &lb_model::Outcome, outcome: &Outcome, frame: &[u8]) -> bool {
    let expected = match judged.action {
        Action::Pass => action::PASS,
        // What is left in a dropped frame is nobody's concern.
        Action::Drop => return outcome.action == action::DROP,
        Action::Transmit => action::TX,
        Action::Redirect(_) => action::REDIRECT,
    };
    let is_untouched = judged.action != Action::Pass || outcome.frame == frame;
    outcome.action == expected && outcome.frame == judged.frame && is_untouched
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::Pass => "PASS",
        Action::Drop => "DROP",
        Action::Transmit => "TX",
        Action::Redirect(_) => "REDIRECT",
    }
}

fn told(judged: &lb_model::Outcome) -> String {
    let frame = hex(&judged.frame);
    format!("{:?} ({} bytes) {frame}, {:?}", judged.action, judged.frame.len(), judged.counted)
}

fn add(counters: &mut BackendCounters, traffic: lb_model::outcome::Traffic) {
    if traffic.is_reply {
        counters.reply_packets += 1;
        counters.reply_bytes += traffic.bytes;
        counters.reply_resets += u64::from(traffic.is_marked);
    } else {
        counters.packets += 1;
        counters.bytes += traffic.bytes;
        counters.flows += u64::from(traffic.is_marked);
    }
}
