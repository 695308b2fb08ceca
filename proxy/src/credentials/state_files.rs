//! The files of `state_dir` that outlive the process: the history of accepted passwords, the
//! password cache where the operator wants it, and the key of users' salts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_auth::rotation::{
    CachedPassword, HistoryDocument, HistoryRecord, PasswordCache, Unreadable,
};
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, CredentialConfig, HistoryPlace};
use tokio::task::JoinSet;
use tracing::error;
use zeroize::Zeroizing;

use super::role::Role;
use super::status::{NotRevoked, RevokeReply};
use crate::state_dir;

const HISTORY: &str = "credentials.json";
const PASSWORDS: &str = "passwords.json";
const SALT_KEY: &str = "salt-key";

/// Pause after which a failed write is tried again, if nothing changes before.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The path of a file and its new content.
type File = (PathBuf, Zeroizing<Vec<u8>>);

/// The contents of history and password cache, as read at the start and as written since. Writes
/// run beside the credentials' task, one at a time.
#[derive(Debug, Default)]
pub(super) struct StateFiles {
    /// The path of the history; `None` when it is kept in memory only.
    history_path: Option<PathBuf>,
    passwords_path: Option<PathBuf>,
    history: HistoryDocument,
    passwords: PasswordCache,
    is_changed: bool,
    /// Operators who are answered when the change is written.
    waiting: Vec<RevokeReply>,
    /// Operators whose change is being written.
    pending: Vec<RevokeReply>,
    /// What the files hold, or will hold when the running write succeeds.
    written: Vec<File>,
    /// The running write; `true` when all its files are written.
    writing: JoinSet<bool>,
    retry_at: Option<Instant>,
}

impl StateFiles {
    /// Reads the files of the configured `state_dir`. A file that cannot be read is logged; one
    /// that cannot be parsed is logged and renamed to `*.json.refused`. In both cases pgimbal
    /// starts without it.
    pub(super) fn load(config: &CredentialConfig) -> Self {
        let Some(directory) = &config.state_dir else { return Self::default() };
        let has_history = config.history == HistoryPlace::File;
        Self::load_from(directory, has_history, config.password_cache)
    }

