//! Lines about checks: `option httpchk` and its kind, `http-check`, `tcp-check`, `external-check`, `timeout check`.

use std::net::IpAddr;

use super::{Reader, Section, values::milliseconds};
use crate::import::{period, quoted};

impl Reader {
    /// Takes a line if it is about checks.
    pub(super) fn check_line(
        &mut self,
        section: &mut Section,
        number: usize,
        words: &[&str],
    ) -> bool {
        match words {
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
                        words.join(" ")
                    ),
                );
            }
            ["timeout", "check", time] => match milliseconds(time) {
                Some(time) => section.defaults.timeout = Some(period(time)),
                None => self.note(number, format!("`{time}` is no time")),
            },
            _ => return false,
        }
        true
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
}
