//! The task that keeps the facts in the store: reads it, merges, and writes what it lacks.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_config::StoreKind;
use pgimbal_replicas::document::{Document, DocumentError, Unreadable};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info};
use zeroize::Zeroizing;

use super::earlier_files::EarlierFiles;
use super::{Inner, KeyOrigin, off_main_thread};
use crate::store::{Store, StoreError, Stored};

/// The store is written at most this often, not to load an API server with every change.
const PACE: Duration = Duration::from_secs(1);
/// A file on this host may be written this often: a kill loses little.
const FILE_PACE: Duration = Duration::from_millis(20);
/// How often the store is read when nothing tells of a change: the only means where there is no
/// watch and no peer.
const LOOK: Duration = Duration::from_secs(10);
/// How soon the facts that a peer has told are written here too: after the peer has had time to.
const AFTER_PEER: Duration = Duration::from_secs(2);
/// Limit of attempts at one write when others write in between; then the others have their turn.
const TRIES: u32 = 8;
/// The longest pause between two such attempts grows from this by each; it is drawn at random, so
/// that replicas do not meet again.
const CONFLICT_PAUSE: Duration = Duration::from_millis(25);
/// The pauses while the store is away: from the first to the last, doubled each time.
const AWAY: [Duration; 2] = [PACE, LOOK];

/// The reason for which the store does not have everything.
enum Fault {
    Store(StoreError),
    /// The document there is of a form that must not be touched.
    Document(DocumentError),
}

/// What the store's document and the one here are together.
struct Merged {
    /// The document here.
    here: Arc<Document>,
    /// What the store should have.
    wanted: Document,
    /// The last change in both.
    change: u64,
}

/// The task.
pub(super) struct Keeper {
    inner: Arc<Inner>,
    store: Store,
    /// Files of earlier versions, until their contents are stored.
    earlier: Option<EarlierFiles>,
    /// The pause after the next failure.
    pause: Duration,
    /// The document here when the store last had all of it; `None` when something came up while
    /// the store was written.
    kept: Option<Arc<Document>>,
}

impl Keeper {
    /// Makes the task.
    pub(super) fn new(inner: Arc<Inner>, store: Store, earlier: EarlierFiles) -> Self {
        Self { inner, store, earlier: Some(earlier), pause: AWAY[0], kept: None }
    }

    /// Runs for as long as the process.
    pub(super) async fn run(mut self) {
        let mut published = self.inner.published.subscribe();
        let pace = match self.store.kind() {
            StoreKind::Memory | StoreKind::File => FILE_PACE,
            StoreKind::Kubernetes | StoreKind::Vault => PACE,
        };
        loop {
            let began = Instant::now();
            let is_well = self.keep().await;
            let pause = if is_well { LOOK } else { self.pause };
            let mut next = began + pause;
            // A peer has told of something while the store was written.
            let is_behind = !self.has(&published.borrow_and_update());
            if is_well && is_behind {
                next = began + AFTER_PEER;
            }
            // No sooner than the pace allows, and after a failure not before its pause.
            let earliest = if is_well { Instant::now() + pace } else { next };
            loop {
                tokio::select! {
                    () = self.inner.changed.notified() => next = next.min(earliest),
                    () = self.store.changed() => next = next.min(earliest),
                    Ok(()) = published.changed() => next = next.min(began + pause.min(AFTER_PEER)),
                    () = sleep_until(next.max(earliest)) => break,
                }
            }
        }
    }

