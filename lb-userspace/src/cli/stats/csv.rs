//! `lb stats --csv`: HAProxy's columns in HAProxy's order (its management guide, 9.1, up to 3.3), for scripts that read them,
//! and lb's own behind them. What a layer-4 balancer does not know is empty, as it is with HAProxy.

use super::rates::Rates;
use crate::{
    api::types::{
        BackendStats, BackendStatus, Checks, Counters, ServiceStats, ServiceStatus, Stats, Status,
    },
    cli::output::clean,
};

/// HAProxy's columns, then lb's own.
const COLUMNS: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,\
    wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,\
    lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,\
    hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,\
    srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,\
    agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,\
    agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,\
    intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,\
    ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,\
    agg_server_status,agg_server_check_status,agg_check_status,srid,sess_other,h1sess,h2sess,h3sess,\
    req_other,h1req,h2req,h3req,proto,priv_idle_cur,reqbin,reqbout,resbin,resbout,lb_packets_in,\
    lb_packets_out,lb_drops,lb_slots,lb_share,lb_pins,lb_admin,lb_next_hop";
/// How many there are.
const WIDTH: usize = 126;

/// Reasons for which connections are denied.
const DENIED: [&str; 5] = ["not_allowed", "denied", "source_rate", "service_rate", "syn_unproven"];

/// A header, and for each service its FRONTEND, its backends and its BACKEND. Rates are those of the last second.
pub fn render(stats: &Stats, rates: &Rates, status: &Status) -> String {
    let mut text = format!("# {COLUMNS},\n");
    for (index, service) in stats.services.iter().enumerate() {
        let known = status.services.iter().find(|known| known.name == service.name);
        let table = Service { service, known, rates, number: index + 1 };
        text.push_str(&table.frontend().line());
        for index in 0..service.backends.len() {
            text.push_str(&table.server(index).line());
        }
        text.push_str(&table.backend().line());
    }
    text
}

/// One service's rows.
struct Service<'a> {
    service: &'a ServiceStats,
    known: Option<&'a ServiceStatus>,
    rates: &'a Rates,
    /// HAProxy's `iid`.
    number: usize,
}

