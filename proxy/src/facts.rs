//! The durable facts that the replicas share: the handle through which the rest of the process
//! reads and changes them. What a fact means is decided in [`pgimbal_replicas::document`].
//!
//! A change is in force here at once; it goes to the peers (`exchange`) and to the store, from
//! which it also comes back after a restart of all. The task that keeps the store is in `keeper`.

mod earlier_files;
mod exchange;
mod keeper;
mod status;

use std::fmt;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, HistoryPlace, Secret, StoreKind};
use pgimbal_replicas::InstanceId;
use pgimbal_replicas::budget::slots::Slots;
use pgimbal_replicas::document::{Document, DocumentError, SaltsKey};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::store::{Store, StoreError};
pub use exchange::exchange;
use keeper::Keeper;
pub use status::FactsStatus;
use status::Status;

/// Time limit for which a start waits for the store, as long as for the passwords of a Vault.
const START_TIME: Duration = Duration::from_secs(10);

/// Time limit for which the end of the process waits for the store. It answers in milliseconds when
/// it is well, and the peers have the facts too.
const END_TIME: Duration = Duration::from_secs(2);

/// Documents above this size in bytes are read and written on a thread of their own: a megabyte
/// takes some ten milliseconds to inflate, parse and deflate, for which everything else on the main
/// thread would wait. Going to another thread takes some ten microseconds.
const LARGE: usize = 64 << 10;

/// The handle to the facts. Clones are cheap and share them.
#[derive(Clone, Debug)]
pub struct Facts {
    inner: Arc<Inner>,
}

/// The place of a change among those of this process, for [`Facts::stored`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change(u64);

/// A change that is in force here, and that the store does not have yet: it is tried again until it
/// has it, but a restart of all replicas before that would forget the change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the store does not have it yet ({0})")]
pub struct NotStored(Arc<str>);

/// Where the key of users' salts comes from.
#[derive(Debug)]
enum KeyOrigin {
    /// The option `deployment_key`; the document's key is not used then, and none is made.
    Deployment(Secret),
    /// The document. Until it is known this key is used, which becomes the document's if that has
    /// none.
    Document(SaltsKey),
}

#[derive(Debug)]
struct Inner {
    instance: InstanceId,
    key: KeyOrigin,
    /// Whether verifiers may be written to the store.
    keeps_generations: bool,
    /// Whether there is no store at all, in tests and where nothing is shared.
    is_alone: bool,
    state: Mutex<State>,
    published: watch::Sender<Arc<Document>>,
    progress: watch::Sender<Progress>,
    /// Wakes the keeper: something is to be written.
    changed: Notify,
    /// What is to become of the slots of the budget, asked at each read of the store.
    slots: Mutex<Option<SlotsChange>>,
    status: Status,
}

type DecideSlots = dyn FnMut(&Slots) -> Option<Slots> + Send;

/// The function that decides about the slots.
struct SlotsChange(Box<DecideSlots>);

impl fmt::Debug for SlotsChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotsChange")
    }
}

#[derive(Debug, Default)]
struct State {
    document: Arc<Document>,
    /// Number of the last change that was made here.
    change: u64,
}

/// How far the store is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// The last change that the store has.
    stored: u64,
    /// The last change that was there when an attempt failed, with the reason.
    failed: Option<(u64, Arc<str>)>,
    /// Whether the document of the store was read once.
    is_read: bool,
    /// Whether the first attempt has failed for a reason that time does not mend.
    is_refused: bool,
}

impl Facts {
    /// Begins to keep the facts in the store of `config`: the task reads it at once. `instance` is
    /// the number of this process; `None` when it has none yet. Files of
    /// earlier versions in `state_dir` are taken over. Called on a runtime.
    ///
    /// # Errors
    /// [`StoreError`] when the store's options cannot work; no task runs then.
    pub fn start(config: &Config, instance: Option<InstanceId>) -> Result<Self, StoreError> {
        let store = Store::new(config)?;
        let credentials = &config.credentials;
        let keeps_generations =
            credentials.history == HistoryPlace::File || config.store.kind != StoreKind::Memory;
        let earlier = earlier_files::read(config);
        let key = match &credentials.deployment_key {
            Some(key) => KeyOrigin::Deployment(key.clone()),
            None => KeyOrigin::Document(earlier.key()),
        };
        let instance = instance.unwrap_or_else(|| InstanceId(rand::random()));
        let facts = Self::new(key, instance, keeps_generations, false, store.location());
        tokio::spawn(Keeper::new(Arc::clone(&facts.inner), store, earlier).run());
        Ok(facts)
    }

