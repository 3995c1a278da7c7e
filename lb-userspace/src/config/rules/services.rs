//! A service as a whole: its name, way of forwarding, ring, times and clients.

mod quic;

use std::{collections::HashMap, time::Duration};

use ipnet::IpNet;
use lb_common::abi::MAX_PHASE_SECONDS;

use super::{Context, Findings, Subject, addresses::family};
use crate::config::{
    model::{self, OnError, Protocol},
    spec::Forward,
    value::Period,
};

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    let mut names: HashMap<&str, String> = HashMap::new();
    for subject in context.subjects() {
        let path = subject.path("name");
        let name = subject.service.name.as_str();
        if let Some(first) = names.get(name) {
            let place = findings.place(first);
            findings.error(
                &path,
                format!("the name `{name}` of {} is taken: first in {place}", subject.path("name")),
                "give each service a name of its own",
            );
        }
        names.entry(name).or_insert(path);
        encapsulation(&subject, findings);
        ring(&subject, findings);
        times(&subject, findings);
        clients(&subject, findings);
        window(&subject, findings);
        connections(&subject, findings);
        observe(&subject, findings);
        openings(&subject, findings);
        quic::judge(&subject, findings);
    }
}

/// `rate_limit`, `syn_flood` and `mss_clamp`.
fn openings(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    for (key, is_there) in
        [("rate_limit", service.rate_limit.is_some()), ("syn_flood", service.syn_flood.is_some())]
    {
        if is_there && service.listen.protocol != Protocol::Tcp {
            let path = subject.path(key);
            let message = format!("{path} needs protocol: tcp");
            findings.error(&path, message, "remove it: in UDP no packet says that it opens a flow");
        }
    }
    if service.mss_clamp.is_some() && service.listen.protocol != Protocol::Tcp {
        let path = subject.path("mss_clamp");
        let message = format!("{path} needs protocol: tcp");
        findings.error(&path, message, "remove it: other protocols offer no segment size");
    }
    if let Some(limit) = &service.rate_limit {
        rates(subject, limit, findings);
    }
    if let Some(stage) = &service.syn_flood
        && stage.release > stage.engage
    {
        let path = subject.path("syn_flood.release");
        let (engage, release) = (stage.engage, stage.release);
        findings.error(
            &path,
            format!("{path} ({release}/s) is more than engage ({engage}/s)"),
            format!("write {engage}/s or less; half of it is the default"),
        );
    }
}

fn rates(subject: &Subject<'_>, limit: &model::RateLimit, findings: &mut Findings<'_>) {
    const DAY: u64 = 86_400_000_000_000;
    let path = subject.path("rate_limit");
    if limit.connections.is_none() && limit.connections_per_source.is_none() {
        findings.error(
            &path,
            format!("{path} limits nothing"),
            "write `connections: 10000/s` or `connections_per_source: 100/s`, or remove it",
        );
        return;
    }
    for (key, rate) in [
        ("connections", limit.connections),
        ("connections_per_source", limit.connections_per_source),
    ] {
        let path = format!("{path}.{key}_burst");
        match rate {
            None if findings.is_written(&path) => {
                let message = format!("{path} has no effect without {key}");
                findings.error(&path, message, format!("add `{key}:`, or remove it"));
            }
            Some(rate) if rate.burst > DAY / rate.interval => {
                let message = format!("{path} ({}) takes longer than a day to fill", rate.burst);
                findings.error(&path, message, format!("write {} or less", DAY / rate.interval));
            }
            _ => {}
        }
    }
}

fn connections(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    let seen = service.forward == model::Forward::Nat && service.listen.protocol == Protocol::Tcp;
    if service.count_connections && !seen {
        let path = subject.path("count_connections");
        findings.error(
            &path,
            format!("{path} needs forward: nat and protocol: tcp"),
            match service.forward {
                model::Forward::FullNat => "remove it: fullnat counts them without",
                _ => "remove it: in dsr and tunnel lb does not see when a connection ends",
            },
        );
    }
}

fn observe(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    let Some(observe) = &service.observe else { return };
    let path = subject.path("observe");
    if service.listen.protocol != Protocol::Tcp {
        let message = format!("{path} needs protocol: tcp");
        findings.error(&path, message, "remove it: UDP has no handshake to observe");
        return;
    }
    let key = |key: &str| format!("{path}.{key}");
    if service.check.is_none() && observe.on_error != OnError::MarkDown {
        let message = format!("{path} asks the backend by its check, and the service has none");
        let help = match service.forward {
            model::Forward::Nat => "add `check:` to the service, or write `on_error: mark_down`",
            model::Forward::Dsr
            | model::Forward::Ipip
            | model::Forward::Gue { .. }
            | model::Forward::FullNat => "add `check:` to the service",
        };
        findings.error(&path, message, help);
    }
    let is_final = matches!(observe.on_error, OnError::MarkDown | OnError::FailCheck);
    if service.forward != model::Forward::Nat && is_final {
        let path = key("on_error");
        findings.error(
            &path,
            format!("{path} needs forward: nat: in dsr and tunnel the evidence could be made up"),
            "write sudden_death or fastinter: a check decides then",
        );
    }
    if observe.min_sources > observe.error_limit {
        let path = key("min_sources");
        let (sources, limit) = (observe.min_sources, observe.error_limit);
        findings.error(
            &path,
            format!("{path} ({sources}) is more than error_limit ({limit})"),
            format!("write 1 to {limit}: each client's first failure counts for one"),
        );
    }
    for (name, time) in [
        ("interval", observe.interval),
        ("base_ejection", observe.base_ejection),
        ("max_ejection", observe.max_ejection),
    ] {
        if !(Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&time) {
            let path = key(name);
            let message = format!("{} in {path} is out of bounds", Period(time));
            findings.error(&path, message, "write 100ms to 24h");
        }
    }
    if observe.max_ejection < observe.base_ejection {
        let path = key("max_ejection");
        let (most, base) = (Period(observe.max_ejection), Period(observe.base_ejection));
        let message = format!("{path} ({most}) is shorter than base_ejection ({base})");
        findings.error(&path, message, "the longest ejection is at least as long as the first");
    }
}

