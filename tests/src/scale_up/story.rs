//! The story: failures one after another under a continuous load, and what each has cost.

use std::{collections::BTreeSet, process::Command, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    APP, AT_START, DB, DB_AT_START, ScaleUp, Tiers, WEB,
    sessions::{Moved, Sessions},
    visitors::Visitors,
};
use crate::{
    client::wait_for,
    daemon::{backend, lb_binary},
    node::{Node, start_all},
    pulse::Pulse,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Answers to wait for after a change, at 20 requests a second.
const A_WHILE: u64 = 40;

/// Long-lived connections through the web tier.
pub const VISITORS: usize = 1000;

/// Sessions that come back after each event.
pub const SESSIONS: usize = 40;

/// What one event has cost.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What happened.
    pub event: String,
    /// Web servers that answered meanwhile.
    pub web_servers: usize,
    /// Databases that were written meanwhile.
    pub databases: BTreeSet<String>,
    /// Requests answered meanwhile.
    pub answered: u64,
    /// Requests failed.
    pub failed: u64,
    /// Long-lived connections broken, of [`VISITORS`].
    pub broken: usize,
    /// Sessions that came back and were served by another web server, of [`SESSIONS`].
    pub moved_web: usize,
    /// Sessions that had their web server and another application server.
    pub moved_app: usize,
    /// The servers that those had before.
    pub moved_from: BTreeSet<String>,
    /// The longest time between two answers, milliseconds.
    pub longest_gap_ms: u64,
}

/// The infrastructure in operation, and what has been seen so far.
pub struct Story<'a> {
    lab: &'a ScaleUp,
    /// lb-a and lb-b.
    pub nodes: [Node<'a>; 2],
    pulse: Pulse,
    visitors: Visitors,
    sessions: Sessions<'a>,
    rows: Vec<Row>,
}

impl<'a> Story<'a> {
    /// Starts every server, both nodes and the load; returns when all tiers answer and lb-a has the VIPs.
    pub fn begin(lab: &'a ScaleUp) -> anyhow::Result<Self> {
        lab.start_servers()?;
        let mut nodes = [lab.node(0)?, lab.node(1)?];
        start_all(&mut nodes)?;
        let pulse = super::load::start(lab)?;
        wait_for("lb-a has the VIPs", MINUTE, || nodes[0].has("10.80.0.10"), |has| *has);
        for server in
            ["web/web1", "web/web2", "web/web3", "app/app1", "app/app2", "app/app3", "db/db1"]
        {
            wait_state(&nodes, server, "UP");
        }
        let visitors = Visitors::start(lab, VISITORS)?;
        let sessions = Sessions::start(lab, SESSIONS)?;
        let story = Self { lab, nodes, pulse, visitors, sessions, rows: Vec::new() };
        story.wait_in_step();
        story.wait_for_answers(A_WHILE);
        story.pulse.take();
        Ok(story)
    }

    /// Who has served how many pages: `web1 app2 db1`.
    pub fn served(&self) -> std::collections::BTreeMap<String, u64> {
        self.pulse.look().answered
    }

    /// Ends the load.
    pub fn finish(self) -> Vec<Row> {
        self.pulse.finish();
        self.rows
    }

    /// All failures.
    pub fn tell(&mut self) -> anyhow::Result<()> {
        self.daemon_killed()?;
        self.node_killed()?;
        self.server_killed("web1", "web/web1", "a web server", |lab| lab.start_web(1))?;
        self.server_killed("app1", "app/app1", "an application server", |lab| lab.start_app(1))?;
        self.database_killed()?;
        self.database_tier_scaled()?;
        self.app_tier_scaled()?;
        self.web_tier_scaled()
    }

    fn daemon_killed(&mut self) -> anyhow::Result<()> {
        self.nodes[0].daemon.kill()?;
        self.wait_for_answers(A_WHILE);
        self.nodes[0].daemon.start()?;
        self.wait_for_answers(A_WHILE / 4);
        self.note("lb's daemon killed on the active node, started again");
        Ok(())
    }

    fn node_killed(&mut self) -> anyhow::Result<()> {
        self.nodes[0].crash()?;
        wait_for("lb-b has the VIPs", MINUTE, || self.nodes[1].has("10.80.0.10"), |has| *has);
        self.wait_for_answers(A_WHILE);
        self.note("the active lb node dead");
        self.nodes[0].boot()?;
        self.wait_active(0);
        self.wait_in_step();
        self.wait_for_answers(A_WHILE);
        self.note("that node back, and active again");
        Ok(())
    }

