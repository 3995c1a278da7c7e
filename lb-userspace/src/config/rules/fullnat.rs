//! Full nat: what it sends from, and what does not go with it.

use std::collections::HashMap;

use lb_common::abi::POOL_ADDRESSES;

use super::{
    Context, Findings, Subject,
    addresses::{self, family},
};
use crate::config::model::{Forward, Protocol, SourcePool, Track};

/// The first port that a flow may have: those below are for services (RFC 6335).
const FIRST: u16 = 1_024;

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    if !context.is_sound("source_pool") {
        return;
    }
    let pool = context.config.source_pool.as_ref();
    let is_fullnat = |subject: &Subject<'_>| subject.service.forward == Forward::FullNat;
    for subject in context.subjects().filter(|subject| subject.service.toa) {
        client_address(&subject, findings);
    }
    for subject in context.subjects().filter(is_fullnat) {
        source(&subject, pool, findings);
        company(&subject, findings);
    }
    let Some(pool) = pool else { return };
    if !context.subjects().any(|subject| is_fullnat(&subject)) {
        findings.warning(
            "source_pool",
            "source_pool has no effect without a service with forward: fullnat".to_owned(),
            "remove it",
        );
    }
    own(context, pool, findings);
}

/// Servers are told a client's address where they do not see it, and where there is an option to tell it by.
fn client_address(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let path = subject.path("toa");
    if subject.service.forward != Forward::FullNat {
        findings.error(
            &path,
            format!("{path} has no effect without forward: fullnat"),
            "remove it: in other modes servers see the clients' addresses",
        );
    } else if subject.service.listen.protocol != Protocol::Tcp {
        findings.error(
            &path,
            format!("{path} needs protocol: tcp"),
            "remove it: other protocols have no option for it",
        );
    }
}

/// Each service has somewhere to send from.
fn source(subject: &Subject<'_>, pool: Option<&SourcePool>, findings: &mut Findings<'_>) {
    let path = subject.path("forward");
    let Some(pool) = pool else {
        findings.error(
            &path,
            format!("{path} is fullnat, and the file does not say what lb is to send from"),
            "add `source_pool: {addresses: [10.0.0.100]}` at the top level: addresses that are lb's alone",
        );
        return;
    };
    for vip in &subject.service.listen.vips {
        if !pool.addresses.iter().any(|address| address.is_ipv4() == vip.addr().is_ipv4()) {
            let family = family(vip.addr());
            findings.error(
                &path,
                format!(
                    "{path} is fullnat, the VIP is {family}, and source_pool has no such address"
                ),
                format!("add an {family} address to `source_pool`"),
            );
            return;
        }
    }
}

/// The pool itself.
fn own(context: &Context<'_>, pool: &SourcePool, findings: &mut Findings<'_>) {
    if pool.addresses.len() > POOL_ADDRESSES {
        findings.error(
            "source_pool.addresses",
            format!("source_pool.addresses are more than {POOL_ADDRESSES} addresses"),
            "write fewer, or longer prefixes: each address has 64512 ports",
        );
        return;
    }
    let limit = context.config.limits.source_addresses;
    if pool.addresses.len() > limit as usize {
        let needed = pool.addresses.len();
        findings.error(
            "limits.source_addresses",
            format!("{limit} in limits.source_addresses is too small: source_pool has {needed} addresses"),
            format!("write {} or more, so that changes fit in too", (needed * 2).min(POOL_ADDRESSES)),
        );
    }
    if pool.first_port < FIRST {
        findings.error(
            "source_pool.ports",
            format!("port {} in source_pool.ports is a well-known one", pool.first_port),
            format!("begin with {FIRST} or more"),
        );
    }
    let mut seen = HashMap::new();
    for (index, address) in pool.addresses.iter().enumerate() {
        // Prefixes are several of these: the message says which address it is about.
        let path = "source_pool.addresses";
        if let Some((what, help)) = addresses::refuse(*address) {
            findings.error(path, format!("{address} in {path} is {what}"), help);
        }
        if seen.insert(address, index).is_some() {
            findings.error(path, format!("{address} is in {path} twice"), "remove one of the two");
        }
        for subject in context.subjects() {
            let service = subject.service;
            if service.listen.vips.iter().any(|vip| vip.contains(address)) {
                findings.error(
                    path,
                    format!("{address} in {path} is the VIP of service `{}`", service.name),
                    "write an address that is for nothing else: answers come to it",
                );
            }
            if service.backends.iter().any(|backend| backend.address == *address) {
                findings.error(
                    path,
                    format!("{address} in {path} is a backend of service `{}`", service.name),
                    "write an address of this node's own",
                );
            }
        }
    }
}

/// What a service with full nat cannot have besides.
fn company(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    let remembered = "every flow is remembered, with the backend that the ring said";
    let keys = [
        (
            "balance",
            !service.balance.is_by_ring(),
            remembered,
            "write `balance: maglev` or `source`",
        ),
        ("hash_balance_factor", service.hash_balance_factor.is_some(), remembered, "remove it"),
        ("track", service.track == Track::Always, remembered, "remove it"),
        (
            "persistence",
            service.remembers_sources(),
            "clients are not remembered beyond their flows",
            "remove `timeout`: a client then stays with its backend by its address",
        ),
        (
            "observe",
            service.observe.is_some(),
            "what clients meet is not observed there",
            "remove it: checks tell",
        ),
    ];
    for (key, is_there, why, help) in keys {
        let path = subject.path(key);
        if is_there && findings.is_written(&path) {
            findings.error(&path, format!("{path} does not go with forward: fullnat: {why}"), help);
        }
    }
    if service.listen.protocol == Protocol::Quic {
        let path = subject.path("listen.protocol");
        findings.error(
            &path,
            format!("{path} is quic, which does not go with forward: fullnat"),
            "write `protocol: udp`: every flow is remembered anyway",
        );
    }
}
