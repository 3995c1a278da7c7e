//! The way out: services as our files have them.

use std::fmt::Write as _;

use super::{Check, Forward, Imported, Service, Settings};

/// Writes services and notes down.
pub fn write(from: &str, services: &[Service], notes: Vec<String>) -> Imported {
    let mut yaml = format!(
        "# Translated from {from} by `lb import`. Try it with `lb check`, see what it does with `lb plan`.\n"
    );
    if services.is_empty() {
        yaml.push_str("services: []\n");
    } else {
        yaml.push_str("services:\n");
    }
    for service in services {
        // Writing to a string cannot fail.
        let _ = one(&mut yaml, service);
    }
    Imported { yaml, notes, services: services.len() }
}

fn one(out: &mut String, service: &Service) -> std::fmt::Result {
    writeln!(out, "  - name: {}", service.name)?;
    let address =
        service.address.map_or_else(|| "THE-VIP".to_owned(), |address| address.to_string());
    let protocol =
        service.protocol.map_or_else(String::new, |protocol| format!(", protocol: {protocol}"));
    let port = match service.last_port {
        None => service.port.to_string(),
        Some(last) => format!("{}-{last}", service.port),
    };
    writeln!(out, "    listen: {{address: \"{address}\", port: {port}{protocol}}}")?;
    if let Some(mss) = service.mss {
        writeln!(out, "    mss_clamp: {mss}")?;
    }
    match service.forward {
        Forward::Nat => writeln!(out, "    forward: nat")?,
        Forward::Dsr => writeln!(out, "    forward: dsr")?,
        Forward::Tunnel => writeln!(out, "    forward: tunnel\n    encap: ipip")?,
    }
    if !service.balance.is_empty() {
        writeln!(out, "    balance: {}", service.balance)?;
    }
    if let Some(factor) = service.hash_balance_factor
        && matches!(service.balance, "" | "source")
    {
        writeln!(out, "    hash_balance_factor: {factor}")?;
    }
    if let Some(persistence) = &service.persistence {
        writeln!(out, "    persistence: {{{persistence}}}")?;
    }
    for line in &service.admission {
        writeln!(out, "    {line}")?;
    }
    if let Some(observe) = &service.observe {
        writeln!(out, "    observe: {observe}")?;
    }
    if !service.allow_fail_open {
        // Proxies refuse connections when no server is left.
        writeln!(out, "    on_all_down: reject")?;
    }
    for (key, value) in [("quorum", service.quorum), ("hysteresis", service.hysteresis)] {
        if let Some(value) = value {
            writeln!(out, "    {key}: {value}")?;
        }
    }
    if let Some(check) = &service.check {
        writeln!(out, "    check: {{{}}}", of_check(check))?;
    }
    if !service.agent.is_empty() {
        writeln!(out, "    agent_check: {{{}}}", service.agent.join(", "))?;
    }
    let defaults = settings(&service.defaults);
    if !defaults.is_empty() {
        writeln!(out, "    backend_defaults: {{{}}}", defaults.join(", "))?;
    }
    writeln!(out, "    backends:")?;
    for backend in &service.backends {
        // Names of SRV records begin so, and no other.
        let place = if backend.address.starts_with('_') { "srv" } else { "address" };
        let mut keys =
            vec![format!("name: {}", backend.name), format!("{place}: \"{}\"", backend.address)];
        let roles = [("backup", backend.is_backup), ("sorry", backend.is_sorry)];
        keys.extend(roles.iter().filter(|(_, is)| *is).map(|(key, _)| format!("{key}: true")));
        keys.extend(backend.track.as_ref().map(|name| format!("track: {name}")));
        keys.extend(settings(&backend.settings));
        writeln!(out, "      - {{{}}}", keys.join(", "))?;
    }
    Ok(())
}

fn of_check(check: &Check) -> String {
    let kind = match (check.kind, check.http, check.tls) {
        (Some(kind), _, _) => kind,
        (None, true, false) => "http",
        (None, true, true) => "https",
        (None, false, true) => "tls",
        (None, false, false) => "tcp",
    };
    let mut keys = vec![format!("type: {kind}")];
    let texts = [
        ("method", &check.method),
        ("path", &check.path),
        ("host", &check.host),
        ("status", &check.status),
    ];
    for (key, value) in texts.into_iter().filter(|_| check.http && check.kind.is_none()) {
        keys.extend(value.as_ref().map(|value| format!("{key}: {value:?}")));
    }
    if let (None, true, Some(sni)) = (check.kind, check.tls, &check.sni) {
        keys.push(format!("sni: {sni:?}"));
    }
    let port = check.port.filter(|_| check.kind != Some("icmp"));
    keys.extend(port.map(|port| format!("port: {port}")));
    keys.extend(check.more.iter().cloned());
    if check.kind == Some("dns") && !keys.iter().any(|key| key.starts_with("query: ")) {
        // keepalived's default.
        keys.push("query: \".\"".to_owned());
    }
    keys.join(", ")
}

fn settings(settings: &Settings) -> Vec<String> {
    let mut keys = Vec::new();
    keys.extend(settings.weight.map(|weight| format!("weight: {weight}")));
    let periods = [
        ("inter", &settings.inter),
        ("fastinter", &settings.fastinter),
        ("downinter", &settings.downinter),
        ("timeout", &settings.timeout),
        ("slowstart", &settings.slowstart),
    ];
    for (key, value) in periods {
        keys.extend(value.as_ref().map(|value| format!("{key}: {value}")));
    }
    keys.extend(settings.rise.map(|count| format!("rise: {count}")));
    keys.extend(settings.fall.map(|count| format!("fall: {count}")));
    keys
}
