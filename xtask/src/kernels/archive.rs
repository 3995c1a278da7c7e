//! An initial file system in the shape that the kernel unpacks: cpio, "newc" (Documentation/driver-api/early-userspace).

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

/// An archive being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a directory and those above it.
    pub fn directory(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            if self.directories.insert(path[..end].to_owned()) {
                self.entry(&path[..end], 0o040_755, &[]);
            }
        }
    }

    /// Adds a file and the directories above it.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
        self.entry(path, 0o100_000 | permissions, contents);
    }

    /// Adds an executable file of this machine.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, 0o755, &contents);
        Ok(())
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let mut header = String::from("070701");
        // Number, mode, owner, group, links, time, length, device and special device (two halves each), length of the name, sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, contents.len() as u32, 0, 0, 0, 0];
        for field in fields.into_iter().chain([path.len() as u32 + 1, 0]) {
            let _ = write!(header, "{field:08x}");
        }
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.fill();
        self.bytes.extend(contents);
        self.fill();
    }

    /// Entries and their contents begin at multiples of four.
    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_their_files() {
        let mut archive = Archive::default();
        archive.file("a/b/one", 0o644, b"12345");
        archive.file("a/b/two", 0o755, b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.find(&format!("{name}\0")).expect(name);
        assert!(at("a") < at("a/b") && at("a/b") < at("a/b/one") && at("a/b/one") < at("a/b/two"));
        assert_eq!(text.matches("070701").count(), 5);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&text[at("a/b/one") - 110 + 6 + 48..][..8], "00000005", "{text}");
    }
}