    fn load_from(directory: &Path, has_history: bool, has_passwords: bool) -> Self {
        let history_path = has_history.then(|| directory.join(HISTORY));
        let passwords_path = has_passwords.then(|| directory.join(PASSWORDS));
        let history = history_path.as_deref().and_then(|path| load(path, HistoryDocument::parse));
        let passwords = passwords_path.as_deref().and_then(|path| load(path, PasswordCache::parse));
        Self {
            history_path,
            passwords_path,
            history: history.unwrap_or_default(),
            passwords: passwords.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Names of the users in the history, as read or written last, sorted; empty when the history
    /// is kept in memory and at a first start.
    pub(super) fn users(&self) -> Vec<String> {
        self.history.users.keys().cloned().collect()
    }

    /// The history of `user` as read or written last; `None` when there is none.
    pub(super) fn history(&self, user: &str) -> Option<&HistoryRecord> {
        self.history.users.get(user)
    }

    /// The cached passwords of `user` as read or written last, the newest last; empty when there
    /// are none.
    pub(super) fn passwords(&self, user: &str) -> Vec<CachedPassword> {
        self.passwords.roles.get(user).cloned().unwrap_or_default()
    }

    /// Removes `user` from both files, at the next [`Self::save`]; no effect when neither has it.
    pub(super) fn forget(&mut self, user: &str) {
        let was_in_history = self.history.users.remove(user).is_some();
        self.is_changed |= self.passwords.roles.remove(user).is_some() || was_in_history;
    }

    /// Marks the state as changed, so that the next [`Self::save`] writes it.
    pub(super) fn changed(&mut self) {
        self.is_changed = true;
    }

    /// Marks the state as changed; `reply` is answered when it is written, or could not be written.
    pub(super) fn changed_for(&mut self, reply: RevokeReply) {
        self.is_changed = true;
        self.waiting.push(reply);
    }

    /// Begins to write what has changed, unless a write runs; the caller then waits for
    /// [`Self::saved`]. Files whose content is the same are not written, and without any file to
    /// write operators are answered at once. Only users that are listed or served are added.
    pub(super) fn save(&mut self, roles: &BTreeMap<Arc<str>, Role>, now: Instant) {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.is_changed = true;
        }
        if !self.is_changed || !self.writing.is_empty() {
            return;
        }
        self.is_changed = false;
        self.retry_at = None;
        let files = self.files(roles);
        let new: Vec<File> =
            files.iter().filter(|file| !self.written.contains(file)).cloned().collect();
        self.written = files;
        self.pending.append(&mut self.waiting);
        if new.is_empty() {
            return self.answer(true);
        }
        self.writing.spawn_blocking(move || write(&new));
    }

    fn files(&mut self, roles: &BTreeMap<Arc<str>, Role>) -> Vec<File> {
        let kept = || roles.iter().filter(|(_, role)| role.is_kept());
        let mut files = Vec::new();
        if let Some(path) = &self.history_path {
            for (name, role) in kept() {
                self.history.users.insert(name.to_string(), role.history());
            }
            let document = HistoryDocument::new(self.history.users.clone());
            // Each part of it has a form in JSON.
            files.extend(document.to_bytes().ok().map(|bytes| (path.clone(), bytes)));
        }
        if let Some(path) = &self.passwords_path {
            let mut known = std::mem::take(&mut self.passwords.roles);
            for (name, role) in kept() {
                let passwords = role.passwords();
                if !passwords.is_empty() {
                    known.insert(name.to_string(), passwords);
                }
            }
            self.passwords = PasswordCache::new(known);
            files.extend(self.passwords.to_bytes().ok().map(|bytes| (path.clone(), bytes)));
        }
        files
    }

    /// Waits for the end of the running write, and answers operators; a failed write is tried again
    /// after 5 s. `None` when no write runs. Can be cancelled without loss.
    pub(super) async fn saved(&mut self) -> Option<()> {
        let is_written = self.writing.join_next().await?.unwrap_or(false);
        if !is_written {
            self.written.clear();
            self.retry_at = Some(Instant::now() + RETRY_PAUSE);
        }
        self.answer(is_written);
        Some(())
    }

    /// The time at which [`Self::save`] must be called although nothing changes, because a write
    /// has failed; `None` otherwise.
    pub(super) const fn wake_at(&self) -> Option<Instant> {
        self.retry_at
    }

    fn answer(&mut self, is_written: bool) {
        for reply in self.pending.drain(..) {
            // The operator may have gone.
            let _ = reply.send(if is_written { Ok(()) } else { Err(NotRevoked::NotKept) });
        }
    }
}

fn load<T>(path: &Path, parse: fn(&[u8]) -> Result<T, Unreadable>) -> Option<T> {
    let bytes = match state_dir::read(path) {
        Ok(bytes) => bytes?,
        Err(cause) => {
            error!("{}: cannot be read and is not used: {cause}", path.display());
            return None;
        }
    };
    match parse(&bytes) {
        Ok(document) => Some(document),
        Err(cause) => {
            let refused = path.with_extension("json.refused");
            let kept = match state_dir::set_aside(path, &refused) {
                Ok(()) => format!("; it is now {}", refused.display()),
                Err(_) => String::new(),
            };
            error!("{}: {cause}; it is not used{kept}", path.display());
            None
        }
    }
}

/// Writes each file. Returns false when one could not be written, which is logged.
fn write(files: &[File]) -> bool {
    let mut all = true;
    for (path, bytes) in files {
        if let Err(cause) = state_dir::write(path, bytes) {
            error!("{}: cannot be written: {cause}", path.display());
            all = false;
        }
    }
    all
}

/// The key from which users' salts are made: that of the option `deployment_key`, else the file
/// `salt-key` (32 bytes) in `state_dir`, which is created when it is missing, else a random one. A
/// file that cannot be used is logged. Must be called once per process, so that a user's salt stays
/// the same over reloads.
#[must_use]
pub fn salt_key(config: &Config) -> SaltKey {
    let credentials = &config.credentials;
    if let Some(key) = &credentials.deployment_key {
        return SaltKey::of_deployment(key);
    }
    let Some(state_dir) = &credentials.state_dir else { return SaltKey::new(rand::random()) };
    let path = state_dir.join(SALT_KEY);
    stored_salt_key(&path).unwrap_or_else(|cause| {
        error!(
            "{}: {cause}; salts are new, so the verifiers of the history are worth nothing to \
             users without one",
            path.display()
        );
        SaltKey::new(rand::random())
    })
}

fn stored_salt_key(path: &Path) -> io::Result<SaltKey> {
    if let Some(bytes) = state_dir::read(path)? {
        let key: [u8; 32] = (**bytes)
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a key of 32 bytes"))?;
        return Ok(SaltKey::new(key));
    }
    let key: [u8; 32] = rand::random();
    state_dir::write(path, &key)?;
    Ok(SaltKey::new(key))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tokio::sync::oneshot;

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
    fn rotation_11_a_broken_history_is_set_aside_and_stops_nothing() {
        let scratch = Scratch::new("broken");
        let path = scratch.0.join(HISTORY);
        for text in ["", "{", "{\"version\": 1}", "[1]", "\u{0}"] {
            write(&path, text.as_bytes()).expect("a file");
            let files = StateFiles::load_from(&scratch.0, true, true);
            assert!(files.users().is_empty());
            assert!(scratch.0.join("credentials.json.refused").exists(), "{text}");
            assert!(!path.exists(), "{text}");
        }
        let empty = HistoryDocument::new(BTreeMap::new()).to_bytes().expect("bytes");
        write(&path, &empty).expect("a file");
        StateFiles::load_from(&scratch.0, true, true);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn rotation_2_what_could_not_be_written_is_not_said_to_be_kept() {
        let scratch = Scratch::new("memory");
        let place = scratch.0.join("state");
        // A file where the directory should be.
        fs::write(&place, "").expect("a file");
        let mut files = StateFiles::load_from(&place, true, false);
        let (reply, answer) = oneshot::channel();
        files.changed_for(reply);
        files.save(&BTreeMap::new(), Instant::now());
        files.saved().await.expect("a write");
        assert_eq!(answer.await, Ok(Err(NotRevoked::NotKept)));
        fs::remove_file(&place).expect("it is out of the way");
        let later = files.wake_at().expect("another try");
        files.save(&BTreeMap::new(), later);
        files.saved().await.expect("a write");
        assert!(place.join(HISTORY).exists(), "nothing has changed, and it is kept");
        assert_eq!(files.wake_at(), None);
    }
}
