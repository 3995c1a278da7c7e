//! What backends are for: tiers, sorry backends, whose health they have, and how many of them are enough.

use std::time::Duration;

use super::{Context, Findings, Subject};
use crate::config::{
    tracks::{self, End},
    value::Period,
};

const LONGEST_SLOWSTART: Duration = Duration::from_secs(3_600);

pub fn judge(context: &Context<'_>, findings: &mut Findings<'_>) {
    let path = || "backend_defaults".to_owned();
    slowstart(path, context.file.backend_defaults.slowstart, findings);
    let places = tracks::places(&context.config.services);
    // Names of a service that was left out are not known.
    let all_known = context.indices.last().is_none_or(|last| last + 1 == context.indices.len());
    for subject in context.subjects() {
        let path = || subject.path("backend_defaults");
        slowstart(path, subject.written.backend_defaults.slowstart, findings);
        quorum(&subject, findings);
        for (index, backend) in subject.written.backends.iter().enumerate() {
            let path = || format!("services[{}].backends[{index}]", subject.index);
            slowstart(path, backend.settings.slowstart, findings);
            role(&subject, index, findings);
            let Some(name) = backend.track.as_ref().map(ToString::to_string) else { continue };
            let path = subject.backend_path(index, "track");
            match tracks::end(&context.config.services, &places, &name) {
                End::Checked(_) => {}
                End::Unknown(_) if !all_known => {}
                End::Unknown(unknown) => findings.error(
                    &path,
                    format!("`{unknown}` in {path} is no backend"),
                    "write SERVICE/BACKEND with names of this file",
                ),
                End::Unchecked(end) => findings.error(
                    &path,
                    format!("{path} leads to `{end}`, which has no check"),
                    "give its service a `check:`, or remove `track`",
                ),
                End::Circle(names) => findings.error(
                    &path,
                    format!("{path} runs in a circle: {}", names.join(" -> ")),
                    "let one of them be checked itself: remove its `track`",
                ),
            }
        }
    }
}

pub fn slowstart(
    path: impl FnOnce() -> String,
    period: Option<Period>,
    findings: &mut Findings<'_>,
) {
    if let Some(Period(time)) = period
        && time > LONGEST_SLOWSTART
    {
        let path = format!("{}.slowstart", path());
        let message = format!("{} in {path} is out of bounds", Period(time));
        findings.error(&path, message, "write 0s to 1h");
    }
}

fn quorum(subject: &Subject<'_>, findings: &mut Findings<'_>) {
    let service = subject.service;
    let regular = service.backends.iter().filter(|backend| !backend.sorry).count();
    if regular == 0 && !service.backends.is_empty() && service.backends_from.is_none() {
        findings.error(
            &subject.path("backends"),
            format!("all backends of `{}` are sorry backends", service.name),
            "add one that does the work, without `sorry: true`",
        );
    }
    if service.hysteresis >= service.quorum && service.hysteresis > 0 {
        let path = subject.path("hysteresis");
        findings.error(
            &path,
            format!(
                "{} in {path} is not less than the quorum {}",
                service.hysteresis, service.quorum
            ),
            "write a smaller hysteresis, or a larger quorum",
        );
    }
    let highest = u64::from(service.quorum) + u64::from(service.hysteresis);
    if highest > regular as u64 && service.quorum > 1 && !service.is_discovered() {
        let path = subject.path("quorum");
        findings.warning(
            &path,
            format!(
                "{path} and hysteresis make {highest}, more than the {regular} backends there are"
            ),
            "once lost, the quorum is never reached again: write less, or add backends",
        );
    }
}

fn role(subject: &Subject<'_>, index: usize, findings: &mut Findings<'_>) {
    let backend = &subject.written.backends[index];
    if backend.backup && findings.is_written(&subject.backend_path(index, "tier")) {
        let path = subject.backend_path(index, "backup");
        let message = format!("{path} and tier say the same thing in two ways");
        findings.error(&path, message, "remove one of them: `backup: true` is `tier: 1`");
    }
    if !backend.sorry {
        return;
    }
    for (key, set) in
        [("backup", backend.backup), ("tier", backend.tier > 0), ("track", backend.track.is_some())]
    {
        if set {
            let path = subject.backend_path(index, key);
            let message = format!("{path} has no meaning for a sorry backend");
            let help = "it is used when all tiers have failed, and is not checked: remove the key";
            findings.error(&path, message, help);
        }
    }
}
