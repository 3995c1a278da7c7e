//! Backends: names, addresses, ports, and that nat replies can be told apart.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::{
    Context, Findings, Subject,
    addresses::{self, family},
};
use crate::config::{
    model::{Backend, Forward, Origin, listen::AnswerPorts},
    spec,
    value::Host,
};

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    let vips = Vips::of(context);
    let mut replies: Replies<'_> = HashMap::new();
    for subject in context.subjects() {
        duplicates(&subject, findings);
        for (index, backend) in subject.service.backends.iter().enumerate() {
            place(&subject, index, findings);
            if backend.origin.is_template() || subject.written.backends[index].address.is_none() {
                continue;
            }
            address(&subject, index, backend, &vips, findings);
            reply(subject, index, backend, &mut replies, findings);
        }
        let (all, discovered) = (&subject.service.backends, &subject.service.backends_from);
        if all.is_empty() && discovered.is_none() {
            let path = subject.path("backends");
            let (message, help) = match findings.is_written(&path) {
                true => {
                    (format!("{path} is empty"), "at least 1 has to be there, or `backends_from:`")
                }
                false => (
                    format!("services[{}] lacks the key `backends`", subject.index),
                    "add `backends:` (The servers that do the work), or `backends_from:`",
                ),
            };
            findings.error(&path, message, help);
        }
        if discovered.is_none() && !all.is_empty() && all.iter().all(|one| one.weight == 0) {
            findings.warning(
                &subject.path("backends"),
                format!("all backends of `{}` have weight 0: no new flows", subject.service.name),
                "give one of them a weight from 1 to 256",
            );
        }
    }
}

fn duplicates(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    for (index, backend) in subject.service.backends.iter().enumerate() {
        if let Some(&first) = names.get(&backend.name) {
            let path = subject.backend_path(index, "name");
            let place = findings.place(&subject.backend_path(first, "name"));
            findings.error(
                &path,
                format!("the name `{}` of {path} is taken: first in {place}", backend.name),
                "give each backend of a service a name of its own",
            );
        }
        names.entry(&backend.name).or_insert(index);
        if subject.written.backends[index].address.is_none() || backend.origin.is_template() {
            continue;
        }
        if let Some(&first) = addresses.get(&(backend.address, backend.port)) {
            let path = subject.backend_path(index, "address");
            let place = findings.place(&subject.backend_path(first, "address"));
            let (address, port) = (backend.address, backend.port);
            findings.error(
                &path,
                format!("{address} port {port} in {path} is a backend already, first in {place}"),
                "remove one of the two; a greater `weight` gives a backend a greater share",
            );
        }
        addresses.entry((backend.address, backend.port)).or_insert(index);
    }
}

/// How it is said where a backend is.
fn place(subject: &Subject<'_>, index: usize, findings: &mut Findings<'_>) {
    let (backend, listen) = (&subject.service.backends[index], &subject.service.listen);
    let written = &subject.written.backends[index];
    let path = || format!("services[{}].backends[{index}]", subject.index);
    match (&written.address, &written.srv) {
        (None, None) => findings.error(
            &path(),
            format!("{} lacks the key `address`", path()),
            "add `address:` (an address or a DNS name), or `srv:`",
        ),
        (Some(_), Some(_)) => findings.error(
            &format!("{}.srv", path()),
            format!("{} has `address` and `srv`", path()),
            "remove one of them: SRV records tell address and port",
        ),
        (Some(_), None) | (None, Some(_)) => {}
    }
    several_ports(subject, index, findings);
    let name = matches!(backend.origin, Origin::Name(_)) && listen.has_one_port();
    if name && !subject.service.forward.sees_replies() && backend.port != listen.port {
        let path = format!("{}.address", path());
        findings.error(
            &path,
            format!(
                "port {} in {path} is not the service's {}: only nat changes ports",
                backend.port, listen.port
            ),
            "leave the port out (a check asks another port by `check: {port: ...}`), \
             or use `forward: nat`",
        );
    }
}

/// With several ports, packets keep theirs.
fn several_ports(subject: &Subject<'_>, index: usize, findings: &mut Findings<'_>) {
    let listen = &subject.service.listen;
    if listen.has_one_port() {
        return;
    }
    let written = &subject.written.backends[index];
    let help = "leave the port out: a backend gets each packet on the port that it was sent to";
    let port = match &written.address {
        Some(Host::Address(endpoint)) => endpoint.port,
        Some(Host::Name { port, .. }) => *port,
        None => None,
    };
    if let Some(port) = port {
        let path = subject.backend_path(index, "address");
        let message = format!("port {port} in {path} does not go with ports {}", listen.ports());
        findings.error(&path, message, help);
    }
    if written.srv.is_some() {
        let path = subject.backend_path(index, "srv");
        let message = format!("{path} does not go with ports {}", listen.ports());
        findings.error(&path, message, "write a name under `address:`: SRV records tell ports");
    }
}

