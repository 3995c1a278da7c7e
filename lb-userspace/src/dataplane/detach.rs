//! Taking everything away again; works without a daemon.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{attach, bpffs::is_version};

/// Removes everything lb has pinned under `root`, of any version: links first, and waits until no NIC runs the programs
/// any more. Nothing there is no error; what `lb decap` has there stays.
pub fn detach_all(root: &Path) -> io::Result<()> {
    let versions = match fs::read_dir(root) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let versions: Vec<PathBuf> =
        versions.into_iter().map(|entry| entry.path()).filter(|path| is_version(path)).collect();
    remove_versions(&versions)?;
    remove_if_empty(root)
}

/// Removes all pins of versions, links first.
pub(super) fn remove_versions(versions: &[PathBuf]) -> io::Result<()> {
    for version in versions {
        attach::detach(&version.join("links"), None)?;
    }
    for version in versions {
        remove(version)?;
    }
    Ok(())
}

/// Removes a directory of pins with all that is in it; nothing there is no error. Symbolic links are removed, not
/// followed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    for entry in fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    fs::remove_dir(path)
}

/// Removes a directory unless something else lives there.
pub(super) fn remove_if_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_strangers() {
        let is_version = |name| is_version(Path::new(name));
        assert!(is_version("lb/v1") && is_version("v12"));
        assert!(!is_version("lb/decap") && !is_version("v") && !is_version("v1x"));
    }
}
