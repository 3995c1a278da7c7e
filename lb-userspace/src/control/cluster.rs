//! The other nodes of the cluster: who is there, what they are told, and what becomes of what they say.
//!
//! Told at once is what changes: a service's view (its ring, and what that is made of), what was set by hand, slots that are on their
//! way, flows and clients that the tables remember. A node that connects, or for whom something found no room in its queue, is told
//! everything once more, page by page. The rules are `plan::cluster`'s; connections are `crate::cluster`'s.

mod flows;
mod overrides;
mod slots;
mod status;
mod views;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

pub use self::overrides::Override;
use self::{
    flows::Sent,
    slots::{PAGE, SlotsDue},
    views::{Mismatch, Vote},
};
use super::{Event, Node, loaded::ListenKey, reload::ReloadError};
use crate::{
    api::types::PhaseCount,
    cluster::{
        self, Cluster, LIMIT, SILENCE, Secret, Settings,
        message::{Hello, Message, ServiceKey, VERSION, View},
    },
    config::{Parsed, model},
    dataplane::Walk,
    events::{Happened, Kind},
};

/// A node with a new data plane waits so long at most for what the others know before it is ready.
const JOINING: Duration = Duration::from_secs(10);
/// From one look at what has no event to the next.
const LOOK: Duration = Duration::from_secs(1);
/// From one look at all views to the next: a safeguard.
const LOOK_AT_ALL: Duration = Duration::from_secs(10);
/// Time that telling everything may take of one tick.
const TURN: Duration = Duration::from_millis(10);
/// Backends of all views of a node, each view counted as one more: 60 MB.
const MOST_VIEWED: usize = 1 << 20;
/// Strangers are told of at most so often.
const STRANGERS: Duration = Duration::from_secs(10);

/// What the controller knows of the other nodes.
pub struct Peers {
    running: Option<Cluster>,
    problem: Option<String>,
    /// How often the connections were started: events of an earlier start count for nothing.
    starts: u64,
    /// Random for this start of the daemon.
    instance: u64,
    /// Those that are dialled, by their places in the settings.
    out: Vec<Outward>,
    /// Those that have dialled, by connection.
    into: BTreeMap<u64, Inward>,
    /// Services whose view may have changed since it was told.
    changed: HashSet<u32>,
    /// What was told last.
    views: HashMap<ServiceKey, View>,
    /// Phases and moves of slots that were told last, by service.
    slots_told: HashMap<u32, (PhaseCount, u64)>,
    pins_sent: Sent,
    flows_sent: Sent,
    clients_sent: Sent,
    mismatches: BTreeMap<(String, ServiceKey), Mismatch>,
    votes: BTreeMap<(ServiceKey, std::net::SocketAddr), Vote>,
    counts: Counts,
    /// Until when a new data plane waits for the others; `None` = it does not.
    joining: Option<Instant>,
    /// What is being done was asked for on another node.
    is_follower: bool,
    /// `State::overrides` is not written down as it is.
    overrides_unsaved: bool,
    look_due: Instant,
    look_at_all_due: Instant,
    stranger_due: Instant,
}

/// What became of entries of other nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    taken: u64,
    known: u64,
    unknown: u64,
    conflicts: u64,
    refused: u64,
    strangers: u64,
}

/// A node that is dialled.
#[derive(Default)]
struct Outward {
    hello: Option<Hello>,
    /// Why it is not connected.
    why: Option<String>,
    is_this_node: bool,
    /// It is another node with this one's name.
    is_namesake: bool,
    /// How far telling it everything has come.
    telling: Option<Telling>,
    /// Something found no room since that began.
    again: bool,
    /// Services whose slots have changed since they were told, by id.
    slots_due: BTreeMap<u32, SlotsDue>,
}

impl Outward {
    fn has_seed(&self, seed: &str) -> bool {
        self.hello.as_ref().is_some_and(|hello| hello.seed == seed)
    }
}

/// A node that has dialled.
struct Inward {
    hello: Hello,
    heard: Instant,
    entries: u64,
    views: HashMap<ServiceKey, View>,
    /// Backends in them.
    backends: usize,
    /// It has told everything.
    whole: bool,
}

