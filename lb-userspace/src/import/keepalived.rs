//! keepalived's `virtual_server` blocks (keepalived.conf(5)): IPVS services with their checks.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Backend, Check, Choices, Forward, Imported, Service, name, period, quoted,
    words::{Line, lines},
    yaml,
};

/// Translates a file.
pub fn import(text: &str, choices: &Choices) -> Imported {
    let mut reader = Reader { forward: choices.forward, ..Reader::default() };
    for line in split_braces(lines(text, &['#', '!'])) {
        reader.line(&line);
    }
    reader.finish()
}

/// Braces may stand at the end of a line, or on their own: here they always stand alone.
fn split_braces(lines: Vec<Line>) -> Vec<Line> {
    let mut split = Vec::new();
    for line in lines {
        let number = line.number;
        let mut words = Vec::new();
        for word in line.words {
            if word == "{" || word == "}" {
                if !words.is_empty() {
                    split.push(Line { number, words: std::mem::take(&mut words) });
                }
                split.push(Line { number, words: vec![word] });
            } else {
                words.push(word);
            }
        }
        if !words.is_empty() {
            split.push(Line { number, words });
        }
    }
    split
}

#[derive(Default)]
struct Reader {
    /// Names of the open blocks.
    open: Vec<String>,
    /// The words before a brace.
    head: Vec<String>,
    service: Option<Service>,
    services: Vec<Service>,
    forward: Forward,
    notes: BTreeMap<(usize, String), ()>,
}

