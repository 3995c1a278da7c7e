//! A real browser in a machine: headless Chromium, driven by WebDriver (W3C) and, through it, the DevTools protocol.
//!
//! WebDriver is JSON over HTTP/1.1, a question a connection. It is spoken here directly: sockets have to be opened in the
//! machine's thread, which the clients there are do not know of.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::{client::wait_for, machine::Machine, process::Process};

/// Where chromedriver listens in the machine.
const PORT: u16 = 9515;
const MINUTE: Duration = Duration::from_secs(60);

/// Chromium for tests: as root, without a screen, and without asking anybody about anything.
const ARGUMENTS: [&str; 16] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--force-color-profile=srgb",
];

/// A running browser with one tab. Dropping it ends it with all its processes.
pub struct Browser<'a> {
    machine: &'a Machine,
    session: String,
    process: Process,
    _directory: tempfile::TempDir,
}

/// Sizes of the screens that pages are looked at on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// 1366 x 768.
    Laptop,
    /// 390 x 844, with a finger.
    Phone,
}

impl<'a> Browser<'a> {
    /// Starts it; nothing is open yet.
    pub fn start(machine: &'a Machine) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={PORT}")).env("HOME", directory.path());
        let process = Process::start(machine, "chromedriver", directory.path(), &command)
            .context("start chromedriver (Debian's chromium-driver)")?;
        let mut browser = Self { machine, session: String::new(), process, _directory: directory };
        let look = || (browser.ask("GET", "/status", None), browser.process.log());
        let ready = wait_for("chromedriver answers", MINUTE, look, |(status, _)| {
            status.as_ref().is_ok_and(|status| status["ready"] == true)
        });
        ready.0?;
        let profile =
            format!("--user-data-dir={}", browser._directory.path().join("profile").display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let session = browser
            .ask("POST", "/session", Some(&wanted))
            .with_context(|| browser.process.log())?;
        let id = session["sessionId"].as_str().context("no session")?;
        browser.session = format!("/session/{id}");
        browser.screen(Screen::Laptop);
        browser.prefer_dark(false);
        // What the browser's own first page has asked for is nobody's.
        browser.open("about:blank");
        browser.requests();
        Ok(browser)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (head, body) = self.machine.run(move || exchange(&request))?;
        let answer: Value =
            serde_json::from_str(&body).with_context(|| format!("{head}\n{body}"))?;
        ensure!(
            head.starts_with("HTTP/1.1 200"),
            "{method} {path}: {}",
            answer["value"]["message"]
        );
        Ok(answer["value"].clone())
    }

    #[track_caller]
    fn command(&self, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        self.ask("POST", &path, Some(body)).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// Opens an address and waits until the page is loaded.
    #[track_caller]
    pub fn open(&self, address: &str) {
        self.command("/url", &json!({"url": address}));
    }

    /// Runs a script (the body of a function) in the page.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text that a person sees of the first element that a selector finds; empty without one.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let script =
            "const one = document.querySelector(arguments[0]); return one ? one.innerText : ''";
        let answer = self.command("/execute/sync", &json!({"script": script, "args": [selector]}));
        answer.as_str().unwrap_or_default().to_owned()
    }

    /// How many elements a selector finds.
    #[track_caller]
    pub fn count(&self, selector: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        let answer = self.command("/execute/sync", &json!({"script": script, "args": [selector]}));
        answer.as_u64().unwrap_or_default()
    }

    /// Clicks where the middle of an element is, as a finger or mouse would.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let found = self.command("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        let id = id.unwrap_or_else(|| panic!("no {selector}"));
        self.command(&format!("/element/{id}/click"), &json!({}));
    }

    /// Types keys one after another, wherever the focus is. Those without a letter are WebDriver's private characters:
    /// see [`key`].
    #[track_caller]
    pub fn keys(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
            })
            .collect();
        self.command(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}),
        );
    }

    /// Waits until a text is as wanted.
    #[track_caller]
    pub fn wait_text(&self, selector: &str, what: &str, good: impl Fn(&str) -> bool) -> String {
        wait_for(what, MINUTE, || self.text(selector), |text| good(text))
    }

    /// Waits until a script says true.
    #[track_caller]
    pub fn wait(&self, what: &str, script: &str) {
        wait_for(
            what,
            MINUTE,
            || (self.run(script), self.text("body")),
            |(answer, _)| *answer == true,
        );
    }

    /// Another screen.
    #[track_caller]
    pub fn screen(&self, screen: Screen) {
        let (width, height, mobile) = match screen {
            Screen::Laptop => (1366, 768, false),
            Screen::Phone => (390, 844, true),
        };
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.devtools("Emulation.setDeviceMetricsOverride", size);
    }

    /// What the system prefers: a dark page or a light one, and nothing that moves.
    #[track_caller]
    pub fn prefer_dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": value},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    /// What is on the screen, as PNG.
    pub fn screenshot(&self, path: &Path) -> anyhow::Result<()> {
        let picture = self.devtools("Page.captureScreenshot", json!({"format": "png"}));
        let data = picture["data"].as_str().context("no picture")?;
        std::fs::write(path, base64::engine::general_purpose::STANDARD.decode(data)?)?;
        Ok(())
    }

    /// What the page has complained of since the last call: errors and violations of its policy.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command("/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().into_iter().flatten();
        lines.filter_map(|line| Some(line["message"].as_str()?.to_owned())).collect()
    }

    /// Addresses of all that the page has asked for since the last call.
    #[track_caller]
    pub fn requests(&self) -> Vec<String> {
        let log = self.command("/se/log", &json!({"type": "performance"}));
        let messages = log
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| serde_json::from_str::<Value>(line["message"].as_str()?).ok());
        messages
            .filter(|message| message["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|message| {
                Some(message["message"]["params"]["request"]["url"].as_str()?.to_owned())
            })
            .collect()
    }
}

/// One question and its answer: head and body. The driver keeps connections open, so the length is what counts.
fn exchange(request: &str) -> anyhow::Result<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(MINUTE))?;
    stream.write_all(request.as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the driver has hung up: {head}");
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, String::from_utf8(body)?))
}

/// Keys without a letter, as WebDriver writes them.
pub mod key {
    /// Tabulator.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// Escape.
    pub const ESCAPE: &str = "\u{e00c}";
    /// End.
    pub const END: &str = "\u{e010}";
    /// Arrow down.
    pub const DOWN: &str = "\u{e015}";
}
