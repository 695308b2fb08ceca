//! One worker's part of a pool: idle server connections and the clients that wait for one.

pub mod budget;
pub mod checkout;
pub(crate) mod dial;
pub mod histogram;
pub(crate) mod lockouts;
pub(crate) mod pools;
pub(crate) mod queue;
pub(crate) mod reconfigure;
mod retire;
pub mod retired;
pub mod shared;
pub(crate) mod snapshot;
pub mod stats;
pub mod timers;
mod turns;
pub(crate) mod yielding;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pgimbal_config::{LostTransactionError, ResolvedPool};
use pgimbal_reads::{Catalog, Decision};
use pgimbal_wire::error::SqlState;

use crate::cluster::decided::Basis;
use crate::cluster::parsing::Parsing;
use crate::cluster::reads::{Decided, Reads, SharedCatalog};
use crate::ids::{ClusterId, PoolId, ServerId, SessionId, WorkerId};
use crate::listener::Listener;
use crate::pool::shared::{DatabaseWrites, Limits, Share, SharedPool};
use crate::pool::stats::PoolStats;
use crate::pool::turns::Turns;
use crate::sql::Reading;
use crate::topology::NodeId;

/// Server connections of one pool that one worker opens at a time. A server forks for each, and a
/// storm of 2,000 clients must not become a storm of dials.
const DIALS_LIMIT: u32 = 4;

/// How many server connections make it worth to spread a pool over one more worker. A worker that
/// serves few wakes up for each reply alone: with 20 on two workers instead of one every
/// transaction took 0.2 system calls more and a tenth more CPU time, for the same throughput.
const SERVERS_PER_WORKER: u32 = 24;

/// The name of a pool: clients of one database and one user share its server connections. In a
/// cluster there is one such pool for the primary, and one for each node that may be read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The database's name, as clients say it at login; the server may know it by another.
    pub database: Box<str>,
    /// The user's name, as clients say it at login; the server may know it by another.
    pub user: Box<str>,
    /// Where in its cluster the pool leads: to the primary, or to one node. Outside of a cluster it
    /// is [`Place::Primary`].
    pub place: Place,
}

/// Where in its cluster a pool leads. A pool on no cluster has the place [`Place::Primary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// To the node that writes go to, whichever that is; also the only place of a database that is
    /// on no cluster.
    #[default]
    Primary,
    /// To this node, for reading: for transactions of sessions whose `pgimbal.route` is `replica`.
    Node(NodeId),
}

/// An entry of a pool's queue: a session that waits for a server connection, or for a place among
/// the pinned sessions. The pool has one queue for each, the longest waiter first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The session that waits. It may have left, or wait no more; then the entry is passed over.
    pub session: SessionId,
    /// Since when the session waits: one that has left the queue and waits anew has another entry.
    pub since: Instant,
}

/// One worker's part of a pool: its idle server connections and the sessions that wait for one.
///
/// It publishes its own counts to the other workers ([`SharedPool::share`], the cluster's number of
/// waiting clients): whoever takes or puts cannot forget it.
#[derive(Debug)]
pub struct Pool {
    id: PoolId,
    worker: WorkerId,
    key: PoolKey,
    cluster: Option<ClusterId>,
    /// The pools of the same database and user that lead to one node each.
    replicas: Vec<(NodeId, PoolId)>,
    /// Which texts only read; `None` before a session has wanted to know.
    reads: Option<Box<Reads>>,
    /// Which of equally good replicas is next.
    turn: u32,
    /// What the replica has spent whose turn was the last.
    least_spent: u64,
    /// Its turns, as the pool of a replica.
    turns: Turns,
    /// Until when its node, which has failed, is not chosen.
    left_out_until: Option<Instant>,
    /// Where it leads and how it behaves; replaced by a reload.
    config: Arc<ResolvedPool>,
    shared: Arc<SharedPool>,
    /// The writes to its database; `None` outside of a cluster.
    writes: Option<Arc<DatabaseWrites>>,
    /// The last one released is the first to be used again.
    idle: Vec<ServerId>,
    /// Longest first. An entry whose session waits no more is passed over.
    waiters: VecDeque<Waiter>,
    /// Those who wait for a place among the pinned sessions, longest first.
    place_waiters: VecDeque<Waiter>,
    /// What listens for the pool's clients; `None` while none of them listens.
    listener: Option<Box<Listener>>,
    /// Sessions that wait, without the entries of those that do no more.
    waiting: u32,
    /// Logins that wait for the first server connection's welcome.
    logins: Vec<SessionId>,
    dialing: u32,
    /// Its last wish for a server connection was refused because the server's budget is used up.
    has_claim: bool,
    /// When another worker was last asked for an idle server connection.
    asked_at: Option<Instant>,
    /// Workers that have asked for an idle server connection.
    asked_by: VecDeque<WorkerId>,
    sessions: u32,
    /// Since when no worker has used it.
    unused_since: Option<Instant>,
    is_retired: bool,
    stats: PoolStats,
}