    /// The death of a node once more, with advertisements every 100 ms: for machines that are not too busy to send them.
    pub fn node_killed_with_fast_advertisements(&mut self) -> anyhow::Result<()> {
        self.advertise_every("0.1")?;
        self.pulse.take();
        self.nodes[0].crash()?;
        wait_for("lb-b has the VIPs", MINUTE, || self.nodes[1].has("10.80.0.10"), |has| *has);
        self.wait_for_answers(A_WHILE);
        self.note("the active lb node dead, with advertisements every 100 ms");
        self.nodes[0].boot()?;
        self.wait_active(0);
        self.advertise_every("1")?;
        self.pulse.take();
        Ok(())
    }

    fn advertise_every(&mut self, seconds: &str) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.advertise_every(seconds)?;
        }
        // Nobody has them while both have just started.
        self.wait_active(0);
        self.wait_for_answers(A_WHILE);
        Ok(())
    }

    fn server_killed(
        &mut self,
        name: &str,
        backend: &str,
        what: &str,
        start: impl FnOnce(&ScaleUp) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.lab.kill(name)?;
        wait_state(&self.nodes, backend, "DOWN");
        self.wait_for_answers(A_WHILE);
        self.note(&format!("{what} killed"));
        start(self.lab)?;
        wait_state(&self.nodes, backend, "UP");
        self.wait_for_answers(A_WHILE);
        self.note("that server back");
        Ok(())
    }

    fn database_killed(&mut self) -> anyhow::Result<()> {
        self.lab.wait_for_replica(2, 1);
        self.lab.kill("db1")?;
        wait_state(&self.nodes, "db/db1", "DOWN");
        self.lab.operate("promote.sh", &["10.80.9.32", "10.80.9.31"])?;
        wait_state(&self.nodes, "db/db2", "UP");
        self.wait_for_answers(A_WHILE);
        self.note("the primary database killed, its replica promoted");
        self.lab.start_database(1, true)?;
        self.lab.wait_for_database(1);
        self.lab.operate("replicate.sh", &["10.80.9.31", "10.80.3.12"])?;
        self.wait_for_answers(A_WHILE);
        self.note("the former primary back as a replica");
        Ok(())
    }

    /// Replicas come and go behind the VIP of the one database that can be written, which is db2 by now.
    fn database_tier_scaled(&mut self) -> anyhow::Result<()> {
        let servers = |db| Tiers { db, ..Tiers::default() };
        for number in DB_AT_START + 1..=DB {
            self.lab.add_replica(number, 2)?;
        }
        for number in (1..=DB).filter(|number| *number != 2) {
            self.lab.wait_for_replica(number, 2);
        }
        self.scale_to(servers(DB))?;
        self.note("the database tier from 2 to 6 servers, one of them writable");
        self.scale_to(servers(DB_AT_START))?;
        for number in DB_AT_START + 1..=DB {
            self.lab.kill(&format!("db{number}"))?;
        }
        self.wait_for_answers(A_WHILE);
        self.note("the database tier from 6 to 2 servers, those taken out switched off");
        Ok(())
    }

    fn app_tier_scaled(&mut self) -> anyhow::Result<()> {
        let servers = |app| Tiers { app, ..Tiers::default() };
        self.scale_to(servers(2))?;
        self.note("the application tier from 3 to 2 servers");
        for number in AT_START + 1..=APP {
            self.lab.start_app(number)?;
        }
        self.scale_to(servers(APP))?;
        self.scale_to(servers(2))?;
        self.note("the application tier from 2 to 6 to 2 servers");
        for number in 3..=APP {
            self.lab.kill(&format!("app{number}"))?;
        }
        self.wait_for_answers(A_WHILE);
        self.note("the application servers taken out switched off");
        Ok(())
    }

    fn web_tier_scaled(&mut self) -> anyhow::Result<()> {
        let servers = |web| Tiers { web, app: 2, ..Tiers::default() };
        self.scale_to(servers(2))?;
        self.note("the web tier from 3 to 2 servers");
        for number in AT_START + 1..=WEB {
            self.lab.start_web(number)?;
        }
        self.scale_to(servers(WEB))?;
        self.scale_to(servers(2))?;
        self.note("the web tier from 2 to 6 to 2 servers");
        for number in 3..=WEB {
            self.lab.kill(&format!("web{number}"))?;
        }
        self.wait_for_answers(A_WHILE);
        self.note("the web servers taken out switched off, long-lived connections and all");
        Ok(())
    }

    /// Writes the file of both nodes, and waits until it is in force.
    fn scale_to(&self, tiers: Tiers) -> anyhow::Result<()> {
        let yaml = self.lab.yaml(&tiers)?;
        for node in &self.nodes {
            node.daemon.write(&yaml)?;
        }
        for node in &self.nodes {
            node.daemon.wait(&format!("{tiers:?} share the flows"), MINUTE, |status| {
                let shares = [("web", tiers.web, WEB), ("app", tiers.app, APP)];
                let shared = shares.iter().all(|(tier, count, most)| {
                    (1..=*most).all(|number| {
                        let server = backend(status, tier, &format!("{tier}{number}"));
                        match number <= *count {
                            true => server.is_some_and(|one| one.state == "UP" && one.slots > 0),
                            false => server.is_none_or(|one| one.slots == 0),
                        }
                    })
                });
                // Of the databases, all are looked at, and one has everything.
                let databases = (1..=DB).filter_map(|number| {
                    backend(status, "db", &format!("db{number}")).filter(|_| number <= tiers.db)
                });
                let known: Vec<_> = databases.collect();
                let up = known.iter().filter(|one| one.state == "UP" && one.slots > 0).count();
                let down =
                    known.iter().filter(|one| one.state.starts_with("DOWN") && one.slots == 0);
                shared && (up, down.count()) == (1, tiers.db - 1)
            });
        }
        self.wait_for_answers(A_WHILE);
        Ok(())
    }

    /// Waits until the nodes have told each other everything.
    #[track_caller]
    fn wait_in_step(&self) {
        for node in &self.nodes {
            node.daemon.wait("the nodes are in step", MINUTE, |status| {
                let peers = status.cluster.iter().flat_map(|cluster| &cluster.peers);
                peers.filter(|peer| peer.state == "in step").count() == 1
            });
        }
    }

    /// Waits until a node has the VIPs and the other has not.
    #[track_caller]
    fn wait_active(&self, active: usize) {
        let look = || [0, 1].map(|node: usize| self.nodes[node].has("10.80.0.10"));
        let what = format!("{} alone has the VIPs", self.nodes[active].machine.name);
        wait_for(&what, MINUTE, look, |has| has[active] && !has[1 - active]);
    }

    /// Waits until so many more requests have been answered.
    #[track_caller]
    pub fn wait_for_answers(&self, more: u64) {
        let goal = self.pulse.look().ok() + more;
        wait_for("pages are served", MINUTE, || self.pulse.look(), |beats| beats.ok() >= goal);
    }

    /// Writes down what has become of the requests since the last call.
    fn note(&mut self, event: &str) {
        let beats = self.pulse.take();
        let web = beats.answered.keys().filter_map(|who| who.split(' ').next());
        let databases = beats.answered.keys().filter_map(|who| who.split(' ').next_back());
        let databases = databases.map(str::to_owned).collect();
        let Moved { web: moved_web, app: moved_app, from: moved_from } =
            self.sessions.come_back().unwrap_or_else(|error| panic!("{event}: {error:#}"));
        let row = Row {
            event: event.to_owned(),
            web_servers: web.collect::<BTreeSet<_>>().len(),
            databases,
            answered: beats.ok(),
            failed: beats.failures(),
            broken: self.visitors.broken(),
            moved_web,
            moved_app,
            moved_from,
            longest_gap_ms: beats.longest_gap.as_millis() as u64,
        };
        eprintln!(
            "{event}: {} answered, {} failed, {} broken, {moved_web} + {moved_app} sessions moved, longest gap {} ms",
            row.answered, row.failed, row.broken, row.longest_gap_ms
        );
        for (reason, count) in &beats.failed {
            eprintln!("    {count} x {reason}");
        }
        self.rows.push(row);
    }
}

