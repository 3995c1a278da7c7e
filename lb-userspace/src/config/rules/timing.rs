//! Checks' times, wherever they are written.

use std::time::Duration;

use super::{Context, Findings};
use crate::config::{spec::BackendSettings, value::Period};

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(3_600);

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    let services = &context.file.services;
    let any_check = services.iter().any(|service| service.check.is_some());
    // With a service left out nobody knows whether it has a check.
    let all_known = context.indices.last().is_none_or(|last| last + 1 == context.indices.len());
    let defaults = &context.file.backend_defaults;
    settings(|| "backend_defaults".to_owned(), defaults, any_check || !all_known, findings);
    for subject in context.subjects() {
        let checked = subject.written.check.is_some();
        let path = || subject.path("backend_defaults");
        settings(path, &subject.written.backend_defaults, checked, findings);
        for (index, backend) in subject.written.backends.iter().enumerate() {
            let path = || format!("services[{}].backends[{index}]", subject.index);
            settings(path, &backend.settings, checked, findings);
        }
    }
}

/// `path` is asked for only where something is wrong: there are many backends, and few mistakes.
pub fn settings(
    path: impl Fn() -> String,
    settings: &BackendSettings,
    checked: bool,
    findings: &mut Findings<'_>,
) {
    for (key, period) in [
        ("inter", settings.inter),
        ("fastinter", settings.fastinter),
        ("downinter", settings.downinter),
        ("timeout", settings.timeout),
    ] {
        let Some(Period(time)) = period else { continue };
        if !(SHORTEST..=LONGEST).contains(&time) {
            let path = format!("{}.{key}", path());
            let message = format!("{} in {path} is out of bounds", Period(time));
            findings.error(&path, message, "write 10ms to 1h");
        }
    }
    if checked {
        return;
    }
    for (key, is_written) in [
        ("inter", settings.inter.is_some()),
        ("fastinter", settings.fastinter.is_some()),
        ("downinter", settings.downinter.is_some()),
        ("rise", settings.rise.is_some()),
        ("fall", settings.fall.is_some()),
        ("timeout", settings.timeout.is_some()),
        ("init_state", settings.init_state.is_some()),
    ] {
        if is_written {
            let path = format!("{}.{key}", path());
            let message = format!("{path} has no effect without a check");
            findings.warning(&path, message, "add `check:` to the service, or remove the key");
        }
    }
}
