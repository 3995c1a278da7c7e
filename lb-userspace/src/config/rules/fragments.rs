//! Fragments that go where the client's address leads.

use super::{Context, Findings, Subject};
use crate::config::model::{Forward, Fragments, Protocol, Service};

const KEY: &str = "stateless_fragments";

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    let are_stateless = |subject: &Subject<'_>| subject.service.stateless_fragments;
    for subject in context.subjects().filter(are_stateless) {
        let path = subject.path(KEY);
        let service = subject.service;
        if let Some((what, help)) = hindrance(service) {
            findings.error(&path, format!("{path} {what}"), help);
        }
        let others = context.subjects().filter(|other| other.index != subject.index);
        for other in others.filter(|other| takes_fragments(other.service)) {
            let Some(vip) = common_vip(service, other.service) else { continue };
            findings.error(
                &path,
                format!(
                    "{path}: service `{}` takes fragments to {vip}, too, and a later fragment does not tell which of the two it is for",
                    other.service.name
                ),
                "write fragments: drop at the other one, or remove this",
            );
        }
    }
}

/// Why the client's address does not tell where a fragment of the service goes, and what to do.
fn hindrance(service: &Service) -> Option<(&'static str, &'static str)> {
    Some(if !takes_fragments(service) {
        (
            "has no effect where fragments are dropped",
            "write fragments: udp (datagrams) or all (TCP segments, too), or remove it",
        )
    } else if service.forward == Forward::FullNat {
        (
            "does not go with forward: fullnat",
            "remove it: what lb sends from a port of its own is found by the first fragment only",
        )
    } else if service.tracks()
        || service.persistence.is_some()
        || service.listen.protocol == Protocol::Quic
    {
        (
            "does not go with track, persistence or protocol: quic",
            "remove it, or them: they remember more than the client's address",
        )
    } else if service.ring_prefix().is_none() {
        ("needs balance: source", "write balance: source, or remove it")
    } else if service.listen.prefixes().next().is_some() {
        ("needs addresses under listen, not prefixes", "list the addresses, or remove it")
    } else {
        return None;
    })
}

fn takes_fragments(service: &Service) -> bool {
    match service.fragments {
        Fragments::Udp => service.listen.protocol != Protocol::Tcp,
        Fragments::All => true,
        Fragments::Drop => false,
    }
}

/// A VIP of both, if they have the protocol in common.
fn common_vip(one: &Service, other: &Service) -> Option<ipnet::IpNet> {
    let is_tcp = |service: &Service| service.listen.protocol == Protocol::Tcp;
    if is_tcp(one) != is_tcp(other) {
        return None;
    }
    let is_common = |vip: &&ipnet::IpNet| {
        other.listen.vips.iter().any(|its| its.contains(*vip) || vip.contains(its))
    };
    one.listen.vips.iter().find(is_common).copied()
}
