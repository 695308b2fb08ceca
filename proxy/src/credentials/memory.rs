//! What is kept over a restart, and when it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pgimbal_auth::rotation::{CachedPassword, HistoryDocument, HistoryRecord, PasswordCache};
use pgimbal_config::{CredentialConfig, HistoryPlace};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::UnknownRole;
use super::files::{self, Places};
use super::role::Role;

/// Tells an operator that something is kept.
type Kept = oneshot::Sender<Result<(), UnknownRole>>;

/// A file and what it should hold.
type Page = (PathBuf, Zeroizing<Vec<u8>>);

/// History and passwords, as they were at the start and as they are written.
#[derive(Debug, Default)]
pub(super) struct Memory {
    places: Places,
    history: HistoryDocument,
    cache: PasswordCache,
    dirty: bool,
    /// Who wants to know that what has changed is kept.
    waiting: Vec<Kept>,
    /// Those whose change is being written.
    pending: Vec<Kept>,
    written: Vec<Page>,
    writing: JoinSet<()>,
}

impl Memory {
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
    pub(super) fn save(&mut self, roles: &BTreeMap<Arc<str>, Role>) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if !self.writing.is_empty() {
            self.dirty = true;
            return;
        }
        let pages = self.pages(roles);
        let new: Vec<Page> =
            pages.iter().filter(|page| !self.written.contains(page)).cloned().collect();
        self.written = pages;
        self.pending.append(&mut self.waiting);
        if new.is_empty() {
            return self.tell();
        }
        self.writing.spawn_blocking(move || write(&new));
    }

    fn pages(&mut self, roles: &BTreeMap<Arc<str>, Role>) -> Vec<Page> {
        let mut pages = Vec::new();
        if let Some(path) = &self.places.history {
            for (name, role) in roles {
                self.history.users.insert(name.to_string(), role.ledger.record());
            }
            let document = HistoryDocument::new(self.history.users.clone());
            // Each part of it has a form in JSON.
            pages.extend(document.to_bytes().ok().map(|bytes| (path.clone(), bytes)));
        }
        if let Some(path) = &self.places.passwords {
            let mut known = std::mem::take(&mut self.cache.roles);
            for (name, role) in roles {
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
        let written = self.writing.join_next().await.map(drop);
        self.tell();
        written
    }

    fn tell(&mut self) {
        for reply in self.pending.drain(..) {
            // Whoever asked may have gone.
            let _ = reply.send(Ok(()));
        }
    }
}

fn write(pages: &[Page]) {
    for (path, bytes) in pages {
        if let Err(cause) = files::write(path, bytes) {
            tracing::error!("{}: cannot be written: {cause}", path.display());
        }
    }
}
