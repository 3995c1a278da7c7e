//! `lb apply`, `lb confirm`, `lb rollback` and the history: configurations as a whole.
//!
//! Applied means in force and in the file, both or neither. On trial (`--confirm`) it is in force alone: the file stays as
//! it was, so that whatever happens to the daemon, the way back is there. A trial ends by `lb confirm` (the file is
//! replaced), by `lb rollback` or its time (what was in force before is so again), or by the file: when that is changed, or
//! is to be read again, the file decides. A trial outlives the daemon, but no reboot.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{
    Node,
    config_file::Prepared,
    reload::ReloadError,
    revisions::{Record, hash},
};
use crate::{
    api::{
        Change,
        types::{
            Applied, Apply, Done, Failure, FailureKind, Revision, RevisionText, Revisions,
            Rollback, Trial as TrialShown,
        },
    },
    config::{Parsed, Source},
    events::{Happened, Kind},
};

/// Longest trial, seconds: a day.
const LONGEST_TRIAL: u64 = 86_400;
/// A rollback that failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(2);
/// Lines of a revision's summary that are kept.
const SUMMARY: usize = 20;

/// A configuration that is in force until it is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trial {
    /// When it ends, seconds of CLOCK_BOOTTIME.
    ends: u64,
    /// Which boot that clock is of.
    boot: String,
    /// The revision that comes back.
    back_to: u64,
    /// Its text.
    text: String,
    /// Hash of the file's text when the trial began.
    file_hash: String,
}

impl Trial {
    /// Seconds left; 0 = over, or of another boot.
    fn seconds_left(&self) -> u64 {
        if self.boot == boot() { self.ends.saturating_sub(boot_seconds()) } else { 0 }
    }

    /// What the daemon that starts has to do with a trial that another began: `None` = it goes on; else why it has ended.
    pub fn ended(&self, file: Option<&str>) -> Option<&'static str> {
        if file.is_some_and(|text| hash(text) != self.file_hash) {
            Some("the file was changed while the daemon was away")
        } else if self.seconds_left() == 0 {
            Some("it was not confirmed in time; the daemon was away then")
        } else {
            None
        }
    }

    /// The text that comes back.
    pub fn text_before(&self) -> &str {
        &self.text
    }
}

fn boot_seconds() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec() as u64)
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

impl Node {
    /// Answers one request.
    pub(super) fn answer_change(&mut self, change: Change) {
        // Sending fails when the client has gone: nobody is waiting for the answer.
        match change {
            Change::Apply { apply, peer, reply } => {
                let _ = reply.send(self.apply(apply, &format!("lb apply by {peer}")));
            }
            Change::Confirm { peer, reply } => {
                let _ = reply.send(self.confirm(&format!("lb confirm by {peer}")));
            }
            Change::Rollback { rollback, peer, reply } => {
                let _ = reply.send(self.rollback(&rollback, &format!("lb rollback by {peer}")));
            }
            Change::Drain { service, backend, peer, reply } => {
                let _ = reply.send(self.drain(&service, &backend, &peer));
            }
            Change::Drained { service, backend, reply } => {
                let _ = reply.send(self.drained(&service, &backend));
            }
            Change::Set { setting, peer, reply } => {
                let _ = reply.send(self.set(setting, &peer));
            }
            Change::Unset { unset, peer, reply } => {
                let _ = reply.send(self.unset(&unset, &peer));
            }
            Change::Save { save, peer, reply } => {
                let _ = reply.send(self.save(save, &format!("lb save by {peer}")));
            }
            Change::Revisions(reply) => {
                let revisions = self.revisions.records().iter();
                let revisions = revisions.map(|record| self.revision(record)).collect();
                let _ = reply.send(Ok(Revisions { revisions }));
            }
            Change::Revision { number, reply } => {
                let _ = reply.send(self.revision_text(number));
            }
        }
    }

    fn apply(&mut self, apply: Apply, cause: &str) -> Result<Applied, Failure> {
        self.refuse_during_trial()?;
        if apply.confirm_seconds.is_none() {
            self.refuse_if_shared()?;
        }
        let source = Source { path: apply.path.into(), text: apply.text };
        self.put_in_force(&source, cause, apply.confirm_seconds)
    }

