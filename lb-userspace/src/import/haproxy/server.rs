//! `server`, `server-template` and `default-server` lines.

use super::{
    Reader, Section,
    values::{after, milliseconds},
};
use crate::import::{Forward, Settings, period, quoted};

/// `observe`, `error-limit` and `on-error` of a server; lb has them for all servers of a service.
#[derive(Clone, Debug)]
pub(super) struct Observe {
    limit: u16,
    on_error: &'static str,
}

impl Observe {
    /// In our notation; nothing if it could not do anything there.
    pub(super) fn text(&self, forward: Forward, checked: bool) -> Option<String> {
        let on_error = match (forward, checked, self.on_error) {
            (Forward::Nat, true, word) => word,
            (Forward::Nat, false, _) => "mark_down",
            (_, true, "fastinter") => "fastinter",
            // Where answers are not seen, a check has the last word.
            (_, true, _) => "sudden_death",
            (_, false, _) => return None,
        };
        let sources = match self.limit {
            limit @ 1..3 => format!(", min_sources: {limit}"),
            _ => String::new(),
        };
        let limit = self.limit;
        Some(format!("{{mode: layer4, error_limit: {limit}{sources}, on_error: {on_error}}}"))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) settings: Settings,
    pub(super) is_checked: bool,
    pub(super) is_backup: bool,
    /// `BACKEND/SERVER` or `SERVER`.
    pub(super) track: Option<String>,
    /// `server-template`.
    pub(super) is_template: bool,
}

impl Reader {
    /// Takes a line if it is about servers.
    pub(super) fn server_line(
        &mut self,
        section: &mut Section,
        number: usize,
        words: &[&str],
    ) -> bool {
        match words {
            ["default-server", parameters @ ..] => {
                self.observe(section, number, parameters);
                let (settings, _) = self.parameters(number, parameters);
                section.defaults = merged(&section.defaults, settings);
            }
            ["server", server, address, parameters @ ..] => {
                self.observe(section, number, parameters);
                let (settings, flags) = self.parameters(number, parameters);
                if flags.contains(&"disabled") {
                    self.note(
                        number,
                        format!(
                            "`{server}` is disabled: left out (`lb maint` does that at run time)"
                        ),
                    );
                    return true;
                }
                section.check.tls |= flags.contains(&"check-ssl");
                if let Some(at) = parameters.iter().position(|word| *word == "check-sni") {
                    section.check.sni = parameters.get(at + 1).map(|name| (*name).to_owned());
                }
                let value = |key: &str| {
                    let at = parameters.iter().position(|word| *word == key)?;
                    parameters.get(at + 1).copied()
                };
                if let (true, Some(port)) = (flags.contains(&"agent-check"), value("agent-port")) {
                    let mut agent = vec![format!("port: {port}")];
                    let inter = value("agent-inter").and_then(milliseconds).map(period);
                    agent.extend(inter.map(|inter| format!("inter: {inter}")));
                    agent.extend(value("agent-addr").map(|at| format!("address: {}", quoted(at))));
                    let send = value("agent-send").map(|text| text.replace("\\n", "\n"));
                    agent.extend(send.map(|text| format!("send: {}", quoted(&text))));
                    if !section.agent.is_empty() && section.agent != agent {
                        self.note(number, format!("`{server}`: its agent is asked in another way than the one before; `agent_check` is for all backends ({{backend}} in `send` stands for the name)"));
                    }
                    section.agent = agent;
                }
                if value("check-alpn") == Some("h2") || value("check-proto") == Some("h2") {
                    section.check.more.retain(|key| key != "version: h2");
                    section.check.more.push("version: h2".to_owned());
                }
                if let Some(at) = parameters.iter().position(|word| *word == "port") {
                    section.check.port = parameters.get(at + 1).and_then(|port| port.parse().ok());
                }
                section.servers.push(Server {
                    line: number,
                    name: (*server).to_owned(),
                    address: (*address).to_owned(),
                    settings,
                    is_checked: flags.contains(&"check"),
                    is_backup: flags.contains(&"backup"),
                    track: after(parameters, "track").map(str::to_owned),
                    is_template: false,
                });
            }
            ["server-template", name, count, address, parameters @ ..] => {
                let before = section.servers.len();
                let words: Vec<&str> =
                    ["server", name, address].iter().chain(parameters).copied().collect();
                self.server_line(section, number, &words);
                if let Some(server) = section.servers.get_mut(before) {
                    server.is_template = true;
                    self.note(number, format!("`server-template {name} {count}`: each address of the name is a backend, however many there are"));
                }
            }
            _ => return false,
        }
        true
    }

