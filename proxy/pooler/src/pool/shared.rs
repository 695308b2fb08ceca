//! What the workers share about a pool: counts and the first server's welcome.
//!
//! Checkout and check-in touch one atomic of the worker's own; everything else here is used when a
//! connection opens, closes or moves.

mod count;
mod startup;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_config::Backoff;

pub use self::count::SharedCount;
pub use self::startup::TriedStartup;

use crate::ids::WorkerId;
use crate::server::reported::NamedValue;
use crate::session::state::facts::DatabaseFacts;

/// What all pools of one database share, on every worker.
#[derive(Debug, Default)]
pub struct SharedDatabase {
    /// Its server connections.
    pub open: SharedCount,
    /// What decides what its statements may leave in a session.
    pub facts: DatabaseFacts,
    schema_changes: AtomicU64,
}

impl SharedDatabase {
    /// How many changes of the schema have passed through; part of a statement's identity.
    #[must_use]
    pub fn schema_changes(&self) -> u64 {
        self.schema_changes.load(Relaxed)
    }

    /// Notes a change: statements parsed from now on are parsed anew.
    pub fn schema_changed(&self) {
        self.schema_changes.fetch_add(1, Relaxed);
    }
}

/// One worker's part of a pool, seen by the others.
#[derive(Debug, Default)]
pub struct Share {
    /// Its server connections, idle or not.
    pub open: AtomicU32,
    /// Its idle server connections.
    pub idle: AtomicU32,
    /// Its clients of this pool.
    pub sessions: AtomicU32,
}

/// What a server said of itself at login: the settings it reports. The first login to a pool waits
/// for it; later ones get this copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// ParameterStatus, name and value.
    pub parameters: Vec<NamedValue>,
}

/// What the failovers of a cluster meant to clients, over all workers.
#[derive(Debug, Default)]
pub struct SharedCluster {
    /// Sessions that wait for one of its server connections now, on all workers.
    pub waiting: AtomicU32,
    /// Transactions and statements that waited for a primary.
    pub held: AtomicU64,
    /// Statements that were run again.
    pub rerun: AtomicU64,
    /// Clients that were told an error because of it.
    pub failed: AtomicU64,
    /// Those among them whose statement may or may not have taken effect.
    pub outcome_unknown: AtomicU64,
}

/// One pool as all workers see it.
#[derive(Debug)]
pub struct SharedPool {
    open: SharedCount,
    pinned: SharedCount,
    /// Each worker's part, by worker number.
    pub shares: Box<[Share]>,
    /// What is shared with the other pools of the database.
    pub database: Arc<SharedDatabase>,
    /// Server connections of the user, over all databases.
    pub user_open: Arc<SharedCount>,
    /// What is shared with the other pools of the cluster.
    pub cluster: Option<Arc<SharedCluster>>,
    welcome: Mutex<Option<Arc<Welcome>>>,
    tried: Mutex<Vec<Arc<TriedStartup>>>,
    dials: Mutex<Dials>,
}

/// How the attempts to open a server connection go.
#[derive(Debug, Default)]
struct Dials {
    /// The last attempt succeeded, so that several may be made at once.
    proven: bool,
    /// The one attempt that is made while nothing is proven.
    probing: bool,
    failure: Option<Failure>,
}

/// Why no server connection can be opened for now.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The body of the ErrorResponse that tells clients.
    pub error: Arc<[u8]>,
    /// When the next attempt may be made.
    pub retry_at: Instant,
    backoff: Backoff,
    audience: Audience,
    /// When the failures began that this is the last of.
    since: Instant,
}

/// Who is told of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody who waits.
    Waiters,
    /// Nobody: another node may serve those who wait.
    Nobody,
}

/// The first pause after a failed dial; it doubles up to `server_login_retry`.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// The limits for one more server connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the pool.
    pub pool: u32,
    /// Of the database, all pools together.
    pub database: u32,
    /// Of the user, over all databases.
    pub user: u32,
}

impl SharedPool {
    /// A pool that `workers` workers may use.
    #[must_use]
    pub fn new(workers: usize, database: Arc<SharedDatabase>, user: Arc<SharedCount>) -> Self {
        Self {
            open: SharedCount::default(),
            pinned: SharedCount::default(),
            shares: (0..workers).map(|_| Share::default()).collect(),
            database,
            user_open: user,
            cluster: None,
            welcome: Mutex::new(None),
            tried: Mutex::default(),
            dials: Mutex::new(Dials::default()),
        }
    }