/// All VIPs, and whose they are.
struct Vips<'a> {
    addresses: HashMap<IpAddr, Subject<'a>>,
    prefixes: Vec<(IpNet, Subject<'a>)>,
}

impl<'a> Vips<'a> {
    fn of(context: &Context<'a>) -> Self {
        let mut vips = Self { addresses: HashMap::new(), prefixes: Vec::new() };
        for subject in context.subjects() {
            let listen = &subject.service.listen;
            vips.addresses.extend(listen.addresses().map(|address| (address, subject)));
            vips.prefixes.extend(listen.prefixes().map(|prefix| (prefix, subject)));
        }
        vips
    }

    fn get(&self, address: IpAddr) -> Option<&Subject<'a>> {
        let within = || self.prefixes.iter().find(|(prefix, _)| prefix.contains(&address));
        self.addresses.get(&address).or_else(|| within().map(|(_, subject)| subject))
    }
}

fn address(
    subject: &Subject<'_>,
    index: usize,
    backend: &Backend,
    vips: &Vips<'_>,
    findings: &mut Findings<'_>,
) {
    let path = || subject.backend_path(index, "address");
    let (address, port, listen) = (backend.address, backend.port, &subject.service.listen);
    if let Some((what, help)) = addresses::refuse(address) {
        let path = path();
        findings.error(&path, format!("{address} in {path} is {what}"), help);
        return;
    }
    if let Some(other) = vips.get(address) {
        let path = path();
        let place = findings.place(&other.path("listen.address"));
        findings.error(
            &path,
            format!(
                "{address} in {path} is the VIP of service `{}` ({place}): packets would run in a circle",
                other.service.name
            ),
            "write the backend's own address",
        );
    }
    let forward = subject.written.forward;
    if forward != spec::Forward::Tunnel && !listen.has_family_of(address) {
        let path = path();
        let name = match forward {
            spec::Forward::Nat => "nat",
            spec::Forward::Fullnat => "fullnat",
            spec::Forward::Dsr | spec::Forward::Tunnel => "dsr",
        };
        findings.error(
            &path,
            format!(
                "{address} in {path} is {}, the VIP {} is {}, and forward: {name} cannot change that",
                family(address),
                listen.address,
                family(listen.address)
            ),
            "use addresses of one family, or `forward: tunnel`",
        );
    }
    if !subject.service.forward.sees_replies() && listen.has_one_port() && port != listen.port {
        let path = path();
        findings.error(
            &path,
            format!(
                "port {port} in {path} is not the service's {}: only nat changes ports",
                listen.port
            ),
            "leave the port out (a check asks another port by `check: {port: ...}`), \
             or use `forward: nat`",
        );
    }
}

/// Where the answers of nat backends come from, and whose they are.
type Replies<'a> = HashMap<(IpAddr, u8), Vec<(AnswerPorts, Subject<'a>, usize)>>;

fn reply<'a>(
    subject: Subject<'a>,
    index: usize,
    backend: &Backend,
    replies: &mut Replies<'a>,
    findings: &mut Findings<'_>,
) {
    if subject.service.forward != Forward::Nat {
        return;
    }
    let (address, port) = (backend.address, backend.port);
    let protocol = subject.service.listen.protocol;
    let answers = AnswerPorts::of(&subject.service.listen, port);
    let known = replies.entry((address, protocol.number())).or_default();
    let other =
        known.iter().find(|(one, other, _)| other.index != subject.index && one.clashes(&answers));
    match other {
        Some((_, other, first)) => {
            let place = findings.place(&other.backend_path(*first, "address"));
            let path = subject.backend_path(index, "address");
            let port = match port {
                0 => format!("ports {}", subject.service.listen.ports()),
                port => format!("port {port}"),
            };
            findings.error(
                &path,
                format!(
                    "{address} {port} {} is a nat backend of `{}` and, in {place}, of `{}`: \
                     its answers could not be told apart",
                    protocol.name(),
                    subject.service.name,
                    other.service.name
                ),
                "let the server listen on a second port or address for one of the two services",
            );
        }
        None => known.push((answers, subject, index)),
    }
}
