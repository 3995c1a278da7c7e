//! Secrets stand in files of their own that nobody else can read, and are read anew for each use: a new password needs no
//! reload.

use std::{
    fs::{self, OpenOptions},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Longest secret, bytes: the key of a certificate.
const LONGEST: u64 = 16 << 10;

/// Reads a secret without the line end after it.
pub fn read(path: &Path) -> Result<String, String> {
    let fail = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| fail(&error))?;
    let found = file.metadata().map_err(|error| fail(&error))?;
    check(&found).map_err(|why| fail(&why))?;
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| fail(&error))?;
    if text.len() as u64 > LONGEST {
        return Err(fail(&"longer than 16 KiB"));
    }
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(fail(&"empty"));
    }
    Ok(secret.to_owned())
}

fn check(found: &fs::Metadata) -> Result<(), String> {
    if !found.is_file() {
        return Err("not a file".to_owned());
    }
    let ours = nix::unistd::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != ours {
        return Err(format!("belongs to user {}: chown it to root", found.uid()));
    }
    match found.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(format!("mode {:04o} lets others in: chmod 600", found.mode() & 0o7777)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_files_that_nobody_else_can_read_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "swordfish\n").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for (bits, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            mode(bits);
            let result = read(&path);
            assert_eq!(result.is_ok(), good, "{bits:o}: {result:?}");
            match result {
                Ok(secret) => assert_eq!(secret, "swordfish"),
                Err(error) => assert!(error.contains("chmod 600"), "{error}"),
            }
        }
        mode(0o600);
        fs::write(&path, "\n").unwrap();
        assert!(read(&path).unwrap_err().ends_with("empty"));
        fs::write(&path, "x".repeat(20_000)).unwrap();
        assert!(read(&path).is_err());
        assert!(read(directory.path()).unwrap_err().ends_with("not a file"));
        assert!(read(&directory.path().join("none")).is_err());
    }
}
