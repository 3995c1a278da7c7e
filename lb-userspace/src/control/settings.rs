//! `lb set`, `lb unset`, `lb save`: values beside the file.
//!
//! What is set is laid over the file's text by the same edits that `lb save` makes in it, and read like any file: every
//! rule of the configuration holds, and what is saved means what was in force. What was set for a service or backend that
//! the text does not have (any more) waits until it is back. Weights are `lb weight`'s.

use std::net::SocketAddr;

use super::{Node, change::refused, discovery::origin_text, loaded::Backend, reload::ReloadError};
use crate::{
    api::{
        peer::Peer,
        types::{Done, Failure, FailureKind, Save, Saved, SetBackend, Setting, Unset},
    },
    cluster::message::Target,
    config::{
        Diagnostic, Errors, Parsed, Source,
        edit::{self, Edit},
        model::Origin,
        parse,
    },
    events::{Happened, Kind},
};

/// Target of what belongs to no service.
pub(super) const GLOBAL: &str = "global";
/// Most settings at a time.
const MOST: usize = 1_000;
/// Keys that make something else of their service or backend, or are read at the start only.
const FIXED: [(&str, &str); 6] = [
    ("name", "another name is another service or backend: use `lb apply`"),
    ("listen", "another listener is another service: use `lb apply`"),
    ("backends", "backends come and go by `lb apply`"),
    ("services", "services come and go by `lb apply`"),
    ("limits", "sizes of tables are fixed while lb is attached"),
    ("socket_group", "it is read when the daemon starts"),
];

/// The configuration with everything that is set beside it.
pub(super) fn overlay(file: Parsed, settings: &[Setting]) -> Result<Parsed, Errors> {
    let source = file.source();
    let edits: Vec<Edit> =
        settings.iter().filter(|one| is_there(&source.text, one)).map(edit_of).collect();
    if edits.is_empty() {
        return Ok(file);
    }
    let text = match edit::edit(&source.text, &edits) {
        Ok(text) => text,
        Err(error) => {
            let said = settings.iter().map(shown).collect::<Vec<_>>().join(", ");
            let message = format!("what `lb set` has set cannot be laid over the file: {error}");
            let help = format!("`lb unset` what is in the way of {said}");
            return Err(Errors::new(source.clone(), vec![Diagnostic::of_file(message, help)]));
        }
    };
    let path = format!("{} (with what `lb set` has set)", source.path.display());
    parse(&Source { path: path.into(), text })?.with_prefix_files()
}

fn edit_of(setting: &Setting) -> Edit {
    let (service, backend) = names(&setting.target);
    Edit::new(service, backend, &setting.key, setting.value.clone())
}

fn names(target: &str) -> (Option<&str>, Option<&str>) {
    match target.split_once('/') {
        Some((service, backend)) => (Some(service), Some(backend)),
        None if target == GLOBAL => (None, None),
        None => (Some(target), None),
    }
}

fn is_there(text: &str, setting: &Setting) -> bool {
    match names(&setting.target) {
        (Some(service), backend) => edit::has(text, service, backend),
        (None, _) => true,
    }
}

/// `web/web1 rise=3`
fn shown(setting: &Setting) -> String {
    let Setting { target, key, value } = setting;
    format!("{target} {key}={value}")
}

/// The key as the YAML has it: HAProxy's `addr` and hyphens are understood.
fn key_of(key: &str) -> String {
    let key = key.trim().replace('-', "_");
    if key == "addr" { "address".to_owned() } else { key }
}

impl Node {
    pub(super) fn set(&mut self, setting: Setting, peer: &Peer) -> Result<Done, Failure> {
        let setting = Setting {
            key: key_of(&setting.key),
            value: edit::value(&setting.value),
            target: setting.target,
        };
        self.check_target(&setting.target)?;
        let outer = setting.key.split('.').next().unwrap_or_default();
        if let Some((key, why)) = FIXED.iter().find(|(key, _)| *key == outer) {
            let error = format!("`{key}` cannot be set while lb runs: {why}");
            return Err(Failure::new(FailureKind::Invalid, error));
        }
        let (service, backend) = names(&setting.target);
        if let (Some(service), Some(backend), "weight") = (service, backend, outer)
            && self.template(service, backend).is_none()
        {
            let weight = setting
                .value
                .parse()
                .map_err(|_| Failure::new(FailureKind::Invalid, "a weight is a number, 0..256"))?;
            let set = SetBackend { admin: None, weight: Some(weight) };
            return self.set_backend(service, backend, &set, peer);
        }
        let line = shown(&setting);
        let mut settings = self.state.settings.clone();
        settings.retain(|one| (&one.target, &one.key) != (&setting.target, &setting.key));
        settings.push(setting);
        if settings.len() > MOST {
            let error =
                format!("{MOST} values are set already: `lb save` writes them into the file");
            return Err(Failure::new(FailureKind::Conflict, error));
        }
        self.change_settings(settings, &line, &format!("lb set by {peer}"))
    }

