//! HAProxy's file (its configuration manual, chapters 2, 4 and 5): what of it a layer-4 load balancer does.

mod admission;
mod bind;

use std::{collections::BTreeMap, net::IpAddr};

use self::{admission::Admission, bind::Bind};
use super::{
    Backend, Check, Choices, Forward, Imported, Service, Settings, name, period, quoted,
    words::{Line, lines},
    yaml,
};
use crate::config::value::{DnsName, Host};

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

/// `observe`, `error-limit` and `on-error` of a server; lb has them for all servers of a service.
#[derive(Clone, Debug)]
struct Observe {
    limit: u16,
    on_error: &'static str,
}

impl Observe {
    /// In our notation; nothing if it could not do anything there.
    fn text(&self, forward: Forward, checked: bool) -> Option<String> {
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
struct Server {
    line: usize,
    name: String,
    address: String,
    settings: Settings,
    is_checked: bool,
    is_backup: bool,
    /// `BACKEND/SERVER` or `SERVER`.
    track: Option<String>,
    /// `server-template`.
    is_template: bool,
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
            ["option", "httpchk", rest @ ..] => {
                section.has_check = true;
                section.check.http = true;
                let (method, path) = match rest {
                    [] => ("OPTIONS", "/"),
                    [path] => ("OPTIONS", *path),
                    [method, path, ..] => (*method, *path),
                };
                section.check.method = Some(method.to_owned());
                section.check.path = Some(path.to_owned());
                if let Some(host) = rest.iter().find_map(|word| word.split_once("Host: ")) {
                    section.check.host = Some(host.1.to_owned());
                }
            }
            ["option", "tcp-check"] => section.has_check = true,
            ["option", "allbackups"] => section.all_backups = true,
            [
                "option",
                check @ ("mysql-check" | "pgsql-check" | "redis-check" | "smtpchk" | "ldap-check"
                | "ssl-hello-chk" | "external-check"),
                rest @ ..,
            ] => self.option_check(section, number, check, rest),
            ["external-check", "command", command] => {
                section.check.more.push(format!("command: {}", quoted(command)));
                self.note(number, "`external-check command`: the program gets no arguments, and finds LB_BACKEND_ADDRESS and the like in its environment");
            }
            ["external-check", ..] => {}
            ["source", address, ..] => {
                let host = address.parse::<IpAddr>().ok();
                let host = host.or(address.parse().map(|at: std::net::SocketAddr| at.ip()).ok());
                match host.filter(|host| !host.is_unspecified()) {
                    Some(_) => section.check.more.push(format!("source: {}", quoted(address))),
                    None => self.note(number, format!("`source {address}` has no equivalent")),
                }
            }
            ["option", ..] => {}
            ["http-check", "send", rest @ ..] => {
                section.check.http = true;
                for (key, value) in rest.iter().zip(rest.iter().skip(1)) {
                    match *key {
                        "meth" => section.check.method = Some((*value).to_owned()),
                        "uri" => section.check.path = Some((*value).to_owned()),
                        _ => {}
                    }
                }
                let mut headers = Vec::new();
                for three in rest.windows(3).filter(|three| three[0] == "hdr") {
                    match three[1].eq_ignore_ascii_case("host") {
                        true => section.check.host = Some(three[2].to_owned()),
                        false => headers.push(quoted(&format!("{}: {}", three[1], three[2]))),
                    }
                }
                if !headers.is_empty() {
                    section.check.more.push(format!("headers: [{}]", headers.join(", ")));
                }
            }
            ["http-check", "expect", "status", status] => {
                section.check.status = Some((*status).to_owned())
            }
            ["http-check", "expect", kind @ ("string" | "rstring"), text]
            | ["tcp-check", "expect", kind @ ("string" | "rstring"), text]
                if !section.check.more.iter().any(|key| key.starts_with("expect")) =>
            {
                let key = if *kind == "string" { "expect" } else { "expect_regex" };
                section.check.more.push(format!("{key}: {}", quoted(text)));
            }
            ["tcp-check", "connect"] => {}
            ["tcp-check", "send", text]
                if !section.check.more.iter().any(|key| key.starts_with("send")) =>
            {
                let text = text.replace("\\r", "\r").replace("\\n", "\n");
                section.check.more.push(format!("send: {}", quoted(&text)));
            }
            ["http-check" | "tcp-check", ..] => {
                self.note(
                    number,
                    format!(
                        "`{}`: lb's checks send one thing and look for one in the answer: write that into `check:` by hand",
                        line.words.join(" ")
                    ),
                );
            }
            ["timeout", "check", time] => match milliseconds(time) {
                Some(time) => section.defaults.timeout = Some(period(time)),
                None => self.note(number, format!("`{time}` is no time")),
            },
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
                    return;
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
                let words: Vec<String> = ["server", name, address]
                    .iter()
                    .chain(parameters)
                    .map(|word| (*word).to_owned())
                    .collect();
                self.keyword_of(section, &Line { number, words });
                if let Some(server) = section.servers.get_mut(before) {
                    server.is_template = true;
                    self.note(number, format!("`server-template {name} {count}`: each address of the name is a backend, however many there are"));
                }
            }
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

    /// `stick on src`, with what its table says.
    fn persistence(&mut self, pool: &Section) -> Option<String> {
        let line = pool.stick?;
        let most = 24 * 3_600_000;
        let expires = match pool.stick_expires {
            Some(expires @ 1_000..=86_400_000) => expires,
            Some(0..1_000) => 1_000,
            _ => {
                self.note(line, "`stick on src`: lb remembers a client for 24h at most after its last packet; the table's `expire` is another or not here");
                most
            }
        };
        Some(format!("by: source, timeout: {}", period(expires / 1_000 * 1_000)))
    }

    /// `option mysql-check` and its like.
    fn option_check(&mut self, section: &mut Section, line: usize, check: &str, rest: &[&str]) {
        section.has_check = true;
        let user = rest.windows(2).find(|pair| pair[0] == "user").map(|pair| quoted(pair[1]));
        match check {
            "mysql-check" | "pgsql-check" => {
                section.check.kind =
                    Some(if check == "mysql-check" { "mysql" } else { "postgres" });
                section.check.more.extend(user.map(|user| format!("user: {user}")));
                self.note(line, format!("`option {check}`: lb logs in for good: give the user a password, and the check a `password_file`, or let it in without"));
            }
            "redis-check" => section.check.kind = Some("redis"),
            "ssl-hello-chk" => section.check.tls = true,
            "smtpchk" => section.check.more.push("expect: \"220\"".to_owned()),
            "external-check" => section.check.kind = Some("exec"),
            _ => {
                let text = format!("`option {check}`: translated to a check of the TCP port");
                self.note(line, text);
            }
        }
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

    fn finish(mut self, choices: &Choices) -> Imported {
        let sections = std::mem::take(&mut self.sections);
        let mut services: Vec<Service> = Vec::new();
        // HAProxy's names of pools, by service.
        let mut pools: Vec<String> = Vec::new();
        for section in sections
            .iter()
            .filter(|section| ["frontend", "listen"].contains(&section.kind.as_str()))
        {
            let pool = match &section.default_backend {
                Some(wanted) => {
                    sections.iter().find(|one| one.kind == "backend" && one.name == *wanted)
                }
                None => Some(section),
            };
            let Some(pool) = pool.filter(|pool| !pool.servers.is_empty()) else {
                self.note(
                    section.line,
                    format!("`{}` has no servers that lb could use: left out", section.name),
                );
                continue;
            };
            if section.is_http {
                self.note(section.line, format!("`{}` is in mode http: lb forwards its TCP connections, whatever they carry", section.name));
            }
            self.note_backups(pool);
            for bind in &section.binds {
                let service = self.service(section, pool, bind, choices);
                pools.extend(service.iter().map(|_| pool.name.clone()));
                services.extend(service);
            }
        }
        let mut seen = BTreeMap::new();
        for service in &mut services {
            let count: &mut u32 = seen.entry(service.name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                service.name = format!("{}-{}", service.name, service.port);
            }
        }
        self.name_tracked(&mut services, &pools);
        self.note_shared(&services);
        let notes = self.notes.into_keys().map(|(line, text)| match line {
            0 => text,
            line => format!("line {line}: {text}"),
        });
        let notes = notes.collect();
        yaml::write("a file of HAProxy", &services, notes)
    }

    /// HAProxy uses one backup after the other, unless it is told otherwise.
    fn note_backups(&mut self, pool: &Section) {
        let mut backups = pool.servers.iter().filter(|server| server.is_backup);
        if let (Some(_), Some(second)) = (backups.next(), backups.next())
            && !pool.all_backups
        {
            self.note(
                second.line,
                "more than one `backup`: lb uses all of a tier together; give them `tier: 1`, `tier: 2`... for one after the other",
            );
        }
    }

    /// `track` names HAProxy's backend; ours names the service that it became.
    fn name_tracked(&mut self, services: &mut [Service], pools: &[String]) {
        let known: Vec<(String, Vec<String>)> = services
            .iter()
            .map(|service| {
                (service.name.clone(), service.backends.iter().map(|b| b.name.clone()).collect())
            })
            .collect();
        for (index, service) in services.iter_mut().enumerate() {
            for backend in &mut service.backends {
                let Some(wanted) = backend.track.take() else { continue };
                let (pool, server) = wanted.split_once('/').unwrap_or((&pools[index], &wanted));
                let server = name(server);
                // Its own service first: several may have the same pool.
                let mut places = std::iter::once(index).chain(0..known.len());
                let found = places.find(|at| pools[*at] == pool && known[*at].1.contains(&server));
                match found {
                    Some(at) => backend.track = Some(format!("{}/{server}", known[at].0)),
                    None => self.note(
                        0,
                        format!(
                            "`{}` tracks `{wanted}`, which is in no service: left out",
                            backend.name
                        ),
                    ),
                }
            }
        }
    }

    /// A proxy may use a server for as many frontends as it likes; nat tells answers apart by the server's address and port.
    fn note_shared(&mut self, services: &[Service]) {
        let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for service in services.iter().filter(|service| service.forward == Forward::Nat) {
            for backend in &service.backends {
                users.entry(&backend.address).or_default().push(&service.name);
            }
        }
        for (address, services) in users.into_iter().filter(|(_, services)| services.len() > 1) {
            let text = format!(
                "{address} serves {}: with nat, let it listen on a port or address of its own for each",
                services.join(", ")
            );
            self.note(0, text);
        }
    }

    fn service(
        &mut self,
        section: &Section,
        pool: &Section,
        bind: &Bind,
        choices: &Choices,
    ) -> Option<Service> {
        let line = bind.line;
        let Some((port, last_port)) = bind.ports() else {
            self.note(
                line,
                format!("`bind {}`: a port, or a range of ports, please; left out", bind.text),
            );
            return None;
        };
        let address = bind.address().or(choices.vip);
        if address.is_none() {
            self.note(line, format!("`bind {}` names no address: give the VIP with --vip, or write it in place of THE-VIP", bind.text));
        }
        let mut service = Service {
            name: name(&section.name),
            address,
            port,
            last_port,
            mss: bind.mss,
            forward: choices.forward,
            balance: pool.balance,
            hash_balance_factor: pool.hash_balance_factor,
            persistence: self.persistence(pool),
            defaults: pool.defaults.clone(),
            ..Service::default()
        };
        let checked = pool.has_check || pool.servers.iter().any(|server| server.is_checked);
        service.check = checked.then(|| pool.check.clone());
        if last_port.is_some() && checked && pool.check.port.is_none() {
            self.note(
                line,
                "which of the ports is checked? Add `check: {port: ...}` to the service",
            );
        }
        service.agent.clone_from(&pool.agent);
        if let Some(observe) = &pool.observe {
            service.observe = observe.text(choices.forward, checked);
            if service.observe.is_none() {
                self.note(pool.line, "`observe` needs `check` in dsr and tunnel: left out");
            }
        }
        let (keys, missing) = section.admission.keys(address);
        service.admission = keys;
        if let Some(text) = missing {
            self.note(section.line, text);
        }
        let weighted = pool.servers.iter().any(|server| server.settings.weight.is_some());
        for server in &pool.servers {
            let found = match last_port {
                None => {
                    address_of(&server.address, port).or_else(|| name_of(&server.address, port))
                }
                Some(_) => host_of(&server.address),
            };
            if last_port.is_some() && found.is_none() && address_of(&server.address, port).is_some()
            {
                let text = format!(
                    "`{}` has a port of its own, and with several ports lb keeps the one that a client asks for; left out",
                    server.address
                );
                self.note(server.line, text);
                continue;
            }
            let Some(address) = found else {
                let text =
                    format!("`{}` is neither an address nor a name; left out", server.address);
                self.note(server.line, text);
                continue;
            };
            if !server.is_template && address_of(&server.address, port).is_none() {
                let text = format!(
                    "`{}`: lb resolves the name for as long as it runs, and each of its addresses is a backend",
                    server.address
                );
                self.note(server.line, text);
            }
            let mut settings = server.settings.clone();
            if weighted && pool.defaults.weight.is_none() {
                // HAProxy's default; ours is another, and weights are relative.
                settings.weight.get_or_insert(1);
            }
            service.backends.push(Backend {
                name: name(&server.name),
                address,
                settings,
                is_backup: server.is_backup,
                track: server.track.clone(),
                ..Backend::default()
            });
        }
        if service.backends.is_empty() {
            self.note(line, format!("`{}` has no backend left: left out", section.name));
            return None;
        }
        Some(service)
    }
}

/// The value behind a parameter.
fn after<'w>(words: &[&'w str], parameter: &str) -> Option<&'w str> {
    let at = words.iter().position(|word| *word == parameter)?;
    words.get(at + 1).copied()
}

