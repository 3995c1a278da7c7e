//! `lb fleet`

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    Exit,
    client::{Connection, block_on},
    exit::Coded,
    output::{self, Style, clean, number_cell, table_text},
};
use crate::{
    api::types::{FleetNode, FleetStatus, NodeReport},
    config::{self, Source},
    etcd::{self, Location},
};

/// Show the nodes that share a configuration by etcd, or put a new one there for all of them
///
/// `status`: what each node has last told: the revision that it runs, the one that it has refused and why, its usable backends, the fingerprint
/// of its rings. What it has otherwise than the others stands under DIFFERS. A node of which nothing was heard for 20 s is not shown.
///
/// `put`: checks the file, and writes it to PREFIX/config in one revision, unless somebody else has written there meanwhile. Every node
/// judges it on its own, too; `lb fleet status` tells what came of it. Any other way of writing the key will do, such as `etcdctl put`.
///
/// Where the configuration is, is asked of the daemon on this host, unless --config names it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb fleet status
  lb fleet status --json | jq '.nodes[] | select(.differs != [])'
  lb fleet put lb.yaml --config etcd://10.0.0.5/lb")]
pub struct Fleet {
    /// What to do
    #[arg(value_enum)]
    action: Action,
    /// For `put`: the configuration
    file: Option<PathBuf>,
    /// The shared configuration, as `lb run --config` has it: etcd://..
    #[arg(short, long, value_name = "URL")]
    config: Option<Location>,
    /// Print JSON: the nodes with their reports; of `put` {"revision"}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Show the nodes
    Status,
    /// Write the configuration of all of them
    Put,
}

#[derive(Serialize)]
struct Written {
    revision: u64,
}

impl Fleet {
    /// Does it.
    pub fn execute(self, connection: &Connection) -> anyhow::Result<Exit> {
        match (self.action, &self.file) {
            (Action::Status, None) => self.status(connection),
            (Action::Put, Some(file)) => self.put(connection, file.clone()),
            (Action::Status, Some(_)) => Err(usage("`lb fleet status` takes no file")),
            (Action::Put, None) => Err(usage("`lb fleet put` needs a file")),
        }
    }

    async fn location(&self, connection: &Connection) -> anyhow::Result<Location> {
        if let Some(location) = &self.config {
            return Ok(location.clone());
        }
        let Some(shared) = connection.client().status().await?.shared else {
            return Err(usage(
                "the daemon on this host has its configuration from a file: name the shared one by --config etcd://..",
            ));
        };
        shared.url.parse().map_err(anyhow::Error::msg)
    }

    fn status(&self, connection: &Connection) -> anyhow::Result<Exit> {
        let fleet = block_on(async {
            let location = self.location(connection).await?;
            let (config, reports) = etcd::reports(&location).await.map_err(anyhow::Error::msg)?;
            let (revision, version, hash) = config.map_or((0, 0, String::new()), |entry| {
                (entry.revision, entry.version, crate::control::text_hash(&entry.text))
            });
            let nodes = reports.into_iter().map(read_report).collect();
            Ok(compare(location.to_string(), (revision, version, &hash), nodes))
        })?;
        match self.json {
            true => output::print_json(&fleet)?,
            false => output::print(&render(&fleet, Style::of_stdout()))?,
        }
        Ok(Exit::Ok)
    }

    fn put(&self, connection: &Connection, path: PathBuf) -> anyhow::Result<Exit> {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        // Files of prefixes are the nodes' own.
        config::parse(&Source { path, text: text.clone() })?;
        let written = block_on(async {
            let location = self.location(connection).await?;
            let before = etcd::fetch(&location).await.map_err(anyhow::Error::msg)?;
            let before = before.map_or(0, |entry| entry.revision);
            etcd::put(&location, &text, before).await.map_err(anyhow::Error::msg)
        })?;
        let Some(revision) = written else {
            anyhow::bail!("somebody else has just written the configuration: look, and try again");
        };
        match self.json {
            true => output::print_json(&Written { revision })?,
            false => output::print(&format!(
                "revision {revision} is written; `lb fleet status` shows which nodes run it\n"
            ))?,
        }
        Ok(Exit::Ok)
    }
}

fn usage(text: &str) -> anyhow::Error {
    Coded::error(Exit::Usage, text)
}

/// A report that cannot be read is one of a node of which nothing is known.
fn read_report((name, text): (String, String)) -> NodeReport {
    let report = serde_json::from_str(&text).unwrap_or_default();
    NodeReport { node: name, ..report }
}

