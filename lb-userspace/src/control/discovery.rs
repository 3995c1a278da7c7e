//! Backends by DNS names and from directories: the controller's side. What was found last is kept here, and outlives the
//! daemon; what comes of it goes the way of every configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Event, Node, loaded::ListenKey, monotonic_milliseconds};
use crate::{
    config::model::{self, Config, Origin},
    discovery::{
        Answers, Directory, Expanded, Found, Question, expand,
        expand::question,
        files::News,
        questions,
        resolver::{Heard, Resolver},
        watch::{Seen, Watch, scan},
    },
    events::{Happened, Kind},
};

/// Changes, or causes, that one event tells.
const TOLD: usize = 10;

/// What outlives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The last good answers.
    answers: Vec<(Question, BTreeSet<Found>)>,
    /// The last good texts of files, by directory.
    files: BTreeMap<PathBuf, BTreeMap<PathBuf, String>>,
    /// Backends that stay until the names of their service have been resolved; the service as `address:port/protocol`.
    held: BTreeSet<(String, SocketAddr)>,
}

/// What is known.
pub(super) struct Discovery {
    /// The configuration in force, with its templates.
    templates: Option<Config>,
    answers: Answers,
    failing: BTreeMap<Question, Failing>,
    directories: BTreeMap<PathBuf, Directory>,
    held: BTreeSet<(String, SocketAddr)>,
    /// What was found and is not used.
    problems: Vec<String>,
    /// Why what was found is not in force.
    refused: Option<String>,
    /// What has been found since it was last applied.
    news: Vec<String>,
    resolver: Resolver,
    watch: Watch,
}

struct Failing {
    error: String,
    since: Instant,
}

impl Discovery {
    pub(super) fn new(kept: &Kept, events: &mpsc::UnboundedSender<Event>) -> Self {
        let (heard, mut answers) = mpsc::unbounded_channel();
        let forward = events.clone();
        tokio::spawn(async move {
            while let Some(heard) = answers.recv().await {
                if forward.send(Event::Heard(Box::new(heard))).is_err() {
                    return;
                }
            }
        });
        let (seen, mut scans) = mpsc::unbounded_channel();
        let forward = events.clone();
        tokio::spawn(async move {
            while let Some(seen) = scans.recv().await {
                if forward.send(Event::Seen(Box::new(seen))).is_err() {
                    return;
                }
            }
        });
        let restored = |(path, texts): (&PathBuf, &_)| (path.clone(), Directory::restore(texts));
        Self {
            templates: None,
            answers: kept.answers.iter().cloned().collect(),
            failing: BTreeMap::new(),
            directories: kept.files.iter().map(restored).collect(),
            held: kept.held.clone(),
            problems: Vec::new(),
            refused: None,
            news: Vec::new(),
            resolver: Resolver::new(heard),
            watch: Watch::new(seen),
        }
    }

    fn kept(&self) -> Kept {
        let texts = |(path, known): (&PathBuf, &Directory)| (path.clone(), known.texts());
        Kept {
            answers: self
                .answers
                .iter()
                .map(|(asked, found)| (asked.clone(), found.clone()))
                .collect(),
            files: self.directories.iter().map(texts).collect(),
            held: self.held.clone(),
        }
    }

    /// Names and directories of all services that have any.
    fn is_used(&self) -> bool {
        self.templates
            .as_ref()
            .is_some_and(|config| config.services.iter().any(model::Service::is_discovered))
    }
}

fn directories(config: &Config) -> impl Iterator<Item = &Path> + Clone {
    let services = config.services.iter();
    services.filter_map(|service| Some(service.backends_from.as_ref()?.directory.as_path()))
}

fn now() -> Duration {
    Duration::from_millis(monotonic_milliseconds())
}

impl Node {
    /// Reads directories that are new, or were last read by a daemon before this one.
    pub(super) fn read_directories(&mut self, templates: &Config) {
        let followed = self.discovery.templates.as_ref();
        let known: BTreeSet<PathBuf> =
            followed.into_iter().flat_map(directories).map(Path::to_owned).collect();
        let new: BTreeSet<PathBuf> = directories(templates)
            .filter(|path| !known.contains(*path))
            .map(Path::to_owned)
            .collect();
        for path in new {
            let found = scan(&path);
            let news =
                self.discovery.directories.entry(path.clone()).or_default().take(&found, now());
            self.tell(&path, &news);
        }
    }