    /// Whether the store has all of `document`, as far as is known.
    fn has(&self, document: &Arc<Document>) -> bool {
        self.kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, document))
    }

    /// Brings the store and the facts here together; returns whether it succeeded.
    async fn keep(&mut self) -> bool {
        let change = self.inner.state().change;
        match self.synchronize().await {
            Ok((stored, size)) => {
                self.pause = AWAY[0];
                self.inner.status.succeeded(size);
                self.inner.progress.send_modify(|progress| {
                    (progress.stored, progress.failed) = (stored, None);
                    progress.is_read = true;
                });
                if let Some(earlier) = self.earlier.take() {
                    earlier.remove();
                }
                true
            }
            Err(fault) => {
                let (text, hint) = match &fault {
                    Fault::Store(error) => (error.to_string(), error.hint()),
                    Fault::Document(error) => (self.untouchable(error), None),
                };
                self.inner.status.failed(&text, hint);
                let is_refused = !matches!(&fault, Fault::Store(error) if error.is_away());
                self.inner.progress.send_modify(|progress| {
                    progress.failed = Some((change, text.into()));
                    progress.is_refused |= is_refused;
                });
                self.pause = (self.pause * 2).min(AWAY[1]);
                false
            }
        }
    }

    fn untouchable(&self, error: &DocumentError) -> String {
        format!(
            "{}: the document there is {error}; it is left as it is, and nothing is stored: \
             start the version that wrote it, or move it away",
            self.store.location()
        )
    }

    /// Reads, merges, and writes if the store lacks something. Returns the last change that it has
    /// then, and the size of its document.
    async fn synchronize(&mut self) -> Result<(u64, usize), Fault> {
        for attempt in 1..=TRIES {
            let stored = self.store.read().await.map_err(Fault::Store)?;
            let (known, stored) = parsed(stored).await;
            let (known, stored) = match known {
                Ok(known) => (known, stored),
                Err(error) => (Document::default(), self.set_aside(stored, error).await?),
            };
            let Merged { here, wanted, change } = self.merge(&known);
            if wanted == known {
                self.kept = Some(here);
                return Ok((change, stored.bytes.len()));
            }
            let (wanted, bytes) = written(wanted, stored.bytes.len()).await;
            match self.store.replace(&bytes, &stored.version).await {
                Ok(_) => {
                    self.inner.status.wrote();
                    let mut state = self.inner.state();
                    let is_whole = Arc::ptr_eq(&state.document, &here);
                    // The salts' key counts once it is stored.
                    self.inner.change(&mut state, |document| document.merge(wanted));
                    self.kept = is_whole.then(|| Arc::clone(&state.document));
                    return Ok((change, bytes.len()));
                }
                Err(error) if error.is_conflict() => {
                    self.inner.status.conflicted();
                    sleep(CONFLICT_PAUSE.mul_f64(f64::from(attempt) * rand::random::<f64>())).await;
                }
                Err(error) => return Err(Fault::Store(error)),
            }
        }
        let location = self.store.location().into();
        Err(Fault::Store(StoreError::Conflict { location }))
    }

    /// Merges the store's document into the one here.
    fn merge(&self, known: &Document) -> Merged {
        let mut state = self.inner.state();
        self.inner.change(&mut state, |document| {
            document.merge(known.clone());
            document.follow(known);
            if let Some(earlier) = &self.earlier {
                earlier.add_to(document);
            }
        });
        let (here, change) = (Arc::clone(&state.document), state.change);
        drop(state);
        let mut wanted = (*here).clone();
        if let KeyOrigin::Document(own) = &self.inner.key
            && wanted.salts().is_none()
        {
            wanted.set_salts(own.clone());
        }
        // They are in no document that anybody else sees before they are stored.
        if let Some(slots) = self.inner.wanted_slots(known.slots()) {
            wanted.merge_slots(&slots);
        }
        if !self.inner.keeps_generations {
            wanted = wanted.without_generations();
        }
        Merged { here, wanted, change }
    }

    /// Keeps a document that cannot be read under a name of its own, so that what is known here can
    /// be written in its place. One of another version stays where it is: replicas of that version
    /// may be running.
    async fn set_aside(&self, stored: Stored, error: DocumentError) -> Result<Stored, Fault> {
        if matches!(error, DocumentError::Unreadable(Unreadable::Version(_))) {
            return Err(Fault::Document(error));
        }
        let name = self.store.set_aside(&stored.bytes).await.map_err(Fault::Store)?;
        error!(
            "{}: the document there is {error}; it is kept as {name}, and what is known here is \
             written in its place",
            self.store.location()
        );
        let again = self.store.read().await.map_err(Fault::Store)?;
        if again.bytes != stored.bytes {
            info!("{}: somebody has replaced it meanwhile", self.store.location());
            let location = self.store.location().into();
            return Err(Fault::Store(StoreError::Conflict { location }));
        }
        Ok(again)
    }
}

/// Parses what the store has.
async fn parsed(stored: Stored) -> (Result<Document, DocumentError>, Stored) {
    off_main_thread(stored.bytes.len(), move || (Document::parse(&stored.bytes), stored)).await
}

/// The bytes of a document in whose place `size` bytes were.
async fn written(document: Document, size: usize) -> (Document, Zeroizing<Vec<u8>>) {
    off_main_thread(size, move || {
        let bytes = document.to_bytes();
        (document, bytes)
    })
    .await
}
