//! Why the data plane is not loaded: what, where, and the remedy.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::EbpfError;

/// Why the data plane is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not allowed to.
    #[error(
        "lb needs {missing} to load its program: run it as root, or give it these capabilities (systemd: AmbientCapabilities=)"
    )]
    Capability {
        /// Those of CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN that are not there.
        missing: String,
    },
    /// The kernel has no BPF, or something keeps us from it in spite of our capabilities.
    #[error(
        "the kernel does not let lb use BPF ({source}): it needs CONFIG_BPF_SYSCALL, and no seccomp filter of a container or service manager that forbids bpf(2)"
    )]
    Unavailable {
        /// The kernel's word.
        source: io::Error,
    },
    /// The kernel has no links.
    #[error(
        "this kernel has no BPF links (for XDP since Linux 5.9), by which lb's program stays on its NICs without the daemon: use a kernel of 6.1 or later; `lb doctor` shows what else it lacks"
    )]
    NoLinks,
    /// No bpffs.
    #[error(
        "{} is not on a BPF file system, and without pins the service would end with the daemon{hint}: run `mount -t bpf bpf /sys/fs/bpf`",
        path.display()
    )]
    NoBpffs {
        /// The pin root.
        path: PathBuf,
        /// Why lb has not mounted it itself; empty, or begins with a space.
        hint: String,
    },
    /// Something in the pin directory is not of this version.
    #[error(
        "{} is there, but this lb keeps its pins in v{version}: they are another version's or somebody else's; run `lb detach` (of the version that made them, if it still forwards), or remove it",
        path.display()
    )]
    OtherVersion {
        /// The stranger.
        path: PathBuf,
        /// Our ABI version.
        version: u32,
    },
    /// The directory is another user's.
    #[error(
        "{} belongs to user {uid}: whoever owns it can redirect all traffic; remove it, or run lb as that user",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The pin directory cannot be used.
    #[error("cannot use the pin directory {}: {source}{}", path.display(), pins_remedy(path, source))]
    Pins {
        /// Where.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Another daemon has these pins, with another run directory.
    #[error(
        "another lb is running with the pins in {}; stop it, or give this one its own --pin-dir and NIC",
        path.display()
    )]
    InUse {
        /// The pin directory.
        path: PathBuf,
    },
    /// Some maps are pinned, some are not, and a NIC is attached.
    #[error(
        "the pin of the map {name} is missing from {}, while a NIC is attached: run `lb detach`, then start lb",
        path.display()
    )]
    Incomplete {
        /// The map.
        name: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// A pinned map of another layout.
    #[error(
        "the pinned map {} is {found}, this lb needs {wanted}: run `lb detach`, then start lb (flows that were moved by recent changes may break)",
        path.display()
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// A pinned map that is too small for the configuration.
    #[error(
        "the loaded map {name} has room for {found} entries, the configuration asks for {wanted}: lower `limits.{limit}`, or run `lb detach` and start lb to load it with the new size"
    )]
    TooSmall {
        /// The map.
        name: String,
        /// Entries it has.
        found: u32,
        /// Entries asked for.
        wanted: u32,
        /// The key of `limits:`.
        limit: &'static str,
    },
    /// A size that no map can have.
    #[error("{what} cannot be {value}: {rule}")]
    Size {
        /// Which.
        what: &'static str,
        /// What was asked for.
        value: u32,
        /// What it must be.
        rule: &'static str,
    },
    /// A map cannot be opened.
    #[error("cannot open the map {name}: {source}")]
    Map {
        /// The map.
        name: String,
        /// Why.
        source: anyhow::Error,
    },
    /// The kernel refuses the program.
    #[error("the kernel refuses lb's program: {cause}; the verifier's log is in {}", log.display())]
    Verifier {
        /// Its last words.
        cause: String,
        /// All it said.
        log: PathBuf,
    },
    /// Anything else.
    #[error("cannot load lb's program: {0}")]
    Load(String),
}

impl LoadError {
    /// About a map.
    pub(super) fn map(name: &str, error: impl Into<anyhow::Error>) -> Self {
        Self::Map { name: name.to_owned(), source: error.into() }
    }
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        Self::Load(chain(&error))
    }
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Some errors show their cause themselves.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

fn pins_remedy(path: &Path, error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EROFS) => "; run `mount -o remount,rw /sys/fs/bpf`",
        Some(libc::EPERM) if path.to_string_lossy().contains('.') => {
            "; names on a BPF file system cannot contain dots: choose another --pin-dir"
        }
        Some(libc::ENOTDIR) => "; it is not a directory: remove it",
        _ => "",
    }
}