    /// A configuration with concrete backends, as far as they are known.
    pub(super) fn expanded(&self, templates: &Config) -> Expanded {
        let known = &self.discovery.directories;
        let fresh: Vec<(PathBuf, Directory)> = directories(templates)
            .filter(|path| !known.contains_key(*path))
            .map(|path| {
                let mut directory = Directory::default();
                directory.take(&scan(path), now());
                (path.to_owned(), directory)
            })
            .collect();
        let all: BTreeMap<&Path, &Directory> = known
            .iter()
            .chain(fresh.iter().map(|(path, directory)| (path, directory)))
            .map(|(path, directory)| (path.as_path(), directory))
            .collect();
        expand(templates, &self.discovery.answers, &all, |service| self.serving(service))
    }

    /// The backends that a service has now.
    fn serving(&self, service: &model::Service) -> Vec<model::Backend> {
        let key = ListenKey::of(service);
        let name = key.to_string();
        // What was held by the daemon before this one has a template's settings.
        let template = service.backends.iter().find(|backend| backend.origin.is_template());
        let mut serving: Vec<model::Backend> = Vec::new();
        if let Some(template) = template.filter(|_| !self.started) {
            let held = self.discovery.held.iter().filter(|(service, _)| *service == name);
            serving.extend(held.map(|(_, at)| model::Backend {
                name: at.to_string().replace(['[', ']'], "").replace(':', "_"),
                address: at.ip(),
                port: at.port(),
                origin: Origin::Held,
                ..model::Backend::clone(template)
            }));
        }
        let loaded = self.services.iter().find(|known| known.key == key);
        let staying = loaded.into_iter().flat_map(|known| &known.backends).filter(|b| !b.removed);
        serving.extend(staying.map(|backend| model::Backend::clone(&backend.spec)));
        serving
    }

    /// A configuration is in force: its names and directories are followed from now on.
    pub(super) fn follow_discovery(
        &mut self,
        templates: Config,
        expanded: &Config,
        problems: Vec<String>,
    ) {
        let asked = questions(&templates);
        let used: BTreeSet<&Path> = directories(&templates).collect();
        let known = &mut self.discovery;
        known.answers.retain(|question, _| asked.contains(question));
        known.failing.retain(|question, _| asked.contains(question));
        known.directories.retain(|path, _| used.contains(path.as_path()));
        known.held.clear();
        for service in &expanded.services {
            let held = service.backends.iter().filter(|one| one.origin == Origin::Held);
            let key = ListenKey::of(service).to_string();
            known.held.extend(held.map(|b| (key.clone(), SocketAddr::new(b.address, b.port))));
        }
        for problem in &problems {
            if !known.problems.contains(problem) {
                let cause = "what was found cannot be used as it is";
                self.log.add(Happened::to_node(Kind::DiscoveryFailed, problem.clone(), cause));
            }
        }
        known.problems = problems;
        known.resolver.follow(&asked, &templates.resolver, &known.answers);
        known.watch.follow(directories(&templates));
        known.templates = Some(templates);
        self.state.discovered = self.discovery.kept();
    }

    /// A name has been asked for.
    pub(super) fn name_heard(&mut self, heard: Heard) {
        let Some(templates) = &self.discovery.templates else { return };
        if !questions(templates).contains(&heard.question) {
            return; // an answer that was under way when the configuration changed
        }
        let question = heard.question;
        match heard.answer {
            Ok(found) => {
                if self.discovery.failing.remove(&question).is_some() {
                    let text = format!("{question} is resolved again");
                    self.log.add(Happened::to_node(Kind::Discovered, text, "DNS"));
                }
                if self.discovery.answers.get(&question) != Some(&found) {
                    let text = format!("{question} has {} addresses", found.len());
                    self.discovery.answers.insert(question, found);
                    self.discovery.news.push(text);
                }
            }
            Err(error) => {
                let known = self.discovery.failing.get(&question).map(|failing| &failing.error);
                if known == Some(&error) {
                    return;
                }
                let what = match self.discovery.answers.contains_key(&question) {
                    true => "its last good addresses stay",
                    false => "it has never been resolved",
                };
                let text = format!("{question} cannot be resolved: {what}");
                self.log.add(Happened::to_node(Kind::DiscoveryFailed, text, error.clone()));
                let since = self.discovery.failing.get(&question).map(|failing| failing.since);
                let since = since.unwrap_or_else(Instant::now);
                self.discovery.failing.insert(question, Failing { error, since });
                self.save_state();
            }
        }
    }

    /// A directory has been looked at.
    pub(super) fn directory_seen(&mut self, seen: &Seen) {
        let Some(directory) = self.discovery.directories.get_mut(&seen.directory) else { return };
        let news = directory.take(&seen.scan, now());
        self.tell(&seen.directory, &news);
    }

    /// Files that are gone are gone for good after a while.
    pub(super) fn mind_directories(&mut self) {
        let waiting = self.discovery.directories.iter().filter(|(_, known)| known.is_waiting());
        let waiting: Vec<PathBuf> = waiting.map(|(path, _)| path.clone()).collect();
        for directory in waiting {
            let scan = scan(&directory);
            self.directory_seen(&Seen { directory, scan });
        }
        self.apply_discovered();
    }

