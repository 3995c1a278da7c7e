//! Debian's Prometheus in a machine: it scrapes, and answers queries.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;

use crate::{client::wait_for, machine::Machine, process::Process};

/// Where it listens, in its machine.
const PORT: u16 = 9090;

/// A running Prometheus with no data but what it scrapes.
pub struct Prometheus<'a> {
    machine: &'a Machine,
    process: Process,
}

impl<'a> Prometheus<'a> {
    /// Starts it with a configuration; `directory` has the files that this names, and takes the data.
    pub fn start(machine: &'a Machine, directory: &Path, config: &str) -> anyhow::Result<Self> {
        let file = directory.join("prometheus.yml");
        fs::write(&file, config)?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
        let process = Process::start(machine, "prometheus", directory, &command)?;
        let prometheus = Self { machine, process };
        let look = || {
            let ready = prometheus.get("/-/ready").map_err(|error| format!("{error:#}"));
            (ready, prometheus.process.log())
        };
        let limit = Duration::from_secs(60);
        let (ready, _) = wait_for("Prometheus is ready", limit, look, |(ready, _)| ready.is_ok());
        ready.map(|_| prometheus).map_err(anyhow::Error::msg)
    }

    /// The result of an instant query; an error is Prometheus's.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(expression)));
        let answer: Value = serde_json::from_str(&answer?).context("the answer is no JSON")?;
        anyhow::ensure!(answer["status"] == "success", "`{expression}`: {answer}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// The API's answer about something else: `rules`, `targets`.
    pub fn data(&self, what: &str) -> anyhow::Result<Value> {
        let answer: Value = serde_json::from_str(&self.get(&format!("/api/v1/{what}"))?)?;
        anyhow::ensure!(answer["status"] == "success", "{what}: {answer}");
        Ok(answer["data"].clone())
    }

    /// A body, whatever the status says: errors are explained in it.
    fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
        let answer = self.machine.run(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.lines().next().unwrap_or_default();
        let is_api = path.starts_with("/api/");
        anyhow::ensure!(is_api || status.contains(" 200 "), "{path}: {status}: {body}");
        Ok(body.to_owned())
    }
}

/// For a query string.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