impl Service<'_> {
    fn frontend(&self) -> Row {
        let mut row = self.row("FRONTEND", &self.service.total, 0);
        row.set("status", "OPEN");
        row.set("dreq", self.drops());
        row.set("lb_drops", self.drops());
        let count = |name: &str| self.service.reasons.get(name).copied().unwrap_or(0);
        row.set("dcon", DENIED.map(count).iter().sum::<u64>());
        row.set("conn_tot", self.service.total.flows);
        if let Some(sum) = self.connections() {
            row.set("scur", sum);
        }
        if let Some(rate) = self.rates.service(&self.service.name) {
            row.set("rate", rate.flows.round());
            row.set("conn_rate", rate.flows.round());
        }
        row
    }

    fn server(&self, index: usize) -> Row {
        let backend = &self.service.backends[index];
        let mut row = self.row(&backend.name, &backend.counters, 2);
        row.set("sid", index + 1);
        row.set("weight", backend.weight);
        row.set("uweight", backend.weight);
        row.set("act", 1);
        row.set("bck", 0);
        row.set("lbtot", backend.counters.flows);
        row.set("lb_admin", &backend.admin);
        row.set("lb_share", format!("{:.6}", backend.share));
        if let Some(connections) = backend.connections {
            row.set("scur", connections.active);
        }
        if let Some(rate) = self.rates.backend(&self.service.name, &backend.name) {
            row.set("rate", rate.flows.round());
        }
        let known = self.known.and_then(|s| s.backends.iter().find(|b| b.name == backend.name));
        if let Some(known) = known {
            row.server(known);
        }
        row
    }

    fn backend(&self) -> Row {
        let up = self.known.is_none_or(|known| known.state != "DOWN");
        let mut row = self.row("BACKEND", &self.service.total, 1);
        if let Some(sum) = self.connections() {
            row.set("scur", sum);
        }
        row.set("status", if up { "UP" } else { "DOWN" });
        let used = self.service.backends.iter().filter(|backend| backend.share > 0.0);
        let weight: u32 = used.clone().map(|backend| u32::from(backend.weight)).sum();
        let waits = |backend: &&BackendStats| {
            let known = self.known.and_then(|s| s.backends.iter().find(|b| b.name == backend.name));
            known.is_some_and(|known| known.tier > 0 || known.sorry)
        };
        row.set("act", used.clone().filter(|backend| !waits(backend)).count());
        row.set("bck", used.filter(waits).count());
        row.set("weight", weight);
        row.set("uweight", weight);
        row.set("lbtot", self.service.total.flows);
        row.set("lb_drops", self.drops());
        if let Some(rate) = self.rates.service(&self.service.name) {
            row.set("rate", rate.flows.round());
        }
        if let Some(known) = self.known {
            row.set("lastchg", known.last_change_seconds);
            row.set("downtime", known.down_seconds);
            row.set("chkdown", known.downs);
            row.set("algo", &known.balance);
            let slots = known.slots;
            row.set("lb_slots", slots.settled + slots.window + slots.harvest + slots.pinned);
        }
        row
    }

    fn row(&self, name: &str, counters: &Counters, kind: u8) -> Row {
        let mut row = Row(std::array::from_fn(|_| String::new()));
        row.set("pxname", &self.service.name);
        row.set("svname", name);
        row.set("stot", counters.flows);
        row.set("bin", counters.bytes_in);
        row.set("bout", counters.bytes_out);
        row.set("srv_abrt", counters.resets);
        row.set("pid", 1);
        row.set("iid", self.number);
        row.set("sid", 0);
        row.set("type", kind);
        row.set("mode", self.service.listen.rsplit_once('/').map_or("tcp", |(_, mode)| mode));
        row.set("lb_packets_in", counters.packets_in);
        row.set("lb_packets_out", counters.packets_out);
        row
    }

    /// Open connections of all backends, if they are counted.
    fn connections(&self) -> Option<u64> {
        let open = |backend: &BackendStats| Some(backend.connections?.active);
        self.service.backends.iter().map(open).sum()
    }

    fn drops(&self) -> u64 {
        use lb_common::abi::Reason;
        let count = |reason: &Reason| self.service.reasons.get(reason.name());
        Reason::ALL.iter().filter(|reason| reason.is_drop()).filter_map(count).sum()
    }
}

/// HAProxy's word for the state: administrative ones win.
fn words(backend: &BackendStatus) -> &str {
    match (backend.admin.as_str(), backend.state.as_str()) {
        ("maint", _) => "MAINT",
        ("maint (agent)", _) => "MAINT (agent)",
        ("drain (agent)", _) => "DRAIN (agent)",
        ("drain" | "removed", _) => "DRAIN",
        (_, "NOLB") => "no check",
        (_, state) => state,
    }
}

/// HAProxy's sentence for a check's code.
fn sentence(code: &str) -> &'static str {
    match code {
        "L4OK" => "Layer4 check passed",
        "L4TOUT" => "Layer4 timeout",
        "L4CON" => "Layer4 connection problem",
        "L6OK" => "Layer6 check passed",
        "L6TOUT" => "Layer6 timeout",
        "L6RSP" => "Layer6 invalid response",
        "L7OK" => "Layer7 check passed",
        "L7TOUT" => "Layer7 timeout",
        "L7RSP" => "Layer7 invalid response",
        "L7STS" => "Layer7 wrong status",
        "PROCOK" => "External check passed",
        "PROCTOUT" => "External check timeout",
        "PROCERR" => "External check error",
        "HANA" => "Health analyze",
        "SOCKERR" => "Socket error",
        _ => "",
    }
}

struct Row([String; WIDTH]);

