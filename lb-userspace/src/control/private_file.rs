//! Files of the daemon's own: for its user alone, and always whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, IntoInnerError, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Puts a text in a file's place: written aside (with `.new` after its name), synced, renamed. Mode 0600.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    replace_with(path, |file| file.write_all(text.as_bytes())).map(drop)
}

/// The same with what `write` writes, which need not be in memory at once. Returns its length, bytes.
pub(super) fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<u64> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = BufWriter::with_capacity(1 << 16, open(aside.as_ref())?);
    write(&mut file)?;
    let file = file.into_inner().map_err(IntoInnerError::into_error)?;
    file.sync_data()?;
    let length = file.metadata()?.len();
    fs::rename(&aside, path)?;
    Ok(length)
}

/// An empty file, in place of what it held; never through a symbolic link. Mode 0600.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}
