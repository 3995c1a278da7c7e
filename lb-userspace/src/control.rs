//! The controller: one task owns everything that is loaded, and hears of changes one after another.
//!
//! Configuration, health, network and commands come in as events; pure functions in `plan` decide; `dataplane` writes.
//! Stopping the daemon stops none of the forwarding: program, link and maps stay pinned, and the next start adopts them.

mod addresses;
mod adopt;
mod agents;
mod alloc;
mod apply;
pub mod capture;
mod change;
mod claims;
mod cluster;
mod commands;
mod config_file;
mod connections;
mod dashboard;
mod discovery;
mod drain;
pub mod dry_run;
mod flows;
mod forecast;
mod fragments;
mod fullnat;
mod held;
mod history;
mod host;
pub mod journal;
mod keeper;
mod lists;
mod loaded;
mod measures;
mod members;
mod network;
pub mod node;
mod node_name;
mod openings;
pub mod options;
mod passive;
mod persist;
mod policy;
mod ports;
mod private_file;
mod quic;
mod reload;
mod report;
mod retire;
mod revisions;
mod rings_ahead;
mod seed;
mod service_manager;
mod settings;
mod shared;
pub mod state;
mod take_over;
mod waiting;
mod watch;

mod what_if;
mod why;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use ipnet::IpNet;
use lb_common::{
    abi::{BackendId, DroppedSample, NeighbourWanted, ObservedFailure},
    hash::HashKeys,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch as watching},
};

use self::{
    alloc::{Numbers, Spans},
    loaded::Service,
    options::RunOptions,
    retire::{Dying, Retired},
    seed::Seed,
    service_manager::ServiceManager,
    state::State,
    waiting::Waiting,
};
pub use self::{reload::ReloadError, revisions::hash as text_hash, shared::LAST_GOOD};
use crate::{
    allocator,
    api::{self, peer::GroupLevel},
    config::{
        self,
        model::{Config, SocketLevel, XdpMode},
    },
    dataplane::{Dataplane, Lock, Options, Sizes},
    events::{EventLog, Happened, Kind},
    health::{
        Checker, HealthEvent, TargetKey,
        agent::{AgentEvent, AgentKey, Agents},
    },
    net::{Net, Snapshot},
    plan::{ring, sweep::Census},
    privileges,
};

/// Changes of health are applied for so long at a time; then commands and new results have their turn.
const TURN: Duration = Duration::from_millis(20);
/// Events that are taken in before their changes are applied.
const EVENTS_A_TURN: usize = 1_024;
/// How often the NICs are looked at (a program detached by hand has no event).
const LOOK_AT_NICS: Duration = Duration::from_secs(2);

