//! What the workers share about a pool: counts and the first server's welcome.
//!
//! Checkout and check-in touch one atomic of the worker's own; everything else here is used when a
//! connection opens, closes or moves.

mod count;
mod startup;
mod writes;

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_config::Backoff;

pub use self::count::SharedCount;
pub use self::startup::TriedStartup;
pub use self::writes::DatabaseWrites;

use super::budget::{Budgets, ConnectionBudget, Token, Wish};
use crate::cluster::reads::SharedCatalog;
use crate::ids::WorkerId;
use crate::server::reported::NamedValue;
use crate::session::state::facts::DatabaseFacts;
use crate::topology::NodeId;

/// What all pools of one database share, over all users and workers.
#[derive(Debug, Default)]
pub struct SharedDatabase {
    /// The server connections to the database, those being opened included (`max_db_connections`).
    pub open: SharedCount,
    /// What is known of the database that decides what its statements may leave in a session, such
    /// as whether it has event triggers. Its server is asked; an answer holds for 60 s.
    pub facts: DatabaseFacts,
    /// What the database's catalog says of functions and relations, by which texts are reads.
    pub catalog: Arc<SharedCatalog>,
    schema_changes: AtomicU64,
}

impl SharedDatabase {
    /// Returns how many changes of the database's schema have passed through the proxy, on any
    /// worker. A prepared statement is shared only among clients that parsed it at the same count.
    #[must_use]
    pub fn schema_changes(&self) -> u64 {
        self.schema_changes.load(Relaxed)
    }

    /// Counts a change of the schema, once a statement has ended that may have made one: statements
    /// parsed from now on are parsed anew.
    pub fn schema_changed(&self) {
        self.schema_changes.fetch_add(1, Relaxed);
    }
}

/// One worker's part of a pool: its own counts, which the other workers read.
#[derive(Debug, Default)]
pub struct Share {
    /// The worker's server connections of the pool, idle or not, those being opened included.
    pub open: AtomicU32,
    /// The worker's idle server connections of the pool: other workers ask the one with most of
    /// them.
    pub idle: AtomicU32,
    /// The worker's client sessions of the pool; while any worker has one, the pool is not retired.
    pub sessions: AtomicU32,
}

/// What a server said of itself after a login: the settings that it reports. The first client of a
/// pool waits for it; later ones are greeted with this copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The settings that the server told with ParameterStatus when the connection was opened: names
    /// and values.
    pub parameters: Vec<NamedValue>,
}

/// What is counted of a cluster over all workers since the start: what its failovers meant to
/// clients, and the reads of its nodes.
#[derive(Debug, Default)]
pub struct SharedCluster {
    /// How many sessions wait for a server connection of the cluster now, on all workers; compared
    /// with `max_held`.
    pub waiting: AtomicU32,
    /// How many times a transaction or statement began to wait because no server could be used; the
    /// metric `pgimbal_failover_held_total`.
    pub held: AtomicU64,
    /// How many times statements were run again, in a READ ONLY transaction, because their server
    /// connection broke; the metric `pgimbal_failover_rerun_total`.
    pub rerun: AtomicU64,
    /// How many times a client was told an error because of a failover; the metric
    /// `pgimbal_failover_failed_total`.
    pub failed: AtomicU64,
    /// How many times a client was told that nobody knows whether its statement has taken effect
    /// (SQLSTATE 08007); the metric `pgimbal_failover_outcome_unknown_total`.
    pub outcome_unknown: AtomicU64,
    /// The writes to each of its databases, by the server's name of it.
    writes: Mutex<HashMap<Box<str>, Arc<DatabaseWrites>>>,
    /// How many reads each node has served, at the index of its number.
    reads: Mutex<Vec<Arc<AtomicU64>>>,
}

