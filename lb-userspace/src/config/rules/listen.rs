//! VIPs: addresses, uniqueness, NICs.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::abi::PORT_LIST_ENTRIES;

use super::{Context, Findings, Subject, addresses};
use crate::config::{
    model::{
        Forward,
        listen::{is_address, lists},
    },
    value::Vip,
};

/// Bits of the mask in which the packet path keeps the NICs of a service.
const MAX_INTERFACES: usize = 32;

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    unique("interfaces", &context.config.interfaces, findings);
    if context.config.metrics.is_some_and(|address| address.port() == 0) {
        let help = "write 127.0.0.1:9180 or \"[::1]:9180\"";
        findings.error("metrics", "metrics has no port".to_owned(), help);
    }
    let mut claims: Claims<'_> = HashMap::new();
    let mut homes: HashMap<IpAddr, (String, &str)> = HashMap::new();
    for subject in context.subjects() {
        vips(&subject, findings);
        for index in 0..subject.service.listen.vips.len() {
            claim(subject, index, &mut claims, findings);
        }
        interfaces(context, &subject, findings);
        home(&subject, &mut homes, findings);
    }
    lengths(context, findings);
}

/// Where a VIP stands: a list of one may be written without brackets.
fn place(subject: &Subject<'_>, index: usize, findings: &Findings<'_>) -> String {
    let item = subject.path(&format!("listen.address[{index}]"));
    if findings.is_written(&item) { item } else { subject.path("listen.address") }
}

/// Each for itself.
fn vips(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let listen = &subject.service.listen;
    for (index, vip) in listen.vips.iter().enumerate() {
        let path = place(subject, index, findings);
        let address = vip.network();
        if vip.prefix_len() == 0 && address.is_ipv4() {
            if !listen.force {
                findings.error(
                    &path,
                    format!("{vip} in {path} is every address there is"),
                    "write the prefixes that are routed here, or say `force: true` under `listen`",
                );
            }
        } else if let Some((what, help)) = addresses::refuse(address) {
            let shown = if is_address(vip) { address.to_string() } else { vip.to_string() };
            findings.error(&path, format!("{shown} in {path} is {what}"), help);
        }
        if let Some(first) = listen.vips[..index].iter().position(|other| other == vip) {
            let place = findings.place(&place(subject, first, findings));
            findings.error(
                &path,
                format!("{} is there twice, first in {place}", Vip(*vip)),
                "remove one of the two",
            );
        }
    }
    if subject.service.forward == Forward::Nat && !listen.has_one_address() {
        let path = subject.path("listen.address");
        findings.error(
            &path,
            format!(
                "{path} has more than one VIP, and in nat nothing in a backend's answer says which of them it is for"
            ),
            "write a service for each VIP, with other ports or addresses of the backends, or use `forward: dsr` or `tunnel`",
        );
    }
}

/// Whose a VIP is: by VIP, protocol, and how many ports there are (of one alone: which).
type Claims<'a> = HashMap<(IpNet, u8, u8, u16), Vec<(Subject<'a>, usize)>>;

/// Two services that match a packet equally well cannot be told apart.
fn claim<'a>(
    subject: Subject<'a>,
    index: usize,
    claims: &mut Claims<'a>,
    findings: &mut Findings<'_>,
) {
    let listen = &subject.service.listen;
    let rank = listen.port_rank();
    let port = if rank == 0 { listen.port } else { 0 };
    let known =
        claims.entry((listen.vips[index], listen.protocol.number(), rank, port)).or_default();
    let overlaps = |(other, _): &&(Subject<'a>, usize)| {
        let theirs = &other.service.listen;
        other.index != subject.index
            && listen.port <= theirs.last_port
            && theirs.port <= listen.last_port
    };
    if let Some((other, first)) = known.iter().find(overlaps) {
        let first = findings.place(&place(other, *first, findings));
        let (path, vip) = (place(&subject, index, findings), Vip(listen.vips[index]));
        let (name, theirs) = (&other.service.name, other.service.listen.ports());
        let (own, ports) = (&subject.service.name, listen.ports());
        let protocol = listen.protocol.name();
        let message = match ports == theirs {
            true => format!(
                "duplicate VIP {vip} port {ports} {protocol} of service `{own}`: service `{name}` has it in {first}"
            ),
            false => format!(
                "VIP {vip} ports {ports} {protocol} of service `{own}`: service `{name}` has some of them in {first} \
                 ({theirs})"
            ),
        };
        findings.error(
            &path,
            message,
            "change address, port or protocol of one of the two, or make them one service",
        );
    }
    known.push((subject, index));
}

/// On which NIC lb is to put a VIP.
fn home<'a>(
    subject: &Subject<'a>,
    homes: &mut HashMap<IpAddr, (String, &'a str)>,
    findings: &mut Findings<'_>,
) {
    let listen = &subject.service.listen;
    let Some(nic) = &listen.add_address_to else { return };
    let path = subject.path("listen.add_address_to");
    if let Some(prefix) = listen.prefixes().next() {
        findings.error(
            &path,
            format!("{path} cannot put all addresses of {prefix} on {nic}"),
            "leave it out, and route the prefix to lb",
        );
    }
    for address in listen.addresses() {
        match homes.get(&address) {
            Some((first, other)) if other != nic => {
                let place = findings.place(first);
                findings.error(
                    &path,
                    format!("VIP {address} cannot be on {nic} and, by {place}, on {other}"),
                    "name the same NIC in both",
                );
            }
            _ => drop(homes.insert(address, (path.clone(), nic))),
        }
    }
}

/// Packets look through lists that are not long.
fn lengths(context: &Context<'_>, findings: &mut Findings<'_>) {
    let subjects: Vec<Subject<'_>> = context.subjects().collect();
    let services =
        subjects.iter().zip(0..).map(|(subject, index)| (&subject.service.listen, index));
    for ((vip, _), list) in lists(services) {
        if list.len() > PORT_LIST_ENTRIES {
            let last = &subjects[list[PORT_LIST_ENTRIES].value() as usize];
            let path = last.path("listen.port");
            findings.error(
                &path,
                format!(
                    "{} services have ranges of {} ports at {}, and {PORT_LIST_ENTRIES} are possible",
                    list.len(),
                    last.service.listen.protocol.name(),
                    Vip(vip)
                ),
                "make them fewer: services of one port at an address do not count",
            );
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
