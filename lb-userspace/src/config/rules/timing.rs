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
    settings("backend_defaults", &context.file.backend_defaults, any_check || !all_known, findings);
    for subject in context.subjects() {
        let checked = subject.written.check.is_some();
        let path = subject.path("backend_defaults");
        settings(&path, &subject.written.backend_defaults, checked, findings);
        for (index, backend) in subject.written.backends.iter().enumerate() {
            let path = format!("services[{}].backends[{index}]", subject.index);
            settings(&path, &backend.settings, checked, findings);
        }
    }
}

pub fn settings(
    path: &str,
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
            let path = format!("{path}.{key}");
            let message = format!("{} in {path} is out of bounds", Period(time));
            findings.error(&path, message, "write 10ms to 1h");
        }
    }
    if checked {
        return;
    }
    for key in ["inter", "fastinter", "downinter", "rise", "fall", "timeout", "init_state"] {
        let path = format!("{path}.{key}");
        if findings.is_written(&path) {
            let message = format!("{path} has no effect without a check");
            findings.warning(&path, message, "add `check:` to the service, or remove the key");
        }
    }
}
