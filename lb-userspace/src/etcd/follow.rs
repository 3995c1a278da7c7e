//! The task that follows the configuration and keeps the node's report there, with one member of etcd at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc, watch as watching},
    task::AbortHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Location,
    client::{Client, Error, Watch},
    gateway::Entry,
    location::Endpoint,
};

/// A report is gone so long after its node was last heard of, seconds.
const LEASE: u64 = 20;
/// From one sign of life to the next. What the watch should have told is asked for then, too.
const BEAT: Duration = Duration::from_secs(4);
/// So long nothing of another node with this one's name has to be seen before it is forgotten: it writes once in [`BEAT`].
const FORGET: Duration = Duration::from_secs(9);
/// Shortest and longest pause before the next member is tried.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// What is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A member answers.
    Connected(String),
    /// The configuration as it is now.
    Text(Entry),
    /// There is none any more.
    Gone,
    /// No member answers, and why.
    Away(String),
    /// Reports are not taken, and why.
    NoReports(String),
    /// The last report under this node's name was written by another daemon, whose text it is; or by this one for a while.
    Namesake(Option<String>),
}

/// The task. Ends when it is dropped.
#[derive(Debug)]
pub struct Follower {
    report: watching::Sender<Option<String>>,
    again: Arc<Notify>,
    task: AbortHandle,
}

impl Follower {
    /// Starts it: everything heard is sent to `heard`.
    /// `instance` is in this daemon's reports, and in those of no other.
    pub fn start(
        location: Location,
        node: &str,
        instance: &str,
        heard: mpsc::UnboundedSender<Heard>,
    ) -> Self {
        let (report, reports) = watching::channel(None);
        let again = Arc::new(Notify::new());
        let following = Following {
            report_key: location.node_key(node),
            config_key: location.config_key(),
            location,
            heard,
            reports,
            again: again.clone(),
            pause: PAUSES[0],
            instance: instance.to_owned(),
            written: false,
            namesake: None,
        };
        let task = tokio::spawn(following.for_ever()).abort_handle();
        Self { report, again, task }
    }

    /// What is to be told of this node from now on.
    pub fn report(&self, text: String) {
        self.report.send_if_modified(|known| {
            let is_news = known.as_ref() != Some(&text);
            if is_news {
                *known = Some(text);
            }
            is_news
        });
    }

