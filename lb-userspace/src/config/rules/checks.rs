//! Health checks: what of a check does not go with the rest.

use std::time::Duration;

use super::{
    Context, Findings, Subject,
    addresses::{family, refuse},
};
use crate::config::{
    model::{Check, CheckKind, DnsTransport, Protocol, Via},
    spec,
    value::Period,
};

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    for subject in context.subjects() {
        agent(&subject, findings);
        let (Some(written), Some(check)) = (&subject.written.check, &subject.service.check) else {
            continue;
        };
        port(&subject, check, findings);
        protocol(&subject, check, findings);
        source(&subject, check, findings);
        via(&subject, check, findings);
        keys(&subject, written, findings);
    }
}

fn agent(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let Some(agent) = &subject.service.agent_check else { return };
    for (key, time, least) in [("inter", agent.inter, 100), ("timeout", agent.timeout, 10)] {
        let bounds = Duration::from_millis(least)..=Duration::from_secs(3_600);
        if !bounds.contains(&time) {
            let path = subject.path(&format!("agent_check.{key}"));
            let message = format!("{} in {path} is out of bounds", Period(time));
            findings.error(&path, message, format!("write {least}ms to 1h"));
        }
    }
    let wrong = agent.address.and_then(|address| Some((address, refuse(address)?.0)));
    if let Some((address, what)) = wrong.filter(|(_, what)| !what.contains("loopback")) {
        let path = subject.path("agent_check.address");
        let help = "write the address of the machine that the agent runs on, or leave it out";
        findings.error(&path, format!("{address} in {path} is {what}"), help);
    }
}

/// Whether the question is a connection.
fn is_tcp(kind: &CheckKind) -> bool {
    match kind {
        CheckKind::Icmp | CheckKind::Udp { .. } | CheckKind::Exec { .. } => false,
        CheckKind::Dns(dns) => dns.transport == DnsTransport::Tcp,
        CheckKind::Tcp { .. }
        | CheckKind::Tls(_)
        | CheckKind::Http(_)
        | CheckKind::Grpc { .. }
        | CheckKind::Database(_) => true,
    }
}

fn protocol(subject: &Subject<'_>, check: &Check, findings: &mut Findings<'_>) {
    let asks_own_port = check.port.is_none() && is_tcp(&check.kind);
    if subject.service.listen.protocol != Protocol::Tcp && asks_own_port {
        let path = subject.path("check");
        findings.warning(
            &path,
            format!("{path} asks the UDP service's port over TCP"),
            "say which TCP port tells whether the backend works: `port:`; or use `type: udp` or `dns`",
        );
    }
}

fn source(subject: &Subject<'_>, check: &Check, findings: &mut Findings<'_>) {
    let Some(source) = check.source else { return };
    let path = subject.path("check.source");
    if let Some((what, _)) = refuse(source.ip()).filter(|(what, _)| !what.contains("loopback")) {
        let help = "write an address of this host, or leave it out";
        return findings.error(&path, format!("{} in {path} is {what}", source.ip()), help);
    }
    if source.port() != 0 && check.kind == CheckKind::Icmp {
        findings.error(
            &path,
            format!("port {} in {path} is none that this check can ask from", source.port()),
            "leave the port out",
        );
    }
    let mut backends = subject.service.backends.iter();
    if check.via == Via::Direct
        && let Some(backend) =
            backends.find(|backend| backend.address.is_ipv4() != source.is_ipv4())
    {
        findings.error(
            &path,
            format!(
                "{} in {path} is {}, and backend `{}` is {}",
                source.ip(),
                family(source.ip()),
                backend.name,
                family(backend.address)
            ),
            "write an address of this host of the backends' family",
        );
    }
}

/// Of several ports none is the one to ask.
fn port(subject: &Subject<'_>, check: &Check, findings: &mut Findings<'_>) {
    let listen = &subject.service.listen;
    if listen.has_one_port() || check.port.is_some() || check.kind == CheckKind::Icmp {
        return;
    }
    let path = subject.path("check");
    findings.error(
        &path,
        format!("{path} does not say which of the ports {} it asks", listen.ports()),
        "add `port:`",
    );
}

fn via(subject: &Subject<'_>, check: &Check, findings: &mut Findings<'_>) {
    if check.via == Via::Direct {
        return;
    }
    let path = subject.path("check.via");
    if subject.service.forward.sees_replies() {
        findings.error(
            &path,
            format!("{path} has no effect with forward: nat"),
            "remove it: clients' packets reach the backend's own address, too",
        );
    }
    let vip = subject.service.listen.address;
    if let Some(source) = check.source {
        let path = subject.path("check.source");
        if source.port() != 0 {
            let message = format!("port {} in {path} does not go with via: vip", source.port());
            findings.error(&path, message, "leave the port out");
        }
        if family(source.ip()) != family(vip) {
            let message = format!(
                "{} in {path} is {}, and the VIP {vip}, which is asked, is {}",
                source.ip(),
                family(source.ip()),
                family(vip)
            );
            findings.error(&path, message, "write an address of this host of the VIP's family");
        }
    }
    if matches!(&check.kind, CheckKind::Udp { expect, .. } if expect.is_empty()) {
        findings.error(
            &path,
            format!("{path} needs something to expect: a refusal does not come from a VIP"),
            "add `expect:` or `expect_regex:`",
        );
    }
}

fn keys(subject: &Subject<'_>, written: &spec::Check, findings: &mut Findings<'_>) {
    match written {
        spec::Check::Udp(check) if check.send.is_some() && check.send_hex.is_some() => {
            findings.error(
                &subject.path("check.send_hex"),
                format!("{} has both send and send_hex", subject.path("check")),
                "keep one of the two",
            );
        }
        spec::Check::Grpc(check) if !check.tls => {
            for key in ["sni", "verify", "ca_file"] {
                let path = subject.path(&format!("check.{key}"));
                if findings.is_written(&path) {
                    let message = format!("{path} has no effect without tls");
                    findings.error(&path, message, "add `tls: true`, or remove it");
                }
            }
        }
        _ => {}
    }
}
