//! A configuration that many nodes share by etcd: each revision as a whole or not at all.
//!
//! What is good is written beside the seed, so that a start needs no etcd. A start asks etcd first all the same, for a short time: rings
//! made of an old configuration would have another past than those of the other nodes.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Event, Node, config_file::Prepared, first_config, node, options::RunOptions, private_file,
    reload::ReloadError, revisions::hash, with_settings,
};
use crate::{
    api::types::{Failure, FailureKind, NodeReport, RefusedRevision, ServiceReport, SharedStatus},
    config::{self, Parsed, Source},
    etcd::{self, Entry, Follower, Heard, Location},
    events::{Happened, Kind},
};

/// The last good configuration, in the state directory.
pub const LAST_GOOD: &str = "shared.yaml";
/// Which revision that is, beside it.
const NUMBER: &str = "shared.json";
/// How long a start waits for etcd when it has a last good configuration, and when it has none.
const WAITS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(30)];
/// From one attempt to the next.
const AGAIN: Duration = Duration::from_millis(500);
/// From one look at what is to be reported to the next.
const LOOK: Duration = Duration::from_secs(1);
/// Services that are reported one by one.
const MOST_SERVICES: usize = 500;
/// Bytes of the errors that are reported; `lb status` has all of them.
const MOST_ERROR: usize = 8 << 10;
/// Backends of a service whose names are reported.
const MOST_DOWN: usize = 20;

/// What the controller knows of it.
pub(super) struct Shared {
    location: Location,
    follower: Option<Follower>,
    running: Number,
    newest: u64,
    refused: Option<RefusedRevision>,
    member: Option<String>,
    problem: String,
    reports_problem: String,
    /// In this daemon's reports, and in those of no other.
    instance: String,
    /// Who else reports under this node's name, in words.
    namesake: Option<String>,
    /// What is wrong with the last good one's file.
    file_problem: Option<String>,
    look_due: Instant,
}

/// A revision that is in force, or was when the file was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Number {
    revision: u64,
    version: u64,
    hash: String,
}

impl Number {
    fn of(entry: &Entry) -> Self {
        Self { revision: entry.revision, version: entry.version, hash: hash(&entry.text) }
    }

    fn file(options: &RunOptions) -> PathBuf {
        options.config.with_file_name(NUMBER)
    }

