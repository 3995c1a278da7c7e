//! Reads directories of files of backends, at every change that the kernel tells of, and every [`EVERY`] for those it does
//! not tell of: a directory that comes later, one on a network file system, lost events.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, task::AbortHandle};

use super::Scan;
use crate::config::list;

/// Files of one directory that are read.
const MOST_FILES: usize = 10_000;
/// How often a directory is looked at in any case.
const EVERY: Duration = Duration::from_secs(2);
/// A file that is being written is read when its directory has been quiet for this long, or after [`EVERY`].
const QUIET: Duration = Duration::from_millis(50);

/// What a look has found.
#[derive(Debug)]
pub struct Seen {
    /// The directory.
    pub directory: PathBuf,
    /// What is in it.
    pub scan: Scan,
}

/// Reads all files of backends that are in a directory.
pub fn scan(directory: &Path) -> Scan {
    let entries = fs::read_dir(directory).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if !is_list(&path) {
            continue;
        }
        if found.len() >= MOST_FILES {
            return Err(format!(
                "more than {MOST_FILES} files are in it: put several backends into one"
            ));
        }
        match list::read(&path) {
            Ok(text) => drop(found.insert(path, Ok(text))),
            // Gone since the directory was read.
            Err(_) if fs::symlink_metadata(&path).is_err() => {}
            Err(errors) => drop(found.insert(path, Err(errors.to_string()))),
        }
    }
    Ok(found)
}

/// Whether a file is one of ours by its name: hidden ones are what editors and tools have not finished.
fn is_list(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The tasks that look.
#[derive(Debug)]
pub struct Watch {
    seen: mpsc::UnboundedSender<Seen>,
    tasks: BTreeMap<PathBuf, AbortHandle>,
}

impl Watch {
    /// Without directories yet.
    pub fn new(seen: mpsc::UnboundedSender<Seen>) -> Self {
        Self { seen, tasks: BTreeMap::new() }
    }

    /// Looks at these directories from now on, and no others.
    pub fn follow<'a>(&mut self, directories: impl Iterator<Item = &'a Path> + Clone) {
        self.tasks.retain(|known, task| {
            let keep = directories.clone().any(|wanted| wanted == known);
            if !keep {
                task.abort();
            }
            keep
        });
        for directory in directories {
            if !self.tasks.contains_key(directory) {
                let task = tokio::spawn(look_for_ever(directory.to_owned(), self.seen.clone()));
                self.tasks.insert(directory.to_owned(), task.abort_handle());
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

async fn look_for_ever(directory: PathBuf, seen: mpsc::UnboundedSender<Seen>) {
    let (touched, mut changes) = mpsc::channel(1);
    let mut watcher = None;
    let mut last = None;
    loop {
        // A directory that was removed and made anew is another one: whoever watches the old one hears nothing.
        let inode = inode(&directory);
        if watcher.as_ref().is_none_or(|(_, watched)| *watched != inode) {
            watcher = inode.and_then(|_| Some((watch(&directory, touched.clone())?, inode)));
        }
        let path = directory.clone();
        let Ok(scan) = tokio::task::spawn_blocking(move || scan(&path)).await else { return };
        if last.as_ref() != Some(&scan) {
            last = Some(scan.clone());
            if seen.send(Seen { directory: directory.clone(), scan }).is_err() {
                return;
            }
        }
        let told = tokio::time::timeout(EVERY, changes.recv()).await.is_ok();
        if told {
            let quiet =
                async { while tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {} };
            // Somebody may write all the time.
            let _ = tokio::time::timeout(EVERY, quiet).await;
        }
    }
}

fn inode(directory: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(directory).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn watch(directory: &Path, touched: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let only_read = event.is_ok_and(|event| matches!(event.kind, notify::EventKind::Access(_)));
        if !only_read {
            // Full: it is known already that something has changed.
            let _ = touched.try_send(());
        }
    })
    .ok()?;
    watcher.watch(directory, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_finished_lists_are_read_and_what_cannot_be_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in
            ["a.yaml", "b.yml", "c.json", ".d.yaml", "e.yaml~", "f.txt", "g.yaml.new", "open.yaml"]
        {
            fs::write(path(name), "[]").unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(path("open.yaml"), fs::Permissions::from_mode(0o646)).unwrap();
        fs::write(path("latin.yaml"), b"\xff").unwrap();
        let found = scan(directory.path()).unwrap();
        let good = found.iter().filter(|(_, text)| text.is_ok());
        let good: Vec<_> =
            good.map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(good, ["a.yaml", "b.yml", "c.json"]);
        let wrong = |name: &str| found[&path(name)].clone().unwrap_err();
        assert!(wrong("open.yaml").contains("chmod o-w"), "{}", wrong("open.yaml"));
        assert!(wrong("latin.yaml").contains("line 1 is not UTF-8"), "{}", wrong("latin.yaml"));
        assert!(scan(&path("none")).is_err());
    }
}
