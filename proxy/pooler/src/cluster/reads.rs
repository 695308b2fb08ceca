//! Which texts only read: the decisions of a pool on one worker, and the catalog of its database by
//! which they are made.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_reads::{Catalog, CatalogRow, Decision, Decisions, Limits, PARSED_AT_ONCE, parse};

use crate::sql::Reading;

/// After a change of the schema the catalog is read again, but not more often than this.
const AGAIN_AFTER_CHANGE: Duration = Duration::from_secs(5);

/// Somebody may change the schema without pgimbal: the catalog is read again after this time.
const LIFETIME: Duration = Duration::from_secs(60);

/// A reading of the catalog that has not ended after this time has failed.
const READING_TIME: Duration = Duration::from_secs(30);

/// The catalog of a database, which all workers share: it is read on a server connection of a
/// session whose route is `auto`, after its statement.
#[derive(Debug, Default)]
pub struct SharedCatalog {
    /// Grows by one with each catalog that is read.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    catalog: Arc<Catalog>,
    /// When the last reading has begun, and what was known of the schema then.
    begun: Option<(Instant, u64)>,
    reading: Reader,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reader {
    /// Nobody reads it.
    #[default]
    Nobody,
    /// Somebody does.
    Somebody,
}

impl SharedCatalog {
    /// Whether the catalog is to be read now, after so many changes of the schema; then nobody else
    /// is told so before the reading ends or takes too long.
    pub(crate) fn begin_reading(&self, now: Instant, schema_changes: u64) -> bool {
        let mut state = self.lock();
        let is_due = match (state.begun, state.reading) {
            (None, _) => true,
            (Some((at, _)), Reader::Somebody) => now >= at + READING_TIME,
            (Some((at, known)), Reader::Nobody) => {
                let changed = known != schema_changes && now >= at + AGAIN_AFTER_CHANGE;
                changed || now >= at + LIFETIME
            }
        };
        if is_due {
            state.begun = Some((now, schema_changes));
            state.reading = Reader::Somebody;
        }
        is_due
    }

    /// The rows of the catalog query have come; `None` if the server has refused it. What was known
    /// before holds then, and where a row makes no sense.
    pub(crate) fn end_reading(&self, rows: Option<&[[String; 3]]>) {
        let rows =
            rows.map(|rows| rows.iter().map(|[kind, name, via]| CatalogRow { kind, name, via }));
        let catalog = rows.and_then(|rows| Catalog::from_rows(rows, []).ok());
        let mut state = self.lock();
        state.reading = Reader::Nobody;
        if let Some(catalog) = catalog {
            state.catalog = Arc::new(catalog);
            self.version.fetch_add(1, Release);
        }
    }

    /// Returns the catalog as it was last read; one that knows only a fixed list of functions
    /// before.
    #[must_use]
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.lock().catalog)
    }

    fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The decisions of a pool on one worker.
#[derive(Debug)]
pub(crate) struct Reads {
    decisions: Decisions,
    catalog: Arc<Catalog>,
    version: u64,
}

impl Reads {
    /// No decisions; texts longer than `text_bytes` are no reads.
    pub(crate) fn new(shared: &SharedCatalog, text_bytes: usize) -> Self {
        let limits = Limits { text_bytes: text_bytes.min(PARSED_AT_ONCE), ..Limits::default() };
        let version = shared.version();
        Self { decisions: Decisions::new(limits), catalog: shared.current(), version }
    }

    /// Whether a text only reads.
    pub(crate) fn decide(
        &mut self,
        shared: &SharedCatalog,
        text: &[u8],
        reading: Reading,
    ) -> Decision {
        if self.version != shared.version() {
            self.version = shared.version();
            self.catalog = shared.current();
            self.decisions.catalog_changed();
        }
        if let Some(decision) = self.decisions.lookup(text, reading) {
            return decision;
        }
        let decision = parse(text, reading, &self.catalog);
        self.decisions.remember(text, reading, decision.clone());
        decision
    }

    /// A replica has refused a text.
    pub(crate) fn remember_refused(&mut self, text: &[u8], reading: Reading) {
        self.decisions.remember_refused(text, reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_is_read_by_one_at_a_time_and_again_after_a_change() {
        let (shared, start) = (SharedCatalog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(shared.begin_reading(at(0), 0));
        assert!(!shared.begin_reading(at(1), 0), "somebody reads it");
        assert!(shared.begin_reading(at(30), 0), "that reading has failed");
        shared.end_reading(Some(&[["function", "mine", ""].map(str::to_owned)]));
        assert!(shared.current().is_read());
        assert!(!shared.begin_reading(at(89), 0));
        assert!(!shared.begin_reading(at(34), 1), "not that often");
        assert!(shared.begin_reading(at(35), 1), "the schema has changed");
        shared.end_reading(None);
        assert!(shared.current().is_read(), "what was known holds");
        assert!(!shared.begin_reading(at(94), 1));
        assert!(shared.begin_reading(at(95), 1), "it may have changed without pgimbal");
    }

    #[test]
    fn a_new_catalog_decides_anew_and_a_refusal_stays() {
        let (shared, reading) = (SharedCatalog::default(), Reading::default());
        let mut reads = Reads::new(&shared, 1000);
        let text = b"select mine(1)";
        assert!(!reads.decide(&shared, text, reading).is_read());
        shared.end_reading(Some(&[["function", "mine", ""].map(str::to_owned)]));
        assert!(reads.decide(&shared, text, reading).is_read());
        reads.remember_refused(text, reading);
        assert!(!reads.decide(&shared, b"select mine(2)", reading).is_read());
        shared.end_reading(Some(&[["function", "mine", ""].map(str::to_owned)]));
        assert!(!reads.decide(&shared, text, reading).is_read());
    }
}
