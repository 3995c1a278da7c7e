//! Making the socket: nobody may open it before its mode is right, and nothing but a dead socket is ever replaced.
//!
//! It is bound in a new directory that only we may enter, gets its mode and group there, and is then renamed to its
//! name. The process's umask plays no part (it belongs to all threads), and there is no moment without a socket when a
//! dead one is replaced.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use super::ServeError;

/// The socket's name, to be removed when the server ends.
pub struct Bound {
    path: PathBuf,
    /// Device and inode; another daemon's socket under our name is left alone.
    identity: (u64, u64),
}

impl Bound {
    /// Removes the socket if it is still ours. May be called again.
    pub fn unlink(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket cannot be removed");
        }
    }
}

/// Makes `path` a listening socket, non-blocking, with mode 0600, or 0660 and `group`.
pub fn bind(path: &Path, group: Option<&str>) -> Result<(Bound, UnixListener), ServeError> {
    let group = group.map(group_id).transpose()?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    prepare_directory(directory, group)?;
    refuse_living(path)?;

    let private = directory.join(format!(".lb{}", std::process::id()));
    remove_private(&private);
    fs::DirBuilder::new().mode(0o700).create(&private).map_err(io("create", &private))?;
    let result = bind_in(&private, path, group);
    remove_private(&private);
    result
}

fn bind_in(
    private: &Path,
    path: &Path,
    group: Option<u32>,
) -> Result<(Bound, UnixListener), ServeError> {
    let aside = private.join("s");
    let listener = UnixListener::bind(&aside).map_err(io("make a socket at", &aside))?;
    listener.set_nonblocking(true).map_err(io("set up", &aside))?;
    if let Some(group) = group {
        std::os::unix::fs::lchown(&aside, None, Some(group))
            .map_err(io("give to the group", &aside))?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode))
        .map_err(io("set the mode of", &aside))?;
    let made = fs::symlink_metadata(&aside).map_err(io("look at", &aside))?;
    fs::rename(&aside, path).map_err(io("put the socket at", path))?;
    Ok((Bound { path: path.to_owned(), identity: (made.dev(), made.ino()) }, listener))
}

/// Makes the directory (0750). One that everybody may write to is refused, unless its sticky bit protects what is in
/// it.
fn prepare_directory(directory: &Path, group: Option<u32>) -> Result<(), ServeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(io("create", directory))?;
    let found = fs::metadata(directory).map_err(io("look at", directory))?;
    if found.mode() & 0o1002 == 0o002 {
        return Err(ServeError::OpenDirectory(directory.to_owned()));
    }
    // The group must get through the directory. Its group is changed only where that gives nobody more than that.
    let ours = found.uid() == nix::unistd::geteuid().as_raw();
    let closed = found.mode() & 0o031 == 0o010;
    if let Some(group) = group
        && ours
        && closed
        && found.gid() != group
    {
        std::os::unix::fs::chown(directory, None, Some(group))
            .map_err(io("give to the group", directory))?;
    }
    Ok(())
}

/// An error unless `path` is free or a socket on which nobody answers.
fn refuse_living(path: &Path) -> Result<(), ServeError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at", path)(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ServeError::Running(path.to_owned())),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(io("find out whether a daemon answers on", path)(error)),
    }
}

fn group_id(name: &str) -> Result<u32, ServeError> {
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(ServeError::NoGroup(name.to_owned())),
        Err(error) => Err(io("look up the socket_group in", Path::new("/etc/group"))(error.into())),
    }
}

/// What a start that was killed may have left.
fn remove_private(private: &Path) {
    // Nothing to remove is the rule; anything worse shows when the directory is created.
    let _ = fs::remove_file(private.join("s"));
    let _ = fs::remove_dir(private);
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_open_it_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lb.sock");
        let (bound, _listener) = bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let directory = path.parent().unwrap();
        assert_eq!(fs::metadata(directory).unwrap().mode() & 0o027, 0);
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "something was left beside it");
        bound.unlink();
        assert!(!path.exists());
    }

    #[test]
    fn a_group_gets_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lb.sock");
        let gid = nix::unistd::getegid();
        let group = nix::unistd::Group::from_gid(gid).unwrap().expect("our own group has a name");
        bind(&path, Some(&group.name)).unwrap();
        let socket = fs::metadata(&path).unwrap();
        assert_eq!((socket.mode() & 0o7777, socket.gid()), (0o660, gid.as_raw()));
        let Err(ServeError::NoGroup(name)) = bind(&path, Some("no-such-group")) else {
            panic!("accepted");
        };
        assert_eq!(name, "no-such-group");
    }

    #[test]
    fn a_dead_socket_is_replaced_a_living_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.sock");
        let (_, first) = bind(&path, None).unwrap();
        assert!(matches!(bind(&path, None), Err(ServeError::Running(_))));
        drop(first);
        let (bound, second) = bind(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(second);
        bound.unlink();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, None), Err(ServeError::NotASocket(_))));
        fs::remove_file(&path).unwrap();
        fs::write(dir.path().join("elsewhere"), "precious").unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(bind(&path, None), Err(ServeError::NotASocket(_))));
        assert_eq!(fs::read(dir.path().join("elsewhere")).unwrap(), b"precious");
    }

    #[test]
    fn another_daemons_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.sock");
        let (old, listener) = bind(&path, None).unwrap();
        drop(listener);
        let (_new, _listener) = bind(&path, None).unwrap();
        old.unlink();
        assert!(path.exists());
    }

    #[test]
    fn a_directory_open_to_everybody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(bind(&open.join("s"), None), Err(ServeError::OpenDirectory(_))));
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        bind(&open.join("s"), None).unwrap();
    }
}
