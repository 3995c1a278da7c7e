//! `lb stats --csv`: HAProxy's columns in HAProxy's order (its management guide, 9.1), for scripts that read them. What a layer-4
//! balancer does not know is empty, as it is with HAProxy.

use crate::api::types::{BackendStatus, Counters, ServiceStats, Stats, Status};

const COLUMNS: [&str; 38] = [
    "# pxname",
    "svname",
    "qcur",
    "qmax",
    "scur",
    "smax",
    "slim",
    "stot",
    "bin",
    "bout",
    "dreq",
    "dresp",
    "ereq",
    "econ",
    "eresp",
    "wretr",
    "wredis",
    "status",
    "weight",
    "act",
    "bck",
    "chkfail",
    "chkdown",
    "lastchg",
    "downtime",
    "qlimit",
    "pid",
    "iid",
    "sid",
    "throttle",
    "lbtot",
    "tracked",
    "type",
    "rate",
    "rate_lim",
    "rate_max",
    "check_status",
    "check_duration",
];

/// A header, and for each service its FRONTEND, its backends and its BACKEND.
pub fn render(stats: &Stats, status: &Status) -> String {
    let mut text = format!("{},\n", COLUMNS.join(","));
    for (number, service) in stats.services.iter().enumerate() {
        let state = status.services.iter().find(|known| known.name == service.name);
        let up = state.is_none_or(|known| known.state != "DOWN");
        let mut front = Row::of(service, "FRONTEND", &service.total, number, 0);
        front.set("status", "OPEN");
        front.set("dreq", drops(service));
        text.push_str(&front.line());
        for (index, backend) in service.backends.iter().enumerate() {
            let mut row = Row::of(service, &backend.name, &backend.counters, number, 2);
            row.set("sid", index + 1);
            row.set("weight", backend.weight);
            row.set("act", 1);
            row.set("bck", 0);
            row.set("lbtot", backend.counters.flows);
            let known = state.and_then(|s| s.backends.iter().find(|b| b.name == backend.name));
            if let Some(known) = known {
                row.set("status", words(known));
                row.set("lastchg", known.last_change_seconds);
                row.set("check_status", &known.check);
                if let Some(milliseconds) = known.check_milliseconds {
                    row.set("check_duration", milliseconds.round());
                }
            }
            text.push_str(&row.line());
        }
        let mut back = Row::of(service, "BACKEND", &service.total, number, 1);
        back.set("status", if up { "UP" } else { "DOWN" });
        back.set("act", service.backends.iter().filter(|backend| backend.share > 0.0).count());
        back.set("bck", 0);
        back.set("lbtot", service.total.flows);
        text.push_str(&back.line());
    }
    text
}

/// HAProxy's word for the state: administrative ones win.
fn words(backend: &BackendStatus) -> String {
    match (backend.admin.as_str(), backend.state.as_str()) {
        ("maint", _) => "MAINT".to_owned(),
        ("drain" | "removed", _) => "DRAIN".to_owned(),
        (_, "NOLB") => "no check".to_owned(),
        (_, state) => state.to_owned(),
    }
}

fn drops(service: &ServiceStats) -> u64 {
    let is_drop = |name: &str| {
        lb_common::abi::Reason::ALL.iter().any(|reason| reason.is_drop() && reason.name() == name)
    };
    service.reasons.iter().filter(|(name, _)| is_drop(name)).map(|(_, count)| count).sum()
}

struct Row([String; COLUMNS.len()]);

impl Row {
    fn of(
        service: &ServiceStats,
        name: &str,
        counters: &Counters,
        number: usize,
        kind: u8,
    ) -> Self {
        let mut row = Self(std::array::from_fn(|_| String::new()));
        row.set("# pxname", &service.name);
        row.set("svname", name);
        row.set("stot", counters.flows);
        row.set("bin", counters.bytes_in);
        row.set("bout", counters.bytes_out);
        row.set("pid", 1);
        row.set("iid", number + 1);
        row.set("sid", 0);
        row.set("type", kind);
        row
    }

    fn set(&mut self, column: &str, value: impl ToString) {
        if let Some(index) = COLUMNS.iter().position(|known| *known == column) {
            // Names have no commas; a check's words might.
            self.0[index] = value.to_string().replace([',', '\n'], " ");
        }
    }

    fn line(&self) -> String {
        format!("{},\n", self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::types::{BackendStats, ServiceStatus};

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let counters = Counters { flows: 7, bytes_in: 100, bytes_out: 900, ..Counters::default() };
        let web1 = BackendStats {
            name: "web1".into(),
            weight: 100,
            share: 1.0,
            counters,
            ..BackendStats::default()
        };
        let service = ServiceStats {
            name: "web".into(),
            total: counters,
            reasons: BTreeMap::from([("not_allowed".into(), 3), ("reject".into(), 5)]),
            backends: vec![web1],
            ..ServiceStats::default()
        };
        let known = BackendStatus {
            name: "web1".into(),
            state: "UP 1/3".into(),
            admin: "ready".into(),
            check: "L7OK".into(),
            check_milliseconds: Some(1.6),
            ..BackendStatus::default()
        };
        let state = ServiceStatus {
            name: "web".into(),
            state: "UP".into(),
            backends: vec![known.clone()],
            ..ServiceStatus::default()
        };
        let status = Status { services: vec![state], ..Status::default() };
        let text = render(&Stats { services: vec![service], node: BTreeMap::new() }, &status);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| row.len() == COLUMNS.len() + 1), "{text}");
        let value = |row: usize, column: &str| {
            let index =
                rows[0].iter().position(|name| name.trim_start_matches("# ") == column).unwrap();
            rows[row][index]
        };
        assert_eq!(
            [value(1, "svname"), value(2, "svname"), value(3, "svname")],
            ["FRONTEND", "web1", "BACKEND"]
        );
        assert_eq!([value(1, "dreq"), value(1, "status")], ["3", "OPEN"]);
        assert_eq!(
            ["stot", "bin", "bout", "status", "weight", "check_status", "check_duration", "type"]
                .map(|c| value(2, c)),
            ["7", "100", "900", "UP 1/3", "100", "L7OK", "2", "2"]
        );
        assert_eq!([value(3, "act"), value(3, "status")], ["1", "UP"]);
        let drained = BackendStatus { admin: "drain".into(), ..known };
        assert_eq!(words(&drained), "DRAIN");
    }
}
