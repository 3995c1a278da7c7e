//! HAProxy's file (its configuration manual, chapters 2, 4 and 5): what of it a layer-4 load balancer does.

mod admission;
mod bind;
mod check;
mod server;
mod services;
mod values;

use std::collections::BTreeMap;

use self::{
    admission::Admission,
    bind::Bind,
    server::{Observe, Server},
    values::{after, milliseconds},
};
use super::{
    Check, Choices, Imported, Settings,
    words::{Line, lines},
};

/// Translates a file.
pub fn import(text: &str, choices: &Choices) -> Imported {
    let mut reader = Reader::default();
    for line in lines(text, &['#']) {
        reader.line(&line);
    }
    reader.finish(choices)
}

/// What a `frontend`, `backend`, `listen` or `defaults` says.
#[derive(Clone, Debug, Default)]
struct Section {
    kind: String,
    name: String,
    line: usize,
    binds: Vec<Bind>,
    default_backend: Option<String>,
    is_http: bool,
    /// What stands behind `balance:`; empty = not said.
    balance: &'static str,
    hash_balance_factor: Option<u16>,
    /// `stick on src`, and the line.
    stick: Option<usize>,
    /// How long the stick table remembers, milliseconds.
    stick_expires: Option<u64>,
    all_backups: bool,
    observe: Option<Observe>,
    check: Check,
    has_check: bool,
    /// Keys of `agent_check`, of the last server that has an agent.
    agent: Vec<String>,
    admission: Admission,
    defaults: Settings,
    servers: Vec<Server>,
}

#[derive(Default)]
struct Reader {
    sections: Vec<Section>,
    /// The last `defaults` section.
    defaults: Section,
    notes: BTreeMap<(usize, String), ()>,
}

/// What is done by lb's nature, or makes no sense for it: not worth a note.
const NEEDLESS: [&str; 13] = [
    "log",
    "maxconn",
    "retries",
    "timeout",
    "no",
    "stats",
    "errorfile",
    "fullconn",
    "description",
    "id",
    "hash-type",
    "unique-id-format",
    "log-format",
];

impl Reader {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.insert((line, text.into()), ());
    }

    fn line(&mut self, line: &Line) {
        let first = line.words[0].as_str();
        match first {
            "global" | "userlist" | "peers" | "resolvers" | "mailers" | "program" | "cache"
            | "ring" | "http-errors" | "crt-store" => {
                self.sections.push(Section { kind: "ignored".into(), ..Section::default() });
                if first == "resolvers" {
                    let text = "`resolvers`: names are resolved by the servers of /etc/resolv.conf; `resolver:` names another file, and the bounds of times to live";
                    self.note(line.number, text);
                } else if first != "global" {
                    self.note(line.number, format!("`{first}` has no equivalent"));
                }
            }
            "defaults" => {
                self.sections.push(Section { kind: "defaults".into(), ..Section::default() })
            }
            "frontend" | "backend" | "listen" => self.sections.push(Section {
                kind: first.to_owned(),
                name: line.words.get(1).cloned().unwrap_or_default(),
                line: line.number,
                ..self.defaults.clone()
            }),
            _ => self.keyword(line),
        }
    }

    fn keyword(&mut self, line: &Line) {
        let Some(mut section) = self.sections.pop() else {
            return self
                .note(line.number, format!("`{}` stands before any section", line.words[0]));
        };
        if section.kind != "ignored" {
            self.keyword_of(&mut section, line);
        }
        if section.kind == "defaults" {
            self.defaults = section.clone();
        }
        self.sections.push(section);
    }

    fn keyword_of(&mut self, section: &mut Section, line: &Line) {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let number = line.number;
        if let Some(result) = section.admission.line(&words) {
            if let Err(text) = result {
                self.note(number, text);
            }
            return;
        }
        if self.check_line(section, number, &words) || self.server_line(section, number, &words) {
            return;
        }
        match words.as_slice() {
            ["mode", mode] => section.is_http = *mode == "http",
            ["bind", addresses, parameters @ ..] => {
                section.binds.extend(Bind::all(number, addresses, parameters));
                if parameters.contains(&"ssl") {
                    self.note(number, "`bind ... ssl`: lb passes TLS through; certificates belong to the backends");
                }
            }
            ["default_backend", backend, ..] => {
                section.default_backend = Some((*backend).to_owned())
            }
            ["use_backend" | "use-server" | "acl", ..] => {
                self.note(number, format!("`{}` chooses by content, which lb does not see: make a service of its own, or choose behind lb", words[0]));
            }
            ["balance", algorithm, ..] => self.balance(section, number, algorithm),
            ["hash-balance-factor", factor] => {
                section.hash_balance_factor =
                    factor.parse().ok().filter(|factor| (101..=10_000).contains(factor));
            }
            ["option", "allbackups"] => section.all_backups = true,
            ["option", ..] => {}
            ["stick", "on" | "match", "src", ..] => {
                section.stick = Some(number);
            }
            ["stick-table", "type", "ip" | "ipv6", parameters @ ..] => {
                section.stick_expires = after(parameters, "expire").and_then(milliseconds);
            }
            ["stick" | "stick-table" | "cookie" | "appsession", ..] => {
                self.note(number, format!("`{}`: lb knows clients by their addresses alone: a flow stays, a client's next one may go elsewhere", words[0]));
            }
            [keyword, ..] if NEEDLESS.contains(keyword) => {}
            [keyword, ..] => self.note(number, format!("`{keyword}` has no equivalent")),
            [] => {}
        }
    }

    fn balance(&mut self, section: &mut Section, line: usize, algorithm: &str) {
        section.balance = match algorithm {
            "source" => "source",
            // HAProxy's algorithms go by weight.
            "roundrobin" | "static-rr" => "wrr",
            "leastconn" => "wlc",
            "random" | "random(2)" => "random2",
            _ if algorithm.starts_with("random(") => {
                self.note(line, format!("`balance {algorithm}`: lb draws two"));
                "random2"
            }
            _ => {
                self.note(line, format!("`balance {algorithm}`: lb does not see that: it spreads flows by a weighted hash of address and port"));
                ""
            }
        };
    }
}

#[cfg(test)]
mod tests;
