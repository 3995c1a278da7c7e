//! Faults that lb recovers from by itself, and how long that takes: for the tests, which ask whether, and for the
//! benchmark, which asks when.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    bpf, client,
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
};

/// After this a recovery has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one request of the watch may take.
const BLINK: Duration = Duration::from_millis(100);

/// A service of one backend over nat, two-armed.
struct Scene {
    lab: Lab,
}

impl Scene {
    fn new() -> Result<Self> {
        Ok(Self { lab: Lab::new(Arms::Two, Return::ThroughLb, 1)? })
    }

    fn daemon(&self) -> Result<Daemon<'_>> {
        let yaml = format!(
            "services:\n  - name: web\n    listen: {{address: {VIP4}, port: {PORT}}}\n    forward: nat\n    backends:\n      \
             - {{name: web1, address: \"{}:{PORT}\"}}\n",
            backend4(1)
        );
        let mut daemon = Daemon::new(&self.lab.lb, &self.lab.nics, &yaml)?;
        daemon.start()?;
        daemon.wait_ready(&["NOLB"]);
        self.traffic_after(Instant::now()).context("before the fault")?;
        Ok(daemon)
    }

    /// Time from `start` until a request is answered.
    fn traffic_after(&self, start: Instant) -> Result<Duration> {
        loop {
            let target = SocketAddr::new(VIP4, PORT);
            if client::is_answered(&self.lab.client, target, BLINK) {
                return Ok(start.elapsed());
            }
            ensure!(start.elapsed() < PATIENCE, "no request is answered");
        }
    }
}

/// A recovery to be measured.
pub struct Recovery {
    /// Name of its row.
    pub name: &'static str,
    /// What it must not exceed.
    pub limit: Duration,
    /// Builds the scene, does the damage and tells how long the recovery took.
    pub measure: fn() -> Result<Duration>,
}

/// All of them.
pub const ALL: [Recovery; 4] = [
    Recovery {
        name: "nic-down-and-up/traffic-after-carrier",
        limit: Duration::from_secs(1),
        measure: nic_comes_up,
    },
    Recovery {
        name: "nic-made-anew/attached",
        limit: Duration::from_secs(2),
        measure: nic_is_made_anew,
    },
    Recovery {
        name: "backend-mac-moved/traffic",
        limit: Duration::from_secs(5),
        measure: mac_moves,
    },
    Recovery {
        name: "program-detached/traffic",
        limit: Duration::from_secs(5),
        measure: program_is_detached,
    },
];

fn nic_comes_up() -> Result<Duration> {
    let scene = Scene::new()?;
    let daemon = scene.daemon()?;
    scene.lab.lb.ip("link set lb1 down")?;
    daemon.wait("the NIC is seen down", PATIENCE, |status| status.interfaces[1].link == "down");
    scene.lab.lb.ip("link set lb1 up")?;
    scene.traffic_after(Instant::now())
}

fn nic_is_made_anew() -> Result<Duration> {
    let scene = Scene::new()?;
    let daemon = scene.daemon()?;
    scene.lab.lb.ip("link del lb1")?;
    daemon.wait("the NIC is seen gone", PATIENCE, |status| status.interfaces[1].ifindex.is_none());
    let _pass = scene.lab.rebuild_inner_link()?;
    let start = Instant::now();
    daemon.wait("attached anew", PATIENCE, |status| status.interfaces[1].mode == "native");
    Ok(start.elapsed())
}

fn mac_moves() -> Result<Duration> {
    let scene = Scene::new()?;
    let _daemon = scene.daemon()?;
    scene.lab.backends[0]
        .sh("ip link set e0 down; ip link set e0 address 02:00:00:00:be:ef; ip link set e0 up; \
         ip route add default via 10.77.0.1")?;
    scene.traffic_after(Instant::now())
}

fn program_is_detached() -> Result<Duration> {
    let scene = Scene::new()?;
    let _daemon = scene.daemon()?;
    detach_by_hand(&scene.lab, "lb0")?;
    let start = Instant::now();
    scene.traffic_after(start)
}

/// `bpftool link detach` of lb's program on a NIC, as an operator may do it.
pub fn detach_by_hand(lab: &Lab, nic: &str) -> Result<()> {
    let pin = lab.lb.sh(&format!("ls -d /sys/fs/bpf/lb/v*/links/{nic}:*"))?;
    let pin = PathBuf::from(pin.trim());
    lab.lb.run(move || bpf::detach_link(&pin).with_context(|| pin.display().to_string()))
}