/// What happens to the controller beside commands and the network.
enum Event {
    /// A probe has answered.
    Health(Box<HealthEvent>),
    /// An agent has been asked.
    Agent(Box<AgentEvent>),
    /// A grace period has passed.
    Grace,
    /// The configuration is to be read again, and why.
    Reload(&'static str),
    /// A packet needs this neighbour.
    Wanted(NeighbourWanted),
    /// A copy of the program for dry runs has been loaded, or not.
    Copy {
        /// With rings of its own.
        what_if: bool,
        /// Which of the node's programs it is a copy of.
        of: u64,
        /// The copy.
        copy: Result<Arc<std::sync::Mutex<dry_run::Copy>>, api::types::Failure>,
    },
    /// The program of a capture has been loaded, or not.
    CaptureLoaded(Box<capture::Loaded>),
    /// The capture with this number has ended.
    CaptureOver(u64),
    /// A packet was dropped.
    Dropped(Box<DroppedSample>),
    /// A client did not get through to an observed backend.
    Failed(ObservedFailure),
    /// A name of backends has been asked for.
    Heard(Box<crate::discovery::resolver::Heard>),
    /// A directory of backends has been looked at.
    Seen(Box<crate::discovery::watch::Seen>),
    /// Another host says that an address of this one is its own.
    Claimed(crate::net::claims::Claim),
    /// The shared configuration was heard of.
    Shared(crate::etcd::Heard),
    /// Another node was heard of.
    Cluster {
        /// Which start of the cluster's connections it is of.
        of: u64,
        /// What.
        event: Box<crate::cluster::Event>,
    },
}

/// Everything one lb knows.
struct Node {
    options: RunOptions,
    seed: Seed,
    keys: HashKeys,
    state: State,
    /// The first apply is done: the state describes what is loaded.
    started: bool,
    /// Another version's data plane still forwards.
    taking_over: bool,
    /// A new data plane whose first checks have not all been answered.
    starting: bool,
    /// It was said that another node has this one's name.
    told_name_conflict: bool,
    /// A service with a list of ports has another row than the list says.
    ports_due: bool,
    /// What is written down of the state.
    saved: persist::Persistence,
    config: Option<Config>,
    xdp_mode: XdpMode,
    /// What tunnels of ipip send from.
    outer_source: Vec<IpNet>,
    config_error: Option<String>,
    /// What was in force when.
    revisions: revisions::Store,
    /// Why the history is incomplete, if it is.
    history_problem: Option<String>,
    /// Hash of the text that lb itself wrote into the file last.
    own_file: Option<String>,
    /// When a failed rollback of a trial is tried again.
    trial_again: Option<Instant>,
    dataplane: Dataplane,
    net: Net,
    snapshot: Arc<Snapshot>,
    checker: Checker,
    agents: Agents,
    /// Backends that the file does not tell.
    discovery: discovery::Discovery,
    events: mpsc::UnboundedSender<Event>,
    /// For listeners that come and go.
    commands: mpsc::Sender<api::Command>,
    metrics: Option<api::server::MetricsHandle>,
    metrics_problem: Option<String>,
    dashboard: Option<api::server::dashboard::DashboardHandle>,
    dashboard_problem: Option<String>,
    services: Vec<Service>,
    /// Who else says that a VIP is theirs.
    claims: claims::Claims,
    /// The configuration is from etcd.
    shared: Option<shared::Shared>,
    /// The other nodes.
    peers: cluster::Peers,
    /// Keys of ADDRESS entries in the service table.
    addresses: HashSet<IpAddr>,
    interfaces: Vec<String>,
    interface_problems: BTreeMap<String, String>,
    /// NICs with our program at the last look, and their indexes.
    attached_to: BTreeMap<String, u32>,
    /// For Prometheus.
    measures: measures::Measures,
    /// Packets that were dropped lately.
    samples: why::Samples,
    held: held::Held,
    /// What has happened, and why.
    log: EventLog,
    /// For dry runs.
    copies: dry_run::Copies,
    /// For dry runs of what is not so.
    overlay: Option<what_if::Kept>,
    /// How often the program was loaded anew: copies are of one of them.
    program_loads: u64,
    /// The capture that runs.
    capture: capture::Capture,
    /// Captures so far.
    captures: u64,
    /// How often the explanation of a lookup was not what the program does: a bug.
    disagreements: u64,
    /// What members of `socket_group` may do.
    socket_level: GroupLevel,
    /// How often somebody took our program off a NIC.
    taken_off: BTreeMap<String, u64>,
    /// The XDP mode has changed: NICs attached in another one are attached anew.
    refit: bool,
    force: bool,
    service_ids: Numbers,
    rows: Numbers,
    backend_ids: Numbers,
    list_numbers: Numbers,
    /// When cookies get another key.
    cookie_key_due: Instant,
    spans: Spans,
    retired: Vec<Retired>,
    dying: Vec<Dying>,
    grace_wanted: bool,
    /// How many of `retired` and `dying` the running grace period is for.
    grace_running: Option<(usize, usize)>,
    pins_seen: bool,
    /// The last sweep's count.
    census: Census,
    /// Unconfirmed, confirmed.
    pin_counts: [u64; 2],
    counted: connections::Counted,
    ports: fullnat::Ports,
    tracked: flows::Tracked,
    sweep_due: Instant,
    /// The second in which the slots' phases were last looked at, CLOCK_MONOTONIC.
    kept_at: u64,
    hz: u64,
    /// Services whose backends' health has changed since they were last reconciled.
    dirty: Waiting,
    /// Whose health each probe's is.
    probed: HashMap<TargetKey, Vec<Place>>,
    /// Whose each agent is.
    asked: HashMap<AgentKey, Vec<Place>>,
    nics_due: Instant,
    began: Instant,
}

/// Runs the daemon until it is told to stop.
pub async fn run(options: RunOptions) -> anyhow::Result<()> {
    let lock = Lock::acquire(&options.run_dir)?;
    let seed = Seed::load_or_create(&options.state_dir)?;
    let mut saved = State::load(&options.run_dir)
        .with_context(|| format!("cannot read {}", options.run_dir.join(state::FILE).display()))?;
    let (net, mut snapshots) = Net::start().await?;
    // Its first snapshot is read here, and is no change.
    snapshots.mark_unchanged();
    let (events, mut inbox) = mpsc::unbounded_channel();
    let (commands, mut requests) = mpsc::channel(64);

    let trial_ended = saved.as_mut().and_then(|state| settle_trial(&options, state));
    let is_trial = saved.as_ref().is_some_and(|state| state.trial.is_some());
    let shared = match &options.shared {
        Some(location) => shared::first(&options, location).await?.filter(|_| !is_trial),
        None => None,
    };
    let (file, config_error) = match &shared {
        Some(first) => (first.parsed.clone(), None),
        None => first_config(&options, saved.as_ref())?,
    };
    let text = file.source().text.clone();
    let set = saved.as_ref().map(|state| state.settings.as_slice()).unwrap_or_default();
    let (parsed, config_error) = with_settings(file, set, config_error);
    let mut node = Node::load(
        options,
        seed,
        saved.unwrap_or_default(),
        &parsed.config,
        net,
        snapshots.clone(),
        (events.clone(), commands.clone()),
    )?;
    node.config_error = config_error;
    node.read_directories(&parsed.config);
    if node.dataplane.adopted() {
        let expanded = node.expanded(&parsed.config);
        node.adopt(&expanded.config);
    }
    node.apply_first_of(parsed, text, shared)?;
    node.finish_take_over()?;
    node.started = true;
    node.note_start();
    if let Some(ended) = trial_ended {
        node.log.add(Happened::to_node(Kind::ConfigRolledBack, ended, "start"));
    }
    // What is loaded knows it from here on.
    node.state.services.clear();
    node.save_state();
    node.refuse_without_nic()?;
    let group = node.config.as_ref().and_then(|config| config.socket_group.clone());
    let level = node.socket_level.clone();
    let server = api::server::serve(&node.options.socket, group.as_deref(), &level, commands)?;
    // Everything is in place; from here on, no thread of this process may do more than forwarding takes.
    privileges::give_up()?;
    privileges::require_readable(&node.options.config)?;
    let _watch = match node.options.shared {
        None => Some(watch::watch(&node.options.config, events.clone())?),
        Some(_) => {
            node.follow_shared();
            None
        }
    };
    node.dataplane.spawn_logger();
    let wanted = node.dataplane.wanted()?;
    tokio::spawn(forward_wanted(wanted, events.clone()));
    tokio::spawn(forward_failures(node.dataplane.failures()?, events.clone()));
    tokio::spawn(forward_dropped(node.dataplane.samples()?, events.clone()));
    let mut manager = ServiceManager::new();
    manager.ready(node.services.len());
    tracing::info!(socket = %node.options.socket.display(), "lb is running");

    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tick = tokio::time::interval(keeper::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut read = None;
    let ended_by = loop {
        let apply_at = node.dirty.next_due();
        tokio::select! {
            Some(command) = requests.recv() => if node.command(command).await { break "lb detach" },
            Some(event) = inbox.recv() => {
                node.event(event);
                for _ in 1..EVENTS_A_TURN {
                    let Ok(event) = inbox.try_recv() else { break };
                    node.event(event);
                }
                node.apply_health();
                node.apply_discovered();
                node.tell_views();
            }
            Ok(()) = snapshots.changed() => {
                let snapshot = snapshots.borrow_and_update().clone();
                node.network_changed(snapshot);
                node.send_held();
            }
            () = sleep_until(apply_at) => node.apply_health(),
            _ = tick.tick() => {
                node.tick();
                manager.feed();
                // What it took to read another configuration is not needed any more.
                if read != Some(node.state.revision) {
                    read = Some(node.state.revision);
                    tokio::task::spawn_blocking(allocator::give_back);
                }
            }
            _ = hang_up.recv() => node.event(Event::Reload("SIGHUP")),
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
        }
    };
    manager.stopping();
    node.end_capture("the daemon stops");
    server.shutdown().await;
    if node.dataplane.still_loaded() {
        let text = "stopping; packets are still forwarded (`lb detach` ends that)";
        node.log.add(Happened::to_node(Kind::Stopped, text, ended_by));
        node.leave();
        node.save_state();
    }
    drop(lock);
    Ok(())
}

/// A trial that has ended while the daemon was away is no trial any more; tells how it ended.
fn settle_trial(options: &RunOptions, state: &mut State) -> Option<String> {
    let file = std::fs::read_to_string(&options.config).ok();
    let why = state.trial.as_ref()?.ended(file.as_deref())?;
    let trial = state.trial.take()?;
    state.config_text = trial.text_before().to_owned();
    Some(format!("the trial of revision {} has ended: {why}", state.revision))
}

/// With what `lb set` has set, unless the file has come to contradict it.
fn with_settings(
    file: config::Parsed,
    set: &[api::types::Setting],
    config_error: Option<String>,
) -> (config::Parsed, Option<String>) {
    if set.is_empty() {
        return (file, config_error);
    }
    match settings::overlay(file.clone(), set) {
        Ok(parsed) => (parsed, config_error),
        Err(errors) => {
            tracing::error!("going on without what `lb set` has set:\n{errors}");
            (file, Some(errors.to_string()))
        }
    }
}

/// The file's configuration, or the last good one if the file has become invalid while lb was away.
fn first_config(
    options: &RunOptions,
    saved: Option<&State>,
) -> anyhow::Result<(config::Parsed, Option<String>)> {
    let in_force = saved.filter(|state| state.trial.is_some()).map(|state| config::model::Source {
        path: options.config.clone(),
        text: state.config_text.clone(),
    });
    // On trial: the file is not meant.
    let read = |source: config::model::Source| {
        let parsed = config::parse(&source).ok()?;
        // Without its lists of prefixes, those that are loaded stay in force.
        Some(parsed.clone().with_prefix_files().unwrap_or(parsed))
    };
    if let Some(parsed) = in_force.and_then(read) {
        return Ok((parsed, config::load(&options.config).err().map(|errors| errors.to_string())));
    }
    let errors = match config::load(&options.config) {
        Ok(parsed) => {
            for warning in &parsed.warnings {
                tracing::warn!("{warning}");
            }
            return Ok((parsed, None));
        }
        Err(errors) => errors,
    };
    let last_good = saved.filter(|state| !state.config_text.is_empty()).and_then(|state| {
        let source =
            config::model::Source { path: options.config.clone(), text: state.config_text.clone() };
        read(source)
    });
    match last_good {
        Some(parsed) => {
            tracing::error!(
                "the configuration is invalid; going on with the last good one:\n{errors}"
            );
            Ok((parsed, Some(errors.to_string())))
        }
        None => Err(errors.into()),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn forward_wanted(
    mut wanted: crate::dataplane::Wanted,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Some(neighbour) = wanted.next().await {
        if events.send(Event::Wanted(neighbour)).is_err() {
            return;
        }
    }
}

async fn forward_dropped(
    mut samples: crate::dataplane::Samples,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Some(sample) = samples.next().await {
        if events.send(Event::Dropped(Box::new(sample))).is_err() {
            return;
        }
    }
}

async fn forward_failures(
    mut failures: crate::dataplane::Failures,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Some(failure) = failures.next().await {
        if events.send(Event::Failed(failure)).is_err() {
            return;
        }
    }
}

impl Node {
    fn load(
        options: RunOptions,
        seed: Seed,
        mut state: State,
        config: &Config,
        net: Net,
        network: watching::Receiver<Arc<Snapshot>>,
        (events, commands): (mpsc::UnboundedSender<Event>, mpsc::Sender<api::Command>),
    ) -> anyhow::Result<Self> {
        let snapshot = network.borrow().clone();
        let keys = seed.keys();
        let interfaces =
            if options.interfaces.is_empty() { &config.interfaces } else { &options.interfaces };
        let taking_over = take_over::wanted(&options.pin_dir, &state, options.take_over)?;
        let fingerprint = seed.fingerprint();
        let refuse_other_seed = |loaded: bool| match &state.seed_fingerprint {
            old if loaded && !old.is_empty() && *old != fingerprint => anyhow::bail!(
                "the hash seed has changed ({old} -> {fingerprint}) while a data plane with the old one is loaded: nearly \
                 all flows would move; put the old seed back, or run `lb detach` and start again"
            ),
            _ => Ok(()),
        };
        refuse_other_seed(taking_over)?;
        let wanted = dataplane_options(&options, keys, config, interfaces.len());
        let dataplane = Dataplane::open(&Options { take_over: taking_over, ..wanted })?;
        refuse_other_seed(dataplane.adopted())?;
        state.seed_fingerprint = fingerprint;
        let (health, mut results) = mpsc::unbounded_channel();
        let forward = events.clone();
        tokio::spawn(async move {
            while let Some(result) = results.recv().await {
                if forward.send(Event::Health(Box::new(result))).is_err() {
                    return;
                }
            }
        });
        let revisions = revisions::Store::open(&options.state_dir);
        let (answers, mut answered) = mpsc::unbounded_channel();
        let forward = events.clone();
        tokio::spawn(async move {
            while let Some(answer) = answered.recv().await {
                if forward.send(Event::Agent(Box::new(answer))).is_err() {
                    return;
                }
            }
        });
        let sizes = dataplane.sizes();
        let events_before = std::mem::take(&mut state.events);
        let kept = state.discovered.clone();
        let joins = config.cluster.is_some() && !dataplane.adopted();
        let claims = claims::Claims::start(&network, &events);
        Ok(Self {
            hz: dataplane.hz()?,
            force: options.force,
            options,
            seed,
            keys,
            state,
            started: false,
            taking_over,
            told_name_conflict: false,
            starting: !dataplane.adopted(),
            ports_due: false,
            saved: persist::Persistence::default(),
            config: None,
            xdp_mode: config.xdp_mode,
            outer_source: config.outer_source.clone(),
            config_error: None,
            revisions,
            history_problem: None,
            own_file: None,
            trial_again: None,
            dataplane,
            net,
            snapshot,
            checker: Checker::start(health, network),
            agents: Agents::start(answers),
            discovery: discovery::Discovery::new(&kept, &events),
            events,
            commands,
            metrics: None,
            metrics_problem: None,
            dashboard: None,
            dashboard_problem: None,
            services: Vec::new(),
            claims,
            shared: None,
            peers: cluster::Peers::new(joins),
            addresses: HashSet::new(),
            interfaces: Vec::new(),
            interface_problems: BTreeMap::new(),
            attached_to: BTreeMap::new(),
            taken_off: BTreeMap::new(),
            measures: measures::Measures::new(),
            samples: why::Samples::default(),
            held: held::Held::default(),
            log: EventLog::resume(events_before),
            copies: dry_run::Copies::default(),
            overlay: None,
            disagreements: 0,
            program_loads: 0,
            capture: capture::Capture::default(),
            captures: 0,
            socket_level: GroupLevel::new(config.socket_level == SocketLevel::Admin),
            refit: true,
            service_ids: Numbers::new(sizes.services),
            rows: Numbers::new(sizes.services * 2),
            backend_ids: Numbers::new(sizes.backends),
            list_numbers: Numbers::new(u32::MAX),
            cookie_key_due: Instant::now(),
            spans: Spans::new(sizes.ring_slots),
            retired: Vec::new(),
            dying: Vec::new(),
            grace_wanted: false,
            grace_running: None,
            pins_seen: false,
            census: Census::default(),
            pin_counts: [0; 2],
            counted: connections::Counted::default(),
            ports: fullnat::Ports::default(),
            tracked: flows::Tracked::default(),
            sweep_due: Instant::now(),
            kept_at: 0,
            dirty: Waiting::default(),
            probed: HashMap::new(),
            asked: HashMap::new(),
            nics_due: Instant::now(),
            began: Instant::now(),
        })
    }

    /// Loads the program anew, with the same maps, if the configuration needs what it was loaded without.
    fn load_features(&mut self, config: &Config) -> Result<(), apply::ApplyError> {
        let options = dataplane_options(&self.options, self.keys, config, config.interfaces.len());
        if self.dataplane.has_features(&options) {
            return Ok(());
        }
        self.end_capture(
            "the program is loaded anew, as the configuration needs other features of it",
        );
        self.dataplane.reload_program(&options).map_err(apply::ApplyError::Dataplane)?;
        self.program_loads += 1;
        self.copies.forget();
        let cause = "the configuration needs features that it was loaded without";
        self.log.add(Happened::to_node(Kind::Program, "program loaded anew", cause));
        Ok(())
    }

    /// A start without any NIC is a mistake worth ending for; later, a missing NIC is waited for.
    fn refuse_without_nic(&self) -> anyhow::Result<()> {
        if self.interfaces.is_empty() {
            anyhow::bail!("no NIC to attach to: name one under `interfaces` or by `--iface`");
        }
        if self.interface_problems.len() == self.interfaces.len() {
            let problems: Vec<&str> =
                self.interface_problems.values().map(String::as_str).collect();
            anyhow::bail!("lb is attached to no NIC: {}", problems.join("; "));
        }
        Ok(())
    }

    fn note_start(&mut self) {
        let backends: usize = self.services.iter().map(|service| service.backends.len()).sum();
        let how = match self.dataplane.adopted() {
            true => "and has adopted the loaded data plane",
            false => "with a new data plane",
        };
        let text = format!(
            "lb {} has started {how}: {} services, {backends} backends",
            env!("CARGO_PKG_VERSION"),
            self.services.len(),
        );
        let cause = format!("process {}", std::process::id());
        self.log.add(Happened::to_node(Kind::Started, text, cause));
        if let Some(damage) = self.state.damage.take() {
            self.log.add(Happened::to_node(Kind::StateDamaged, damage, "found at the start"));
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Health(event) => self.health_changed(&event),
            Event::Agent(event) => self.agent_changed(&event),
            Event::Grace => self.finish_grace(),
            Event::Copy { what_if, of, copy } => self.copy_loaded(what_if, of, copy),
            Event::CaptureLoaded(loaded) => self.capture_loaded(*loaded),
            Event::CaptureOver(number) => self.capture_over(number),
            Event::Dropped(sample) => {
                self.hold(&sample);
                self.samples.add(*sample);
            }
            Event::Failed(failure) => self.backend_failed(&failure),
            Event::Heard(heard) => self.name_heard(*heard),
            Event::Seen(seen) => self.directory_seen(&seen),
            Event::Claimed(claim) => self.claimed(claim),
            Event::Shared(heard) => self.shared_heard(heard),
            Event::Cluster { of, event } => self.heard_of(of, *event),
            Event::Reload(cause) => {
                // Errors are in the log and in `lb status`.
                let _ = self.reload(cause);
            }
            Event::Wanted(neighbour) => {
                let address: IpAddr = neighbour.address.into();
                match (neighbour.ifindex, self.snapshot.resolve(address)) {
                    (0, Some(path)) => self.net.want(path.ifindex, path.next_hop),
                    (0, None) => {}
                    (ifindex, _) => self.net.want(ifindex, address),
                }
            }
        }
    }

    fn health_changed(&mut self, event: &HealthEvent) {
        let now = monotonic_milliseconds();
        for place in self.probed.get(&event.key).into_iter().flatten() {
            if let Some((service, number)) = place.find(&mut self.services) {
                let backend = &mut service.backends[number];
                if backend.removed {
                    continue;
                }
                let (before, said) = (backend.healthy(), backend.says());
                let known = std::mem::replace(&mut backend.checked, true);
                backend.waits |= !known && service.starting_until.is_some();
                backend.health = Some(event.health.clone());
                // Even a state that nobody waits for: who is found DOWN now may start slowly later.
                let step = backend.look(now);
                let changed = step || backend.healthy() != before || backend.says() != said;
                backend.unsaved |= changed;
                let due = match service.starting_until {
                    // The last first answer: the others have waited for it.
                    Some(_) => service.backends.iter().all(|backend| backend.checked),
                    None => changed,
                };
                if due {
                    self.dirty.insert(service.id);
                }
                let backend = &mut service.backends[number];
                self.peers.changed(service.id);
                if !known {
                    backend.unsaved = true;
                    self.saved.changed(service.id);
                }
                if backend.healthy() != before {
                    self.log.add(health_event(&service.spec.name, &backend.spec.name, event));
                }
            }
        }
    }

    /// Applies the changes of health that are due, for one turn.
    fn apply_health(&mut self) {
        let turn = Instant::now();
        while let Some(id) = self.dirty.take(Instant::now()) {
            let Some(index) = self.services.iter().position(|service| service.id == id) else {
                continue;
            };
            let service = &mut self.services[index];
            if service.starting_until.is_some() {
                let all = service.backends.iter().all(|backend| backend.checked);
                if !all && service.starting_until.is_some_and(|until| until > Instant::now()) {
                    continue;
                }
                service.starting_until = None;
                service.backends.iter_mut().for_each(|backend| backend.waits = false);
            }
            let began = Instant::now();
            if let Err(error) = self.reconcile(index) {
                tracing::error!(%error, "a change of health could not be applied");
            }
            self.measures.publish.add(began.elapsed());
            self.saved.changed(id);
            if turn.elapsed() >= TURN {
                break;
            }
        }
        self.publish_due_ports();
        self.save_health();
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.end_ejections();
        for service in &self.services {
            if service.starting_until.is_some_and(|until| until <= now) {
                self.dirty.insert(service.id);
            }
        }
        self.mind_trial();
        self.mind_directories();
        self.start_slowly();
        self.apply_health();
        // Once ready, a node stays so, whatever services come later.
        self.starting &= self.services.iter().any(|service| service.starting_until.is_some());
        self.tell_capture();
        self.mind_cluster();
        self.mind_shared();
        self.mind_claims();
        self.mind_node_name();
        self.keep();
        self.count_connections();
        self.count_ports();
        self.mind_openings();
        self.sweep_flows();
        self.dataplane.settle_routes();
        if now >= self.nics_due {
            self.nics_due = now + LOOK_AT_NICS;
            self.attach_interfaces();
            self.follow_metrics();
            self.follow_dashboard();
            self.follow_cluster();
        }
    }

    /// The next step of those that come back.
    fn start_slowly(&mut self) {
        let now = monotonic_milliseconds();
        for service in &mut self.services {
            for backend in service.backends.iter_mut().filter(|backend| backend.ramp < 100) {
                if backend.look(now) {
                    backend.unsaved = true;
                    self.dirty.insert(service.id);
                }
            }
        }
    }

    /// Listens for Prometheus where the configuration says; what does not work is tried again.
    fn follow_metrics(&mut self) {
        let wanted = self.config.as_ref().and_then(|config| config.metrics);
        if self.metrics.as_ref().map(api::server::MetricsHandle::address) == wanted {
            self.metrics_problem = None;
            return;
        }
        self.metrics = None;
        let Some(address) = wanted else { return };
        match api::server::serve_metrics(address, self.commands.clone()) {
            Ok(handle) => {
                tracing::info!(%address, "listening for Prometheus");
                self.metrics = Some(handle);
                self.metrics_problem = None;
            }
            Err(error) => {
                let problem =
                    format!("cannot listen on {address} (metrics): {error}; tried again every 2 s");
                if self.metrics_problem.as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.metrics_problem = Some(problem);
            }
        }
    }
}

/// Where a backend was when probes and agents were told of it.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Its service's place in the list, and id.
    service: (usize, u32),
    /// Its place in the service's list, and id.
    backend: (usize, BackendId),
}

impl Place {
    /// The service and the backend's number in it now, unless they are gone.
    fn find<'s>(&self, services: &'s mut [Service]) -> Option<(&'s mut Service, usize)> {
        let (place, id) = self.service;
        let service = services.get_mut(place).filter(|known| known.id == id)?;
        let (number, id) = self.backend;
        if service.backends.get(number).is_some_and(|known| known.id == id) {
            return Some((service, number));
        }
        // Another one has gone meanwhile.
        let number = service.backends.iter().position(|known| known.id == id)?;
        Some((service, number))
    }
}

/// A backend's change of health.
fn health_event<'a>(service: &'a str, backend: &'a str, event: &HealthEvent) -> Happened<'a> {
    let health = &event.health;
    let kind = if health.up { Kind::BackendUp } else { Kind::BackendDown };
    let word = if health.up { "UP" } else { "DOWN" };
    let cause = format!("{} {}", health.code, health.output);
    Happened::to_node(kind, format!("{service}/{backend} is {word}"), cause.trim())
        .to_backend(service, backend)
}

/// Sizes and features for a configuration; sizes count only when nothing is loaded yet.
fn dataplane_options(
    options: &RunOptions,
    keys: HashKeys,
    config: &Config,
    nics: usize,
) -> Options {
    use crate::config::model::Forward;
    let limits = &config.limits;
    let needed: u64 = config
        .services
        .iter()
        .map(|s| ring::ring_length(s.backends.iter().map(|b| b.weight), s.ring_size) as u64)
        .sum();
    let ring_slots =
        limits.ring_slots.unwrap_or((needed * 3).clamp(512 * 1024, u32::MAX as u64) as u32);
    let backends: usize = config.services.iter().map(|service| service.backends.len()).sum();
    let track = config.services.iter().any(|service| service.tracks());
    let sources = config.services.iter().any(|service| service.remembers_sources());
    let fullnat = fullnat::wanted(config);
    let entries = |services: u64, backends: u64| services * 2 + backends;
    let entries = entries(config.services.len() as u64, backends as u64)
        .max(entries(limits.services.into(), limits.backends.into()));
    Options {
        pin_root: options.pin_dir.clone(),
        run_dir: options.run_dir.clone(),
        sizes: Sizes {
            services: limits.services,
            backends: limits.backends,
            ring_slots,
            // One entry a bucket or less, so that nine of them seldom fall into one bucket of eight: of configurations
            // that use all of the default limits, one in 300 finds no room.
            table_buckets: entries.next_power_of_two().clamp(1024, 1 << 24) as u32,
            pins: limits.pins,
            pins_unconfirmed: limits.pins_unconfirmed,
            connections: limits.connections,
            flows: if track { limits.flows } else { 1 },
            flows_unconfirmed: if track { limits.flows_unconfirmed } else { 1 },
            sources: if sources { limits.sources } else { 1 },
            source_addresses: if fullnat { limits.source_addresses } else { 0 },
            allow_prefixes: limits.allow_prefixes,
            deny_prefixes: limits.deny_prefixes,
        },
        hash_keys: keys,
        single_nic: nics == 1,
        have_nat: config.services.iter().any(|service| service.forward == Forward::Nat),
        take_over: false,
        observe: config.services.iter().any(|service| service.observe.is_some()),
        limit_openings: openings::wanted(config),
        track,
        quic: quic::wanted(config),
        fullnat,
        toa: config.services.iter().any(|service| service.toa),
        ports: ports::wanted(config),
        entropy: network::entropy(config),
        vlan: config.vlan,
        have_v6: true,
        log_level: options.packet_log,
    }
}

/// Seconds of Unix time.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Seconds of CLOCK_MONOTONIC, the time of slots.
fn monotonic_seconds() -> u64 {
    monotonic_milliseconds() / 1_000
}

/// Milliseconds of CLOCK_MONOTONIC.
fn monotonic_milliseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| std::time::Duration::from(time).as_millis() as u64)
}
