//! Algorithms, tracking and persistence: what goes together.

use std::time::Duration;

use lb_common::balance::MEMBERS;

use super::{Context, Findings, Subject};
use crate::config::{
    model::{Service, Track},
    value::Period,
};

/// Longest time for which a client may be remembered after its last packet.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    for subject in context.subjects() {
        tracking(&subject, findings);
        factor(&subject, findings);
        members(&subject, findings);
        persistence(&subject, findings);
    }
}

/// The key that needs all flows to be remembered, as it is written.
fn needs(service: &Service) -> Option<String> {
    let balance =
        (!service.balance.is_by_ring()).then(|| format!("balance: {}", service.balance.name()));
    let factor = service.hash_balance_factor.map(|_| "hash_balance_factor".to_owned());
    let timeout = service.remembers_sources().then(|| "persistence.timeout".to_owned());
    balance.or(factor).or(timeout)
}

fn tracking(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    if service.track == Track::Always {
        return;
    }
    let Some(key) = needs(service) else { return };
    let path = subject.path("track");
    findings.error(
        &path,
        format!("{path} is `changes`, but `{key}` needs every flow to be remembered"),
        "remove it, or write `track: always`",
    );
}

fn factor(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    if service.hash_balance_factor.is_some() && !service.balance.is_by_ring() {
        let path = subject.path("hash_balance_factor");
        findings.error(
            &path,
            format!("{path} has no effect with `balance: {}`", service.balance.name()),
            "remove it, or write `balance: maglev` or `source`",
        );
    }
}

fn members(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    let count = service.backends.len();
    let key = match service.hash_balance_factor {
        Some(_) => "hash_balance_factor".to_owned(),
        None if service.balance.reads_all() => format!("balance: {}", service.balance.name()),
        None => return,
    };
    if count > MEMBERS as usize {
        let path = subject.path("backends");
        findings.error(
            &path,
            format!("{count} in {path} are too many for `{key}`, which reads the load of each: at most {MEMBERS}"),
            "write `balance: random2`, which is nearly as even and reads two",
        );
    }
}

fn persistence(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    let Some(persistence) = service.persistence else { return };
    match persistence.timeout {
        Some(time) => {
            let whole = time.subsec_nanos() == 0;
            if !whole || !(Duration::from_secs(1)..=LONGEST).contains(&time) {
                let path = subject.path("persistence.timeout");
                findings.error(
                    &path,
                    format!("{} in {path} is out of bounds", Period(time)),
                    "write whole seconds from 1s to 24h",
                );
            }
        }
        None if !service.balance.is_by_ring() => {
            let path = subject.path("persistence");
            let balance = service.balance.name();
            findings.error(
                &path,
                format!("{path} without `timeout` is what the ring does, and `balance: {balance}` does not ask it"),
                "add `timeout: 6m`, or write `balance: maglev`",
            );
        }
        None => {}
    }
}
