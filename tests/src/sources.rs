//! The repository's own files, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

/// The path of the repository, in a form without `..`, so that a test may leave out files by the
/// folders that they are in.
///
/// # Panics
/// Never: this crate is in a folder of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// The Rust files in these folders of the repository, and below them.
///
/// # Panics
/// When a folder does not exist.
#[must_use]
pub fn sources(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}