impl Row {
    fn server(&mut self, known: &BackendStatus) {
        self.set("status", words(known));
        self.set("lastchg", known.last_change_seconds);
        self.set("addr", &known.address);
        self.set("lb_slots", known.slots);
        self.set("lb_pins", known.pins);
        self.set("lb_next_hop", &known.next_hop);
        let waits = known.tier > 0 || known.sorry;
        self.set("act", u8::from(!waits));
        self.set("bck", u8::from(waits));
        if let Some(throttle) = known.throttle {
            self.set("throttle", throttle);
        }
        if let Some(tracked) = &known.tracks {
            self.set("tracked", tracked);
        }
        self.set("check_status", &known.check);
        self.set("check_desc", sentence(&known.check));
        self.set("last_chk", &known.check_output);
        // `200 OK`: the answer's code comes first.
        let code = known.check_output.split(' ').next().unwrap_or_default();
        if known.check.starts_with("L7") && code.parse::<u16>().is_ok() {
            self.set("check_code", code);
        }
        if let Some(milliseconds) = known.check_milliseconds {
            self.set("check_duration", milliseconds.round());
        }
        if let Some(agent) = &known.agent {
            self.set("agent_status", &agent.code);
            self.set("agent_duration", agent.milliseconds.round());
            self.set("agent_desc", sentence(&agent.code));
            self.set("last_agt", &agent.output);
            // One word of the agent is enough, as with HAProxy.
            self.set("agent_rise", 1);
            self.set("agent_fall", 1);
            self.set("agent_health", u8::from(!agent.says.starts_with("down")));
        }
        if let Some(observed) = &known.observed {
            self.set("hanafail", observed.unanswered + observed.refused);
        }
        if let Some(Checks { failed, downs, down_seconds, rise, fall, health, .. }) = known.checks {
            self.set("chkfail", failed);
            self.set("chkdown", downs);
            self.set("downtime", down_seconds);
            self.set("check_rise", rise);
            self.set("check_fall", fall);
            self.set("check_health", health);
        }
    }

    fn set(&mut self, column: &str, value: impl ToString) {
        if let Some(index) = COLUMNS.split(',').position(|known| known == column) {
            self.0[index] = quoted(&value.to_string());
        }
    }

    fn line(&self) -> String {
        format!("{},\n", self.0.join(","))
    }
}

