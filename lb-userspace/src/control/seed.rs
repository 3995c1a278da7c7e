//! The seed of the flow hash: generated once into a 0600 file that the nodes of a cluster share. Only its fingerprint
//! is ever shown.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use lb_common::hash::{HashKeys, expand_seed};
use rand::RngCore as _;

/// File name in the state directory.
const FILE: &str = "seed";

/// The cluster's secret.
pub struct Seed([u8; 32]);

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Reading or writing failed.
    #[error("cannot {verb} the hash seed {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Anybody but the owner may read it.
    #[error("the hash seed {} has mode {mode:04o}: whoever reads it can aim flows at one backend; run `chmod 600 {}`", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold 64 hexadecimal digits.
    #[error("the hash seed {} does not hold 64 hexadecimal digits: copy it again from another node, or remove it and all nodes of the cluster need the new one", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl Seed {
    /// Reads the seed of `state_dir`, or makes one.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, SeedError> {
        let path = state_dir.join(FILE);
        let fail = |verb| {
            let path = path.clone();
            move |source| SeedError::Io { verb, path, source }
        };
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Ok(mut file) => {
                let mode = file.metadata().map_err(fail("read"))?.mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(SeedError::Mode { path, mode });
                }
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(fail("read"))?;
                parse(text.trim()).map(Self).ok_or(SeedError::Content { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(state_dir)
                    .map_err(fail("make the directory of"))?;
                let mut seed = [0u8; 32];
                rand::rng().fill_bytes(&mut seed);
                write(&path, &seed).map_err(fail("write"))?;
                tracing::info!(path = %path.display(), "generated the hash seed; nodes of a cluster need the same file");
                Ok(Self(seed))
            }
            Err(source) => Err(fail("open")(source)),
        }
    }

    /// Keys of the flow hash.
    pub fn keys(&self) -> HashKeys {
        expand_seed(&self.0)
    }

    /// What may be shown: equal on nodes that share the seed. One-way: 32 bits of keys that no packet is hashed with.
    pub fn fingerprint(&self) -> String {
        let mut salted = self.0;
        for byte in &mut salted {
            *byte ^= 0x5c;
        }
        let keys = expand_seed(&salted);
        let folded = keys.iter().fold(0u64, |sum, key| sum.rotate_left(7).wrapping_add(*key));
        format!("{:08x}", (folded ^ (folded >> 32)) as u32)
    }
}

/// Complete or not there: written aside, synced, renamed.
fn write(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&aside)?;
    let text: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let mut seed = [0u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn is_made_once_and_kept_secret() {
        let dir = tempfile::tempdir().unwrap();
        let first = Seed::load_or_create(dir.path()).unwrap();
        let second = Seed::load_or_create(dir.path()).unwrap();
        assert_eq!(first.keys(), second.keys());
        assert_eq!(first.fingerprint(), second.fingerprint());
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Seed::load_or_create(dir.path()),
            Err(SeedError::Mode { mode: 0o640, .. })
        ));
    }

    #[test]
    fn damaged_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "00", &"zz".repeat(32), &"é".repeat(32)] {
            fs::write(dir.path().join(FILE), text).unwrap();
            fs::set_permissions(dir.path().join(FILE), fs::Permissions::from_mode(0o600)).unwrap();
            assert!(
                matches!(Seed::load_or_create(dir.path()), Err(SeedError::Content { .. })),
                "{text:?}"
            );
        }
    }
}