    /// The same, of a cluster.
    #[must_use]
    pub fn of_cluster(mut self, cluster: Arc<SharedCluster>) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Takes the place of one more server connection of `worker`'s, if every limit allows it, no
    /// failure is too recent, and no other attempt is out to prove that there is a server at all.
    /// The attempt's end must be told: [`Self::dial_succeeded`] or [`Self::dial_failed`].
    pub fn open(self: &Arc<Self>, worker: WorkerId, limits: Limits, now: Instant) -> Option<Slot> {
        let mut dials = self.dials();
        if dials.probing || dials.failure.as_ref().is_some_and(|failure| failure.retry_at > now) {
            return None;
        }
        // What was proven by servers that are all gone may not hold any more.
        let proven = dials.proven && self.open.get() > 0;
        if !self.open.take(limits.pool) {
            return None;
        }
        if !self.database.open.take(limits.database) {
            self.open.give_back();
            return None;
        }
        if !self.user_open.take(limits.user) {
            self.database.open.give_back();
            self.open.give_back();
            return None;
        }
        dials.probing = !proven;
        self.share(worker).open.fetch_add(1, Relaxed);
        Some(Slot { pool: Arc::clone(self), worker })
    }

    /// A server connection was opened.
    pub fn dial_succeeded(&self) {
        *self.dials() = Dials { proven: true, probing: false, failure: None };
    }

    /// A server connection could not be opened: a pause follows, at most `longest`.
    pub fn dial_failed(
        &self,
        error: Arc<[u8]>,
        now: Instant,
        longest: Duration,
        audience: Audience,
    ) {
        let mut dials = self.dials();
        let last = dials.failure.as_ref();
        let mut backoff = last.map_or(Backoff::new(FIRST_RETRY), |last| last.backoff);
        // Parallel dials that fail together are one failure.
        let same = last.filter(|last| last.retry_at > now).and_then(|last| last.backoff.current());
        let retry_at = now + same.unwrap_or_else(|| backoff.grow(longest));
        let since = last.map_or(now, |last| last.since);
        let failure = Some(Failure { error, retry_at, backoff, audience, since });
        *dials = Dials { proven: false, probing: false, failure };
    }

    /// The next attempt may be made at once.
    pub fn forget_failure(&self) {
        self.dials().failure = None;
    }

    /// The error to answer with at once: while a failure's pause lasts and no server connection
    /// lives, or is being opened, that could still serve.
    #[must_use]
    pub fn standing_failure(&self, now: Instant) -> Option<Arc<[u8]>> {
        if self.open_count() > 0 {
            return None;
        }
        let dials = self.dials();
        let failure = dials.failure.as_ref().filter(|failure| failure.retry_at > now)?;
        if failure.audience == Audience::Nobody {
            return None;
        }
        Some(Arc::clone(&failure.error))
    }

    /// Since when attempts have failed of which nobody is told.
    #[must_use]
    pub fn quietly_failing_since(&self) -> Option<Instant> {
        let dials = self.dials();
        let quiet = dials.failure.as_ref().filter(|f| f.audience == Audience::Nobody)?;
        Some(quiet.since)
    }

    /// The body of the ErrorResponse for the last attempt, if that failed.
    #[must_use]
    pub fn last_failure(&self) -> Option<Arc<[u8]>> {
        self.dials().failure.as_ref().map(|failure| Arc::clone(&failure.error))
    }

    fn dials(&self) -> MutexGuard<'_, Dials> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a limit that several pools share (of the database, of the user) has kept somebody
    /// from opening a server connection since this was last asked.
    pub fn stands_in_the_way(&self) -> bool {
        self.database.open.was_crowded() || self.user_open.was_crowded()
    }

    /// Takes one of the `limit` places for pinned sessions.
    pub fn pin(self: &Arc<Self>, limit: u32) -> Option<PinSlot> {
        self.pinned.take(limit).then(|| PinSlot(Arc::clone(self)))
    }

