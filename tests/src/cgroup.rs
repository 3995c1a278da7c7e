//! A control group that limits memory; version 1 and 2 of the kernel's interface.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A group; dropping it removes it, once all its processes have ended.
pub struct MemoryGroup {
    directory: PathBuf,
    limit: &'static str,
}

impl MemoryGroup {
    /// A group of its own for a process and what it will start.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let [old, new] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
        let (root, limit) = match old.join("cgroup.procs").exists() {
            true => (old, "memory.limit_in_bytes"),
            false => (new, "memory.max"),
        };
        let directory = root.join(format!("lb-test-{pid}"));
        let group = Self { directory, limit };
        fs::create_dir(&group.directory).with_context(|| {
            format!("cannot make the control group {}", group.directory.display())
        })?;
        fs::write(group.directory.join("cgroup.procs"), pid.to_string())?;
        Ok(group)
    }

    /// Sets the limit, bytes.
    pub fn limit(&self, bytes: u64) -> io::Result<()> {
        fs::write(self.directory.join(self.limit), bytes.to_string())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that still ends keeps it; an empty group costs nothing.
        let _ = fs::remove_dir(&self.directory);
    }
}