/// Waits until both nodes see a backend (`web/web1`) so.
#[track_caller]
fn wait_state(nodes: &[Node<'_>; 2], name: &str, state: &str) {
    let (service, server) = name.split_once('/').expect("SERVICE/BACKEND");
    for node in nodes {
        let what = format!("{} sees {name} {state}", node.machine.name);
        node.daemon.wait(&what, MINUTE, |status| {
            backend(status, service, server).is_some_and(|seen| seen.state == state)
        });
    }
}

impl ScaleUp {
    /// `lb status` of a node, as an operator sees it.
    pub fn lb_status(socket: &std::path::Path) -> anyhow::Result<String> {
        let output = Command::new(lb_binary()).arg("--socket").arg(socket).arg("status").output();
        let output = output.context("cannot run lb")?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

/// The rows for people.
pub fn table(rows: &[Row]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "EVENT".to_owned(),
        "ANSWERED".to_owned(),
        "FAILED".to_owned(),
        format!("BROKEN OF {VISITORS}"),
        format!("MOVED OF {SESSIONS}"),
        "LONGEST GAP".to_owned(),
    ]);
    for row in rows {
        table.add_row([
            row.event.clone(),
            row.answered.to_string(),
            row.failed.to_string(),
            row.broken.to_string(),
            (row.moved_web + row.moved_app).to_string(),
            format!("{} ms", row.longest_gap_ms),
        ]);
    }
    table.to_string()
}