impl Pool {
    /// Makes a pool of `worker` without connections or sessions, under the number `id`. `cluster`
    /// is the one that it leads to, `None` outside of one; `shared` is what all workers' parts have
    /// in common.
    #[must_use]
    pub fn new(
        id: PoolId,
        worker: WorkerId,
        key: PoolKey,
        cluster: Option<ClusterId>,
        config: Arc<ResolvedPool>,
        shared: Arc<SharedPool>,
    ) -> Self {
        Self {
            id,
            worker,
            cluster,
            replicas: Vec::new(),
            reads: None,
            turn: 0,
            least_spent: 0,
            turns: turns_of(&key, &shared),
            left_out_until: None,
            writes: writes_of(&config, &shared),
            key,
            config,
            shared,
            idle: Vec::new(),
            waiters: VecDeque::new(),
            place_waiters: VecDeque::new(),
            listener: None,
            waiting: 0,
            logins: Vec::new(),
            dialing: 0,
            has_claim: false,
            asked_at: None,
            asked_by: VecDeque::new(),
            sessions: 0,
            unused_since: None,
            is_retired: false,
            stats: PoolStats::default(),
        }
    }

    /// Returns the pool's number on this worker; other workers have other numbers for their parts.
    #[must_use]
    pub const fn id(&self) -> PoolId {
        self.id
    }

    /// Returns the pool's name: database, user and place. Every worker's part has the same.
    #[must_use]
    pub const fn key(&self) -> &PoolKey {
        &self.key
    }