impl Reader {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.insert((line, text.into()), ());
    }

    fn line(&mut self, line: &Line) {
        match line.words[0].as_str() {
            "{" => {
                let head = std::mem::take(&mut self.head);
                self.begin(line.number, &head);
                self.open.push(head.first().cloned().unwrap_or_default());
            }
            "}" => {
                let closed = self.open.pop();
                if closed.as_deref() == Some("virtual_server")
                    && let Some(service) = self.service.take()
                {
                    if service.backends.iter().all(|backend| backend.is_sorry) {
                        self.note(
                            line.number,
                            format!("{} has no real_server: left out", service.name),
                        );
                    } else {
                        self.finish_service(line.number, service);
                    }
                }
            }
            _ => {
                // The words before a block are also what a plain setting is: it is one if no brace follows.
                self.head = line.words.clone();
                self.setting(line);
            }
        }
    }

    /// keepalived's quorum counts weights (1 unless written), ours counts backends.
    fn finish_service(&mut self, line: usize, mut service: Service) {
        let weight = |backend: &Backend| backend.settings.weight.unwrap_or(1);
        let mut weights: Vec<u16> =
            service.backends.iter().filter(|backend| !backend.is_sorry).map(weight).collect();
        weights.dedup();
        let counted = |count: u32| count.div_ceil(u32::from(weights[0]).max(1));
        if service.quorum.is_some() || service.hysteresis.is_some() {
            if weights.len() == 1 {
                service.quorum = service.quorum.map(counted);
                service.hysteresis = service
                    .hysteresis
                    .map(|count| counted(count).min(service.quorum.unwrap_or(1) - 1));
            } else {
                service.quorum = None;
                service.hysteresis = None;
                let text = format!(
                    "the quorum of {} counts weights, which differ; lb's counts backends: left out",
                    service.name
                );
                self.note(line, text);
            }
        }
        service.backends.sort_by_key(|backend| backend.is_sorry);
        self.services.push(service);
    }

    fn begin(&mut self, line: usize, head: &[String]) {
        let words: Vec<&str> = head.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["virtual_server", address, port] => {
                let (Ok(address), Ok(port)) = (address.parse::<IpAddr>(), port.parse::<u16>())
                else {
                    return self.note(line, format!("virtual_server {address} {port}: left out"));
                };
                self.service = Some(Service {
                    name: name(&format!("vs-{address}-{port}")),
                    address: Some(address),
                    port,
                    forward: self.forward,
                    allow_fail_open: true,
                    ..Service::default()
                });
            }
            ["virtual_server" | "virtual_server_group", rest @ ..] => {
                self.note(
                    line,
                    format!(
                        "{} {}: only an address and a port are understood; left out",
                        words[0],
                        rest.join(" ")
                    ),
                );
            }
            ["real_server", address, port] => {
                let Some(service) = &mut self.service else { return };
                let Ok(address) = address.parse::<IpAddr>() else {
                    return self.note(line, format!("real_server {address}: left out"));
                };
                let port = port.parse().unwrap_or(service.port);
                let address = std::net::SocketAddr::new(address, port).to_string();
                let name = format!("rs{}", service.backends.len() + 1);
                service.backends.push(Backend { name, address, ..Backend::default() });
            }
            ["TCP_CHECK"] => self.check(|_| {}),
            ["HTTP_GET"] => self.check(|check| check.http = true),
            ["SSL_GET"] => self.check(|check| (check.http, check.tls) = (true, true)),
            ["DNS_CHECK"] => self.check_of("dns"),
            ["MISC_CHECK"] => self.check_of("exec"),
            ["UDP_CHECK"] => self.check_of("udp"),
            ["PING_CHECK"] => self.check_of("icmp"),
            ["SMTP_CHECK"] => self.check_key("expect", &quoted("220")),
            ["BFD_CHECK"] => {
                self.note(line, format!("{}: translated to a check of the TCP port", words[0]));
                self.check(|_| {});
            }
            [
                "vrrp_instance" | "vrrp_sync_group" | "vrrp_script" | "global_defs"
                | "static_ipaddress",
                ..,
            ] => {}
            _ => {}
        }
    }

    fn check(&mut self, change: impl FnOnce(&mut Check)) {
        if let Some(service) = &mut self.service {
            change(service.check.get_or_insert_default());
        }
    }

    fn check_of(&mut self, kind: &'static str) {
        self.check(|check| check.kind = Some(kind));
    }

    /// A further key of the check; each backend repeats them, and the first counts.
    fn check_key(&mut self, key: &str, value: &str) {
        self.check(|check| {
            let lead = format!("{key}: ");
            if !check.more.iter().any(|known| known.starts_with(&lead)) {
                check.more.push(format!("{lead}{value}"));
            }
        });
    }

    /// What a block of a check says, by the check's name.
    fn setting_of_check(&mut self, line: usize, words: &[&str]) -> bool {
        let block = self.open.last().map(String::as_str).unwrap_or_default();
        match (block, words) {
            ("DNS_CHECK", ["name", name]) => self.check_key("query", &quoted(name)),
            ("DNS_CHECK", ["type", kind]) => self.check_key("record", kind),
            ("UDP_CHECK", ["payload", bytes @ ..]) => {
                self.check_key("send_hex", &quoted(&bytes.concat()));
            }
            ("UDP_CHECK", ["require_reply", ..]) => {
                self.note(line, "`require_reply`: write what the answer has to hold as `expect` or `expect_regex`");
            }
            ("MISC_CHECK", ["misc_path", command @ ..]) => {
                let command = command.join(" ");
                let mut words = command.split_whitespace();
                if let Some(program) = words.next() {
                    self.check_key("command", &quoted(program));
                    let arguments: Vec<String> = words.map(quoted).collect();
                    if !arguments.is_empty() {
                        self.check_key("arguments", &format!("[{}]", arguments.join(", ")));
                    }
                }
                self.note(line, "`misc_path`: one program for all backends; LB_BACKEND_ADDRESS and LB_BACKEND_PORT in its environment say which is meant");
            }
            ("MISC_CHECK", ["misc_timeout", time]) => {
                if let (Some(service), Ok(seconds)) = (&mut self.service, time.parse::<u64>()) {
                    service.defaults.timeout = Some(period(seconds * 1_000));
                }
            }
            ("MISC_CHECK", ["misc_dynamic", ..]) => {
                self.note(line, "`misc_dynamic`: an agent (`agent_check`) or a header of the answer (`weight_header`) can set weights");
            }
            (_, ["regex", expression]) => self.check_key("expect_regex", &quoted(expression)),
            (_, ["bindto", address]) => self.check_key("source", &quoted(address)),
            _ => return false,
        }
        true
    }

    fn setting(&mut self, line: &Line) {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        if self.service.is_some() && self.setting_of_check(line.number, &words) {
            return;
        }
        if let ["lb_kind" | "lvs_method", "FNAT"] = words.as_slice() {
            self.note(line.number, "`FNAT`: write `forward: fullnat`, and the local addresses (`laddr_group`) as `source_pool`; here it is nat, for which the servers' answers have to come back through lb");
        }
        let Some(service) = &mut self.service else { return };
        let seconds =
            |text: &str| text.parse::<f64>().ok().map(|seconds| period((seconds * 1e3) as u64));
        match words.as_slice() {
            ["delay_loop", time] => service.defaults.inter = seconds(time),
            ["lb_kind" | "lvs_method", kind] => {
                service.forward = match *kind {
                    "DR" => Forward::Dsr,
                    "TUN" => Forward::Tunnel,
                    _ => Forward::Nat,
                };
            }
            ["protocol", "UDP"] => service.protocol = Some("udp"),
            ["protocol", "TCP"] => {}
            ["lb_algo" | "lvs_sched", "rr"] => service.balance = "rr",
            ["lb_algo" | "lvs_sched", "wrr"] => service.balance = "wrr",
            ["lb_algo" | "lvs_sched", "lc"] => service.balance = "leastconn",
            // sed weighs the connection to come, too, as our wlc does.
            ["lb_algo" | "lvs_sched", "wlc" | "sed"] => service.balance = "wlc",
            ["lb_algo" | "lvs_sched", "mh"] => service.balance = "",
            ["lb_algo" | "lvs_sched", "sh"] => service.balance = "source",
            ["persistence_timeout", rest @ ..] => {
                // Without a number: ipvsadm's default.
                let seconds = rest.first().and_then(|seconds| seconds.parse::<u64>().ok());
                let seconds = seconds.unwrap_or(360).clamp(1, 24 * 3_600);
                let timeout = format!("timeout: {}", period(seconds * 1_000));
                let known = service.persistence.take();
                let prefix = known
                    .and_then(|known| known.split_once(", prefix").map(|parts| parts.1.to_owned()));
                let prefix = prefix.map_or_else(String::new, |prefix| format!(", prefix{prefix}"));
                service.persistence = Some(format!("by: source, {timeout}{prefix}"));
            }
            ["persistence_granularity", mask] => {
                let bits = match (mask.parse::<std::net::Ipv4Addr>(), mask.parse::<u8>()) {
                    (Ok(mask), _) => Some(("v4", u32::from(mask).leading_ones() as u8)),
                    (_, Ok(length @ 0..=128)) => Some(("v6", length)),
                    _ => None,
                };
                let known = service.persistence.take().unwrap_or_else(|| "by: source".to_owned());
                let prefix = bits.map(|(family, bits)| format!(", prefix_{family}: {bits}"));
                service.persistence = Some(known + &prefix.unwrap_or_default());
            }
            ["lb_algo" | "lvs_sched", algorithm] => {
                self.note(
                    line.number,
                    format!("{algorithm}: lb does not have it: it spreads flows by a weighted hash of address and port"),
                );
            }
            ["weight", weight] => {
                if let Some(backend) = service.backends.last_mut() {
                    backend.settings.weight = weight.parse().ok();
                }
            }
            ["connect_timeout", time] => service.defaults.timeout = seconds(time),
            ["retry" | "nb_get_retry", count] => {
                service.defaults.fall = count.parse::<u16>().ok().map(|count| count + 1);
            }
            ["connect_port", port] => {
                let port = port.parse().ok();
                self.check(|check| check.port = port);
            }
            ["path", path] => {
                let path = (*path).to_owned();
                self.check(|check| check.path = Some(path));
            }
            ["status_code", status, ..] => {
                let status = (*status).to_owned();
                self.check(|check| check.status = Some(status));
            }
            ["virtualhost", host] => {
                let host = (*host).to_owned();
                self.check(|check| check.host = Some(host));
            }
            ["sorry_server", address, port] => {
                let (Ok(address), Ok(port)) = (address.parse::<IpAddr>(), port.parse()) else {
                    return self
                        .note(line.number, format!("sorry_server {address} {port}: left out"));
                };
                let address = std::net::SocketAddr::new(address, port).to_string();
                let sorry = Backend {
                    name: "sorry".to_owned(),
                    address,
                    is_sorry: true,
                    ..Backend::default()
                };
                // Blocks about real servers have the last backend in mind.
                service.backends.insert(0, sorry);
            }
            ["quorum", count] => service.quorum = count.parse().ok(),
            ["hysteresis", count] => service.hysteresis = count.parse().ok(),
            [keyword @ ("ops" | "ha_suspend" | "alpha" | "inhibit_on_failure"), ..] => {
                self.note(line.number, format!("`{keyword}` has no equivalent yet"));
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Imported {
        for service in &mut self.services {
            // A granularity alone says nothing.
            service.persistence.take_if(|persistence| !persistence.contains("timeout"));
        }
        let notes =
            self.notes.into_keys().map(|(line, text)| format!("line {line}: {text}")).collect();
        yaml::write("a file of keepalived", &self.services, notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, model, parse};

    const FILE: &str = "\
! Configuration
vrrp_instance VI_1 {
    virtual_ipaddress {
        192.0.2.10
    }
}
virtual_server 192.0.2.10 80 {
    delay_loop 6
    lb_algo wlc
    lb_kind DR
    persistence_timeout 50
    protocol TCP
    real_server 10.0.0.11 80 {
        weight 100
        HTTP_GET {
            url {
                path /healthz
                status_code 200
            }
            connect_timeout 3
            retry 2
        }
    }
    real_server 10.0.0.12 80
    {
        weight 50
        TCP_CHECK { connect_timeout 3 }
    }
}
virtual_server 192.0.2.11 80 {
    lb_kind NAT
    quorum 4
    hysteresis 2
    sorry_server 10.0.0.30 80
    real_server 10.0.0.31 80 { weight 2 }
    real_server 10.0.0.32 80 { weight 2 }
}
virtual_server 192.0.2.12 80 {
    lb_kind NAT
    quorum 4
    real_server 10.0.0.41 80 { weight 2 }
    real_server 10.0.0.42 80 { weight 3 }
}
virtual_server fwmark 5 {
    real_server 10.0.0.13 80 { }
}
virtual_server 192.0.2.10 53 {
    lb_kind NAT
    protocol UDP
    real_server 10.0.0.21 53 { weight 1 }
}
";

    #[test]
    fn full_nat_is_named_and_not_taken_for_nat() {
        let text =
            "virtual_server 192.0.2.10 80 {\n lb_kind FNAT\n real_server 10.0.0.11 80 { }\n}\n";
        let imported = import(text, &Choices::default());
        let told = |note: &String| note.contains("forward: fullnat") && note.contains("2");
        assert!(imported.notes.iter().any(told), "{:#?}", imported.notes);
    }

    #[test]
    fn virtual_servers_become_services() {
        let imported = import(FILE, &Choices::default());
        let source = Source { path: "lb.yaml".into(), text: imported.yaml.clone() };
        let config =
            parse(&source).unwrap_or_else(|errors| panic!("{errors}\n{}", imported.yaml)).config;
        assert_eq!(config.services.len(), 4, "{}", imported.yaml);
        let quorum =
            |index: usize| (config.services[index].quorum, config.services[index].hysteresis);
        assert_eq!((quorum(1), quorum(2)), ((2, 1), (1, 0)), "{}", imported.yaml);
        let sorry: Vec<bool> = config.services[1].backends.iter().map(|b| b.sorry).collect();
        assert_eq!(sorry, [false, false, true]);
        let web = &config.services[0];
        assert_eq!((web.forward, web.backends.len()), (model::Forward::Dsr, 2));
        assert_eq!(web.balance, model::Balance::Wlc);
        let persistence = web.persistence.expect("persistence_timeout");
        assert_eq!(persistence.timeout.map(|time| time.as_secs()), Some(50));
        assert_eq!(web.backends[0].timing.inter.as_secs(), 6);
        assert_eq!((web.backends[0].weight, web.backends[1].weight), (100, 50));
        assert_eq!(config.services[3].listen.protocol, model::Protocol::Udp);
        for word in ["quorum", "fwmark"] {
            assert!(
                imported.notes.iter().any(|note| note.contains(word)),
                "{word}: {:#?}",
                imported.notes
            );
        }
    }

    #[test]
    fn nothing_makes_it_fall_over() {
        for end in 0..FILE.len() {
            import(&FILE[..end], &Choices::default());
        }
        import("} } {", &Choices::default());
    }

    #[test]
    fn checks_of_all_kinds_are_translated() {
        for (block, words) in [
            ("DNS_CHECK {\n type A\n name shop.example\n}", vec!["Dns(", "shop.example", "\"A\""]),
            ("DNS_CHECK { }", vec!["Dns(", "\".\"", "SOA"]),
            ("PING_CHECK { }", vec!["Icmp"]),
            ("UDP_CHECK {\n payload 0a 0b\n}", vec!["Udp", "[10, 11]"]),
            (
                "MISC_CHECK {\n misc_path \"/bin/check -x 1\"\n misc_timeout 7\n}",
                vec!["Exec", "/bin/check", "-x"],
            ),
            ("SMTP_CHECK { }", vec!["220"]),
            ("TCP_CHECK {\n bindto 10.0.0.5\n}", vec!["10.0.0.5"]),
            ("HTTP_GET {\n url {\n path /\n regex ^ok\n}\n}", vec!["Regex(\"^ok\")"]),
        ] {
            let file = format!(
                "virtual_server 192.0.2.10 80 {{\n lvs_method DR\n real_server 10.0.0.11 80 {{\n {block}\n}}\n}}\n"
            );
            let imported = import(&file, &Choices::default());
            let source = Source { path: "lb.yaml".into(), text: imported.yaml.clone() };
            let config = parse(&source)
                .unwrap_or_else(|errors| panic!("{errors}\n{}", imported.yaml))
                .config;
            let check = format!("{:?}", config.services[0].check);
            assert!(words.iter().all(|word| check.contains(word)), "{block}: {check}");
        }
    }
}
