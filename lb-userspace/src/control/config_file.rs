//! Replaces the configuration file: whole, or not at all, with its owner and mode; a symbolic link stays one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Mode of a file that was not there.
const NEW_MODE: u32 = 0o600;

/// A new text, written and synced beside the file. Dropped, it is gone.
pub(super) struct Prepared {
    path: PathBuf,
    aside: PathBuf,
    done: bool,
}

impl Prepared {
    /// Writes the text aside: whatever can fail (a full disk, a file system that is read-only, a missing permission) fails now.
    pub fn new(path: &Path, text: &str) -> io::Result<Self> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
        name.push(".lb-new");
        let aside = path.with_file_name(name);
        // Left over by a crash.
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(NEW_MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&aside)?;
        let prepared = Self { path, aside, done: false };
        if let Ok(old) = fs::metadata(&prepared.path) {
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                match fchown(&file, Some(old.uid()), Some(old.gid())) {
                    // A daemon with a user of its own, in a directory that was given to it.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    other => other?,
                }
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(prepared)
    }

    /// Puts it in the file's place.
    pub fn commit(mut self) -> io::Result<()> {
        fs::rename(&self.aside, &self.path)?;
        self.done = true;
        match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => {
                File::open(directory)?.sync_all()
            }
            _ => File::open(".")?.sync_all(),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.done {
            // What is left over is removed by the next one.
            let _ = fs::remove_file(&self.aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_mode_and_link_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real.yaml"), directory.path().join("lb.yaml"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.yaml", &link).unwrap();
        Prepared::new(&link, "new").unwrap().commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left aside");
    }

    #[test]
    fn what_is_not_committed_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.yaml");
        fs::write(&path, "old").unwrap();
        drop(Prepared::new(&path, "new").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let missing = directory.path().join("none/lb.yaml");
        assert!(Prepared::new(&missing, "new").is_err());
        let fresh = directory.path().join("fresh.yaml");
        Prepared::new(&fresh, "new").unwrap().commit().unwrap();
        assert_eq!(fs::metadata(&fresh).unwrap().mode() & 0o777, NEW_MODE);
    }
}
