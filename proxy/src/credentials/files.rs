//! Which files of `state_dir` keep the history and the passwords, and what they hold at a start.

use std::path::{Path, PathBuf};

use pgimbal_auth::rotation::{HistoryDocument, PasswordCache, Unreadable};
use tracing::error;

use crate::state_dir::{read, set_aside};

const HISTORY: &str = "credentials.json";
const PASSWORDS: &str = "passwords.json";

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
            let kept = set_aside(path, &aside).is_ok();
            let kept =
                if kept { format!("; it is now {}", aside.display()) } else { String::new() };
            error!("{}: {cause}; it is not used{kept}", path.display());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state_dir::write;

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
