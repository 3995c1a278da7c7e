//! What the daemon may do once it runs (fault-cases S14): as root or not, the capabilities that forwarding takes, and never more again.
//!
//! Capabilities belong to threads. Those of the runtime give theirs up as they begin; the one that loads the program, which may have
//! to mount a file system or to ask about a stranger's program, does so when everything is in place.

use std::{fs::File, path::Path};

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What is kept, as far as it was there.
const KEPT: [Capability; 6] = [
    // Maps and programs.
    Capability::CAP_BPF,
    // Programs that compare packet pointers.
    Capability::CAP_PERFMON,
    // NICs, addresses, neighbours, source addresses and marks of probes.
    Capability::CAP_NET_ADMIN,
    // Echo requests of checks.
    Capability::CAP_NET_RAW,
    // Listeners for Prometheus and the dashboard.
    Capability::CAP_NET_BIND_SERVICE,
    // `lb apply`: the configuration file keeps its owner.
    Capability::CAP_CHOWN,
];

/// Gives up, in this thread, for itself and for all that it starts, everything but [`KEPT`].
pub fn give_up() -> anyhow::Result<()> {
    reduce().context("cannot give up the capabilities that are no longer needed")
}

fn reduce() -> Result<(), CapsError> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    // Programs that checks start get nothing at all: neither what root gets by itself, nor what their files say.
    for capability in caps::read(None, CapSet::Bounding)? {
        if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    let permitted = &caps::read(None, CapSet::Permitted)? & &kept;
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)?;
    caps::clear(None, CapSet::Inheritable)
}

/// Neither this process nor what it starts gains privileges by starting a program, whatever its file says.
pub fn gain_no_more() -> anyhow::Result<()> {
    nix::sys::prctl::set_no_new_privs().context("cannot set no_new_privs")
}

/// Fails if a file could be read as long as everything was allowed, and no longer: the next reload would find out.
pub fn require_readable(path: &Path) -> anyhow::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => anyhow::bail!(
            "{} can be read only by going around its permissions, which lb gives up once it runs: make it readable for the \
             user that lb runs as (`chown` or `chmod o+r`), and its directory, too",
            path.display()
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: nobody else loses anything.
    #[test]
    fn what_is_given_up_is_gone_for_good() {
        std::thread::spawn(|| {
            give_up().unwrap();
            give_up().expect("a second time, as in every thread of the runtime");
            let effective = caps::read(None, CapSet::Effective).unwrap();
            assert!(effective.iter().all(|capability| KEPT.contains(capability)), "{effective:?}");
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
            let output = std::process::Command::new("grep")
                .args(["Cap", "/proc/self/status"])
                .output()
                .unwrap();
            let child = String::from_utf8_lossy(&output.stdout).into_owned();
            for set in ["CapPrm", "CapEff", "CapAmb"] {
                let line = child.lines().find(|line| line.starts_with(set)).unwrap();
                assert!(
                    line.ends_with("\t0000000000000000"),
                    "a program that it starts has {child}"
                );
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_file_that_only_root_may_read_by_force_is_named() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.yaml");
        std::fs::write(&path, "").unwrap();
        chown(&path, Some(12_345), None).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        require_readable(&path).unwrap();
        std::thread::spawn(move || {
            give_up().unwrap();
            let error = require_readable(&path).unwrap_err().to_string();
            assert!(error.contains("lb.yaml") && error.contains("chmod"), "{error}");
        })
        .join()
        .unwrap();
    }
}
