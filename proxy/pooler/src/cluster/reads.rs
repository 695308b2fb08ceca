//! Which texts only read: the decisions of a pool on one worker, and the catalog of its database by
//! which they are made.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_reads::{Catalog, CatalogRow, Decision, Decisions, Limits, Lookup, parse};

use crate::cluster::decided::Basis;
use crate::cluster::parsing::Parsing;
use crate::ids::PoolId;
use crate::sql::Reading;

/// After a change of the schema the catalog is read again, but not more often than this.
const AGAIN_AFTER_CHANGE: Duration = Duration::from_secs(5);

/// Somebody may change the schema without pgimbal: the catalog is read again after this time.
const LIFETIME: Duration = Duration::from_secs(60);

/// A reading of the catalog that has not ended after this time has failed.
const READING_TIME: Duration = Duration::from_secs(30);

/// The most bytes (64 MiB) that the decisions of all pools on one worker may have: 16 times what one
/// pool may keep, so that a hundred small applications fit, and a thousand pools cannot fill the
/// memory.
const BYTES_OF_A_WORKER: usize = 64 << 20;

/// The catalog of a database, which all workers share: it is read on a server connection of a
/// session whose route is `auto`, after its statement.
#[derive(Debug, Default)]
pub struct SharedCatalog {
    /// Grows by one with each catalog that is another than the one before.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    catalog: Arc<Catalog>,
    /// Older ones that a worker may still have: it takes milliseconds to free one, so that is not
    /// left to the last worker.
    older: Vec<Arc<Catalog>>,
    begun: Option<Begun>,
    reading: Reader,
}

/// The last reading.
#[derive(Debug)]
struct Begun {
    at: Instant,
    /// What was known of the schema then.
    schema_changes: u64,
    /// The functions that count as reads, whatever the catalog says of them (`read_functions`).
    harmless: Vec<String>,
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
    /// Whether the catalog is to be read now, after so many changes of the schema, where the
    /// functions `harmless` count as reads; then nobody else is told so before the reading ends or
    /// takes too long.
    pub(crate) fn begin_reading(
        &self,
        now: Instant,
        schema_changes: u64,
        harmless: &[String],
    ) -> bool {
        let mut state = self.lock();
        let is_due = match (&state.begun, state.reading) {
            (None, _) => true,
            (Some(begun), Reader::Somebody) => now >= begun.at + READING_TIME,
            (Some(begun), Reader::Nobody) => {
                let has_changed =
                    begun.schema_changes != schema_changes || begun.harmless != harmless;
                let again_after = if has_changed { AGAIN_AFTER_CHANGE } else { LIFETIME };
                now >= begun.at + again_after
            }
        };
        if is_due {
            state.begun = Some(Begun { at: now, schema_changes, harmless: harmless.to_vec() });
            state.reading = Reader::Somebody;
        }
        is_due
    }

    /// The rows of the catalog query have come; `None` if the server has refused it. What was known
    /// before holds then, and where a row makes no sense or there are too many. It may take
    /// milliseconds, so it is not for a worker's turn.
    pub(crate) fn end_reading(&self, rows: Option<&[[String; 3]]>) {
        let rows =
            rows.map(|rows| rows.iter().map(|[kind, name, via]| CatalogRow { kind, name, via }));
        // Not under the lock: workers look at it.
        let harmless = self.lock().begun.as_ref().map(|begun| begun.harmless.clone());
        let harmless = harmless.unwrap_or_default();
        let harmless = harmless.iter().map(String::as_str);
        let catalog = rows.and_then(|rows| Catalog::from_rows(rows, harmless).ok());
        let before = self.current();
        let changed = catalog.filter(|catalog| *catalog != *before);
        let unused = {
            let mut state = self.lock();
            state.reading = Reader::Nobody;
            if let Some(catalog) = changed {
                let older = std::mem::replace(&mut state.catalog, Arc::new(catalog));
                state.older.push(older);
                self.version.fetch_add(1, Release);
            }
            // Of an older one nobody makes another reference.
            let is_unused = |older: &mut Arc<Catalog>| Arc::strong_count(older) == 1;
            state.older.extract_if(.., is_unused).collect::<Vec<_>>()
        };
        drop(unused);
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

/// Has the pools of a worker forget decisions, those with the most first, until all together have
/// few enough. The texts are decided anew when they come again.
pub(crate) fn bound_decisions<'a>(reads: impl Iterator<Item = &'a mut Reads>) {
    forget_largest(reads.collect(), BYTES_OF_A_WORKER);
}

fn forget_largest(mut reads: Vec<&mut Reads>, most: usize) {
    let mut bytes: usize = reads.iter().map(|reads| reads.decisions.bytes()).sum();
    while bytes > most
        && let Some(largest) = reads.iter_mut().max_by_key(|reads| reads.decisions.bytes())
    {
        bytes -= largest.decisions.bytes();
        largest.decisions.clear();
    }
}

/// What is known of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    /// Whether it only reads.
    Known(Decision),
    /// Another thread is asked to parse it.
    Soon,
    /// The other thread has enough to do: the text is parsed when it comes another time.
    AnotherTime,
}

