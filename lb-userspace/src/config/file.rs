//! The file on disk: whoever may write it decides where traffic goes, so its owner and mode count.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::{Diagnostic, Errors, Parsed, Source, document::MAX_BYTES, parse};

/// Reads a file that decides where traffic goes. One that everybody may write is refused.
pub fn read_own(path: &Path) -> Result<(Source, Metadata), Errors> {
    let fail = |diagnostic| {
        let source = Source { path: path.to_owned(), text: String::new() };
        Err(Errors::new(source, vec![diagnostic]))
    };
    let (text, metadata) = match read(path) {
        Ok(read) => read,
        Err(diagnostic) => return fail(diagnostic),
    };
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return fail(Diagnostic::of_file(
            format!("everybody may write this file (mode {mode:04o})"),
            format!("chmod o-w {}", path.display()),
        ));
    }
    Ok((Source { path: path.to_owned(), text }, metadata))
}

/// Reads and checks a file, and the files of prefixes that it names. One that everybody may write is refused; an owner other
/// than root, and a group that may write, are warnings.
pub fn load(path: &Path) -> Result<Parsed, Errors> {
    let (source, metadata) = read_own(path)?;
    let mode = metadata.mode() & 0o7777;
    let mut parsed = parse(&source)?.with_prefix_files()?;
    // Root's, or of the user that the daemon runs as, who could do so in any case.
    if metadata.uid() != 0 && metadata.uid() != nix::unistd::geteuid().as_raw() {
        parsed.warnings.push(Diagnostic::of_file(
            format!("the file belongs to user {}, who can redirect all traffic", metadata.uid()),
            format!("chown root {}", path.display()),
        ));
    }
    if mode & 0o020 != 0 {
        parsed.warnings.push(Diagnostic::of_file(
            format!("group {} may write the file (mode {mode:04o})", metadata.gid()),
            format!("chmod g-w {}", path.display()),
        ));
    }
    parsed.warnings.extend(directory_warning(path));
    Ok(parsed)
}

/// Who may write the directory can put another file in this one's place, unless the sticky bit is set.
fn directory_warning(path: &Path) -> Option<Diagnostic> {
    let path = path.canonicalize().ok()?;
    let directory = path.parent()?;
    let mode = directory.metadata().ok()?.mode() & 0o7777;
    (mode & 0o1002 == 0o0002).then(|| {
        Diagnostic::of_file(
            format!("everybody may write its directory (mode {mode:04o}), and so replace the file"),
            format!("chmod o-w {}", directory.display()),
        )
    })
}

fn read(path: &Path) -> Result<(String, Metadata), Diagnostic> {
    let cannot = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "name an existing file; configs/minimal.yaml is a start",
            io::ErrorKind::PermissionDenied => "run as root, or make the file readable",
            _ => "",
        };
        Diagnostic::of_file(format!("cannot read the file: {error}"), help)
    };
    // Not blocking: opening a FIFO would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file: File = file.map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(Diagnostic::of_file("not a regular file", "name the YAML file itself"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Diagnostic::of_file(format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })?;
    Ok((text, metadata))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    const GOOD: &str = include_str!("../../../configs/minimal.yaml");

    fn file_with(text: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn modes_and_owners_count() {
        let (_directory, path) = file_with(GOOD.as_bytes(), 0o646);
        let errors = load(&path).unwrap_err().to_string();
        assert!(errors.contains("everybody may write") && errors.contains("chmod o-w"), "{errors}");

        let (_directory, path) = file_with(GOOD.as_bytes(), 0o664);
        let warnings = load(&path).unwrap().warnings;
        assert!(warnings.iter().any(|w| w.to_string().contains("chmod g-w")), "{warnings:?}");

        let (directory, path) = file_with(GOOD.as_bytes(), 0o644);
        for (mode, warned) in [(0o755, false), (0o777, true), (0o1777, false)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(), permissions).unwrap();
            let warnings = load(&path).unwrap().warnings;
            let found = warnings.iter().any(|w| w.to_string().contains("its directory"));
            assert_eq!(found, warned, "{mode:o}: {warnings:?}");
        }

        let (_directory, path) = file_with(GOOD.as_bytes(), 0o644);
        // Whoever runs the tests may give a file away only as root; else it is not root's to begin with.
        let _ = chown(&path, Some(12_345), None);
        let warnings = load(&path).unwrap().warnings;
        assert!(warnings.iter().any(|w| w.to_string().contains("chown root")), "{warnings:?}");
    }

    #[test]
    fn what_is_no_text_file_is_refused_by_name() {
        let (directory, path) = file_with(b"a: 1\nb: \xff\n", 0o644);
        let error = |path: &Path| load(path).unwrap_err().to_string();
        assert!(error(&path).contains("line 2 is not UTF-8"), "{}", error(&path));
        assert!(error(directory.path()).contains("not a regular file"));
        assert!(error(&directory.path().join("none")).contains("cannot read the file"));
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(error(&fifo).contains("not a regular file"));
    }
}
