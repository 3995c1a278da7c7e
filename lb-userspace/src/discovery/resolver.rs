//! Asks DNS: one task for each question, which sends what it hears and keeps nothing but the last good answer of its own.
//!
//! Each question gets a resolver of its own, made of the `resolv.conf` as it is then: no cache and no connection is older
//! than the question, and the file needs no watching.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    ResolveError, Resolver as Client, TokioResolver,
    config::ResolveHosts,
    lookup::Lookup,
    name_server::TokioConnectionProvider,
    proto::rr::{RData, RecordType},
    system_conf::parse_resolv_conf,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

use super::{
    Answers, Found, Question,
    answers::{SrvRecord, next_attempt, next_question},
};
use crate::config::model;

/// Questions that are asked at a time.
const AT_A_TIME: usize = 32;
/// Attempts at each server.
const ATTEMPTS: usize = 2;
/// SRV records of one answer that are followed.
const MOST_TARGETS: usize = 1_000;

/// What a question has come to.
#[derive(Debug)]
pub struct Heard {
    /// The question.
    pub question: Question,
    /// Its answer, which is not empty; or why there is none.
    pub answer: Result<BTreeSet<Found>, String>,
}

/// The tasks.
#[derive(Debug)]
pub struct Resolver {
    heard: mpsc::UnboundedSender<Heard>,
    settings: Option<model::Resolver>,
    tasks: BTreeMap<Question, AbortHandle>,
    turns: Arc<Semaphore>,
}

impl Resolver {
    /// Without questions yet.
    pub fn new(heard: mpsc::UnboundedSender<Heard>) -> Self {
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        Self { heard, settings: None, tasks: BTreeMap::new(), turns }
    }

