//! docs/walkthrough.md is true: its commands, run in the lab of the quickstart, print what it says.
//! `LB_BLESS=1 cargo test -p lb-tests --test walkthrough` writes it anew.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, bail};
use lb_tests::{
    client::{requests, wait_for},
    daemon::{Daemon, backend, lb_binary},
    lab::{Arms, Lab, Return, VIP4, VIP6},
    node::share_seed,
    server::Server,
    walkthrough::{self, Piece, Step, normal::normal},
};

const MINUTE: Duration = Duration::from_secs(60);
/// How often the walk is begun anew before the document is said to be wrong.
const ATTEMPTS: usize = 3;
/// What makes rings, and with them answers of `lb lookup`, the same in every run.
const SEED: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The quickstart, with a shell on lb's host.
struct Walk<'a> {
    lab: &'a Lab,
    daemon: Daemon<'a>,
    servers: Vec<Option<Server>>,
    path: String,
}

impl Walk<'_> {
    /// Runs a command as the reader would: in lb's machine, in the directory of the configuration.
    fn run(&self, command: &str) -> anyhow::Result<String> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{{ {command}\n}} 2>&1")]).current_dir(&self.daemon.directory);
        shell.env("LB_SOCKET", &self.daemon.socket).env("PATH", &self.path).env("TZ", "UTC");
        let output = self.lab.lb.output(shell)?;
        let mut text = String::from_utf8(output.stdout).context("the output is no UTF-8")?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => text.push_str(&format!("(exit code {code})\n")),
            None => bail!("`{command}` was killed: {text}"),
        }
        // Paths of this run only.
        let directory = self.daemon.directory.display().to_string();
        Ok(text.replace(&directory, "/tmp/lb-quickstart"))
    }

    /// What happens in the lab between two commands.
    fn happens(&mut self, what: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = what.split(' ').collect();
        match words.as_slice() {
            ["requests", count] => {
                for vip in [VIP4, VIP6] {
                    let target = SocketAddr::new(vip, 80);
                    let count = count.parse()?;
                    wait_for(
                        "all are answered",
                        MINUTE,
                        || requests(&self.lab.client, target, count, 4),
                        |tally| tally.failures() == 0,
                    );
                }
            }
            ["stop", name] => self.servers[number(name)?] = None,
            ["start", name] => {
                let index = number(name)?;
                self.servers[index] = Some(self.lab.server(index + 1)?);
            }
            // Somebody tries a port that no service has.
            ["knock", port] => {
                let target = SocketAddr::new(VIP4, port.parse()?);
                // Once: each attempt is a line of its own in the answer.
                let refused = self.lab.client.run(move || {
                    std::net::TcpStream::connect_timeout(&target, Duration::from_millis(50))
                        .is_err()
                });
                anyhow::ensure!(refused, "somebody answers on {target}");
                wait_for(
                    "the drop is explained",
                    MINUTE,
                    || self.daemon.must(&["why", "--json"]),
                    |why| why.contains("\"packet\""),
                );
            }
            ["wait", target, state] => {
                let (service, name) = target.split_once('/').context("SERVICE/BACKEND")?;
                self.daemon.wait(what, MINUTE, |status| {
                    backend(status, service, name).is_some_and(|backend| backend.state == *state)
                });
            }
            // The daemon has seen the file change.
            ["applied"] => {
                let file = self.daemon.config.to_str().context("a path")?.to_owned();
                wait_for(
                    what,
                    MINUTE,
                    || self.daemon.must(&["plan", &file]),
                    |plan| plan == "nothing would change\n",
                );
            }
            _ => bail!("nothing of this name can happen in the lab: `{what}`"),
        }
        Ok(())
    }
}

/// `web2` is 1.
fn number(name: &str) -> anyhow::Result<usize> {
    let number: usize = name.strip_prefix("web").context("web1, web2 or web3")?.parse()?;
    anyhow::ensure!((1..=3).contains(&number), "web1, web2 or web3");
    Ok(number - 1)
}