    /// Unknown where it cannot be read: it is for people and for reports.
    fn load(options: &RunOptions) -> Self {
        let text = fs::read_to_string(Self::file(options)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// What a start has found.
pub(super) struct First {
    /// Understood.
    pub parsed: Parsed,
    entry: Entry,
}

/// Asks etcd for what to start with. `None` = the last good one has to do.
pub(super) async fn first(
    options: &RunOptions,
    location: &Location,
) -> anyhow::Result<Option<First>> {
    let has_last_good = options.config.is_file();
    let why = match ask(location, has_last_good).await {
        Ok(Some(entry)) => match understand(location, &entry) {
            Ok(parsed) => return Ok(Some(First { parsed, entry })),
            Err(errors) => errors.to_string(),
        },
        Ok(None) => format!("there is no key {}: `lb fleet put FILE`", location.config_key()),
        Err(error) => error,
    };
    if !has_last_good {
        anyhow::bail!(
            "no configuration from {location}: {why}\nand there is no last good one in {}",
            options.config.display()
        );
    }
    tracing::error!(
        "starting with the last good configuration, as that of {location} is not to be had: {why}"
    );
    Ok(None)
}

async fn ask(location: &Location, has_last_good: bool) -> Result<Option<Entry>, String> {
    let until = Instant::now() + WAITS[usize::from(!has_last_good)];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let answer = timeout(left, etcd::fetch(location)).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let is_final = answer.is_ok() || has_last_good || Instant::now() + AGAIN >= until;
        if is_final {
            return answer;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn source(location: &Location, entry: &Entry) -> Source {
    let path = format!("{}@{}", location.config_key(), entry.revision);
    Source { path: path.into(), text: entry.text.clone() }
}

fn understand(location: &Location, entry: &Entry) -> Result<Parsed, config::Errors> {
    config::parse(&source(location, entry))?.with_prefix_files()
}

impl Node {
    /// Makes the configuration of the start true; a shared one that does not fit this host is refused for the last good one.
    pub(super) fn apply_first_of(
        &mut self,
        parsed: Parsed,
        text: String,
        first: Option<First>,
    ) -> anyhow::Result<()> {
        let result = self.apply_first(parsed, text);
        let Some(location) = self.options.shared.clone() else { return Ok(result?) };
        let mut shared = Shared {
            location,
            follower: None,
            running: Number::load(&self.options),
            newest: 0,
            refused: None,
            member: None,
            problem: String::new(),
            reports_problem: String::new(),
            instance: format!("{:016x}", rand::random::<u64>()),
            namesake: None,
            file_problem: None,
            look_due: Instant::now(),
        };
        match (result, first) {
            (Ok(()), Some(first)) => {
                shared.keep_first(&self.options, &first.entry);
                self.own_file = Some(hash(&first.entry.text));
            }
            (Ok(()), None) => {}
            // Nothing was touched: it was judged first.
            (Err(error @ ReloadError::Host(_)), Some(_)) if self.options.config.is_file() => {
                tracing::error!(
                    "the shared configuration does not fit this host; starting with the last good one:\n{error}"
                );
                let (file, config_error) = first_config(&self.options, None)?;
                let text = file.source().text.clone();
                let (parsed, config_error) =
                    with_settings(file, &self.state.settings, config_error);
                self.apply_first(parsed, text)?;
                self.config_error = config_error;
            }
            (Err(error), _) => return Err(error.into()),
        }
        self.shared = Some(shared);
        Ok(())
    }

    /// Follows it from now on.
    pub(super) fn follow_shared(&mut self) {
        let name = self.options.node.clone();
        let events = self.events.clone();
        let Some(shared) = &mut self.shared else { return };
        let (heard, mut hears) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(heard) = hears.recv().await {
                if events.send(Event::Shared(heard)).is_err() {
                    return;
                }
            }
        });
        shared.follower =
            Some(Follower::start(shared.location.clone(), &name, &shared.instance, heard));
        self.mind_shared();
    }

    pub(super) fn shared_heard(&mut self, heard: Heard) {
        let Some(shared) = &mut self.shared else { return };
        match heard {
            Heard::Connected(member) => {
                let was = shared.member.replace(member.clone());
                shared.reports_problem.clear();
                if was.is_none() {
                    let why = std::mem::take(&mut shared.problem);
                    let text = format!("etcd answers: {member}");
                    self.log.add(Happened::to_node(Kind::Shared, text, why));
                }
            }
            Heard::Away(why) => {
                let was = shared.member.take();
                if was.is_some() || shared.problem.is_empty() {
                    let text = "etcd does not answer; the last good configuration goes on";
                    self.log.add(Happened::to_node(Kind::Shared, text, why.clone()));
                }
                shared.problem = why;
            }
            Heard::NoReports(why) => {
                if shared.reports_problem.is_empty() {
                    let text = "etcd does not take this node's report";
                    self.log.add(Happened::to_node(Kind::Shared, text, why.clone()));
                }
                shared.reports_problem = why;
            }
            Heard::Gone => {
                shared.newest = 0;
                let key = shared.location.config_key();
                let text =
                    format!("there is no key {key} in etcd; the last good configuration goes on");
                self.log.add(Happened::to_node(Kind::ConfigRefused, text, "etcd"));
            }
            Heard::Namesake(report) => {
                shared.namesake = report.map(|text| {
                    let other: NodeReport = serde_json::from_str(&text).unwrap_or_default();
                    format!(
                        "another node reports to etcd as {}: on the host {}, with the seed {}",
                        self.options.node, other.host, other.seed
                    )
                });
                self.mind_node_name();
            }
            Heard::Text(entry) => self.take_shared(&entry),
        }
        self.mind_shared_now();
    }

    /// One revision: as a whole, or not at all.
    fn take_shared(&mut self, entry: &Entry) {
        let Some(shared) = &mut self.shared else { return };
        shared.newest = entry.revision;
        let number = Number::of(entry);
        if shared.running == number {
            if shared.refused.take().is_some() {
                self.config_error = None;
            }
            return;
        }
        if shared.refused.as_ref().is_some_and(|refused| refused.revision == entry.revision) {
            return;
        }
        let cause = format!("etcd revision {}", entry.revision);
        let source = source(&shared.location, entry);
        match self.put_in_force(&source, &cause, None) {
            Ok(_) => {
                self.file_decides(&cause);
                if let Some(shared) = &mut self.shared {
                    shared.refused = None;
                    shared.keep_number(&self.options, number);
                }
            }
            Err(failure) => {
                let error = failure.error;
                let text = format!(
                    "the configuration is not in force, the last good one still is:\n{error}"
                );
                self.log.add(Happened::to_node(Kind::ConfigRefused, text, cause));
                self.config_error = Some(error.clone());
                if let Some(shared) = &mut self.shared {
                    shared.refused = Some(RefusedRevision { revision: entry.revision, error });
                }
                self.save_state();
            }
        }
    }

    /// What was refused is tried once more: a file that it names may be there now.
    pub(super) fn ask_shared_again(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.refused = None;
            if let Some(follower) = &shared.follower {
                follower.ask_again();
            }
        }
    }

    /// The file is not where a shared configuration is changed.
    pub(super) fn refuse_if_shared(&self) -> Result<(), Failure> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let error = format!(
            "the configuration is shared by {}: change it there, for all nodes (`lb fleet put FILE`); here it can only be tried \
             (`lb apply FILE --confirm 10m`)",
            shared.location
        );
        Err(Failure::new(FailureKind::Conflict, error))
    }

    /// Tells what is to be told of this node, once a second.
    pub(super) fn mind_shared(&mut self) {
        if self.shared.as_ref().is_some_and(|shared| Instant::now() >= shared.look_due) {
            self.mind_shared_now();
        }
    }

    fn mind_shared_now(&mut self) {
        let Some(shared) = &self.shared else { return };
        let report = self.own_report(shared);
        let Some(shared) = &mut self.shared else { return };
        shared.look_due = Instant::now() + LOOK;
        if let (Some(follower), Ok(text)) = (&shared.follower, serde_json::to_string(&report)) {
            follower.report(text);
        }
    }

    fn own_report(&self, shared: &Shared) -> NodeReport {
        let in_force = self.shared_number(shared);
        let mut all = ring::digest::Context::new(&ring::digest::SHA256);
        let mut services = Vec::new();
        let (mut up, mut backends) = (0, 0);
        for service in &self.services {
            let ring = format!("{:08x}", self.ring_digest(service));
            all.update(format!("{} {ring}\n", service.key).as_bytes());
            let all_of = service.backends.iter().filter(|backend| !backend.removed);
            let (mut good, mut count, mut down) = (0, 0, Vec::new());
            for backend in all_of {
                count += 1;
                match backend.healthy() {
                    true => good += 1,
                    false if down.len() < MOST_DOWN => down.push(backend.spec.name.clone()),
                    false => {}
                }
            }
            up += good;
            backends += count;
            if services.len() < MOST_SERVICES {
                let name = service.spec.name.clone();
                services.push(ServiceReport { name, ring, up: good, backends: count, down });
            }
        }
        let rings = all.finish().as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let state = if node::is_draining(&self.options.socket) {
            "draining"
        } else if self.starting || self.is_joining() {
            "starting"
        } else {
            "forwarding"
        };
        NodeReport {
            node: self.options.node.clone(),
            host: host_name(),
            instance: shared.instance.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.to_owned(),
            trial: self.state.trial.is_some(),
            settings: self.state.settings.len() as u64,
            revision: in_force.revision,
            version: in_force.version,
            hash: in_force.hash,
            refused: shared.refused.as_ref().map(clipped),
            seed: self.seed.fingerprint(),
            rings,
            up,
            backends,
            warnings: self.warnings().len() as u64,
            services,
        }
    }

    /// What is in force, with etcd's number if it is from there.
    fn shared_number(&self, shared: &Shared) -> Number {
        let hash = hash(&self.state.config_text);
        match shared.running.hash == hash {
            true => shared.running.clone(),
            false => Number { hash, ..Number::default() },
        }
    }

    pub(super) fn shared_status(&self) -> Option<SharedStatus> {
        let shared = self.shared.as_ref()?;
        let Number { revision, version, .. } = self.shared_number(shared);
        let problem = match shared.problem.is_empty() {
            true => &shared.reports_problem,
            false => &shared.problem,
        };
        Some(SharedStatus {
            url: shared.location.to_string(),
            key: shared.location.config_key(),
            member: shared.member.clone(),
            problem: problem.clone(),
            revision,
            version,
            newest_revision: shared.newest,
            refused: shared.refused.clone(),
            namesake: shared.namesake.clone().unwrap_or_default(),
        })
    }

    pub(super) fn shared_warnings(&self) -> Vec<String> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let mut warnings: Vec<String> = shared.file_problem.iter().cloned().collect();
        if shared.member.is_none() && !shared.problem.is_empty() {
            warnings.push(format!(
                "etcd does not answer, the last good configuration goes on: {}",
                shared.problem
            ));
        } else if shared.member.is_some() && shared.newest == 0 {
            warnings.push(format!(
                "there is no key {} in etcd, the last good configuration goes on: `lb fleet put FILE`",
                shared.location.config_key()
            ));
        }
        if !shared.reports_problem.is_empty() {
            warnings
                .push(format!("etcd does not take this node's report: {}", shared.reports_problem));
        }
        warnings
    }
}

