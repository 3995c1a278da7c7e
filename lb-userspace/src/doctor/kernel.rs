//! The kernel: its version, the compiler for BPF, what was tried, settings that cost or expose.

use super::{Finding, Severity, advice, command, facts::Kernel};
use crate::dataplane::probe::{Attempt, Outcome};

const GROUP: &str = "kernel";
/// The oldest kernel lb is tested on.
const TESTED: (u32, u32) = (6, 1);
/// The oldest kernel that has all that lb needs.
const NEEDED: (u32, u32) = (5, 15);

/// Judges the kernel.
pub(super) fn check(kernel: &Kernel) -> Vec<Finding> {
    let mut findings = vec![version(kernel)];
    findings.push(jit(kernel));
    findings.extend(kernel.attempts.iter().filter_map(attempt));
    findings.extend(not_allowed(&kernel.attempts));
    findings.push(hardening(kernel));
    findings.push(unprivileged(kernel));
    findings.push(statistics(kernel));
    findings.push(btf(kernel));
    findings.push(clock(kernel));
    findings
}

fn version(kernel: &Kernel) -> Finding {
    let release = &kernel.release;
    let newer = || advice("install a kernel of 6.1 or later (Debian 12 has 6.1)");
    let Some(version) = parsed(release) else {
        let found = format!("Linux {release}, whose version cannot be told");
        return Finding::bad(Severity::Note, GROUP, "kernel_version", found, OLD, newer());
    };
    if version >= TESTED {
        return Finding::ok(GROUP, "kernel_version", format!("Linux {release}"));
    }
    let severity = if version >= NEEDED { Severity::Warning } else { Severity::Error };
    let found = format!("Linux {release} is older than 6.1");
    Finding::bad(severity, GROUP, "kernel_version", found, OLD, newer())
}

const OLD: &str =
    "lb is tested from 6.1 on; before 5.15 features are missing that it cannot do without";