impl Inward {
    /// Keeps a view in place of the one before, unless there are too many already.
    fn keep_view(&mut self, view: View) -> bool {
        // A view without backends takes its place, too.
        let size = |view: &View| view.backends.len() + 1;
        let before = self.views.get(&view.service).map_or(0, size);
        let after = self.backends - before + size(&view);
        if after > MOST_VIEWED {
            return false;
        }
        self.backends = after;
        self.views.insert(view.service, view);
        true
    }
}

/// What of everything is told next.
#[derive(Default)]
struct Telling {
    stage: Stage,
    walk: Walk,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Overrides,
    /// Of the service at this place.
    Views(usize),
    /// Of the service at this place, from this one on.
    Slots(usize, u32),
    Pins,
    Flows,
    Clients,
    End,
}

impl Peers {
    /// Nobody yet. `joins`: the configuration has a cluster, and the data plane is new.
    pub fn new(joins: bool) -> Self {
        let now = Instant::now();
        Self {
            running: None,
            problem: None,
            starts: 0,
            instance: rand::random(),
            out: Vec::new(),
            into: BTreeMap::new(),
            changed: HashSet::new(),
            views: HashMap::new(),
            slots_told: HashMap::new(),
            pins_sent: Sent::default(),
            flows_sent: Sent::default(),
            clients_sent: Sent::default(),
            mismatches: BTreeMap::new(),
            votes: BTreeMap::new(),
            counts: Counts::default(),
            joining: joins.then(|| now + JOINING),
            is_follower: false,
            overrides_unsaved: false,
            look_due: now,
            look_at_all_due: now,
            stranger_due: now,
        }
    }

    /// A service's view may have changed.
    pub(super) fn changed(&mut self, service: u32) {
        if self.running.is_some() {
            self.changed.insert(service);
        }
    }

    /// Whether somebody takes what is told.
    pub(super) fn has_listeners(&self) -> bool {
        let connected =
            |running: &Cluster| (0..self.out.len()).any(|peer| running.outbox(peer).is_connected());
        self.running.as_ref().is_some_and(connected)
    }

    /// Tells everybody.
    fn tell(&self, message: &Message) {
        if let Some(running) = &self.running {
            (0..self.out.len()).for_each(|peer| running.outbox(peer).push(message.clone()));
        }
    }

    /// Tells everybody with the same seed.
    fn tell_same_seed(&self, message: &Message, seed: &str) {
        let Some(running) = &self.running else { return };
        for (peer, out) in self.out.iter().enumerate() {
            if out.has_seed(seed) {
                running.outbox(peer).push(message.clone());
            }
        }
    }
}

impl From<ListenKey> for ServiceKey {
    fn from(key: ListenKey) -> Self {
        let ListenKey { address, prefix, port, last_port, protocol } = key;
        Self { address, prefix, port, last_port, protocol }
    }
}

impl Node {
    /// Listens and dials as the configuration wants it, with the secret that is in the file now; what does not work is tried again.
    pub(super) fn follow_cluster(&mut self) {
        let wanted = self.config.as_ref().and_then(|config| config.cluster.clone());
        let Some(wanted) = wanted else {
            if self.peers.running.is_some() || self.peers.problem.is_some() {
                let starts = self.peers.starts;
                self.peers = Peers { starts, ..Peers::new(false) };
                self.count_votes_of_all();
            }
            self.peers.joining = None;
            return;
        };
        let settings = match self.cluster_settings(wanted) {
            Ok(settings) => settings,
            // Whoever talks now shares a secret with us.
            Err(problem) => return self.cluster_problem(Some(problem)),
        };
        if self.peers.running.as_ref().is_some_and(|running| *running.settings() == settings) {
            return self.cluster_problem(None);
        }
        let (starts, joining) = (self.peers.starts + 1, self.peers.joining);
        self.peers = Peers { starts, joining, ..Peers::new(false) };
        let (heard, mut hears) = mpsc::unbounded_channel();
        let forward = self.events.clone();
        tokio::spawn(async move {
            while let Some(event) = hears.recv().await {
                let event = Event::Cluster { of: starts, event: Box::new(event) };
                if forward.send(event).is_err() {
                    return;
                }
            }
        });
        let listen = settings.listen;
        let peers = settings.peers.len();
        match Cluster::start(Settings { hello: self.own_hello(), ..settings }, heard) {
            Ok(running) => {
                tracing::info!(%listen, peers, "listening for the cluster");
                self.peers.running = Some(running);
                self.peers.out = (0..peers).map(|_| Outward::default()).collect();
                self.peers.changed = self.services.iter().map(|service| service.id).collect();
                self.note_overrides_so_far();
            }
            Err(error) => {
                self.cluster_problem(Some(format!("cannot listen on {listen}: {error}")));
            }
        }
        self.count_votes_of_all();
    }

