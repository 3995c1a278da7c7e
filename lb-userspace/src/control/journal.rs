//! What has changed since state.json was written: lines in a file beside it, so that a change costs what it changes, not what
//! there is.
//!
//! The first line is the number of the whole state that the others go on from, each other one an [`Entry`] as JSON. Lines
//! of another number (a kill came between the new state.json and the new journal) and a last line that is torn (nobody was
//! told of it yet) count for nothing. A line that could not be written whole is cut off again. Each line says how
//! something is now, not what to add to it: where the disk has spoiled one, those after it are right all the same.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    private_file,
    state::{BackendState, ServiceState, State},
};
use crate::{api::types::Event, events::SAVED};

/// The file in the run directory.
pub const FILE: &str = "state.journal";

/// One change.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// All but services and events is now so.
    Head(Box<State>),
    /// A service is now so; its backends are as they were.
    Service {
        /// `address:port/protocol`
        key: String,
        /// Without backends.
        state: ServiceState,
    },
    /// A backend is now so; `None` = it is gone.
    Backend {
        /// `address:port/protocol`
        service: String,
        /// `address:port`
        key: String,
        /// Its state.
        state: Option<Box<BackendState>>,
    },
    /// Something has happened.
    Event(Event),
}

impl Entry {
    fn apply(self, state: &mut State) {
        match self {
            Self::Head(head) => {
                let services = std::mem::take(&mut state.services);
                let events = std::mem::take(&mut state.events);
                *state = State { services, events, journal: state.journal, ..*head };
            }
            Self::Service { key, state: new } => {
                let service = state.services.entry(key).or_default();
                let backends = std::mem::take(&mut service.backends);
                *service = ServiceState { backends, ..new };
            }
            Self::Backend { service, key, state: new } => {
                let backends = &mut state.services.entry(service).or_default().backends;
                match new {
                    Some(new) => drop(backends.insert(key, *new)),
                    None => drop(backends.remove(&key)),
                }
            }
            Self::Event(event) => state.events.push(event),
        }
    }
}

/// The journal of one whole state.
#[derive(Debug)]
pub struct Journal {
    file: File,
    length: u64,
}

impl Journal {
    /// Begins an empty one for the state with this number, in place of the one before.
    pub fn begin(run_dir: &Path, number: u64) -> io::Result<Self> {
        let mut journal = Self { file: private_file::open(&path(run_dir))?, length: 0 };
        journal.write(format!("{number}\n").as_bytes())?;
        Ok(journal)
    }

    /// Adds changes, all or none; `durable`: so that they outlive a power cut, too.
    pub fn append(&mut self, entries: &[Entry], durable: bool) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry).map_err(io::Error::other)?;
            lines.push(b'\n');
        }
        self.write(&lines)?;
        if durable { self.file.sync_data() } else { Ok(()) }
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all_at(bytes, self.length) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // If this fails, too, the rest is a torn line, which counts for nothing.
                let _ = self.file.set_len(self.length);
                Err(error)
            }
        }
    }
}