    pub(super) fn unset(&mut self, unset: &Unset, peer: &Peer) -> Result<Done, Failure> {
        let key = unset.key.as_deref().map(key_of);
        let meant = |one: &Setting| {
            one.target == unset.target && key.as_ref().is_none_or(|key| *key == one.key)
        };
        let cause = format!("lb unset by {peer}");
        let mut changes = Vec::new();
        if key.as_deref().is_none_or(|key| key == "weight") {
            changes.extend(self.unset_weight(&unset.target, &cause)?);
        }
        let (gone, kept): (Vec<Setting>, Vec<Setting>) =
            self.state.settings.iter().cloned().partition(meant);
        if gone.is_empty() && changes.is_empty() {
            let known: Vec<String> = self.state.settings.iter().map(shown).collect();
            let what = format!("{} {}", unset.target, key.unwrap_or_default());
            let known = known.iter().map(String::as_str);
            return Err(Failure::unknown("setting", what.trim(), known));
        }
        if !gone.is_empty() {
            let line = gone.iter().map(shown).collect::<Vec<_>>().join(", ");
            let done = self.change_settings(kept, &format!("{line} is no more"), &cause)?;
            changes.extend(done.changes);
        }
        Ok(Done { changes })
    }

    pub(super) fn unset_weight(
        &mut self,
        target: &str,
        cause: &str,
    ) -> Result<Option<String>, Failure> {
        let (Some(service), Some(backend)) = names(target) else { return Ok(None) };
        let Some(index) = self.services.iter().position(|one| one.spec.name == service) else {
            return Ok(None);
        };
        let backends = &mut self.services[index].backends;
        let found = backends.iter().position(|one| one.spec.name == backend && !one.removed);
        let Some(number) = found else { return Ok(None) };
        let Some(weight) = backends[number].weight.take() else { return Ok(None) };
        let line = format!("{target} weight={weight} is no more");
        self.reconcile(index).map_err(super::commands::failure)?;
        let happened = Happened::to_node(Kind::Weight, line.clone(), cause);
        self.log.add(happened.to_backend(service, backend));
        self.record_backend(index, number);
        let backend = &self.services[index].backends[number];
        let address = SocketAddr::new(backend.spec.address, backend.spec.port);
        let target = Target::Weight(self.services[index].key.into(), address);
        self.note_set(target, None);
        Ok(Some(line))
    }

    fn check_target(&self, target: &str) -> Result<(), Failure> {
        let (Some(service), backend) = names(target) else { return Ok(()) };
        let Some(known) = self.services.iter().find(|one| one.spec.name == service) else {
            let known = self.services.iter().map(|one| one.spec.name.as_str());
            return Err(Failure::unknown("service", service, known.chain([GLOBAL])));
        };
        let in_file = || {
            let of_file = |one: &&Backend| !one.removed && one.spec.origin == Origin::Written;
            known.backends.iter().filter(of_file)
        };
        let found = |name: &str| known.backends.iter().find(|one| one.spec.name == name);
        let Some(name) = backend else { return Ok(()) };
        if self.template(service, name).is_some() {
            return Ok(());
        }
        match found(name).map(|one| origin_text(&one.spec.origin)) {
            Some(Some(from)) => {
                let error = format!(
                    "`{target}` comes from {from}: set what it has there, or for its template; `lb weight` and `lb drain` work for it alone"
                );
                Err(Failure::new(FailureKind::Invalid, error))
            }
            _ if in_file().any(|one| one.spec.name == name) => Ok(()),
            _ => {
                Err(Failure::unknown("backend", name, in_file().map(|one| one.spec.name.as_str())))
            }
        }
    }

    /// Lays other settings over the text in force. If that cannot be, everything is as before.
    fn change_settings(
        &mut self,
        settings: Vec<Setting>,
        line: &str,
        cause: &str,
    ) -> Result<Done, Failure> {
        let before = std::mem::replace(&mut self.state.settings, settings);
        let result = self.apply_settings(cause);
        let changes = match result {
            Ok(changes) => changes,
            Err(error) => {
                self.state.settings = before;
                if let Err(error) = self.apply_settings(cause) {
                    tracing::error!(%error, "what was in force before a refused `lb set` cannot be so again");
                }
                return Err(refused(error));
            }
        };
        let text = [&[line.to_owned()], changes.as_slice()].concat();
        self.log.add(Happened::to_node(Kind::Set, text.join("; "), cause));
        self.save_state();
        self.note_settings(&before);
        Ok(Done { changes: text })
    }

    fn apply_settings(&mut self, cause: &str) -> Result<Vec<String>, ReloadError> {
        let source =
            Source { path: self.options.config.clone(), text: self.state.config_text.clone() };
        let parsed = self.understand(&source)?;
        self.check_host(&parsed)?;
        self.apply_config(parsed.config, source.text, cause)
    }