    /// Facts of this process alone, kept nowhere. Every change counts as stored.
    #[must_use]
    pub fn alone() -> Self {
        let key = SaltsKey::new(rand::random());
        let instance = InstanceId(rand::random());
        let facts = Self::new(KeyOrigin::Document(key.clone()), instance, true, true, "none");
        facts.add(|document, _| document.set_salts(key));
        facts
    }

    fn new(
        key: KeyOrigin,
        instance: InstanceId,
        keeps_generations: bool,
        is_alone: bool,
        location: &str,
    ) -> Self {
        let state = State::default();
        let (published, _) = watch::channel(Arc::clone(&state.document));
        let (progress, _) = watch::channel(Progress::default());
        let inner = Inner {
            instance,
            key,
            keeps_generations,
            is_alone,
            state: Mutex::new(state),
            published,
            progress,
            changed: Notify::new(),
            slots: Mutex::default(),
            status: Status::new(location),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits until the store was read once, for 10 s at most; returns at once when it refuses. Says
    /// in the log what is not known without it.
    pub async fn ready(&self) {
        let mut progress = self.inner.progress.subscribe();
        let first = progress.wait_for(|progress| progress.is_read || progress.is_refused);
        let is_read = matches!(timeout(START_TIME, first).await, Ok(Ok(now)) if now.is_read);
        if !is_read && !self.inner.is_alone {
            tracing::warn!(
                "the store {} was not read: starting without the passwords that were accepted \
                 before, what was revoked, the clusters' timelines, and HOLD or ADOPT of operators; \
                 they count as soon as it is read, or a peer tells them",
                self.inner.status.location()
            );
        }
    }

    /// The number of this process among the replicas, 64 random bits.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.inner.instance
    }

    /// The document as it is now, with every change; it changes with each of them.
    #[must_use]
    pub fn document(&self) -> watch::Receiver<Arc<Document>> {
        self.inner.published.subscribe()
    }

    /// Changes the document; `change` gets it with the number of this process. It must be quick and
    /// may only add, as the document's own methods do. What has changed is in force at once, and
    /// goes to the peers and the store. Without an effect nothing goes anywhere.
    pub fn add(&self, change: impl FnOnce(&mut Document, InstanceId)) -> Change {
        let mut state = self.inner.state();
        if self.inner.change(&mut state, |document| change(document, self.inner.instance)) {
            state.change += 1;
            self.inner.changed.notify_one();
        }
        Change(state.change)
    }

    /// A change without an effect of its own, for [`Self::stored`]: the store has it when it has all
    /// that is known here now, also what only peers have told.
    pub fn restate(&self) -> Change {
        let mut state = self.inner.state();
        state.change += 1;
        self.inner.changed.notify_one();
        Change(state.change)
    }

    /// Has `change` decide what becomes of the slots of the budget: it is given those that were just
    /// read from the store, and what it returns is written by compare-and-set at that version, or
    /// nowhere. Once that has succeeded they stand in [`Self::document`].
    pub fn keep_slots(&self, change: impl FnMut(&Slots) -> Option<Slots> + Send + 'static) {
        let mut kept = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(SlotsChange(Box::new(change)));
    }

    /// Has the store read soon, and the slots decided about.
    pub fn read_soon(&self) {
        self.inner.changed.notify_one();
    }

    /// Waits until the store has a change and all before it.
    ///
    /// # Errors
    /// [`NotStored`] when the first attempt after the change fails; more follow.
    pub async fn stored(&self, change: Change) -> Result<(), NotStored> {
        if self.inner.is_alone {
            return Ok(());
        }
        let mut progress = self.inner.progress.subscribe();
        let failed = |progress: &Progress| {
            progress.failed.as_ref().is_some_and(|(failed, _)| *failed >= change.0)
        };
        let ended = progress.wait_for(|now| now.stored >= change.0 || failed(now)).await;
        match ended {
            Ok(now) if now.stored >= change.0 => Ok(()),
            Ok(now) => Err(NotStored(
                now.failed.as_ref().map_or_else(|| "".into(), |(_, cause)| Arc::clone(cause)),
            )),
            Err(_) => Err(NotStored("pgimbal is shutting down".into())),
        }
    }

    /// Waits until the store has all changes, for 2 s at most; at the end of the process.
    pub async fn finish(&self) {
        let last = Change(self.inner.state().change);
        if !matches!(timeout(END_TIME, self.stored(last)).await, Ok(Ok(()))) {
            tracing::warn!("the store {} lacks the last changes", self.inner.status.location());
        }
    }

    /// Merges a peer's document; returns the merged one, which is the answer to the peer. What is
    /// new is in force at once. It is stored too, should the peer fail to do so.
    ///
    /// # Errors
    /// [`DocumentError`] when the bytes are no document of this version.
    pub fn merge_from_peer(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, DocumentError> {
        let theirs = Document::parse(bytes)?;
        let mut state = self.inner.state();
        self.inner.change(&mut state, |document| document.merge(theirs));
        drop(state);
        Ok(self.to_bytes())
    }

    /// The last change that was made in this process; what came from peers or the store alone is
    /// none.
    fn last_change(&self) -> Change {
        Change(self.inner.state().change)
    }

    /// The size of the document in bytes when the store last had it; 0 before. What is here now is
    /// about as large.
    fn stored_size(&self) -> usize {
        self.inner.status.now().size
    }

    /// The document as bytes, for a peer.
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let document = Arc::clone(&self.inner.state().document);
        document.to_bytes()
    }

    /// The key from which users' salts are made.
    #[must_use]
    pub fn salt_key(&self) -> SaltKey {
        match &self.inner.key {
            KeyOrigin::Deployment(key) => SaltKey::of_deployment(key),
            KeyOrigin::Document(own) => {
                let state = self.inner.state();
                SaltKey::new(*state.document.salts().unwrap_or(own).bytes())
            }
        }
    }

    /// Whether [`Self::salt_key`] is the deployment's. Until then no generation is added: its
    /// verifiers would be of no use to the others.
    #[must_use]
    pub fn is_key_known(&self) -> bool {
        match &self.inner.key {
            KeyOrigin::Deployment(_) => true,
            KeyOrigin::Document(_) => self.inner.state().document.salts().is_some(),
        }
    }

    /// The reason for which nothing can be stored before the store was read.
    #[must_use]
    pub(crate) fn not_read(&self) -> NotStored {
        let status = self.inner.status.now();
        NotStored(status.error.map_or_else(|| "it was not read yet".into(), Arc::from))
    }

    /// The state of the store, for the console and metrics.
    #[must_use]
    pub fn status(&self) -> FactsStatus {
        self.inner.status.now()
    }
}

/// Does `work` with a document of about `size` bytes, and returns what it returns; on another thread
/// when the document is large.
async fn off_main_thread<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if size <= LARGE {
        return work();
    }
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime ends, and this task with it.
        Err(Err(_)) => pending().await,
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self::alone()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the slots are to become, when the store has these.
    fn wanted_slots(&self, stored: &Slots) -> Option<Slots> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.as_mut().and_then(|change| (change.0)(stored))
    }

    /// Changes the document, and publishes it; returns whether it is another one.
    fn change(&self, state: &mut State, change: impl FnOnce(&mut Document)) -> bool {
        let mut document = (*state.document).clone();
        change(&mut document);
        document.prune();
        if document == *state.document {
            return false;
        }
        state.document = Arc::new(document);
        self.published.send_replace(Arc::clone(&state.document));
        true
    }
}

#[cfg(test)]
mod tests;