    fn rollback(&mut self, rollback: &Rollback, cause: &str) -> Result<Applied, Failure> {
        if let Some(trial) = &self.state.trial
            && rollback.revision.is_none_or(|number| number == trial.back_to)
        {
            let changes = self.end_trial(cause).map_err(refused)?;
            return Ok(Applied { revision: self.state.revision, changes, trial: None });
        }
        self.refuse_during_trial()?;
        if rollback.confirm_seconds.is_none() {
            self.refuse_if_shared()?;
        }
        let number = match rollback.revision {
            Some(number) => self.known_revision(number)?.number,
            None => match self.revisions.before(self.state.revision) {
                Some(record) => record.number,
                None => {
                    let error = "there is no earlier revision to go back to; `lb history` shows what there is";
                    return Err(Failure::new(FailureKind::Conflict, error));
                }
            },
        };
        let text = self.text_of(number)?;
        let source = Source { path: format!("revision {number}").into(), text };
        let cause = format!("{cause}, to revision {number}");
        self.put_in_force(&source, &cause, rollback.confirm_seconds)
    }

    pub(super) fn refuse_during_trial(&self) -> Result<(), Failure> {
        let Some(trial) = self.trial() else { return Ok(()) };
        let error = format!(
            "revision {} is on trial for {} s more: first `lb confirm` or `lb rollback`",
            trial.revision, trial.seconds_left
        );
        Err(Failure::new(FailureKind::Conflict, error))
    }

    /// Makes a text true, and the file's, unless it is for a trial. If anything fails, everything is as before.
    pub(super) fn put_in_force(
        &mut self,
        source: &Source,
        cause: &str,
        confirm_seconds: Option<u64>,
    ) -> Result<Applied, Failure> {
        if confirm_seconds.is_some_and(|seconds| !(1..=LONGEST_TRIAL).contains(&seconds)) {
            let error = format!("a trial takes 1 to {LONGEST_TRIAL} seconds");
            return Err(Failure::new(FailureKind::Invalid, error));
        }
        let parsed = self.understand(source).map_err(|errors| refused(errors.into()))?;
        self.check_host(&parsed).map_err(refused)?;
        for warning in &parsed.warnings {
            tracing::warn!("{warning}");
        }
        let prepared = match confirm_seconds {
            None => {
                let prepared = self.prepare_file(&source.text)?;
                self.keep_replaced(&source.text, cause);
                Some(prepared)
            }
            Some(_) => None,
        };
        let before = Before {
            revision: self.state.revision,
            text: self.state.config_text.clone(),
            config_error: self.config_error.clone(),
        };
        let result = self.apply_config(parsed.config, source.text.clone(), cause);
        match &result {
            Ok(changes) if changes.is_empty() => self.measures.unchanged += 1,
            Ok(_) => self.measures.applied += 1,
            Err(_) => self.measures.refused += 1,
        }
        let changes = match result {
            Ok(changes) => changes,
            Err(error) => {
                self.go_back(before);
                return Err(refused(error));
            }
        };
        match prepared {
            Some(prepared) => {
                if let Err(error) = self.commit_file(prepared, &source.text) {
                    self.go_back(before);
                    return Err(error);
                }
            }
            None if source.text != before.text => {
                self.begin_trial(before, confirm_seconds.unwrap_or_default())
            }
            None => {}
        }
        self.note_applied(&changes, cause);
        Ok(Applied { revision: self.state.revision, changes, trial: self.trial() })
    }

    fn begin_trial(&mut self, before: Before, seconds: u64) {
        let file = std::fs::read_to_string(&self.options.config).unwrap_or_default();
        self.state.trial = Some(Trial {
            ends: boot_seconds() + seconds,
            boot: boot(),
            back_to: before.revision,
            text: before.text,
            file_hash: hash(&file),
        });
    }

    fn confirm(&mut self, cause: &str) -> Result<Done, Failure> {
        if self.state.trial.is_none() {
            let error = "nothing is on trial: `lb apply FILE --confirm 60s` begins a trial, and `lb history` shows how the last one ended";
            return Err(Failure::new(FailureKind::Conflict, error));
        }
        self.refuse_if_shared()?;
        let text = self.state.config_text.clone();
        let prepared = self.prepare_file(&text)?;
        self.keep_replaced(&text, cause);
        self.commit_file(prepared, &text)?;
        self.state.trial = None;
        let line = format!(
            "revision {} is confirmed, and in {}",
            self.state.revision,
            self.options.config.display()
        );
        self.log.add(Happened::to_node(Kind::ConfigConfirmed, line.clone(), cause));
        self.save_state();
        Ok(Done { changes: vec![line] })
    }

