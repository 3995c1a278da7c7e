//! What the control plane costs at scale: the real daemon, optimised, with thousands of services and backends.

mod scale;

use std::{
    fmt::Write as _,
    fs,
    future::Future,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use lb_common::abi::{BackendId, Slot, map};
use lb_tests::{crowd::Crowd, daemon::Daemon, lab::PORT, machine::Machine, maps};
use lb_userspace::api::{
    client::{Client, ClientError},
    types::{Apply, SetBackend},
};

use crate::{
    Args, progress,
    row::{Row, median},
};

/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(120);
/// A second after a configuration was read, the daemon gives back what that took.
const SETTLING: Duration = Duration::from_secs(3);
/// Services and backends of the large configuration.
const LARGE: (usize, usize) = (3_000, 30);

/// What its being applied may take, seconds.
const APPLIED_WITHIN: f64 = 1.0;
/// How often it is measured again if it takes longer.
const MORE: usize = 2;

/// All rows.
pub fn measure(args: &Args) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if args.wants("control/health-to-packet-path") {
        rows.push(health_to_packet_path(if args.quick { 5 } else { 20 })?);
    }
    if args.wants("control/apply") || args.wants("control/one-backend") {
        rows.extend(large(if args.quick { 1 } else { 5 })?);
    }
    if args.wants("control/rss-anon") {
        rows.push(memory()?);
    }
    if args.wants("control/probes") {
        rows.extend(probes(if args.quick { 5 } else { 20 })?);
    }
    rows.extend(scale::measure(args)?);
    progress("");
    Ok(rows)
}

/// lb's machine, the crowd beside it, and a directory in memory as /run is.
struct Scene {
    lb: Machine,
    crowd: Crowd,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Self> {
        let lb = Machine::new("lb")?;
        let crowd = Crowd::beside(&lb)?;
        Ok(Self { lb, crowd, directory: tempfile::tempdir_in("/dev/shm")? })
    }

    fn daemon(&self, yaml: &str) -> Result<Daemon<'_>> {
        let mut daemon = Daemon::in_directory(&self.lb, &["lb0"], yaml, self.directory.path())?;
        daemon.start()?;
        Ok(daemon)
    }
}

/// A configuration: so many services with so many backends each, all of different addresses.
fn yaml(head: &str, keys: &str, services: usize, backends: usize) -> String {
    let mut text = format!("{head}\nservices:\n");
    for service in 0..services {
        let vip =
            format!("198.{}.{}.{}", 18 + service / 62_500, service / 250 % 250, service % 250 + 1);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "  - name: s{service}\n    listen: {{address: {vip}, port: 80}}\n    forward: nat\n{keys}    backends:\n"
        );
        for backend in 0..backends {
            let address = Crowd::address(service * backends + backend);
            let _ = writeln!(text, "      - {{name: b{backend}, address: \"{address}:{PORT}\"}}");
        }
    }
    text
}

/// Runs requests of the control socket.
fn ask<T>(request: impl Future<Output = Result<T, ClientError>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(request)?)
}

fn client(daemon: &Daemon<'_>) -> Client {
    Client::new(&daemon.socket).with_timeout(PATIENCE)
}

/// The arena of slots, as the packet path sees it.
struct Arena {
    map: MapData,
}

impl Arena {
    fn open(lb: &Machine) -> Result<Self> {
        let line = format!("find /sys/fs/bpf/lb -name {}", map::ARENA);
        let pin = PathBuf::from(lb.sh(&line)?.trim());
        let map =
            lb.run(move || MapData::from_pin(&pin).with_context(|| pin.display().to_string()))?;
        Ok(Self { map })
    }

    fn owner(&self, place: u32) -> Result<BackendId> {
        let value = maps::value(&self.map, &place.to_ne_bytes(), 8)?.context("no such slot")?;
        let value: [u8; 8] = value.as_slice().try_into()?;
        Ok(Slot(u64::from_ne_bytes(value)).owner())
    }
}

