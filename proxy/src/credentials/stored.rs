//! What is kept over a restart, and when it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_auth::rotation::{CachedPassword, HistoryDocument, HistoryRecord, PasswordCache};
use pgimbal_config::{CredentialConfig, HistoryPlace};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::NotRevoked;
use super::files::Places;
use super::role::Role;
use crate::state_dir;

/// Tells an operator that something is kept.
pub(super) type Kept = oneshot::Sender<Result<(), NotRevoked>>;

/// What could not be written is tried again after this, or when something changes.
const AGAIN: Duration = Duration::from_secs(5);

/// A file and what it should hold.
type Page = (PathBuf, Zeroizing<Vec<u8>>);

/// History and passwords, as they were at the start and as they are written.
#[derive(Debug, Default)]
pub(super) struct StoredCredentials {
    places: Places,
    history: HistoryDocument,
    cache: PasswordCache,
    dirty: bool,
    /// Who wants to know that what has changed is kept.
    waiting: Vec<Kept>,
    /// Those whose change is being written.
    pending: Vec<Kept>,
    written: Vec<Page>,
    writing: JoinSet<bool>,
    /// When what could not be written is tried again.
    again: Option<Instant>,
}

impl StoredCredentials {
    pub(super) fn load(config: &CredentialConfig) -> Self {
        let Some(directory) = &config.state_dir else { return Self::default() };
        let history = config.history == HistoryPlace::File;
        let places = Places::new(directory, history, config.password_cache);
        let (history, cache) = places.load();
        Self { places, history, cache, ..Self::default() }
    }

    /// The users of the history.
    pub(super) fn names(&self) -> Vec<String> {
        self.history.users.keys().cloned().collect()
    }

    pub(super) fn record(&self, user: &str) -> Option<&HistoryRecord> {
        self.history.users.get(user)
    }

    /// The passwords of a start without the source, the newest last.
    pub(super) fn passwords(&self, user: &str) -> Vec<CachedPassword> {
        self.cache.roles.get(user).cloned().unwrap_or_default()
    }

    /// Nothing is kept of this user any more.
    pub(super) fn forget(&mut self, user: &str) {
        let was_kept = self.history.users.remove(user).is_some();
        self.dirty |= self.cache.roles.remove(user).is_some() || was_kept;
    }

    /// Something that is kept has changed.
    pub(super) fn changed(&mut self) {
        self.dirty = true;
    }

    /// The same, with somebody who is told when it is kept.
    pub(super) fn tell_when_kept(&mut self, reply: Kept) {
        self.dirty = true;
        self.waiting.push(reply);
    }

    /// Writes what has changed, beside the work; one write at a time.
    pub(super) fn save(&mut self, roles: &BTreeMap<Arc<str>, Role>, now: Instant) {
        if self.again.is_some_and(|at| now >= at) {
            self.dirty = true;
        }
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if !self.writing.is_empty() {
            self.dirty = true;
            return;
        }
        self.again = None;
        let pages = self.pages(roles);
        let new: Vec<Page> =
            pages.iter().filter(|page| !self.written.contains(page)).cloned().collect();
        self.written = pages;
        self.pending.append(&mut self.waiting);
        if new.is_empty() {
            return self.tell(true);
        }
        self.writing.spawn_blocking(move || write(&new));
    }

    fn pages(&mut self, roles: &BTreeMap<Arc<str>, Role>) -> Vec<Page> {
        let mut pages = Vec::new();
        if let Some(path) = &self.places.history {
            for (name, role) in roles.iter().filter(|(_, role)| role.is_kept()) {
                self.history.users.insert(name.to_string(), role.accepted.record());
            }
            let document = HistoryDocument::new(self.history.users.clone());
            // Each part of it has a form in JSON.
            pages.extend(document.to_bytes().ok().map(|bytes| (path.clone(), bytes)));
        }
        if let Some(path) = &self.places.passwords {
            let mut known = std::mem::take(&mut self.cache.roles);
            for (name, role) in roles.iter().filter(|(_, role)| role.is_kept()) {
                let passwords = role.rotation.previous().into_iter().chain(role.rotation.newest());
                let passwords: Vec<_> = passwords
                    .map(|one| CachedPassword::new(one.password.clone(), one.rotated_at))
                    .collect();
                if !passwords.is_empty() {
                    known.insert(name.to_string(), passwords);
                }
            }
            self.cache = PasswordCache::new(known);
            pages.extend(self.cache.to_bytes().ok().map(|bytes| (path.clone(), bytes)));
        }
        pages
    }

    /// A write has ended; `None` while none is under way.
    pub(super) async fn saved(&mut self) -> Option<()> {
        let is_kept = self.writing.join_next().await?.unwrap_or(false);
        if !is_kept {
            self.written.clear();
            self.again = Some(Instant::now() + AGAIN);
        }
        self.tell(is_kept);
        Some(())
    }

    /// When there is something to do without a change.
    pub(super) const fn wake_at(&self) -> Option<Instant> {
        self.again
    }

    fn tell(&mut self, is_kept: bool) {
        for reply in self.pending.drain(..) {
            // Whoever asked may have gone.
            let _ = reply.send(if is_kept { Ok(()) } else { Err(NotRevoked::NotKept) });
        }
    }
}

/// Whether all is written.
fn write(pages: &[Page]) -> bool {
    let mut all = true;
    for (path, bytes) in pages {
        if let Err(cause) = state_dir::write(path, bytes) {
            tracing::error!("{}: cannot be written: {cause}", path.display());
            all = false;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn rotation_2_what_could_not_be_written_is_not_said_to_be_kept() {
        let name = format!("pgimbal-memory-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        // A file where the directory should be.
        fs::write(&place, "").expect("a file");
        let places = Places::new(&place, true, false);
        let mut memory = StoredCredentials { places, ..StoredCredentials::default() };
        let (reply, answer) = oneshot::channel();
        memory.tell_when_kept(reply);
        memory.save(&BTreeMap::new(), Instant::now());
        memory.saved().await.expect("a write");
        assert_eq!(answer.await, Ok(Err(NotRevoked::NotKept)));
        fs::remove_file(&place).expect("it is out of the way");
        let later = memory.wake_at().expect("another try");
        memory.save(&BTreeMap::new(), later);
        memory.saved().await.expect("a write");
        assert!(place.join("credentials.json").exists(), "nothing has changed, and it is kept");
        assert_eq!(memory.wake_at(), None);
        fs::remove_dir_all(&place).expect("a directory");
    }
}
