//! Who may in by HAProxy's rules on connections: `tcp-request connection`, `acl NAME src`, `stick-table` with `conn_rate`,
//! `rate-limit sessions`.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::values::milliseconds;
use crate::config::value::Prefix;

/// What a section says of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    /// `acl NAME src ...`
    acls: BTreeMap<String, Sources>,
    /// Seconds that `conn_rate` counts in.
    period: Option<u64>,
    deny: Sources,
    allow: Sources,
    /// Connections of one client in a period.
    per_source: Option<u64>,
    /// Connections a second.
    rate: Option<u64>,
}

/// What `src` is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sources {
    prefixes: Vec<IpNet>,
    file: Option<String>,
}

impl Admission {
    /// Takes a line if it is about connections; `Some` tells that it was, and what of it has no equivalent.
    pub(super) fn line(&mut self, words: &[&str]) -> Option<Result<(), String>> {
        match words {
            ["acl", name, "src", rest @ ..] => Some(sources(rest).map(|sources| {
                self.acls.insert((*name).to_owned(), sources);
            })),
            ["stick-table", rest @ ..] => {
                let text = rest.iter().find_map(|word| word.split_once("conn_rate("))?.1;
                let period = milliseconds(text.split(')').next()?)?;
                self.period = Some(period.div_ceil(1_000).max(1));
                Some(Ok(()))
            }
            ["tcp-request", "connection", track, "src", ..] if track.starts_with("track-sc") => {
                Some(Ok(()))
            }
            ["tcp-request", "connection", "reject", word @ ("if" | "unless"), condition @ ..] => {
                Some(self.reject(condition, *word == "unless"))
            }
            ["rate-limit", "sessions", count] => {
                self.rate = count.parse().ok().filter(|rate| *rate > 0);
                Some(Ok(()))
            }
            _ => None,
        }
    }

    fn reject(&mut self, condition: &[&str], unless: bool) -> Result<(), String> {
        let joined = condition.join(" ");
        let text = joined.trim();
        let (text, negated) = match text.strip_prefix('!') {
            Some(rest) => (rest.trim(), true),
            None => (text, false),
        };
        let other = || {
            Err(format!(
                "`tcp-request connection reject` with `{text}`: lb knows only `src`, one condition at a time, and `conn_rate`"
            ))
        };
        let sources = match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            None => match self.acls.get(text) {
                Some(known) => known.clone(),
                None => return other(),
            },
            Some(inner) => {
                let words: Vec<&str> = inner.split_whitespace().collect();
                match words.as_slice() {
                    ["src", rest @ ..] => sources(rest)?,
                    [fetch, "gt" | "ge", count] if is_connection_rate(fetch) => {
                        let count = count.parse().ok().filter(|count| *count > 0);
                        let Some(count) = count.filter(|_| !negated && !unless) else {
                            return other();
                        };
                        self.per_source = Some(count);
                        return Ok(());
                    }
                    _ => return other(),
                }
            }
        };
        let list = if negated == unless { &mut self.deny } else { &mut self.allow };
        list.prefixes.extend(sources.prefixes);
        match (&list.file, sources.file) {
            (Some(first), Some(second)) if *first != second => Err(format!(
                "lb reads one file a list, and `{first}` is that: add the lines of `{second}` to it"
            )),
            (_, file) => {
                list.file = list.file.take().or(file);
                Ok(())
            }
        }
    }

    /// The keys of our service with this VIP, and what is to be said of them.
    pub(super) fn keys(&self, vip: Option<IpAddr>) -> (Vec<String>, Option<&'static str>) {
        // Prefixes of the other family could never match.
        let fits =
            |prefix: &&IpNet| vip.is_none_or(|vip| vip.is_ipv4() == matches!(prefix, IpNet::V4(_)));
        let mut keys = Vec::new();
        for (name, list) in [("deny", &self.deny), ("allow", &self.allow)] {
            let prefixes: Vec<String> =
                list.prefixes.iter().filter(fits).map(|prefix| format!("\"{prefix}\"")).collect();
            if !prefixes.is_empty() {
                keys.push(format!("{name}: [{}]", prefixes.join(", ")));
            }
            keys.extend(list.file.as_ref().map(|file| format!("{name}_file: {file:?}")));
        }
        let mut limits = Vec::new();
        limits.extend(self.rate.map(|rate| format!("connections: {rate}/s")));
        let mut missing = None;
        match (self.per_source, self.period) {
            (Some(count), Some(period)) => {
                let rate = rate(count, period);
                limits.push(format!("connections_per_source: {rate}"));
                limits.push(format!("connections_per_source_burst: {count}"));
            }
            (Some(_), None) => {
                missing =
                    Some("`conn_rate` without a `stick-table` that says its period: left out");
            }
            (None, _) => {}
        }
        if !limits.is_empty() {
            keys.push(format!("rate_limit: {{{}}}", limits.join(", ")));
        }
        (keys, missing)
    }
}

