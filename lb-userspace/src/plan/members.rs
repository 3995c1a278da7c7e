//! Who is in a service's ring, and with which weight: the one place that decides it.
//!
//! In goes what the file, the operator, the checks, the agent and the passive checks say of each backend; out come each
//! backend's part in the ring and the service's [`Mode`] with its reason.
//!
//! A backend is *wanted* if neither the file nor the operator nor its agent takes it out and its weight is above 0, and
//! *usable* if it is wanted, its checks and its agent say that it works, and it is not ejected. Sorry backends stand
//! apart. The first line that fits decides:
//!
//! | line | fits when | mode | in the ring |
//! |---|---|---|---|
//! | 1 | tiers 0..=N have `quorum` usable backends, and at least `panic_threshold` % of their wanted ones are usable | NORMAL (N = 0), BACKUP | the usable ones of tiers 0..=N |
//! | 2 | fewer than `quorum` are usable in all tiers, and a sorry backend is wanted | SORRY | the sorry backends |
//! | 3 | less than `panic_threshold` % of the wanted ones of all tiers are usable, and one is wanted | PANIC | all wanted ones |
//! | 4 | some are usable | UNDER-QUORUM | the usable ones of all tiers |
//! | 5 | none is usable, one is wanted, `on_all_down: fail_open` | FAIL-OPEN | all wanted ones |
//! | 6 | none is usable | DOWN | nobody gets packets: `on_all_down` says what clients meet |
//!
//! All backends of a tier are used together (HAProxy's `option allbackups`); who wants one after the other gives each a
//! tier of its own. With `quorum: 1`, the default, a tier is used when those before it have nobody; with more it joins
//! those before it as soon as they are too few. `hysteresis` (keepalived): tiers that were enough stay so until they
//! have fewer than `quorum - hysteresis`, and tiers that were not become so with `quorum + hysteresis`.
//!
//! Flows that are open stay with their backend in every mode, as long as it works: only what is not usable for health is
//! taken out of their way, and in PANIC and FAIL-OPEN not even that.

use serde::{Deserialize, Serialize};

use crate::config::model::OnAllDown;

/// Administrative state, set by hand or by a backend's agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// Takes new flows.
    #[default]
    Ready,
    /// No new flows; old ones stay.
    Drain,
    /// Out: old flows move away, too.
    Maint,
}

impl Admin {
    /// The word of CLI and API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Ready, Self::Drain, Self::Maint].into_iter().find(|admin| admin.name() == word)
    }
}

/// What a backend's agent says; the default is that it has said nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// Weight in percent of the one in force; 0 = no new flows, `None` = the whole weight.
    pub percent: Option<u16>,
    /// `down`, `fail` or `stopped`.
    pub down: bool,
    /// `drain`, `maint` or `ready`.
    pub admin: Admin,
}

/// Weights never count for more than this, whatever their percentages.
const LARGEST_WEIGHT: u32 = 256;

/// What is known of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Weight in the file, 0..=256.
    pub configured: u16,
    /// Weight in force: set by hand, or the file's; 0..=256.
    pub weight: u16,
    /// Set by hand.
    pub admin: Admin,
    /// Gone from the file; drains.
    pub removed: bool,
    /// Its checks say that it works, or it has none.
    pub healthy: bool,
    /// What its agent says.
    pub agent: Agent,
    /// Ejected by passive checks.
    pub ejected: bool,
    /// How far its slow start has come, percent, 1..=100; 100 = it is through.
    pub ramp: u8,
    /// 0 = first.
    pub tier: u8,
    /// Only for when nobody else is left.
    pub sorry: bool,
}

impl Default for Candidate {
    fn default() -> Self {
        Self {
            configured: 100,
            weight: 100,
            admin: Admin::Ready,
            removed: false,
            healthy: true,
            agent: Agent::default(),
            ejected: false,
            ramp: 100,
            tier: 0,
            sorry: false,
        }
    }
}

impl Candidate {
    /// Its checks, its agent and its clients find that it works.
    pub fn works(&self) -> bool {
        self.healthy && !self.agent.down && !self.ejected
    }

    /// Out by hand or by its agent: flows that are open have to leave, too.
    pub fn is_out(&self) -> bool {
        self.admin == Admin::Maint || self.agent.admin == Admin::Maint
    }