    /// Returns where in its cluster the pool leads; [`Place::Primary`] outside of one.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.key.place
    }

    /// Returns the cluster that the pool leads to; `None` outside of one.
    #[inline]
    #[must_use]
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Returns the pool's configuration: where it leads, its login, its limits and time-outs. A
    /// reload replaces it.
    #[inline]
    #[must_use]
    pub fn config(&self) -> &ResolvedPool {
        &self.config
    }

    /// Returns what the workers share of the pool: counts, the server's welcome, failed attempts.
    #[inline]
    #[must_use]
    pub const fn shared(&self) -> &Arc<SharedPool> {
        &self.shared
    }

    /// When the pool's database was last written to; `None` outside of a cluster.
    pub(crate) fn writes(&self) -> Option<&DatabaseWrites> {
        self.writes.as_deref()
    }

    /// Returns the pool's counters on this worker; they begin at zero when the worker makes the
    /// pool.
    #[must_use]
    pub const fn stats(&self) -> &PoolStats {
        &self.stats
    }

    /// As [`Self::stats`], to be counted in.
    #[inline]
    pub(crate) const fn stats_mut(&mut self) -> &mut PoolStats {
        &mut self.stats
    }

    /// Puts a new configuration in force and returns the old one. `cluster` is where it leads now.
    pub(crate) fn reconfigure(
        &mut self,
        config: Arc<ResolvedPool>,
        cluster: Option<ClusterId>,
    ) -> Arc<ResolvedPool> {
        if self.cluster != cluster {
            self.cluster = cluster;
            self.replicas.clear();
        }
        // What failed before may work now.
        self.shared.forget_failure();
        self.writes = writes_of(&config, &self.shared);
        std::mem::replace(&mut self.config, config)
    }

    /// Takes the idle server connection that was released last.
    #[inline]
    pub(crate) fn take_idle(&mut self) -> Option<ServerId> {
        let idle = self.idle.pop()?;
        self.publish_idle();
        Some(idle)
    }

    /// Puts a server connection among the idle ones; it is the next to be taken.
    #[inline]
    pub(crate) fn put_idle(&mut self, server: ServerId) {
        self.idle.push(server);
        self.publish_idle();
    }

    /// Takes this server connection out of the idle ones. Returns whether it was among them.
    pub(crate) fn remove_idle(&mut self, server: ServerId) -> bool {
        let before = self.idle.len();
        self.idle.retain(|idle| *idle != server);
        self.publish_idle();
        self.idle.len() < before
    }

    /// Returns the idle server connections of this worker, the one released last at the end: that
    /// one is the next to be used.
    #[must_use]
    pub fn idle(&self) -> &[ServerId] {
        &self.idle
    }

    /// Publishes the number of idle connections to the other workers.
    #[inline]
    fn publish_idle(&self) {
        self.share().idle.store(self.idle.len() as u32, Relaxed);
    }

    /// This worker's part of the shared counts.
    #[inline]
    pub(crate) fn share(&self) -> &Share {
        self.shared.share(self.worker)
    }

    /// Server connections of this worker, idle or not, those being opened included.
    pub(crate) fn open_here(&self) -> u32 {
        self.share().open.load(Relaxed)
    }

    /// A session waits for a server connection from now on.
    pub(crate) fn enqueue(&mut self, waiter: Waiter) {
        self.waiters.push_back(waiter);
        self.waiting += 1;
        if let Some(cluster) = &self.shared.cluster {
            cluster.waiting.fetch_add(1, Relaxed);
        }
    }

    /// The entry at the head of the queue, whose session may wait no more.
    pub(crate) fn first_waiter(&self) -> Option<Waiter> {
        self.waiters.front().copied()
    }

    /// Takes the entry at the head of the queue. If its session still waits, [`Self::end_wait`]
    /// follows.
    pub(crate) fn pop_waiter(&mut self) -> Option<Waiter> {
        self.waiters.pop_front()
    }

    /// Takes all entries of the queue; [`Self::end_wait`] follows for each that still waits.
    pub(crate) fn take_waiters(&mut self) -> VecDeque<Waiter> {
        std::mem::take(&mut self.waiters)
    }

    /// The entries of the queue, longest first.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = Waiter> {
        self.waiters.iter().copied()
    }

    /// One session less waits. Returns whether entries of sessions that wait no more are the
    /// majority, so that [`Self::sweep_waiters`] is worth its walk.
    pub(crate) fn end_wait(&mut self) -> bool {
        self.waiting -= 1;
        if let Some(cluster) = &self.shared.cluster {
            cluster.waiting.fetch_sub(1, Relaxed);
        }
        self.waiters.len() > 2 * self.waiting as usize + 16
    }

    /// Drops the entries of sessions that wait no more.
    pub(crate) fn sweep_waiters(&mut self, still_waits: impl Fn(Waiter) -> bool) {
        self.waiters.retain(|waiter| still_waits(*waiter));
    }

    /// Returns how many sessions of this worker wait for a server connection; entries of the queue
    /// whose session waits no more do not count.
    #[inline]
    #[must_use]
    pub const fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Returns how many entries the queue has, those of sessions that wait no more included. Such
    /// entries are dropped as they come to the head of the queue, and all at once when there are
    /// over 16 more of them than sessions that wait ([`Self::waiting`]).
    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiters.len()
    }

    /// Returns how many client sessions of this worker belong to the pool, idle ones included; 0 if
    /// none.
    #[must_use]
    pub const fn sessions(&self) -> u32 {
        self.sessions
    }

    /// Whether the queue has an entry.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Sessions that wait for a place among the pinned ones, longest first.
    pub(crate) const fn place_waiters(&self) -> &VecDeque<Waiter> {
        &self.place_waiters
    }

    /// As [`Self::place_waiters`], to be changed.
    pub(crate) const fn place_waiters_mut(&mut self) -> &mut VecDeque<Waiter> {
        &mut self.place_waiters
    }

    /// What listens for the pool's clients; `None` while none of them listens.
    #[inline]
    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_deref()
    }

    /// As [`Self::listener`], to be changed.
    #[inline]
    pub(crate) fn listener_mut(&mut self) -> Option<&mut Listener> {
        self.listener.as_deref_mut()
    }

    /// As [`Self::listener`], made if there is none yet.
    pub(crate) fn listener_or_new(&mut self) -> &mut Listener {
        self.listener.get_or_insert_default()
    }

    /// Nobody listens any more.
    pub(crate) fn drop_listener(&mut self) {
        self.listener = None;
    }

    /// Returns the sessions that have logged in and wait to be greeted: the pool's first server
    /// connection must tell its settings first. Empty once it has.
    #[must_use]
    pub fn logins(&self) -> &[SessionId] {
        &self.logins
    }

    /// A login waits, if it does not already.
    pub(crate) fn add_login(&mut self, session: SessionId) {
        if !self.logins.contains(&session) {
            self.logins.push(session);
        }
    }

    /// A login waits no more.
    pub(crate) fn remove_login(&mut self, session: SessionId) {
        self.logins.retain(|login| *login != session);
    }

    /// Takes all logins that wait.
    pub(crate) fn take_logins(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.logins)
    }

    /// Whether somebody waits, for a server connection or to be greeted.
    #[inline]
    pub(crate) fn has_anybody_waiting(&self) -> bool {
        self.waiting > 0 || !self.logins.is_empty()
    }

    /// Server connections being opened.
    pub(crate) const fn dialing(&self) -> u32 {
        self.dialing
    }

    /// Whether it waits for a part of its server's budget.
    pub(crate) const fn has_claim(&self) -> bool {
        self.has_claim
    }

    /// Notes whether its last wish was refused because the server's budget is used up.
    pub(crate) const fn note_claim(&mut self, has_claim: bool) {
        self.has_claim = has_claim;
    }

    /// A server connection is being opened.
    pub(crate) const fn begin_dial(&mut self) {
        self.dialing += 1;
    }

    /// An attempt to open one has ended, in whatever way.
    pub(crate) const fn end_dial(&mut self) {
        self.dialing -= 1;
    }

    /// A client of this worker belongs to it from now on.
    pub(crate) fn add_session(&mut self) {
        self.sessions += 1;
        self.share().sessions.fetch_add(1, Relaxed);
    }

    /// A client of this worker has left.
    pub(crate) fn remove_session(&mut self, session: SessionId) {
        self.sessions -= 1;
        self.share().sessions.fetch_sub(1, Relaxed);
        self.remove_login(session);
    }

    /// Another worker asks for an idle server connection: it gets the next one that can be spared.
    pub(crate) fn ask_by(&mut self, worker: WorkerId) {
        if !self.asked_by.contains(&worker) {
            self.asked_by.push_back(worker);
        }
    }

    /// Takes the worker that has asked first.
    pub(crate) fn pop_asking_worker(&mut self) -> Option<WorkerId> {
        self.asked_by.pop_front()
    }

    /// Whether another worker may be asked (again); notes that it is, at `now`.
    pub(crate) fn may_ask(&mut self, now: Instant, again_after: Duration) -> bool {
        let may = self.asked_at.is_none_or(|asked| now - asked >= again_after);
        if may {
            self.asked_at = Some(now);
        }
        may
    }

    /// Another worker has given one: the next may be asked for at once.
    pub(crate) const fn was_given(&mut self) {
        self.asked_at = None;
    }

    /// The pools of the same database and user that lead to one node each.
    pub(crate) fn replicas(&self) -> &[(NodeId, PoolId)] {
        &self.replicas
    }

    /// Adds the pool of a node, unless there is one for that node.
    pub(crate) fn add_replica(&mut self, node: NodeId, pool: PoolId) {
        if !self.replicas.iter().any(|(known, _)| *known == node) {
            self.replicas.push((node, pool));
        }
    }

    /// Decides whether a text only reads, by what the catalog of the pool's database says.
    pub(crate) fn decide_read(
        &mut self,
        text: &[u8],
        reading: Reading,
        parsing: &mut Parsing,
    ) -> Decided {
        let (reads, catalog) = self.reads_and_catalog();
        reads.decide(catalog, (text, reading), parsing)
    }

    /// Another thread has decided by `catalog` whether a text only reads.
    pub(crate) fn remember_parsed(
        &mut self,
        text: (&[u8], Reading),
        catalog: &Arc<Catalog>,
        decision: Decision,
    ) {
        self.reads_and_catalog().0.remember_parsed(text, catalog, decision);
    }

    /// By what texts are decided now.
    pub(crate) fn read_basis(&mut self) -> Basis {
        self.reads_and_catalog().0.basis()
    }

    /// Whether texts are still decided by this.
    pub(crate) fn is_read_basis(&mut self, basis: &Basis) -> bool {
        let (reads, catalog) = self.reads_and_catalog();
        reads.is_current(catalog, basis)
    }

    /// A replica has refused a text: it is no read from now on.
    pub(crate) fn remember_refused(&mut self, text: &[u8], reading: Reading) {
        self.reads_and_catalog().0.remember_refused(text, reading);
    }

    /// The decisions of the pool, if a text has been decided.
    pub(crate) fn reads_mut(&mut self) -> Option<&mut Reads> {
        self.reads.as_deref_mut()
    }

    /// The decisions of the pool, and the catalog of its database.
    fn reads_and_catalog(&mut self) -> (&mut Reads, &SharedCatalog) {
        let Self { id, reads, shared, config, .. } = self;
        let (catalog, limit) = (&*shared.database.catalog, config.pool.max_statement_bytes);
        let reads = reads.get_or_insert_with(|| Box::new(Reads::new(*id, catalog, limit)));
        (reads, catalog)
    }

    /// The replicas, beginning with the one whose turn it is.
    pub(crate) fn replicas_in_turn(&self) -> impl Iterator<Item = (NodeId, PoolId)> {
        let count = self.replicas.len();
        (0..count).map(move |n| self.replicas[(n + self.turn as usize) % count])
    }

    /// A replica was chosen: of equals it is another one's turn.
    pub(crate) const fn next_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// What the replica had spent, before its turn, whose turn was the last.
    pub(crate) const fn least_spent(&self) -> u64 {
        self.least_spent
    }

    /// A replica was chosen that had spent so much before.
    pub(crate) const fn set_least_spent(&mut self, spent: u64) {
        self.least_spent = spent;
    }

    /// Its turns, as the pool of a replica.
    pub(crate) const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// As [`Self::turns`], to be changed.
    pub(crate) const fn turns_mut(&mut self) -> &mut Turns {
        &mut self.turns
    }

    /// The pool's node has failed: it is not chosen before `until`, or before the prober has
    /// looked.
    pub(crate) const fn leave_out(&mut self, until: Instant) {
        self.left_out_until = Some(until);
    }

    /// The prober has looked: the pool's node may be chosen again, and gets its share slowly if it
    /// could not before.
    pub(crate) const fn let_in(&mut self, now: Instant) {
        if self.left_out_until.take().is_some() {
            self.turns.start_slowly(now);
        }
    }

    /// Whether its node may be chosen.
    pub(crate) fn may_be_chosen(&self, now: Instant) -> bool {
        self.left_out_until.is_none_or(|until| until <= now)
    }

    /// Clients of this worker that use or await its server connections.
    pub(crate) fn outstanding(&self) -> u32 {
        self.open_here().saturating_sub(self.idle.len() as u32) + self.waiting
    }

    /// Whether a worker has clients of the pool, or server connections of a pool that has ever had
    /// a working one.
    pub(crate) fn is_used(&self) -> bool {
        let served = self.shared.welcome().is_some();
        let used = |share: &Share| {
            share.sessions.load(Relaxed) > 0 || (served && share.open.load(Relaxed) > 0)
        };
        self.sessions > 0 || self.shared.shares.iter().any(used)
    }

    /// The pool is in use: the time for which it was not begins anew.
    pub(crate) const fn note_used(&mut self) {
        self.unused_since = None;
    }

    /// The pool is not in use at `now`. Returns for how long it has not been.
    pub(crate) fn note_unused(&mut self, now: Instant) -> Duration {
        now - *self.unused_since.get_or_insert(now)
    }

    /// Empties it of everything but its key, until its number is given to another pool.
    pub(crate) fn retire(&mut self, workers: usize) {
        let shared = Arc::new(SharedPool::new(workers, Arc::default(), Arc::default()));
        let (key, config) = (self.key.clone(), Arc::clone(&self.config));
        let empty = Self::new(self.id, self.worker, key, None, config, shared);
        *self = Self { is_retired: true, ..empty };
    }

    /// Whether it is gone, and its number waits for another pool.
    pub(crate) const fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// Returns the limits for one more server connection, from the configuration: `pool_size`, with
    /// `reserve_size` on top of it if the reserve is open, `max_db_connections` and
    /// `max_user_connections`. A limit that is not configured is `u32::MAX`. They go to
    /// [`SharedPool::open`], which refuses where a count has reached its limit.
    #[must_use]
    pub fn limits(&self, reserve: Reserve) -> Limits {
        let pool = &self.config.pool;
        Limits {
            pool: match reserve {
                Reserve::Kept => pool.size,
                Reserve::Open => pool.size.saturating_add(pool.reserve_size),
            },
            database: self.config.max_db_connections.unwrap_or(u32::MAX),
            user: self.config.max_user_connections.unwrap_or(u32::MAX),
        }
    }

    /// Whether one more attempt to open a server connection would help: a session waits for which
    /// none is under way, and fewer than 4 are under way on this worker. All logins that wait to be
    /// greeted count as one session. Limits and pauses are not looked at: [`SharedPool::open`]
    /// checks them.
    #[must_use]
    pub fn wants_dial(&self) -> bool {
        let wanted = self.waiting.max(u32::from(!self.logins.is_empty()));
        self.dialing < wanted.min(DIALS_LIMIT)
    }

    /// Whether the pool leads to a cluster, so that another node's server connection may follow one
    /// that is broken.
    #[inline]
    #[must_use]
    pub const fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// Returns how long the pool's clients wait for a server that is gone (`failover_hold`): the
    /// cluster's, or else the pool's own. `None` where they are told the error at once.
    #[must_use]
    pub fn failover_hold(&self) -> Option<Duration> {
        match &self.config.cluster {
            Some(cluster) => Some(cluster.config.failover_hold),
            None => self.config.pool.failover_hold,
        }
    }

    /// Whether the pool's clients outlive its server (it is on a cluster, or has a
    /// `failover_hold`): they wait for it, and what only reads is run again.
    #[inline]
    #[must_use]
    pub fn outlives_server(&self) -> bool {
        self.is_clustered() || self.config.pool.failover_hold.is_some()
    }

    /// Counts a transaction that has ended on one of the pool's server connections, and took
    /// `time`; in a pool of [`Place::Node`] also as one on a replica.
    #[inline]
    pub fn count_transaction(&mut self, time: Duration) {
        self.stats.transactions += 1;
        self.stats.transaction_times.record(time);
        if self.key.place != Place::Primary {
            self.stats.replica_transactions += 1;
        }
    }

    /// A statement of a cluster's client could not be hidden from what happened.
    pub(crate) fn count_failed(&self) {
        if let Some(shared) = &self.shared.cluster {
            shared.failed.fetch_add(1, Relaxed);
        }
    }

    /// Returns the SQLSTATE that clients get for a transaction that was lost with its server
    /// connection: 40001 (`serialization_failure`) where the cluster's `lost_transaction_error`
    /// says so; otherwise, and outside of a cluster, 57P01 (`admin_shutdown`).
    #[must_use]
    pub fn lost_transaction_code(&self) -> SqlState {
        let chosen = self.config.cluster.as_ref().map(|c| c.config.lost_transaction_error);
        match chosen {
            Some(LostTransactionError::SerializationFailure) => SqlState::SERIALIZATION_FAILURE,
            Some(LostTransactionError::AdminShutdown) | None => SqlState::ADMIN_SHUTDOWN,
        }
    }
}

