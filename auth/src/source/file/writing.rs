//! The record of files that are being written, whose content may look like a password and is
//! incomplete.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind};

use super::layout;
use super::watch_paths::interesting;
use crate::{SourceError, SourcePassword};

/// A writer that has changed nothing for this long and has not closed its file is taken to be done:
/// some keep their files open.
pub(super) const QUIET: Duration = Duration::from_secs(10);

/// A file that has changed a moment ago may have been read before inotify told of its writer.
const YOUNG: Duration = Duration::from_millis(200);
/// Time that inotify is given to report a writer.
const TOLD: Duration = Duration::from_millis(50);

/// Limit of files that are remembered; those beyond are read as if they were complete.
const MAX_OPEN: usize = 1024;

/// The files that inotify reports as being written. Clones share the record.
#[derive(Clone, Debug, Default)]
pub(super) struct Writing(Arc<Mutex<HashMap<PathBuf, Instant>>>);

impl Writing {
    /// Records an event of inotify: written data marks the file as being written; closing, renaming
    /// or removing it ends that. Other events are ignored.
    pub(super) fn see(&self, event: &Event) {
        let mut open = self.open();
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                open.retain(|_, last| last.elapsed() < QUIET);
                for path in event.paths.iter().take(MAX_OPEN - open.len().min(MAX_OPEN)) {
                    open.insert(path.clone(), Instant::now());
                }
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => {
                for path in &event.paths {
                    open.remove(path);
                }
            }
            _ => {}
        }
    }

    /// Whether a file that `path` leads to is being written now.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let open = self.open();
        if open.is_empty() {
            return false;
        }
        let real = interesting(path).into_iter().filter_map(|path| fs::canonicalize(path).ok());
        let is_open = |path: PathBuf| open.get(&path).is_some_and(|last| last.elapsed() < QUIET);
        real.into_iter().any(is_open)
    }

    /// Reads the password of `user` from the file or directory at `path`, unless it is being
    /// written. Blocks for 50 ms when it has just changed.
    pub(super) fn answer(&self, path: &Path, user: &str) -> Result<SourcePassword, SourceError> {
        let unfinished = || SourceError::HalfWritten {
            location: path.display().to_string().into(),
            cause: "somebody is writing it",
        };
        if self.covers(path) {
            return Err(unfinished());
        }
        let answer = layout::answer(path, user)?;
        if is_young(path) {
            thread::sleep(TOLD);
            if self.covers(path) || layout::answer(path, user)? != answer {
                return Err(unfinished());
            }
        }
        Ok(answer)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether something of it has just changed.
fn is_young(path: &Path) -> bool {
    let age = |path: PathBuf| fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
    interesting(path).into_iter().filter_map(age).any(|age| age < YOUNG)
}
