//! The directories to watch for changes of what a path leads to.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::layout::NAMES;

/// Linux follows at most 40 links in a path.
const MAX_LINKS: usize = 40;

/// The path itself, and if it is a directory, the files that may be in it.
pub(super) fn interesting(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        found.extend(NAMES.iter().map(|name| path.join(name)));
    }
    found
}

/// The directories in which a change can change what `path` leads to: where it is, where the
/// links on the way are and lead to, and where a part of it is yet to appear.
pub(super) fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in interesting(path) {
        let mut left = Some(path);
        for _ in 0..MAX_LINKS {
            let Some(path) = left.take() else { break };
            left = walk(&path, &mut found);
        }
    }
    found
}

/// Walks to the end of `path`, or to the first link in it: then what it leads to comes back.
fn walk(path: &Path, found: &mut BTreeSet<PathBuf>) -> Option<PathBuf> {
    let mut at = PathBuf::from("/");
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        if part == Component::RootDir {
            continue;
        }
        let next = at.join(part);
        match fs::symlink_metadata(&next) {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&next).ok().map(|target| at.join(target));
                found.insert(at);
                return target.map(|target| target.join(parts.as_path()));
            }
            Ok(metadata) if metadata.is_dir() => at = next,
            // A file, or nothing yet.
            _ => break,
        }
    }
    found.insert(at);
    None
}

/// The metadata of a path and of the files in it, by which a change is noticed.
#[derive(PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<Result<[i64; 7], io::ErrorKind>>);

impl Fingerprint {
    /// Reads the metadata of `path` and of the files that may be in it now.
    pub(super) fn of(path: &Path) -> Self {
        let look = |path: &PathBuf| fs::metadata(path).map_err(|error| error.kind());
        Self(interesting(path).iter().map(|path| look(path).map(|found| stamp(&found))).collect())
    }
}

fn stamp(metadata: &Metadata) -> [i64; 7] {
    [
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}
