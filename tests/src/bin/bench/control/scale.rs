//! How the control plane's costs grow: from one service to 10,000, from one backend to 10,000.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use lb_common::abi::BackendId;
use lb_tests::kernel::hash_keys;
use lb_userspace::{
    api::types::{Apply, SetBackend},
    plan::ring::{Member, owners, ring_length},
};

use super::{SETTLING, Scene, ask, client, resident, yaml};
use crate::{
    Args, progress,
    row::{Row, median},
};

/// Steps of both.
const STEPS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// Tables for the largest of them.
const TABLES: &str = "limits: {services: 16384, backends: 200000, ring_slots: 16000000}";
/// Of services that go, the numbers are given back some seconds later: so many fit into the table twice.
const TWICE: usize = 8_000;
/// Of the most that an adoption of 3,000 services of 30 backends may take, nothing is promised; this is how often it is measured.
const ADOPTIONS: (usize, usize) = (1, 5);

/// All rows.
pub fn measure(args: &Args) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if args.wants("control/ring") {
        rows.extend(rings(if args.quick { 3 } else { 9 }));
    }
    if args.wants("control/apply-services") {
        let steps = if args.quick { &STEPS[..4] } else { &STEPS };
        for services in steps {
            rows.push(apply("services", *services, 3)?);
        }
    }
    if args.wants("control/apply-backends") {
        for backends in STEPS {
            rows.push(apply("backends", 1, backends)?);
        }
    }
    if args.wants("control/change") {
        rows.push(one_of_a_thousand(if args.quick { 20 } else { 100 })?);
    }
    if args.wants("control/reload") || args.wants("control/adoption") {
        rows.extend(reload_and_adopt(if args.quick { ADOPTIONS.0 } else { ADOPTIONS.1 })?);
    }
    if args.wants("control/memory") {
        rows.extend(memory()?);
    }
    Ok(rows)
}

