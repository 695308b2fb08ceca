//! Passwords in files, as Kubernetes, CloudNativePG, the Secrets Store CSI driver or a person
//! writes them. Files are read anew at each fetch and watched for changes.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::{BoxFuture, Source};
use crate::{SourceError, SourcePassword};

mod layout;
mod read;
mod watch_paths;
mod watcher;
mod writing;

pub(super) use self::read::read_secret;
pub(super) use self::watcher::Watcher;
use self::writing::Writing;

/// A file, or a directory of files, with one user's password.
#[derive(Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    user: Box<str>,
    changes: watch::Receiver<u64>,
    writing: Writing,
}

impl FileSource {
    /// Makes the source of the password of `user` at `path`, and begins to follow the path.
    pub(super) fn new(path: &Path, user: &str, watcher: &Watcher) -> Self {
        // What is relative is so to where pgimbal was started, wherever it may go.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let changes = watcher.follow(path.clone());
        Self { path, user: user.into(), changes, writing: watcher.writing() }
    }
}

impl Source for FileSource {
    fn fetch(&self) -> BoxFuture<'_, Result<SourcePassword, SourceError>> {
        let (path, user) = (self.path.clone(), self.user.clone());
        let writing = self.writing.clone();
        Box::pin(async move {
            let location = path.display().to_string();
            // A network file system may hang.
            let read = tokio::task::spawn_blocking(move || writing.answer(&path, &user));
            let broken = |_| SourceError::Unreadable {
                location: location.into(),
                cause: "pgimbal is shutting down".into(),
            };
            read.await.map_err(broken)?
        })
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.clone())
    }

    fn kind(&self) -> &'static str {
        "file"
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }
}