    /// Nobody and nothing but its health keeps it from new flows.
    pub fn wanted(&self) -> bool {
        let ready = self.admin == Admin::Ready && self.agent.admin == Admin::Ready;
        ready && !self.removed && self.weight > 0 && self.agent.percent != Some(0)
    }

    /// Takes new flows.
    pub fn usable(&self) -> bool {
        self.wanted() && self.works()
    }

    /// Percent of its weight that counts, by its agent; at least 1.
    pub fn percent(&self) -> u16 {
        let most = 100 * LARGEST_WEIGHT / u32::from(self.weight.max(1));
        u32::from(self.agent.percent.unwrap_or(100)).clamp(1, most) as u16
    }
}

/// What the service wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What happens when nobody is usable.
    pub on_all_down: OnAllDown,
    /// So many usable backends are enough; at least 1.
    pub quorum: u32,
    /// Below `quorum`.
    pub hysteresis: u32,
    /// Percent of the wanted backends, 0..=100; 0 = no panic.
    pub panic_threshold: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self { on_all_down: OnAllDown::default(), quorum: 1, hysteresis: 0, panic_threshold: 0 }
    }
}

/// What was so before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// [`Decision::short`] of the last decision; 0 at first.
    pub short: u8,
    /// The ring has no slots yet: drained backends, too, are given their places if nobody else is there.
    pub new_ring: bool,
}

/// Who serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The first tier.
    #[default]
    Normal,
    /// Tiers up to this one.
    Backup(u8),
    /// All that are left, too few as they are.
    UnderQuorum,
    /// Everybody who is wanted, because so few are usable that the checks are not believed.
    Panic,
    /// Everybody who is wanted, because nobody is usable.
    FailOpen,
    /// The sorry backends.
    Sorry,
    /// Nobody.
    Down,
}

impl Mode {
    /// The word of CLI, API and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "UP",
            Self::Backup(_) => "BACKUP",
            Self::UnderQuorum => "UNDER-QUORUM",
            Self::Panic => "PANIC",
            Self::FailOpen => "FAIL-OPEN",
            Self::Sorry => "SORRY",
            Self::Down => "DOWN",
        }
    }

    /// The words of all modes, the best first.
    pub const NAMES: [&str; 7] =
        ["UP", "BACKUP", "UNDER-QUORUM", "PANIC", "FAIL-OPEN", "SORRY", "DOWN"];

    /// Usable backends do the service's work.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Normal | Self::Backup(_) | Self::UnderQuorum)
    }

    /// Health takes nobody out.
    pub const fn ignores_health(self) -> bool {
        matches!(self, Self::Panic | Self::FailOpen)
    }
}

/// [`Mode::is_up`] of a mode's word.
pub fn is_up(name: &str) -> bool {
    matches!(name, "UP" | "BACKUP" | "UNDER-QUORUM")
}

/// A backend's part in the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Weight by which it has its places in the base ring: the file's, and 0 for those who only step in for others, so
    /// that they take no slot from anybody while they wait.
    pub configured: u16,
    /// Weight in force; 0 = takes no new flows.
    pub effective: u16,
    /// Percent of `effective` that counts.
    pub percent: u16,
    /// How far its slow start has come, percent.
    pub ramp: u8,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who serves.
    pub mode: Mode,
    /// Why, in words.
    pub reason: String,
    /// The first tier that, with those before it, has the quorum: for the hysteresis of the next decision.
    pub short: u8,
    /// For each candidate, in order.
    pub parts: Vec<Part>,
}

/// Decides.
pub fn decide(rules: &Rules, candidates: &[Candidate], before: Before) -> Decision {
    let (mode, reason, short) = mode(rules, candidates, before.short);
    let wanted = candidates.iter().any(|candidate| !candidate.sorry && candidate.wanted());
    let part = |candidate: &Candidate| Part {
        configured: match candidate.sorry || candidate.tier > 0 {
            true => 0,
            false => candidate.configured,
        },
        effective: match takes_part(candidate, mode) {
            // Drained backends of a new ring have their places.
            _ if before.new_ring && mode == Mode::Down && !wanted => candidate.configured.max(1),
            true => candidate.weight,
            false => 0,
        },
        percent: candidate.percent(),
        ramp: candidate.ramp,
    };
    Decision { mode, reason, short, parts: candidates.iter().map(part).collect() }
}

