//! The password cache: the file of `state_dir` with the newest passwords in clear text, where the
//! operator wants it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_auth::rotation::{CachedPassword, PasswordCache, Unreadable};
use pgimbal_config::CredentialConfig;
use tokio::task::JoinSet;
use tracing::error;
use zeroize::Zeroizing;

use super::role::Role;
use crate::state_dir;

const PASSWORDS: &str = "passwords.json";

/// Pause after which a failed write is tried again, if nothing changes before.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The password cache, as read at the start and as written since. Writes run beside the
/// credentials' task, one at a time.
#[derive(Debug, Default)]
pub(super) struct CacheFile {
    /// The path; `None` when there is no cache.
    path: Option<PathBuf>,
    passwords: PasswordCache,
    is_changed: bool,
    /// What the file holds, or will hold when the running write succeeds.
    written: Zeroizing<Vec<u8>>,
    /// The running write; `true` when it has succeeded.
    writing: JoinSet<bool>,
    retry_at: Option<Instant>,
}

impl CacheFile {
    /// Reads the file in the configured `state_dir`. One that cannot be read is logged; one that
    /// cannot be parsed is logged and renamed to `*.json.refused`. In both cases pgimbal starts
    /// without it.
    pub(super) fn load(config: &CredentialConfig) -> Self {
        match &config.state_dir {
            Some(directory) if config.password_cache => Self::load_from(directory),
            _ => Self::default(),
        }
    }

    fn load_from(directory: &Path) -> Self {
        let path = directory.join(PASSWORDS);
        let passwords = load(&path).unwrap_or_default();
        Self { path: Some(path), passwords, ..Self::default() }
    }

    /// Names of the users in the cache, sorted.
    pub(super) fn users(&self) -> Vec<String> {
        self.passwords.roles.keys().cloned().collect()
    }

    /// The cached passwords of `user` as read or written last, the newest last; empty when there
    /// are none.
    pub(super) fn passwords(&self, user: &str) -> Vec<CachedPassword> {
        self.passwords.roles.get(user).cloned().unwrap_or_default()
    }

    /// Removes `user`, at the next [`Self::save`]; no effect when there is none.
    pub(super) fn forget(&mut self, user: &str) {
        self.is_changed |= self.passwords.roles.remove(user).is_some();
    }

    /// Marks the passwords as changed, so that the next [`Self::save`] writes them.
    pub(super) fn changed(&mut self) {
        self.is_changed = true;
    }

    /// Begins to write what has changed, unless a write runs; the caller then waits for
    /// [`Self::saved`]. The same content is not written again. Only users that are listed or served
    /// are added.
    pub(super) fn save(&mut self, roles: &BTreeMap<Arc<str>, Role>, now: Instant) {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.is_changed = true;
        }
        if !self.is_changed || !self.writing.is_empty() {
            return;
        }
        self.is_changed = false;
        self.retry_at = None;
        let Some(path) = self.path.clone() else { return };
        let mut known = std::mem::take(&mut self.passwords.roles);
        for (name, role) in roles.iter().filter(|(_, role)| role.is_kept()) {
            let passwords = role.passwords();
            if !passwords.is_empty() {
                known.insert(name.to_string(), passwords);
            }
        }
        self.passwords = PasswordCache::new(known);
        // Each part of it has a form in JSON.
        let Ok(bytes) = self.passwords.to_bytes() else { return };
        if bytes != self.written {
            self.written = bytes.clone();
            self.writing.spawn_blocking(move || write(&path, &bytes));
        }
    }

    /// Waits for the end of the running write; a failed one is tried again after 5 s. `None` when
    /// no write runs. Can be cancelled without loss.
    pub(super) async fn saved(&mut self) -> Option<()> {
        if !self.writing.join_next().await?.unwrap_or(false) {
            self.written = Zeroizing::default();
            self.retry_at = Some(Instant::now() + RETRY_PAUSE);
        }
        Some(())
    }

    /// The time at which [`Self::save`] must be called although nothing changes, because a write
    /// has failed; `None` otherwise.
    pub(super) const fn wake_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

fn load(path: &Path) -> Option<PasswordCache> {
    let bytes = match state_dir::read(path) {
        Ok(bytes) => bytes?,
        Err(cause) => {
            error!("{}: cannot be read and is not used: {cause}", path.display());
            return None;
        }
    };
    match PasswordCache::parse(&bytes) {
        Ok(cache) => Some(cache),
        Err(cause) => {
            refuse(path, &cause);
            None
        }
    }
}

fn refuse(path: &Path, cause: &Unreadable) {
    let refused = path.with_extension("json.refused");
    let kept = match state_dir::set_aside(path, &refused) {
        Ok(()) => format!("; it is now {}", refused.display()),
        Err(_) => String::new(),
    };
    error!("{}: {cause}; it is not used{kept}", path.display());
}

/// Writes the file. Returns false when it could not be written, which is logged.
fn write(path: &Path, bytes: &[u8]) -> bool {
    state_dir::write(path, bytes)
        .inspect_err(|cause| error!("{}: cannot be written: {cause}", path.display()))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state_dir::{read, write};

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
    fn rotation_11_a_broken_cache_is_set_aside_and_stops_nothing() {
        let scratch = Scratch::new("broken");
        let path = scratch.0.join(PASSWORDS);
        for text in ["", "{", "{\"version\": 1}", "[1]", "\u{0}"] {
            write(&path, text.as_bytes()).expect("a file");
            let file = CacheFile::load_from(&scratch.0);
            assert!(file.users().is_empty());
            assert!(scratch.0.join("passwords.json.refused").exists(), "{text}");
            assert!(!path.exists(), "{text}");
        }
        let empty = PasswordCache::new(BTreeMap::new()).to_bytes().expect("bytes");
        write(&path, &empty).expect("a file");
        CacheFile::load_from(&scratch.0);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn rotation_7_what_could_not_be_written_is_written_later() {
        let scratch = Scratch::new("memory");
        let place = scratch.0.join("state");
        // A file where the directory should be.
        fs::write(&place, "").expect("a file");
        let mut file = CacheFile::load_from(&place);
        file.changed();
        file.save(&BTreeMap::new(), Instant::now());
        file.saved().await.expect("a write");
        fs::remove_file(&place).expect("it is out of the way");
        let later = file.wake_at().expect("another try");
        file.save(&BTreeMap::new(), later);
        file.saved().await.expect("a write");
        assert!(place.join(PASSWORDS).exists(), "nothing has changed, and it is kept");
        assert_eq!(file.wake_at(), None);
    }
}