/// Takes into a whole state what its journal says.
pub fn replay(run_dir: &Path, state: &mut State) -> io::Result<()> {
    let text = match fs::read(path(run_dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut lines =
        text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let number = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse::<u64>().ok());
    if number != Some(state.journal) {
        return Ok(());
    }
    let (mut spoiled, mut whole, mut first) = (0, 0, None);
    for (number, line) in lines.enumerate() {
        whole += 1;
        match serde_json::from_slice::<Entry>(line) {
            Ok(entry) => entry.apply(state),
            Err(error) => {
                spoiled += 1;
                first.get_or_insert((number + 2, error));
            }
        }
    }
    state.damage = first.map(|(number, error)| {
        format!(
            "{}: {spoiled} of {whole} lines are damaged (the first is line {number}: {error}); what they changed of weights, \
             administrative states and health is lost: compare `lb status` with what was set",
            path(run_dir).display()
        )
    });
    let old = state.events.len().saturating_sub(SAVED);
    state.events.drain(..old);
    Ok(())
}

/// Removes it; nothing happens if there is none.
pub fn remove(run_dir: &Path) -> io::Result<()> {
    match fs::remove_file(path(run_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::plan::members::Admin;

    fn event(id: u64) -> Entry {
        Entry::Event(Event { id, ..Event::default() })
    }

    fn backend(name: &str, weight: Option<u16>) -> Entry {
        let state =
            BackendState { name: name.into(), admin: Admin::Drain, weight, ..Default::default() };
        Entry::Backend { service: "vip".into(), key: name.into(), state: Some(Box::new(state)) }
    }

    fn loaded(run_dir: &Path) -> State {
        State::load(run_dir).unwrap().unwrap()
    }

    #[test]
    fn changes_go_on_from_the_whole_state_with_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State { journal: 3, revision: 1, ..State::default() };
        state.save(dir.path()).unwrap();
        let mut journal = Journal::begin(dir.path(), 3).unwrap();
        let service = ServiceState { name: "web".into(), short: 1, ..ServiceState::default() };
        let gone = Entry::Backend { service: "vip".into(), key: "b".into(), state: None };
        let entries = [
            backend("a", Some(7)),
            backend("b", None),
            Entry::Service { key: "vip".into(), state: service.clone() },
            gone,
            event(9),
        ];
        journal.append(&entries, true).unwrap();
        let head = State { revision: 2, config_text: "text".into(), ..State::default() };
        journal.append(&[Entry::Head(Box::new(head))], false).unwrap();
        let found = loaded(dir.path());
        assert_eq!((found.revision, found.config_text.as_str(), found.journal), (2, "text", 3));
        let web = &found.services["vip"];
        assert_eq!((web.name.as_str(), web.short, web.backends.len()), ("web", 1, 1));
        assert_eq!((web.backends["a"].weight, web.backends["a"].admin), (Some(7), Admin::Drain));
        assert_eq!(found.events.iter().map(|event| event.id).collect::<Vec<_>>(), [9]);
        // A kill between the new state and its journal.
        state.journal = 4;
        state.save(dir.path()).unwrap();
        assert_eq!(loaded(dir.path()), state);
    }

    #[test]
    fn a_torn_line_counts_for_nothing_and_what_is_before_it_does() {
        let dir = tempfile::tempdir().unwrap();
        State { journal: 1, ..State::default() }.save(dir.path()).unwrap();
        let mut journal = Journal::begin(dir.path(), 1).unwrap();
        journal.append(&[event(1)], false).unwrap();
        let whole = journal.length() as usize;
        journal.append(&[event(2)], false).unwrap();
        let bytes = fs::read(dir.path().join(FILE)).unwrap();
        for length in 0..bytes.len() {
            fs::write(dir.path().join(FILE), &bytes[..length]).unwrap();
            let found = loaded(dir.path()).events.len();
            assert_eq!(found, usize::from(length >= whole), "{length} bytes");
        }
    }

    #[test]
    fn a_spoiled_line_is_told_and_costs_only_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        State { journal: 1, ..State::default() }.save(dir.path()).unwrap();
        let mut journal = Journal::begin(dir.path(), 1).unwrap();
        let entries = [backend("a", Some(1)), backend("b", Some(2)), backend("c", Some(3))];
        journal.append(&entries, true).unwrap();
        assert_eq!(loaded(dir.path()).damage, None);
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let spoiled = text.replace("\"weight\":2", "\"weight\":\0");
        assert_ne!(spoiled, text);
        fs::write(dir.path().join(FILE), spoiled).unwrap();
        let found = loaded(dir.path());
        let names: Vec<&String> = found.services["vip"].backends.keys().collect();
        assert_eq!(names, ["a", "c"]);
        let damage = found.damage.unwrap();
        assert!(damage.contains("1 of 3 lines are damaged (the first is line 3"), "{damage}");
    }

    /// What the daemon does in the order in which it does it, ended by a kill after any byte.
    #[test]
    fn a_kill_at_any_moment_leaves_what_was_written_last() {
        let mut random = StdRng::seed_from_u64(3);
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::default();
        for round in 0..12 {
            // A new whole state; a kill before its journal is begun leaves the one before, which is not of it.
            state.journal += 1;
            state.save(dir.path()).unwrap();
            assert_eq!(loaded(dir.path()), state, "round {round}: before the journal");
            let mut journal = Journal::begin(dir.path(), state.journal).unwrap();
            // Where each line ends, and what is so from there on.
            let mut ends = vec![(0, state.clone())];
            for _ in 0..random.random_range(0..12) {
                let entries: Vec<Entry> =
                    (0..random.random_range(1..4)).map(|_| any(&mut random)).collect();
                let mut end = journal.length();
                for entry in &entries {
                    end += serde_json::to_vec(entry).unwrap().len() as u64 + 1;
                    any_copy(entry).apply(&mut state);
                    ends.push((end, state.clone()));
                }
                journal.append(&entries, random.random()).unwrap();
                assert_eq!(journal.length(), end);
                // Before anybody is told.
                assert_eq!(loaded(dir.path()), state, "round {round}");
            }
            let bytes = fs::read(dir.path().join(FILE)).unwrap();
            let killed = tempfile::tempdir().unwrap();
            fs::copy(dir.path().join(super::super::state::FILE), killed.path().join("state.json"))
                .unwrap();
            // Around each line's end, and here and there in the lines.
            let near = |length: u64| ends.iter().any(|(end, _)| end.abs_diff(length) <= 2);
            for length in (0..=bytes.len()).filter(|at| near(*at as u64) || at % 37 == 0) {
                fs::write(killed.path().join(FILE), &bytes[..length]).unwrap();
                let (_, expected) = ends.iter().rfind(|(end, _)| *end <= length as u64).unwrap();
                assert_eq!(&loaded(killed.path()), expected, "round {round}: {length} bytes");
            }
        }
    }

    fn any(random: &mut StdRng) -> Entry {
        let key = format!("10.0.0.{}:80", random.random_range(0..4));
        let service = format!("192.0.2.{}:80/tcp", random.random_range(0..3));
        match random.random_range(0..10) {
            0 => {
                let revision = random.random_range(0..1000);
                let head = State { revision, config_text: "a\nb".into(), ..State::default() };
                Entry::Head(Box::new(head))
            }
            1 => event(random.random_range(1..100)),
            2 | 3 => Entry::Service {
                key: service,
                state: ServiceState { short: random.random_range(0..3), ..Default::default() },
            },
            4 => Entry::Backend { service, key, state: None },
            _ => {
                let state = BackendState {
                    name: "a \"name\"\n".into(),
                    weight: random.random::<bool>().then(|| random.random_range(0..=256)),
                    slow_start: random.random::<bool>().then(|| random.random()),
                    ..Default::default()
                };
                Entry::Backend { service, key, state: Some(Box::new(state)) }
            }
        }
    }

    fn any_copy(entry: &Entry) -> Entry {
        serde_json::from_slice(&serde_json::to_vec(entry).unwrap()).unwrap()
    }

    #[test]
    fn no_more_events_are_kept_than_a_whole_state_has() {
        let dir = tempfile::tempdir().unwrap();
        State::default().save(dir.path()).unwrap();
        let mut journal = Journal::begin(dir.path(), 0).unwrap();
        let entries: Vec<Entry> = (1..=SAVED as u64 + 5).map(event).collect();
        journal.append(&entries, false).unwrap();
        let events = loaded(dir.path()).events;
        assert_eq!((events.len(), events[0].id), (SAVED, 6));
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(loaded(dir.path()).events, []);
    }
}
