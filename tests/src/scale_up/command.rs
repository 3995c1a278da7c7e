//! `lab scale-up`: the infrastructure in the foreground, as a demo or through the story; `--status` and `--down` speak to
//! one that runs elsewhere, found by a file in /run.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{sys::signal::Signal, unistd::Pid};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    ScaleUp,
    story::{Row, Story, table},
};
use crate::{comparison, node::Node};

/// Tells where the running demo is. One at a time; tests do not use it.
const FILE: &str = "/run/lb-lab/scale-up.json";

/// What to do.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// End the one that runs
    #[arg(long, conflicts_with_all = ["status", "story", "json"])]
    pub down: bool,
    /// Show machines, and what both lb nodes say
    #[arg(long, conflicts_with_all = ["story"])]
    pub status: bool,
    /// Run the failures one after another under load, print what each has cost, and end
    #[arg(long)]
    pub story: bool,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    /// Costs that were measured in a booted kernel, as JSON (`cargo xtask lab` measures them)
    #[arg(long, value_name = "FILE", hide = true)]
    pub booted: Option<PathBuf>,
}

/// The running demo.
#[derive(Debug, Serialize, Deserialize)]
struct Running {
    pid: i32,
    /// Name and thread id of each machine.
    machines: Vec<(String, i32)>,
    /// Control sockets of lb-a and lb-b.
    sockets: Vec<PathBuf>,
    /// What is left on disk if it is killed.
    directories: Vec<PathBuf>,
}

/// Does it; true if nothing went wrong.
pub fn run(options: Options) -> anyhow::Result<bool> {
    if options.down {
        return down().map(|()| true);
    }
    if options.status {
        return status(options.json).map(|()| true);
    }
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab makes network namespaces and loads XDP programs: run it as root"
    );
    if let Some(running) = running()? {
        bail!("it runs already (process {}): `--status` shows it, `--down` ends it", running.pid);
    }
    eprintln!("Building the machines ...");
    let lab = ScaleUp::new()?;
    eprintln!("Starting databases, application servers, web servers and lb ...");
    announce(&lab, &[])?;
    let mut story = Story::begin(&lab)?;
    let file = announce(&lab, &story.nodes)?;
    let rows = if options.story {
        story.node_killed_with_fast_advertisements()?;
        story.tell()?;
        story.finish()
    } else {
        show_until_interrupted(&lab, &story)?;
        Vec::new()
    };
    fs::remove_file(file)?;
    let mut costs = Vec::new();
    if options.story {
        eprintln!("The same failure of a pair with HAProxy ...");
        costs.extend(comparison::compare()?);
        if let Some(file) = &options.booted {
            let text = fs::read_to_string(file).context("the booted kernel's costs")?;
            costs.extend(serde_json::from_str::<Vec<comparison::Cost>>(&text)?);
        }
        println!("{}\n{}", table(&rows), comparison::table(&costs));
    }
    if options.json {
        println!("{}", serde_json::json!({ "rows": rows, "comparison": costs }));
    }
    Ok(harmless(&rows))
}

/// Whether what must cost nothing has cost nothing.
fn harmless(rows: &[Row]) -> bool {
    let free = ["daemon killed", "back", "from 3 to 2", "from 2 to 6", "from 6 to 2"];
    rows.iter().all(|row| row.failed == 0 || !free.iter().any(|word| row.event.contains(word)))
}

/// Tells `--status` and `--down` where everything is.
fn announce(lab: &ScaleUp, nodes: &[Node<'_>]) -> anyhow::Result<&'static Path> {
    let nodes = nodes.iter();
    let running = Running {
        pid: std::process::id() as i32,
        machines: lab.machines().map(|machine| (machine.name.clone(), machine.tid)).collect(),
        sockets: nodes.clone().map(|node| node.daemon.socket.clone()).collect(),
        directories: nodes
            .map(|node| node.daemon.directory.clone())
            .chain([lab.directory().to_owned()])
            .collect(),
    };
    let file = Path::new(FILE);
    fs::create_dir_all("/run/lb-lab")?;
    fs::write(file, serde_json::to_string(&running)?)?;
    Ok(file)
}

/// The one that runs, if any does.
fn running() -> anyhow::Result<Option<Running>> {
    let text = match fs::read_to_string(FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {FILE}"))?,
    };
    let running: Running =
        serde_json::from_str(&text).with_context(|| format!("{FILE} is damaged"))?;
    let name = fs::read_to_string(format!("/proc/{}/comm", running.pid)).unwrap_or_default();
    Ok((name.trim() == "lab").then_some(running))
}

fn down() -> anyhow::Result<()> {
    let Some(running) = running()? else {
        println!("nothing runs");
        return Ok(());
    };
    nix::sys::signal::kill(Pid::from_raw(running.pid), Signal::SIGTERM).context("cannot end it")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while Path::new(&format!("/proc/{}", running.pid)).exists() {
        anyhow::ensure!(Instant::now() < deadline, "process {} does not end", running.pid);
        thread::sleep(Duration::from_millis(50));
    }
    // In the middle of a story it has no time to tidy up; its machines are gone all the same.
    for left in &running.directories {
        // What it was just starting may still be writing there.
        while let Err(error) = fs::remove_dir_all(left) {
            if error.kind() == std::io::ErrorKind::NotFound {
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "{}: {error}", left.display());
            thread::sleep(Duration::from_millis(50));
        }
    }
    if Path::new(FILE).exists() {
        fs::remove_file(FILE)?;
    }
    println!("ended");
    Ok(())
}

fn status(json: bool) -> anyhow::Result<()> {
    let running = running()?.context("nothing runs: `cargo xtask lab scale-up` starts it")?;
    if json {
        println!("{}", serde_json::to_string(&running)?);
        return Ok(());
    }
    for (name, tid) in &running.machines {
        println!("{name:<8} nsenter --target {tid} --net");
    }
    for socket in &running.sockets {
        println!("\n{}\n{}", socket.display(), ScaleUp::lb_status(socket)?);
    }
    Ok(())
}

fn show_until_interrupted(lab: &ScaleUp, story: &Story<'_>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = lab.client.tid;
    let hint = format!(
        "\nTry it from a second terminal:\n\
         \x20 cargo xtask lab scale-up --status\n\
         \x20 nsenter --target {client} --net curl --insecure https://10.80.0.10/\n\
         \x20 {} --socket {} drain web/web1\n\
         Ctrl-C or `cargo xtask lab scale-up --down` ends it and removes everything.",
        crate::daemon::lb_binary().display(),
        story.nodes[0].daemon.socket.display()
    );
    let tty = std::io::stdout().is_terminal();
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
            table.set_header(["SERVED BY", "PAGES"]);
            for (who, count) in story.served() {
                table.add_row([who, count.to_string()]);
            }
            let mut out = std::io::stdout().lock();
            if tty {
                write!(out, "\x1b[2J\x1b[H{table}\n{hint}\n")?;
            } else {
                writeln!(out, "{table}")?;
            }
            out.flush()?;
            drop(out);
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
        }
    })
}