/// From the health page's answer to the last slot of the backend, for a service of 1,000 backends.
fn health_to_packet_path(rounds: usize) -> Result<Row> {
    const BACKENDS: usize = 1_000;
    let head = "backend_defaults: {inter: 1s, fastinter: 1s, downinter: 1s, rise: 1, fall: 1, timeout: 5s}";
    let keys = "    check: {type: http, path: /healthz}\n";
    let scene = Scene::new()?;
    let daemon = scene.daemon(&yaml(head, keys, 1, BACKENDS))?;
    let status = daemon.wait("all backends are UP", PATIENCE, |status| {
        status.services.iter().flat_map(|service| &service.backends).all(|one| one.state == "UP")
    });
    // The first ring is at the arena's beginning, and ids are given in the order of the file.
    let slots = status.services[0].slots;
    let length = slots.settled + slots.window + slots.harvest + slots.pinned;
    let arena = Arena::open(&scene.lb)?;
    let mut ends = vec![None; BACKENDS + 1];
    for place in 0..length {
        let owner = arena.owner(place)?.0 as usize;
        let ends = ends.get_mut(owner).context("ids are not what they were taken for")?;
        *ends = Some((ends.map_or(place, |(first, _)| first), place));
    }
    let mut times = Vec::new();
    for round in 0..rounds {
        progress(&format!("health to packet path: {} of {rounds}", round + 1));
        let number = round * 37 % BACKENDS;
        let id = BackendId(number as u32 + 1);
        let (first, last) = ends[id.0 as usize].context("a backend has no slot")?;
        for healthy in [false, true] {
            let start = Instant::now();
            scene.crowd.set_healthy(number, healthy);
            // Slots change in the order of their places, or against it.
            while (arena.owner(first)? == id) != healthy || (arena.owner(last)? == id) != healthy {
                ensure!(start.elapsed() < PATIENCE, "nothing has changed\n{}", daemon.log_tail());
            }
            let changed = Instant::now();
            let said = scene.crowd.said(number, healthy).context("the page has not said so")?;
            times.push(changed.saturating_duration_since(said).as_secs_f64() * 1e3);
        }
    }
    let name = "control/health-to-packet-path/1000-backends";
    Ok(Row::new("control", name.to_owned(), "ms", &times, Some(5.0)))
}

/// A large configuration as a whole, and one backend's change in it.
fn large(rounds: usize) -> Result<Vec<Row>> {
    // The tables are loaded for it, with something else in force.
    let first = "limits: {services: 8192, backends: 200000, ring_slots: 16000000}";
    let (services, backends) = LARGE;
    let text = yaml(first, "", services, backends);
    let (mut applies, mut changes) = (Vec::new(), Vec::new());
    for round in 1..=rounds + MORE {
        if round > rounds && median(&applies) <= APPLIED_WITHIN {
            break;
        }
        progress(&format!("a large configuration: {round} of {rounds}"));
        let scene = Scene::new()?;
        let daemon = scene.daemon(&yaml(first, "", 1, 1))?;
        let client = client(&daemon);
        let apply = Apply { path: "large.yaml".into(), text: text.clone(), confirm_seconds: None };
        let start = Instant::now();
        ask(client.apply(&apply))?;
        applies.push(start.elapsed().as_secs_f64());
        for number in 0..20 {
            let service = format!("s{}", number * services / 20);
            let set = SetBackend { admin: None, weight: Some(50) };
            let start = Instant::now();
            ask(client.set_backend(&service, "b7", &set))?;
            changes.push(start.elapsed().as_secs_f64() * 1e3);
        }
        eprintln!("RssAnon with {services} services: {:.1} MiB", resident(&daemon)?);
    }
    Ok(vec![
        Row::new(
            "control",
            "control/apply/3000x30".to_owned(),
            "s",
            &applies,
            Some(APPLIED_WITHIN),
        ),
        Row::new("control", "control/one-backend/3000x30".to_owned(), "ms", &changes, Some(5.0)),
    ])
}

/// What 1,000 services of ten backends take.
fn memory() -> Result<Row> {
    progress("memory: 1 of 1");
    let scene = Scene::new()?;
    let daemon = scene.daemon(&yaml("", "", 1_000, 10))?;
    thread::sleep(SETTLING);
    let resident = resident(&daemon)?;
    let name = "control/rss-anon/1000-services".to_owned();
    Ok(Row::new("control", name, "MiB", &[resident], Some(32.0)))
}

/// What one daemon takes that probes 10,000 backends every two seconds.
fn probes(seconds: u64) -> Result<Vec<Row>> {
    progress("probes: 1 of 1");
    let scene = Scene::new()?;
    let daemon = scene.daemon(&yaml("", "    check: {type: tcp}\n", 100, 100))?;
    daemon.wait("all backends are UP", PATIENCE, |status| {
        status.services.iter().flat_map(|service| &service.backends).all(|one| one.state == "UP")
    });
    let (before, start) = (cpu(&daemon)?, Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let share = (cpu(&daemon)? - before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    let resident = resident(&daemon)?;
    let name = |what: &str| format!("control/probes/10000-backends/{what}");
    Ok(vec![
        Row::new("control", name("cpu"), "% of a CPU", &[share], None),
        Row::new("control", name("rss-anon"), "MiB", &[resident], None),
    ])
}

/// RssAnon of the daemon, MiB.
fn resident(daemon: &Daemon<'_>) -> Result<f64> {
    let pid = daemon.pid().context("the daemon does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no RssAnon")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// CPU time of the daemon so far (fields 14 and 15 of /proc/PID/stat, in hundredths of a second).
fn cpu(daemon: &Daemon<'_>) -> Result<Duration> {
    let pid = daemon.pid().context("the daemon does not run")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