/// The turns of a new pool, which count in those of its node.
fn turns_of(key: &PoolKey, shared: &SharedPool) -> Turns {
    match (key.place, &shared.cluster) {
        (Place::Node(node), Some(cluster)) => Turns::counted_in(cluster.reads_of(node)),
        _ => Turns::default(),
    }
}

/// What is shared about the writes to the database of a pool; `None` outside of a cluster.
fn writes_of(config: &ResolvedPool, shared: &SharedPool) -> Option<Arc<DatabaseWrites>> {
    shared.cluster.as_ref().map(|cluster| cluster.writes_to(&config.dbname))
}

/// Whether the connections beyond `pool_size` (`reserve_size`) may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// They may not be used: the limit is `pool_size`.
    Kept,
    /// They may be used: a session has waited for `reserve_timeout`, so the limit is `pool_size`
    /// and `reserve_size` together.
    Open,
}

/// Returns the workers that should serve a pool of `size` server connections, of `workers` (at
/// least 1, else it panics): one for each 24 connections or part of it, at least one and at most
/// all. The first is given by the pool's `hash`, so that small pools spread over the workers; the
/// others follow it. The driver moves a client that logs in to the one with the fewest clients of
/// the pool.
pub fn workers_of(hash: u64, size: u32, workers: u16) -> impl Iterator<Item = WorkerId> {
    let used = size.div_ceil(SERVERS_PER_WORKER).clamp(1, u32::from(workers)) as u16;
    let first = (hash % u64::from(workers)) as u16;
    (0..used).map(move |n| WorkerId((first + n) % workers))
}

/// Returns how many of a pool's `size` server connections one worker should have, of `workers` (at
/// least 1): the size divided by the number of workers that [`workers_of`] gives, rounded up; 0 for
/// a size of 0. A worker opens more only when others have none to give, and gives those beyond it
/// to a worker that asks.
#[must_use]
pub fn fair_share(size: u32, workers: u16) -> u32 {
    let used = size.div_ceil(SERVERS_PER_WORKER).clamp(1, u32::from(workers));
    size.div_ceil(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_uses_one_more_worker_for_each_24_servers() {
        assert_eq!(workers_of(5, 24, 4).collect::<Vec<_>>(), [WorkerId(1)]);
        assert_eq!(
            workers_of(7, 60, 4).collect::<Vec<_>>(),
            [WorkerId(3), WorkerId(0), WorkerId(1)]
        );
        assert_eq!(workers_of(7, 100, 2).count(), 2);
        assert_eq!(fair_share(40, 2), 20);
        assert_eq!(fair_share(5, 8), 5);
    }
}