/// The first two numbers.
fn parsed(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn jit(kernel: &Kernel) -> Finding {
    const WHY: &str = "without the compiler every packet costs several times as much";
    let set = || command("sysctl -w net.core.bpf_jit_enable=1");
    match kernel.number("net.core.bpf_jit_enable") {
        Some(0) => Finding::bad(
            Severity::Warning,
            GROUP,
            "jit",
            "BPF programs are interpreted",
            WHY,
            set(),
        ),
        Some(1) => Finding::ok(GROUP, "jit", "BPF programs are compiled"),
        Some(_) => Finding::bad(
            Severity::Note,
            GROUP,
            "jit",
            "BPF programs are compiled, and their code is written to the kernel's log",
            "meant for debugging the compiler; it shows addresses of the kernel",
            set(),
        ),
        None => unknown("jit", "whether BPF programs are compiled", WHY),
    }
}

/// What /proc/sys does not show.
fn unknown(check: &'static str, what: &str, why: &'static str) -> Finding {
    Finding::bad(
        Severity::Note,
        GROUP,
        check,
        format!("not known: {what}"),
        why,
        advice("run it as root, where /proc/sys is mounted"),
    )
}

fn attempt(attempt: &Attempt) -> Option<Finding> {
    let what = &attempt.what;
    Some(match &attempt.outcome {
        Outcome::Works => Finding::ok(GROUP, "bpf", format!("{what}: tried, works")),
        Outcome::Refused(reason) => Finding::bad(
            Severity::Error,
            GROUP,
            "bpf",
            format!("{what}: {reason}"),
            "lb cannot load its program without it",
            advice(
                "use a kernel of 6.1 or later with CONFIG_BPF_SYSCALL; in a container, one whose seccomp filter allows bpf(2)",
            ),
        ),
        Outcome::NotAllowed(_) => return None,
    })
}

/// One finding for all that could not be tried: the reason is always the same.
fn not_allowed(attempts: &[Attempt]) -> Option<Finding> {
    let denied = |attempt: &&Attempt| matches!(attempt.outcome, Outcome::NotAllowed(_));
    let first = attempts.iter().find(denied)?;
    let Outcome::NotAllowed(reason) = &first.outcome else { return None };
    let others = match attempts.iter().filter(denied).count() {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    Some(Finding::bad(
        Severity::Note,
        GROUP,
        "bpf",
        format!("could not be tried: {}{others} ({reason})", first.what),
        "only trying shows whether the kernel can",
        command("sudo lb doctor"),
    ))
}

fn hardening(kernel: &Kernel) -> Finding {
    match kernel.number("net.core.bpf_jit_harden") {
        Some(2) => Finding::bad(
            Severity::Note,
            GROUP,
            "jit_harden",
            "constants in BPF programs are blinded, root's included",
            "it makes the program larger and each packet a little dearer; 1 blinds those of other users only",
            command("sysctl -w net.core.bpf_jit_harden=1"),
        ),
        Some(value) => Finding::ok(GROUP, "jit_harden", format!("bpf_jit_harden is {value}")),
        None => {
            unknown("jit_harden", "net.core.bpf_jit_harden", "at 2 each packet is a little dearer")
        }
    }
}

fn unprivileged(kernel: &Kernel) -> Finding {
    const WHY: &str = "any user may load BPF programs, a way into the kernel that lb does not need";
    match kernel.number("kernel.unprivileged_bpf_disabled") {
        Some(0) => Finding::bad(
            Severity::Note,
            GROUP,
            "unprivileged_bpf",
            "users without privileges may use BPF",
            WHY,
            command("sysctl -w kernel.unprivileged_bpf_disabled=2"),
        ),
        Some(_) => Finding::ok(GROUP, "unprivileged_bpf", "only the privileged may use BPF"),
        None => unknown("unprivileged_bpf", "who may use BPF", WHY),
    }
}

fn statistics(kernel: &Kernel) -> Finding {
    match kernel.number("kernel.bpf_stats_enabled") {
        Some(1) => Finding::bad(
            Severity::Note,
            GROUP,
            "bpf_stats",
            "the kernel times every run of a BPF program",
            "it costs some 20 to 30 ns a packet",
            command("sysctl -w kernel.bpf_stats_enabled=0"),
        ),
        _ => Finding::ok(GROUP, "bpf_stats", "runs of BPF programs are not timed"),
    }
}

fn btf(kernel: &Kernel) -> Finding {
    if kernel.btf {
        return Finding::ok(GROUP, "btf", "the kernel describes its types (BTF)");
    }
    Finding::bad(
        Severity::Note,
        GROUP,
        "btf",
        "/sys/kernel/btf/vmlinux is missing",
        "lb works without; bpftool and other tools show less of its maps and program",
        advice("use a kernel with CONFIG_DEBUG_INFO_BTF (distributions' kernels have it)"),
    )
}

fn clock(kernel: &Kernel) -> Finding {
    match kernel.clock_source.as_deref() {
        Some(source @ ("hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" | "pit")) => {
            Finding::bad(
                Severity::Note,
                GROUP,
                "clock",
                format!("the clock source is {source}"),
                "reading this clock takes a microsecond or more, which probes and the daemon pay (packets do not: they use jiffies)",
                command(
                    "cat /sys/devices/system/clocksource/clocksource0/available_clocksource; dmesg | grep -i clocksource",
                ),
            )
        }
        Some(source) => Finding::ok(GROUP, "clock", format!("the clock source is {source}")),
        None => Finding::ok(GROUP, "clock", "the kernel does not say what its clock source is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{assert_finds, only};

    fn good() -> Kernel {
        Kernel {
            release: "6.1.0-18-amd64".into(),
            sysctl: [
                ("net.core.bpf_jit_enable", "1\n"),
                ("net.core.bpf_jit_harden", "0\n"),
                ("kernel.unprivileged_bpf_disabled", "2\n"),
                ("kernel.bpf_stats_enabled", "0\n"),
            ]
            .map(|(name, value)| (name, value.to_owned()))
            .into(),
            btf: true,
            attempts: vec![Attempt { what: "map: hash".into(), outcome: Outcome::Works }],
            clock_source: Some("tsc".into()),
            cpus: 4,
        }
    }

    #[test]
    fn a_good_kernel_is_ok() {
        for finding in check(&good()) {
            assert_eq!(finding.severity, Severity::Ok, "{finding:#?}");
        }
    }

    #[test]
    fn each_setting_has_its_remedy() {
        let with = |name, value: &str| {
            let mut kernel = good();
            kernel.sysctl.insert(name, value.into());
            check(&kernel)
        };
        let set = |name, value, check, severity, remedy| {
            assert_finds(&with(name, value), check, severity, remedy);
        };
        let (note, warning) = (Severity::Note, Severity::Warning);
        set("net.core.bpf_jit_enable", "0", "jit", warning, "bpf_jit_enable=1");
        set("net.core.bpf_jit_enable", "2", "jit", note, "bpf_jit_enable=1");
        set("net.core.bpf_jit_harden", "2", "jit_harden", note, "bpf_jit_harden=1");
        set("kernel.unprivileged_bpf_disabled", "0", "unprivileged_bpf", note, "=2");
        set("kernel.bpf_stats_enabled", "1", "bpf_stats", note, "bpf_stats_enabled=0");
        let blind = check(&Kernel { sysctl: [].into(), ..good() });
        assert!(only(&blind, "jit").found.starts_with("not known"));
    }

    #[test]
    fn old_kernels_are_told_apart() {
        for (release, severity) in [
            ("6.18.44-x", Severity::Ok),
            ("6.1", Severity::Ok),
            ("5.15.0-91-generic", Severity::Warning),
            ("5.4.0", Severity::Error),
            ("4.19.0", Severity::Error),
            ("unknown", Severity::Note),
        ] {
            let findings = check(&Kernel { release: release.into(), ..good() });
            assert_finds(&findings, "kernel_version", severity, "6.1");
        }
    }

    #[test]
    fn what_was_refused_is_an_error_and_what_could_not_be_tried_is_not() {
        let tried = |outcome| {
            let attempts = vec![Attempt { what: "map: ring buffer".into(), outcome }];
            check(&Kernel { attempts, ..good() })
        };
        assert_finds(&tried(Outcome::Refused("no".into())), "bpf", Severity::Error, "6.1");
        assert_finds(&tried(Outcome::NotAllowed("no".into())), "bpf", Severity::Note, "sudo");
        let slow = Kernel { clock_source: Some("hpet".into()), btf: false, ..good() };
        assert_finds(&check(&slow), "clock", Severity::Note, "clocksource");
        assert_finds(&check(&slow), "btf", Severity::Note, "CONFIG_DEBUG_INFO_BTF");
    }
}