    fn observe(&mut self, section: &mut Section, line: usize, words: &[&str]) {
        let value = |key: &str| {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1).copied()
        };
        if let Some(mode) = value("observe") {
            if mode != "layer4" {
                self.note(
                    line,
                    format!("`observe {mode}`: lb sees layer 4: whether connections are accepted"),
                );
            }
            section.observe.get_or_insert(Observe { limit: 10, on_error: "fail_check" });
        }
        let Some(observe) = &mut section.observe else { return };
        if let Some(limit) = value("error-limit").and_then(|text| text.parse::<u16>().ok()) {
            observe.limit = limit.clamp(1, 1_000);
        }
        observe.on_error = match value("on-error") {
            Some("fastinter") => "fastinter",
            Some("fail-check") => "fail_check",
            Some("sudden-death") => "sudden_death",
            Some("mark-down") => "mark_down",
            _ => observe.on_error,
        };
    }

    /// Settings and bare words of `server` and `default-server`.
    fn parameters<'w>(&mut self, line: usize, words: &[&'w str]) -> (Settings, Vec<&'w str>) {
        let mut settings = Settings::default();
        let mut flags = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let time = |value: Option<&&str>| value.and_then(|text| milliseconds(text)).map(period);
            let count = |value: Option<&&str>| value.and_then(|text| text.parse().ok());
            match *word {
                "inter" => settings.inter = time(words.next()),
                "fastinter" => settings.fastinter = time(words.next()),
                "downinter" => settings.downinter = time(words.next()),
                "rise" => settings.rise = count(words.next()),
                "fall" => settings.fall = count(words.next()),
                "weight" => settings.weight = count(words.next()),
                "slowstart" => settings.slowstart = time(words.next()),
                "port" | "maxconn" | "maxqueue" | "id" | "cookie" | "observe" | "error-limit"
                | "on-error" | "resolvers" | "resolve-prefer" | "init-addr" | "verify"
                | "ca-file" | "crt" | "sni" | "alpn" | "minconn" | "on-marked-up" | "track"
                | "source" | "agent-port" | "agent-inter" | "agent-addr" | "agent-send"
                | "check-alpn" | "check-proto" | "check-sni" => {
                    words.next();
                    if *word == "maxconn" {
                        self.note(line, format!("`{word}` has no equivalent yet"));
                    }
                }
                "on-marked-down" => {
                    words.next();
                }
                "send-proxy" | "send-proxy-v2" => {
                    self.note(
                        line,
                        "`send-proxy`: not needed, backends see the client's own address",
                    );
                }
                "ssl" => {
                    self.note(
                        line,
                        "`ssl`: lb passes TLS through; for the check alone say `check-ssl`",
                    );
                }
                flag => flags.push(flag),
            }
        }
        (settings, flags)
    }
}

fn merged(base: &Settings, over: Settings) -> Settings {
    Settings {
        weight: over.weight.or(base.weight),
        inter: over.inter.or_else(|| base.inter.clone()),
        fastinter: over.fastinter.or_else(|| base.fastinter.clone()),
        downinter: over.downinter.or_else(|| base.downinter.clone()),
        rise: over.rise.or(base.rise),
        fall: over.fall.or(base.fall),
        timeout: over.timeout.or_else(|| base.timeout.clone()),
        slowstart: over.slowstart.or_else(|| base.slowstart.clone()),
    }
}