    /// Writes what is set, weights included, into the file.
    pub(super) fn save(&mut self, save: Save, cause: &str) -> Result<Saved, Failure> {
        self.refuse_during_trial()?;
        let text = self.state.config_text.clone();
        let (mut edits, mut written, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let (there, waiting): (Vec<Setting>, Vec<Setting>) =
            self.state.settings.iter().cloned().partition(|one| is_there(&text, one));
        for setting in &there {
            edits.push(edit_of(setting));
            written.push(shown(setting));
        }
        left.extend(
            waiting.iter().map(|one| format!("{}: the file has no such thing", shown(one))),
        );
        for service in &self.services {
            for backend in service.backends.iter().filter(|backend| !backend.removed) {
                let (service, name) = (&service.spec.name, &backend.spec.name);
                // One that is the file's already needs no word there.
                if let Some(weight) = backend.weight.filter(|weight| *weight != backend.spec.weight)
                {
                    match origin_text(&backend.spec.origin) {
                        None => {
                            let text = weight.to_string();
                            edits.push(Edit::new(Some(service), Some(name), "weight", text));
                            written.push(format!("{service}/{name} weight={weight}"));
                        }
                        Some(from) => left.push(format!(
                            "{service}/{name} weight={weight}: it comes from {from}, and the file has no such backend"
                        )),
                    }
                }
                if backend.admin != super::state::Admin::Ready {
                    let state = backend.admin.name();
                    left.push(format!(
                        "{service}/{name} is in {state}: the file has no word for that"
                    ));
                }
            }
        }
        let edited = edit::edit(&text, &edits)
            .map_err(|error| Failure::new(FailureKind::Conflict, error.to_string()))?;
        let mut saved = Saved { before: text, text: edited, written, left, applied: None };
        if save.dry_run || edits.is_empty() {
            return Ok(saved);
        }
        self.refuse_if_shared()?;
        let before = std::mem::replace(&mut self.state.settings, waiting);
        let weights: Vec<_> = self
            .services
            .iter_mut()
            .flat_map(|service| &mut service.backends)
            .filter(|backend| !backend.removed && backend.spec.origin == Origin::Written)
            .filter_map(|backend| Some((backend.id, backend.weight.take()?)))
            .collect();
        let source = Source { path: self.options.config.clone(), text: saved.text.clone() };
        match self.put_in_force(&source, cause, None) {
            Ok(applied) => {
                saved.applied = Some(applied);
                Ok(saved)
            }
            Err(error) => {
                self.state.settings = before;
                for backend in self.services.iter_mut().flat_map(|service| &mut service.backends) {
                    if let Some((_, weight)) = weights.iter().find(|(id, _)| *id == backend.id) {
                        backend.weight = Some(*weight);
                    }
                }
                if let Err(error) = self.apply_settings(cause) {
                    tracing::error!(%error, "what was in force before a failed `lb save` cannot be so again");
                }
                self.save_state();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
services:
  - name: web
    listen: {address: 192.0.2.10, port: 80}
    forward: nat
    backends:
      - {name: web1, address: 10.0.0.11}
";

    fn file() -> Parsed {
        parse(&Source { path: "lb.yaml".into(), text: FILE.into() }).unwrap()
    }

    fn setting(target: &str, key: &str, value: &str) -> Setting {
        Setting { target: target.into(), key: key.into(), value: value.into() }
    }

    #[test]
    fn settings_are_laid_over_the_file_and_judged_like_it() {
        let rise = setting("web/web1", "rise", "7");
        let metrics = setting("global", "metrics", "\"127.0.0.1:9180\"");
        let gone = setting("web/web9", "rise", "0");
        let config = overlay(file(), &[rise.clone(), metrics, gone]).unwrap().config;
        assert_eq!(config.services[0].backends[0].timing.rise, 7);
        assert_eq!(config.metrics, Some("127.0.0.1:9180".parse().unwrap()));
        let wrong = overlay(file(), &[setting("web/web1", "raise", "7")]).unwrap_err().to_string();
        assert!(wrong.contains("unknown key `raise`") && wrong.contains("did you mean `rise`"));
        assert!(wrong.contains("lb.yaml (with what `lb set` has set):6:"), "{wrong}");
        let through = setting("web", "name.first", "x");
        let wrong = overlay(file(), &[rise, through]).unwrap_err().to_string();
        assert!(wrong.contains("`name` is not a mapping") && wrong.contains("lb unset"), "{wrong}");
    }

    #[test]
    fn haproxys_words_are_understood() {
        assert_eq!(key_of("addr"), "address");
        assert_eq!(key_of("on-all-down"), "on_all_down");
        assert_eq!(names("web/web1"), (Some("web"), Some("web1")));
        assert_eq!(names("global"), (None, None));
    }
}