/// As RFC 4180 wants it where it has to be.
fn quoted(text: &str) -> String {
    let text = clean(text);
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::types::{AgentStatus, Connections};

    fn sample() -> (Stats, Rates, Status) {
        let counters = Counters { flows: 7, bytes_in: 100, bytes_out: 900, ..Counters::default() };
        let web1 = BackendStats {
            name: "web1".into(),
            weight: 100,
            share: 1.0,
            counters,
            connections: Some(Connections { active: 5, inactive: 1 }),
            ..BackendStats::default()
        };
        let service = ServiceStats {
            name: "web".into(),
            listen: "192.0.2.10:80/tcp".into(),
            total: counters,
            reasons: BTreeMap::from([
                ("not_allowed".into(), 1),
                ("denied".into(), 2),
                ("reject".into(), 5),
            ]),
            backends: vec![web1],
        };
        let known = BackendStatus {
            name: "web1".into(),
            address: "10.0.0.11:80".into(),
            state: "UP 1/3".into(),
            admin: "ready".into(),
            check: "L7OK".into(),
            check_output: "200 OK, \"fine\"".into(),
            check_milliseconds: Some(1.6),
            checks: Some(Checks {
                failed: 4,
                downs: 1,
                down_seconds: 30,
                rise: 2,
                fall: 3,
                health: 3,
                ..Checks::default()
            }),
            ..BackendStatus::default()
        };
        let state = ServiceStatus {
            name: "web".into(),
            state: "UP".into(),
            backends: vec![known],
            balance: "maglev".into(),
            last_change_seconds: 60,
            downs: 2,
            down_seconds: 9,
            ..ServiceStatus::default()
        };
        let stats = Stats { services: vec![service], node: BTreeMap::new() };
        let mut before = stats.clone();
        before.services[0].total.flows = 2;
        before.services[0].backends[0].counters.flows = 3;
        let rates = Rates::between(&before, &stats, 1.0);
        (stats, rates, Status { services: vec![state], ..Status::default() })
    }

    /// Fields of a line, quotes taken off.
    fn fields(line: &str) -> Vec<String> {
        let (mut fields, mut inside) = (vec![String::new()], false);
        for character in line.chars() {
            match character {
                '"' => inside = !inside,
                ',' if !inside => fields.push(String::new()),
                other => fields.last_mut().unwrap().push(other),
            }
        }
        fields
    }

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let (stats, rates, status) = sample();
        let text = render(&stats, &rates, &status);
        let rows: Vec<Vec<String>> = text.lines().map(fields).collect();
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| row.len() == WIDTH + 1), "{text}");
        let value = |row: usize, column: &str| -> &str {
            let index =
                rows[0].iter().position(|name| name.trim_start_matches("# ") == column).unwrap();
            &rows[row][index]
        };
        assert_eq!(
            [value(1, "svname"), value(2, "svname"), value(3, "svname")],
            ["FRONTEND", "web1", "BACKEND"]
        );
        assert_eq!(
            ["dreq", "dcon", "status", "rate"].map(|c| value(1, c)),
            ["3", "3", "OPEN", "5"]
        );
        assert_eq!(
            ["stot", "bin", "bout", "status", "weight", "check_status", "check_duration", "type"]
                .map(|c| value(2, c)),
            ["7", "100", "900", "UP 1/3", "100", "L7OK", "2", "2"]
        );
        assert_eq!(
            ["chkfail", "chkdown", "downtime", "check_rise", "check_fall", "check_health"]
                .map(|c| value(2, c)),
            ["4", "1", "30", "2", "3", "3"]
        );
        assert_eq!(
            ["check_code", "check_desc", "addr", "mode", "rate", "last_chk"].map(|c| value(2, c)),
            ["200", "Layer7 check passed", "10.0.0.11:80", "tcp", "4", "200 OK, fine"]
        );
        assert_eq!([1, 2, 3].map(|row| value(row, "scur")), ["5"; 3]);
        assert_eq!(
            ["act", "status", "algo", "lastchg", "downtime", "chkdown"].map(|c| value(3, c)),
            ["1", "UP", "maglev", "60", "9", "2"]
        );
        let mut asked = status.services[0].backends[0].clone();
        asked.admin = "drain (agent)".into();
        asked.agent = Some(AgentStatus {
            says: "drain 50%".into(),
            code: "L7OK".into(),
            output: "drain 50%".into(),
            milliseconds: 2.2,
        });
        let mut row = Row(std::array::from_fn(|_| String::new()));
        row.server(&asked);
        let found: Vec<String> = row.0.into_iter().filter(|field| !field.is_empty()).collect();
        assert_eq!(words(&asked), "DRAIN (agent)");
        assert!(found.iter().any(|field| field == "drain 50%"), "{found:?}");
        let drained =
            BackendStatus { admin: "drain".into(), ..status.services[0].backends[0].clone() };
        assert_eq!(words(&drained), "DRAIN");
    }

    #[test]
    fn every_code_has_its_sentence() {
        for code in crate::health::CheckCode::ALL {
            assert!(!sentence(code.name()).is_empty(), "{code}");
        }
    }

    /// Numbers of columns in HAProxy's guide, which scripts that count columns rely on.
    #[test]
    fn columns_have_the_numbers_of_haproxy_s_guide() {
        let names: Vec<&str> = COLUMNS.split(',').collect();
        assert_eq!(names.len(), WIDTH);
        for (number, name) in [
            (0, "pxname"),
            (7, "stot"),
            (17, "status"),
            (24, "downtime"),
            (36, "check_status"),
            (38, "check_duration"),
            (55, "lastsess"),
            (65, "check_desc"),
            (73, "addr"),
            (76, "algo"),
            (81, "dcon"),
            (99, "uweight"),
            (112, "proto"),
            (117, "resbout"),
        ] {
            assert_eq!(names[number], name);
        }
        assert!(names[118..].iter().all(|name| name.starts_with("lb_")));
        let distinct: std::collections::HashSet<&str> = names.iter().copied().collect();
        assert_eq!(distinct.len(), WIDTH);
    }
}