    fn cluster_settings(&self, wanted: model::Cluster) -> Result<Settings, String> {
        let model::Cluster { listen, peers, secret_file } = wanted;
        let secret = Secret::read(&secret_file)?;
        Ok(Settings { listen, peers, secret_file, secret, hello: self.own_hello() })
    }

    /// A configuration whose secret cannot be used is refused; at a start it is a warning, because traffic matters more.
    pub(super) fn check_cluster(&self, parsed: &Parsed) -> Result<(), ReloadError> {
        let Some(cluster) = parsed.config.cluster.as_ref().filter(|_| self.started) else {
            return Ok(());
        };
        match Secret::read(&cluster.secret_file) {
            Ok(_) => Ok(()),
            Err(error) => {
                let (line, column) = parsed.locate("cluster.secret_file");
                let file = parsed.source().path.display();
                Err(ReloadError::Host(format!("{file}:{line}:{column}: {error}")))
            }
        }
    }

    fn own_hello(&self) -> Hello {
        Hello {
            version: VERSION,
            node: self.options.node.clone(),
            instance: match &self.peers.running {
                Some(running) => running.settings().hello.instance,
                None => self.peers.instance,
            },
            seed: self.seed.fingerprint(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn cluster_problem(&mut self, problem: Option<String>) {
        let problem = problem.map(|why| format!("cluster: {why}; tried again every 2 s"));
        if let Some(text) =
            problem.as_ref().filter(|text| self.peers.problem.as_ref() != Some(text))
        {
            tracing::error!("{text}");
        }
        self.peers.problem = problem;
    }

    /// Something has happened on a connection.
    pub(super) fn heard_of(&mut self, of: u64, event: cluster::Event) {
        if of != self.peers.starts || self.peers.running.is_none() {
            return;
        }
        match event {
            cluster::Event::Connected { peer, hello } => self.peer_connected(peer, hello),
            cluster::Event::Lost { peer, why, is_namesake } => {
                if let Some(out) = self.peers.out.get_mut(peer) {
                    out.is_namesake = is_namesake;
                }
                self.peer_lost(peer, why);
            }
            cluster::Event::Itself { peer } => {
                if let Some(out) = self.peers.out.get_mut(peer) {
                    out.is_this_node = true;
                }
            }
            cluster::Event::Joined { connection, hello, from } => {
                let text = format!("the node {} sends to this one", hello.node);
                let cause = format!("connected from {from}, lb {}", hello.release);
                self.log.add(Happened::to_node(Kind::Cluster, text, cause));
                // The one before may not have noticed yet that it has ended.
                self.peers.into.retain(|_, one| one.hello.node != hello.node);
                let inward = Inward {
                    hello,
                    heard: Instant::now(),
                    entries: 0,
                    views: HashMap::new(),
                    backends: 0,
                    whole: false,
                };
                self.peers.into.insert(connection, inward);
            }
            cluster::Event::Received { connection, message, permit } => {
                self.received(connection, message);
                drop(permit);
            }
            cluster::Event::Left { connection, why } => {
                if let Some(gone) = self.peers.into.remove(&connection) {
                    let text = format!("the node {} sends no more", gone.hello.node);
                    self.log.add(Happened::to_node(Kind::Cluster, text, why));
                    self.peers.mismatches.retain(|(node, _), _| *node != gone.hello.node);
                    self.count_votes_of_all();
                }
            }
            cluster::Event::Refused { from, why } => {
                self.peers.counts.strangers += 1;
                let now = Instant::now();
                if now >= self.peers.stranger_due {
                    self.peers.stranger_due = now + STRANGERS;
                    let text = format!("{from} is refused as a node of the cluster");
                    self.log.add(Happened::to_node(Kind::Cluster, text, why));
                }
            }
        }
    }

    fn peer_connected(&mut self, peer: usize, hello: Hello) {
        let own = self.seed.fingerprint();
        let text = format!("the node {} is connected", hello.node);
        let cause = format!("lb {}, seed {}", hello.release, hello.seed);
        self.log.add(Happened::to_node(Kind::Cluster, text, cause));
        if hello.seed != own {
            let text = format!(
                "the node {} has the seed {}, this one {own}: no flows are told to each other",
                hello.node, hello.seed
            );
            let cause = "all nodes need the same file `seed` in their state directories";
            self.log.add(Happened::to_node(Kind::RingMismatch, text, cause));
        }
        if let Some(out) = self.peers.out.get_mut(peer) {
            out.hello = Some(hello);
            out.why = None;
            out.is_namesake = false;
            out.telling = Some(Telling::default());
            out.again = false;
            out.slots_due.clear();
        }
    }

    fn peer_lost(&mut self, peer: usize, why: String) {
        let Some(out) = self.peers.out.get_mut(peer) else { return };
        let Some(running) = &self.peers.running else { return };
        let before = out.why.replace(why.clone());
        if before.as_ref() != Some(&why) {
            let address = running.settings().peers[peer];
            let name = out.hello.as_ref().map(|hello| format!(" ({})", hello.node));
            let text =
                format!("the node at {address}{} is not connected", name.unwrap_or_default());
            self.log.add(Happened::to_node(Kind::Cluster, text, why));
        }
        out.telling = None;
    }

    fn received(&mut self, connection: u64, message: Message) {
        let own_seed = self.seed.fingerprint();
        let Some(inward) = self.peers.into.get_mut(&connection) else { return };
        inward.heard = Instant::now();
        inward.entries += message.entries() as u64;
        let same_seed = inward.hello.seed == own_seed;
        match message {
            Message::View(view) => {
                let service = view.service;
                if !inward.keep_view(view) {
                    self.peers.counts.refused += 1;
                }
                self.count_votes_of(service);
            }
            Message::Override(set) => self.take_override(set),
            Message::Whole => inward.whole = true,
            Message::Slots(slots) if same_seed => self.take_slots(&slots),
            Message::Flows(flows) if same_seed => self.take_flows(&flows),
            Message::Clients(clients) if same_seed => self.take_clients(&clients),
            Message::Slots(_) | Message::Flows(_) | Message::Clients(_) => {}
            Message::Hello(_) | Message::Beat(_) | Message::Heard(_) => {}
        }
    }

    /// What changes without an event: called at every tick.
    pub(super) fn mind_cluster(&mut self) {
        if self.peers.running.is_none() {
            return;
        }
        let now = Instant::now();
        if now >= self.peers.look_at_all_due {
            self.peers.look_at_all_due = now + LOOK_AT_ALL;
            self.peers.changed = self.services.iter().map(|service| service.id).collect();
        }
        self.tell_views();
        if now >= self.peers.look_due {
            self.peers.look_due = now + LOOK;
            self.forget_silent(now);
            self.tell_slots();
            self.judge_rings(now);
            self.judge_votes(now);
            self.mind_overrides();
        }
        self.tell_everything();
        self.mind_joining(now);
    }

    /// Who says nothing has no vote: its connection is about to be given up.
    fn forget_silent(&mut self, now: Instant) {
        let before = self.peers.into.len();
        self.peers.into.retain(|_, one| now.duration_since(one.heard) < 2 * SILENCE);
        if self.peers.into.len() != before {
            self.count_votes_of_all();
        }
    }

    /// Goes on with telling everything to whom it is new.
    fn tell_everything(&mut self) {
        let began = Instant::now();
        for peer in 0..self.peers.out.len() {
            let Some(running) = &self.peers.running else { return };
            if !running.outbox(peer).is_connected() {
                continue;
            }
            let same_seed = self.peers.out[peer].has_seed(&self.seed.fingerprint());
            if running.outbox(peer).take_gap() {
                self.peers.out[peer].again = true;
            }
            while self.may_tell(peer, began) && !self.peers.out[peer].slots_due.is_empty() {
                let messages = self.next_slots(peer);
                self.push(peer, messages);
            }
            let out = &mut self.peers.out[peer];
            if out.telling.is_none() && std::mem::take(&mut out.again) {
                out.telling = Some(Telling::default());
            }
            let Some(mut telling) = out.telling.take() else { continue };
            while telling.stage != Stage::End && self.may_tell(peer, began) {
                let (messages, next) = match self.next_page(&mut telling, same_seed) {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::warn!(%error, "a table could not be read for another node");
                        (Vec::new(), Stage::End)
                    }
                };
                self.push(peer, messages);
                if next != telling.stage {
                    telling = Telling { stage: next, walk: Walk::default() };
                }
            }
            match telling.stage {
                Stage::End => self.push(peer, vec![Message::Whole]),
                _ => self.peers.out[peer].telling = Some(telling),
            }
        }
    }

    /// Whether there is time and room for one more page.
    fn may_tell(&self, peer: usize, began: Instant) -> bool {
        let running = self.peers.running.as_ref();
        began.elapsed() < TURN
            && running.is_some_and(|running| running.outbox(peer).waiting() < LIMIT / 2)
    }

    fn push(&self, peer: usize, messages: Vec<Message>) {
        if let Some(running) = &self.peers.running {
            messages.into_iter().for_each(|message| running.outbox(peer).push(message));
        }
    }

    /// Some more of everything, and what comes after it.
    fn next_page(
        &self,
        telling: &mut Telling,
        same_seed: bool,
    ) -> anyhow::Result<(Vec<Message>, Stage)> {
        let stage = telling.stage;
        let walk = &mut telling.walk;
        let after = |walk: &Walk, next| if walk.is_at_beginning() { next } else { stage };
        Ok(match stage {
            Stage::Overrides => {
                let all = self.state.overrides.iter().map(|one| one.set.clone());
                (all.map(Message::Override).collect(), Stage::Views(0))
            }
            Stage::Views(index) => match self.services.get(index) {
                Some(service) => {
                    let view = self.peers.views.get(&service.key.into());
                    (
                        view.cloned().map(Message::View).into_iter().collect(),
                        Stage::Views(index + 1),
                    )
                }
                None if same_seed => (Vec::new(), Stage::Slots(0, 0)),
                None => (Vec::new(), Stage::End),
            },
            Stage::Slots(index, from) => match self.services.get(index) {
                Some(service) if from < service.ring.slots && service.unsettled() => {
                    let end = from.saturating_add(PAGE).min(service.ring.slots);
                    (self.slots_of(index, from..end), Stage::Slots(index, end))
                }
                Some(_) => (Vec::new(), Stage::Slots(index + 1, 0)),
                None => (Vec::new(), Stage::Pins),
            },
            Stage::Pins => {
                let page = self.dataplane.walk_pins(true, walk)?;
                (self.flow_messages(false, page.iter())?, after(walk, Stage::Flows))
            }
            Stage::Flows => {
                let page = self.dataplane.walk_flows(true, walk)?;
                (self.flow_messages(true, page.iter())?, after(walk, Stage::Clients))
            }
            Stage::Clients => {
                let page = self.dataplane.walk_sources(walk)?;
                (self.client_messages(page.iter())?, after(walk, Stage::End))
            }
            Stage::End => (Vec::new(), Stage::End),
        })
    }

    /// A new data plane is ready when it knows what the others know, as far as they can be reached.
    fn mind_joining(&mut self, now: Instant) {
        let Some(until) = self.peers.joining else { return };
        let whole = |out: &Outward| {
            let node = out.hello.as_ref().map(|hello| &hello.node);
            self.peers.into.values().any(|one| one.whole && Some(&one.hello.node) == node)
        };
        let is_done = |out: &Outward| out.is_this_node || out.why.is_some() || whole(out);
        if now >= until || self.peers.out.iter().all(is_done) {
            self.peers.joining = None;
        }
    }

    /// Whether what the other nodes know is waited for.
    pub(super) fn is_joining(&self) -> bool {
        self.peers.joining.is_some()
    }
}