impl SharedCluster {
    /// Returns the counter of a node's reads: statements outside of transactions, and transactions,
    /// that were sent to it as to a replica. The metric `pgimbal_node_reads_total`.
    #[must_use]
    pub fn reads_of(&self, node: NodeId) -> Arc<AtomicU64> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() <= node.index() {
            reads.resize_with(node.index() + 1, Arc::default);
        }
        Arc::clone(&reads[node.index()])
    }

    /// Returns how many reads each node has served, at the index of its number; 0 for a node that
    /// is not in the list.
    #[must_use]
    pub fn reads(&self) -> Vec<u64> {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.iter().map(|counter| counter.load(Relaxed)).collect()
    }

    /// Returns what is shared about the writes to a database, by the server's name of it. It is
    /// kept as long as the cluster.
    #[must_use]
    pub fn writes_to(&self, dbname: &str) -> Arc<DatabaseWrites> {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = writes.get(dbname) {
            return Arc::clone(known);
        }
        Arc::clone(writes.entry(dbname.into()).or_default())
    }
}

/// One pool as all workers see it: the counts that its limits are checked against, the server's
/// welcome, and how the attempts to open a server connection went.
#[derive(Debug)]
pub struct SharedPool {
    open: SharedCount,
    pinned: SharedCount,
    /// Each worker's part, at the index of the worker's number ([`WorkerId`]); as many as there are
    /// workers.
    pub shares: Box<[Share]>,
    /// What is shared with the other pools of the database, such as the count for
    /// `max_db_connections`.
    pub database: Arc<SharedDatabase>,
    /// The server connections of the user, over all databases (`max_user_connections`).
    pub user_open: Arc<SharedCount>,
    /// What is shared with the other pools of the cluster; `None` outside of one.
    pub cluster: Option<Arc<SharedCluster>>,
    /// The budgets of all servers.
    budgets: Arc<Budgets>,
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

/// A failed attempt to open a server connection of a pool, and the pause that follows it. The next
/// attempt that succeeds ends it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The body of the ErrorResponse that clients are told during the pause: the server's own if it
    /// sent one.
    pub error: Arc<[u8]>,
    /// When the next attempt may be made; none is made before.
    pub retry_at: Instant,
    backoff: Backoff,
    audience: Audience,
    /// When the failures began that this is the last of.
    since: Instant,
}

/// Who is told of a failed attempt to open a server connection. That depends on whether the server
/// refused the login or could not be reached, and on whether the pool is on a cluster or has a
/// `failover_hold` ([`DialFailure`](crate::server::life::DialFailure)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every client that waits for a server connection of the pool, and those that come during the
    /// pause.
    Waiters,
    /// No client: another node may serve those who wait, or the server may come back. They wait on,
    /// for `failover_hold` at most.
    Nobody,
}

/// The first pause after a failed dial; it doubles up to `server_login_retry`.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// The limits that are checked before one more server connection is opened, in connections; those
/// being opened count. `u32::MAX` stands for no limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most that the pool may have, over all workers (`pool_size`, perhaps with
    /// `reserve_size`).
    pub pool: u32,
    /// The most that the database may have, over all its pools (`max_db_connections`).
    pub database: u32,
    /// The most that the user may have, over all databases (`max_user_connections`).
    pub user: u32,
}

impl SharedPool {
    /// Makes a pool outside of a cluster, without connections, that `workers` workers may use.
    /// `database` and `user` are what it shares with other pools.
    #[must_use]
    pub fn new(workers: usize, database: Arc<SharedDatabase>, user: Arc<SharedCount>) -> Self {
        Self {
            open: SharedCount::default(),
            pinned: SharedCount::default(),
            shares: (0..workers).map(|_| Share::default()).collect(),
            database,
            user_open: user,
            cluster: None,
            budgets: Arc::default(),
            welcome: Mutex::new(None),
            tried: Mutex::default(),
            dials: Mutex::new(Dials::default()),
        }
    }