    /// Asks for the configuration once more, even if nothing has changed.
    pub fn ask_again(&self) {
        self.again.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Following {
    location: Location,
    config_key: String,
    report_key: String,
    heard: mpsc::UnboundedSender<Heard>,
    reports: watching::Receiver<Option<String>>,
    again: Arc<Notify>,
    pause: Duration,
    instance: String,
    /// It has written a report: what was there before may be of a daemon of before.
    written: bool,
    /// When another node's report was found under its name.
    namesake: Option<Instant>,
}

/// How a good connection has ended.
enum End {
    /// It is wanted anew.
    Again,
    /// Nobody listens any more.
    Over,
}

impl Following {
    async fn for_ever(mut self) {
        let endpoints = self.location.endpoints.clone();
        loop {
            let mut problems = Vec::new();
            for endpoint in &endpoints {
                match self.follow(endpoint).await {
                    Ok(End::Over) => return,
                    Ok(End::Again) => {
                        problems.clear();
                        break;
                    }
                    Err(error) => problems.push(format!("{endpoint}: {error}")),
                }
            }
            if problems.is_empty() {
                continue;
            }
            if self.heard.send(Heard::Away(problems.join("; "))).is_err() {
                return;
            }
            // Not all nodes at once when etcd comes back.
            let pause = self.pause.mul_f64(rand::random_range(0.5..1.0));
            self.pause = (self.pause * 2).min(PAUSES[1]);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.again.notified() => {}
            }
        }
    }

    /// With one member, until something is wrong with it.
    async fn follow(&mut self, endpoint: &Endpoint) -> Result<End, Error> {
        let mut client = Client::connect(&self.location, endpoint).await?;
        let (now, found) = client.get(&self.config_key).await?;
        let watch = Client::connect(&self.location, endpoint).await?;
        let mut watch = watch.watch(&self.config_key, now + 1).await?;
        self.pause = PAUSES[0];
        let mut known = found.as_ref().map_or(0, |entry| entry.revision);
        if !self.say(Heard::Connected(endpoint.to_string())) || !self.say_found(found) {
            return Ok(End::Over);
        }
        let mut lease = self.begin_reports(&mut client).await?;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        loop {
            match self.wait(&mut watch, &mut beat).await? {
                Next::Watched(None) => {}
                Next::Watched(Some(found)) => {
                    known = found.as_ref().map_or(0, |entry| entry.revision);
                    if !self.say_found(found) {
                        return Ok(End::Over);
                    }
                }
                Next::Report => {
                    if let Some(id) = &lease {
                        self.look_for_namesake(&mut client).await?;
                        self.send_report(&mut client, id).await?;
                    }
                }
                Next::Beat => {
                    match &lease {
                        Some(id) => {
                            client.keep_alive(id).await?;
                            if self.look_for_namesake(&mut client).await? {
                                // So that the other one finds out, too.
                                self.send_report(&mut client, id).await?;
                            }
                        }
                        None => lease = self.begin_reports(&mut client).await?,
                    }
                    if client.revision_of(&self.config_key).await? > known {
                        // Or is just about to come: asking anew costs nothing.
                        return Ok(End::Again);
                    }
                }
                Next::Again => return Ok(End::Again),
                Next::Over => return Ok(End::Over),
            }
        }
    }

    async fn wait(&mut self, watch: &mut Watch, beat: &mut Interval) -> Result<Next, Error> {
        tokio::select! {
            told = watch.next() => Ok(Next::Watched(told?.last()?)),
            changed = self.reports.changed() => {
                Ok(if changed.is_ok() { Next::Report } else { Next::Over })
            }
            () = self.again.notified() => Ok(Next::Again),
            _ = beat.tick() => Ok(Next::Beat),
        }
    }

    /// A lease, with the report as it is now; none where etcd does not take it (no permission, no room), which is no reason not to follow.
    async fn begin_reports(&mut self, client: &mut Client) -> Result<Option<String>, Error> {
        let begun = async {
            let lease = client.grant(LEASE).await?;
            self.send_report(client, &lease).await?;
            Ok::<_, Error>(lease)
        };
        match begun.await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.is_final() => {
                self.say(Heard::NoReports(error.to_string()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn send_report(&mut self, client: &mut Client, lease: &str) -> Result<(), Error> {
        let report = self.reports.borrow_and_update().clone();
        if let Some(report) = report {
            client.put(&self.report_key, &report, lease).await?;
            self.written = true;
        }
        Ok(())
    }

    /// Whoever has written the key since this daemon did has its name: a daemon of before wrote earlier.
    async fn look_for_namesake(&mut self, client: &mut Client) -> Result<bool, Error> {
        if !self.written {
            return Ok(false);
        }
        let text = client.get(&self.report_key).await?.1.map(|entry| entry.text);
        let found = text.filter(|text| is_of_another(text, &self.instance));
        let is_found = found.is_some();
        if is_found {
            self.namesake = Some(Instant::now());
            self.say(Heard::Namesake(found));
        } else if self.namesake.is_some_and(|seen| seen.elapsed() >= FORGET) {
            self.namesake = None;
            self.say(Heard::Namesake(None));
        }
        Ok(is_found)
    }

    fn say_found(&self, found: Option<Entry>) -> bool {
        self.say(found.map_or(Heard::Gone, Heard::Text))
    }

    /// False = nobody listens.
    fn say(&self, heard: Heard) -> bool {
        self.heard.send(heard).is_ok()
    }
}

/// What comes next.
enum Next {
    Watched(Option<Option<Entry>>),
    Report,
    Beat,
    Again,
    Over,
}

/// Whether another daemon has written this report. One that does not say who has written it may be of an older version, and of this node.
fn is_of_another(report: &str, instance: &str) -> bool {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    report["instance"].as_str().is_some_and(|other| !other.is_empty() && other != instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_this_daemon_or_of_nobody_is_no_namesakes() {
        assert!(is_of_another(r#"{"instance": "b"}"#, "a"));
        for own in [r#"{"instance": "a"}"#, r#"{"instance": ""}"#, "{}", "no report", "3"] {
            assert!(!is_of_another(own, "a"), "{own}");
        }
    }
}