fn encapsulation(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let path = subject.path("encap");
    match (subject.written.forward, subject.written.encap) {
        (Forward::Tunnel, None) => findings.error(
            &subject.path("forward"),
            format!("services[{}] has forward: tunnel, but does not say which", subject.index),
            "add `encap: ipip`, or `encap: gue`",
        ),
        (Forward::Nat | Forward::Dsr | Forward::Fullnat, Some(_)) => findings.error(
            &path,
            format!("{path} has no effect without forward: tunnel"),
            "remove it, or write `forward: tunnel`",
        ),
        (Forward::Tunnel, Some(_)) | (Forward::Nat | Forward::Dsr | Forward::Fullnat, None) => {}
    }
    let port = subject.path("gue_port");
    if subject.written.gue_port.is_some() && !subject.service.forward.is_gue() {
        findings.error(
            &port,
            format!("{port} has no effect without encap: gue"),
            "remove it, or write `forward: tunnel` and `encap: gue`",
        );
    }
}

fn ring(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let Some(size) = subject.service.ring_size else { return };
    let path = subject.path("ring_size");
    if !is_prime(size) {
        let below = (2..size).rev().find(|&n| is_prime(n)).unwrap_or(1_021);
        let above = (size..).find(|&n| is_prime(n)).unwrap_or(655_373);
        findings.error(
            &path,
            format!("{size} in {path} is not prime, and Maglev needs a prime"),
            format!("write {} or {}", below.max(1_021), above.min(655_373)),
        );
    }
    let backends = subject.service.backends.len();
    if (size as usize) < backends {
        findings.error(
            &path,
            format!("{size} slots in {path} are not enough for {backends} backends"),
            "each backend needs a slot at least, and about 100 for even shares; or leave it out",
        );
    } else if (size as usize) < 100 * backends {
        findings.warning(
            &path,
            format!("{size} slots in {path} for {backends} backends give uneven shares"),
            "about 100 slots for each backend keep shares within one percent; or leave it out",
        );
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..).take_while(|&n| n * n <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn times(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    for (key, time) in [
        ("window", service.window),
        ("timeouts.tcp", service.timeouts.tcp),
        ("timeouts.tcpfin", service.timeouts.tcpfin),
        ("timeouts.udp", service.timeouts.udp),
    ] {
        let whole = time.subsec_nanos() == 0;
        if !whole || !(1..=MAX_PHASE_SECONDS).contains(&time.as_secs()) {
            let path = subject.path(key);
            findings.error(
                &path,
                format!("{} in {path} is out of bounds", Period(time)),
                format!("write whole seconds from 1s to {MAX_PHASE_SECONDS}s"),
            );
        }
    }
    if service.timeouts.tcpfin > service.timeouts.tcp {
        let path = subject.path("timeouts.tcpfin");
        findings.warning(
            &path,
            format!(
                "{path} ({}) is longer than tcp ({})",
                Period(service.timeouts.tcpfin),
                Period(service.timeouts.tcp)
            ),
            "a flow that has ended is usually forgotten sooner than one that has not",
        );
    }
    let unused: &[&str] = match service.listen.protocol {
        Protocol::Tcp => &["timeouts.udp"],
        Protocol::Udp | Protocol::Quic => &["timeouts.tcp", "timeouts.tcpfin"],
    };
    for key in unused {
        let path = subject.path(key);
        if findings.is_written(&path) {
            let name = service.listen.protocol.name();
            findings.warning(
                &path,
                format!("{path} has no effect on a {name} service"),
                "remove it",
            );
        }
    }
}

fn clients(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    list(subject, "allow", &service.allow, findings);
    list(subject, "deny", &service.deny, findings);
}

fn list(subject: &Subject<'_>, key: &str, prefixes: &[IpNet], findings: &mut Findings<'_>) {
    let listen = &subject.service.listen;
    let vip = listen.address;
    let mut seen = HashMap::new();
    for (index, prefix) in prefixes.iter().enumerate() {
        let path = subject.path(&format!("{key}[{index}]"));
        if !listen.has_family_of(prefix.addr()) {
            findings.error(
                &path,
                format!("{prefix} in {path} can never match: the VIP {vip} is {}", family(vip)),
                format!("write {} prefixes", family(vip)),
            );
        }
        if let Some(first) = seen.insert(prefix, path.clone()) {
            let place = findings.place(&first);
            findings.warning(
                &path,
                format!("{prefix} is there twice, first in {place}"),
                "remove one",
            );
        }
    }
}

fn window(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    if subject.service.window > Duration::from_secs(3_600) {
        let path = subject.path("window");
        findings.warning(
            &path,
            format!("{path} is longer than an hour: ring changes take that long to settle"),
            "5m is the default",
        );
    }
}
