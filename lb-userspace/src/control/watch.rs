//! Watches the configuration file. The directory is what is watched: editors and `mv` replace the file.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::Event;

/// The cause of a reload that nobody has asked for.
pub(super) const CHANGED: &str = "the file has changed";
/// A file that is being written is read when it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(50);

/// Sends [`Event::Reload`] after each change of `path`, while the returned watcher lives.
pub(super) fn watch(
    path: &Path,
    events: mpsc::UnboundedSender<Event>,
) -> anyhow::Result<notify::RecommendedWatcher> {
    let path = path.canonicalize().with_context(|| format!("cannot watch {}", path.display()))?;
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let (touched, mut changes) = mpsc::unbounded_channel();
    let name = path.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if matches!(event.kind, notify::EventKind::Access(_)) {
            return;
        }
        if event.paths.iter().any(|changed| changed.file_name() == name.as_deref()) {
            // Fails only when the controller has ended.
            let _ = touched.send(());
        }
    })?;
    watcher
        .watch(&directory, RecursiveMode::NonRecursive)
        .with_context(|| format!("cannot watch {}", directory.display()))?;
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {}
            if events.send(Event::Reload(CHANGED)).is_err() {
                return;
            }
        }
    });
    Ok(watcher)
}
