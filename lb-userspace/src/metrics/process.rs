//! The daemon's own appetite, as the kernel counts it.

use std::{
    fmt::Error,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike as _,
};
use prometheus_client::encoding::DescriptorEncoder;

use super::family::{counter, gauge};

/// What cannot be read is `None`, and its metric is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time, user and system, seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, bytes; mapped BPF maps and code included.
    pub resident_bytes: Option<u64>,
    /// Resident memory of its own (RssAnon), bytes: what a leak makes grow.
    pub anonymous_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// How many it may have.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// When the daemon started, seconds of Unix time.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// Of this process, which began at `start`.
    pub fn read(start: SystemTime) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        Self {
            cpu_seconds: usage.map(|usage| {
                let both = usage.user_time() + usage.system_time();
                both.num_microseconds() as f64 / 1e6
            }),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            anonymous_bytes: field(&status, "RssAnon:").map(|kib| kib * 1024),
            threads: field(&status, "Threads:"),
            // The directory itself is open while it is counted.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            start_seconds: start.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64()),
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        if let Some(seconds) = self.cpu_seconds {
            counter(encoder, "lb_process_cpu_seconds", "Processor time of the daemon.")?
                .sample(&[], seconds)?;
        }
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        for (name, help, value) in [
            (
                "lb_process_resident_memory_bytes",
                "Resident memory of the daemon, mapped tables included.",
                bytes(self.resident_bytes),
            ),
            (
                "lb_process_anonymous_memory_bytes",
                "Resident memory of the daemon alone (RssAnon).",
                bytes(self.anonymous_bytes),
            ),
            ("lb_process_open_fds", "Open file descriptors.", bytes(self.open_fds)),
            ("lb_process_max_fds", "File descriptors it may open.", bytes(self.max_fds)),
            ("lb_process_threads", "Threads of the daemon.", bytes(self.threads)),
            (
                "lb_process_start_time_seconds",
                "When the daemon started, Unix time.",
                self.start_seconds,
            ),
        ] {
            if let Some(value) = value {
                gauge(encoder, name, help)?.sample(&[], value)?;
            }
        }
        Ok(())
    }
}

/// The number after a name in /proc/PID/status.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status =
            "Name:\tlb\nVmHWM:\t  900 kB\nVmRSS:\t  812 kB\nRssAnon:\t 12 kB\nThreads:\t3\n";
        assert_eq!(field(status, "VmRSS:"), Some(812));
        assert_eq!((field(status, "RssAnon:"), field(status, "Threads:")), (Some(12), Some(3)));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let now = SystemTime::now();
        let process = Process::read(now);
        assert!(process.resident_bytes > process.anonymous_bytes, "{process:?}");
        assert!(process.anonymous_bytes.is_some_and(|bytes| bytes > 0), "{process:?}");
        assert!(process.open_fds.is_some_and(|fds| fds >= 3), "{process:?}");
        assert!(process.max_fds >= process.open_fds, "{process:?}");
        assert!(process.cpu_seconds.is_some() && process.start_seconds.is_some(), "{process:?}");
    }
}