    /// What was in force before the trial is so again.
    fn end_trial(&mut self, cause: &str) -> Result<Vec<String>, ReloadError> {
        let Some(trial) = self.state.trial.take() else { return Ok(Vec::new()) };
        let given_up = self.state.revision;
        let source = Source { path: self.options.config.clone(), text: trial.text.clone() };
        let result = self.understand(&source).map_err(ReloadError::from).and_then(|parsed| {
            let cause = format!("{cause}: back from revision {given_up} to {}", trial.back_to);
            self.apply_config(parsed.config, source.text, &cause)
        });
        match &result {
            Ok(changes) => {
                let mut text = format!(
                    "revision {given_up} is given up; that of revision {} is in force again",
                    trial.back_to
                );
                for change in changes.iter().take(SUMMARY) {
                    text.push_str("; ");
                    text.push_str(change);
                }
                self.log.add(Happened::to_node(Kind::ConfigRolledBack, text, cause));
            }
            Err(error) => {
                let text =
                    format!("what was in force before the trial cannot be so again: {error}");
                self.log.add(Happened::to_node(Kind::ConfigRefused, text, cause));
                self.state.trial = Some(trial);
            }
        }
        self.save_state();
        result
    }

    /// Ends a trial whose time is over.
    pub(super) fn mind_trial(&mut self) {
        let over = self.state.trial.as_ref().is_some_and(|trial| trial.seconds_left() == 0);
        if over && self.trial_again.is_none_or(|at| at <= Instant::now()) {
            let result = self.end_trial("it was not confirmed in time");
            self.trial_again = result.is_err().then(|| Instant::now() + AGAIN);
        }
    }

    /// The file is in force: nothing is on trial any more.
    pub(super) fn file_decides(&mut self, cause: &str) {
        if self.state.trial.take().is_some() {
            let text = "the trial has ended: the file is in force";
            self.log.add(Happened::to_node(Kind::ConfigRolledBack, text, cause));
        }
    }

    /// Whether this text of the file is no news: lb has written it itself, or it was there when the trial began.
    pub(super) fn file_is_no_news(&self, text: &str) -> bool {
        let trial = self.state.trial.as_ref();
        self.is_own_text(text) || trial.is_some_and(|trial| trial.file_hash == hash(text))
    }

    /// Whether lb has written this text itself.
    pub(super) fn is_own_text(&self, text: &str) -> bool {
        self.own_file.as_ref() == Some(&hash(text))
    }

    /// The trial, for people.
    pub(super) fn trial(&self) -> Option<TrialShown> {
        let trial = self.state.trial.as_ref()?;
        Some(TrialShown {
            revision: self.state.revision,
            back_to: trial.back_to,
            seconds_left: trial.seconds_left(),
        })
    }

    /// Whatever was done of another configuration is undone.
    fn go_back(&mut self, before: Before) {
        self.config_error = before.config_error;
        self.state.revision = before.revision;
        let source = Source { path: self.options.config.clone(), text: before.text };
        let result = self.understand(&source).map_err(ReloadError::from).and_then(|parsed| {
            self.apply_config(parsed.config, source.text, "an apply has failed")
        });
        if let Err(error) = result {
            let text = format!("what was in force before cannot be so again: {error}");
            self.log.add(Happened::to_node(Kind::ConfigRefused, text, "an apply has failed"));
        }
        self.save_state();
    }

    /// What can fail about the file, before anything is changed.
    pub(super) fn prepare_file(&self, text: &str) -> Result<Prepared, Failure> {
        let path = &self.options.config;
        Prepared::new(path, text).map_err(|error| unwritable(path, &error))
    }

    /// Puts a text that is in force into the file.
    pub(super) fn commit_file(&mut self, prepared: Prepared, text: &str) -> Result<(), Failure> {
        prepared.commit().map_err(|error| unwritable(&self.options.config, &error))?;
        self.own_file = Some(hash(text));
        self.config_error = None;
        Ok(())
    }

    /// An edit of the file that never was in force is not lost when the file is replaced.
    pub(super) fn keep_replaced(&mut self, text: &str, cause: &str) {
        let Ok(file) = std::fs::read_to_string(&self.options.config) else { return };
        let digest = hash(&file);
        let known = self.revisions.records().iter().any(|record| record.hash == digest);
        if known || file == text || file == self.state.config_text {
            return;
        }
        let record = Record {
            number: self.next_revision(),
            cause: format!("was in the file, never in force, and was replaced: {cause}"),
            replaced: true,
            ..Record::default()
        };
        self.remember(record, &file);
    }

    /// The number of the next configuration.
    pub(super) fn next_revision(&self) -> u64 {
        self.revisions.last().max(self.state.revision) + 1
    }