fn takes_part(candidate: &Candidate, mode: Mode) -> bool {
    match mode {
        Mode::Sorry => candidate.sorry && candidate.wanted(),
        _ if candidate.sorry => false,
        Mode::Normal => candidate.tier == 0 && candidate.usable(),
        Mode::Backup(tier) => candidate.tier <= tier && candidate.usable(),
        Mode::UnderQuorum => candidate.usable(),
        // Who gets nothing while the service is DOWN still has its slots for when it is UP again.
        Mode::Panic | Mode::FailOpen | Mode::Down => candidate.wanted(),
    }
}

/// Of the backends of some tiers.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    wanted: u32,
    usable: u32,
}

impl Count {
    fn of<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Self {
        candidates.filter(|candidate| !candidate.sorry).fold(Self::default(), |count, one| Self {
            wanted: count.wanted + u32::from(one.wanted()),
            usable: count.usable + u32::from(one.usable()),
        })
    }

    /// Too few for the checks to be believed.
    fn panics(self, rules: &Rules) -> bool {
        self.wanted > 0 && 100 * self.usable < u32::from(rules.panic_threshold) * self.wanted
    }
}

fn mode(rules: &Rules, candidates: &[Candidate], short_before: u8) -> (Mode, String, u8) {
    let quorum = rules.quorum.max(1);
    let count = |tier| Count::of(candidates.iter().filter(move |one| one.tier <= tier));
    let enough = |tier: u8| {
        let needed = match tier < short_before {
            true => quorum.saturating_add(rules.hysteresis),
            false => quorum.saturating_sub(rules.hysteresis).max(1),
        };
        count(tier).usable >= needed
    };
    let mut tiers: Vec<u8> = candidates.iter().filter(|c| !c.sorry).map(|c| c.tier).collect();
    tiers.push(0);
    tiers.sort_unstable();
    tiers.dedup();
    let last = tiers[tiers.len() - 1];
    // More tiers are never fewer backends: those that are too few come first.
    let short = tiers.iter().copied().find(|tier| enough(*tier)).unwrap_or(last.saturating_add(1));
    let good = tiers.into_iter().find(|tier| *tier >= short && !count(*tier).panics(rules));
    match good {
        Some(0) => return (Mode::Normal, String::new(), short),
        Some(tier) => {
            let reason = backup_reason(quorum, tier, short, count(tier - 1));
            return (Mode::Backup(tier), reason, short);
        }
        None => {}
    }
    let all = count(last);
    let Count { wanted, usable } = all;
    let sorry = candidates.iter().any(|candidate| candidate.sorry && candidate.wanted());
    if short > last && sorry {
        let why = match usable {
            0 => "no backend is usable".to_owned(),
            _ => format!("{usable} usable backends, quorum {quorum}"),
        };
        return (Mode::Sorry, format!("{why}: the sorry backend gets all new flows"), short);
    }
    if all.panics(rules) {
        let threshold = rules.panic_threshold;
        let reason = format!(
            "{usable} of {wanted} backends are usable, less than {threshold} % (panic_threshold): all of them get traffic"
        );
        return (Mode::Panic, reason, short);
    }
    let (mode, reason) = match (usable, wanted, rules.on_all_down) {
        (1.., ..) => (
            Mode::UnderQuorum,
            format!("{usable} usable backends, quorum {quorum}: those that are left get traffic"),
        ),
        (0, 1.., OnAllDown::FailOpen) => {
            (Mode::FailOpen, "no backend is UP: all of them get traffic (on_all_down)".to_owned())
        }
        _ => (Mode::Down, "no backend is UP and ready".to_owned()),
    };
    (mode, reason, short)
}

fn backup_reason(quorum: u32, tier: u8, short: u8, before: Count) -> String {
    let Count { wanted, usable } = before;
    let why = match usable {
        0 => "nobody in the tiers before is usable".to_owned(),
        _ if tier <= short => {
            format!("the tiers before have {usable} usable backends, quorum {quorum}")
        }
        _ => format!(
            "{usable} of {wanted} backends of the tiers before are usable, less than panic_threshold"
        ),
    };
    format!("{why}: tier {tier} is used")
}

#[cfg(test)]
mod tests;
