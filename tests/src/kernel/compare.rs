//! The packet path beside the reference model ([`lb_model`]): the same world, the same frames, and no difference in what becomes
//! of them, in the bytes that leave, or in what is counted.

mod world;

use std::{collections::BTreeMap, fmt::Write as _};

use aya::maps::{PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_common::abi::{BackendCounters, FragmentKey, FragmentRow, Reason, map};
use lb_model::{Action, Config, Limit, Model, generate::shrink};

use super::{Delta, Kernel, Outcome, World, action, packet::hex, run};

pub use world::config_of;

/// Frames between two looks at the counters.
const BATCH: usize = 8_192;

/// The program and the model, in the same world.
pub struct Comparison {
    kernel: Kernel,
    model: Model,
    limit: Limit,
    before: super::Counts,
    expected: Delta,
    batch: Vec<(Vec<u8>, Limit)>,
    numbers: BTreeMap<&'static str, Reason>,
    /// What the packets met so far.
    pub tally: Tally,
}

/// A map's key or value of which only the size matters.
const fn words<T>() -> usize {
    size_of::<T>() / size_of::<u64>()
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
}

impl Comparison {
    /// Both in a world; `config` is that of [`config_of`].
    pub fn new(mut kernel: Kernel, world: World, config: Config) -> Self {
        let model = Model::new(config);
        kernel.enter(world);
        let before = kernel.counts();
        let numbers = Reason::ALL.iter().map(|reason| (reason.name(), *reason)).collect();
        let mut new = Self {
            kernel,
            model,
            limit: Limit::Open,
            before,
            expected: Delta::default(),
            batch: Vec::new(),
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
        let judged = self.model.judge(&frame, limit);
        if judged.asked_limit {
            self.set_limit(limit);
        }
        let outcome = self.kernel.run(&frame);
        if !is_same(&judged, &outcome, &frame) {
            self.fail(&frame, limit, &judged, &outcome);
        }
        self.expect(&judged);
        self.batch.push((frame, limit));
        if self.batch.len() == BATCH {
            self.flush();
        }
    }

    /// Compares the counters of what has run since the last time, and forgets all fragments.
    pub fn flush(&mut self) {
        let counts = self.kernel.counts();
        let delta = counts.since(&self.before);
        if delta != self.expected {
            self.find_miscounted(&delta);
        }
        self.before = counts;
        self.expected = Delta::default();
        self.batch.clear();
        self.forget();
    }

    fn forget(&mut self) {
        self.model.forget();
        let mut fragments =
            self.kernel.hash_map::<[u64; words::<FragmentKey>()], [u64; words::<FragmentRow>()]>(
                map::FRAGMENTS,
            );
        super::clear(&mut fragments).expect("removing fragments");
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
            let judged = self.model.judge(&frame, limit);
            if judged.asked_limit {
                self.set_limit(limit);
            }
            self.expected = Delta::default();
            self.expect(&judged);
            let (outcome, delta) = self.kernel.count(&frame);
            if delta != self.expected {
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
        let least = shrink(frame, |frame| {
            let judged = self.model.judge(frame, limit);
            if judged.asked_limit {
                self.set_limit(limit);
            }
            !is_same(&judged, &run(self.kernel.balancer(), frame), frame)
        });
        let judged = self.model.judge(&least, limit);
        let (outcome, delta) = self.kernel.count(&least);
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
        for (mine, others) in
            [(&mut self.actions, &other.actions), (&mut self.reasons, &other.reasons)]
        {
            for (name, count) in others {
                *mine.entry(name).or_default() += count;
            }
        }
    }

    /// One line each.
    pub fn table(&self) -> String {
        let mut text = format!("{:>12}  packets\n", self.packets);
        for (name, count) in &self.actions {
            let _ = writeln!(text, "{count:>12}  {name}");
        }
        for (name, count) in &self.reasons {
            let _ = writeln!(text, "{count:>12}    {name}");
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