    /// Asks these questions from now on, and no others; `known` are the last good answers.
    pub fn follow(
        &mut self,
        questions: &BTreeSet<Question>,
        settings: &model::Resolver,
        known: &Answers,
    ) {
        let anew = self.settings.as_ref() != Some(settings);
        self.settings = Some(settings.clone());
        self.tasks.retain(|question, task| {
            let keep = !anew && questions.contains(question);
            if !keep {
                task.abort();
            }
            keep
        });
        for question in questions {
            if self.tasks.contains_key(question) {
                continue;
            }
            let asking = Asking {
                question: question.clone(),
                settings: settings.clone(),
                last: known.get(question).cloned().unwrap_or_default(),
                heard: self.heard.clone(),
                turns: self.turns.clone(),
            };
            let task = tokio::spawn(asking.for_ever());
            self.tasks.insert(question.clone(), task.abort_handle());
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

/// One task.
struct Asking {
    question: Question,
    settings: model::Resolver,
    /// The last good answer.
    last: BTreeSet<Found>,
    heard: mpsc::UnboundedSender<Heard>,
    turns: Arc<Semaphore>,
}

impl Asking {
    async fn for_ever(mut self) {
        let mut failures = 0;
        loop {
            let said = {
                // Fails only when the semaphore is closed, which nobody does.
                let Ok(_turn) = self.turns.acquire().await else { return };
                ask(&self.question, &self.settings, &self.last).await
            };
            let (answer, pause) = match said {
                Ok((found, ttl)) => {
                    failures = 0;
                    self.last.clone_from(&found);
                    (Ok(found), next_question(ttl, self.settings.min_ttl, self.settings.max_ttl))
                }
                Err(error) => {
                    failures += 1;
                    (Err(error), next_attempt(failures))
                }
            };
            if self.heard.send(Heard { question: self.question.clone(), answer }).is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// One answer and its time to live.
async fn ask(
    question: &Question,
    settings: &model::Resolver,
    last: &BTreeSet<Found>,
) -> Result<(BTreeSet<Found>, Duration), String> {
    let path = settings.resolv_conf.display();
    let text = tokio::fs::read(&settings.resolv_conf)
        .await
        .map_err(|error| format!("{path} cannot be read: {error}"))?;
    let client = client(&text, settings.timeout).map_err(|error| format!("{path}: {error}"))?;
    let (found, ttl) = match question.srv {
        false => {
            let (addresses, ttl) = addresses(&client, &question.name, question).await?;
            let found = |address| Found { address, record: None };
            (addresses.into_iter().map(found).collect(), ttl)
        }
        true => services(&client, question, last).await?,
    };
    match found.is_empty() {
        true => Err("the answer has no address".to_owned()),
        false => Ok((found, ttl)),
    }
}

/// Made of the text of a `resolv.conf`.
fn client(text: &[u8], timeout: Duration) -> Result<TokioResolver, String> {
    let named = |line: &str| line.trim_start().starts_with("nameserver");
    if !String::from_utf8_lossy(text).lines().any(named) {
        return Err("it names no server: add a line such as `nameserver 192.0.2.53`".to_owned());
    }
    let (config, mut options) = parse_resolv_conf(text).map_err(|error| error.to_string())?;
    options.timeout = timeout;
    options.attempts = ATTEMPTS;
    // Answers are kept by those who ask, with bounds on their time to live.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let mut builder = Client::builder_with_config(config, TokioConnectionProvider::default());
    *builder.options_mut() = options;
    Ok(builder.build())
}

/// All addresses of a name, of the families that are of use.
async fn addresses(
    client: &TokioResolver,
    name: &str,
    question: &Question,
) -> Result<(BTreeSet<IpAddr>, Duration), String> {
    let lookup = move |wanted: bool, kind| async move {
        match wanted {
            true => Some(client.lookup(name, kind).await),
            false => None,
        }
    };
    let (v4, v6) =
        tokio::join!(lookup(question.v4, RecordType::A), lookup(question.v6, RecordType::AAAA));
    let (mut found, mut ttl) = (BTreeSet::new(), Duration::MAX);
    let mut nothing = None;
    for answer in [v4, v6].into_iter().flatten() {
        match answer {
            Ok(answer) => {
                ttl = ttl.min(time_to_live(&answer));
                found.extend(answer.record_iter().filter_map(|record| match record.data() {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                }));
            }
            // A name may have addresses of one family only; but a server that fails says nothing of either.
            Err(error) if error.is_no_records_found() => nothing = Some(said(&error)),
            Err(error) => return Err(said(&error)),
        }
    }
    match nothing {
        Some(nothing) if found.is_empty() => Err(nothing),
        _ => Ok((found, ttl)),
    }
}

/// The SRV records of a name with the addresses of their targets.
async fn services(
    client: &TokioResolver,
    question: &Question,
    last: &BTreeSet<Found>,
) -> Result<(BTreeSet<Found>, Duration), String> {
    let answer = client
        .lookup(question.name.as_str(), RecordType::SRV)
        .await
        .map_err(|error| said(&error))?;
    let mut ttl = time_to_live(&answer);
    let mut records: Vec<SrvRecord> = answer
        .record_iter()
        .filter_map(|record| match record.data() {
            // The root is "there is no such service" (RFC 2782).
            RData::SRV(srv) if !srv.target().is_root() => Some(SrvRecord {
                priority: srv.priority(),
                weight: srv.weight(),
                port: srv.port(),
                target: srv.target().to_ascii().to_ascii_lowercase(),
            }),
            _ => None,
        })
        .filter(|record| record.port != 0)
        .collect();
    records.sort();
    records.truncate(MOST_TARGETS);
    let (mut found, mut problem) = (BTreeSet::new(), None);
    for record in records {
        let resolved = match addresses(client, &record.target, question).await {
            Ok((resolved, its)) => {
                ttl = ttl.min(its);
                resolved
            }
            Err(error) => {
                // One target that does not resolve now is where it was.
                ttl = ttl.min(next_attempt(1));
                problem = Some(format!("{}: {error}", record.target));
                let same = |one: &&Found| {
                    one.record.as_ref().is_some_and(|known| known.target == record.target)
                };
                last.iter().filter(same).map(|one| one.address).collect()
            }
        };
        let with = |address| Found { address, record: Some(record.clone()) };
        found.extend(resolved.into_iter().map(with));
    }
    match problem {
        Some(problem) if found.is_empty() => Err(problem),
        problem => {
            if let Some(problem) = problem {
                tracing::warn!(
                    name = question.name,
                    problem,
                    "a target of SRV records cannot be resolved"
                );
            }
            Ok((found, ttl))
        }
    }
}

/// The shortest of an answer's records, those in between (CNAME) included.
fn time_to_live(answer: &Lookup) -> Duration {
    answer.valid_until().saturating_duration_since(Instant::now())
}

/// For people, in one line.
fn said(error: &ResolveError) -> String {
    if error.is_nx_domain() {
        return "there is no such name (NXDOMAIN)".to_owned();
    }
    if error.is_no_records_found() {
        return "the name has no such records".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_without_servers_is_an_error_that_says_so() {
        let wrong = client(b"search internal\n", Duration::from_secs(1)).map(drop).unwrap_err();
        assert!(wrong.contains("nameserver"), "{wrong}");
        assert!(client(b"nameserver not-an-address\n", Duration::from_secs(1)).is_err());
        client(
            b"search internal\nnameserver 192.0.2.53\noptions ndots:2\n",
            Duration::from_secs(1),
        )
        .unwrap();
    }
}
