//! The running daemon: whether it is there, and what it and the loaded program say.

use super::{Finding, Severity, advice, command, counted, facts::Facts, shell_word};
use crate::{
    api::types::{ServiceStatus, Status},
    plan::members::is_up,
};

pub(super) const GROUP: &str = "daemon";

/// Judges what the daemon says.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = configuration(facts).into_iter().collect();
    let Some(status) = &facts.daemon.status else {
        findings.push(away(facts));
        return findings;
    };
    findings.push(running(status));
    findings.extend(status.config_error.as_ref().map(|error| {
        Finding::bad(
            Severity::Error,
            GROUP,
            "config_in_force",
            format!("the file is not in force: {}", first_line(error)),
            "lb goes on with the last good configuration; a restart would, too",
            command(format!("lb check {}", shell_word(&status.config))),
        )
    }));
    findings.extend(status.services.iter().flat_map(service));
    findings.extend(other_warnings(status));
    findings.extend(counted::check(status, facts.daemon.why.as_ref()));
    findings
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn configuration(facts: &Facts) -> Option<Finding> {
    match facts.config.as_ref()? {
        Ok(config) => {
            let services = config.services.len();
            Some(Finding::ok(
                GROUP,
                "config",
                format!("the configuration is valid, {services} service(s)"),
            ))
        }
        Err(bad) => Some(Finding::bad(
            Severity::Error,
            GROUP,
            "config",
            bad.problem.clone(),
            "`lb run` does not start with it, and a reload is refused",
            command(format!("lb check {}", shell_word(&bad.path.display().to_string()))),
        )),
    }
}

fn away(facts: &Facts) -> Finding {
    let why = facts.daemon.away.clone().unwrap_or_default();
    if facts.daemon.attached.is_empty() {
        return Finding::bad(
            Severity::Note,
            GROUP,
            "daemon",
            // What follows is how to start it, which the remedy says.
            first_line(&why).split(';').next().unwrap_or_default().to_owned(),
            "what only the loaded program can say is missing from this report",
            command("systemctl start lb"),
        );
    }
    Finding::bad(
        Severity::Warning,
        GROUP,
        "daemon",
        format!(
            "packets are forwarded on {}, but no daemon answers",
            facts.daemon.attached.join(", ")
        ),
        "nobody probes the backends or follows their next hops: a backend that fails keeps its share of new flows",
        command("systemctl start lb"),
    )
}

fn running(status: &Status) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if status.version == ours {
        let found = format!("lb {ours} is running, pid {}", status.pid);
        return Finding::ok(GROUP, "daemon", found);
    }
    Finding::bad(
        Severity::Note,
        GROUP,
        "daemon",
        format!("lb {} is running, this is {ours}", status.version),
        "the new version is in force only after a restart, which loses no packet",
        command("systemctl restart lb"),
    )
}

fn service(service: &ServiceStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !is_up(&service.state) && !service.state.is_empty() {
        findings.push(Finding::bad(
            Severity::Error,
            GROUP,
            "service",
            format!("{} is {}: {}", service.name, service.state, service.state_reason),
            "clients are refused, or sent to backends that do not answer",
            command("lb status"),
        ));
    }
    if let Some(stage) = service.syn_flood.filter(|stage| stage.engaged) {
        findings.push(Finding::bad(
            Severity::Warning,
            GROUP,
            "syn_flood",
            format!("{}: {} SYNs/s, more than {}", service.name, stage.syns_per_second, stage.engage),
            "clients that lb does not know are challenged, and those behind strict firewalls do not get in",
            command(format!("lb why {}", service.name)),
        ));
    }
    for backend in &service.backends {
        let name = format!("{}/{}", service.name, backend.name);
        let address = backend.address.parse::<std::net::SocketAddr>();
        let host = address.map_or_else(|_| backend.address.clone(), |a| a.ip().to_string());
        if backend.next_hop.contains("unresolved") {
            findings.push(Finding::bad(
                Severity::Warning,
                GROUP,
                "next_hop",
                format!("{name}: {}", backend.next_hop),
                "its packets are dropped (`no_nexthop`) unless the kernel's own routing knows better",
                command(format!("ip route get {host}; ping -c 1 {host}; ip neighbour")),
            ));
        }
        if backend.admin == "ready" && backend.state.starts_with("DOWN") {
            let said = match backend.check_output.as_str() {
                "" => backend.check.clone(),
                output => format!("{} {output}", backend.check),
            };
            findings.push(Finding::bad(
                Severity::Warning,
                GROUP,
                "backend",
                format!("{name} is {} ({said})", backend.state),
                "it gets no new flows",
                advice(format!(
                    "see from this host what {} answers to the check; `lb maint {name}` if that is meant to be",
                    backend.address
                )),
            ));
        }
    }
    if findings.is_empty() {
        let found =
            format!("{}: {} backend(s), all reachable", service.name, service.backends.len());
        findings.push(Finding::ok(GROUP, "service", found));
    }
    findings
}