    /// Server connections of the pool, those being opened included.
    #[must_use]
    pub fn open_count(&self) -> u32 {
        self.open.get()
    }

    /// Server connections that pinned sessions hold.
    #[must_use]
    pub fn pinned_count(&self) -> u32 {
        self.pinned.get()
    }

    /// One worker's part.
    #[must_use]
    pub fn share(&self, worker: WorkerId) -> &Share {
        &self.shares[usize::from(worker.0)]
    }

    /// The first server's welcome, once there was one.
    #[must_use]
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what the newest server connection said.
    pub fn set_welcome(&self, welcome: Welcome) {
        let mut kept = self.welcome.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_deref() != Some(&welcome) {
            *kept = Some(Arc::new(welcome));
            // Another server may spell and check otherwise.
            self.tried().clear();
        }
    }
}

/// The place of one server connection; given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    pool: Arc<SharedPool>,
    worker: WorkerId,
}

impl Slot {
    /// The connection moves to another worker.
    pub fn move_to(&mut self, worker: WorkerId) {
        self.pool.share(self.worker).open.fetch_sub(1, Relaxed);
        self.worker = worker;
        self.pool.share(worker).open.fetch_add(1, Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.share(self.worker).open.fetch_sub(1, Relaxed);
        self.pool.user_open.give_back();
        self.pool.database.open.give_back();
        self.pool.open.give_back();
    }
}

/// The place of one pinned session; given back when it is dropped.
#[derive(Debug)]
pub struct PinSlot(Arc<SharedPool>);

impl Drop for PinSlot {
    fn drop(&mut self) {
        self.0.pinned.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_on_every_path() {
        let database = Arc::new(SharedDatabase::default());
        let user = Arc::new(SharedCount::default());
        let pool = Arc::new(SharedPool::new(2, Arc::clone(&database), Arc::clone(&user)));
        let limits = Limits { pool: 2, database: 2, user: 1 };
        let now = Instant::now();
        let mut slot = pool.open(WorkerId(0), limits, now).unwrap();
        pool.dial_succeeded();
        assert!(pool.open(WorkerId(1), limits, now).is_none(), "the user's limit");
        assert!(user.was_crowded() && !user.was_crowded() && !database.open.was_crowded());
        assert_eq!((pool.open_count(), database.open.get(), user.get()), (1, 1, 1));
        slot.move_to(WorkerId(1));
        assert_eq!(pool.share(WorkerId(0)).open.load(Relaxed), 0);
        assert_eq!(pool.share(WorkerId(1)).open.load(Relaxed), 1);
        drop(slot);
        assert_eq!((pool.open_count(), database.open.get(), user.get()), (0, 0, 0));
        assert_eq!(pool.share(WorkerId(1)).open.load(Relaxed), 0);
    }

    #[test]
    fn behaviour_43_one_attempt_until_a_server_has_answered() {
        let user = Arc::new(SharedCount::default());
        let pool = Arc::new(SharedPool::new(2, Arc::default(), user));
        let limits = Limits { pool: 9, database: 9, user: 9 };
        let start = Instant::now();
        let slot = pool.open(WorkerId(0), limits, start).unwrap();
        assert!(pool.open(WorkerId(1), limits, start).is_none(), "one is out already");
        drop(slot);
        pool.dial_failed(Arc::from(&b"no"[..]), start, Duration::from_secs(15), Audience::Waiters);
        assert_eq!(pool.standing_failure(start).as_deref(), Some(&b"no"[..]));
        assert!(pool.open(WorkerId(1), limits, start).is_none(), "too soon");
        let later = start + FIRST_RETRY;
        assert!(pool.standing_failure(later).is_none());
        let first = pool.open(WorkerId(1), limits, later).unwrap();
        pool.dial_failed(Arc::from(&b"no"[..]), later, Duration::from_secs(15), Audience::Waiters);
        drop(first);
        assert!(pool.open(WorkerId(1), limits, later + FIRST_RETRY).is_none(), "pauses double");
        let _one = pool.open(WorkerId(1), limits, later + 2 * FIRST_RETRY).unwrap();
        pool.dial_succeeded();
        assert!(pool.open(WorkerId(0), limits, later).is_some());
        assert!(pool.open(WorkerId(1), limits, later).is_some());
    }
}
