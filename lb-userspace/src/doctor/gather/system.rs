//! /proc and /sys.

use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use super::read;
use crate::{
    dataplane::{
        is_bpffs, missing_capabilities as missing, probe::Attempt, shares_mounts_with_init,
    },
    doctor::facts::{Kernel, Process},
};

/// The sysctls that checks look at.
const SYSCTLS: [&str; 9] = [
    "net.core.bpf_jit_enable",
    "net.core.bpf_jit_harden",
    "kernel.unprivileged_bpf_disabled",
    "kernel.bpf_stats_enabled",
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.arp_announce",
];

/// The kernel.
pub(super) fn kernel(attempts: Vec<Attempt>) -> Kernel {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    Kernel {
        release: release.trim().to_owned(),
        sysctl: SYSCTLS.into_iter().filter_map(|name| Some((name, sysctl(name)?))).collect(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        attempts,
        clock_source: read(clock).map(|text| text.trim().to_owned()),
        cpus: read("/sys/devices/system/cpu/online").map_or(1, |text| cpus(&text).len()),
    }
}

fn sysctl(name: &str) -> Option<String> {
    read(format!("/proc/sys/{}", name.replace('.', "/")))
}

/// This process and its pins.
pub(super) fn process(pin_dir: &Path) -> Process {
    let status = read("/proc/thread-self/status");
    let existing = pin_dir.ancestors().find(|path| path.exists());
    Process {
        missing: status.and_then(|status| missing(&status)),
        pin_dir: pin_dir.to_owned(),
        bpffs: is_bpffs(pin_dir).ok(),
        read_only: existing
            .and_then(|path| statvfs(path).ok())
            .is_some_and(|found| found.flags().contains(FsFlags::ST_RDONLY)),
        may_mount: pin_dir.starts_with("/sys/fs/bpf") && shares_mounts_with_init(),
    }
}

/// What a process lacks of the capabilities that lb needs.
pub(super) fn missing_capabilities(pid: u32) -> Option<Vec<&'static str>> {
    missing(&read(format!("/proc/{pid}/status"))?)
}

/// Files a process may have open.
pub(super) fn open_files(pid: u32) -> Option<u64> {
    soft_limit(&read(format!("/proc/{pid}/limits"))?, "Max open files")
}

/// A line is `Max open files            1024                 524288               files`.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The least `memory.max` of a process's control group (v2) and those above it.
pub(super) fn memory_limit(pid: u32) -> Option<u64> {
    let groups = read(format!("/proc/{pid}/cgroup"))?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Path::new("/sys/fs/cgroup")
        .join(path)
        .ancestors()
        .take_while(|path| path.starts_with("/sys/fs/cgroup"))
        .filter_map(|path| read(path.join("memory.max"))?.trim().parse().ok())
        .min()
}

/// `0-3,8` as the numbers of CPUs.
pub(super) fn cpus(list: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(first.saturating_add(65_535)));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cpus("5\n"), [5]);
        assert!(cpus("\n").is_empty());
    }

    #[test]
    fn limits_are_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n\
            Max locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(soft_limit(text, "Max open files"), Some(1_024));
        assert_eq!(soft_limit(text, "Max locked memory"), Some(u64::MAX));
        assert_eq!(soft_limit(text, "Max nonsense"), None);
    }

    #[test]
    fn this_process_is_described() {
        let pid = std::process::id();
        assert!(open_files(pid).is_some_and(|files| files > 0));
        let process = process(Path::new("/tmp/nothing/here"));
        assert_eq!(process.bpffs, Some(false));
        assert!(!process.may_mount);
    }
}
