//! The token of the dashboard, and the file it is in.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq as _;

/// Least length, characters: what `openssl rand -hex 8` makes.
const SHORTEST: usize = 16;
/// Greatest length of the file, bytes.
const LONGEST: u64 = 1_024;

/// What whoever looks at the dashboard has to know.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Tokens do not belong into logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a file holds no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The kernel says no.
    #[error("cannot read {}: {source}; make one with `(umask 077; openssl rand -hex 32 > {})`", path.display(), path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A directory, a device or the like.
    #[error("{} is not a regular file; name the file that holds the token", .0.display())]
    NotAFile(PathBuf),
    /// Others may read or change it.
    #[error("others may read or change {} (mode {mode:04o}, owner {owner}); `chown {user} FILE` and `chmod 600 FILE`, and take another token if somebody may have seen this one", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Who should own it.
        user: u32,
    },
    /// Empty, short, or not one word of printable ASCII.
    #[error("{} does not hold a token: one line of {SHORTEST} to {LONGEST} letters, digits and signs; make one with `openssl rand -hex 32`", .0.display())]
    Content(PathBuf),
}

impl Token {
    /// Reads a file that only its owner, root or the daemon's user, may read.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let cannot = |source| TokenError::Read { path: path.to_owned(), source };
        // Not blocking: opening a FIFO would wait for a writer.
        let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = options.map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(TokenError::NotAFile(path.to_owned()));
        }
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        let user = nix::unistd::geteuid().as_raw();
        if mode & 0o177 != 0 || ![0, user].contains(&owner) {
            return Err(TokenError::Open { path: path.to_owned(), mode, owner, user });
        }
        let mut text = String::new();
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(cannot)?;
        Self::parse(&text).ok_or_else(|| TokenError::Content(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let token = text.trim();
        let valid = (SHORTEST..=LONGEST as usize).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then(|| Self(token.to_owned()))
    }

    /// Whether the value of an `Authorization` header shows this token. How much of it is right does not show in the time.
    pub fn is_shown_by(&self, authorization: &[u8]) -> bool {
        let Some((scheme, shown)) = authorization.split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(self.0.as_bytes().ct_eq(shown))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const GOOD: &str = "0123456789abcdef";

    #[test]
    fn only_a_private_file_with_one_word_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let read = |text: &[u8], mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let result = Token::read(&path).map_err(|error| error.to_string());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            result
        };
        for mode in [0o600, 0o400] {
            assert_eq!(read(format!("{GOOD}\n").as_bytes(), mode), Ok(Token(GOOD.into())));
        }
        for mode in [0o640, 0o604, 0o644, 0o700, 0o660] {
            let error = read(GOOD.as_bytes(), mode).unwrap_err();
            assert!(error.contains("chmod 600"), "{mode:o}: {error}");
        }
        for text in [
            "",
            "\n",
            "short",
            "two words of a token",
            "täglich-ein-token",
            "a\u{7}bcdefghijklmnopq",
        ] {
            let error = read(text.as_bytes(), 0o600).unwrap_err();
            assert!(error.contains("openssl rand"), "{text:?}: {error}");
        }
        read(&[b'a'; 5_000], 0o600).unwrap_err();
        read(b"\xff\xfe0123456789abcdef", 0o600).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(Token::read(&path).unwrap_err().to_string().contains("umask 077"));
        assert!(matches!(Token::read(directory.path()), Err(TokenError::NotAFile(_))));
    }

    #[test]
    fn the_whole_token_has_to_be_shown() {
        let token = Token(GOOD.into());
        assert!(token.is_shown_by(b"Bearer 0123456789abcdef"));
        assert!(token.is_shown_by(b"bearer 0123456789abcdef"));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            GOOD,
        ] {
            assert!(!token.is_shown_by(bad.as_bytes()), "{bad}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }
}