#[test]
fn every_command_of_the_walkthrough_prints_what_it_says() {
    let path = walkthrough::path();
    let pieces = walkthrough::parse(&fs::read_to_string(&path).unwrap()).unwrap();
    if std::env::var_os("LB_BLESS").is_some() {
        fs::write(&path, walkthrough::render(&walk(&pieces).0)).unwrap();
        return;
    }
    // On a busy machine a check may come too late, which lb then rightly reports: a document that is wrong is wrong
    // every time.
    let mut wrong = Vec::new();
    for _ in 0..ATTEMPTS {
        wrong = walk(&pieces).1;
        if wrong.is_empty() {
            return;
        }
    }
    panic!(
        "{} differ(s), {ATTEMPTS} times (LB_BLESS=1 writes the document anew):\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

/// Runs the document's commands in a new lab. Returns the document as it would be true, and what is wrong with it.
fn walk(pieces: &[Piece]) -> (Vec<Piece>, Vec<String>) {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let servers = std::mem::take(&mut lab.servers);
    let quickstart =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/quickstart.yaml"));
    let directory = tempfile::Builder::new().prefix("lb-quickstart-").tempdir().unwrap();
    share_seed(&directory.path().join("state"), SEED).unwrap();
    let mut daemon =
        Daemon::in_directory(&lab.lb, &[], &quickstart.unwrap(), directory.path()).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP"]);
    daemon.wait("the node is ready for traffic", MINUTE, |status| {
        !status.starting && status.services.iter().all(|service| service.state == "UP")
    });
    // The line that the quickstart prints for a second terminal, which is in none of the lab's namespaces.
    let line = daemon.shell_command().replace("exec bash", "lb health && ip link show lb0");
    let shell = Command::new("sh").args(["-c", &line]).output().unwrap();
    let said = String::from_utf8_lossy(&shell.stdout);
    assert!(said.contains("forwarding on lb0") && shell.status.success(), "{line}: {shell:?}");
    let binaries = lb_binary().parent().unwrap().display().to_string();
    let path_variable = format!("{binaries}:{}", std::env::var("PATH").unwrap());
    let mut walk = Walk { lab: &lab, daemon, servers, path: path_variable };

    let mut real = Vec::new();
    let mut wrong = Vec::new();
    for piece in pieces {
        match piece.clone() {
            Piece::Console(steps) => {
                let mut done = Vec::new();
                for step in steps {
                    let output = walk.run(&step.command).unwrap();
                    let (said, seen) = (normal(&step.output), normal(&output));
                    if said != seen {
                        wrong.push(format!(
                            "$ {}\n--- the document says:\n{}--- it prints:\n{output}--- without what varies:\n{said}\n---\n{seen}",
                            step.command, step.output
                        ));
                        done.push(Step { output, ..step });
                    } else {
                        // What varies only stays as it is, so that a new writing changes only what is wrong.
                        done.push(step);
                    }
                }
                real.push(Piece::Console(done));
            }
            Piece::Lab(what) => {
                walk.happens(&what).unwrap_or_else(|error| panic!("{what}: {error:#}"));
                real.push(Piece::Lab(what));
            }
            line @ Piece::Line(_) => real.push(line),
        }
    }
    (real, wrong)
}

#[test]
fn the_walkthrough_shows_every_verb() {
    // The daemon itself is started by the quickstart, a backend is not lb's host, and a full screen has no lines.
    const ELSEWHERE: [&str; 3] = ["run", "decap", "top"];
    let text = fs::read_to_string(walkthrough::path()).unwrap();
    let pieces = walkthrough::parse(&text).unwrap();
    let commands: Vec<String> = pieces
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Console(steps) => Some(steps),
            _ => None,
        })
        .flatten()
        .map(|step| step.command)
        .collect();
    let help = Command::new(lb_binary()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let verbs = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help" && !ELSEWHERE.contains(verb));
    for verb in verbs {
        let shown = commands.iter().any(|command| command.contains(&format!("lb {verb}")));
        assert!(shown, "docs/walkthrough.md does not show `lb {verb}`");
    }
}
