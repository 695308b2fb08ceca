//! A directory for a test's files, removed with it.

use std::fs;
use std::path::PathBuf;

pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Tests run side by side, each in a thread of its own.
    pub(crate) fn new(name: &str) -> Self {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let name = format!("pgimbal-{name}-{process}-{thread:?}");
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and tells where it is.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a temporary file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left behind lies in the temporary directory: nothing to act on.
        let _ = fs::remove_dir_all(&self.0);
    }
}
