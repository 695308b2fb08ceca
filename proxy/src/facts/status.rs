//! The state of the store as operators see it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// The size from which the document is too large for comfort: a Kubernetes Secret and a secret of
/// Vault hold about 1 MB, and it grows with users.
pub(super) const LARGE: usize = 400_000;

/// The state of the store, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactsStatus {
    /// The store's place in words.
    pub location: Box<str>,
    /// Time since the first attempt that failed after the last that succeeded; `None` when all is
    /// well.
    pub away: Option<Duration>,
    /// The error of the last attempt; `None` when it succeeded.
    pub error: Option<Box<str>>,
    /// The size of the document as it is stored, in bytes; 0 when it was never read.
    pub size: usize,
    /// Number of writes since the start.
    pub writes: u64,
    /// Number of writes that met another replica's and were made anew.
    pub conflicts: u64,
    /// Number of attempts that have failed since the start.
    pub failures: u64,
}

/// The state, changed by the keeper only.
#[derive(Debug)]
pub(super) struct Status {
    location: Box<str>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    since: Option<Instant>,
    error: Option<Box<str>>,
    size: usize,
    writes: u64,
    conflicts: u64,
    failures: u64,
}

impl Status {
    /// Nothing is known of the store yet but its place.
    pub(super) fn new(location: &str) -> Self {
        Self { location: location.into(), known: Mutex::default() }
    }

    /// The store's place in words.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Notes that the store has everything, in a document of this size.
    pub(super) fn succeeded(&self, size: usize) {
        let mut known = self.known();
        if let Some(since) = known.since.take() {
            info!("the store {} is back after {} s", self.location, since.elapsed().as_secs());
        }
        if size >= LARGE && known.size < LARGE {
            warn!("{}", large(size));
        }
        (known.error, known.size) = (None, size);
    }

    /// Notes that an attempt has failed; says so in the log when it is the first, or another error.
    pub(super) fn failed(&self, error: &str, hint: Option<&str>) {
        let mut known = self.known();
        known.failures += 1;
        let since = *known.since.get_or_insert_with(Instant::now);
        if known.error.as_deref() != Some(error) {
            let hint = hint.map(|hint| format!("\n{hint}")).unwrap_or_default();
            warn!(
                "the store cannot be used, for {} s now: {error}; what is known here stays in \
                 use{hint}",
                since.elapsed().as_secs()
            );
        }
        known.error = Some(error.into());
    }

    /// Counts a write.
    pub(super) fn wrote(&self) {
        self.known().writes += 1;
    }

    /// Counts a write that met another replica's.
    pub(super) fn conflicted(&self) {
        self.known().conflicts += 1;
    }

    /// The state now.
    pub(super) fn now(&self) -> FactsStatus {
        let known = self.known();
        FactsStatus {
            location: self.location.clone(),
            away: known.since.map(|since| since.elapsed()),
            error: known.error.clone(),
            size: known.size,
            writes: known.writes,
            conflicts: known.conflicts,
            failures: known.failures,
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The warning of a document of this size in bytes.
pub(super) fn large(size: usize) -> String {
    format!(
        "the document in the store has {} kB; stores hold about 1 MB, beyond which nothing new is \
         kept: fewer users, or one pgimbal for each group of them",
        size / 1000
    )
}