    /// Returns the pool as one of a cluster: `cluster` is what it shares with the cluster's other
    /// pools.
    #[must_use]
    pub fn of_cluster(mut self, cluster: Arc<SharedCluster>) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Returns the pool as one whose servers have these budgets, which all pools share. Without
    /// them it has those of its own.
    #[must_use]
    pub fn with_budgets(mut self, budgets: Arc<Budgets>) -> Self {
        self.budgets = budgets;
        self
    }

    /// The budgets of all servers.
    pub(crate) const fn budgets(&self) -> &Arc<Budgets> {
        &self.budgets
    }

    /// Takes the place of one more server connection of `worker`'s, if the counts are below every
    /// limit, the server's budget has a token, no failure's pause lasts, and no other attempt is
    /// out to prove that there is a server at all; otherwise `None`. A refusal by the limit of the
    /// database or user is noted ([`Self::stands_in_the_way`]). The attempt's end must be told:
    /// [`Self::dial_succeeded`] or [`Self::dial_failed`]. The place is given back when the [`Slot`]
    /// is dropped.
    pub fn open(
        self: &Arc<Self>,
        worker: WorkerId,
        limits: Limits,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Option<Slot> {
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
        let Some(token) = wish.budget.take(Arc::as_ptr(self).addr(), worker, wish, now) else {
            self.user_open.give_back();
            self.database.open.give_back();
            self.open.give_back();
            return None;
        };
        dials.probing = !proven;
        self.share(worker).open.fetch_add(1, Relaxed);
        Some(Slot { pool: Arc::clone(self), worker, token, counts: Counts::InPool })
    }

    /// Takes the place of the connection over which `worker` listens for the pool's clients. It
    /// counts in the limits of the database, the user and the server, not in that of the pool,
    /// whose clients may all wait for it.
    ///
    /// # Errors
    /// [`NoPlace`]: there is none now.
    pub(crate) fn open_apart(
        self: &Arc<Self>,
        worker: WorkerId,
        limits: Limits,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Result<Slot, NoPlace> {
        let mut dials = self.dials();
        if dials.probing || dials.failure.as_ref().is_some_and(|failure| failure.retry_at > now) {
            return Err(NoPlace::Later);
        }
        if !self.database.open.take(limits.database) {
            return Err(NoPlace::Full);
        }
        if !self.user_open.take(limits.user) {
            self.database.open.give_back();
            return Err(NoPlace::Full);
        }
        let Some(token) = wish.budget.take(Arc::as_ptr(self).addr(), worker, wish, now) else {
            self.user_open.give_back();
            self.database.open.give_back();
            return Err(NoPlace::Full);
        };
        // What was proven by servers that are all gone may not hold any more.
        dials.probing = !(dials.proven && self.open.get() > 0);
        Ok(Slot { pool: Arc::clone(self), worker, token, counts: Counts::Apart })
    }

    /// Notes that a server connection was opened and, in a cluster, leads where it should: there is
    /// no failure any more, and several attempts may be made at once.
    pub fn dial_succeeded(&self) {
        *self.dials() = Dials { proven: true, probing: false, failure: None };
    }

    /// Notes that a server connection could not be opened. Until a pause is over nobody tries
    /// again, and then one attempt is made at a time: 250 ms after the first failure, twice as long
    /// after each further one, at most `longest`. A failure during the pause, of a parallel
    /// attempt, begins the pause anew but does not lengthen it. `error` is the body of the
    /// ErrorResponse for `audience`. The place in the limits goes back with the [`Slot`].
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

    /// Forgets the last failure and its pause, if there is one: the next attempt may be made at
    /// once, and clients are not told the error any more. Called when what failed may work now, as
    /// after a reload, a change of password, a new view of the cluster or RECONNECT.
    pub fn forget_failure(&self) {
        self.dials().failure = None;
    }

    /// Returns the body of the ErrorResponse to answer clients with at once, at a login, at a
    /// request for a server connection, and for those in the queue. `None` unless a failure's pause
    /// lasts at `now`, clients are to be told of it ([`Audience::Waiters`]), and no server
    /// connection lives, or is being opened, that could still serve.
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

    /// Returns when the failures began of which no client is told ([`Audience::Nobody`]), so that
    /// `failover_hold` can be counted from then: the first failure since the last success, also
    /// when its pause is over. `None` if the last attempt succeeded or was forgotten, or clients
    /// are told of its failure.
    #[must_use]
    pub fn quietly_failing_since(&self) -> Option<Instant> {
        let dials = self.dials();
        let quiet = dials.failure.as_ref().filter(|f| f.audience == Audience::Nobody)?;
        Some(quiet.since)
    }

    /// Returns for how long attempts have failed; zero if the last one did not.
    pub(crate) fn failing_for(&self, now: Instant) -> Duration {
        self.dials().failure.as_ref().map_or(Duration::ZERO, |last| now - last.since)
    }

    /// Returns the body of the ErrorResponse for the last attempt, also when its pause is over and
    /// whoever its audience is; `None` if that attempt succeeded or was forgotten. Outside of a
    /// cluster its message is part of what clients are told whose wait has lasted for
    /// `failover_hold`.
    #[must_use]
    pub fn last_failure(&self) -> Option<Arc<[u8]>> {
        self.dials().failure.as_ref().map(|failure| Arc::clone(&failure.error))
    }

    fn dials(&self) -> MutexGuard<'_, Dials> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a limit that several pools share (of the database, of the user) has kept any of them
    /// from opening a server connection since this was last asked: then an idle connection of this
    /// pool is given up. Asking clears it, for all pools and workers: that of the user only if that
    /// of the database was not set.
    pub fn stands_in_the_way(&self) -> bool {
        self.database.open.was_crowded() || self.user_open.was_crowded()
    }

    /// Takes one of the `limit` places for pinned sessions of the pool (`max_pinned`), over all
    /// workers; `None` if all are taken, or `limit` is 0. The place is given back when the
    /// [`PinSlot`] is dropped.
    pub fn pin(self: &Arc<Self>, limit: u32) -> Option<PinSlot> {
        self.pinned.take(limit).then(|| PinSlot(Arc::clone(self)))
    }

    /// Returns how many server connections the pool has on all workers, those being opened
    /// included.
    #[must_use]
    pub fn open_count(&self) -> u32 {
        self.open.get()
    }

    /// Returns how many places for pinned sessions are taken, on all workers; compared with
    /// `max_pinned`. Sessions that are pinned without a place are not counted.
    #[must_use]
    pub fn pinned_count(&self) -> u32 {
        self.pinned.get()
    }

    /// Returns the part of one worker. Panics for a number that is not below that of the workers.
    #[must_use]
    pub fn share(&self, worker: WorkerId) -> &Share {
        &self.shares[usize::from(worker.0)]
    }

    /// Returns what the newest server connection said of itself at login; `None` before the pool's
    /// first.
    #[must_use]
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what the newest server connection said of itself at login, for the greetings of later
    /// clients. If that differs from what was kept, the remembered startup settings
    /// ([`Self::tried_startup`]) are forgotten, for another server may spell and check them
    /// otherwise.
    pub fn set_welcome(&self, welcome: Welcome) {
        let mut kept = self.welcome.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_deref() != Some(&welcome) {
            *kept = Some(Arc::new(welcome));
            // Another server may spell and check otherwise.
            self.tried().clear();
        }
    }
}

/// The place of one server connection in the limits of its pool, database, user and server. It is
/// given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    pool: Arc<SharedPool>,
    worker: WorkerId,
    token: Token,
    counts: Counts,
}

/// Whether a server connection counts in the limit of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    InPool,
    Apart,
}

