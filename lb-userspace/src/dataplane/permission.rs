//! Whether this process may load programs at all (fault-cases F42): asked first, so that the answer is a sentence and not
//! an errno from somewhere deep.

use std::fs;

use super::{LoadError, syscall};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Fails with what this process lacks to load and attach programs.
pub fn check() -> Result<(), LoadError> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    // Without /proc nothing is known to be missing, and the kernel will say.
    let missing = missing(effective(&status).unwrap_or(u64::MAX));
    if !missing.is_empty() {
        return Err(LoadError::Capability { missing: listed(&missing) });
    }
    syscall::is_available().map_err(|source| LoadError::Unavailable { source })?;
    // Without them a program is attached in another way, which would have to be undone on the NIC.
    if syscall::has_links() { Ok(()) } else { Err(LoadError::NoLinks) }
}

/// What a process lacks of the capabilities that lb needs, by the text of its `/proc/PID/status`; `None` if that does not
/// say.
pub fn missing_capabilities(status: &str) -> Option<Vec<&'static str>> {
    effective(status).map(missing)
}

/// `a`, `a and b`, `a, b and c`
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

/// The effective capabilities in `/proc/<pid>/status`.
fn effective(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// Names of what is needed and not there. CAP_SYS_ADMIN includes what has been split from it (capabilities(7)); without
/// CAP_PERFMON the verifier forbids comparing packet pointers, which is how a program stays inside its packet.
fn missing(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    [
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
    ]
    .into_iter()
    .filter(|(_, there)| !there)
    .map(|(name, _)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capability_is_named() {
        let all = effective("Name:\tlb\nCapEff:\t000001ffffffffff\n").unwrap();
        assert!(missing(all).is_empty());
        assert_eq!(missing(all & !(1 << CAP_NET_ADMIN)), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << CAP_NET_ADMIN), ["CAP_BPF", "CAP_PERFMON"]);
        assert!(effective("Name:\tlb\n").is_none());
        assert!(missing(1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN).is_empty());
        assert_eq!(missing(0), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(listed(&missing(0)), "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN");
        assert_eq!(listed(&missing(1 << CAP_NET_ADMIN)), "CAP_BPF and CAP_PERFMON");
    }
}
