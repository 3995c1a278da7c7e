//! What tunnels send from.

use super::{
    Context, Findings, Subject,
    addresses::{self, family},
};
use crate::config::model::Forward;

const KEY: &str = "outer_source";

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    if !context.is_sound(KEY) {
        return;
    }
    let prefixes = &context.config.outer_source;
    for (index, prefix) in prefixes.iter().enumerate() {
        let path = format!("{KEY}[{index}]");
        if let Some((what, help)) = addresses::refuse(prefix.network()) {
            findings.error(&path, format!("{prefix} in {path} is {what}"), help);
        }
        let before = &prefixes[..index];
        if before.iter().any(|other| other.addr().is_ipv4() == prefix.addr().is_ipv4()) {
            let family = family(prefix.addr());
            findings.error(
                &path,
                format!("{prefix} in {path} is the second {family} prefix"),
                "write one of each family: a shorter one has more addresses",
            );
        }
        for subject in context.subjects() {
            let service = subject.service;
            if service.listen.vips.iter().any(|vip| vip.contains(prefix) || prefix.contains(vip)) {
                findings.error(
                    &path,
                    format!("{prefix} in {path} has the VIP of service `{}` in it", service.name),
                    "write a prefix whose addresses are nobody's",
                );
            }
            if let Some(backend) = service.backends.iter().find(|one| prefix.contains(&one.address))
            {
                let (address, name) = (backend.address, &service.name);
                findings.error(
                    &path,
                    format!(
                        "{prefix} in {path} has a backend of service `{name}` in it, {address}"
                    ),
                    "write a prefix whose addresses are nobody's",
                );
            }
        }
    }
    let is_ipip = |subject: Subject<'_>| subject.service.forward == Forward::Ipip;
    if !prefixes.is_empty() && !context.subjects().any(is_ipip) {
        findings.warning(
            KEY,
            format!("{KEY} has no effect without a service with encap: ipip"),
            "remove it",
        );
    }
}