/// Why there is no place for a connection that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The last attempt to open a connection has failed, or one is under way that must succeed
    /// first.
    Later,
    /// A limit is reached.
    Full,
}

impl Slot {
    /// Counts the server connection for another worker from now on, as when it moves there; the
    /// limits are not touched. Nothing changes if it is that worker's already.
    pub fn move_to(&mut self, worker: WorkerId) {
        self.pool.share(self.worker).open.fetch_sub(1, Relaxed);
        self.worker = worker;
        self.pool.share(worker).open.fetch_add(1, Relaxed);
    }

    /// Whether somebody wants a connection to its server that others have.
    #[inline]
    pub(crate) fn is_contended(&self) -> bool {
        self.token.budget().is_contended()
    }

    /// Whether other replicas could use a connection to its server.
    #[inline]
    pub(crate) fn is_lendable(&self) -> bool {
        self.token.budget().is_lendable()
    }

    /// The budget of its server.
    pub(crate) const fn budget(&self) -> &Arc<ConnectionBudget> {
        self.token.budget()
    }

    /// Its part of the budget of its server.
    pub(crate) const fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.user_open.give_back();
        self.pool.database.open.give_back();
        if self.counts == Counts::InPool {
            self.pool.share(self.worker).open.fetch_sub(1, Relaxed);
            self.pool.open.give_back();
        }
    }
}

