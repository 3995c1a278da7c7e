//! Tables are at least as large as the file needs.

use super::{Context, Findings};
use crate::{config::model::Service, plan::ring::ring_length};

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    if !context.is_sound("limits") {
        return;
    }
    let limits = &context.config.limits;
    let services = &context.config.services;
    let sum = |count: fn(&Service) -> usize| -> u64 {
        services.iter().map(|service| count(service) as u64).sum()
    };
    let rings = sum(|service| {
        let weights = service.backends.iter().map(|backend| backend.weight);
        ring_length(weights, service.ring_size) as usize
    });
    for (key, limit, needed, what) in [
        ("services", Some(limits.services), sum(|_| 1), "services"),
        ("backends", Some(limits.backends), sum(|service| service.backends.len()), "backends"),
        (
            "allow_prefixes",
            Some(limits.allow_prefixes),
            sum(|service| service.allow.len()),
            "allow prefixes",
        ),
        (
            "deny_prefixes",
            Some(limits.deny_prefixes),
            sum(|service| service.deny.len()),
            "deny prefixes",
        ),
        ("ring_slots", limits.ring_slots, rings, "ring slots"),
    ] {
        if let Some(limit) = limit
            && needed > u64::from(limit)
        {
            let path = format!("limits.{key}");
            findings.error(
                &path,
                format!("{limit} in {path} is too small: the file has {needed} {what}"),
                format!("write {} or more, so that changes fit in too", needed * 2),
            );
        }
    }
}
