//! One daemon per run directory (fault-cases F43).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

/// Held while the daemon lives; the kernel gives it back however the daemon ends.
pub struct Lock(#[expect(dead_code, reason = "held, not used")] Flock<File>);

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("lb is already running (pid {pid}) with the run directory {}; stop it, or give this one its own --run-dir, --pin-dir and NIC", run_dir.display())]
    Running {
        /// Its process id, or `?`.
        pid: String,
        /// The run directory.
        run_dir: PathBuf,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of `run_dir`, which is made (0750) if it does not exist.
    pub fn acquire(run_dir: &Path) -> Result<Self, LockError> {
        let path = run_dir.join("lb.lock");
        let fail = |source| LockError::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o750).create(run_dir).map_err(fail)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(fail)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0).map_err(fail)?;
                lock.rewind().map_err(fail)?;
                write!(*lock, "{}", std::process::id()).map_err(fail)?;
                Ok(Self(lock))
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                if file.read_to_string(&mut pid).is_err() || pid.is_empty() {
                    pid = "?".to_owned();
                }
                Err(LockError::Running { pid, run_dir: run_dir.to_owned() })
            }
            Err((_, errno)) => Err(fail(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_runs() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::acquire(dir.path()).unwrap();
        let Err(LockError::Running { pid, .. }) = Lock::acquire(dir.path()) else {
            panic!("the lock was given twice");
        };
        assert_eq!(pid, std::process::id().to_string());
        drop(first);
        Lock::acquire(dir.path()).unwrap();
    }
}
