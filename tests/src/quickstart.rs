//! The quickstart: what a new user sees first.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lb_userspace::api::types::{Counters, Stats};
use serde::Serialize;

use crate::{
    client::{Load, Tally},
    daemon::{Daemon, lb_binary},
    lab::{Arms, Lab, Return, VIP4, VIP6},
};

const BACKENDS: usize = 3;
const WORKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(4);

/// The last line of `--json`.
#[derive(Serialize)]
struct Summary {
    requests: u64,
    failed: u64,
    backends: Vec<Row>,
}

/// One backend over both services.
#[derive(Serialize)]
struct Row {
    name: String,
    requests: u64,
    packets: u64,
    bytes: u64,
    share: f64,
    state: String,
}

/// Runs until Ctrl-C or for a time; true if no request has failed.
pub fn run(config: &Path, limit: Option<Duration>, json: bool) -> anyhow::Result<bool> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "the quickstart makes network namespaces and loads an XDP program: run it as root"
    );
    let yaml =
        fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::Builder::new().prefix("lb-quickstart-").tempdir()?;
    eprintln!(
        "Building the lab: a client, lb's host and {BACKENDS} web servers, each in its own network namespace ..."
    );
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, BACKENDS)?;
    let targets = [SocketAddr::new(VIP4, 80), SocketAddr::new(VIP6, 80)];
    let mut servers: Vec<_> = std::mem::take(&mut lab.servers);
    let mut daemon = Daemon::in_directory(&lab.lb, &[], &yaml, directory.path())?;
    eprintln!("Starting lb on {} with a copy of {} ...", lab.nics.join(", "), config.display());
    daemon.start()?;
    daemon.wait_ready(&["UP", "NOLB"]);
    let load = Load::start(&lab.client, &targets, WORKERS, PAUSE);
    let began = Instant::now();
    let hint = hint(&daemon);
    if limit.is_none() {
        eprintln!("{hint}");
    }
    let tty = std::io::stdout().is_terminal() && !json;
    let mut stopped = [false; BACKENDS];
    let ended = |began: Instant| limit.is_some_and(|limit| began.elapsed() >= limit);
    while !ended(began) {
        let interrupted = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(500), tokio::signal::ctrl_c()).await.is_ok()
        });
        if interrupted {
            break;
        }
        for number in 1..=BACKENDS {
            obey(
                &lab,
                directory.path(),
                number,
                &mut servers[number - 1],
                &mut stopped[number - 1],
            )?;
        }
        if !json && limit.is_none() {
            let table =
                table(&rows(&load.tally(), &daemon.stats()), &load.tally(), began.elapsed());
            let mut out = std::io::stdout().lock();
            if tty {
                write!(out, "\x1b[2J\x1b[H{table}\n{hint}\n")?;
            } else {
                writeln!(out, "{table}")?;
            }
            out.flush()?;
        }
    }
    let stats = daemon.stats();
    let tally = load.finish();
    let rows = rows(&tally, &stats);
    println!("{}", table(&rows, &tally, began.elapsed()));
    for (reason, count) in &tally.failed {
        println!("failed {count} times: {reason}");
    }
    if json {
        let summary = Summary {
            requests: tally.ok() + tally.failures(),
            failed: tally.failures(),
            backends: rows,
        };
        println!("{}", serde_json::to_string(&summary)?);
    }
    // Who stops a backend by hand expects the requests that met it to fail.
    Ok(tally.failures() == 0 || stopped.contains(&true))
}

/// Starts and stops a server as the control files say.
fn obey(
    lab: &Lab,
    directory: &Path,
    number: usize,
    server: &mut Option<crate::server::Server>,
    ever_stopped: &mut bool,
) -> anyhow::Result<()> {
    let wanted = !directory.join(format!("stop-web{number}")).exists();
    match (wanted, server.is_some()) {
        (false, true) => {
            *ever_stopped = true;
            *server = None;
        }
        (true, false) => *server = Some(lab.server(number)?),
        _ => {}
    }
    Ok(())
}

fn hint(daemon: &Daemon<'_>) -> String {
    let lb = lb_binary();
    let lb = format!("{} --socket {}", lb.display(), daemon.socket.display());
    let directory = daemon.directory.display();
    let shell = daemon.shell_command();
    format!(
        "\nTry it from a second terminal:\n\
         \x20 {lb} status\n\
         \x20 {lb} stats --watch\n\
         \x20 {lb} drain web/web1          and: ready web/web1\n\
         \x20 {lb} lookup 10.77.1.2:4711 10.77.0.80:80\n\
         \x20 edit {}        lb applies it when you save\n\
         \x20 touch {directory}/stop-web2        stops a server; rm starts it again\n\
         A shell on lb's host, where `lb status` is enough (docs/walkthrough.md):\n\
         \x20 {shell}\n\
         Ctrl-C ends it and removes everything.",
        daemon.config.display()
    )
}

fn rows(tally: &Tally, stats: &Stats) -> Vec<Row> {
    let total: u64 = tally.ok().max(1);
    let mut names: Vec<String> = Vec::new();
    for backend in stats.services.iter().flat_map(|service| &service.backends) {
        if !names.contains(&backend.name) {
            names.push(backend.name.clone());
        }
    }
    names
        .into_iter()
        .map(|name| {
            let mut sum = Counters::default();
            let mut states = Vec::new();
            for backend in
                stats.services.iter().flat_map(|s| &s.backends).filter(|b| b.name == name)
            {
                sum.packets_in += backend.counters.packets_in + backend.counters.packets_out;
                sum.bytes_in += backend.counters.bytes_in + backend.counters.bytes_out;
                let state = match backend.admin.as_str() {
                    "ready" => backend.state.clone(),
                    admin => format!("{} ({admin})", backend.state),
                };
                if !states.contains(&state) {
                    states.push(state);
                }
            }
            let requests = tally.answered.get(&name).copied().unwrap_or(0);
            Row {
                requests,
                packets: sum.packets_in,
                bytes: sum.bytes_in,
                share: requests as f64 / total as f64,
                state: states.join(", "),
                name,
            }
        })
        .collect()
}

fn table(rows: &[Row], tally: &Tally, elapsed: Duration) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["BACKEND", "REQUESTS", "PACKETS", "BYTES", "SHARE", "STATE"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            row.requests.to_string(),
            row.packets.to_string(),
            row.bytes.to_string(),
            format!("{:.1}%", row.share * 100.0),
            row.state.clone(),
        ]);
    }
    format!(
        "{table}\n{} requests in {} s, {} failed",
        tally.ok() + tally.failures(),
        elapsed.as_secs(),
        tally.failures()
    )
}
