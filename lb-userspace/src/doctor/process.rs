//! Processes: what this command and the daemon may do, and where pins go.

use super::{Finding, Severity, advice, command, facts::Facts};

const GROUP: &str = "process";
/// Descriptors of the daemon beside its probes: maps, netlink, the socket's clients.
const OWN_FILES: u64 = 256;
/// The smallest memory lb's maps fit into with default limits, bytes.
const MEMORY: u64 = 256 << 20;

/// Judges privileges and limits.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![own_capabilities(facts)];
    findings.extend(daemon_capabilities(facts));
    findings.push(bpffs(facts));
    findings.extend(files(facts));
    findings.extend(memory(facts));
    findings
}

fn own_capabilities(facts: &Facts) -> Finding {
    const WHY: &str = "what needs them could not be tried, and `lb run` refuses to start without";
    match facts.process.missing.as_deref() {
        Some([]) => Finding::ok(GROUP, "capabilities", "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"),
        Some(missing) => Finding::bad(
            // `lb run` itself may be given more than this command.
            if facts.daemon.status.is_some() { Severity::Note } else { Severity::Error },
            GROUP,
            "capabilities",
            format!("this process lacks {}", missing.join(", ")),
            WHY,
            command("sudo lb doctor"),
        ),
        None => Finding::bad(
            Severity::Note,
            GROUP,
            "capabilities",
            "not known: /proc/self/status does not say",
            WHY,
            advice("mount /proc"),
        ),
    }
}

fn daemon_capabilities(facts: &Facts) -> Option<Finding> {
    let status = facts.daemon.status.as_ref()?;
    let missing = facts.daemon.missing.as_ref()?;
    if missing.is_empty() {
        let found = format!("the daemon (pid {}) has its capabilities", status.pid);
        return Some(Finding::ok(GROUP, "daemon_capabilities", found));
    }
    Some(Finding::bad(
        Severity::Error,
        GROUP,
        "daemon_capabilities",
        format!("the daemon (pid {}) lacks {}", status.pid, missing.join(", ")),
        "it can neither attach a NIC anew nor load a new program",
        advice(
            "name them in the unit: CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_NET_ADMIN (configs/systemd/lb.service), then `systemctl daemon-reload && systemctl restart lb`",
        ),
    ))
}

fn bpffs(facts: &Facts) -> Finding {
    const WHY: &str = "without pins, forwarding would end with the daemon";
    let process = &facts.process;
    let place = process.pin_dir.display();
    match process.bpffs {
        Some(true) if process.read_only => Finding::bad(
            Severity::Error,
            GROUP,
            "bpffs",
            format!("the BPF file system of {place} is read-only"),
            WHY,
            command("mount -o remount,rw /sys/fs/bpf"),
        ),
        Some(true) => Finding::ok(GROUP, "bpffs", format!("{place} is on a BPF file system")),
        Some(false) => Finding::bad(
            if process.may_mount { Severity::Note } else { Severity::Error },
            GROUP,
            "bpffs",
            match process.may_mount {
                true => format!("{place} is not on a BPF file system yet; `lb run` mounts it"),
                false => format!("{place} is not on a BPF file system"),
            },
            WHY,
            command("mount -t bpf bpf /sys/fs/bpf"),
        ),
        None => Finding::bad(
            Severity::Note,
            GROUP,
            "bpffs",
            format!("not known: {place} cannot be looked at"),
            WHY,
            command("sudo lb doctor"),
        ),
    }
}

fn files(facts: &Facts) -> Option<Finding> {
    let (status, limit) = (facts.daemon.status.as_ref()?, facts.daemon.open_files?);
    let backends: usize = status.services.iter().map(|service| service.backends.len()).sum();
    let needed = backends as u64 + OWN_FILES;
    if limit >= needed {
        let found = format!("the daemon may open {limit} files");
        return Some(Finding::ok(GROUP, "open_files", found));
    }
    Some(Finding::bad(
        Severity::Warning,
        GROUP,
        "open_files",
        format!("the daemon may open {limit} files, and {backends} backends may take {needed}"),
        "each probe is a socket: without descriptors backends go DOWN that are not",
        command(format!("prlimit --pid {} --nofile=65536:65536", status.pid)),
    ))
}

fn memory(facts: &Facts) -> Option<Finding> {
    facts.daemon.status.as_ref()?;
    let Some(limit) = facts.daemon.memory_limit else {
        return Some(Finding::ok(GROUP, "memory", "maps are limited by no control group"));
    };
    if limit >= MEMORY {
        let found = format!("maps may take {} MiB (control group)", limit >> 20);
        return Some(Finding::ok(GROUP, "memory", found));
    }
    Some(Finding::bad(
        Severity::Warning,
        GROUP,
        "memory",
        format!("the daemon's control group has {} MiB", limit >> 20),
        "maps are charged to it (not to RLIMIT_MEMLOCK, since Linux 5.11): growing pins may fail, or the daemon be killed",
        advice("raise MemoryMax= in the unit to 512M or more"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::types::{BackendStatus, ServiceStatus, Status},
        doctor::{facts::Process, testing::assert_finds},
    };

    fn good() -> Facts {
        let mut facts = Facts {
            process: Process {
                missing: Some(vec![]),
                pin_dir: "/sys/fs/bpf/lb".into(),
                bpffs: Some(true),
                ..Process::default()
            },
            ..Facts::default()
        };
        let service = ServiceStatus {
            backends: vec![BackendStatus::default(); 1_000],
            ..ServiceStatus::default()
        };
        facts.daemon.status = Some(Status { pid: 7, services: vec![service], ..Status::default() });
        facts.daemon.missing = Some(vec![]);
        facts.daemon.open_files = Some(65_536);
        facts.daemon.memory_limit = Some(1 << 30);
        facts
    }

    #[test]
    fn a_good_process_is_ok() {
        let findings = check(&good());
        assert_eq!(findings.len(), 5);
        assert!(findings.iter().all(|f| f.severity == Severity::Ok), "{findings:#?}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut facts = good();
        facts.process.missing = Some(vec!["CAP_BPF"]);
        assert_finds(&check(&facts), "capabilities", Severity::Note, "sudo");
        facts.daemon.missing = Some(vec!["CAP_NET_ADMIN"]);
        assert_finds(&check(&facts), "daemon_capabilities", Severity::Error, "BoundingSet");
        facts.daemon.open_files = Some(1_024);
        assert_finds(&check(&facts), "open_files", Severity::Warning, "prlimit --pid 7");
        facts.daemon.memory_limit = Some(64 << 20);
        assert_finds(&check(&facts), "memory", Severity::Warning, "MemoryMax");
        facts.daemon.status = None;
        assert_finds(&check(&facts), "capabilities", Severity::Error, "sudo");
    }

    #[test]
    fn pins_need_a_bpffs_that_can_be_written() {
        let mut facts = good();
        facts.process.read_only = true;
        assert_finds(&check(&facts), "bpffs", Severity::Error, "remount,rw");
        facts.process.bpffs = Some(false);
        assert_finds(&check(&facts), "bpffs", Severity::Error, "mount -t bpf");
        facts.process.may_mount = true;
        assert_finds(&check(&facts), "bpffs", Severity::Note, "mount -t bpf");
        facts.process.bpffs = None;
        assert_finds(&check(&facts), "bpffs", Severity::Note, "sudo");
    }
}
