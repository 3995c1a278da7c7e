//! Where pins live: a bpffs that is there, ours alone, and of this layout's version.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use lb_common::abi::ABI_VERSION;
use nix::sys::statfs;

use super::LoadError;

/// The directories of pins under one root.
#[derive(Clone, Debug)]
pub struct PinDirectory {
    root: PathBuf,
}

impl PinDirectory {
    /// Pins under `root` (`/sys/fs/bpf/lb`).
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// `root/v<ABI>`
    pub fn version(&self) -> PathBuf {
        self.root.join(format!("v{ABI_VERSION}"))
    }

    /// Map pins.
    pub fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Link pins, named by NIC and mode.
    pub fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// Checks the file system and makes the directories (0700, root's).
    pub fn prepare(&self) -> Result<(), LoadError> {
        let below = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let kind = statfs::statfs(below).map_err(|error| self.io(below, error.into()))?;
        if kind.filesystem_type() != statfs::BPF_FS_MAGIC {
            return Err(LoadError::NoBpffs { path: self.root.clone() });
        }
        self.refuse_other_versions()?;
        for directory in [self.root.clone(), self.version(), self.maps(), self.links()] {
            match fs::DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.io(&directory, error)),
            }
            let owner = fs::metadata(&directory).map_err(|error| self.io(&directory, error))?;
            if owner.uid() != nix::unistd::geteuid().as_raw() {
                return Err(LoadError::Foreign { path: directory, uid: owner.uid() });
            }
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))
                .map_err(|error| self.io(&directory, error))?;
        }
        Ok(())
    }

    fn refuse_other_versions(&self) -> Result<(), LoadError> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Ok(()) };
        let ours = self.version();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path() != ours && name != "decap" {
                return Err(LoadError::OtherVersion { path: entry.path(), version: ABI_VERSION });
            }
        }
        Ok(())
    }

    fn io(&self, path: &Path, source: io::Error) -> LoadError {
        LoadError::Pins { path: path.to_owned(), source }
    }
}

/// Removes everything lb has pinned under `root`, of any version: links first, so that no NIC runs a program whose maps
/// are going. Works without a daemon; nothing there is no error.
pub fn detach_all(root: &Path) -> io::Result<()> {
    let Ok(versions) = fs::read_dir(root) else { return Ok(()) };
    let versions: Vec<PathBuf> = versions
        .flatten()
        .filter(|entry| entry.file_name() != "decap")
        .map(|entry| entry.path())
        .collect();
    for version in versions {
        if !version.is_dir() {
            fs::remove_file(&version)?;
            continue;
        }
        for part in ["links", "maps"] {
            remove_directory(&version.join(part))?;
        }
        remove_directory(&version)?;
    }
    match fs::remove_dir(root) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
        other => other,
    }
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_directory(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    fs::remove_dir(directory)
}