    fn tell(&mut self, directory: &Path, news: &News) {
        let cause = directory.display().to_string();
        for bad in &news.bad {
            let text = format!("{bad}\nwhat was last good counts");
            self.log.add(Happened::to_node(Kind::DiscoveryFailed, text, cause.clone()));
        }
        if news.changed {
            self.discovery.news.extend(news.good.iter().cloned());
        } else {
            for good in &news.good {
                self.log.add(Happened::to_node(Kind::Discovered, good.clone(), cause.clone()));
            }
        }
    }

    /// Makes true what has been found.
    pub(super) fn apply_discovered(&mut self) {
        if self.discovery.news.is_empty() || !self.started {
            return;
        }
        let mut news = std::mem::take(&mut self.discovery.news);
        let Some(templates) = self.discovery.templates.clone() else { return };
        let Expanded { config, problems } = self.expanded(&templates);
        let same = self.config.as_ref() == Some(&self.with_interfaces(config.clone()));
        if same && self.discovery.refused.is_none() {
            self.follow_discovery(templates, &config, problems);
            self.save_state();
            return;
        }
        if news.len() > TOLD {
            let more = format!("and {} more", news.len() - TOLD);
            news.truncate(TOLD);
            news.push(more);
        }
        let cause = news.join("; ");
        let text = self.state.config_text.clone();
        match self.apply_config(templates, text, &cause) {
            Ok(changes) => {
                self.discovery.refused = None;
                self.measures.applied += 1;
                let mut told: Vec<String> = changes.iter().take(TOLD).cloned().collect();
                if changes.len() > TOLD {
                    told.push(format!("and {} more changes", changes.len() - TOLD));
                }
                let text = match told.is_empty() {
                    true => "nothing changes for services".to_owned(),
                    false => told.join("; "),
                };
                self.log.add(Happened::to_node(Kind::Discovered, text, cause));
            }
            Err(error) => {
                let text = format!("what has been found is not in force: {error}");
                self.log.add(Happened::to_node(Kind::DiscoveryFailed, text.clone(), cause));
                self.discovery.refused = Some(text);
                self.measures.refused += 1;
            }
        }
        self.save_state();
    }

    /// What needs attention.
    pub(super) fn discovery_warnings(&self) -> Vec<String> {
        let known = &self.discovery;
        let Some(templates) = known.templates.as_ref().filter(|_| known.is_used()) else {
            return Vec::new();
        };
        let mut warnings: Vec<String> = known.refused.iter().cloned().collect();
        for service in &templates.services {
            for template in &service.backends {
                let Some(question) = question(service, template) else { continue };
                let Some(failing) = known.failing.get(&question) else { continue };
                warnings.push(format!(
                    "{}/{}: {question} has not been resolved for {} s: {}; {}; see the name, and the servers in {}",
                    service.name,
                    template.name,
                    failing.since.elapsed().as_secs(),
                    failing.error,
                    match known.answers.get(&question) {
                        Some(found) => format!("its last {} addresses stay in force", found.len()),
                        None => "it has no addresses until it is".to_owned(),
                    },
                    templates.resolver.resolv_conf.display(),
                ));
            }
        }
        for (path, directory) in &known.directories {
            warnings.extend(directory.problems(path));
        }
        warnings.extend(known.problems.iter().cloned());
        warnings
    }

    /// What `lb plan` cannot foresee of a configuration.
    pub(super) fn unforeseen(&self, templates: &Config) -> Vec<String> {
        let unknown = questions(templates).into_iter();
        unknown
            .filter(|question| !self.discovery.answers.contains_key(question))
            .map(|question| format!(
                "{question} has not been resolved yet: its addresses come on top, and until then no backend of its service goes"
            ))
            .collect()
    }

    /// The template of this name, if it is one.
    pub(super) fn template(&self, service: &str, name: &str) -> Option<&model::Backend> {
        let services = &self.discovery.templates.as_ref()?.services;
        let service = services.iter().find(|known| known.name == service)?;
        let mut backends = service.backends.iter().map(AsRef::as_ref);
        backends.find(|one: &&model::Backend| one.name == name && one.origin.is_template())
    }
}

/// Where a backend comes from, for people; `None` = from the configuration file, by its address.
pub(super) fn origin_text(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Written => None,
        Origin::Name(name) | Origin::Srv(name) => Some(name.clone()),
        Origin::Answer { template, name } => Some(format!("{template} ({name})")),
        Origin::File(path) => Some(path.display().to_string()),
        Origin::Held => Some("held until all names are resolved".to_owned()),
    }
}