impl Shared {
    /// Who else reports under this node's name, in words.
    pub(super) fn namesake(&self) -> Option<&String> {
        self.namesake.as_ref()
    }
}

fn host_name() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().to_owned()
}

/// An etcd takes no values of any length.
fn clipped(refused: &RefusedRevision) -> RefusedRevision {
    let mut error = refused.error.clone();
    if error.len() > MOST_ERROR {
        let end = (0..=MOST_ERROR).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0);
        error.truncate(end);
        error.push_str(" ...");
    }
    RefusedRevision { revision: refused.revision, error }
}

impl Shared {
    /// What the start has made true is good.
    fn keep_first(&mut self, options: &RunOptions, entry: &Entry) {
        self.newest = entry.revision;
        let written = Prepared::new(&options.config, &entry.text).and_then(Prepared::commit);
        match written {
            Ok(()) => self.keep_number(options, Number::of(entry)),
            Err(error) => {
                self.running = Number::of(entry);
                self.cannot_write(options, &error);
            }
        }
    }

    fn keep_number(&mut self, options: &RunOptions, number: Number) {
        self.running = number;
        self.file_problem = None;
        let text = serde_json::to_string(&self.running).map_err(io::Error::other);
        let written = text.and_then(|text| private_file::replace(&Number::file(options), &text));
        if let Err(error) = written {
            self.cannot_write(options, &error);
        }
    }

    fn cannot_write(&mut self, options: &RunOptions, error: &io::Error) {
        let text = format!(
            "the last good configuration cannot be kept in {}: {error}: a start needs etcd",
            options.state_dir.display()
        );
        tracing::error!("{text}");
        self.file_problem = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_bound() {
        let short = RefusedRevision { revision: 7, error: "no".into() };
        assert_eq!(clipped(&short), short);
        let long = RefusedRevision { revision: 7, error: "é".repeat(MOST_ERROR) };
        let clipped = clipped(&long).error;
        assert!(clipped.len() <= MOST_ERROR + 4 && clipped.ends_with("é ..."), "{}", clipped.len());
    }
}
