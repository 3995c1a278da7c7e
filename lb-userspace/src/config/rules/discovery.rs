//! Backends that the file does not tell: how they are looked for, and files of backends.

use std::{collections::HashMap, time::Duration};

use super::{Context, Findings, roles, timing};
use crate::config::{
    spec::Backend,
    value::{Host, Period},
};

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    if !context.is_sound("resolver") {
        return;
    }
    let resolver = &context.config.resolver;
    for (key, time, least, most) in [
        ("timeout", resolver.timeout, Duration::from_millis(100), Duration::from_secs(30)),
        ("min_ttl", resolver.min_ttl, Duration::from_millis(100), Duration::from_secs(86_400)),
        ("max_ttl", resolver.max_ttl, Duration::from_millis(100), Duration::from_secs(86_400)),
    ] {
        if !(least..=most).contains(&time) {
            let path = format!("resolver.{key}");
            let message = format!("{} in {path} is out of bounds", Period(time));
            findings.error(&path, message, format!("write {} to {}", Period(least), Period(most)));
        }
    }
    if resolver.max_ttl < resolver.min_ttl {
        let (most, least) = (Period(resolver.max_ttl), Period(resolver.min_ttl));
        let message = format!("resolver.max_ttl ({most}) is shorter than min_ttl ({least})");
        findings.error(
            "resolver.max_ttl",
            message,
            "the longest time is not less than the shortest",
        );
    }
}

/// A file of backends, as far as it can be judged without its service.
pub fn listed(backends: &[Backend], findings: &mut Findings<'_>) {
    let (mut names, mut addresses) = (HashMap::new(), HashMap::new());
    for (index, backend) in backends.iter().enumerate() {
        let at = format!("[{index}]");
        timing::settings(|| at.clone(), &backend.settings, true, findings);
        roles::slowstart(|| at.clone(), backend.settings.slowstart, findings);
        if let Some(first) = names.insert(&backend.name.0, index) {
            let place = findings.place(&format!("[{first}].name"));
            let message = format!("the name `{}` is taken: first in {place}", backend.name.0);
            let help = "give each backend of a service a name of its own";
            findings.error(&format!("{at}.name"), message, help);
        }
        match &backend.address {
            Some(Host::Address(endpoint)) => {
                if let Some(first) = addresses.insert(endpoint.to_string(), index) {
                    let place = findings.place(&format!("[{first}].address"));
                    let message = format!("{endpoint} is a backend already, first in {place}");
                    findings.error(&format!("{at}.address"), message, "remove one of the two");
                }
            }
            Some(Host::Name { name, .. }) => {
                let message =
                    format!("`{name}` is a DNS name, and files of backends have addresses");
                let help = "write its address, or put the backend into the configuration";
                findings.error(&format!("{at}.address"), message, help);
            }
            None => {
                findings.error(&at, format!("{at} lacks the key `address`"), "add `address:`");
            }
        }
        for (key, set) in [("srv", backend.srv.is_some()), ("track", backend.track.is_some())] {
            if set {
                let message = format!("`{key}` is not possible in a file of backends");
                let help = "remove it, or put the backend into the configuration";
                findings.error(&format!("{at}.{key}"), message, help);
            }
        }
        for (key, set) in [("tier", backend.tier > 0), ("backup", backend.backup)] {
            if set && backend.sorry {
                let message = format!("{at}.{key} has no meaning for a sorry backend");
                findings.error(&format!("{at}.{key}"), message, "remove the key");
            }
        }
    }
}
