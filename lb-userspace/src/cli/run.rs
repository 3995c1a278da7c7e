//! `lb run`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    Exit,
    client::Connection,
    exit::Coded,
    output,
    paths::{PinDir, RunDir},
};
use crate::{
    allocator,
    cluster::message::is_name,
    control::{self, options::RunOptions},
    dataplane,
    etcd::{Location, location::SCHEME},
    log, privileges,
};

/// The configuration file, if none is named.
pub const CONFIG: &str = "/etc/lb/lb.yaml";

/// Run the daemon: attach, probe, and apply the file whenever it changes
///
/// Attaches the XDP program to the NICs that the file (or --iface) names, in the foreground, and logs to standard error
/// (LB_LOG=debug for more, `lb log debug` while it runs). Program, links and maps are pinned: when the daemon stops, is killed or restarted, packets
/// are forwarded all the same, and the next start adopts everything. `lb detach` ends forwarding.
///
/// Nodes that share a configuration follow the key PREFIX/config of an etcd (3.4 or later): each new revision is checked and applied
/// as a whole or refused, with its errors in `lb status`, `lb fleet status` and the log; the last good one stays in force, and is kept in the state directory
/// for a start while etcd is away. Each node keeps a report under PREFIX/nodes/NAME. Options: tls=true, ca_file=PATH, cert_file=PATH and
/// key_file=PATH (this node's own certificate), user=NAME and password_file=PATH; files with secrets have mode 0600.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb run --config lb.yaml --iface eth0
  LB_LOG=debug lb run --config lb.yaml --iface eth0 --iface eth1
  lb run --config etcd://10.0.0.5,10.0.0.6,10.0.0.7/lb?ca_file=/etc/lb/ca.pem --node lb1
  systemctl start lb                  as a service: configs/systemd/lb.service")]
pub struct Run {
    /// The configuration file; or etcd://HOST[:PORT][,HOST..]/PREFIX[?OPTION=VALUE&..], where nodes share it
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// A NIC to attach to, instead of the file's `interfaces`; may be repeated
    #[arg(short, long = "iface", value_name = "NIC")]
    interfaces: Vec<String>,
    #[command(flatten)]
    pins: PinDir,
    #[command(flatten)]
    run: RunDir,
    /// Directory of the hash seed, which nodes of a cluster share
    #[arg(long, value_name = "DIR", default_value = "/var/lib/lb")]
    state_dir: PathBuf,
    /// This node's name in its cluster, where each has another; without it the host's
    #[arg(long, value_name = "NAME", env = "LB_NODE", value_parser = node_name)]
    node: Option<String>,
    /// Log rare events of the packet path
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = PacketLog::Off)]
    packet_log: PacketLog,
    /// Take another XDP program off a NIC, and accept a VIP and port that this host itself uses
    #[arg(long)]
    force: bool,
    /// Take over from a version of lb with other tables even while rings are on their way after a change, or after it was killed:
    /// flows that the change has moved may break
    #[arg(long)]
    take_over: bool,
    /// Log as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Levels of the packet path's log.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PacketLog {
    /// Nothing; costs nothing
    Off,
    /// Faults of lb
    Error,
    /// And what needs attention
    Warn,
    /// And rare events
    Info,
    /// And decisions
    Debug,
    /// And everything
    Trace,
}

impl Run {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        // Before there are threads: each begins with it.
        privileges::gain_no_more()?;
        allocator::keep_large_blocks_apart();
        let _log = start_log(self.json)?;
        // Said before anything is tried.
        dataplane::check_permission()?;
        let shared = shared(&self.config)?;
        let config = match &shared {
            None => self.config,
            Some(_) => self.state_dir.join(control::LAST_GOOD),
        };
        let options = RunOptions {
            socket: connection.path(&self.run.run_dir),
            config,
            shared,
            interfaces: self.interfaces,
            pin_dir: self.pins.pin_dir,
            run_dir: self.run.run_dir,
            state_dir: self.state_dir,
            node: self.node.unwrap_or_else(host_name),
            packet_log: self.packet_log as u8,
            take_over: self.take_over,
            force: self.force,
        };
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .on_thread_start(|| {
                if let Err(error) = privileges::give_up() {
                    tracing::warn!("{error:#}");
                }
            })
            .build()
            .context("cannot start the runtime")?
            .block_on(control::run(options))?;
        Ok(Exit::Ok)
    }
}

/// The place in etcd, if it is one.
fn shared(config: &Path) -> anyhow::Result<Option<Location>> {
    let text = config.to_string_lossy();
    if !text.starts_with(SCHEME) {
        return Ok(None);
    }
    let location = text.parse();
    location
        .map(Some)
        .map_err(|error: String| Coded::error(Exit::Usage, format!("--config {text}: {error}")))
}

/// A name that can stand in metrics and on terminals as it is.
fn node_name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, `.`, `_` and `-`".to_owned()),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    node_name(name.trim()).unwrap_or_else(|_| "node".to_owned())
}

fn start_log(json: bool) -> anyhow::Result<log::Guard> {
    let text = std::env::var("LB_LOG").unwrap_or_else(|_| log::DEFAULT.to_owned());
    let filter =
        log::parse(&text).map_err(|error| Coded::error(Exit::Usage, format!("LB_LOG: {error}")))?;
    log::start(filter, json, output::wants_colour())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_packet_path() {
        let levels = [PacketLog::Off, PacketLog::Error, PacketLog::Warn, PacketLog::Trace];
        assert_eq!(levels.map(|level| level as u8), [0, 1, 2, 5]);
    }
}
