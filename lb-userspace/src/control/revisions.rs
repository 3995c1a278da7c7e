//! The history of configurations: each text that was in force, with when, by whom and what it changed. One file a revision
//! in the state directory, so that a crash can spoil none of the others; bounded in number and bytes; outlives reboots.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::private_file;

/// Directory in the state directory.
const DIRECTORY: &str = "revisions";
/// Revisions that are kept.
pub const KEPT: usize = 100;
/// Bytes of text that are kept, unless the last two alone are longer.
pub const KEPT_BYTES: u64 = 32 << 20;

/// A revision without its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub number: u64,
    /// When, milliseconds of Unix time.
    pub unix_milliseconds: u64,
    /// Who wanted it, or why it came.
    pub cause: String,
    /// SHA-256 of the text.
    pub hash: String,
    /// Length of the text.
    pub bytes: u64,
    /// What it changed.
    pub summary: Vec<String>,
    /// Found in the file when that was replaced, and never in force.
    pub replaced: bool,
}

/// A file's content.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    record: Record,
    text: String,
}

/// All that is known.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// By number, the oldest first.
    records: Vec<Record>,
}

/// SHA-256 of a text, hexadecimal.
pub fn hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    /// Reads what is there. What cannot be read is left alone, with a warning: a history is no reason not to forward.
    pub fn open(state_dir: &Path) -> Self {
        let directory = state_dir.join(DIRECTORY);
        let mut records = Vec::new();
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(number) = number_of(&path) else { continue };
            match read(&path) {
                Ok(stored) if stored.record.number == number => records.push(stored.record),
                Ok(_) => tracing::warn!(path = %path.display(), "a revision has another's name"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a revision cannot be read");
                }
            }
        }
        records.sort_by_key(|record: &Record| record.number);
        Self { directory, records }
    }

    /// All, the oldest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The highest number so far; 0 = none.
    pub fn last(&self) -> u64 {
        self.records.last().map_or(0, |record| record.number)
    }

    /// One of them.
    pub fn record(&self, number: u64) -> Option<&Record> {
        self.records.iter().find(|record| record.number == number)
    }

    /// The one that was in force before `number`, with another text.
    pub fn before(&self, number: u64) -> Option<&Record> {
        let hash = &self.record(number)?.hash;
        let mut earlier = self.records.iter().rev().filter(|record| record.number < number);
        earlier.find(|record| !record.replaced && record.hash != *hash)
    }

    /// The text of one of them.
    pub fn text(&self, number: u64) -> io::Result<String> {
        let stored = read(&self.path(number))?;
        match hash(&stored.text) == stored.record.hash {
            true => Ok(stored.text),
            false => Err(io::Error::other("its text is not what it was")),
        }
    }

    /// Writes one down, whole or not at all, and forgets the oldest ones.
    pub fn add(&mut self, record: Record, text: &str) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.path(record.number);
        let stored = Stored { record, text: text.to_owned() };
        let written = serde_json::to_string(&stored).map_err(io::Error::other)?;
        private_file::replace(&path, &written)?;
        fs::File::open(&self.directory)?.sync_all()?;
        self.records.retain(|known| known.number != stored.record.number);
        self.records.push(stored.record);
        self.records.sort_by_key(|record| record.number);
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        let bytes = |records: &[Record]| records.iter().map(|record| record.bytes).sum::<u64>();
        while self.records.len() > KEPT
            || (self.records.len() > 2 && bytes(&self.records) > KEPT_BYTES)
        {
            let oldest = self.records.remove(0);
            if let Err(error) = fs::remove_file(self.path(oldest.number)) {
                tracing::warn!(number = oldest.number, %error, "an old revision stays");
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:010}.json"))
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

fn read(path: &Path) -> io::Result<Stored> {
    serde_json::from_str(&fs::read_to_string(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn record(number: u64, text: &str) -> Record {
        Record { number, hash: hash(text), bytes: text.len() as u64, ..Record::default() }
    }

    fn add(store: &mut Store, number: u64, text: &str) {
        store.add(record(number, text), text).unwrap();
    }

    #[test]
    fn a_hash_is_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hash(""), empty);
    }

    #[test]
    fn revisions_outlive_the_daemon_and_are_nobody_elses_to_read() {
        let state = tempfile::tempdir().unwrap();
        let mut store = Store::open(state.path());
        assert_eq!((store.last(), store.records().len()), (0, 0));
        add(&mut store, 1, "a: 1\n");
        add(&mut store, 2, "a: 2\n");
        add(&mut store, 3, "a: 2\n");
        let again = Store::open(state.path());
        assert_eq!(again.records(), store.records());
        assert_eq!(again.text(2).unwrap(), "a: 2\n");
        // Back from 3 is not 2: that is the same text.
        assert_eq!(again.before(3).unwrap().number, 1);
        assert_eq!(again.before(1), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&again.directory), 0o700);
        assert_eq!(mode(&again.path(1)), 0o600);
    }

    #[test]
    fn damage_to_one_is_no_damage_to_others() {
        let state = tempfile::tempdir().unwrap();
        let mut store = Store::open(state.path());
        (1..=3).for_each(|number| add(&mut store, number, "text"));
        fs::write(store.path(2), "{").unwrap();
        fs::write(store.path(3).with_extension("new"), "{").unwrap();
        let changed = fs::read_to_string(store.path(3)).unwrap().replace("\"text\"", "\"evil\"");
        fs::write(store.path(3), changed.replace("\"evil\":", "\"text\":")).unwrap();
        let again = Store::open(state.path());
        let numbers: Vec<u64> = again.records().iter().map(|record| record.number).collect();
        assert_eq!(numbers, [1, 3]);
        assert_eq!(again.text(1).unwrap(), "text");
        assert!(again.text(3).is_err(), "a text that was changed behind our back");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let mut store = Store::open(state.path());
        let long = "x".repeat(KEPT_BYTES as usize / 2);
        add(&mut store, 1, &long);
        add(&mut store, 2, &long);
        add(&mut store, 3, "short");
        assert_eq!(store.records()[0].number, 2);
        for number in 4..KEPT as u64 + 10 {
            add(&mut store, number, "short");
        }
        assert_eq!((store.records().len(), store.records()[0].number), (KEPT, 10));
        let files = fs::read_dir(&store.directory).unwrap().count();
        assert_eq!(files, KEPT);
    }
}
