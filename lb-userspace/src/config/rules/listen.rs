//! VIPs: addresses, uniqueness, NICs.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{Context, Findings, Subject, addresses};

/// Bits of the mask in which the packet path keeps the NICs of a service.
const MAX_INTERFACES: usize = 32;

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    unique("interfaces", &context.config.interfaces, findings);
    if context.config.metrics.is_some_and(|address| address.port() == 0) {
        let help = "write 127.0.0.1:9180 or \"[::1]:9180\"";
        findings.error("metrics", "metrics has no port".to_owned(), help);
    }
    let mut listeners: HashMap<_, (String, &str)> = HashMap::new();
    let mut homes: HashMap<IpAddr, (String, &str)> = HashMap::new();
    for subject in context.subjects() {
        let listen = &subject.service.listen;
        let path = subject.path("listen.address");
        if let Some((what, help)) = addresses::refuse(listen.address) {
            findings.error(&path, format!("{} in {path} is {what}", listen.address), help);
        }
        let key = (listen.address, listen.port, listen.protocol);
        if let Some((first, name)) = listeners.get(&key) {
            let place = findings.place(first);
            findings.error(
                &path,
                format!(
                    "duplicate VIP {} port {} {} of service `{}`: service `{name}` has it in {place}",
                    listen.address,
                    listen.port,
                    listen.protocol.name(),
                    subject.service.name
                ),
                "change address, port or protocol of one of the two, or make them one service",
            );
        }
        listeners.entry(key).or_insert((path, subject.service.name.as_str()));
        interfaces(context, &subject, findings);
        if let Some(nic) = &listen.add_address_to {
            let path = subject.path("listen.add_address_to");
            match homes.get(&listen.address) {
                Some((first, other)) if other != nic => {
                    let place = findings.place(first);
                    findings.error(
                        &path,
                        format!(
                            "VIP {} cannot be on {nic} and, by {place}, on {other}",
                            listen.address
                        ),
                        "name the same NIC in both",
                    );
                }
                _ => drop(homes.insert(listen.address, (path, nic))),
            }
        }
    }
}

fn interfaces(context: &Context<'_>, subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let path = subject.path("listen.interfaces");
    let names = &subject.service.listen.interfaces;
    unique(&path, names, findings);
    let attached = &context.config.interfaces;
    if attached.is_empty() || !context.is_sound("interfaces") {
        return;
    }
    for (index, name) in names.iter().enumerate().filter(|(_, name)| !attached.contains(name)) {
        findings.error(
            &format!("{path}[{index}]"),
            format!("lb does not attach to `{name}` in {path}[{index}]"),
            format!("add it to `interfaces:` at the top level, which has {}", attached.join(", ")),
        );
    }
}

fn unique(path: &str, names: &[String], findings: &mut Findings<'_>) {
    debug_assert!(names.len() <= MAX_INTERFACES, "the schema bounds lists of NICs");
    let mut seen = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        if !seen.insert(name) {
            let message = format!("`{name}` is there twice in {path}");
            findings.error(&format!("{path}[{index}]"), message, "remove one of the two");
        }
    }
}