/// The place of one pinned session in its pool's limit (`max_pinned`). It is given back when it is
/// dropped.
#[derive(Debug)]
pub struct PinSlot(Arc<SharedPool>);

impl Drop for PinSlot {
    fn drop(&mut self) {
        self.0.pinned.give_back();
    }
}

#[cfg(test)]
mod tests {
    use pgimbal_config::{Host, ServerBudget};

    use super::*;

    fn budget() -> Arc<ConnectionBudget> {
        let config = ServerBudget { limit: pgimbal_config::ServerLimit::Off, ..Default::default() };
        Budgets::default().of(&Host::Tcp("test".to_owned()), 5432, config)
    }

    #[test]
    fn a_place_comes_back_on_every_path() {
        let database = Arc::new(SharedDatabase::default());
        let user = Arc::new(SharedCount::default());
        let pool = Arc::new(SharedPool::new(2, Arc::clone(&database), Arc::clone(&user)));
        let budget = budget();
        let wish = Wish { budget: &budget, role: "app", database: "app", is_awaited: true };
        let limits = Limits { pool: 2, database: 2, user: 1 };
        let now = Instant::now();
        let mut slot = pool.open(WorkerId(0), limits, &wish, now).unwrap();
        pool.dial_succeeded();
        assert!(pool.open(WorkerId(1), limits, &wish, now).is_none(), "the user's limit");
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
        let budget = budget();
        let wish = Wish { budget: &budget, role: "app", database: "app", is_awaited: true };
        let limits = Limits { pool: 9, database: 9, user: 9 };
        let start = Instant::now();
        let slot = pool.open(WorkerId(0), limits, &wish, start).unwrap();
        assert!(pool.open(WorkerId(1), limits, &wish, start).is_none(), "one is out already");
        drop(slot);
        pool.dial_failed(Arc::from(&b"no"[..]), start, Duration::from_secs(15), Audience::Waiters);
        assert_eq!(pool.standing_failure(start).as_deref(), Some(&b"no"[..]));
        assert!(pool.open(WorkerId(1), limits, &wish, start).is_none(), "too soon");
        let later = start + FIRST_RETRY;
        assert!(pool.standing_failure(later).is_none());
        let first = pool.open(WorkerId(1), limits, &wish, later).unwrap();
        pool.dial_failed(Arc::from(&b"no"[..]), later, Duration::from_secs(15), Audience::Waiters);
        drop(first);
        assert!(
            pool.open(WorkerId(1), limits, &wish, later + FIRST_RETRY).is_none(),
            "pauses double"
        );
        let _one = pool.open(WorkerId(1), limits, &wish, later + 2 * FIRST_RETRY).unwrap();
        pool.dial_succeeded();
        assert!(pool.open(WorkerId(0), limits, &wish, later).is_some());
        assert!(pool.open(WorkerId(1), limits, &wish, later).is_some());
    }
}
