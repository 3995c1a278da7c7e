//! `lb node`

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    Exit,
    client::{Connection, block_on, report},
    exit::Coded,
    output, units,
};
use crate::api::{
    client::Client,
    types::{SetNode, Stats},
};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_millis(500);
/// A node to which nothing has come for so long is not sent traffic any more.
const QUIET: Duration = Duration::from_secs(3);

/// Have traffic sent to other nodes, or to this one again
///
/// `drain`: from now on `lb health` says "not forwarding", so that keepalived moves the VIPs and the watcher of configs/fleet
/// withdraws the announcement. Whatever still comes is forwarded as before. That holds while the daemon is away, and until `ready` or a reboot.
/// In a cluster, the flows go on through other nodes.
///
/// With --wait the command ends when no packet for a service has come for 3 s: now the node can be stopped. Health checks of the
/// VIP from elsewhere count as traffic. When the --deadline passes first, the exit code is 9; the node stays drained.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb node drain
  lb node drain --wait --deadline 1m && lb detach
  lb node ready")]
pub struct Node {
    /// What to do
    #[arg(value_enum)]
    action: Action,
    /// End when no traffic comes any more
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this (1s to 24h)
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = units::parse_limit)]
    deadline: Option<Duration>,
    /// Print JSON: {"changes": [..]}, with --wait also {"quiet", "packets"}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Have traffic sent to other nodes
    Drain,
    /// Have it sent here again
    Ready,
}

/// What came of waiting.
#[derive(Serialize)]
struct Waited {
    quiet: bool,
    packets: u64,
}

impl Node {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        let drain = self.action == Action::Drain;
        if self.wait && !drain {
            return Err(Coded::error(Exit::Usage, "--wait belongs to `lb node drain`".to_owned()));
        }
        let client = connection.client();
        let done = block_on(async { Ok(client.set_node(&SetNode { drain }).await?) })?;
        let exit = report(&done, self.json)?;
        match self.wait {
            true => block_on(self.wait(&client)),
            false => Ok(exit),
        }
    }

    async fn wait(&self, client: &Client) -> anyhow::Result<Exit> {
        let deadline = self.deadline.map(|time| Instant::now() + time);
        let first = packets(&client.stats().await?);
        let (mut seen, mut since) = (first, Instant::now());
        loop {
            let now = Instant::now();
            let quiet = now.duration_since(since) >= QUIET;
            if quiet || deadline.is_some_and(|deadline| deadline <= now) {
                return self.tell(quiet, seen.saturating_sub(first));
            }
            tokio::time::sleep(EVERY).await;
            let packets = packets(&client.stats().await?);
            if packets != seen {
                (seen, since) = (packets, Instant::now());
            }
        }
    }

    fn tell(&self, quiet: bool, packets: u64) -> anyhow::Result<Exit> {
        if self.json {
            output::print_json(&Waited { quiet, packets })?;
        } else if quiet {
            output::print(&format!("no traffic comes any more ({packets} packets since)\n"))?;
        }
        match quiet {
            true => Ok(Exit::Ok),
            false => {
                let message = "traffic still comes: is the announcement or the VIP withdrawn?";
                Err(Coded::error(Exit::Deadline, message.to_owned()))
            }
        }
    }
}

/// Packets of clients for all services.
fn packets(stats: &Stats) -> u64 {
    stats.services.iter().map(|service| service.total.packets_in).sum()
}
