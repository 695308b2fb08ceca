//! Files of `state_dir`: nobody else may read them, and each is whole at every instant.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pgimbal_auth::rotation::{HistoryDocument, PasswordCache, Unreadable};
use tracing::error;
use zeroize::Zeroizing;

const HISTORY: &str = "credentials.json";
const PASSWORDS: &str = "passwords.json";

/// More than a thousand users of many generations need; a larger file is something else.
const LARGEST: u64 = 64 << 20;

/// Where history and passwords are kept; either may be kept nowhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) history: Option<PathBuf>,
    pub(super) passwords: Option<PathBuf>,
}

impl Places {
    pub(super) fn new(state_dir: &Path, history: bool, passwords: bool) -> Self {
        Self {
            history: history.then(|| state_dir.join(HISTORY)),
            passwords: passwords.then(|| state_dir.join(PASSWORDS)),
        }
    }

    /// What was kept. What cannot be read is named and set aside: a start needs none of it.
    pub(super) fn load(&self) -> (HistoryDocument, PasswordCache) {
        let history = self.history.as_deref().and_then(|path| load(path, HistoryDocument::parse));
        let passwords = self.passwords.as_deref().and_then(|path| load(path, PasswordCache::parse));
        (history.unwrap_or_default(), passwords.unwrap_or_default())
    }
}

fn load<T>(path: &Path, parse: fn(&[u8]) -> Result<T, Unreadable>) -> Option<T> {
    let bytes = match read(path) {
        Ok(bytes) => bytes?,
        Err(cause) => {
            error!("{}: cannot be read and is not used: {cause}", path.display());
            return None;
        }
    };
    match parse(&bytes) {
        Ok(document) => Some(document),
        Err(cause) => {
            let aside = path.with_extension("json.refused");
            // It is to be looked at, and must not be written over.
            let kept = fs::rename(path, &aside).is_ok();
            let kept =
                if kept { format!("; it is now {}", aside.display()) } else { String::new() };
            error!("{}: {cause}; it is not used{kept}", path.display());
            None
        }
    }
}

/// What a file holds; nothing when there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause),
    };
    let size = file.metadata()?.len();
    if size > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any of ours"));
    }
    // Read into its final size: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 1));
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes a file whole or not at all, whenever the machine stops.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    if !directory.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let new = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pgimbal-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn rotation_11_a_file_is_closed_to_others_and_replaced_whole() {
        let scratch = Scratch::new("files");
        let path = scratch.0.join("deep/er/file.json");
        assert!(read(&path).expect("no file is no error").is_none());
        for text in ["one", "another that is longer", "x"] {
            write(&path, text.as_bytes()).expect("a file");
            let found = read(&path).expect("readable").expect("a file");
            assert_eq!(&**found, text.as_bytes());
            let mode = fs::metadata(&path).expect("the file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn rotation_11_a_broken_history_is_set_aside_and_stops_nothing() {
        let scratch = Scratch::new("broken");
        let places = Places::new(&scratch.0, true, true);
        for text in ["", "{", "{\"version\": 1}", "[1]", "\u{0}"] {
            write(places.history.as_deref().expect("a path"), text.as_bytes()).expect("a file");
            let (history, _) = places.load();
            assert!(history.users.is_empty());
            assert!(scratch.0.join("credentials.json.refused").exists(), "{text}");
            assert!(!scratch.0.join("credentials.json").exists(), "{text}");
        }
        let empty = HistoryDocument::new(Default::default()).to_bytes().expect("bytes");
        write(places.history.as_deref().expect("a path"), &empty).expect("a file");
        places.load();
        assert!(scratch.0.join("credentials.json").exists());
    }
}