/// Marks what nodes have otherwise than the configuration, or than most of the others.
fn compare(
    url: String,
    (revision, version, hash): (u64, u64, &str),
    reports: Vec<NodeReport>,
) -> FleetStatus {
    let health = |one: &NodeReport| {
        let down = one.services.iter().map(|service| (&service.name, &service.down));
        format!("{} {} {:?}", one.up, one.backends, down.collect::<Vec<_>>())
    };
    let seed = most(reports.iter().map(|one| one.seed.clone()));
    let rings = most(reports.iter().map(|one| one.rings.clone()));
    let views = most(reports.iter().map(health));
    let node = |report: NodeReport| {
        let is_newest = report.revision == revision;
        let differs = [
            ("revision", !is_newest),
            ("text", is_newest && report.hash != hash),
            ("seed", report.seed != seed),
            ("rings", report.rings != rings),
            ("health", health(&report) != views),
        ];
        let differs = differs.iter().filter(|(_, differs)| *differs);
        FleetNode {
            lag: version.saturating_sub(report.version),
            differs: differs.map(|(what, _)| (*what).to_owned()).collect(),
            report,
        }
    };
    let nodes: Vec<FleetNode> = reports.into_iter().map(node).collect();
    let in_step = !nodes.is_empty() && nodes.iter().all(|node| node.differs.is_empty());
    FleetStatus { url, revision, version, in_step, nodes }
}

/// What most have; of equals the first by order, so that every caller finds the same.
fn most(all: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    let best = counts.into_iter().rev().max_by_key(|(_, count)| *count);
    best.map(|(one, _)| one).unwrap_or_default()
}

fn render(fleet: &FleetStatus, style: Style) -> String {
    let mut text = match fleet.revision {
        0 => format!("{}: no configuration\n", clean(&fleet.url)),
        revision => format!("{}: revision {revision}\n", clean(&fleet.url)),
    };
    if fleet.nodes.is_empty() {
        text.push_str("no nodes\n");
        return text;
    }
    let headings =
        ["NODE", "STATE", "REVISION", "LAG", "UP", "RINGS", "SEED", "WARNINGS", "DIFFERS"];
    let mut table = style.table(&headings);
    for FleetNode { report, lag, differs } in &fleet.nodes {
        let revision = match (report.trial, report.revision) {
            (true, _) => "on trial".to_owned(),
            (false, 0) => "-".to_owned(),
            (false, revision) => revision.to_string(),
        };
        table.add_row([
            clean(&report.node).into(),
            style.state_cell(&clean(&report.state)),
            number_cell(revision),
            number_cell(lag),
            number_cell(format!("{}/{}", report.up, report.backends)),
            clean(&report.rings).into(),
            clean(&report.seed).into(),
            number_cell(report.warnings),
            clean(&differs.join(" ")).into(),
        ]);
    }
    text.push('\n');
    text.push_str(&table_text(&table, ""));
    for FleetNode { report, .. } in &fleet.nodes {
        if let Some(refused) = &report.refused {
            let error = output::clean_lines(&refused.error).replace('\n', "\n  ");
            let node = clean(&report.node);
            text.push_str(&format!(
                "\n{node} has refused revision {}:\n  {}\n",
                refused.revision,
                error.trim_end()
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::RefusedRevision;

    fn report(node: &str, revision: u64) -> NodeReport {
        NodeReport {
            node: node.into(),
            state: "forwarding".into(),
            revision,
            version: revision - 10,
            hash: format!("hash {revision}"),
            seed: "a1b2c3d4".into(),
            rings: "01020304".into(),
            up: 3,
            backends: 3,
            ..NodeReport::default()
        }
    }

    #[test]
    fn who_differs_is_marked() {
        let behind = NodeReport {
            refused: Some(RefusedRevision { revision: 15, error: "lb/config@15:1:1: no".into() }),
            rings: "05060708".into(),
            up: 2,
            ..report("n3", 14)
        };
        let nodes = vec![report("n1", 15), report("n2", 15), behind];
        let fleet = compare("etcd://a:2379/lb".into(), (15, 5, "hash 15"), nodes);
        assert!(!fleet.in_step);
        assert_eq!(fleet.nodes[0].differs, [""; 0]);
        assert_eq!(
            (fleet.nodes[2].lag, fleet.nodes[2].differs.join(" ")),
            (1, "revision rings health".into())
        );
        let expected = "\
etcd://a:2379/lb: revision 15

NODE  STATE       REVISION  LAG  UP   RINGS     SEED      WARNINGS  DIFFERS
n1    forwarding        15    0  3/3  01020304  a1b2c3d4         0
n2    forwarding        15    0  3/3  01020304  a1b2c3d4         0
n3    forwarding        14    1  2/3  05060708  a1b2c3d4         0  revision rings health

n3 has refused revision 15:
  lb/config@15:1:1: no
";
        let text = render(&fleet, Style::PLAIN);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_fleet_in_step_is_said_to_be() {
        let nodes = vec![report("n1", 15), report("n2", 15)];
        assert!(compare(String::new(), (15, 5, "hash 15"), nodes).in_step);
        assert!(!compare(String::new(), (15, 5, "hash 15"), Vec::new()).in_step);
        let by_hand = NodeReport { hash: "other".into(), ..report("n1", 15) };
        let fleet = compare(String::new(), (15, 5, "hash 15"), vec![by_hand]);
        assert_eq!(fleet.nodes[0].differs, ["text"]);
        let unread = read_report(("n9".into(), "no JSON".into()));
        assert_eq!((unread.node.as_str(), unread.revision), ("n9", 0));
    }
}
