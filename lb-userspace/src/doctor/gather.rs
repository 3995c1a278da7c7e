//! Finding out: the thin shell around the checks. It judges nothing, changes nothing, and what cannot be read stays
//! unknown.

mod ethtool;
mod netdev;
mod nic;
mod system;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::facts::{ConfigProblem, Daemon, Facts};
use crate::{
    api::client::Client,
    config::{self, model::Config},
    dataplane::{self, decap::decap_interfaces, probe},
    net::{Net, NetError, Snapshot},
};

/// Time the daemon has for each answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What to look at.
#[derive(Clone, Debug)]
pub struct Scope {
    /// A configuration file named by the user.
    pub config: Option<PathBuf>,
    /// The file to look at if nobody names one, and it exists.
    pub usual_config: PathBuf,
    /// NICs; empty = the daemon's, else the configuration's.
    pub interfaces: Vec<String>,
    /// Root of the pins.
    pub pin_dir: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
}

/// Finds everything out. Fails only where the kernel does not list its NICs.
pub async fn gather(scope: &Scope) -> Result<Facts, NetError> {
    let (_net, snapshots) = Net::start().await?;
    let snapshot = snapshots.borrow().clone();
    let daemon = daemon(scope).await;
    let config = configuration(scope, &daemon);
    let mut facts = Facts {
        kernel: system::kernel(probe::attempts()),
        process: system::process(&scope.pin_dir),
        loopback_addresses: loopback_addresses(&snapshot),
        daemon,
        config,
        ..Facts::default()
    };
    let decap = decap_interfaces(&scope.pin_dir).unwrap_or_default();
    facts.nics = nics(scope, &facts, &decap)
        .iter()
        .map(|name| nic::gather(name, &snapshot, &scope.pin_dir, decap.contains(name)))
        .collect();
    Ok(facts)
}

async fn daemon(scope: &Scope) -> Daemon {
    let client = Client::new(&scope.socket).with_timeout(ANSWER);
    let attached = dataplane::attachments_of(&scope.pin_dir)
        .into_iter()
        .filter(|attachment| attachment.ifindex != 0)
        .map(|attachment| attachment.ifname)
        .collect();
    let mut daemon = Daemon { attached, ..Daemon::default() };
    match client.status().await {
        Ok(status) => {
            let pid = status.pid;
            daemon.missing = system::missing_capabilities(pid);
            daemon.open_files = system::open_files(pid);
            daemon.memory_limit = system::memory_limit(pid);
            daemon.status = Some(status);
            daemon.why = client.why(None).await.ok();
        }
        Err(error) => daemon.away = Some(error.to_string()),
    }
    daemon
}

fn configuration(scope: &Scope, daemon: &Daemon) -> Option<Result<Config, ConfigProblem>> {
    let of_daemon = || daemon.status.as_ref().map(|status| PathBuf::from(&status.config));
    let usual = || Some(scope.usual_config.clone()).filter(|path| path.exists());
    let path = scope.config.clone().or_else(of_daemon).or_else(usual)?;
    Some(config::load(&path).map(|parsed| parsed.config).map_err(|errors| {
        let problem = errors.to_string().lines().next().unwrap_or_default().to_owned();
        ConfigProblem { path, problem }
    }))
}

fn nics(scope: &Scope, facts: &Facts, decap: &[String]) -> Vec<String> {
    let mut names = scope.interfaces.clone();
    if names.is_empty() {
        if let Some(status) = &facts.daemon.status {
            names.extend(status.interfaces.iter().map(|nic| nic.name.clone()));
        } else if let Some(config) = facts.config() {
            names.extend(config.interfaces.iter().cloned());
        }
        names
            .extend(decap.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
    }
    names
}

/// VIPs of a backend: addresses on `lo` that are not the loopback's own.
fn loopback_addresses(snapshot: &Snapshot) -> Vec<IpAddr> {
    let Some(lo) = snapshot.link_by_name("lo") else { return Vec::new() };
    snapshot
        .addresses
        .iter()
        .filter(|entry| entry.ifindex == lo.ifindex && !entry.address.is_loopback())
        .map(|entry| entry.address)
        .filter(IpAddr::is_ipv4)
        .collect()
}

/// A file's text; `None` where it cannot be read.
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