/// The decisions of a pool on one worker.
#[derive(Debug)]
pub(crate) struct Reads {
    pool: PoolId,
    decisions: Decisions,
    catalog: Arc<Catalog>,
    version: u64,
}

impl Reads {
    /// No decisions; texts longer than `text_bytes` are no reads.
    pub(crate) fn new(pool: PoolId, shared: &SharedCatalog, text_bytes: usize) -> Self {
        let limits = Limits { text_bytes, ..Limits::default() };
        let version = shared.version();
        Self { pool, decisions: Decisions::new(limits), catalog: shared.current(), version }
    }

    /// Whether a text only reads. What takes long to parse, `parsing` is asked for.
    pub(crate) fn decide(
        &mut self,
        shared: &SharedCatalog,
        (text, reading): (&[u8], Reading),
        parsing: &mut Parsing,
    ) -> Decided {
        self.follow(shared);
        match self.decisions.lookup(text, reading) {
            Lookup::Known(decision) => Decided::Known(decision),
            Lookup::Short => {
                let decision = parse(text, reading, &self.catalog);
                self.decisions.remember(text, reading, decision.clone());
                Decided::Known(decision)
            }
            Lookup::Long => match parsing.ask(self.pool, (text, reading), &self.catalog) {
                true => Decided::Soon,
                false => Decided::AnotherTime,
            },
        }
    }

    /// Keeps what another thread has decided by `catalog`, unless there is a newer one.
    pub(crate) fn remember_parsed(
        &mut self,
        (text, reading): (&[u8], Reading),
        catalog: &Arc<Catalog>,
        decision: Decision,
    ) {
        if Arc::ptr_eq(&self.catalog, catalog) {
            self.decisions.remember(text, reading, decision);
        }
    }

    /// By what texts are decided now.
    pub(crate) fn basis(&self) -> Basis {
        Basis::new(self.pool, &self.catalog, self.decisions.refusals())
    }

    /// Whether texts are still decided by this.
    pub(crate) fn is_current(&mut self, shared: &SharedCatalog, basis: &Basis) -> bool {
        self.follow(shared);
        basis.is(self.pool, &self.catalog, self.decisions.refusals())
    }

    /// Decides by the newest catalog from here on.
    fn follow(&mut self, shared: &SharedCatalog) {
        if self.version != shared.version() {
            self.version = shared.version();
            self.catalog = shared.current();
            self.decisions.catalog_changed();
        }
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
        let is_due = |seconds, changes| shared.begin_reading(at(seconds), changes, &[]);
        assert!(is_due(0, 0));
        assert!(!is_due(1, 0), "somebody reads it");
        assert!(is_due(30, 0), "that reading has failed");
        shared.end_reading(Some(&[["function", "mine", ""].map(str::to_owned)]));
        assert!(shared.current().is_read());
        assert!(!is_due(89, 0));
        assert!(!is_due(34, 1), "not that often");
        assert!(is_due(35, 1), "the schema has changed");
        shared.end_reading(None);
        assert!(shared.current().is_read(), "what was known holds");
        assert!(!is_due(94, 1));
        assert!(is_due(95, 1), "it may have changed without pgimbal");
    }

    #[test]
    fn a_catalog_is_freed_where_another_one_is_taken_in() {
        let shared = SharedCatalog::default();
        let read =
            |name: &str| shared.end_reading(Some(&[["function", name, ""].map(str::to_owned)]));
        read("mine");
        let worker = shared.current();
        let freed = Arc::downgrade(&worker);
        read("other");
        drop(worker);
        assert!(freed.upgrade().is_some(), "a worker does not free it");
        read("other");
        assert!(freed.upgrade().is_none());
    }