/// `app.internal:80`, `app.internal` (the bind's port), `_http._tcp.app.internal` (SRV records).
fn name_of(text: &str, port: u16) -> Option<String> {
    if text.starts_with('_') {
        return text.parse::<DnsName>().ok().map(|name| name.0);
    }
    match text.trim_start_matches("ipv4@").trim_start_matches("ipv6@").parse() {
        Ok(Host::Name { name, port: own }) => Some(format!("{name}:{}", own.unwrap_or(port))),
        _ => None,
    }
}

/// `10.0.0.1:80`, `10.0.0.1` (the bind's port), `[2001:db8::1]:80`, `2001:db8::1:80`.
fn address_of(text: &str, port: u16) -> Option<String> {
    let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.to_string());
    }
    if let Ok(IpAddr::V4(address)) = text.parse::<IpAddr>() {
        return Some(std::net::SocketAddr::new(address.into(), port).to_string());
    }
    let (host, port) = text.rsplit_once(':')?;
    let address = host.parse::<IpAddr>().ok()?;
    Some(std::net::SocketAddr::new(address, port.parse().ok()?).to_string())
}

/// An address without a port: packets keep theirs.
fn host_of(text: &str) -> Option<String> {
    let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
    text.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|address| address.to_string())
}

/// HAProxy's times (manual 2.5): milliseconds unless a unit says otherwise.
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "us" => return Some(number.div_ceil(1000)),
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, model, parse};

    const FILE: &str = "\
global
    maxconn 20000