    /// Number of the last configuration that was in force, if it had this text.
    pub(super) fn same_revision(&self, text: &str) -> Option<u64> {
        let last = self.revisions.records().iter().rev().find(|record| !record.replaced)?;
        (last.hash == hash(text)).then_some(last.number)
    }

    /// Writes a configuration that is in force into the history, if it is not there.
    pub(super) fn remember_applied(&mut self, text: &str, changes: &[String], cause: &str) {
        if self.revisions.record(self.state.revision).is_some() {
            return;
        }
        let summary = match changes {
            [] => vec!["nothing but the text: comments, order or notation".to_owned()],
            _ => changes.iter().take(SUMMARY).cloned().collect(),
        };
        let number = self.state.revision;
        let record = Record { number, cause: cause.to_owned(), summary, ..Record::default() };
        self.remember(record, text);
    }

    fn remember(&mut self, record: Record, text: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let record = Record {
            unix_milliseconds: now.unwrap_or_default().as_millis() as u64,
            hash: hash(text),
            bytes: text.len() as u64,
            ..record
        };
        self.history_problem = self.revisions.add(record, text).err().map(|error| {
            let text = format!(
                "the history in {} cannot be written: {error}; `lb rollback` cannot go back to revision {}",
                self.options.state_dir.display(),
                self.state.revision
            );
            tracing::error!("{text}");
            text
        });
    }

    fn revision(&self, record: &Record) -> Revision {
        let state = if record.replaced {
            "replaced"
        } else if record.number != self.state.revision {
            "past"
        } else if self.state.trial.is_some() {
            "trial"
        } else {
            "in_force"
        };
        Revision {
            number: record.number,
            unix_milliseconds: record.unix_milliseconds,
            cause: record.cause.clone(),
            hash: record.hash.clone(),
            bytes: record.bytes,
            summary: record.summary.clone(),
            state: state.to_owned(),
        }
    }

    fn revision_text(&self, number: Option<u64>) -> Result<RevisionText, Failure> {
        if let Some(number) = number {
            let revision = self.revision(self.known_revision(number)?);
            return Ok(RevisionText { revision, text: self.text_of(number)? });
        }
        let text = self.state.config_text.clone();
        let revision = match self.revisions.record(self.state.revision) {
            Some(record) => self.revision(record),
            None => Revision {
                number: self.state.revision,
                hash: hash(&text),
                bytes: text.len() as u64,
                state: "in_force".to_owned(),
                ..Revision::default()
            },
        };
        Ok(RevisionText { revision, text })
    }

    fn known_revision(&self, number: u64) -> Result<&Record, Failure> {
        let records = self.revisions.records();
        self.revisions.record(number).ok_or_else(|| {
            let known: Vec<String> =
                records.iter().rev().map(|record| record.number.to_string()).collect();
            Failure::unknown("revision", &number.to_string(), known.iter().map(String::as_str))
        })
    }

    fn text_of(&self, number: u64) -> Result<String, Failure> {
        self.revisions.text(number).map_err(|error| {
            let error = format!("the text of revision {number} cannot be read: {error}");
            Failure::new(FailureKind::Internal, error)
        })
    }

    /// Reads and checks a text as it would be in force.
    pub(super) fn understand(&self, source: &Source) -> Result<Parsed, crate::config::Errors> {
        let parsed = crate::config::parse(source)?.with_prefix_files()?;
        super::settings::overlay(parsed, &self.state.settings)
    }
}

/// What an apply starts from.
struct Before {
    revision: u64,
    text: String,
    config_error: Option<String>,
}

pub(super) fn refused(error: ReloadError) -> Failure {
    Failure::new(FailureKind::Configuration, error.to_string())
}

fn unwritable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    let error = format!(
        "{} cannot be replaced: {error}; nothing has changed. `--confirm` tries a configuration without touching the file",
        path.display()
    );
    Failure::new(FailureKind::Internal, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_ends_by_its_time_by_the_file_and_by_a_reboot() {
        let trial = Trial {
            ends: boot_seconds() + 100,
            boot: boot(),
            back_to: 1,
            text: "old".into(),
            file_hash: hash("old"),
        };
        assert_eq!(trial.ended(Some("old")), None);
        assert_eq!(trial.ended(None), None, "a file that cannot be read says nothing");
        assert!(trial.ended(Some("edited")).unwrap().contains("the file was changed"));
        let over = Trial { ends: boot_seconds(), ..trial.clone() };
        assert!(over.ended(Some("old")).unwrap().contains("not confirmed"));
        let rebooted = Trial { boot: "another".into(), ..trial };
        assert!(rebooted.ended(Some("old")).is_some());
    }
}