fn is_connection_rate(fetch: &str) -> bool {
    let name = fetch.split('(').next().unwrap_or_default();
    ["sc_conn_rate", "sc0_conn_rate", "sc1_conn_rate", "sc2_conn_rate", "src_conn_rate"]
        .contains(&name)
}

fn sources(words: &[&str]) -> Result<Sources, String> {
    let mut sources = Sources::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-f" => {
                let file = words.next().copied().unwrap_or_default();
                if !file.starts_with('/') {
                    return Err(format!("`src -f {file}`: lb wants the file's whole path"));
                }
                sources.file = Some(file.to_owned());
            }
            "-n" | "--" => {}
            "-m" => drop(words.next()),
            text => {
                let prefix = text.parse::<Prefix>();
                let prefix = prefix.map_err(|wrong| format!("`src {text}` {wrong}"))?;
                sources.prefixes.push(prefix.0);
            }
        }
    }
    Ok(sources)
}

/// So many in so many seconds, in the finest unit that leaves a whole number.
fn rate(count: u64, seconds: u64) -> String {
    for (unit, length) in [("s", 1), ("m", 60)] {
        if (count * length).is_multiple_of(seconds) {
            return format!("{}/{unit}", count * length / seconds);
        }
    }
    format!("{}/h", (count * 3_600).div_ceil(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> (Vec<String>, Vec<String>) {
        let mut admission = Admission::default();
        let mut notes = Vec::new();
        for line in crate::import::words::lines(text, &['#']) {
            let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
            match admission.line(&words) {
                Some(Ok(())) => {}
                Some(Err(note)) => notes.push(note),
                None => notes.push(format!("not ours: {text}")),
            }
        }
        let (keys, missing) = admission.keys(None);
        notes.extend(missing.map(str::to_owned));
        (keys, notes)
    }

    #[test]
    fn lists_and_rates_are_translated() {
        for (text, expected) in [
            (
                "tcp-request connection reject if { src -f /etc/haproxy/bad.lst }",
                vec!["deny_file: \"/etc/haproxy/bad.lst\""],
            ),
            (
                "acl bad src 192.0.2.0/24 2001:db8::1\ntcp-request connection reject if bad",
                vec!["deny: [\"192.0.2.0/24\", \"2001:db8::1/128\"]"],
            ),
            (
                "acl good src -f /etc/good 10.0.0.0/8\ntcp-request connection reject if !good",
                vec!["allow: [\"10.0.0.0/8\"]", "allow_file: \"/etc/good\""],
            ),
            (
                "tcp-request connection reject unless { src 10.0.0.0/8 }",
                vec!["allow: [\"10.0.0.0/8\"]"],
            ),
            (
                "tcp-request connection reject if ! { src 10.0.0.1 }",
                vec!["allow: [\"10.0.0.1/32\"]"],
            ),
            (
                "stick-table type ip size 1m expire 30s store conn_cur,conn_rate(10s)\n\
                 tcp-request connection track-sc0 src\n\
                 tcp-request connection reject if { sc0_conn_rate gt 100 }",
                vec![
                    "rate_limit: {connections_per_source: 10/s, connections_per_source_burst: 100}",
                ],
            ),
            (
                "rate-limit sessions 500\nstick-table type ipv6 size 1m store conn_rate(3s)\n\
                 tcp-request connection reject if { src_conn_rate ge 20 }",
                vec![
                    "rate_limit: {connections: 500/s, connections_per_source: 400/m, connections_per_source_burst: 20}",
                ],
            ),
        ] {
            let (found, notes) = keys(text);
            assert_eq!(notes, [""; 0], "{text}");
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!((rate(100, 7), rate(1, 10)), ("51429/h".to_owned(), "6/m".to_owned()));
    }

    #[test]
    fn what_has_no_equivalent_is_noted() {
        for text in [
            "tcp-request connection reject if { src 10.0.0.0/8 } or { src 11.0.0.0/8 }",
            "tcp-request connection reject if unknown",
            "tcp-request connection reject if { src -f relative.lst }",
            "tcp-request connection reject if { src 10.0.0.1/8 }",
            "tcp-request connection reject if !{ sc0_conn_rate gt 5 }",
            "tcp-request connection reject if { sc0_conn_rate gt 5 }",
            "tcp-request connection reject if { src -f /a }\ntcp-request connection reject if { src -f /b }",
        ] {
            assert_eq!(keys(text).1.len(), 1, "{text}: {:?}", keys(text));
        }
    }
}