defaults
    mode tcp
    timeout connect 5s
    timeout check 800
    default-server inter 1s fall 2
frontend www
    bind 192.0.2.10:80
    acl is_api path_beg /api
    acl bad src 198.51.100.0/24 2001:db8::/32
    tcp-request connection reject if bad
    use_backend api if is_api
    default_backend servers
backend servers
    balance leastconn
    option httpchk GET /healthz
    http-check expect status 200-299
    stick-table type ip size 1m expire 30m
    stick on src
    server web1 10.0.0.11:8080 check weight 3 observe layer4 error-limit 2 on-error sudden-death
    server web2 10.0.0.12:8080 check fastinter 250ms
    server old 10.0.0.13:8080 check backup slowstart 30s
    server named app.example:8080 check
listen tls
    bind :443 ssl crt /etc/x.pem
    server web1 10.0.0.11:8443 track servers/web1
    server web2 10.0.0.12:8443 track gone/web9
listen postgres
    bind 192.0.2.20:5432
    option pgsql-check user lb
    server db1 10.0.1.11 check port 5433
";

    fn model(imported: &Imported) -> crate::config::Config {
        let source = Source { path: "lb.yaml".into(), text: imported.yaml.clone() };
        parse(&source).unwrap_or_else(|errors| panic!("{errors}\n{}", imported.yaml)).config
    }

    #[test]
    fn a_tcp_proxy_becomes_services() {
        let choices = Choices { vip: Some("192.0.2.12".parse().unwrap()), ..Choices::default() };
        let imported = import(FILE, &choices);
        let config = model(&imported);
        let listens: Vec<String> = (config.services.iter())
            .map(|s| format!("{} {}:{}", s.name, s.listen.address, s.listen.port))
            .collect();
        assert_eq!(
            listens,
            ["www 192.0.2.10:80", "tls 192.0.2.12:443", "postgres 192.0.2.20:5432"]
        );
        let web = &config.services[0];
        let backends: Vec<String> = (web.backends.iter())
            .map(|b| {
                format!(
                    "{} {}:{} {} {:?} {:?} {}",
                    b.name,
                    b.address,
                    b.port,
                    b.weight,
                    b.timing.inter,
                    b.timing.fastinter,
                    b.timing.fall
                )
            })
            .collect();
        assert_eq!(
            backends,
            [
                "web1 10.0.0.11:8080 3 1s 500ms 2",
                "web2 10.0.0.12:8080 1 1s 250ms 2",
                "old 10.0.0.13:8080 1 1s 500ms 2",
                "named 0.0.0.0:8080 1 1s 500ms 2"
            ]
        );
        let name = crate::config::model::Origin::Name("app.example".into());
        assert_eq!(web.backends[3].origin, name);
        assert_eq!((web.backends[2].tier, web.backends[2].slowstart.as_secs()), (1, 30));
        let tracked = |index: usize| config.services[1].backends[index].track.clone();
        assert_eq!(tracked(0).map(|tracked| tracked.name), Some("www/web1".to_owned()));
        assert_eq!(tracked(1), None);
        assert_eq!(web.backends[0].timing.timeout.as_millis(), 800);
        assert_eq!(web.balance, crate::config::model::Balance::Wlc);
        let persistence = web.persistence.expect("stick on src");
        assert_eq!(persistence.timeout, Some(std::time::Duration::from_secs(1_800)));
        assert_eq!(web.deny, ["198.51.100.0/24".parse().unwrap()], "of the VIP's family");
        let observe = web.observe.unwrap();
        assert_eq!((observe.error_limit, observe.min_sources), (2, 2));
        assert_eq!(observe.on_error, crate::config::model::OnError::SuddenDeath);
        assert_eq!(config.services[1].observe, None);
        let check = format!("{:?}", web.check);
        assert!(check.contains("/healthz") && check.contains("GET"), "{check}");
        assert_eq!(config.services[2].backends[0].port, 5432, "the bind's port");
        for (line, word) in [
            (10, "acl"),
            (13, "use_backend"),
            (24, "app.example"),
            (26, "TLS"),
            (31, "pgsql-check"),
        ] {
            let expected = format!("line {line}: ");
            let found = imported
                .notes
                .iter()
                .any(|note| note.starts_with(&expected) && note.contains(word));
            assert!(found, "no note about `{word}`: {:#?}", imported.notes);
        }
    }

    #[test]
    fn algorithms_have_equivalents() {
        for (words, expected) in [
            ("balance roundrobin", "Wrr None"),
            ("balance static-rr", "Wrr None"),
            ("balance leastconn", "Wlc None"),
            ("balance random(2)", "Random2 None"),
            ("balance source", "Source None"),
            ("balance source\n hash-balance-factor 150", "Source Some(150)"),
            ("balance leastconn\n hash-balance-factor 150", "Wlc None"),
            ("balance hdr(host)", "Maglev None"),
        ] {
            let file =
                format!("listen web\n bind 192.0.2.10:80\n {words}\n server a 10.0.0.11:80\n");
            let config = model(&import(&file, &Choices::default()));
            let service = &config.services[0];
            let found = format!("{:?} {:?}", service.balance, service.hash_balance_factor);
            assert_eq!(found, expected, "{words}");
        }
    }

    #[test]
    fn an_address_that_is_not_named_is_asked_for() {
        let imported = import(FILE, &Choices::default());
        assert!(imported.yaml.contains("THE-VIP"), "{}", imported.yaml);
        assert!(imported.notes.iter().any(|note| note.contains("--vip")), "{:#?}", imported.notes);
    }

    #[test]
    fn ranges_of_ports_and_segment_sizes_are_translated() {
        let text = "listen a\n bind 192.0.2.1:8000-8999 mss 1360\n server s 10.0.0.1\n server t 10.0.0.2:80\n";
        let imported = import(text, &Choices::default());
        let config = model(&imported);
        let service = &config.services[0];
        assert!(!service.listen.has_one_port(), "{}", imported.yaml);
        assert_eq!((service.listen.port, service.mss_clamp), (8_000, Some(1_360)));
        assert_eq!(service.backends.len(), 1);
        assert!(imported.notes[0].contains("port of its own"), "{:?}", imported.notes);
        let checked = "listen a\n bind 192.0.2.1:8000-8999\n server s 10.0.0.1 check\n";
        assert!(import(checked, &Choices::default()).notes[0].contains("which of the ports"));
    }

    #[test]
    fn a_server_of_two_services_is_named() {
        let text = "listen a\n bind 192.0.2.1:80,192.0.2.2:81\n server s 10.0.0.1:8080\n";
        let imported = import(text, &Choices::default());
        assert_eq!(imported.services, 2);
        assert!(imported.yaml.contains("- name: a\n") && imported.yaml.contains("- name: a-81\n"));
        assert_eq!(
            imported.notes,
            [
                "10.0.0.1:8080 serves a, a-81: with nat, let it listen on a port or address of its own for each"
            ]
        );
    }

    #[test]
    fn the_way_to_the_backends_can_be_chosen() {
        let text = "listen a\n bind 192.0.2.1:80\n server s 10.0.0.1:80\n";
        let imported = import(text, &Choices { vip: None, forward: Forward::Tunnel });
        let config = model(&imported);
        assert_eq!(config.services[0].check, None);
        assert!(imported.notes.is_empty(), "{:?}", imported.notes);
    }

    #[test]
    fn nothing_makes_it_fall_over() {
        for text in [
            "",
            "bind",
            "listen",
            "listen x\nserver",
            "frontend f\nbind\nbind :\nbind :x",
            "\"",
            "listen a\n bind :1\n server x y",
        ] {
            import(text, &Choices::default());
        }
        let choices = Choices { vip: Some("192.0.2.12".parse().unwrap()), ..Choices::default() };
        for end in 0..FILE.len() {
            import(&FILE[..end], &choices);
        }
    }

    /// The one service of a backend with these lines.
    fn service_of(lines: &str) -> (model::Service, Vec<String>) {
        let file = format!(
            "listen db\n  bind 192.0.2.10:3306\n{lines}\n  server a 10.0.0.11:3306 check\n"
        );
        let imported = import(&file, &Choices::default());
        let source = Source { path: "lb.yaml".into(), text: imported.yaml.clone() };
        let config =
            parse(&source).unwrap_or_else(|errors| panic!("{errors}\n{}", imported.yaml)).config;
        (config.services.into_iter().next().unwrap(), imported.notes)
    }

    #[test]
    fn checks_of_other_protocols_are_translated() {
        let kind = |lines: &str| format!("{:?}", service_of(lines).0.check.unwrap());
        for (lines, words) in [
            ("option mysql-check user lb", vec!["Mysql", "\"lb\""]),
            ("option pgsql-check user lb", vec!["Postgres", "\"lb\""]),
            ("option redis-check", vec!["Redis"]),
            ("option ssl-hello-chk", vec!["Tls("]),
            ("option smtpchk", vec!["Tcp", "220"]),
            (
                "option external-check\n external-check command /usr/bin/true",
                vec!["Exec", "/usr/bin/true"],
            ),
            (
                "option tcp-check\n tcp-check send PING\\\\r\\\\n\n tcp-check expect string +PONG",
                vec!["Text(\"+PONG\")"],
            ),
            (
                "option httpchk GET /\n http-check send hdr X-A b\n http-check expect rstring ^ok$",
                vec!["X-A", "Regex(\"^ok$\")"],
            ),
            ("source 10.0.0.5\n option tcp-check", vec!["10.0.0.5:0"]),
        ] {
            let kind = kind(lines);
            assert!(words.iter().all(|word| kind.contains(word)), "{lines}: {kind}");
        }
        let (_, notes) = service_of("source 0.0.0.0 usesrc client");
        assert!(notes.iter().any(|note| note.contains("0.0.0.0")), "{notes:?}");
    }

    #[test]
    fn names_and_templates_are_translated() {
        let (service, notes) = service_of(
            "server-template app 5 app.internal:3307 check resolvers r weight 7\n server-template s 3 _db._tcp.app.internal check",
        );
        let origins: Vec<_> =
            service.backends.iter().map(|b| (&*b.name, &b.origin, b.weight)).collect();
        use crate::config::model::Origin;
        assert_eq!(
            origins,
            [
                ("app", &Origin::Name("app.internal".into()), 7),
                ("s", &Origin::Srv("_db._tcp.app.internal".into()), 1),
                ("a", &Origin::Written, 1)
            ]
        );
        assert_eq!(service.backends[0].port, 3_307);
        assert!(notes.iter().any(|note| note.contains("server-template app 5")), "{notes:?}");
    }

    #[test]
    fn agents_are_translated() {
        let agents = "server b 10.0.0.12:3306 check agent-check agent-port 8888 agent-inter 5s agent-send b\\\\n agent-addr 10.0.0.9";
        let (service, _) = service_of(agents);
        let agent = service.agent_check.unwrap();
        assert_eq!((agent.port, agent.inter.as_secs()), (8888, 5));
        assert_eq!(agent.address, Some("10.0.0.9".parse().unwrap()));
        assert_eq!(agent.send.as_deref(), Some("b\n"));
    }
}
