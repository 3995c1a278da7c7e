//! Where pins live: a bpffs that is there, ours alone, and of this layout's version (fault-cases F41, S15).

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use lb_common::abi::ABI_VERSION;
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs,
};

use super::LoadError;

/// Where every distribution mounts it.
const USUAL: &str = "/sys/fs/bpf";
/// What `lb decap` has beside the versions.
pub(super) const DECAP: &str = "decap";

/// The directories of pins under one root.
#[derive(Clone, Debug)]
pub(super) struct PinDirectory {
    root: PathBuf,
}

/// Held while a daemon uses the pins, its own and those it takes over; the kernel gives it back however the daemon ends.
pub(super) struct Hold(#[expect(dead_code, reason = "held, not used")] Vec<Flock<fs::File>>);

impl PinDirectory {
    /// Pins under `root` (`/sys/fs/bpf/lb`).
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// `root/v<ABI>`
    pub(super) fn version(&self) -> PathBuf {
        self.root.join(format!("v{ABI_VERSION}"))
    }

    /// Map pins.
    pub(super) fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Link pins, named by NIC and mode.
    pub(super) fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// Checks the file system, makes the directories (0700, ours) and takes them for this process, together with what
    /// other versions have left, if that is to be taken over.
    pub(super) fn prepare(&self, take_over: bool) -> Result<Hold, LoadError> {
        require_bpffs(&self.root)?;
        let others = self.others()?;
        if let Some(path) = others.iter().find(|path| !take_over || !is_version(path)) {
            return Err(LoadError::OtherVersion { path: path.clone(), version: ABI_VERSION });
        }
        for directory in [self.root.clone(), self.version(), self.maps(), self.links()] {
            make_private(&directory)?;
        }
        let ours = self.version();
        let taken = others.iter().chain([&ours]).map(|path| hold(path));
        Ok(Hold(taken.collect::<Result<_, _>>()?))
    }

    /// What is in the root beside our pins and those of `lb decap`.
    fn others(&self) -> Result<Vec<PathBuf>, LoadError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(LoadError::Pins { path: self.root.clone(), source }),
        };
        let ours = self.version();
        let other = |entry: &fs::DirEntry| entry.path() != ours && entry.file_name() != DECAP;
        Ok(entries.flatten().filter(other).map(|entry| entry.path()).collect())
    }

    /// The directories of other versions.
    pub(super) fn other_versions(&self) -> Vec<PathBuf> {
        let mut versions = self.others().unwrap_or_default();
        versions.retain(|path| is_version(path));
        versions
    }

    /// Directories with links of other versions.
    pub(super) fn other_links(&self) -> Vec<PathBuf> {
        self.other_versions().into_iter().map(|version| version.join("links")).collect()
    }
}

/// `v` and a number.
pub(super) fn is_version(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok())
}

fn hold(path: &Path) -> Result<Flock<fs::File>, LoadError> {
    let fail = |source| LoadError::Pins { path: path.to_owned(), source };
    let directory = fs::File::open(path).map_err(fail)?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(LoadError::InUse { path: path.to_owned() }),
        Err((_, errno)) => Err(fail(errno.into())),
    }
}

/// Makes a directory that nobody else can look into, or makes an existing one so if it is ours.
pub(super) fn make_private(directory: &Path) -> Result<(), LoadError> {
    let fail = |source| LoadError::Pins { path: directory.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(fail(error)),
    }
    // Not through a symbolic link: what it points to is not ours to lock.
    let found = fs::symlink_metadata(directory).map_err(fail)?;
    if !found.is_dir() {
        return Err(fail(io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(LoadError::Foreign { path: directory.to_owned(), uid: found.uid() });
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(fail)
}

/// Fails unless `root` is, or would be made, on a bpffs. Mounts one where it belongs if nobody has.
pub(super) fn require_bpffs(root: &Path) -> Result<(), LoadError> {
    if is_bpffs(root)? {
        return Ok(());
    }
    let usual = Path::new(USUAL);
    let refused = |hint: String| LoadError::NoBpffs { path: root.to_owned(), hint };
    if !root.starts_with(usual) || !usual.is_dir() {
        return Err(refused(String::new()));
    }
    if !shares_mounts_with_init() {
        // It would go, and the pins with it, as soon as the last process of this namespace ends.
        return Err(refused(
            " (lb does not mount it itself, as it runs in a mount namespace of its own)".to_owned(),
        ));
    }
    mount_bpffs(usual).map_err(|error| refused(format!(" (mounting it failed: {error})")))?;
    tracing::info!("mounted a BPF file system on {USUAL}, where there was none");
    Ok(())
}

/// Whether a path is, or would be made, on a bpffs.
pub(crate) fn is_bpffs(root: &Path) -> Result<bool, LoadError> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statfs::statfs(existing)
        .map_err(|errno| LoadError::Pins { path: existing.to_owned(), source: errno.into() })?;
    Ok(found.filesystem_type() == statfs::BPF_FS_MAGIC)
}

/// Whether what this process mounts stays when it ends.
pub(crate) fn shares_mounts_with_init() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
    matches!((namespace("thread-self"), namespace("1")), (Ok(ours), Ok(its)) if ours == its)
}

/// Mounts a bpffs on a directory with nothing in it.
pub(super) fn mount_bpffs(directory: &Path) -> io::Result<()> {
    if fs::read_dir(directory)?.next().is_some() {
        return Err(io::Error::from_raw_os_error(libc::ENOTEMPTY));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("bpf"), directory, Some("bpf"), flags, Some("mode=700"))?)
}