/// The pure part: a ring from nothing.
fn rings(rounds: usize) -> Vec<Row> {
    let keys = hash_keys();
    let row = |backends: usize| {
        let members: Vec<Member> = (0..backends)
            .map(|number| Member {
                id: BackendId(number as u32 + 1),
                address: std::net::IpAddr::from((0x0a01_0000 + number as u32).to_be_bytes()),
                port: 8_080,
                configured: 100,
                effective: 100,
                percent: 100,
                ramp: 100,
            })
            .collect();
        let times: Vec<f64> = (0..rounds)
            .map(|round| {
                progress(&format!("a ring of {backends} backends: {} of {rounds}", round + 1));
                let start = Instant::now();
                let slots = ring_length(members.iter().map(|member| member.configured), None);
                std::hint::black_box(owners(slots, &keys, &members));
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        Row::new("control", format!("control/ring/{backends}-backends"), "ms", &times, None)
    };
    STEPS.into_iter().map(row).collect()
}

/// From a configuration of one service to this one, by `lb apply`'s way: rings built and published.
fn apply(what: &str, services: usize, backends: usize) -> Result<Row> {
    let count = services.max(if what == "backends" { backends } else { 0 });
    progress(&format!("applying {count} {what}: 1 of 1"));
    // Once with, once without, so that each apply makes all of it anew.
    let (full, empty) = (yaml(TABLES, "", services, backends), yaml(TABLES, "", 1, 1));
    let mut scene = Scene::new()?;
    let mut daemon = scene.daemon(&empty)?;
    let mut times = Vec::new();
    for round in 0..3 {
        if round > 0 && services > TWICE {
            drop(daemon);
            scene = Scene::new()?;
            daemon = scene.daemon(&empty)?;
        }
        let client = client(&daemon);
        let start = Instant::now();
        ask(client.apply(&Apply {
            path: "full.yaml".into(),
            text: full.clone(),
            confirm_seconds: None,
        }))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ask(client.apply(&Apply {
            path: "one.yaml".into(),
            text: empty.clone(),
            confirm_seconds: None,
        }))?;
    }
    Ok(Row::new("control", format!("control/apply-{what}/{count}"), "ms", &times, None))
}

/// One backend's change, where a service has 1,000.
fn one_of_a_thousand(rounds: usize) -> Result<Row> {
    progress("one of 1,000 backends changes: 1 of 1");
    let scene = Scene::new()?;
    let daemon = scene.daemon(&yaml("", "", 1, 1_000))?;
    let client = client(&daemon);
    let mut times = Vec::new();
    for round in 0..rounds {
        let weight = if round % 2 == 0 { 50 } else { 100 };
        let set = SetBackend { admin: None, weight: Some(weight) };
        let start = Instant::now();
        ask(client.set_backend("s0", &format!("b{}", round * 7 % 1_000), &set))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let name = "control/change/one-of-1000-backends".to_owned();
    Ok(Row::new("control", name, "ms", &times, Some(5.0)))
}

/// 3,000 services of 30 backends: the file again with one backend less, and another daemon after a kill.
fn reload_and_adopt(rounds: usize) -> Result<Vec<Row>> {
    let scene = Scene::new()?;
    let full = yaml(TABLES, "", 3_000, 30);
    let less = full.replacen("name: b7, ", "name: b7, weight: 50, ", 1);
    let mut daemon = scene.daemon(&full)?;
    let (mut reloads, mut adoptions) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        progress(&format!("reload and adoption: {} of {rounds}", round + 1));
        let text = if round % 2 == 0 { less.clone() } else { full.clone() };
        let start = Instant::now();
        ask(client(&daemon).apply(&Apply {
            path: "full.yaml".into(),
            text,
            confirm_seconds: None,
        }))?;
        reloads.push(start.elapsed().as_secs_f64());
        daemon.kill()?;
        let start = Instant::now();
        daemon.start()?;
        adoptions.push(start.elapsed().as_secs_f64());
    }
    Ok(vec![
        Row::new("control", "control/reload/3000x30".to_owned(), "s", &reloads, None),
        Row::new("control", "control/adoption/3000x30".to_owned(), "s", &adoptions, None),
    ])
}

/// Anonymous memory for one more service, one more backend; and what the maps take, which the kernel counts apart.
fn memory() -> Result<Vec<Row>> {
    let measure = |services: usize, backends: usize| -> Result<(f64, f64)> {
        progress(&format!("memory of {services} x {backends}: 1 of 1"));
        let scene = Scene::new()?;
        let daemon = scene.daemon(&yaml(TABLES, "", services, backends))?;
        thread::sleep(SETTLING);
        Ok((resident(&daemon)? * 1_024.0, of_maps(&scene)?))
    };
    let (one, _) = measure(1, 10)?;
    let (many, tables) = measure(1_000, 10)?;
    let (more, _) = measure(1_000, 30)?;
    // With the tables that nobody has asked for.
    let scene = Scene::new()?;
    let _daemon = scene.daemon(&yaml("", "", 1, 10))?;
    let default = of_maps(&scene)?;
    let row = |name: &str, unit, value: f64| {
        Row::new("control", format!("control/memory/{name}"), unit, &[median(&[value])], None)
    };
    Ok(vec![
        row("per-service-of-10", "KiB", (many - one) / 999.0),
        row("per-backend", "KiB", (more - many) / 20_000.0),
        row("maps/default", "MiB", default),
        row("maps/16384-services", "MiB", tables),
    ])
}

/// What the kernel has charged for the maps that are pinned, MiB.
fn of_maps(scene: &Scene) -> Result<f64> {
    let pins = scene.lb.sh("find /sys/fs/bpf/lb -type f")?;
    let mut bytes = 0;
    for pin in pins.lines().map(str::to_owned) {
        bytes += scene.lb.run(move || charged(&pin));
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

/// Of one pin; what is no map has none.
fn charged(pin: &str) -> u64 {
    let read = || -> Result<u64> {
        let map = MapData::from_pin(pin)?;
        let text =
            fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        Ok(line.context("no memlock")?.trim().parse()?)
    };
    read().unwrap_or(0)
}