/// What the daemon warns of, except what has a finding of its own.
fn other_warnings(status: &Status) -> Vec<Finding> {
    let told = |warning: &str| {
        warning.contains("XDP runs in generic mode")
            || status.services.iter().any(|service| {
                service.backends.iter().any(|backend| {
                    backend.next_hop.contains("unresolved")
                        && warning.starts_with(&format!("{}/{}: ", service.name, backend.name))
                })
            })
    };
    status
        .warnings
        .iter()
        .filter(|warning| !told(warning))
        .map(|warning| {
            Finding::bad(
                Severity::Warning,
                GROUP,
                "warning",
                warning.clone(),
                "the daemon says so in `lb status`",
                command("lb status"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::types::{BackendStatus, SynFlood, Why},
        doctor::{
            facts::{ConfigProblem, Daemon},
            testing::{assert_finds, only},
        },
    };

    fn status() -> Status {
        let backend = BackendStatus {
            name: "web1".into(),
            address: "10.0.0.1:80".into(),
            state: "UP".into(),
            admin: "ready".into(),
            next_hop: "eth0 02:00:00:00:00:01".into(),
            ..BackendStatus::default()
        };
        let service = ServiceStatus {
            name: "web".into(),
            state: "UP".into(),
            backends: vec![backend],
            ..ServiceStatus::default()
        };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            services: vec![service],
            ..Status::default()
        }
    }

    fn facts(status: Status) -> Facts {
        let daemon =
            Daemon { status: Some(status), why: Some(Why::default()), ..Daemon::default() };
        Facts { daemon, ..Facts::default() }
    }

    #[test]
    fn an_engaged_stage_is_told() {
        let mut status = status();
        let stage = SynFlood { engaged: false, syns_per_second: 700, engage: 500, release: 250 };
        status.services[0].syn_flood = Some(stage);
        let told = |status: &Status| {
            let findings = check(&facts(status.clone()));
            findings.iter().any(|f| f.check == "syn_flood" && f.severity == Severity::Warning)
        };
        assert!(!told(&status));
        status.services[0].syn_flood = Some(SynFlood { engaged: true, ..stage });
        assert!(told(&status));
    }

    #[test]
    fn all_well() {
        let findings = check(&facts(status()));
        assert!(findings.iter().all(|f| f.severity == Severity::Ok), "{findings:#?}");
    }

    #[test]
    fn a_daemon_that_is_away_matters_if_packets_are_forwarded() {
        let mut facts = Facts::default();
        facts.daemon.away = Some("lb is not running: no socket\nmore".into());
        assert_finds(&check(&facts), "daemon", Severity::Note, "systemctl start lb");
        assert_eq!(only(&check(&facts), "daemon").found, "lb is not running: no socket");
        facts.daemon.attached = vec!["eth0".into()];
        assert_finds(&check(&facts), "daemon", Severity::Warning, "systemctl start lb");
        let problem = ConfigProblem { path: "/x.yaml".into(), problem: "bad".into() };
        facts.config = Some(Err(problem));
        assert_finds(&check(&facts), "config", Severity::Error, "lb check /x.yaml");
    }

    #[test]
    fn backends_that_do_not_answer_are_named() {
        let mut sick = status();
        let backend = &mut sick.services[0].backends[0];
        backend.next_hop = "unresolved: 10.0.0.1 on eth0".into();
        backend.state = "DOWN".into();
        backend.check = "L4TOUT".into();
        sick.services[0].state = "DOWN".into();
        sick.warnings = vec![
            "web/web1: unresolved: 10.0.0.1 on eth0".into(),
            "eth0: XDP runs in generic mode, ..".into(),
            "cannot listen".into(),
        ];
        sick.config_error = Some("lb.yaml:1:1: bad\nlb.yaml:2:1: worse".into());
        sick.version = "0.0.1".into();
        let findings = check(&facts(sick));
        assert_finds(&findings, "next_hop", Severity::Warning, "ip route get 10.0.0.1");
        assert_finds(&findings, "backend", Severity::Warning, "lb maint web/web1");
        assert_finds(&findings, "service", Severity::Error, "lb status");
        assert_finds(&findings, "config_in_force", Severity::Error, "lb check");
        assert_finds(&findings, "daemon", Severity::Note, "restart");
        assert_eq!(only(&findings, "warning").found, "cannot listen");
    }
}