    #[test]
    fn functions_that_the_operator_calls_harmless_are_those_of_the_newest_configuration() {
        let (shared, start) = (SharedCatalog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let rows = [["function", "own", ""], ["own_volatile", "own", ""]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let decision = || parse(b"select own()", Reading::default(), &shared.current());
        assert!(shared.begin_reading(at(0), 0, &[]));
        shared.end_reading(Some(&rows));
        assert!(!decision().is_read());
        let harmless = ["own".to_owned()];
        assert!(!shared.begin_reading(at(4), 0, &harmless), "not that often");
        assert!(shared.begin_reading(at(5), 0, &harmless), "the configuration has changed");
        shared.end_reading(Some(&rows));
        assert!(decision().is_read());
        assert!(!shared.begin_reading(at(64), 0, &harmless));
        assert!(shared.begin_reading(at(64), 0, &[]), "it has changed back");
        shared.end_reading(Some(&rows));
        assert!(!decision().is_read());
    }

    #[test]
    fn the_largest_caches_of_a_worker_are_forgotten_until_all_fit() {
        let shared = SharedCatalog::default();
        let mut caches = [300, 100, 200].map(|texts| {
            let mut reads = Reads::new(PoolId(0), &shared, 1000);
            for n in 0..texts {
                let text = format!("SELECT column_{n}_of FROM goods");
                reads.decide(
                    &shared,
                    (text.as_bytes(), Reading::default()),
                    &mut Parsing::default(),
                );
            }
            reads
        });
        let bytes = |caches: &[Reads; 3]| caches.each_ref().map(|reads| reads.decisions.bytes());
        let [most, least, middle] = bytes(&caches);
        forget_largest(caches.iter_mut().collect(), most + least + middle);
        assert_eq!(bytes(&caches), [most, least, middle]);
        forget_largest(caches.iter_mut().collect(), most + least);
        assert_eq!(bytes(&caches), [0, least, middle]);
        forget_largest(caches.iter_mut().collect(), 10);
        assert_eq!(bytes(&caches), [0, 0, 0]);
    }

    #[test]
    fn a_new_catalog_decides_anew_and_a_refusal_stays() {
        let (shared, reading) = (SharedCatalog::default(), Reading::default());
        let mut reads = Reads::new(PoolId(0), &shared, 1000);
        let mut parsing = Parsing::default();
        let mut is_read = |reads: &mut Reads, text: &[u8]| {
            let decided = reads.decide(&shared, (text, reading), &mut parsing);
            decided == Decided::Known(Decision::Read)
        };
        let text = b"select mine(1)";
        assert!(!is_read(&mut reads, text));
        let before = reads.basis();
        assert!(reads.is_current(&shared, &before));
        shared.end_reading(Some(&[["function", "mine", ""].map(str::to_owned)]));
        assert!(!reads.is_current(&shared, &before), "another catalog");
        assert!(is_read(&mut reads, text));
        let before = reads.basis();
        reads.remember_refused(text, reading);
        assert!(!reads.is_current(&shared, &before), "a refusal");
        assert!(!is_read(&mut reads, b"select mine(2)"));
        shared.end_reading(Some(&[["function", "mine", ""].map(str::to_owned)]));
        assert!(!is_read(&mut reads, text));
    }

    #[test]
    fn what_takes_long_to_parse_is_known_soon_unless_the_catalog_changes() {
        let (shared, reading) = (SharedCatalog::default(), Reading::default());
        let mut reads = Reads::new(PoolId(0), &shared, 1 << 20);
        let mut parsing = Parsing::default();
        let text = ("select a".to_owned() + &", a".repeat(500)).into_bytes();
        let text = (&text[..], reading);
        assert_eq!(reads.decide(&shared, text, &mut parsing), Decided::Soon);
        let catalog = shared.current();
        shared.end_reading(Some(&[["function", "mine", ""].map(str::to_owned)]));
        assert_eq!(reads.decide(&shared, text, &mut parsing), Decided::Soon);
        reads.remember_parsed(text, &catalog, Decision::Read);
        assert_eq!(reads.decide(&shared, text, &mut parsing), Decided::Soon, "by an old catalog");
        reads.remember_parsed(text, &shared.current(), Decision::Read);
        let known = Decided::Known(Decision::Read);
        assert_eq!(reads.decide(&shared, text, &mut parsing), known);
    }
}
